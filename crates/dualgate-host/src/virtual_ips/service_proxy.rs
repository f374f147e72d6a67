//! Who carries packets for Services to pods on this host: kube-proxy, and in which of its modes.
//!
//! It is told by what kube-proxy leaves in the kernel, whichever distribution runs it: the table `kube-proxy` (nftables),
//! the chain `KUBE-SERVICES` (iptables, by nf_tables or by the legacy tables), the interface `kube-ipvs0` (IPVS, which has
//! chains besides). Proxies that live in eBPF leave nothing of the kind: with them it is `Absent`.
//!
//! Looking costs a few system calls, and changes nothing: the legacy tables are asked only where they exist, as the
//! question alone would make them.

#![expect(unsafe_code, reason = "getsockopt(2) of the legacy tables has no safe form")]

use std::io;
use std::os::fd::AsRawFd;

use dualgate_core::model::ServiceProxy;
use dualgate_wire::nftables::Family;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::data_path::{self, DataPathError};
use crate::netfilter::{Netfilter, NetfilterError};
use crate::network::{Network, NetworkError};

const TABLE: &str = "kube-proxy";
const NAT: &str = "nat";
const CHAIN: &str = "KUBE-SERVICES";
const IPVS: &str = "kube-ipvs0";
/// Of all interfaces: what is set here counts for each of them, unless it has a larger value.
const ARP_IGNORE: &str = "net/ipv4/conf/all/arp_ignore";

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ServiceProxyError {
    /// The kernel's rules.
    #[error(transparent)]
    Netfilter(#[from] NetfilterError),
    /// The kernel's interfaces.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A setting of the kernel.
    #[error(transparent)]
    Setting(#[from] DataPathError),
    /// The legacy tables of iptables.
    #[error("look at the legacy table `nat` of {family}")]
    Legacy {
        /// IPv4 or IPv6.
        family: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Looks at the network of the thread that opened it, and is to be used from there.
#[derive(Debug)]
pub struct Detector {
    netfilter: Netfilter,
    network: Network,
    legacy: [Legacy; 2],
}

impl Detector {
    /// Opens the network of the calling thread.
    ///
    /// # Errors
    ///
    /// If this process may not look at rules there, or the kernel has no nftables.
    pub fn open() -> Result<Self, ServiceProxyError> {
        Ok(Self { netfilter: Netfilter::open()?, network: Network::open()?, legacy: [Legacy::V4, Legacy::V6] })
    }

    /// How it is at this moment.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn detect(&mut self) -> Result<ServiceProxy, ServiceProxyError> {
        if self.network.interfaces()?.iter().any(|interface| interface.name == IPVS) {
            return Ok(ServiceProxy::Ipvs { strict_arp: strict_arp()? });
        }
        let tables = self.netfilter.tables()?;
        for family in [Family::Ip, Family::Ip6] {
            let has = |name| tables.iter().any(|table| table.family == family && table.name == name);
            if has(TABLE) || has(NAT) && self.netfilter.has_chain(family, NAT, CHAIN)? {
                return Ok(ServiceProxy::Translating);
            }
        }
        for legacy in &mut self.legacy {
            let family = legacy.family;
            if legacy.translates().map_err(|source| ServiceProxyError::Legacy { family, source })? {
                return Ok(ServiceProxy::Translating);
            }
        }
        Ok(ServiceProxy::Absent)
    }
}

/// Whether the kernel keeps silent about addresses of other interfaces than the one that was asked
/// (`ip-sysctl`, `arp_ignore`: 1 and 2 do so, 8 answers nothing).
fn strict_arp() -> Result<bool, DataPathError> {
    Ok(matches!(data_path::setting(ARP_IGNORE)?.as_deref(), Some("1" | "2" | "8")))
}

/// The table `nat` of iptables before nf_tables (`include/uapi/linux/netfilter_ipv4/ip_tables.h`).
#[derive(Debug)]
struct Legacy {
    family: &'static str,
    /// Which tables there are.
    names: &'static str,
    socket: AddressFamily,
    level: i32,
    /// What was seen last, as long as the table is of this size.
    known: Option<(Size, bool)>,
}

/// How many rules, and how many octets.
type Size = (u32, u32);

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// `struct ipt_getinfo`: the name, the hooks, where each begins and ends, and the size.
const INFO: usize = 84;
/// `struct ipt_get_entries` before its entries: the name, the size, up to the entries' alignment.
const HEAD: usize = 40;
/// Where the name ends and the size stands.
const NAME: usize = 32;
/// A cluster of tens of thousands of Services has less.
const MOST: usize = 64 << 20;
/// How often the table may change between its size and its entries.
const ATTEMPTS: usize = 5;

impl Legacy {
    const V4: Self = Self {
        family: "IPv4",
        names: "/proc/thread-self/net/ip_tables_names",
        socket: AddressFamily::INET,
        level: libc::IPPROTO_IP,
        known: None,
    };
    const V6: Self = Self {
        family: "IPv6",
        names: "/proc/thread-self/net/ip6_tables_names",
        socket: AddressFamily::INET6,
        level: libc::IPPROTO_IPV6,
        known: None,
    };

    fn translates(&mut self) -> io::Result<bool> {
        let exists = match std::fs::read_to_string(self.names) {
            Ok(names) => names.lines().any(|name| name == NAT),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !exists {
            self.known = None;
            return Ok(false);
        }
        let socket = socket_with(self.socket, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        for _ in 0..ATTEMPTS {
            let mut info = named(INFO);
            read(&socket, self.level, GET_INFO, &mut info)?;
            let size = (number(&info, INFO - 8), number(&info, INFO - 4));
            match self.known {
                Some((known, translates)) if known == size => return Ok(translates),
                Some(_) | None => {}
            }
            let octets = usize::try_from(size.1).unwrap_or(MOST);
            if octets > MOST {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the table has more than 64 MiB"));
            }
            let mut entries = named(HEAD + octets);
            entries[NAME..NAME + 4].copy_from_slice(&size.1.to_ne_bytes());
            match read(&socket, self.level, GET_ENTRIES, &mut entries) {
                Ok(()) => {
                    // The first entry of a chain carries its name.
                    let head = [CHAIN.as_bytes(), &[0]].concat();
                    let translates = entries.windows(head.len()).any(|octets| octets == head);
                    self.known = Some((size, translates));
                    return Ok(translates);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "the table kept changing"))
    }
}

/// So many octets, which begin with the table's name.
fn named(length: usize) -> Vec<u8> {
    let mut octets = vec![0; length];
    octets[..NAT.len()].copy_from_slice(NAT.as_bytes());
    octets
}

fn number(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).and_then(|octets| octets.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The option's answer, for which the question makes room.
fn read(socket: &impl AsRawFd, level: i32, option: i32, octets: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(octets.len()).map_err(io::Error::other)?;
    let (socket, space) = (socket.as_raw_fd(), octets.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `length` octets, which is how many there are, into memory that is ours alone.
    let outcome = unsafe { libc::getsockopt(socket, level, option, space, &raw mut length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
