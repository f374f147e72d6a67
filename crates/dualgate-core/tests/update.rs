//! What was brought up to a snapshot step by step is as what is made of the snapshot at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use dualgate_core::case::{Case, Families, NOW};
use dualgate_core::check::objects::{self, Lints};
use dualgate_core::lower::{self, Lowered};
use dualgate_core::machine::dns::{Responder, Transport};
use dualgate_core::model::object::{Body, Published};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Finding, NodeName, Object, ObjectKey, ObjectSet, Site, Snapshot};
use dualgate_core::plan::dns::DnsPlan;
use dualgate_core::plan::proxy::{Backends, ProxyPlan};
use dualgate_core::plan::{self, NodePlan, Planner, cluster, public};
use dualgate_core::route::{Action, EntryPointIndex, Route, Table};
use dualgate_wire::dns::cookie::CookieSecret;
use dualgate_wire::dns::{Name, RecordType};
use proptest::prelude::*;

#[path = "public/mix.rs"]
#[allow(dead_code, reason = "the cut for an edge needs the rest")]
mod mix;

/// Every object of every case about Ingresses: applications, classes, certificates that are valid and that are not, and
/// all that can be wrong with them, in several versions of one name.
static OF_CASES: LazyLock<Vec<Arc<Object>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ingress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let cases = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "case"));
    cases.flat_map(|path| case(&text(path)).objects.objects.clone()).collect()
});

/// Sites that differ in what planning reads of them: home names, classes, gates and their entry points, roles, the tunnel.
static SITES: LazyLock<Vec<Arc<Site>>> = LazyLock::new(|| {
    let texts = [
        "aliases: [{domain: example.org, home: home.arpa}]
dns: {public: true, zones: [{name: example.org, publish: edge}, {name: home.arpa}]}
ingressClasses:
- {controller: dualgate.dev/ingress-controller}
- {name: traefik, controller: traefik.io/ingress-controller, compat: traefik}",
        "ingressClasses: [{controller: dualgate.dev/ingress-controller}]
admin: {listen: ['127.0.0.1:9180']}",
        "aliases: [{domain: example.org, home: home.arpa}]
gates: {internal: {addresses: [192.168.178.11], entryPoints: {websecure: {port: 8443, protocol: https}, web: 8080}}, external: {}}
ingressClasses: [{controller: dualgate.dev/ingress-controller}]",
        "apiVersion: dualgate.dev/v1alpha1
kind: Site
name: case
lan: {subnets: [192.168.178.0/24]}
cluster: {podCIDRs: [10.42.0.0/16, 'fd01::/48']}
tunnel: {}
dns:
  public: true
  forward: [192.168.178.1]
  zones:
  - name: example.org
    publish: edge
    records:
    - {name: www, type: CNAME, value: deep.www.example.org}
    - {name: a, type: A, value: 198.51.100.7}
    - {name: sub, type: NS, value: ns.sub.example.org}
    - {name: ns.sub, type: A, value: 198.51.100.8}
  - {name: home.arpa}
nodes:
- name: home1
  roles: [server, internal-gate, dns]
  addresses: [192.168.178.5]
  publicKeys: ['hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=']
- name: edge
  roles: [external-gate, dns]
  addresses: [192.168.178.201]
  publicAddresses: [203.0.113.10]
  publicKeys: ['hwY0sc1c7bSjN6kXzO+bmLXTlMTQuFhEhLO8qxVIUzo=']
gates: {internal: {}, external: {}}
ingressClasses:
- {controller: dualgate.dev/ingress-controller}
- {name: traefik, controller: traefik.io/ingress-controller, compat: traefik}",
    ];
    texts.iter().map(|text| case(&format!("== site\n{text}\n")).site).collect()
});

/// The nodes of all of them.
const NODES: [&str; 3] = ["home1", "home2", "edge"];

/// What clusters say of nodes, in two versions.
static NODE_OBJECTS: LazyLock<Vec<Arc<Object>>> = LazyLock::new(|| {
    let node = |name: &str, number: u8| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [10.42.{number}.0/24]}}\n"
        )
    };
    let version =
        |first: u8| -> String { NODES.iter().zip(first..).map(|(name, number)| node(name, number)).collect() };
    [0, 10].iter().flat_map(|first| case(&format!("== objects\n{}", version(*first))).objects.objects.clone()).collect()
});

/// A time at which the certificate `expired` was valid.
const LONG_AGO: i64 = 1_600_000_000;

/// Two Ingresses that meet in all that they could share: a host and its path, backends, and two certificates for the host,
/// of which one is valid for a while only. Each is served inside, outside, or at both gates.
static TWO: LazyLock<Vec<Arc<Object>>> = LazyLock::new(|| {
    let ingress = |name: &str, year: u16, gates: &str, secret: &str, backend: &str| {
        format!(
            "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: default, creationTimestamp: '{year}-01-01T00:00:00Z', annotations: {{dualgate.dev/gates: '{gates}'}}}}
spec:
  tls: [{{hosts: [old.example.org], secretName: {secret}}}]
  rules: [{{host: old.example.org, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {backend}, port: {{number: 80}}}}}}}}]}}}}]
"
        )
    };
    let versions =
        [("internal", "wildcard", "web"), ("external", "expired", "web"), ("internal,external", "expired", "other")];
    let of_version = |(gates, secret, backend): (&str, &str, &str)| {
        let both = ingress("older", 2024, gates, secret, backend) + &ingress("younger", 2025, gates, secret, backend);
        case(&format!("== services\nweb 80\nother 80\n== objects\n{both}")).objects.objects.clone()
    };
    let certificates = case(include_str!("cases/ingress/certificates.case")).objects.objects.clone();
    let is_named = |object: &Arc<Object>| {
        matches!(object.body, Body::Secret(_)) && ["wildcard", "expired"].contains(&&*object.key.name.name)
    };
    versions.into_iter().flat_map(of_version).chain(certificates.into_iter().filter(is_named)).collect()
});

fn case(text: &str) -> Snapshot {
    Case::parse("case", text).unwrap().snapshot(Families::Both).unwrap()
}

/// One step: which keys change, to which of their versions or to nothing; and what the world looks like then.
#[derive(Clone, Debug)]
struct Step {
    /// Another site, by its number.
    site: Option<usize>,
    changes: Vec<(prop::sample::Index, Option<prop::sample::Index>)>,
    now: i64,
    assigned: Vec<prop::sample::Index>,
    is_quiet: bool,
}

prop_compose! {
    fn step(changes: usize)(
        site in prop::option::weighted(0.2, 0..SITES.len()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::weighted(0.8, any::<prop::sample::Index>())), 0..changes),
        now in prop::sample::select(vec![NOW, NOW, NOW, 0, LONG_AGO, NOW + 400_000_000]),
        assigned in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        is_quiet in prop::bool::weighted(0.6),
    ) -> Step {
        Step { site, changes, now, assigned, is_quiet }
    }
}

/// The versions of each key; of an Ingress, each also with its status written back.
fn versions(objects: impl Iterator<Item = Arc<Object>>) -> Vec<(ObjectKey, Vec<Arc<Object>>)> {
    let mut versions: BTreeMap<ObjectKey, Vec<Arc<Object>>> = BTreeMap::new();
    let with_status = |object: Arc<Object>| {
        let mut written = Object::clone(&object);
        let Body::Ingress(ingress) = &mut written.body else { return vec![object] };
        ingress.published = [Published::Ip("192.168.178.5".parse().unwrap())].into();
        vec![object, Arc::new(written)]
    };
    for object in objects.flat_map(with_status) {
        versions.entry(object.key.clone()).or_default().push(object);
    }
    versions.into_iter().collect()
}

fn facts(step: &Step, objects: &ObjectSet) -> Facts {
    let services: Vec<_> = objects.objects.iter().filter(|object| matches!(object.body, Body::Service(_))).collect();
    let mut assigned = BTreeMap::new();
    for (number, at) in step.assigned.iter().enumerate().filter(|_| !services.is_empty()) {
        let address = format!("192.168.178.{}", 30 + number).parse().unwrap();
        assigned.insert(at.get(&services).key.name.clone(), vec![address]);
    }
    Facts { now: step.now, assigned: Arc::new(assigned.into_iter().collect()), ..Facts::default() }
}

/// A route with what it leads to, whatever the number of that is.
fn resolved(route: &Route, backends: &Backends) -> String {
    let to = match &route.action {
        Action::Forward(index) => format!("{:?}", backends.get(*index).expect("every route has its backend")),
        Action::Unavailable(why) => why.to_string(),
    };
    format!("{:?} {:?} {:?} {:?} {:?} {to}", route.host, route.path, route.entry_points, route.priority, route.origin)
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

fn backends(backends: &Backends) -> Vec<String> {
    sorted(backends.iter().map(|backend| format!("{backend:?}")))
}

fn findings(findings: Vec<Finding>) -> Vec<String> {
    let mut lines = sorted(findings.iter().map(|finding| format!("{finding:?}")));
    lines.dedup();
    lines
}

/// All that anybody could see of what was lowered.
fn of_lowered(lowered: &Lowered) -> Vec<Vec<String>> {
    let ingress = |ingress: &Arc<lower::LoweredIngress>| {
        format!("{:?} {:?} {:?} {:?}", ingress.key(), ingress.membership, ingress.reading, ingress.placement)
    };
    vec![
        lowered.ingresses.iter().map(ingress).collect(),
        lowered.routes().map(|route| resolved(route, lowered.backends())).collect(),
        backends(lowered.backends()),
        lowered.certificates.iter().map(|certificate| format!("{certificate:?}")).collect(),
        lowered.forwards.iter().map(|forward| format!("{forward:?}")).collect(),
        findings(lowered.findings()),
    ]
}

/// What a table answers, for requests that its own routes are made for.
fn answers(table: &Table, plan: &ProxyPlan) -> Vec<String> {
    let mut answers = Vec::new();
    for route in table.routes() {
        let host = route.host.to_string().replace('*', "any");
        let path = if route.path.written().starts_with('/') { route.path.written() } else { "/" };
        for point in (0..4).map(EntryPointIndex) {
            let found = table.find(point, &host, path).map(|index| resolved(table.route(index), &plan.backends));
            answers.push(format!("{point:?} {host}{path}: {found:?}"));
        }
    }
    answers.sort();
    answers
}

/// All that anybody could see of a plan.
fn of_plan(plan: &NodePlan) -> Vec<Vec<String>> {
    let NodePlan { proxy, tunnel, firewall, virtual_ips, dns } = plan;
    let ProxyPlan { generation, listeners, table, backends: of_proxy, certificates, forwards, settings, forbidden } =
        proxy;
    vec![
        sorted(table.routes().map(|route| resolved(route, of_proxy))),
        answers(table, proxy),
        backends(of_proxy),
        certificates.iter().map(|certificate| format!("{certificate:?}")).collect(),
        vec![format!("{generation:?} {listeners:?} {forwards:?} {settings:?} {forbidden:?}")],
        vec![format!("{tunnel:?}"), format!("{firewall:?}"), format!("{virtual_ips:?}")],
        of_dns(dns),
    ]
}

/// All but the serial numbers: they tell when the planner saw a change.
fn of_dns(plan: &DnsPlan) -> Vec<String> {
    let mut lines = vec![format!("{:?} {:?} {:?}", plan.listen, plan.view, plan.resolver)];
    for zone in &plan.zones {
        lines.push(format!("{} {}", zone.name, zone.is_whole));
        for (name, sets) in &zone.sets {
            let sets = sets.iter().filter(|set| set.rtype != RecordType::SOA);
            lines.extend(sets.map(|set| format!("{name} {set:?}")));
        }
    }
    lines
}

/// What is answered about every name of a plan, about what is above it and what is below it.
fn said(responder: &Responder, plan: &DnsPlan) -> Vec<Vec<u8>> {
    let secret = CookieSecret { current: [7; 16], previous: None };
    let types =
        [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::NS, RecordType::SOA, RecordType::CNAME];
    let names = plan.zones.iter().flat_map(|zone| zone.sets.keys());
    let around = |name: &Name| [Some(name.clone()), name.parent(), name.child(b"x")].into_iter().flatten();
    let mut answers = Vec::new();
    for (name, rtype) in names.flat_map(around).flat_map(|name| types.map(|rtype| (name.clone(), rtype))) {
        let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend_from_slice(name.as_wire());
        question.extend_from_slice(&rtype.0.to_be_bytes());
        question.extend_from_slice(&[0, 1]);
        let mut answer = Vec::new();
        let from = "192.168.178.50".parse().unwrap();
        responder.answer(&question, from, Transport::Tcp, &secret, 1, &mut answer);
        answers.push(answer);
    }
    answers
}

/// What a node is told, if it is an edge.
fn cut(snapshot: &Snapshot, node: &NodeName) -> Vec<u8> {
    public::to_json(&public::public(snapshot, node)).expose().to_vec()
}

/// Takes every step twice: with what is remembered of the step before, and from nothing.
fn assert_same(
    versions: &[(ObjectKey, Vec<Arc<Object>>)],
    mut objects: BTreeMap<ObjectKey, Arc<Object>>,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let nodes = NODES.map(NodeName::new);
    let mut site = SITES[0].clone();
    let mut planners: Vec<Planner> = nodes.iter().map(|_| Planner::default()).collect();
    let mut responders: Vec<Responder> = nodes.iter().map(|_| Responder::default()).collect();
    let (mut lints, mut written) = (Lints::default(), cluster::Memo::default());
    let (mut of_cut, mut told) = (public::Memo::default(), Vec::new());
    for (generation, step) in (1..).zip(steps) {
        if let Some(number) = step.site {
            site = SITES[number].clone();
        }
        for (key, version) in &step.changes {
            let (key, versions) = key.get(versions);
            match version {
                Some(version) => drop(objects.insert(key.clone(), version.get(versions).clone())),
                None => drop(objects.remove(key)),
            }
        }
        let set = Arc::new(ObjectSet { objects: objects.values().cloned().collect(), findings: Vec::new() });
        let facts = facts(step, &set);
        let snapshot = Snapshot { generation: Generation(generation), site: site.clone(), objects: set, facts };
        for ((node, planner), responder) in nodes.iter().zip(&mut planners).zip(&mut responders) {
            let planned = planner.plan(&snapshot, node);
            *responder = responder.followed_by(&planned.dns);
            prop_assert_eq!(said(responder, &planned.dns), said(&Responder::new(&planned.dns), &planned.dns));
            prop_assert_eq!(of_plan(&planned), of_plan(&plan::node(&snapshot, node)), "{}", node);
        }
        let lowered = planners[0].lowered();
        prop_assert_eq!(of_lowered(lowered), of_lowered(&lower::snapshot(&snapshot)));
        let writes = cluster::cluster(&snapshot, lowered).diff(&snapshot.objects);
        prop_assert_eq!(written.writes(&snapshot, lowered), writes);
        // Mistakes are looked for when it has been quiet for a while.
        lints.follow(&snapshot, lowered);
        if step.is_quiet {
            prop_assert_eq!(findings(lints.of(&snapshot, lowered)), findings(objects::objects(&snapshot)));
        }
        let cut: Vec<Vec<u8>> = nodes.iter().map(|node| cut(&snapshot, node)).collect();
        if !of_cut.may_differ(&snapshot, lowered) {
            prop_assert_eq!(&cut, &told);
        }
        told = cut;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_comes_to_the_same_as_at_once(
        mixes in prop::collection::vec(mix::mix(), 3),
        of_cases in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        with_all_cases in prop::bool::weighted(0.1),
        steps in prop::collection::vec(step(12), 1..10),
    ) {
        let of_mixes = mixes.iter().flat_map(|mix| case(&mix.case()).objects.objects.clone());
        let few = of_cases.iter().map(|at| at.get(&OF_CASES).clone());
        let all = OF_CASES.iter().filter(|_| with_all_cases).cloned();
        let versions = versions(of_mixes.chain(few).chain(all).chain(NODE_OBJECTS.iter().cloned()));
        let there = versions.iter().filter(|_| with_all_cases);
        let objects = there.map(|(key, versions)| (key.clone(), versions[0].clone())).collect();
        assert_same(&versions, objects, &steps)?;
    }

    #[test]
    fn whatever_two_applications_share_is_whose_it_would_be_at_once(steps in prop::collection::vec(step(4), 4..16)) {
        let versions = versions(TWO.iter().cloned());
        let objects = versions.iter().map(|(key, versions)| (key.clone(), versions[0].clone())).collect();
        assert_same(&versions, objects, &steps)?;
    }
}

#[test]
fn a_change_of_one_application_leaves_everything_else_the_same_value() {
    let text = "\
== services
one 80
two 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: one, namespace: default}
spec: {rules: [{host: one.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: one, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: two, namespace: default}
spec: {rules: [{host: two.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: two, port: {number: 80}}}}]}}]}
";
    let (before, other) = (case(text), case(&text.replace("path: /,", "path: /new,")));
    let objects = before.objects.objects.iter().map(|object| match &*object.key.name.name {
        "two" if &*object.key.kind == "Ingress" => other.objects.get("Ingress", "default", "two").unwrap().clone(),
        _ => object.clone(),
    });
    let after = Snapshot {
        objects: Arc::new(ObjectSet { objects: objects.collect(), findings: Vec::new() }),
        ..before.clone()
    };
    let (node, mut planner) = (NodeName::new("home1"), Planner::default());
    let first = planner.plan(&before, &node).proxy;
    let ingresses = planner.lowered().ingresses.clone();
    let second = planner.plan(&after, &node).proxy;
    let same: Vec<bool> =
        ingresses.iter().zip(&planner.lowered().ingresses).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
    assert_eq!(same, [true, false]);
    assert!(Arc::ptr_eq(&first.certificates, &second.certificates) && !Arc::ptr_eq(&first.table, &second.table));
    assert!(first.backends.pages().iter().zip(second.backends.pages()).all(|(one, other)| Arc::ptr_eq(one, other)));
    assert!(Arc::ptr_eq(&planner.plan(&after, &node).proxy.table, &second.table), "nothing changed");
}

/// What an Ingress says, and routes do not show: mistakes are told of it all the same.
#[test]
fn what_only_another_reading_would_route_is_looked_at_again_too() {
    let text = |backend: &str, service: &str| {
        format!(
            "\
== site
ingressClasses: [{{controller: dualgate.dev/ingress-controller}}, {{name: traefik, compat: traefik}}]
== services
web 80
{service} 80
== objects
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: one, namespace: default}}
spec:
  ingressClassName: traefik
  defaultBackend: {{service: {{name: {backend}, port: {{number: 80}}}}}}
  rules: [{{host: b.example.org, http: {{paths: [{{path: /, pathType: Exact, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]
"
        )
    };
    let first = case(&text("rest", "rest"));
    let mut told = findings(objects::objects(&first));
    let (node, mut planner, mut lints) = (NodeName::new("home1"), Planner::default(), Lints::default());
    planner.plan(&first, &node);
    lints.of(&first, planner.lowered());
    let mut objects: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
    for (backend, service) in [("rest", "other"), ("other", "other")] {
        let second = case(&text(backend, service));
        // What says the same is the same value, as sources have it.
        let known = second.objects.objects.iter().map(|object| match objects.get(&object.key) {
            Some(known) if known == object => known.clone(),
            _ => object.clone(),
        });
        let set = Arc::new(ObjectSet { objects: known.collect(), findings: Vec::new() });
        objects = set.objects.iter().map(|object| (object.key.clone(), object.clone())).collect();
        let snapshot = Snapshot { site: first.site.clone(), objects: set, ..second };
        planner.plan(&snapshot, &node);
        lints.follow(&snapshot, planner.lowered());
        let now = findings(lints.of(&snapshot, planner.lowered()));
        assert_eq!(now, findings(objects::objects(&snapshot)));
        assert_ne!(now, told, "{backend} {service}");
        told = now;
    }
}

#[test]
fn mistakes_are_told_of_the_lines_where_they_are_now() {
    let text = |above: &str| {
        format!(
            "\
== services
web 80
== objects
{above}apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: one, namespace: default}}
spec:
  rules: [{{host: a.example.org, http: {{paths: [{{path: /api, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]
"
        )
    };
    let (node, mut planner, mut lints) = (NodeName::new("home1"), Planner::default(), Lints::default());
    let first = case(&text(""));
    let moved = case(&text("# It stands one line further below.\n"));
    // All else is the same value.
    let known = first.objects.objects.iter().zip(&moved.objects.objects);
    let is_ingress = |object: &Object| matches!(object.body, Body::Ingress(_));
    let objects =
        known.map(|(before, after)| if is_ingress(before) { after.clone() } else { before.clone() }).collect();
    let objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
    let second = Snapshot { site: first.site.clone(), objects, ..moved };
    let lines = [first, second].map(|snapshot| {
        planner.plan(&snapshot, &node);
        let told = lints.of(&snapshot, planner.lowered());
        assert_eq!(told.len(), 1, "{told:?}");
        told[0].at.line
    });
    assert_eq!(lines[1], lines[0].map(|line| line + 1));
}
