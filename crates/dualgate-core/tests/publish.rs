//! What is published at providers: what is wanted of a site, and what has to change at a provider that others write to, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dualgate_core::case::{Case, Families};
use dualgate_core::lower;
use dualgate_core::model::Snapshot;
use dualgate_core::model::site::PublishPolicy;
use dualgate_core::plan::publish::{Diff, Mark, Publication, Set, SetKey, Sets, Wanted, diff, mark_name, publish};
use dualgate_wire::dns::{Rdata, RecordType};
use proptest::prelude::*;

const SITE: &str = "\
== site
apiVersion: dualgate.dev/v1alpha1
kind: Site
name: home
lan: {subnets: [192.168.178.0/24, 'fda8::/64']}
gates: {internal: {addresses: [192.168.178.10, 'fda8::10']}, external: {}}
nodes:
- {name: home1, roles: [server, internal-gate, virtual-ips, dns], addresses: [192.168.178.5, 'fda8::5']}
- {name: edge, roles: [external-gate, dns], addresses: [192.168.178.201, 'fda8::201'], publicAddresses: [203.0.113.10, '2001:db8:1::10']}
dns:
  forward: [192.168.178.1]
  providers:
    knot: {type: rfc2136, server: 192.0.2.53, key: dualgate, secretFile: /etc/dualgate/tsig.key, zone: example.org}
  zones:
  - name: example.org
    publish: provider:knot
    records:
    - {name: '@', type: NS, value: ns1.example.net}
    - {name: '@', type: MX, value: 10 mail.example.net, ttl: 1h}
    - {name: nas, type: A, value: 192.168.178.30}
  - {name: lab.example.org, publish: 'provider:knot'}
  - {name: edge.example.org, publish: edge}
  - {name: example.net, publish: 'provider:elsewhere'}
== objects
";

fn ingress(name: &str, host: &str, gates: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: apps, annotations: {{dualgate.dev/gates: '{gates}'}}}}\n\
         spec: {{rules: [{{host: '{host}', http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}\n"
    )
}

fn snapshot(objects: &str) -> Snapshot {
    Case::parse("publish", &format!("{SITE}{objects}")).unwrap().snapshot(Families::Both).unwrap()
}

fn published(objects: &str) -> Vec<Publication> {
    let snapshot = snapshot(objects);
    publish(&snapshot, &lower::snapshot(&snapshot))
}

fn key(text: &str) -> SetKey {
    let (name, rtype) = text.split_once(' ').unwrap();
    SetKey::new(name.parse().unwrap(), rtype.parse().unwrap())
}

fn set(rtype: RecordType, data: &[&str]) -> Set {
    Set { ttl: 60, data: data.iter().map(|text| Rdata::parse(rtype, text).unwrap()).collect() }
}

/// `NAME TYPE DATA` lines as sets.
fn sets(lines: &[(&str, &str)]) -> Sets {
    lines.iter().map(|(of, data)| (key(of), set(key(of).rtype, &[data]))).collect()
}

fn as_is(_: &SetKey, set: &Set) -> Option<Set> {
    Some(set.clone())
}

/// A provider that has done what a diff says.
fn applied(existing: &Sets, diff: &Diff) -> Sets {
    let mut sets = existing.clone();
    for edit in diff.changes.iter().flat_map(|change| change.edits()) {
        assert_eq!(sets.get(&edit.key), edit.before.as_ref(), "{}", edit.key);
        match &edit.after {
            Some(set) => sets.insert(edit.key.clone(), set.clone()),
            None => sets.remove(&edit.key),
        };
    }
    sets
}

fn shown(diff: &Diff) -> Vec<String> {
    let changes = diff.changes.iter().map(|change| format!("{} {}", change.kind.as_str(), change.record.key));
    let conflicts = diff.conflicts.iter().map(|conflict| format!("! {}: {conflict}", conflict.key));
    let kept = diff.kept.iter().map(|key| format!("kept {key}"));
    changes.chain(conflicts).chain(kept).collect()
}

/// A zone of which these are wanted.
fn zone(wanted: &[(&str, &str)], policy: PublishPolicy) -> Publication {
    let mut zone = published("").remove(0);
    let one = |(key, set): (SetKey, Set)| (key, Wanted { set, from: "ingress/apps/web".into() });
    zone.wanted = Arc::new(sets(wanted).into_iter().map(one).collect());
    zone.policy = policy;
    zone
}

#[test]
fn what_the_internet_is_to_see_is_published_and_nothing_of_the_zones_start() {
    let objects = [
        ingress("grafana", "grafana.example.org", "internal,external"),
        ingress("paperless", "paperless.example.org", "internal"),
        ingress("lab", "x.lab.example.org", "external"),
        ingress("edge", "x.edge.example.org", "external"),
        ingress("other", "x.example.net", "external"),
    ];
    let zones = published(&objects.concat());
    let names: Vec<_> = zones.iter().map(|zone| (zone.zone.to_string(), zone.at.to_string())).collect();
    let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    assert_eq!(names, [pair("example.org", "example.org"), pair("lab.example.org", "example.org")]);
    let wanted = |zone: &Publication| -> Vec<String> {
        let line = |(key, one): (&SetKey, &Wanted)| {
            let data: Vec<String> = one.set.data.iter().map(ToString::to_string).collect();
            format!("{key} {} {} {}", one.set.ttl, data.join(" "), one.from)
        };
        zone.wanted.iter().map(line).collect()
    };
    assert_eq!(
        wanted(&zones[0]),
        [
            "example.org MX 3600 10 mail.example.net. site-file",
            "grafana.example.org A 60 203.0.113.10 ingress/apps/grafana",
            "grafana.example.org AAAA 60 2001:db8:1::10 ingress/apps/grafana",
        ]
    );
    assert_eq!(wanted(&zones[1]).len(), 2);
    let is_ours = |zone: &Publication, name: &str| zone.is_ours(&name.parse().unwrap());
    assert!(is_ours(&zones[0], "x.example.org") && !is_ours(&zones[0], "x.lab.example.org"));
    assert!(!is_ours(&zones[0], "x.edge.example.org") && is_ours(&zones[1], "x.lab.example.org"));
    assert_eq!(&*zones[0].owner, "home");
}

#[test]
fn while_something_cannot_be_read_no_name_goes() {
    let zones = published(&format!("{}---\nkind: [\n", ingress("a", "a.example.org", "external")));
    assert_eq!(zones[0].policy, PublishPolicy::UpsertOnly);
    let policy = |object: &str| published(&format!("---\n{object}\n"))[0].policy;
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: apps}\nspec: 1";
    assert_eq!(policy(ingress), PublishPolicy::UpsertOnly, "it was refused");
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a b}\nspec: {}";
    assert_eq!(policy(service), PublishPolicy::UpsertOnly, "nobody knows whose it is");
    assert_eq!(policy("title: no manifest"), PublishPolicy::Sync);
    assert_eq!(published("")[0].policy, PublishPolicy::Sync);
}

#[test]
fn what_is_missing_is_written_with_its_mark_and_what_drifted_is_set_back() {
    let zone = zone(&[("a.example.org A", "203.0.113.10"), ("*.example.org A", "203.0.113.10")], PublishPolicy::Sync);
    let first = diff(&zone, &Sets::new(), as_is);
    assert_eq!(shown(&first), ["create *.example.org A", "create a.example.org A"]);
    let there = applied(&Sets::new(), &first);
    let keys: Vec<String> = there.keys().map(ToString::to_string).collect();
    let marks = ["_dualgate-a.a.example.org TXT", "_dualgate-a._wildcard.example.org TXT"];
    assert!(marks.iter().all(|mark| keys.iter().any(|key| key == mark)), "{keys:?}");
    assert_eq!(diff(&zone, &there, as_is), Diff::default());

    // Somebody sets another address, another time to live, or takes it away.
    let mut drifted = there.clone();
    drifted.insert(key("a.example.org A"), set(RecordType::A, &["198.51.100.1"]));
    drifted.remove(&key("*.example.org A"));
    let second = diff(&zone, &drifted, as_is);
    assert_eq!(shown(&second), ["update a.example.org A", "create *.example.org A"]);
    assert_eq!(applied(&drifted, &second), there);
    let mut slow = there.clone();
    slow.get_mut(&key("a.example.org A")).unwrap().ttl = 3600;
    assert_eq!(shown(&diff(&zone, &slow, as_is)), ["update a.example.org A"]);
}

#[test]
fn what_is_not_wanted_goes_with_its_mark_unless_names_are_to_stay() {
    let both = zone(&[("a.example.org A", "203.0.113.10"), ("b.example.org A", "203.0.113.10")], PublishPolicy::Sync);
    let there = applied(&Sets::new(), &diff(&both, &Sets::new(), as_is));
    let mut one = zone(&[("a.example.org CNAME", "b.example.net")], PublishPolicy::Sync);
    let gone = diff(&one, &there, as_is);
    // What is in the way of something wanted goes first.
    assert_eq!(shown(&gone), ["delete a.example.org A", "delete b.example.org A", "create a.example.org CNAME"]);
    let after = applied(&there, &gone);
    let keys: Vec<String> = after.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["a.example.org CNAME", "_dualgate-cname.a.example.org TXT"]);
    one.policy = PublishPolicy::UpsertOnly;
    let kept = diff(&one, &there, as_is);
    assert_eq!(shown(&kept), ["delete a.example.org A", "create a.example.org CNAME", "kept b.example.org A"]);
}

#[test]
fn what_others_made_is_left_alone_and_told() {
    let wanted = [
        ("a.example.org A", "203.0.113.10"),
        ("a.example.org AAAA", "2001:db8:1::10"),
        ("b.example.org A", "203.0.113.10"),
        ("c.example.org TXT", "text"),
        ("d.example.org A", "203.0.113.10"),
        ("e.example.org A", "203.0.113.10"),
        ("x.f.example.org A", "203.0.113.10"),
        ("g.example.org A", "203.0.113.10"),
    ];
    let zone = zone(&wanted, PublishPolicy::Sync);
    let mut there = sets(&[
        ("a.example.org A", "198.51.100.1"),
        ("b.example.org CNAME", "www.example.net"),
        ("c.example.org MX", "10 mail.example.net"),
        ("d.example.org A", "203.0.113.10"),
        ("e.example.org A", "198.51.100.1"),
        ("f.example.org NS", "ns.example.net"),
        ("_dualgate-a.g.example.org TXT", "something else"),
    ]);
    there.insert(mark_name(&key("e.example.org A")).unwrap(), Mark::write("external-dns", "ingress/x/y", 60));
    let found = diff(&zone, &there, as_is);
    assert_eq!(
        shown(&found),
        [
            "create c.example.org TXT",
            "! a.example.org A: it is there and not dualgate's: it is left as it is",
            "! a.example.org AAAA: `a.example.org A` is there and not dualgate's: the name is left as it is",
            "! b.example.org A: `b.example.org CNAME` is there and not dualgate's: the name is left as it is",
            "! d.example.org A: somebody else wrote the same: it will not follow",
            "! e.example.org A: it belongs to `external-dns`: it is left as it is",
            "! x.f.example.org A: `f.example.org` is another server's zone",
            "! g.example.org A: `_dualgate-a.g.example.org TXT` would be its mark, and says something else",
        ]
    );
}

#[test]
fn an_owner_moves_from_external_dns_with_its_records() {
    let mut zone = zone(&[("a.example.org A", "203.0.113.10")], PublishPolicy::Sync);
    let mut there = sets(&[("a.example.org A", "203.0.113.10"), ("old.example.org CNAME", "www.example.net")]);
    for mark in ["a-a.example.org TXT", "cname-old.example.org TXT"] {
        there.insert(key(mark), Mark::write("default", "ingress/apps/web", 60));
    }
    let text = "! a.example.org A: it belongs to `default`: it is left as it is";
    assert_eq!(shown(&diff(&zone, &there, as_is)), [text]);
    zone.owner = "default".into();
    assert_eq!(shown(&diff(&zone, &there, as_is)), [text], "the owner is the site's name by chance");
    zone.takes_over = true;
    let found = diff(&zone, &there, as_is);
    assert_eq!(shown(&found), ["delete old.example.org CNAME", "update a.example.org A"]);
    let after = applied(&there, &found);
    let keys: Vec<String> = after.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["a.example.org A", "_dualgate-a.a.example.org TXT"]);
    assert_eq!(diff(&zone, &after, as_is), Diff::default());
}

#[test]
fn only_a_site_file_that_names_the_owner_takes_over() {
    assert!(!published("")[0].takes_over);
    let text = SITE.replace("dns:\n  forward", "dns:\n  owner: home\n  forward");
    let snapshot = Case::parse("publish", &text).unwrap().snapshot(Families::Both).unwrap();
    let zones = publish(&snapshot, &lower::snapshot(&snapshot));
    assert!(zones[0].takes_over && &*zones[0].owner == "home");
}

#[test]
fn where_names_are_to_stay_a_set_goes_only_for_what_it_excludes() {
    let all = [
        ("example.org A", "203.0.113.10"),
        ("example.org AAAA", "2001:db8:1::10"),
        ("example.org MX", "10 mail.example.net"),
    ];
    let before = zone(&all, PublishPolicy::Sync);
    let there = applied(&Sets::new(), &diff(&before, &Sets::new(), as_is));
    let found =
        |wanted: &[(&str, &str)], there: &Sets| shown(&diff(&zone(wanted, PublishPolicy::UpsertOnly), there, as_is));
    assert_eq!(found(&all[2..], &there), ["kept example.org A", "kept example.org AAAA"]);
    assert_eq!(
        found(&[all[0], all[2]], &there),
        ["delete example.org AAAA"],
        "half of the answers would lead elsewhere"
    );
    assert_eq!(found(&all[..2], &there), ["kept example.org MX"]);
    // What cannot be written is no reason.
    let mut blocked = there.clone();
    blocked.extend(sets(&[("example.org CAA", "0 issue \"example.net\"")]));
    let cname = [("example.org CNAME", "www.example.net")];
    let shown = found(&cname, &blocked);
    assert!(!shown.iter().any(|line| line.starts_with("delete")), "{shown:?}");
}

#[test]
fn a_mark_of_another_owner_counts_before_its_records_are_there() {
    let zone = zone(&[("a.example.org A", "203.0.113.10"), ("b.example.org A", "203.0.113.10")], PublishPolicy::Sync);
    let mark = Mark::write("other", "ingress/x/y", 60);
    let there: Sets = ["a-a.example.org TXT", "_dualgate-a.b.example.org TXT"].map(|at| (key(at), mark.clone())).into();
    let text = ["a", "b"].map(|name| format!("! {name}.example.org A: it belongs to `other`: it is left as it is"));
    assert_eq!(shown(&diff(&zone, &there, as_is)), text);
}

#[test]
fn a_name_whose_mark_would_be_a_wildcards_is_not_written() {
    let zone = zone(&[("_wildcard.example.org A", "203.0.113.10")], PublishPolicy::Sync);
    let there = sets(&[("*.example.org A", "198.51.100.1")]);
    let found = diff(&zone, &there, as_is);
    let text =
        "! _wildcard.example.org A: a name that begins with `_wildcard` is reserved: marks of wildcards stand there";
    assert_eq!(shown(&found), [text]);
}

const NAMES: [&str; 10] = [
    "_wildcard.example.org",
    "example.org",
    "a.example.org",
    "b.example.org",
    "x.a.example.org",
    "*.example.org",
    "a-b.example.org",
    "y.lab.example.org",
    "lab.example.org",
    "_dualgate-a.a.example.org",
];

fn data() -> impl Strategy<Value = (RecordType, Vec<Rdata>)> {
    let texts = prop::sample::subsequence(vec![0_u8, 1, 2], 1..3);
    (0..6, texts).prop_map(|(kind, numbers)| {
        let data = |number: &u8| match kind {
            0 => Rdata::A([203, 0, 113, *number].into()),
            1 => Rdata::Aaaa([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(*number)].into()),
            2 => Rdata::Mx { preference: u16::from(*number), exchange: "mail.example.net".parse().unwrap() },
            3 => Rdata::Cname("www.example.net".parse().unwrap()),
            4 => Rdata::Ns("ns.example.net".parse().unwrap()),
            _ => Rdata::Txt(vec![vec![b'0' + number].into()]),
        };
        let data: Vec<Rdata> = numbers.iter().map(data).collect();
        (data[0].record_type(), data)
    })
}

prop_compose! {
    fn some_set()(name in prop::sample::select(NAMES.to_vec()), (rtype, data) in data(), ttl in 60_u32..62) -> (SetKey, Set) {
        (SetKey::new(name.parse().unwrap(), rtype), Set { ttl, data: data.into_iter().collect::<BTreeSet<_>>() })
    }
}

/// A set of the zone, or a mark of somebody, in our place or in the usual one.
fn there() -> impl Strategy<Value = (SetKey, Set)> {
    let owner = prop::sample::select(vec!["home", "other"]);
    let kind = prop::sample::select(vec!["a", "aaaa", "txt", "cname", "ns", "soa", "x"]);
    let mark =
        (owner, kind, prop::sample::select(NAMES.to_vec()), any::<bool>()).prop_map(|(owner, kind, name, usual)| {
            let name = if usual { format!("{kind}-{name}") } else { format!("_dualgate-{kind}.{name}") };
            (SetKey::new(name.parse().unwrap(), RecordType::TXT), Mark::write(owner, "ingress/apps/web", 60))
        });
    prop_oneof![some_set(), mark]
}

proptest! {
    /// Whatever stands there, what has no mark of ours stays as it is; and who looks again has nothing left to do.
    #[test]
    fn nothing_of_others_is_ever_changed_and_a_second_look_finds_nothing(
        first in prop::collection::vec(some_set(), 0..8),
        wanted in prop::collection::vec(some_set(), 0..8),
        others in prop::collection::vec(there(), 0..12),
        upsert in any::<bool>(),
        takes_over in any::<bool>(),
    ) {
        let policy = if upsert { PublishPolicy::UpsertOnly } else { PublishPolicy::Sync };
        let one = |(key, set): (SetKey, Set)| (key, Wanted { set, from: "ingress/apps/web".into() });
        let mut zone = zone(&[], policy);
        zone.takes_over = takes_over;
        // Something of ours is there from before, as somebody wrote around it.
        zone.wanted = Arc::new(first.into_iter().map(one).collect());
        let mut existing: Sets = applied(&Sets::new(), &diff(&zone, &Sets::new(), as_is));
        existing.extend(others);
        zone.wanted = Arc::new(wanted.into_iter().map(one).collect::<BTreeMap<_, _>>());
        let found = diff(&zone, &existing, as_is);
        let after = applied(&existing, &found);

        let is_marked = |key: &SetKey| {
            let usual = || -> Option<SetKey> {
                let first = key.name.labels().next()?;
                let kind = [key.rtype.to_string().to_ascii_lowercase().as_bytes(), b"-", first].concat();
                Some(SetKey::new(key.name.parent()?.child(&kind)?, RecordType::TXT))
            };
            let ours = |at: Option<SetKey>| at.and_then(|at| existing.get(&at)).is_some_and(|set| Mark::read(set) == Mark::Of("home".into()));
            ours(mark_name(key)) || takes_over && ours(usual())
        };
        for (key, set) in &existing {
            let counts = takes_over || key.name.to_string().starts_with("_dualgate-");
            let is_mark = counts && key.rtype == RecordType::TXT && Mark::read(set) == Mark::Of("home".into());
            let is_ours = is_marked(key) || is_mark;
            if !is_ours || !zone.is_ours(&key.name) {
                prop_assert_eq!(after.get(key), Some(set), "{} was changed", key);
            }
        }
        for key in after.keys().filter(|key| !existing.contains_key(key)) {
            let is_mark = zone.wanted.keys().any(|wanted| mark_name(wanted).as_ref() == Some(key));
            prop_assert!(zone.wanted.contains_key(key) || is_mark, "{} came from nowhere", key);
        }
        let again = diff(&zone, &after, as_is);
        prop_assert_eq!(shown(&Diff { conflicts: vec![], kept: vec![], ..again }), Vec::<String>::new());
    }
}
