//! The interface of the tunnel: where the host's packets come from and go to, many in one system call.
//!
//! A TUN device with offload where /dev/net/tun opens; else a cable (veth) into an empty network, at whose far end a packet
//! socket takes and gives the same large frames. Both disappear with this process, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use dualgate_host::namespace::{current_network, in_network, network};
use dualgate_host::network::{End, Network, Switch};

use super::offload::{self, Offload};
use super::option::{self, InterfaceIoctl, InterfaceRequest};

/// Of linux/if_tun.h.
const TUN_OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04;
const TUN_USO: libc::c_ulong = 0x20 | 0x40;
/// Frames that may wait; the kernel's 500 are too few for a fast sender.
const QUEUE: u32 = 1000;

const ETHERNET: usize = 14;
const ALL_PROTOCOLS: u16 = 3;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Of both ends, in the space that is nobody's: the host's end, the engine's end. Two of them: the far network drops what
/// is not for its own end, and so never routes.
pub const MACS: [[u8; 6]; 2] = [[2, 0xd6, 0x77, 0, 0, 1], [2, 0xd6, 0x77, 0, 0, 2]];
const BUFFER: usize = 8 << 20;

/// The largest frame with all that stands in front of it.
pub const SPACE: usize = offload::LENGTH + ETHERNET + 65_536 + 256;

/// The interface, seen from the engine.
#[derive(Debug)]
pub struct Inner {
    file: File,
    name: String,
    link: Link,
    /// Whether the kernel takes merged UDP.
    udp: bool,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    /// Frames begin with the IP header.
    Tun,
    /// Frames have an Ethernet header; the far end's index.
    Cable(i32),
}

/// A frame that was read.
#[derive(Debug)]
pub struct Frame<'a> {
    /// What is left to be done.
    pub offload: Offload,
    /// From the IP header on.
    pub packet: &'a mut [u8],
}

impl Inner {
    /// A TUN device.
    pub fn tun(name: &str, mtu: u16) -> io::Result<Self> {
        let open = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = open()?;
        let mut request = InterfaceRequest::new(name)?;
        // Not one that is there already.
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        request.value[..2].copy_from_slice(&(flags as u16).to_ne_bytes());
        request.perform(file.as_fd(), InterfaceIoctl::TUNSETIFF)?;
        // Linux 6.2 cuts UDP as well.
        let udp = option::tun_offload(file.as_fd(), TUN_OFFLOADS | TUN_USO).is_ok();
        if !udp {
            option::tun_offload(file.as_fd(), TUN_OFFLOADS)?;
        }
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        tell(socket.as_fd(), name, InterfaceIoctl::SIOCSIFMTU, mtu.into())?;
        // Only root of the machine may; the shorter queue works as well.
        let _ = tell(socket.as_fd(), name, InterfaceIoctl::SIOCSIFTXQLEN, QUEUE);
        quiet(name);
        switch_on(name)?;
        Ok(Self { file, name: name.to_owned(), link: Link::Tun, udp })
    }

    /// A cable.
    pub fn cable(name: &str, mtu: u16) -> io::Result<Self> {
        let (here, there) = (current_network()?, network()?);
        let end = |mac, namespace| End { name, mac: Some(mac), mtu: mtu.into(), namespace };
        let ends = [end(MACS[0], here.as_fd()), end(MACS[1], there.as_fd())];
        Network::open().and_then(|mut network| network.add_veth([&ends[0], &ends[1]])).map_err(flatten)?;
        // What fails from here on takes the cable along with its far end's network.
        let inner = Self::attach(name, there.as_fd())?;
        no_arp(name)?;
        quiet(name);
        switch_on(name)?;
        Ok(inner)
    }

    /// The packet socket at the far end, which has the interface's name as well.
    fn attach(name: &str, network: BorrowedFd<'_>) -> io::Result<Self> {
        let (socket, index) = in_network(network, || {
            quiet(name);
            switch_on(name)?;
            let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None)?;
            socket.set_nonblocking(true)?;
            let mut request = InterfaceRequest::new(name)?;
            request.perform(socket.as_fd(), InterfaceIoctl::SIOCGIFINDEX)?;
            let index = i32::from_ne_bytes([request.value[0], request.value[1], request.value[2], request.value[3]]);
            option::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
            option::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
            option::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
            option::buffers(socket.as_fd(), BUFFER);
            bind(&socket, index)?;
            Ok((socket, index))
        })?;
        let file = File::from(OwnedFd::from(socket));
        Ok(Self { file, name: name.to_owned(), link: Link::Cable(index), udp: true })
    }

    /// Reads one frame; `None` if nothing waits. Errors mean that the interface is gone.
    pub fn read<'a>(&mut self, space: &'a mut [u8]) -> io::Result<Option<Frame<'a>>> {
        let length = match self.file.read(space) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // It was switched off, or removed.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return self.is_there().map(|()| None),
            Err(error) => return Err(error),
        };
        let link = self.link_length();
        let Some((header, frame)) = space[..length].split_first_chunk_mut::<{ offload::LENGTH }>() else {
            return Ok(Some(Frame::empty()));
        };
        let offload = Offload::read(*header).and_then(|offload| offload.without(link as u16));
        match (offload, frame.get_mut(link..)) {
            (Some(offload), Some(packet)) => Ok(Some(Frame { offload, packet })),
            _ => Ok(Some(Frame::empty())),
        }
    }

    /// Writes one frame. An interface that is switched off takes none.
    pub fn write(&mut self, offload: Offload, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let first = parts.iter().find_map(|part| part.first()).copied().unwrap_or(0);
        let mut head = [0; offload::LENGTH + ETHERNET];
        let link = self.link_length();
        head[..offload::LENGTH].copy_from_slice(&offload.write(link as u16));
        let ethernet = &mut head[offload::LENGTH..];
        ethernet[..6].copy_from_slice(&MACS[0]);
        ethernet[6..12].copy_from_slice(&MACS[1]);
        ethernet[12..].copy_from_slice(if first >> 4 == 4 { &IPV4 } else { &IPV6 });
        let mut all = [IoSlice::new(&[]); 72];
        all[0] = IoSlice::new(&head[..offload::LENGTH + link]);
        for (slot, part) in all[1..].iter_mut().zip(parts) {
            *slot = IoSlice::new(part);
        }
        let count = (1 + parts.len()).min(all.len());
        self.file.write_vectored(&all[..count]).map(drop)
    }

    /// Whether merged UDP may be written.
    pub fn takes_merged_udp(&self) -> bool {
        self.udp
    }

    /// It does not.
    pub fn refuse_merged_udp(&mut self) {
        self.udp = false;
    }

    fn link_length(&self) -> usize {
        match self.link {
            Link::Tun => 0,
            Link::Cable(_) => ETHERNET,
        }
    }

    fn is_there(&self) -> io::Result<()> {
        let Link::Cable(index) = self.link else { return Ok(()) };
        let mut request = InterfaceRequest::unnamed();
        request.value[..4].copy_from_slice(&index.to_ne_bytes());
        request.perform(self.file.as_fd(), InterfaceIoctl::SIOCGIFNAME)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A TUN device goes with its descriptor, a cable with its network; but that takes a moment.
        if let Link::Cable(_) = self.link {
            let _ = Network::open().and_then(|mut network| network.remove(&self.name));
        }
    }
}

impl AsFd for Inner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Frame<'_> {
    /// What is no packet at all.
    fn empty() -> Self {
        Self { offload: Offload::default(), packet: &mut [] }
    }
}

fn tell(socket: BorrowedFd<'_>, name: &str, what: InterfaceIoctl, value: u32) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name)?;
    request.value[..4].copy_from_slice(&value.to_ne_bytes());
    request.perform(socket, what)
}

/// Nobody answers ARP or NDP at the other end.
fn no_arp(name: &str) -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let mut request = InterfaceRequest::new(name)?;
    request.perform(socket.as_fd(), InterfaceIoctl::SIOCGIFFLAGS)?;
    let flags = u16::from_ne_bytes([request.value[0], request.value[1]]) | libc::IFF_NOARP as u16;
    request.value[..2].copy_from_slice(&flags.to_ne_bytes());
    request.perform(socket.as_fd(), InterfaceIoctl::SIOCSIFFLAGS)
}

/// No link-local address, so nothing is sent that no peer wants. Where settings are read-only there is one, which does no
/// harm.
fn quiet(name: &str) {
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
}

fn switch_on(name: &str) -> io::Result<()> {
    Network::open().and_then(|mut network| network.switch(name, Switch::On)).map_err(flatten)
}

fn flatten(error: dualgate_host::network::NetworkError) -> io::Error {
    io::Error::new(error.source.kind(), format!("{error}: {}", error.source))
}

#[expect(unsafe_code, reason = "no library makes the address of a packet socket")]
fn bind(socket: &socket2::Socket, index: i32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ALL_PROTOCOLS.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: a `sockaddr_ll` fits into a `sockaddr_storage`, and the length says how much of it is written.
    let ((), address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    socket.bind(&address)
}
