//! What is written back to a cluster: cases, and what holds for all objects.
//!
//! A case file holds cases: a line `=== what it shows`, keys of the site of [`Case::site`], and sections. Inputs:
//! `--- services` and `--- objects` (as in [`Case`]; what exists keeps its status), `--- deleted` (`Kind
//! namespace/name` in a line), `--- others` (`manager Kind namespace/name address or name...` in a line: somebody writes
//! a load balancer's status), `--- site` (another site), `--- silent` (edges that home does not hear). Outputs: `--- writes`, also `, IPv4 only` or `, IPv6 only` for
//! a site without the other family; the writes are made, after which there must be none. Addresses are assigned as
//! `plan::ipam` does. `DUALGATE_BLESS=1 cargo test -p dualgate-core --test cluster` writes what is found; review the
//! difference.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dualgate_core::case::{Case, Families, NOW};
use dualgate_core::lower::{self, Lowered};
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Assignments, NodeName, Object, ObjectName, ObjectSet, Site, Snapshot};
use dualgate_core::parse::{site, yaml};
use dualgate_core::plan::cluster::{Memo, Write, cluster};
use dualgate_core::plan::{ipam, public};
use serde_json::{Value, json};

use crate::api::Api;

#[path = "cluster/api.rs"]
mod api;
#[path = "cluster/contest.rs"]
mod contest;
#[path = "cluster/events.rs"]
mod events;
#[path = "cluster/properties.rs"]
mod properties;
#[path = "cluster/writers.rs"]
mod writers;

/// One cluster with the families that it has.
struct World {
    families: Families,
    site: String,
    api: Api,
    assigned: Arc<Assignments>,
    silent: Arc<BTreeSet<NodeName>>,
    now: i64,
    step: RefCell<Step>,
}

/// What is kept from one look to the next: what stays as it is stays the same value, as sources have it.
#[derive(Default)]
struct Step {
    site: Option<Arc<Site>>,
    objects: Arc<ObjectSet>,
    lowered: Lowered,
    memo: Memo,
}

impl Step {
    fn writes(&mut self, mut snapshot: Snapshot) -> Vec<Arc<Write>> {
        let site = self.site.take().filter(|site| **site == *snapshot.site).unwrap_or(snapshot.site);
        self.site = Some(site.clone());
        let former = |new: &Arc<Object>| {
            let ObjectName { namespace, name } = &new.key.name;
            let former = self.objects.get(&new.key.kind, namespace, name).filter(|old| **old == *new);
            former.unwrap_or(new).clone()
        };
        let objects = snapshot.objects.objects.iter().map(former).collect();
        self.objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
        (snapshot.site, snapshot.objects) = (site, self.objects.clone());
        self.lowered.update_to(&snapshot);
        self.memo.writes(&snapshot, &self.lowered)
    }
}

impl World {
    fn new(families: Families, keys: &str) -> Self {
        let mut world = Self {
            families,
            site: String::new(),
            api: Api::default(),
            assigned: Arc::default(),
            silent: Arc::default(),
            now: NOW,
            step: RefCell::default(),
        };
        world.set_site(keys);
        world
    }

    fn set_site(&mut self, keys: &str) {
        self.site = Case::parse("case", &format!("== site\n{keys}\n")).unwrap().site(self.families);
    }

    fn put(&mut self, section: &str, text: &str) {
        let case = Case::parse("case", &format!("== {section}\n{text}\n")).unwrap();
        let documents = yaml::documents(&case.manifests(self.families));
        assert!(documents.error.is_none(), "{text}");
        for document in &documents.documents {
            let value = document.to_json();
            let family = value["addressType"].as_str();
            let is_here = match self.families {
                Families::V4 => family != Some("IPv6"),
                Families::V6 => family != Some("IPv4"),
                Families::Both => true,
            };
            if is_here && !value.is_null() {
                self.api.put(value);
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (site, findings) = site::site("site.yaml", &self.site);
        let site = site.unwrap_or_else(|| panic!("{}\n{findings:?}", self.site));
        Snapshot {
            generation: Generation(1),
            site: Arc::new(site),
            objects: Arc::new(self.api.set()),
            facts: Facts {
                now: self.now,
                assigned: self.assigned.clone(),
                silent_edges: self.silent.clone(),
                ..Facts::default()
            },
        }
    }

    /// What is to be written.
    fn writes(&self) -> Vec<Arc<Write>> {
        let snapshot = self.snapshot();
        let writes = cluster(&snapshot, &lower::snapshot(&snapshot)).diff(&snapshot.objects);
        assert_eq!(self.step.borrow_mut().writes(snapshot), writes, "step by step it is something else");
        writes
    }

    /// Addresses are assigned and everything is written that is to be.
    fn settle(&mut self) -> Vec<Arc<Write>> {
        self.assigned = Arc::new(ipam::assign(&self.snapshot()).assignments);
        let writes = self.writes();
        let before = self.api.clone();
        for write in &writes {
            self.api.apply(write, self.now);
        }
        for (key, value) in self.api.values() {
            let is_written = writes.iter().any(|write| write.object.to_string() == *key);
            assert!(is_written || before.values()[key] == *value, "{key} was touched");
        }
        self.now += 60;
        assert_eq!(self.writes(), [], "something is left to write");
        writes
    }

    fn input(&mut self, section: &str, text: &str) {
        match section {
            "site" => self.set_site(text),
            "silent" => self.silent = Arc::new(text.split_whitespace().map(NodeName::new).collect()),
            "services" | "objects" => self.put(section, text),
            "deleted" => text.lines().filter(|line| !line.is_empty()).for_each(|line| self.api.delete(line)),
            "others" => text.lines().filter(|line| !line.is_empty()).for_each(|line| self.others(line)),
            other => panic!("`{other}` is no section"),
        }
    }

    fn others(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (manager, kind) = (words.next().unwrap(), words.next().unwrap());
        let mut words = words.next().unwrap().split_whitespace();
        let key = format!("{kind} {}", words.next().unwrap());
        let entry = |word: &str| match word.parse::<std::net::IpAddr>() {
            Ok(address) => json!({ "ip": address }),
            Err(_) => json!({ "hostname": word }),
        };
        self.api.update(manager, &key, words.map(entry).collect::<Value>());
    }
}

fn shown(writes: &[Arc<Write>]) -> String {
    let mut text = String::new();
    for write in writes {
        let replaces = write.replaces.iter().map(|manager| format!(" (was of {manager})")).collect::<String>();
        writeln!(text, "{write}{replaces}").unwrap();
    }
    text
}

/// The case as it is, and how many outputs it has.
fn run(case: &str) -> (String, usize) {
    let mut parts = case.split("\n--- ");
    let first = parts.next().unwrap().trim_end();
    let (title, keys) = first.split_once('\n').unwrap_or((first, ""));
    let mut page = format!("=== {title}\n");
    if !keys.trim().is_empty() {
        page += &format!("{}\n", keys.trim_end());
    }
    let mut worlds = [Families::Both, Families::V4, Families::V6].map(|families| World::new(families, keys));
    let mut settled: Option<[Vec<Arc<Write>>; 3]> = None;
    let mut outputs = 0;
    for part in parts {
        let (section, text) = part.split_once('\n').unwrap_or((part, ""));
        let home = match section {
            "writes" => 0,
            "writes, IPv4 only" => 1,
            "writes, IPv6 only" => 2,
            input => {
                settled = None;
                worlds.iter_mut().for_each(|world| world.input(input, text));
                page += &format!("--- {section}\n{}\n", text.trim_end());
                continue;
            }
        };
        let writes = settled.get_or_insert_with(|| worlds.each_mut().map(World::settle));
        page += &format!("--- {section}\n{}", shown(&writes[home]));
        outputs += 1;
    }
    (page, outputs)
}

#[test]
fn every_case_writes_what_it_says() {
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/cluster");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.strip_prefix("=== ").expect("a file starts with a case");
        let mut blessed = Vec::new();
        for case in text.split("\n=== ") {
            let (page, outputs) = run(case);
            let expected = format!("=== {}", case.trim_end());
            if page.trim_end() != expected {
                writeln!(wrong, "{}\n-- expected\n{expected}\n-- found\n{page}", path.display()).unwrap();
            }
            count += outputs;
            blessed.push(page);
        }
        if bless {
            fs::write(&path, blessed.join("\n")).unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 30, "only {count} outputs were compared");
}

#[test]
fn a_request_names_all_that_is_to_be_ours_and_nothing_else() {
    let mut world = World::new(Families::Both, POOL);
    world.put("services", "grafana 80");
    world.put("objects", THREE);
    let requests = |writes: &[Arc<Write>], now| {
        let shown = writes.iter().map(|write| format!("{} {} {}", write.path(), write.resource(), write.body(now)));
        shown.collect::<Vec<_>>()
    };
    let writes = world.settle();
    assert_eq!(
        requests(&writes, NOW),
        [
            r#"/apis/networking.k8s.io/v1/namespaces/default/ingresses/a/status ingresses/status {"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"a","namespace":"default"},"status":{"loadBalancer":{"ingress":[{"ip":"192.168.178.10"},{"ip":"fda8:a1db:5685::10"},{"ip":"203.0.113.10"},{"ip":"2001:db8:1::10"}]}}}"#,
            r#"/api/v1/nodes/edge nodes {"apiVersion":"v1","kind":"Node","metadata":{"labels":{"node-restriction.kubernetes.io/dualgate-edge":"true","node-role.kubernetes.io/edge":"true"},"name":"edge"}}"#,
            r#"/api/v1/namespaces/default/services/lb/status services/status {"apiVersion":"v1","kind":"Service","metadata":{"name":"lb","namespace":"default"},"status":{"conditions":[{"lastTransitionTime":"2026-11-22T00:00:00Z","message":"from pool `home`","reason":"Assigned","status":"True","type":"dualgate.dev/AddressAssigned"}],"loadBalancer":{"ingress":[{"ip":"192.168.178.11","ipMode":"VIP"},{"ip":"fda8:a1db:5685::11","ipMode":"VIP"}]}}}"#,
        ]
    );
    world.set_site("pools: [{name: lan, addresses: [192.168.178.11, 'fda8:a1db:5685::11']}]");
    let renamed = requests(&world.settle(), NOW + 7);
    let [renamed] = renamed.as_slice() else { panic!("{renamed:?}") };
    assert!(renamed.contains("2026-11-22T00:00:00Z") && renamed.contains("`lan`"), "{renamed}");
    world.set_site("pools: [{name: lan, addresses: ['fda8:a1db:5685::11'], namespaces: [apps]}]");
    let lost = requests(&world.settle(), NOW + 7);
    assert_eq!(
        lost,
        [
            r#"/api/v1/namespaces/default/services/lb/status services/status {"apiVersion":"v1","kind":"Service","metadata":{"name":"lb","namespace":"default"},"status":{"conditions":[{"lastTransitionTime":"2026-11-22T00:00:07Z","message":"no IPv4: no pool is for it: `lan` is for other Services; no IPv6: no pool is for it: `lan` is for other Services","reason":"NoAddress","status":"False","type":"dualgate.dev/AddressAssigned"}]}}"#
        ]
    );
    world.put("objects", "{apiVersion: v1, kind: Service, metadata: {name: lb}, spec: {ports: [{port: 80}]}}");
    assert_eq!(
        requests(&world.settle(), NOW),
        [
            r#"/api/v1/namespaces/default/services/lb/status services/status {"apiVersion":"v1","kind":"Service","metadata":{"name":"lb","namespace":"default"}}"#
        ]
    );
}

#[test]
fn what_is_about_to_be_assigned_is_not_written_twice() {
    let mut world = World::new(Families::Both, POOL);
    world.put("objects", THREE);
    let of_service = |world: &World| world.writes().iter().filter(|write| *write.object.kind == *"Service").count();
    assert_eq!(of_service(&world), 0, "nothing is assigned yet, and will be");
    world.settle();
    world.set_site("pools: [{name: home, addresses: [192.168.178.12, 'fda8:a1db:5685::12']}]");
    assert_eq!(of_service(&world), 0, "others will be assigned");
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn what_is_written_makes_no_other_plan_for_a_node() {
    let mut world = World::new(Families::Both, POOL);
    world.put("services", "grafana 80");
    world.put("objects", THREE);
    world.assigned = Arc::new(ipam::assign(&world.snapshot()).assignments);
    let plans = |world: &World| {
        let snapshot = world.snapshot();
        let lowered = lower::snapshot(&snapshot);
        let plans = snapshot.site.nodes.iter().map(|node| {
            let cut = public::to_json(&public::select(&snapshot, &lowered, &node.name));
            let cut = String::from_utf8(cut.expose().to_vec()).unwrap();
            format!("{:#?} {cut}", dualgate_core::plan::select(&snapshot, &lowered, &node.name))
        });
        plans.collect::<Vec<_>>()
    };
    let before = plans(&world);
    assert_eq!(world.settle().len(), 3, "an Ingress, a Service and a Node");
    world.now = NOW;
    assert!(before == plans(&world), "a status that we wrote is another plan");
}

const POOL: &str = "pools: [{name: home, addresses: [192.168.178.11, 'fda8:a1db:5685::11']}]";

/// An Ingress at both gates, a Service with addresses, and an edge.
const THREE: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a, annotations: {dualgate.dev/gates: 'internal,external'}}
spec: {defaultBackend: {service: {name: grafana, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: lb}
spec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}
---
{apiVersion: v1, kind: Node, metadata: {name: edge}}
";
