//! The firewall's plan: cases, and what holds for every site.
//!
//! A case file holds cases: a line `=== what it shows`, a site file (its head is added), perhaps a line `--- objects` and
//! manifests, and sections of what comes of it: `--- NODE` is a node's table, `--- NODE openings` what it leaves open,
//! `--- NODE, IPv4 only` that of a site without IPv6, `--- findings` what is wrong.
//! `DUALGATE_BLESS=1 cargo test -p dualgate-core --test firewall` writes what is found; review the difference.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use dualgate_core::check;
use dualgate_core::model::object::Protocol;
use dualgate_core::model::site::Site;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Family, NodeName, ObjectSet, Snapshot};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::site;
use dualgate_core::plan::firewall::{self, FirewallPlan, Source, Way, Why};
use dualgate_wire::nftables::{
    Action, Batch, Chain, Change, Dialect, End, HookPoint, Match, Of, Policy, Purpose, Rule, Select, Transport,
};
use ipnet::IpNet;
use proptest::prelude::*;

const HEAD: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\n";

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
    fn text(&self) -> String {
        format!("{HEAD}{}", self.site)
    }

    fn snapshot(&self, only: Option<Family>) -> Snapshot {
        let (site, findings) = site::site("site.yaml", &self.text());
        let site = site.unwrap_or_else(|| panic!("{}: {findings:#?}", self.title));
        snapshot(only.iter().fold(site, |site, family| without_others(site, *family)), self.objects)
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
        let plan = |name: &str| firewall::firewall(&self.snapshot(only), &NodeName::new(name));
        match question.split(' ').collect::<Vec<_>>().as_slice() {
            [name] => plan(name).to_string(),
            [name, "openings"] => plan(name).openings.iter().map(|opening| format!("{opening}\n")).collect(),
            _ => panic!("{}: `{section}`", self.title),
        }
    }

    fn findings(&self) -> String {
        let reading = site::read("site.yaml", &self.text());
        let mut findings = check::site::site(reading.site.as_ref().unwrap(), &reading.marks);
        findings.retain(|finding| finding.code.id().starts_with("firewall-"));
        findings.iter().map(|finding| format!("{finding}\n    help: {}\n", finding.help)).collect()
    }
}

fn snapshot(site: Site, objects: &str) -> Snapshot {
    let objects = match objects.trim() {
        "" => ObjectSet::default(),
        text => assemble([&file("objects.yaml", text)].into_iter()),
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/firewall");
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
    assert!(count >= 15, "only {count} sections were read");
}

#[test]
fn a_plan_differs_from_another_in_the_lines_that_differ() {
    let plan = |text: &str| {
        let site = site::site("", &format!("{HEAD}{text}")).0.unwrap();
        firewall::firewall(&snapshot(site, ""), &NodeName::new("edge"))
    };
    let site = "nodes: [{name: edge, roles: [external-gate], addresses: [], publicAddresses: [203.0.113.1]}]\n\
                gates: {external: {entryPoints: {web: 80}}}\n";
    let before = plan(&format!("{site}firewall: {{}}\n"));
    let after = plan(&format!("{site}firewall: {{allow: [{{protocol: tcp, port: 9000}}]}}\n"));
    let lines =
        |before, after| -> Vec<String> { firewall::diff(before, after).iter().map(ToString::to_string).collect() };
    assert_eq!(lines(&before, &before), [""; 0]);
    assert_eq!(
        lines(&before, &after),
        [
            "+ firewall chain input: tcp dport 9000 counter accept comment \"allow-0\"",
            "+ firewall chain published: meta l4proto tcp ct original proto-dst 9000 counter accept comment \"allow-0\"",
        ]
    );
    let off = FirewallPlan::default();
    assert_eq!(lines(&off, &before).len(), lines(&before, &off).len());
    assert!(lines(&off, &before).contains(&"+ firewall table inet dualgate".to_owned()));
    let mut other_order = before.clone();
    other_order.table.as_mut().unwrap().chains.reverse();
    assert_eq!(lines(&before, &other_order), ["~ firewall: the same rules in another order"]);
}

#[test]
fn pods_that_come_and_go_leave_the_rules_alone() {
    let with = |pods: &str| {
        let site = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home/site.yaml"));
        let site = site::site("", &site.unwrap()).0.unwrap();
        let objects = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: default, annotations: {{dualgate.dev/endpoints: '{pods}'}}}}\n\
             spec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web, namespace: default, annotations: {{dualgate.dev/gates: external}}}}\n\
             spec: {{ingressClassName: traefik, defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n"
        );
        firewall::firewall(&snapshot(site, &objects), &NodeName::new("k3s-node1")).table.unwrap()
    };
    let one = with("10.42.0.5:3000,10.42.0.6:3000");
    let moved = firewall::moved(&one, &with("10.42.0.6:3000,10.42.0.7:3000")).expect("only elements differ");
    let [moved] = moved.as_slice() else { panic!("{moved:?}") };
    assert_eq!(format!("{moved:?}").matches("10.42.0.").count(), 4, "one goes and one comes, each a span: {moved:?}");
    assert_eq!(firewall::moved(&one, &with("10.42.0.5:3000,10.42.0.6:3001")), None);
    assert_eq!(firewall::moved(&one, &one), Some(Vec::new()));
}

/// Sites in which much collides.
fn sites() -> impl Strategy<Value = Site> {
    let net = || {
        prop::sample::select(vec![
            "10.0.0.0/24",
            "10.42.0.0/24",
            "203.0.113.0/24",
            "0.0.0.0/0",
            "198.51.100.7/32",
            "'fd00::/64'",
            "'2001:db8::/32'",
            "'::/0'",
        ])
    };
    let address = || {
        prop::sample::select(vec!["10.0.0.1", "10.0.1.1", "203.0.113.1", "'fd00::1'", "'2001:db8::1'", "'fd00:1::1'"])
    };
    let port = || prop::sample::select(vec![22_u16, 53, 80, 443, 2222, 6443, 9180, 9181, 10_250, 30_080, 56_527]);
    let list = |strategy: BoxedStrategy<&'static str>| {
        prop::collection::vec(strategy, 0..3).prop_map(|list| list.join(", ")).boxed()
    };
    let roles = prop::sample::select(vec![
        "external-gate",
        "external-gate, dns",
        "external-gate, agent",
        "external-gate, server",
        "server, internal-gate",
        "agent, internal-gate",
        "dns",
    ]);
    let node = (roles, list(address().boxed()), list(address().boxed()), list(net().boxed()));
    let allow = (prop::sample::select(vec!["tcp", "udp"]), port(), list(net().boxed()));
    (
        prop::collection::vec(node, 1..4),
        prop::collection::vec(allow, 0..3),
        (port(), port(), port()),
        (list(net().boxed()), any::<bool>(), any::<bool>(), any::<bool>()),
    )
        .prop_map(|(nodes, allow, (ssh, tunnel, entry), (lan, dns, router, has_tunnel))| {
            let mut text = format!(
                "{HEAD}lan: {{subnets: [{lan}], router: {{addresses: [10.0.0.254]}}}}\n\
                 gates: {{internal: {{}}, external: {{entryPoints: {{web: {entry}}}}}}}\n"
            );
            if has_tunnel {
                let end = if router { "router" } else { "nodes" };
                text += &format!("tunnel: {{port: {tunnel}, homeEnd: {end}}}\n");
            }
            if dns {
                text += "dns: {public: true}\n";
            }
            text += &format!("firewall:\n  sshPort: {ssh}\n  allow:\n");
            for (protocol, port, from) in &allow {
                text += &format!("  - {{protocol: {protocol}, port: {port}, from: [{from}]}}\n");
            }
            if allow.is_empty() {
                text = text.replace("  allow:\n", "  allow: []\n");
            }
            text += "nodes:\n";
            for (index, (roles, own, public, pods)) in nodes.iter().enumerate() {
                text += &format!(
                    "- {{name: n{index}, roles: [{roles}], addresses: [{own}], publicAddresses: [{public}], podCIDRs: [{pods}]}}\n"
                );
            }
            let (site, findings) = site::site("site.yaml", &text);
            site.unwrap_or_else(|| panic!("{text}{findings:#?}"))
        })
}

fn plans(snapshot: &Snapshot) -> Vec<(NodeName, FirewallPlan)> {
    let plan = |node: &dualgate_core::model::site::Node| (node.name.clone(), firewall::firewall(snapshot, &node.name));
    snapshot.site.nodes.iter().map(plan).collect()
}

fn chain<'a>(plan: &'a FirewallPlan, name: &str) -> Option<&'a Chain> {
    plan.table.as_ref()?.chains.iter().find(|chain| chain.name == name)
}

/// The first rule of a chain that decides over the first packet of a connection from this public address.
fn verdict<'a>(chain: &'a Chain, packet: &Packet) -> Option<&'a Rule> {
    chain.rules.iter().find(|rule| rule.action.is_some() && rule.matches.iter().all(|test| packet.passes(test)))
}

/// The first packet of a connection, from outside, within all limits.
struct Packet {
    interface: &'static str,
    source: IpAddr,
    destination: Option<IpAddr>,
    transport: Transport,
    port: u16,
}

impl Packet {
    fn passes(&self, test: &Match) -> bool {
        let is_new = |words: &str| words.split(['=', ' ', ',']).any(|word| word == "new");
        match test {
            Match::InputInterface(Select::Is(Of::Values(names))) => {
                names.iter().any(|name| name.to_string() == self.interface)
            }
            Match::Ip(end, select) => match self.end(*end) {
                Some(IpAddr::V4(address)) => one_of(select, |span| span.first() <= address && address <= span.last()),
                _ => false,
            },
            Match::Ip6(end, select) => match self.end(*end) {
                Some(IpAddr::V6(address)) => one_of(select, |span| span.first() <= address && address <= span.last()),
                _ => false,
            },
            Match::IpFamily(_) => test.to_string().ends_with("ipv4") == self.source.is_ipv4(),
            Match::Port(transport, End::Destination, select) => {
                *transport == self.transport
                    && one_of(select, |span| span.first() <= self.port && self.port <= span.last())
            }
            Match::ConnectionState(_) => is_new(&test.to_string()),
            // Limits are not reached, and the rest is about other packets.
            _ => false,
        }
    }

    fn end(&self, end: End) -> Option<IpAddr> {
        match end {
            End::Source => Some(self.source),
            End::Destination => self.destination,
        }
    }
}

fn one_of<T>(select: &Select<T>, holds: impl Fn(&T) -> bool) -> bool {
    match select {
        Select::Is(Of::Values(values)) => values.iter().any(holds),
        Select::IsNot(Of::Values(values)) => !values.iter().any(holds),
        Select::Is(Of::Set(_)) | Select::IsNot(Of::Set(_)) => panic!("sets are for pods"),
    }
}

const OUTSIDE: [&str; 2] = ["192.0.2.77", "2001:db9::77"];

fn from_outside(transport: Transport, port: u16, source: &str) -> Packet {
    Packet { interface: "eth0", source: source.parse().unwrap(), destination: None, transport, port }
}

fn is_accepted(plan: &FirewallPlan, packet: &Packet) -> bool {
    let arrives = chain(plan, "arrival").and_then(|chain| verdict(chain, packet)).is_none_or(accepts);
    let input = chain(plan, "input").expect("an edge has an input");
    arrives && verdict(input, packet).is_some_and(accepts)
}

fn accepts(rule: &Rule) -> bool {
    rule.action == Some(Action::Accept)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_can_be_said_to_every_kernel(site in sites()) {
        for (name, plan) in plans(&snapshot(site, "")) {
            for dialect in [Dialect::Owners, Dialect::Shared] {
                let change = plan.table.clone().map(Change::Replace);
                let batch = Batch::encode(change.as_slice(), dialect, Purpose::Apply);
                prop_assert!(batch.is_ok(), "{name}: {batch:?}");
            }
        }
    }

    #[test]
    fn ssh_and_the_tunnel_stay_reachable_whatever_the_site_says(site in sites()) {
        let snapshot = snapshot(site, "");
        let site = &snapshot.site;
        for (name, plan) in plans(&snapshot) {
            if !site.node(&name).unwrap().is_edge() {
                continue;
            }
            for source in OUTSIDE {
                let ssh = from_outside(Transport::Tcp, site.firewall.as_ref().unwrap().ssh_port, source);
                prop_assert!(is_accepted(&plan, &ssh), "{name}: {source}\n{plan}");
                let interface = dualgate_core::plan::tunnel::tunnel(&snapshot, &name).interface;
                if let Some(port) = interface.and_then(|interface| interface.listen_port) {
                    prop_assert!(is_accepted(&plan, &from_outside(Transport::Udp, port, source)), "{name}: {source}\n{plan}");
                }
            }
        }
    }

    #[test]
    fn no_port_is_open_to_the_internet_without_an_opening(site in sites()) {
        for (name, plan) in plans(&snapshot(site, "")) {
            if chain(&plan, "published").is_none() {
                continue;
            }
            for source in OUTSIDE {
                let address: IpAddr = source.parse().unwrap();
                for (transport, protocol) in [(Transport::Tcp, Protocol::Tcp), (Transport::Udp, Protocol::Udp)] {
                    for port in [22, 53, 68, 80, 443, 546, 2222, 2379, 6443, 8472, 9180, 9181, 10_250, 30_080, 56_527] {
                        let is_meant = plan.openings.iter().any(|opening| {
                            let from = match &opening.from {
                                Source::Everywhere => opening.why != Why::Dhcp,
                                Source::Networks(nets) => nets.iter().any(|net| net.contains(&address)),
                                Source::Tunnel(_) => false,
                            };
                            (opening.protocol, opening.port) == (protocol, port) && from
                        });
                        let packet = from_outside(transport, port, source);
                        prop_assert_eq!(is_accepted(&plan, &packet), is_meant, "{}: {} {}\n{}", name, source, port, plan);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_kept_for_people_is_open_at_an_edge_and_nothing_else_with_it(site in sites(), port in 1024..60_000_u16) {
        let snapshot = snapshot(site, "");
        for (name, plan) in plans(&snapshot) {
            if !snapshot.site.node(&name).unwrap().is_edge() {
                continue;
            }
            let from = vec!["192.0.2.0/24".parse().unwrap()];
            let way = |from, purpose| Way { protocol: Protocol::Tcp, port, from, purpose };
            for way in [way(Vec::new(), firewall::Purpose::Ssh), way(from, firewall::Purpose::Allowed)] {
                let kept = plan.keeping(std::slice::from_ref(&way));
                for source in OUTSIDE {
                    let address: IpAddr = source.parse().unwrap();
                    let is_meant = way.from.is_empty() || way.from.iter().any(|net| net.contains(&address));
                    let packet = from_outside(Transport::Tcp, port, source);
                    let is_open = is_accepted(&plan, &packet) || is_meant;
                    prop_assert_eq!(is_accepted(&kept, &packet), is_open, "{}: {} {}\n{}", name, source, port, kept);
                    for (transport, other) in [(Transport::Tcp, port - 1), (Transport::Udp, port)] {
                        let packet = from_outside(transport, other, source);
                        prop_assert_eq!(is_accepted(&kept, &packet), is_accepted(&plan, &packet));
                    }
                }
            }
        }
    }

    #[test]
    fn an_edge_drops_by_policy_and_a_home_node_looks_at_the_tunnel_alone(site in sites()) {
        let snapshot = snapshot(site, "");
        for (name, plan) in plans(&snapshot) {
            let Some(table) = &plan.table else { continue };
            let is_edge = snapshot.site.node(&name).unwrap().is_edge();
            for chain in &table.chains {
                let Some(hook) = &chain.hook else { continue };
                let drops = is_edge && hook.at == HookPoint::Input;
                prop_assert_eq!(hook.policy, if drops { Policy::Drop } else { Policy::Accept });
                // Other software's packets pass unless they touch the tunnel, home's addresses or a translated port.
                let harmless = |rule: &Rule| match rule.action {
                    Some(Action::Drop | Action::Reject(_) | Action::Goto(_) | Action::Jump(_)) => !rule.matches.is_empty(),
                    _ => true,
                };
                prop_assert!(drops || chain.rules.iter().all(harmless), "{}", chain.name);
            }
        }
    }

    #[test]
    fn without_a_firewall_in_the_site_file_there_is_none(site in sites()) {
        let site = Site { firewall: None, ..site };
        for (_, plan) in plans(&snapshot(site, "")) {
            prop_assert_eq!(plan, FirewallPlan::default());
        }
    }
}
