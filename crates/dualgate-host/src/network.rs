//! Interfaces, addresses and routes of one network namespace, by rtnetlink (netlink(7), rtnetlink(7)).
//!
//! [`Network`] acts on the namespace that its thread was in when it was opened, and only on that one. It blocks: each
//! request is one message and its acknowledgement. Errors name the object and what was to be done with it.

mod local;
mod message;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

pub use local::LocalRoute;

/// Why something of the network could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct NetworkError {
    doing: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl NetworkError {
    /// What was to be done, and what the kernel said.
    pub fn new(doing: impl Into<String>, source: io::Error) -> Self {
        failed(doing)(source)
    }
}

impl From<io::Error> for NetworkError {
    fn from(source: io::Error) -> Self {
        Self::new("use the network", source)
    }
}

/// An interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address, when it is an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// In octets.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether the other side is there.
    pub carrier: bool,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// Its MAC address; `None` lets the kernel choose.
    pub mac: Option<[u8; 6]>,
    /// In octets.
    pub mtu: u32,
    /// The namespace that it appears in.
    pub namespace: BorrowedFd<'a>,
}

/// A route through an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: IpNet,
    /// Through whom; `None` is on the link. It need not be in a subnet of the interface.
    pub via: Option<IpAddr>,
    /// The address to speak from.
    pub source: Option<IpAddr>,
    /// The largest packet in octets, if it is smaller than the interface's.
    pub mtu: Option<u32>,
}

/// The network of one namespace.
#[derive(Debug)]
pub struct Network {
    socket: OwnedFd,
    sequence: u32,
}

/// The protocol of netlink that is rtnetlink: number 0.
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;

/// How a request treats what is there already.
#[derive(Clone, Copy)]
enum Mode {
    /// It must not be there.
    Create,
    /// It is replaced.
    Replace,
    /// It must be there.
    Change,
}

impl Network {
    /// The network of this thread's namespace.
    pub fn open() -> Result<Self, NetworkError> {
        let open = || -> io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE)?;
            bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            Ok(socket)
        };
        let socket = open().map_err(failed("open rtnetlink"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Every interface with its addresses.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, NetworkError> {
        let links = self.dump(message::links()).map_err(failed("list interfaces"))?;
        let addresses = self.dump(message::addresses()).map_err(failed("list addresses"))?;
        let mut interfaces: Vec<Interface> = links.iter().filter_map(message::interface).collect();
        for (index, address) in addresses.iter().filter_map(message::address) {
            let mut owners = interfaces.iter_mut().filter(|interface| interface.index == index);
            if let Some(owner) = owners.next() {
                owner.addresses.push(address);
            }
        }
        Ok(interfaces)
    }

    /// The interface of this name.
    pub fn interface(&mut self, name: &str) -> Result<Interface, NetworkError> {
        let found = self.interfaces()?.into_iter().find(|interface| interface.name == name);
        let absent = || io::Error::new(io::ErrorKind::NotFound, "there is no such interface");
        found.ok_or_else(|| failed(format!("find the interface `{name}`"))(absent()))
    }

    /// Makes a bridge without spanning tree, and switches it on.
    pub fn add_bridge(&mut self, name: &str, mac: Option<[u8; 6]>) -> Result<(), NetworkError> {
        self.request(message::bridge(name, mac), Mode::Create).map_err(failed(format!("add the bridge `{name}`")))
    }

    /// Makes a veth pair, each end in its namespace and switched off.
    pub fn add_veth(&mut self, ends: [&End<'_>; 2]) -> Result<(), NetworkError> {
        let [one, other] = ends.map(|end| (end.name, end.mac, end.mtu, end.namespace.as_fd().as_raw_fd()));
        let doing = format!("add the cable `{}` - `{}`", one.0, other.0);
        self.request(message::veth(one, other), Mode::Create).map_err(failed(doing))
    }

    /// Removes an interface; of a veth pair both ends go.
    pub fn remove(&mut self, name: &str) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        self.request(message::remove(index), Mode::Change).map_err(failed(format!("remove the interface `{name}`")))
    }

    /// Switches an interface on or off.
    pub fn switch(&mut self, name: &str, to: Switch) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        let doing = match to {
            Switch::On => format!("switch `{name}` on"),
            Switch::Off => format!("switch `{name}` off"),
        };
        self.request(message::switch(index, to), Mode::Change).map_err(failed(doing))
    }

    /// Plugs an interface into a bridge.
    pub fn plug(&mut self, name: &str, bridge: &str) -> Result<(), NetworkError> {
        let (index, bridge_index) = (self.index(name)?, self.index(bridge)?);
        let request = message::plug(index, bridge_index);
        self.request(request, Mode::Change).map_err(failed(format!("plug `{name}` into the bridge `{bridge}`")))
    }

    /// Adds an address. It can be used at once: nobody is asked whether they have it (no duplicate address detection).
    pub fn add_address(&mut self, name: &str, address: IpNet, use_: Use) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        let request = message::add_address(index, address, use_);
        self.request(request, Mode::Replace).map_err(failed(format!("add the address {address} to `{name}`")))
    }

    /// Removes an address.
    pub fn remove_address(&mut self, name: &str, address: IpNet) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        let request = message::remove_address(index, address);
        self.request(request, Mode::Change).map_err(failed(format!("remove the address {address} from `{name}`")))
    }

    /// Adds a route through an interface, or replaces the one to the same destination.
    pub fn add_route(&mut self, name: &str, route: &Route) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        let request = message::add_route(index, route);
        self.request(request, Mode::Replace).map_err(failed(format!("add the route to {} through `{name}`", route.to)))
    }

    /// Removes a route.
    pub fn remove_route(&mut self, name: &str, route: &Route) -> Result<(), NetworkError> {
        let index = self.index(name)?;
        let doing = format!("remove the route to {} through `{name}`", route.to);
        self.request(message::remove_route(index, route), Mode::Change).map_err(failed(doing))
    }

    fn index(&mut self, name: &str) -> Result<u32, NetworkError> {
        let found = self.ask(message::link(name)).map_err(failed(format!("find the interface `{name}`")))?;
        let index = found.iter().find_map(message::interface).map(|interface| interface.index);
        let absent = || io::Error::new(io::ErrorKind::NotFound, "there is no such interface");
        index.ok_or_else(|| failed(format!("find the interface `{name}`"))(absent()))
    }

    fn request(&mut self, message: RouteNetlinkMessage, mode: Mode) -> io::Result<()> {
        let flags = match mode {
            Mode::Create => NLM_F_CREATE | NLM_F_EXCL,
            Mode::Replace => NLM_F_CREATE | NLM_F_REPLACE,
            Mode::Change => 0,
        };
        self.exchange(message, NLM_F_ACK | flags).map(drop)
    }

    fn ask(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_ACK)
    }

    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_DUMP)
    }

    /// Sends one message and reads until its acknowledgement, or the end of its dump.
    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        sendto(&self.socket, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answers = Vec::new();
        let mut space = vec![0; 64 * 1024];
        loop {
            let (length, _) = recv(self.socket.as_fd(), &mut space[..], RecvFlags::empty())?;
            if self.read(&space[..length], &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads one datagram; whether it was the last.
    fn read(&self, mut datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let broken = |error: netlink_packet_core::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
        while !datagram.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).map_err(broken)?;
            let length = (message.header.length as usize).next_multiple_of(4).clamp(16, usize::MAX);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// What an address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To answer, and to speak from.
    Both,
    /// To answer only: a virtual IP, which may go elsewhere. IPv6 never chooses it as source (RFC 6724 rule 3); IPv4 does
    /// not while another address is in the same subnet.
    Answer,
}

/// Whether an interface is switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError { doing: doing.into(), source }
}
