//! The tunnel's plan: cases, and what holds for every site.
//!
//! A case file holds cases: a line `=== what it shows`, a site file (its head is added), perhaps a line `--- objects`
//! and manifests, and sections of what comes of it: `--- NODE` is a node's plan, `--- NODE, IPv4 only` that of a site
//! without IPv6, `--- fritzbox router` an export, `--- fritzbox router edge` one for a single edge, `--- findings` what
//! is wrong. `DUALGATE_BLESS=1 cargo test -p dualgate-core --test tunnel` writes what is found; review the difference.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use dualgate_core::check;
use dualgate_core::model::site::{HomeEnd, Site};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Family, NodeName, ObjectSet, Snapshot};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::site;
use dualgate_core::plan::tunnel::export::{Format, export};
use dualgate_core::plan::tunnel::{self, PeerName, TunnelPlan};
use ipnet::IpNet;
use proptest::prelude::*;

const HEAD: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\ngates: {internal: {}, external: {}}\n";

struct Case<'a> {
    title: &'a str,
    site: &'a str,
    objects: &'a str,
    /// Title and text of what is expected.
    sections: Vec<(&'a str, &'a str)>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let text = text.strip_prefix("=== ").expect("a file starts with a case");
    text.split("\n=== ").map(case).collect()
}

fn case(text: &str) -> Case<'_> {
    let mut parts = text.split("\n--- ");
    let (title, site) = parts.next().unwrap().split_once('\n').expect("a case has a site");
    let mut sections: Vec<_> = parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect();
    let objects = match sections.first() {
        Some(("objects", objects)) => *objects,
        _ => "",
    };
    sections.retain(|(title, _)| *title != "objects");
    Case { title, site, objects, sections }
}

impl Case<'_> {
    fn snapshot(&self, only: Option<Family>) -> Snapshot {
        let text = format!("{HEAD}{}", self.site);
        let (site, findings) = site::site("site.yaml", &text);
        let site = site.unwrap_or_else(|| panic!("{}: {findings:#?}", self.title));
        let site = only.iter().fold(site, |site, family| without_others(site, *family));
        snapshot(site, self.objects)
    }

    fn result(&self, section: &str) -> String {
        if section == "findings" {
            return self.findings();
        }
        let (question, only) = match section.split_once(", ") {
            Some((question, "IPv4 only")) => (question, Some(Family::V4)),
            Some((question, "IPv6 only")) => (question, Some(Family::V6)),
            Some((_, other)) => panic!("{}: `{other}`", self.title),
            None => (section, None),
        };
        let snapshot = self.snapshot(only);
        match question.split(' ').collect::<Vec<_>>().as_slice() {
            [name] => tunnel::end(&snapshot, &peer_name(name)).to_string(),
            [format, name] => exported(&snapshot, format, name, None),
            [format, name, edge] => exported(&snapshot, format, name, Some(&NodeName::new(*edge))),
            _ => panic!("{}: `{section}`", self.title),
        }
    }

    /// Those of the tunnel, at the site and at the objects.
    fn findings(&self) -> String {
        let reading = site::read("site.yaml", &format!("{HEAD}{}", self.site));
        let mut findings = check::site::site(reading.site.as_ref().unwrap(), &reading.marks);
        findings.retain(|finding| {
            let ours = finding.code.id().starts_with("tunnel-") || finding.at.field.ends_with("homeEnd");
            ours || finding.at.field.contains("publicKeys")
        });
        findings.extend(tunnel::findings(&self.snapshot(None)));
        findings.iter().map(|finding| format!("{finding}\n    help: {}\n", finding.help)).collect()
    }
}

fn peer_name(name: &str) -> PeerName {
    match name {
        "router" => PeerName::Router,
        name => PeerName::Node(NodeName::new(name)),
    }
}

fn exported(snapshot: &Snapshot, format: &str, name: &str, edge: Option<&NodeName>) -> String {
    let format = match format {
        "fritzbox" => Format::Fritzbox,
        "wg-quick" => Format::WgQuick,
        "networkd" => Format::Networkd,
        "nixos" => Format::Nixos,
        other => panic!("`{other}` is no format"),
    };
    match export(snapshot, &peer_name(name), format, "/var/lib/dualgate/wireguard", edge) {
        Ok(export) => {
            let files: String = export.files.iter().map(|file| format!("> {}\n{}", file.name, file.text())).collect();
            let steps: String = export.marks.iter().chain(&export.steps).map(|step| format!("* {step}\n")).collect();
            files + &steps
        }
        Err(error) => format!("{error}\n"),
    }
}

fn snapshot(site: Site, objects: &str) -> Snapshot {
    let objects = match objects.trim() {
        "" => ObjectSet::default(),
        text => assemble([&file("nodes.yaml", text)].into_iter()),
    };
    assert_eq!(objects.findings, []);
    Snapshot { generation: Generation(1), site: Arc::new(site), objects: Arc::new(objects), facts: Facts::default() }
}

fn without_others(mut site: Site, family: Family) -> Site {
    let address = |address: &IpAddr| Family::of(*address) == family;
    let net = |net: &IpNet| Family::of(net.addr()) == family;
    site.cluster.pod_cidrs.retain(net);
    site.lan.subnets.retain(net);
    if let Some(router) = &mut site.lan.router {
        router.addresses.retain(address);
    }
    for node in &mut site.nodes {
        node.addresses.retain(address);
        node.public_addresses.retain(address);
        node.pod_cidrs.retain(net);
    }
    site
}

#[test]
fn every_case_gives_what_it_says() {
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tunnel");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let mut blessed = Vec::new();
        for case in cases(&text) {
            let mut page = format!("=== {}\n{}\n", case.title, case.site.trim_end());
            if !case.objects.is_empty() {
                page += &format!("--- objects\n{}\n", case.objects.trim_end());
            }
            for (section, expected) in &case.sections {
                let found = case.result(section);
                page += &format!("--- {section}\n{found}");
                if found.trim_end() != expected.trim_end() {
                    let place = format!("{}: {}: {section}", path.display(), case.title);
                    wrong += &format!("{place}\n-- expected\n{expected}\n-- found\n{found}\n");
                }
                count += 1;
            }
            blessed.push(page);
        }
        if bless {
            fs::write(&path, blessed.join("\n")).unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 40, "only {count} sections were read");
}

#[test]
fn a_node_that_the_site_does_not_have_has_no_tunnel() {
    let site = site::site("", &format!("{HEAD}nodes: []\ntunnel: {{}}\n")).0.unwrap();
    assert_eq!(tunnel::tunnel(&snapshot(site, ""), &NodeName::new("x")), TunnelPlan::default());
}

/// Sites in which much collides: few addresses for many.
fn sites() -> impl Strategy<Value = Site> {
    let address = || {
        prop::sample::select(vec![
            "10.0.0.1",
            "10.0.0.2",
            "10.0.1.1",
            "10.0.1.2",
            "203.0.113.1",
            "fd00::1",
            "fd00::2",
            "fd00:1::1",
            "2001:db8::1",
        ])
    };
    let net = || {
        prop::sample::select(vec![
            "10.0.0.0/24",
            "10.0.1.0/24",
            "10.0.0.0/8",
            "10.42.0.0/24",
            "10.42.1.0/24",
            "203.0.113.0/24",
            "0.0.0.0/0",
            "'fd00::/64'",
            "'fd00:1::/64'",
            "'fd01::/64'",
            "'::/0'",
        ])
    };
    let some = |list: Vec<&str>| list.join(", ");
    let list = move |strategy| prop::collection::vec(strategy, 0..3).prop_map(some);
    let quoted =
        move || prop::collection::vec(address().prop_map(|a| format!("'{a}'")), 0..3).prop_map(|a| a.join(", "));
    let roles = prop::sample::select(vec!["external-gate", "external-gate, agent", "server, internal-gate", "agent"]);
    let node = (roles, quoted(), quoted(), list(net()));
    let home_end = prop::sample::select(vec!["nodes", "router"]);
    (prop::collection::vec(node, 0..6), home_end, list(net())).prop_map(|(nodes, home_end, cluster)| {
        let mut text = format!(
            "{HEAD}lan: {{router: {{addresses: [10.0.0.254]}}}}\ncluster: {{podCIDRs: [{cluster}]}}\n\
             tunnel: {{homeEnd: {home_end}}}\nnodes:\n"
        );
        for (index, (roles, own, public, pods)) in nodes.iter().enumerate() {
            text += &format!(
                "- {{name: n{index}, roles: [{roles}], addresses: [{own}], publicAddresses: [{public}], podCIDRs: [{pods}]}}\n"
            );
        }
        if nodes.is_empty() {
            text = text.replace("nodes:\n", "nodes: []\n");
        }
        let (site, findings) = site::site("site.yaml", &text);
        site.unwrap_or_else(|| panic!("{text}{findings:#?}"))
    })
}

fn ends(snapshot: &Snapshot) -> Vec<(PeerName, tunnel::Interface)> {
    let nodes = snapshot.site.nodes.iter().map(|node| PeerName::Node(node.name.clone()));
    let ends = nodes.chain([PeerName::Router]);
    ends.filter_map(|name| Some((name.clone(), tunnel::end(snapshot, &name).interface?))).collect()
}

fn share(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_peers_of_an_end_share_an_address(site in sites()) {
        for (name, interface) in ends(&snapshot(site, "")) {
            for (index, peer) in interface.peers.iter().enumerate() {
                for other in &interface.peers[..index] {
                    for net in &peer.allowed_ips {
                        prop_assert!(!other.allowed_ips.iter().any(|with| share(with, net)), "{name}: {net}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_tunnel_never_runs_inside_itself(site in sites()) {
        let snapshot = snapshot(site, "");
        let edges = snapshot.site.nodes.iter().filter(|node| node.is_edge());
        let outside: Vec<IpAddr> = edges.flat_map(|node| node.public_addresses.clone()).collect();
        for (name, interface) in ends(&snapshot) {
            for route in &interface.routes {
                prop_assert!(!outside.iter().any(|address| route.to.contains(address)), "{name}: {}", route.to);
            }
        }
    }

    #[test]
    fn every_pod_address_is_reached_through_exactly_one_peer((site, pod) in orderly()) {
        let snapshot = snapshot(site, "");
        prop_assert_eq!(tunnel::findings(&snapshot), []);
        for (index, node) in snapshot.site.nodes.iter().enumerate().filter(|(_, node)| !node.is_edge()) {
            for net in &node.pod_cidrs {
                let address = nth(net, pod);
                for edge in snapshot.site.nodes.iter().filter(|node| node.is_edge()) {
                    let interface = tunnel::tunnel(&snapshot, &edge.name).interface.expect("an edge has a tunnel");
                    let has = |peer: &&tunnel::Peer| peer.allowed_ips.iter().any(|allowed| allowed.contains(&address));
                    let peers: Vec<String> = interface.peers.iter().filter(has).map(|peer| peer.name.to_string()).collect();
                    let home = snapshot.site.tunnel.as_ref().unwrap().home_end;
                    let expected = if home == HomeEnd::Router { "router".to_owned() } else { format!("n{index}") };
                    prop_assert_eq!(peers, [expected]);
                    prop_assert_eq!(interface.routes.iter().filter(|route| route.to.contains(&address)).count(), 1);
                }
            }
        }
    }

    #[test]
    fn both_ends_of_a_pair_know_each_other_and_admit_what_the_other_sends((site, _) in orderly()) {
        let snapshot = snapshot(site, "");
        let ends = ends(&snapshot);
        prop_assert!(ends.len() >= 2);
        for (name, interface) in &ends {
            for peer in &interface.peers {
                let (_, other) = ends.iter().find(|(other, _)| *other == peer.name).expect("the other end has a plan");
                let back = other.peers.iter().find(|back| back.name == *name).expect("it knows this end");
                prop_assert_eq!(&back.preshared_key, &peer.preshared_key);
                prop_assert!(back.endpoints.is_empty() != peer.endpoints.is_empty(), "one end dials");
                prop_assert!(other.listen_port.is_some() != interface.listen_port.is_some(), "the other listens");
                for route in interface.routes.iter().filter(|route| peer.allowed_ips.contains(&route.to)) {
                    let source = route.source.expect("every end has an address");
                    // The router forwards for the nodes, and speaks for itself through nothing.
                    let admitted = back.allowed_ips.iter().any(|net| net.contains(&source));
                    prop_assert!(admitted || *name == PeerName::Router, "{name} -> {}: {source}", peer.name);
                }
            }
        }
    }
}

fn nth(net: &IpNet, n: u8) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + u32::from(n)).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + u128::from(n)).into()),
    }
}

/// Sites as they should be, of one family or both, and a pod's number in its network.
fn orderly() -> impl Strategy<Value = (Site, u8)> {
    let only = prop::sample::select(vec![None, Some(Family::V4), Some(Family::V6)]);
    let home_end = prop::sample::select(vec!["nodes", "router"]);
    (1..6usize, 1..4usize, home_end, only, any::<u8>()).prop_map(|(home, edges, home_end, only, pod)| {
        let mut text = format!(
            "{HEAD}lan: {{subnets: [192.168.1.0/24, 'fd00::/64'], router: {{addresses: [192.168.1.1, 'fd00::1'], uplink: ds-lite}}}}\n\
             tunnel: {{homeEnd: {home_end}}}\nnodes:\n"
        );
        for index in 0..home {
            text += &format!(
                "- {{name: n{index}, roles: [server, internal-gate], addresses: [192.168.1.1{index}, 'fd00::1{index}'], \
                 podCIDRs: [10.42.{index}.0/24, 'fd01:0:0:{index}::/64']}}\n"
            );
        }
        for index in 0..edges {
            text += &format!(
                "- {{name: e{index}, roles: [external-gate, agent], addresses: [192.168.1.20{index}, 'fd00::20{index}'], \
                 publicAddresses: [203.0.113.{index}, '2001:db8::{index}'], podCIDRs: [10.42.20{index}.0/24]}}\n"
            );
        }
        let (site, findings) = site::site("site.yaml", &text);
        let site = site.unwrap_or_else(|| panic!("{text}{findings:#?}"));
        (only.iter().fold(site, |site, family| without_others(site, *family)), pod)
    })
}
