//! Flows that are open when the virtual IPs move.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;

use dualgate_host::netfilter::Netfilter;
use dualgate_host::virtual_ips::data_path::DataPath;
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::nftables::{
    Action, Chain, ChainType, Change, End, Family, Hook, HookPoint, Match, Policy, Rule, Select, Table, Transport,
};

use crate::lan::{BOTH, END, Echo, Host, Lan, PORT, SIZE, V4, V6, download, is_reset, upload};

/// A client, and nodes A, B and C that serve. Every host drops what does not come in where its answers go out.
fn nodes() -> Lan {
    let lan = Lan::new(&["client", "a", "b", "c"]);
    for (node, name) in lan.hosts[1..].iter().zip(*b"ABC") {
        node.set("ipv4/conf/all/rp_filter", "1");
        node.set("ipv4/conf/lan/rp_filter", "1");
        node.set("ipv4/conf/all/send_redirects", "1");
        // A router, as nodes of a cluster are: what is relayed must not be forwarded as well.
        node.set("ipv4/ip_forward", "1");
        node.set("ipv6/conf/all/forwarding", "1");
        node.serve(name);
        node.converge(node.path()).expect("a path");
    }
    lan.hold(1);
    lan
}

/// The addresses go from one to another, whose path is prepared before.
fn moved(lan: &Lan, from: usize, to: usize) {
    let [from, taker] = [from, to].map(|at| &lan.hosts[at]);
    taker.converge(taker.path_after(from)).expect("a path with relays");
    lan.hold(to);
}

fn echoes(client: &Host) -> Vec<Echo> {
    BOTH.map(|address| Echo::new(client.connect(address).unwrap_or_else(|error| panic!("{address}: {error}")))).into()
}

fn served_by(echoes: &mut [Echo]) -> Vec<u8> {
    echoes.iter_mut().map(|echo| echo.ask().expect("an answer")).collect()
}

/// ICMP errors and redirects, and resets of TCP, among frames from the nodes.
fn complaints(frames: &[Vec<u8>], client: Mac) -> Vec<String> {
    let one = |frame: &Vec<u8>| {
        let (header, packet) = Header::parse(frame).ok()?;
        if header.source == client {
            return None;
        }
        let (protocol, payload) = match header.ether_type {
            EtherType::Other(0x0800) => (*packet.get(9)?, packet.get(20..)?),
            EtherType::Ipv6 => (*packet.get(6)?, packet.get(40..)?),
            EtherType::Arp | EtherType::Other(_) => return None,
        };
        match (protocol, payload.first()?) {
            (1, 3 | 5 | 11) | (58, 1..=4 | 137) => Some(format!("ICMP type {} from {}", payload[0], header.source)),
            (6, _) if payload.get(13)? & 4 != 0 => Some(format!("a reset from {}", header.source)),
            _ => None,
        }
    };
    frames.iter().filter_map(one).collect()
}

pub fn open_flows_go_on_at_the_former_owner_until_the_relay_ends() {
    let lan = nodes();
    let [client, b] = [0, 2].map(|at| &lan.hosts[at]);
    let (mut open, mut idle, ending) = (echoes(client), echoes(client), echoes(client));
    assert_eq!(served_by(&mut open), b"AA");
    assert_eq!(served_by(&mut idle), b"AA");
    let loads = BOTH.map(|address| {
        let connect = || client.connect(address).expect("a connection");
        (download(connect()), upload(connect(), 400))
    });
    open[0].ask().expect("an answer");
    client.seen();
    moved(&lan, 1, 2);
    assert_eq!(served_by(&mut open), b"AA");
    assert_eq!(served_by(&mut echoes(client)), b"BB", "what begins afterwards is B's");
    // Its first packet after the move is its last one.
    ending.into_iter().for_each(Echo::end);
    for (down, up) in loads {
        assert_eq!(down.join().expect("right octets").expect("a download"), SIZE);
        let (sent, counted) = up.join().expect("no panic").expect("an upload");
        assert_eq!(sent, counted);
    }
    assert_eq!(served_by(&mut open), b"AA");
    assert_eq!(complaints(&client.seen(), client.mac), Vec::<String>::new());
    b.converge(b.path()).expect("a path without relays");
    assert!(open.into_iter().all(|mut echo| is_reset(echo.ask())));
    assert!(idle.into_iter().all(|mut echo| is_reset(echo.ask())));
    assert_eq!(served_by(&mut echoes(client)), b"BB");
}

pub fn flows_of_three_owners_go_on_at_each_of_them() {
    let lan = nodes();
    let client = &lan.hosts[0];
    let mut of_a = echoes(client);
    assert_eq!(served_by(&mut of_a), b"AA");
    moved(&lan, 1, 2);
    let mut of_b = echoes(client);
    assert_eq!((served_by(&mut of_a), served_by(&mut of_b)), (b"AA".to_vec(), b"BB".to_vec()));
    moved(&lan, 2, 3);
    let mut of_c = echoes(client);
    for _ in 0..3 {
        assert_eq!(served_by(&mut of_a), b"AA");
        assert_eq!(served_by(&mut of_b), b"BB");
        assert_eq!(served_by(&mut of_c), b"CC");
    }
    // B has ended what it had; what is A's comes through B no longer.
    let b = &lan.hosts[2];
    b.converge(b.path()).expect("a path without relays");
    assert!(of_a.into_iter().all(|mut echo| is_reset(echo.ask())));
    assert_eq!((served_by(&mut of_b), served_by(&mut of_c)), (b"BB".to_vec(), b"CC".to_vec()));
}

pub fn what_began_here_is_known_when_the_address_comes_back() {
    let lan = nodes();
    let client = &lan.hosts[0];
    let mut of_a = echoes(client);
    assert_eq!(served_by(&mut of_a), b"AA");
    moved(&lan, 1, 2);
    let mut of_b = echoes(client);
    assert_eq!((served_by(&mut of_a), served_by(&mut of_b)), (b"AA".to_vec(), b"BB".to_vec()));
    let downloads = BOTH.map(|address| download(client.connect(address).expect("a connection")));
    moved(&lan, 2, 1);
    // A has the addresses again: B relays nothing to it.
    let b = &lan.hosts[2];
    b.converge(b.path()).expect("a path without relays");
    for _ in 0..3 {
        assert_eq!(served_by(&mut of_a), b"AA", "it began here, though another one had it for a while");
        assert_eq!(served_by(&mut of_b), b"BB");
    }
    for download in downloads {
        assert_eq!(download.join().expect("right octets").expect("a download"), SIZE);
    }
    assert_eq!(served_by(&mut echoes(client)), b"AA");
}

/// The server's end of a connection is kept for a minute where it was served (TIME-WAIT), and its flow for two. The client, which
/// ended second, may use the port again at once.
pub fn a_port_that_is_used_again_elsewhere_is_not_taken_for_the_connection_that_had_it_here() {
    let lan = nodes();
    let client = &lan.hosts[0];
    let from = |port: u16| BOTH.map(|address| client.connect_from(port, address).expect("a connection"));
    for mut stream in from(40_000) {
        stream.write_all(&[END]).expect("ask");
        assert_eq!(stream.read(&mut [0]).expect("an end"), 0);
    }
    moved(&lan, 1, 2);
    let mut of_b: Vec<Echo> = from(40_000).map(Echo::new).into();
    assert_eq!(served_by(&mut of_b), b"BB");
    moved(&lan, 2, 1);
    let b = &lan.hosts[2];
    b.converge(b.path()).expect("a path without relays");
    for _ in 0..3 {
        assert_eq!(served_by(&mut of_b), b"BB");
    }
    assert_eq!(served_by(&mut echoes(client)), b"AA");
}

/// As kube-proxy does it: the address is on no interface and has no route, its packets go elsewhere.
pub fn translated_flows_go_on_at_the_former_owner() {
    let lan = Lan::new(&["client", "a", "b"]);
    let client = &lan.hosts[0];
    for (node, name) in lan.hosts[1..].iter().zip(*b"AB") {
        for (family, address) in [(Family::Ip, BOTH[0]), (Family::Ip6, BOTH[1])] {
            let to = node.own(address);
            node.serve_at((to, 8080).into(), name);
            node.namespace.run(move || {
                let table = translation(family, address, to);
                let mut netfilter = Netfilter::open_shared().expect("nftables");
                netfilter.apply(&[Change::Replace(table)]).expect("a translation");
            });
        }
        node.converge(DataPath { local: [].into(), ..node.path() }).expect("a path");
    }
    lan.hold(1);
    let mut of_a = echoes(client);
    assert_eq!(served_by(&mut of_a), b"AA");
    let [a, b] = [1, 2].map(|at| &lan.hosts[at]);
    b.converge(DataPath { local: [].into(), ..b.path_after(a) }).expect("a path with relays");
    lan.hold(2);
    let mut of_b = echoes(client);
    for _ in 0..3 {
        assert_eq!((served_by(&mut of_a), served_by(&mut of_b)), (b"AA".to_vec(), b"BB".to_vec()));
    }
    of_a.into_iter().for_each(Echo::end);
}

fn translation(family: Family, from: IpAddr, to: IpAddr) -> Table {
    let destination = match from {
        IpAddr::V4(address) => Match::Ip(End::Destination, Select::one(address)),
        IpAddr::V6(address) => Match::Ip6(End::Destination, Select::one(address)),
    };
    let port = Match::Port(Transport::Tcp, End::Destination, Select::one(PORT));
    let rule = Rule::new(vec![destination, port], Action::Dnat { to, port: Some(8080) });
    let (kind, at) = (ChainType::Nat, HookPoint::Prerouting);
    let hook = Hook { kind, at, priority: -100, policy: Policy::Accept };
    let mut table = Table::new(family, "kube-proxy");
    table.chains.push(Chain::base("services", hook, vec![rule]));
    table
}

/// Ten moves under load, each after the last: nothing is reset, nothing is lost.
pub fn an_address_that_goes_to_and_fro_loses_no_octet() {
    let lan = nodes();
    let client = &lan.hosts[0];
    let mut flows: Vec<(Vec<Echo>, u8)> = Vec::new();
    let downloads = [V4.into(), V6.into()].map(|to| download(client.connect(to).expect("a connection")));
    client.seen();
    let mut holder = 1;
    for _ in 0..10 {
        let mut opened = echoes(client);
        let name = b"-ABC"[holder];
        assert_eq!(served_by(&mut opened), [name, name]);
        flows.push((opened, name));
        let former = holder;
        holder = if holder == 1 { 2 } else { 1 };
        moved(&lan, former, holder);
        let former = &lan.hosts[former];
        former.converge(former.path()).expect("a path without relays");
        for (flow, name) in &mut flows {
            assert_eq!(served_by(flow), [*name, *name]);
        }
    }
    for download in downloads {
        assert_eq!(download.join().expect("right octets").expect("a download"), SIZE);
    }
    flows.into_iter().flat_map(|(flow, _)| flow).for_each(Echo::end);
    assert_eq!(complaints(&client.seen(), client.mac), Vec::<String>::new());
}
