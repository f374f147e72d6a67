//! Whatever is there, it becomes as planned; and what was made is taken away again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use dualgate_host::namespace;
use dualgate_host::netfilter::Netfilter;
use dualgate_host::network::{End, LocalRoute, Network, Switch, Use};
use dualgate_host::virtual_ips::data_path::{Change, DataPath, DataPathError, Kernel, PROTOCOL, TABLE, Tunnelled};
use dualgate_wire::nftables::{Change as RuleChange, Family, Ownership, Table};

use crate::lan::{BOTH, LAN, PATIENCE, V4, net};
use crate::nft::{nft, same_for_nft};

const FORMER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 7, 11)), IpAddr::V6(std::net::Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 11))];

/// All that a path can hold.
fn everything() -> DataPath {
    let edges = [("192.168.7.200", "192.168.7.12"), ("fd07::200", "fd07::12")];
    let tunnelled = edges.map(|(address, source)| Tunnelled {
        address: address.parse().expect("an address"),
        interface: "dualgate".to_owned(),
        source: source.parse().expect("an address"),
    });
    DataPath { relays: BOTH.into_iter().zip(FORMER).collect(), tunnelled: tunnelled.into(), ..standing_by() }
}

fn standing_by() -> DataPath {
    DataPath {
        local: BOTH.into(),
        silent: BTreeSet::from([V4, Ipv4Addr::new(192, 168, 7, 101)]),
        own: [(LAN.to_owned(), Ipv4Addr::new(192, 168, 7, 12))].into(),
        ..DataPath::default()
    }
}

/// A cable to another host, which is there as long as its handle.
fn cable() -> (Network, OwnedFd) {
    let mut network = Network::open().expect("rtnetlink");
    let (here, there) = (namespace::current_network().expect("this network"), namespace::network().expect("another"));
    let end = |name, namespace| End { name, mac: None, mtu: 1500, namespace };
    network.add_veth([&end(LAN, here.as_fd()), &end("far", there.as_fd())]).expect("a cable");
    let far =
        || Network::open().and_then(|mut network| network.switch("far", Switch::On)).map_err(std::io::Error::other);
    namespace::in_network(there.as_fd(), far).expect("the far end");
    (network, there)
}

fn forward() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{setting}"), "1").expect("a setting");
    }
}

/// The families that have a table of this name, and the addresses that are local by our routes.
fn there() -> (Vec<Family>, Vec<IpAddr>) {
    let mut netfilter = Netfilter::open().expect("nftables");
    let tables = netfilter.tables().expect("a listing").into_iter().filter(|table| table.name == TABLE);
    let mut families: Vec<_> = tables.map(|table| table.family).collect();
    families.sort();
    let routes = Network::open().and_then(|mut network| network.local_routes()).expect("a listing");
    (families, routes.into_iter().filter(|route| route.protocol == PROTOCOL).map(|route| route.address).collect())
}

pub fn a_path_is_made_once_and_taken_away_without_a_trace() {
    forward();
    let all = vec![Family::Ip, Family::Ip6, Family::Arp];
    for mut kernel in [Kernel::open().expect("nftables"), Kernel::open_shared().expect("nftables")] {
        for path in [standing_by(), everything(), standing_by()] {
            assert!(!kernel.converge(&path).unwrap_or_else(|error| panic!("{error}")).is_empty());
            assert_eq!(there(), (all.clone(), BOTH.to_vec()));
            assert_eq!(kernel.converge(&path).expect("nothing to do"), []);
        }
        let mut family_of_one = standing_by();
        family_of_one.local.retain(IpAddr::is_ipv6);
        family_of_one.silent.clear();
        kernel.converge(&family_of_one).expect("IPv6 only");
        assert_eq!(there(), (vec![Family::Ip6], vec![BOTH[1]]));
        kernel.converge(&DataPath::default()).expect("nothing is left");
        assert_eq!(there(), (vec![], vec![]));
        assert_eq!(kernel.converge(&DataPath::default()).expect("nothing to do"), []);
    }
}

pub fn silence_comes_before_routes_and_goes_after_them() {
    let steps = |changes: Vec<Change>| -> Vec<String> {
        let silent = |table: &Table| format!("{:?}", table.sets[0].elements).matches("first").count();
        let step = |change: &Change| match change {
            Change::Table(table) if table.family == Family::Arp => format!("{} silent", silent(table)),
            other => other.to_string(),
        };
        changes.iter().map(step).collect()
    };
    let only = |last: u8| {
        let address = Ipv4Addr::new(192, 168, 7, last);
        DataPath { local: [address.into()].into(), silent: [address].into(), ..DataPath::default() }
    };
    let mut kernel = Kernel::open().expect("nftables");
    let coming = steps(kernel.converge(&only(100)).expect("one address"));
    assert_eq!(coming, ["1 silent", "write the table `ip dualgate`", "take packets to 192.168.7.100"]);
    let another = steps(kernel.converge(&only(101)).expect("another"));
    let expected = ["2 silent", "no longer take packets to 192.168.7.100", "take packets to 192.168.7.101", "1 silent"];
    assert_eq!(another, expected);
    let leaving = steps(kernel.converge(&DataPath::default()).expect("none"));
    let expected = [
        "remove the table `ip dualgate`",
        "no longer take packets to 192.168.7.101",
        "remove the table `arp dualgate`",
    ];
    assert_eq!(leaving, expected);
    // Another one is silent from before its route; that which stays says nothing meanwhile.
    kernel.converge(&only(100)).expect("one address");
    let both =
        DataPath { local: BTreeSet::from([100, 101].map(|n| Ipv4Addr::new(192, 168, 7, n).into())), ..only(100) };
    let both = DataPath { silent: [100, 101].map(|n| Ipv4Addr::new(192, 168, 7, n)).into(), ..both };
    assert_eq!(steps(kernel.converge(&both).expect("two")), ["2 silent", "take packets to 192.168.7.101"]);
}

pub fn a_successor_finds_what_a_predecessor_left() {
    forward();
    Kernel::open().expect("nftables").converge(&everything()).expect("a path");
    let mut successor = Kernel::open().expect("nftables");
    let changes = successor.converge(&standing_by()).expect("a path");
    // What it shares with its predecessor goes on meanwhile: no route goes.
    assert!(changes.iter().all(|change| matches!(change, Change::Table(_))), "{changes:?}");
    assert_eq!(successor.converge(&standing_by()).expect("nothing to do"), []);
    drop(successor);
    Kernel::open().expect("nftables").converge(&DataPath::default()).expect("nothing is left");
    assert_eq!(there(), (vec![], vec![]));
}

pub fn what_others_remove_is_restored() {
    let mut kernel = Kernel::open_shared().expect("nftables");
    kernel.converge(&standing_by()).expect("a path");
    let mut others = Netfilter::open_shared().expect("nftables");
    let delete = |family| RuleChange::Delete { family, name: TABLE.to_owned() };
    others.apply(&[delete(Family::Arp), delete(Family::Ip)]).expect("they go");
    let mut network = Network::open().expect("rtnetlink");
    network.remove_local_route(BOTH[0], PROTOCOL).expect("it goes");
    let changes = kernel.converge(&standing_by()).expect("restored");
    assert!(matches!(changes.as_slice(), [Change::Table(_), Change::Table(_), Change::Route(_)]), "{changes:?}");
    assert_eq!(kernel.converge(&standing_by()).expect("nothing to do"), []);
}

pub fn a_flush_of_everything_passes_owned_tables_by() {
    let mut kernel = Kernel::open().expect("nftables");
    kernel.converge(&standing_by()).expect("a path");
    let Some(flush) = nft(&["flush", "ruleset"], "") else { return };
    assert!(flush.status.success(), "{flush:?}");
    assert_eq!(kernel.converge(&standing_by()).expect("nothing to do"), []);
}

pub fn a_table_of_somebody_else_is_left_alone() {
    let mut others = Netfilter::open().expect("nftables");
    for family in [Family::Arp, Family::Ip, Family::Ip6] {
        let theirs = Table::new(family, TABLE);
        others.apply(&[RuleChange::Replace(theirs.clone())]).expect("a table");
        let refused = Kernel::open().expect("nftables").converge(&standing_by()).expect_err("it is theirs");
        assert!(matches!(refused, DataPathError::Foreign { family: at } if at == family), "{refused}");
        assert!(refused.to_string().contains(&format!("nft delete table {family} dualgate")), "{refused}");
        assert_eq!(others.differences(&theirs).expect("a listing"), []);
        others.apply(&[RuleChange::Delete { family, name: TABLE.to_owned() }]).expect("it goes");
    }
    assert_eq!(there(), (vec![], vec![]));
}

pub fn a_table_of_another_running_process_is_left_alone() {
    let mut first = Kernel::open().expect("nftables");
    first.converge(&standing_by()).expect("a path");
    let mut second = Kernel::open().expect("nftables");
    let refused = second.converge(&DataPath::default()).expect_err("it is the first one's");
    assert!(matches!(refused, DataPathError::Taken { family: Family::Arp, .. }), "{refused}");
    assert_eq!(first.converge(&standing_by()).expect("nothing to do"), []);
    drop(first);
    second.converge(&DataPath::default()).expect("the first one is gone");
    assert_eq!(there(), (vec![], vec![]));
}

pub fn an_address_that_an_interface_has_is_named_and_the_others_come() {
    let (mut network, _there) = cable();
    for (address, bits, other) in [(BOTH[0], 24, BOTH[1]), (BOTH[1], 64, BOTH[0])] {
        network.add_address(LAN, net(address, bits), Use::Both).expect("an address");
        network.switch(LAN, Switch::On).expect("a cable");
        comes(&mut network, address);
        let mut kernel = Kernel::open().expect("nftables");
        for _ in 0..2 {
            let refused = kernel.converge(&standing_by()).expect_err("the interface has it");
            let text = refused.to_string();
            assert!(text.contains(&format!("{address} is an address of this host already (`{LAN}`)")), "{text}");
            assert_eq!(there().1, [other]);
        }
        network.remove_address(LAN, net(address, bits)).expect("it goes");
        kernel.converge(&standing_by()).expect("it is free");
        assert_eq!(there().1, BOTH);
        // Whoever adds it later is told of, too. (Of IPv4, the kernel has no second route to it then.)
        if address.is_ipv6() {
            network.add_address(LAN, net(address, bits), Use::Both).expect("an address");
            comes(&mut network, address);
            let refused = kernel.converge(&standing_by()).expect_err("the interface has it");
            assert!(matches!(refused, DataPathError::Occupied { address: at, .. } if at == address), "{refused}");
            network.remove_address(LAN, net(address, bits)).expect("it goes");
        }
        kernel.converge(&DataPath::default()).expect("nothing is left");
    }
}

/// The kernel makes an address of IPv6 local a little after it was added.
fn comes(network: &mut Network, address: IpAddr) {
    let begin = Instant::now();
    let is_it = |route: &LocalRoute| route.address == address && route.protocol != PROTOCOL;
    while !network.local_routes().expect("a listing").iter().any(is_it) {
        assert!(begin.elapsed() < PATIENCE, "{address} does not come");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn the_words_of_its_tables_are_read_by_nft() {
    forward();
    let mut kernel = Kernel::open().expect("nftables");
    let changes = kernel.converge(&everything()).expect("a path");
    kernel.converge(&DataPath::default()).expect("nothing is left");
    drop(kernel);
    let mut others = Netfilter::open_shared().expect("nftables");
    let tables = changes.into_iter().filter_map(|change| match change {
        Change::Table(table) => Some(Table { ownership: Ownership::Shared, ..table }),
        Change::NoTable(_) | Change::Forget(_) | Change::Route(_) | Change::NoRoute(_) => None,
    });
    let tables: Vec<_> = tables.collect();
    assert_eq!(tables.len(), 3);
    for table in tables {
        others.apply(&[RuleChange::Replace(table.clone())]).expect("a table");
        same_for_nft(&table);
    }
}

pub fn settings_in_the_way_are_named() {
    let mut kernel = Kernel::open().expect("nftables");
    let refusal = |kernel: &mut Kernel, path: &DataPath| kernel.converge(path).expect_err("a setting").to_string();
    for (setting, name) in
        [("ipv4/ip_forward", "net.ipv4.ip_forward"), ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding")]
    {
        let text = refusal(&mut kernel, &everything());
        assert!(text.contains(&format!("set `{name} = 1`")), "{text}");
        // All else is done nevertheless.
        assert_eq!(there().1, BOTH);
        std::fs::write(format!("/proc/sys/net/{setting}"), "1").expect("a setting");
    }
    assert_eq!(kernel.converge(&everything()).expect("nothing to do"), []);
    let loose = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";
    std::fs::write(loose, "0").expect("a setting");
    let text = refusal(&mut kernel, &everything());
    assert!(text.contains("set `net.netfilter.nf_conntrack_tcp_loose = 1`"), "{text}");
    kernel.converge(&standing_by()).expect("without relays it does not matter");
    let mixed = DataPath { relays: [(BOTH[0], BOTH[1])].into(), ..standing_by() };
    assert!(refusal(&mut kernel, &mixed).contains("are not of one family"));
}
