//! kube-proxy, as what it leaves in the kernel.

use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::process::Command;

use dualgate_core::model::ServiceProxy;
use dualgate_host::namespace;
use dualgate_host::netfilter::Netfilter;
use dualgate_host::network::{End, Network};
use dualgate_host::virtual_ips::service_proxy::Detector;
use dualgate_wire::nftables::{Action, Chain, ChainType, Change, Family, Hook, HookPoint, Policy, Rule, Table};

fn detected() -> ServiceProxy {
    Detector::open().and_then(|mut detector| detector.detect()).unwrap_or_else(|error| panic!("{error}"))
}

fn put(table: Table) {
    Netfilter::open_shared().and_then(|mut netfilter| netfilter.apply(&[Change::Replace(table)])).expect("a table");
}

/// The table `nat` as iptables makes it, with this chain.
fn nat(family: Family, chain: &str) -> Table {
    let mut table = Table::new(family, "nat");
    let (kind, at) = (ChainType::Nat, HookPoint::Prerouting);
    let hook = Hook { kind, at, priority: -100, policy: Policy::Accept };
    table.chains.push(Chain::base("PREROUTING", hook, vec![Rule::new(vec![], Action::Jump(chain.to_owned()))]));
    table.chains.push(Chain::regular(chain, vec![]));
    table
}

pub fn without_kube_proxy_there_is_none() {
    assert_eq!(detected(), ServiceProxy::Absent);
    // What others translate is not its doing.
    put(nat(Family::Ip, "DOCKER"));
    put(Table::new(Family::Inet, "kube-proxy"));
    assert_eq!(detected(), ServiceProxy::Absent);
    // Looking makes no legacy table.
    let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    assert_eq!(names, "");
}

pub fn its_table_tells_of_nftables() {
    let mut detector = Detector::open().expect("nftables");
    for family in [Family::Ip, Family::Ip6] {
        assert_eq!(detector.detect().expect("an answer"), ServiceProxy::Absent);
        put(Table::new(family, "kube-proxy"));
        assert_eq!(detector.detect().expect("an answer"), ServiceProxy::Translating);
        let gone = Change::Delete { family, name: "kube-proxy".to_owned() };
        Netfilter::open_shared().and_then(|mut netfilter| netfilter.apply(&[gone])).expect("it goes");
    }
}

pub fn its_chain_tells_of_iptables() {
    for family in [Family::Ip, Family::Ip6] {
        put(nat(family, "KUBE-SERVICES"));
        assert_eq!(detected(), ServiceProxy::Translating);
        put(nat(family, "KUBE-SERVICE"));
        assert_eq!(detected(), ServiceProxy::Absent);
    }
}

pub fn its_chain_tells_of_legacy_iptables() {
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        let run = |arguments: &[&str]| match Command::new(program).args(["-w", "-t", "nat"]).args(arguments).output() {
            Ok(output) => output.status.success(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{program}: {error}"),
        };
        if !run(&["-N", "DOCKER"]) {
            eprintln!("SKIPPED: host::data_path_legacy: no {program}, or a kernel without legacy tables");
            return;
        }
        let mut detector = Detector::open().expect("nftables");
        for _ in 0..2 {
            assert_eq!(detector.detect().expect("an answer"), ServiceProxy::Absent);
        }
        assert!(run(&["-N", "KUBE-SERVICES"]));
        for _ in 0..2 {
            assert_eq!(detector.detect().expect("an answer"), ServiceProxy::Translating, "{program}");
        }
        assert!(run(&["-X", "KUBE-SERVICES"]));
        assert_eq!(detector.detect().expect("an answer"), ServiceProxy::Absent);
    }
}

pub fn its_interface_tells_of_ipvs() {
    // Besides, there are its chains.
    put(nat(Family::Ip, "KUBE-SERVICES"));
    let mut network = Network::open().expect("rtnetlink");
    let (here, there) = (namespace::current_network().expect("this network"), namespace::network().expect("another"));
    let end = |name, namespace| End { name, mac: None, mtu: 1500, namespace };
    network.add_veth([&end("kube-ipvs0", here.as_fd()), &end("far", there.as_fd())]).expect("an interface");
    for (arp_ignore, strict_arp) in [("0", false), ("1", true), ("2", true), ("3", false)] {
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", arp_ignore).expect("a setting");
        assert_eq!(detected(), ServiceProxy::Ipvs { strict_arp });
    }
}
