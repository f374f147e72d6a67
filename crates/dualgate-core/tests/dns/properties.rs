//! What holds for whatever is asked and whatever is planned.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use dualgate_core::case::{Case, Families};
use dualgate_core::lower;
use dualgate_core::machine::dns::{Responder, Transport, Verdict};
use dualgate_core::model::address::is_public;
use dualgate_core::model::site::{RecordView, ZoneRecord};
use dualgate_core::model::{NodeName, Snapshot};
use dualgate_core::plan::{self, dns::View};
use dualgate_wire::dns::{Name, Rdata, RecordType, ServiceBinding, records};
use proptest::prelude::*;

use super::SECRET;

const SITE: &str = "\
== site
dns:
  public: true
  forward: [192.168.178.1]
  zones:
  - {name: example.org, publish: edge}
  - {name: home.arpa}
  - {name: provided.example, publish: 'provider:desec'}
aliases: [{domain: example.org, home: home.arpa}]
nodes:
- {name: home1, roles: [server, internal-gate, virtual-ips, dns], addresses: [192.168.178.5, 'fda8:a1db:5685::5']}
- {name: edge, roles: [external-gate, dns], addresses: [192.168.178.201, 'fda8:a1db:5685::201'], publicAddresses: [203.0.113.10, '2001:db8:1::10']}
apiVersion: none
";

fn snapshot(objects: &str) -> Snapshot {
    let site = "\
== site
apiVersion: dualgate.dev/v1alpha1
kind: Site
name: case
lan: {subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64']}
gates: {internal: {addresses: [192.168.178.10, 'fda8:a1db:5685::10']}, external: {}}
";
    let text =
        format!("{site}{}\n== objects\n{objects}", SITE.replace("== site\n", "").replace("apiVersion: none\n", ""));
    Case::parse("dns", &text).unwrap().snapshot(Families::Both).unwrap()
}

fn ingress(number: usize, host: &str, gates: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: app{number}, namespace: default, annotations: {{dualgate.dev/gates: '{gates}'}}}}\n\
         spec: {{rules: [{{host: '{host}', http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

/// Hosts: few enough that they meet.
fn host() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "c", "*"]);
    let zone = prop::sample::select(vec!["example.org", "provided.example", "home.arpa", "elsewhere.net"]);
    (label, prop::option::of(prop::sample::select(vec!["x", "y"])), zone).prop_map(|(label, middle, zone)| match middle
    {
        Some(middle) => format!("{label}.{middle}.{zone}"),
        None => format!("{label}.{zone}"),
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop::sample::select(vec![
        "10.0.0.1",
        "192.168.178.9",
        "100.64.3.3",
        "169.254.1.1",
        "127.0.0.1",
        "198.51.100.1",
        "0.0.0.0",
    ]);
    let v6 = prop::sample::select(vec!["fda8::9", "fe80::1", "::1", "::ffff:10.0.0.1", "2001:db8::9", "ff02::1"]);
    prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn record()(
        zone in 0_usize..3,
        label in prop::sample::select(vec!["@", "a", "b", "*", "deep.c"]),
        kind in 0..5,
        addresses in prop::collection::vec(address(), 1..4),
        view in prop::sample::select(vec![RecordView::Home, RecordView::Public, RecordView::Both]),
    ) -> (usize, ZoneRecord) {
        let apex = ["example.org", "home.arpa", "provided.example"][zone];
        let name: Name = if label == "@" { apex.parse() } else { format!("{label}.{apex}").parse() }.unwrap();
        let data = match kind {
            0 | 1 => Rdata::from(addresses[0]),
            2 => Rdata::Https(ServiceBinding::here(&["h2"], addresses)),
            3 => Rdata::Svcb(ServiceBinding::here(&[], addresses)),
            _ => Rdata::Txt(vec![b"text".as_slice().into()]),
        };
        (zone, ZoneRecord { name, data, ttl: None, view })
    }
}

prop_compose! {
    fn home()(
        hosts in prop::collection::vec((host(), prop::sample::select(vec!["internal", "external", "internal,external"])), 0..8),
        records in prop::collection::vec(record(), 0..8),
    ) -> (Snapshot, Vec<(String, String)>) {
        let objects: String =
            hosts.iter().enumerate().map(|(number, (host, gates))| ingress(number, host, gates)).collect();
        let mut snapshot = snapshot(&objects);
        let mut site = (*snapshot.site).clone();
        for (zone, record) in records {
            site.dns.as_mut().unwrap().zones[zone].records.push(record);
        }
        snapshot.site = Arc::new(site);
        (snapshot, hosts.into_iter().map(|(host, gates)| (host, gates.to_owned())).collect())
    }
}

static RESPONDERS: LazyLock<Vec<Responder>> = LazyLock::new(|| {
    let objects =
        [("a.example.org", "internal"), ("b.example.org", "external"), ("*.x.example.org", "internal,external")];
    let objects: String =
        objects.iter().enumerate().map(|(number, (host, gates))| ingress(number, host, gates)).collect();
    let snapshot = snapshot(&objects);
    ["home1", "edge"].map(|node| Responder::new(&plan::node(&snapshot, &NodeName::new(node)).dns)).into()
});

/// A question, and octets changed in it.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let head = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let name =
        prop::sample::select(vec!["a.example.org", "n.x.example.org", "x.example.org", "example.org", "com", "."]);
    let rtype = prop_oneof![prop::sample::select(vec![1_u16, 2, 5, 6, 28, 43, 65, 255, 252, 41]), any::<u16>()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cookie = prop::collection::vec(any::<u8>(), 0..44);
    (name, rtype, cookie, changes, any::<prop::sample::Index>(), 0..4).prop_map(
        move |(name, rtype, cookie, changes, cut, how)| {
            let mut message = head.to_vec();
            message.extend(name.parse::<Name>().unwrap().as_wire());
            message.extend(rtype.to_be_bytes());
            message.extend([0, 1, 0, 0, 41, 4, 208, 0, 0, 0x80, 0]);
            message.extend((cookie.len() as u16 + 4).to_be_bytes());
            message.extend([0, 10]);
            message.extend((cookie.len() as u16).to_be_bytes());
            message.extend(cookie);
            if how > 1 {
                changes.iter().for_each(|(at, octet)| *at.get_mut(&mut message) = *octet);
            }
            if how == 3 {
                message.truncate(cut.index(message.len()));
            }
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_public_view_holds_an_address_of_home_or_a_name_that_is_only_at_home((snapshot, hosts) in home()) {
        let lowered = lower::snapshot(&snapshot);
        let site = snapshot.site.dns.as_ref().unwrap();
        let seen_at_home: Vec<&Name> = site.zones.iter().flat_map(|zone| &zone.records)
            .filter(|record| record.view == RecordView::Home).map(|record| &record.name).collect();
        let elsewhere: Vec<Name> = site.zones.iter().flat_map(|zone| &zone.records)
            .filter(|record| record.view != RecordView::Home).map(|record| record.name.clone()).collect();
        for zone in plan::dns::zones(&snapshot, &lowered, View::Public) {
            prop_assert_ne!(zone.name.to_string(), "home.arpa");
            for (name, sets) in &zone.sets {
                for set in sets.iter() {
                    prop_assert!(!set.data.is_empty());
                    for address in plan::dns::addresses_of(set) {
                        prop_assert!(is_public(address), "{} {:?}", name, set);
                    }
                }
                let text = name.to_string();
                let asked = hosts.iter().filter(|(host, _)| *host == text);
                let internal_only = asked.clone().count() > 0 && asked.clone().all(|(_, gates)| gates == "internal");
                prop_assert!(!internal_only || elsewhere.contains(name), "{} is public", name);
                prop_assert!(!seen_at_home.contains(&name) || elsewhere.contains(name) || asked.count() > 0
                    || *name == zone.name, "{} is public", name);
            }
        }
    }

    #[test]
    fn what_is_answered_is_what_the_plan_says_and_fits((snapshot, _) in home(), size in 0_u16..2000) {
        for node in ["home1", "edge"] {
            let plan = plan::node(&snapshot, &NodeName::new(node)).dns;
            let responder = Responder::new(&plan);
            for zone in &plan.zones {
                for (name, sets) in &zone.sets {
                    let mut message = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
                    message.extend(name.as_wire());
                    let rtype_at = message.len();
                    message.extend([0, 1, 0, 1, 0, 0, 41]);
                    message.extend(size.to_be_bytes());
                    message.extend([0; 6]);
                    for set in sets.iter().filter(|set| set.rtype != RecordType::NS) {
                        message[rtype_at..rtype_at + 2].copy_from_slice(&set.rtype.0.to_be_bytes());
                        let mut answer = Vec::new();
                        let from = "192.168.178.50".parse().unwrap();
                        responder.answer(&message, from, Transport::Udp, &SECRET, 1, &mut answer);
                        prop_assert!(answer.len() <= usize::from(size).clamp(512, 1232));
                        let of_answer = records(&answer).unwrap().map(Result::unwrap);
                        let found: Vec<Vec<u8>> = of_answer.filter(|record| record.section == 1 && record.rtype == set.rtype)
                            .map(|record| record.data.to_vec()).collect();
                        let expected: Vec<Vec<u8>> = set.data.iter().map(|data| {
                            let mut octets = Vec::new();
                            data.encode(&mut octets);
                            octets
                        }).collect();
                        let referred = answer[2] & 4 == 0;
                        prop_assert!(found == expected || referred, "{} {:?}: {:?}", name, set, answer);
                    }
                }
            }
        }
    }

    #[test]
    fn no_message_panics_or_is_answered_with_more_than_it_may_be(message in message(), from in address()) {
        for responder in RESPONDERS.iter() {
            for over in [Transport::Udp, Transport::Tcp] {
                let mut answer = Vec::new();
                match responder.answer(&message, from, over, &SECRET, 1, &mut answer) {
                    Verdict::Answer { .. } => {
                        prop_assert!(answer.len() >= 12 && answer[..2] == message[..2] && answer[2] & 0x80 != 0);
                        prop_assert!(over == Transport::Tcp || answer.len() <= 1232);
                        for record in records(&answer).unwrap() {
                            prop_assert!(record.is_ok(), "{:?}", answer);
                            prop_assert!(record.unwrap().name().is_ok(), "{:?}", answer);
                        }
                        let before = answer.len();
                        dualgate_wire::dns::slip(&mut answer);
                        prop_assert!(answer.len() <= before && records(&answer).unwrap().all(|record| record.is_ok()));
                    }
                    Verdict::Silence => prop_assert!(message.len() < 12 || message[2] & 0x80 != 0),
                    Verdict::Forward(question) => {
                        let same = question.name.as_wire().len() == question.written.len();
                        prop_assert!(same || !question.chain.is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn walking_any_octets_ends(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(all) = records(&octets) {
            for record in all.flatten() {
                drop(record.name());
            }
        }
    }
}
