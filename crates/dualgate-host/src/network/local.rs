//! Routes by which packets to an address are this host's, without the address being on any interface.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Mode, Network, NetworkError, failed, message};

/// `RT_TABLE_LOCAL`.
const LOCAL: u8 = 255;
/// The interface that such routes lead to.
const LOOPBACK: &str = "lo";

/// An address that is this host's, by a route of the table `local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalRoute {
    /// The address.
    pub address: IpAddr,
    /// The interface that has it; the loopback interface where none has.
    pub interface: String,
    /// Who made it, `RTPROT_*`: the kernel where an interface has the address.
    pub protocol: u8,
}

impl Network {
    /// Every single address that is this host's, whoever made it so.
    ///
    /// # Errors
    ///
    /// If the kernel does not list its routes.
    pub fn local_routes(&mut self) -> Result<Vec<LocalRoute>, NetworkError> {
        let names: HashMap<u32, String> =
            self.interfaces()?.into_iter().map(|interface| (interface.index, interface.name)).collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let listed = self.dump(RouteNetlinkMessage::GetRoute(question)).map_err(failed("list routes"))?;
            routes.extend(listed.iter().filter_map(local).map(|(address, index, protocol)| {
                let interface = names.get(&index).cloned().unwrap_or_default();
                LocalRoute { address, interface, protocol }
            }));
        }
        routes.sort();
        Ok(routes)
    }

    /// Makes an address this host's. It must not be so already.
    ///
    /// # Errors
    ///
    /// If it is (`AlreadyExists`; an IPv6 address that an interface has is no such error), or the kernel refuses.
    pub fn add_local_route(&mut self, address: IpAddr, protocol: u8) -> Result<(), NetworkError> {
        let index = self.index(LOOPBACK)?;
        let request = RouteNetlinkMessage::NewRoute(route(address, index, protocol));
        self.request(request, Mode::Create).map_err(failed(format!("add the local route to {address}")))
    }

    /// Removes what [`Network::add_local_route`] made.
    ///
    /// # Errors
    ///
    /// If there is none, or the kernel refuses.
    pub fn remove_local_route(&mut self, address: IpAddr, protocol: u8) -> Result<(), NetworkError> {
        let index = self.index(LOOPBACK)?;
        let request = RouteNetlinkMessage::DelRoute(route(address, index, protocol));
        self.request(request, Mode::Change).map_err(failed(format!("remove the local route to {address}")))
    }
}

fn route(address: IpAddr, index: u32, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: message::family(address),
        destination_prefix_length: bits(address),
        table: LOCAL,
        protocol: RouteProtocol::from(protocol),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(message::target(address)));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// What a message says of a local route to one address: the address, the interface's number, who made it.
fn local(message: &RouteNetlinkMessage) -> Option<(IpAddr, u32, u8)> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    let header = &route.header;
    if header.table != LOCAL || header.kind != RouteType::Local {
        return None;
    }
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::from(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    let index = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    (header.destination_prefix_length == bits(address)).then_some((address, index, header.protocol.into()))
}
