//! The messages of rtnetlink that [`super::Network`] sends and reads.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Interface, Route, Switch, Use};

pub fn links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

pub fn addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

pub fn link(name: &str) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(with(vec![LinkAttribute::IfName(name.to_owned())]))
}

pub fn bridge(name: &str, mac: Option<[u8; 6]>) -> RouteNetlinkMessage {
    // Ports forward at once, and neighbour discovery reaches every port without a querier.
    let data = InfoData::Bridge(vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)]);
    let mut message = with(vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)]),
    ]);
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    set_up(&mut message, Switch::On);
    RouteNetlinkMessage::NewLink(message)
}

type End<'a> = (&'a str, Option<[u8; 6]>, u32, RawFd);

pub fn veth(one: End<'_>, other: End<'_>) -> RouteNetlinkMessage {
    let mut message = end(one);
    let peer = InfoData::Veth(InfoVeth::Peer(end(other)));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
    RouteNetlinkMessage::NewLink(message)
}

fn end((name, mac, mtu, namespace): End<'_>) -> LinkMessage {
    let mut message =
        with(vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::Mtu(mtu), LinkAttribute::NetNsFd(namespace)]);
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message
}

pub fn remove(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(of(index, Vec::new()))
}

pub fn switch(index: u32, to: Switch) -> RouteNetlinkMessage {
    let mut message = of(index, Vec::new());
    set_up(&mut message, to);
    RouteNetlinkMessage::SetLink(message)
}

pub fn plug(index: u32, bridge: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(of(index, vec![LinkAttribute::Controller(bridge)]))
}

fn with(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn of(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = with(attributes);
    message.header.index = index;
    message
}

fn set_up(message: &mut LinkMessage, to: Switch) {
    message.header.change_mask |= LinkFlags::Up;
    match to {
        Switch::On => message.header.flags |= LinkFlags::Up,
        Switch::Off => message.header.flags.remove(LinkFlags::Up),
    }
}

pub fn add_address(index: u32, address: IpNet, use_: Use) -> RouteNetlinkMessage {
    let mut message = address_message(index, address);
    match use_ {
        Use::Both => {}
        Use::Answer if address.addr().is_ipv4() => {}
        Use::Answer => {
            // Valid for ever, and deprecated from the start.
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
    }
    RouteNetlinkMessage::NewAddress(message)
}

pub fn remove_address(index: u32, address: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(address_message(index, address))
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.header.scope = if address.addr().is_loopback() { AddressScope::Host } else { AddressScope::Universe };
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
    }
    message
}

pub fn add_route(index: u32, route: &Route) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewRoute(route_message(index, route))
}

pub fn remove_route(index: u32, route: &Route) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelRoute(route_message(index, route))
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let on_link = route.via.is_none() && route.to.addr().is_ipv4();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(route.to.addr()),
        destination_prefix_length: route.to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if on_link { RouteScope::Link } else { RouteScope::Universe },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(target(route.to.network())));
    message.attributes.push(RouteAttribute::Oif(index));
    if let Some(via) = route.via {
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(target(via)));
    }
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(target(source))));
    message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

pub fn target(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

pub fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// What a message says of an interface.
pub fn interface(message: &RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: link.header.flags.contains(LinkFlags::Up),
        carrier: link.header.flags.contains(LinkFlags::LowerUp),
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(mac) if link.header.link_layer_type == LinkLayerType::Ether => {
                interface.mac = mac.as_slice().try_into().ok();
            }
            _ => {}
        }
    }
    Some(interface)
}

/// What a message says of an address: the number of its interface, and the address with its prefix.
pub fn address(message: &RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(entry) = message else { return None };
    // Of a point-to-point interface `Address` is the other side.
    let local = entry.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = entry.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let net = IpNet::new(local.or(any)?, entry.header.prefix_len).ok()?;
    Some((entry.header.index, net))
}
