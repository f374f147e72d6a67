//! A home that runs already comes to dualgate: `docs/migrate.md`, steps 1 to 5 and 7, and back.
//!
//! A machine of the LAN plays Traefik behind MetalLB: its kernel answers for the address, an echo backend for every host;
//! and somebody else writes the statuses.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dualgate_lab::cluster::Patience;
use dualgate_lab::kubernetes::Ask;
use dualgate_lab::lab::{Lab, Origin};
use dualgate_lab::probe::{self, Request, who_has};
use dualgate_lab::process::Process;
use dualgate_lab::station::{Machine, Station};
use dualgate_lab::trial::Trial;
use serde_json::{Value, json};

use crate::kubernetes::{WAYS, api, ask, named, until_named};
use crate::site::{example, ip, logs, start_with, status, until};

pub const TRIALS: &[Trial] = &[
    ("a_running_home_comes_to_dualgate_step_by_step_and_goes_back", migrate),
    ("services_keep_the_addresses_that_metallb_gave_them", keep_addresses),
    ("the_edge_comes_to_dualgate_and_goes_back", edge),
];

const LIMIT: Duration = Duration::from_secs(20);
/// Traefik's addresses, and those that dualgate has beside it.
const OLD: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const FREE: [&str; 2] = ["192.168.178.9", "fda8:a1db:5685::9"];
const HOST: &str = "grafana.yourdomain.com";
const TRY: &str = "try.yourdomain.com";
const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];
const SERVICES: &str = "/api/v1/namespaces/apps/services";
/// What MetalLB gave: not the addresses that dualgate would begin with.
const GIVEN: [&str; 2] = ["192.168.178.15", "fda8:a1db:5685::17"];
const EDGE: &str = "ionos";
const STRANGER: [u8; 6] = [2, 0x66, 0, 0, 0, 0x10];

/// The classes of K3s with dualgate's beside: Traefik's is the default.
const CLASSES: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: traefik, annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}}
spec: {controller: traefik.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: dualgate}
spec: {controller: dualgate.dev/ingress-controller}
";
const TRAEFIKS_CLASS: &str = "  - name: traefik
    controller: traefik.io/ingress-controller
    compat: traefik
";
const WHOAMI: &str = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/whoami";
const SECOND_DOOR: &str = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/try";
const INGRESS: &str = "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/grafana";

struct Home {
    lab: Lab,
    site: PathBuf,
    /// The pools of the seed's site file, which it does not have yet.
    pools: String,
    stranger: Option<Station>,
}

impl Home {
    /// The seed as it runs, and dualgate beside it with free addresses, its own class and no pools.
    fn new(directory: &Path) -> Self {
        let home = directory.join("home");
        let manifests = home.join("manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        // The classes are there before any Ingress, as on a cluster that runs.
        std::fs::write(manifests.join("00-classes.yaml"), CLASSES).unwrap();
        for file in ["grafana.yaml", "whoami.yaml"] {
            std::fs::copy(example().join("manifests").join(file), manifests.join(file)).unwrap();
        }
        let site = home.join("site.yaml");
        let text = std::fs::read_to_string(example().join("site.yaml")).unwrap();
        let (before, rest) = text.split_once("\npools:\n").unwrap();
        let (pools, after) = rest.split_once("\ngates:\n").unwrap();
        let text = format!("{before}\ngates:\n{after}");
        std::fs::write(&site, edited(&edited(&text, TRAEFIKS_CLASS, ""), &addresses(OLD), &addresses(FREE))).unwrap();
        let lab = start_with(directory, &home, Patience::default(), Origin::Kubernetes);
        let mut home = Self { lab, site, pools: format!("\npools:\n{pools}"), stranger: None };
        home.stranger_comes();
        home
    }

    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.site).unwrap();
        std::fs::write(&self.site, edited(&text, from, to)).unwrap();
    }

    /// MetalLB announces, Traefik answers and says so.
    fn stranger_comes(&mut self) {
        self.stranger_has("traefik", OLD);
        self.says("traefik", INGRESS, &OLD);
    }

    /// A machine of somebody else has two addresses.
    fn stranger_has(&mut self, name: &str, [v4, v6]: [&str; 2]) {
        let machine = Machine {
            name: name.to_owned(),
            mac: STRANGER,
            addresses: vec![format!("{v4}/24").parse().unwrap(), format!("{v6}/64").parse().unwrap()],
            ports: vec![80],
        };
        self.stranger = Some(self.lab.add_station(&machine).expect("a machine of somebody else"));
    }

    /// MetalLB lets the address go; Traefik's Service is none of its any more, so Traefik has none to tell.
    fn stranger_goes(&mut self) {
        self.stranger = None;
    }

    /// Somebody writes the status of an Ingress.
    fn says(&self, manager: &str, ingress: &str, addresses: &[&str]) {
        let entries: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let status = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": ingress.rsplit('/').next(), "namespace": "apps"},
            "status": {"loadBalancer": {"ingress": entries}},
        });
        ask(&self.lab, Ask::apply(&format!("{ingress}/status"), manager, status));
    }

    /// Who answers a request for a host: the pod's name, or the code.
    fn who(&self, address: &str, host: &str) -> String {
        let request = Request::new(SocketAddr::new(ip(address), 80), host);
        match probe::get(&self.lab.host("lan-client").unwrap(), &request, Duration::from_secs(2)) {
            Ok(answer) => answer.echo().map_or_else(|| answer.status.to_string(), |echo| echo.pod),
            Err(trouble) => trouble.to_string(),
        }
    }

    #[track_caller]
    fn answers(&self, addresses: [&str; 2], host: &str, who: &str) {
        for address in addresses {
            until(&format!("{who} answers for {host} at {address}"), &self.lab, LIMIT, || {
                self.who(address, host).starts_with(who)
            });
        }
    }

    /// The stations of the LAN that answer for an address.
    #[track_caller]
    fn are_at(&self, addresses: [&str; 2], stations: &BTreeSet<String>) {
        for address in addresses {
            until(&format!("one of {stations:?} has {address}"), &self.lab, LIMIT, || {
                let from = self.lab.host("lan-client").unwrap();
                let seen = who_has(&from, "eth0", ip(address), Duration::from_millis(200)).unwrap_or_default();
                let seen: BTreeSet<String> = seen.iter().map(ToString::to_string).collect();
                seen.len() == 1 && seen.is_subset(stations)
            });
        }
    }

    /// The nodes' link-layer addresses.
    fn nodes(&self) -> BTreeSet<String> {
        let hosts = &self.lab.topology().hosts;
        let nodes = hosts.iter().filter(|host| NODES.contains(&host.name.as_str()));
        let macs = nodes.flat_map(|host| &host.interfaces).filter(|interface| interface.name == "eth0");
        macs.filter_map(|interface| interface.mac.map(colons)).collect()
    }

    fn ingress(&self) -> Value {
        ask(&self.lab, Ask::get(INGRESS))
    }

    #[track_caller]
    fn status_is(&self, addresses: &[&str]) {
        until_named(&self.lab, INGRESS, addresses);
    }
}

#[track_caller]
fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

/// The addresses of the internal gate, as they stand in the site file.
fn addresses([v4, v6]: [&str; 2]) -> String {
    format!("    addresses: [{v4}, \"{v6}\"]\n    entryPoints")
}

/// Those of the internal gate, and the edge's.
fn at([v4, v6]: [&str; 2]) -> [&str; 4] {
    [v4, v6, WAYS[2].1, WAYS[3].1]
}

/// Whether a node says that somebody sets back what it writes.
fn contests(lab: &Lab, node: &str) -> bool {
    status(lab, node)["findings"].to_string().contains("\"status-contested\"")
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// A second door for an application, in dualgate's own class.
fn second_door() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "try", "namespace": "apps"},
        "spec": {
            "ingressClassName": "dualgate",
            "rules": [{"host": TRY, "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "grafana", "port": {"number": 80}}}},
            ]}}],
        },
    })
}

fn migrate(directory: &Path) {
    let mut home = Home::new(directory);
    let stranger = BTreeSet::from([colons(STRANGER)]);
    let nodes = home.nodes();
    let written = home.ingress();
    assert_eq!(written["spec"]["ingressClassName"], "traefik", "K3s' default class");

    // 2: beside. Traefik is what it was, and a second door is dualgate's.
    ask(&home.lab, Ask::apply(SECOND_DOOR, "test", second_door()));
    home.answers(FREE, TRY, "grafana-");
    home.answers(FREE, HOST, "404");
    home.answers(OLD, HOST, "traefik");
    home.are_at(OLD, &stranger);
    home.are_at(FREE, &nodes);
    until_named(&home.lab, SECOND_DOOR, &FREE);
    assert_eq!(named(&home.lab, INGRESS), OLD, "the status is the other's");

    // 3: Traefik's class, at dualgate's addresses; back; and again.
    home.edit("ingressClasses:\n", &format!("ingressClasses:\n{TRAEFIKS_CLASS}"));
    home.answers(FREE, HOST, "grafana-");
    home.answers(OLD, HOST, "traefik");
    home.status_is(&at(FREE));
    home.edit(TRAEFIKS_CLASS, "");
    home.answers(FREE, HOST, "404");
    home.status_is(&[]);
    home.edit("ingressClasses:\n", &format!("ingressClasses:\n{TRAEFIKS_CLASS}"));
    home.answers(FREE, HOST, "grafana-");
    home.are_at(OLD, &stranger);
    home.status_is(&at(FREE));
    // What Traefik sets back is left to it, and told.
    until_named(&home.lab, WHOAMI, &at(FREE));
    home.says("traefik", WHOAMI, &OLD);
    until("the contest is told", &home.lab, LIMIT, || NODES.iter().any(|node| contests(&home.lab, node)));
    assert_eq!(named(&home.lab, WHOAMI), OLD);

    // 4: the other one lets the addresses go, dualgate takes them.
    home.stranger_goes();
    home.edit(&addresses(FREE), &addresses(OLD));
    home.are_at(OLD, &nodes);
    home.answers(OLD, HOST, "grafana-");
    home.status_is(&at(OLD));

    // And back, all the way.
    home.edit(&addresses(OLD), &addresses(FREE));
    home.are_at(FREE, &nodes);
    home.answers(FREE, HOST, "grafana-");
    home.edit(TRAEFIKS_CLASS, "");
    home.answers(FREE, HOST, "404");
    home.stranger_comes();
    home.are_at(OLD, &stranger);
    home.answers(OLD, HOST, "traefik");
    home.answers(FREE, TRY, "grafana-");
    home.status_is(&OLD);
    let now = home.ingress();
    assert_eq!((&now["spec"], &now["metadata"]["generation"]), (&written["spec"], &written["metadata"]["generation"]));
    assert!(!api(&home.lab).is_away(), "{}", logs(&home.lab));
}

/// A Service of type LoadBalancer.
fn balanced(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "apps"},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "selector": {"app": "grafana"},
            "ports": [{"name": "http", "port": 80, "targetPort": 3000}],
        },
    })
}

fn keep_addresses(directory: &Path) {
    let mut home = Home::new(directory);
    home.stranger_goes();
    // MetalLB has given an address of each family, and announces them.
    let (old, later) = (format!("{SERVICES}/balanced"), format!("{SERVICES}/another"));
    ask(&home.lab, Ask::apply(&old, "test", balanced("balanced")));
    let entries = GIVEN.map(|address| json!({"ip": address, "ipMode": "VIP"}));
    let status = json!({"status": {"loadBalancer": {"ingress": entries}}});
    ask(&home.lab, Ask::merge(format!("{old}/status"), status));
    home.stranger_has("metallb", GIVEN);
    home.answers(GIVEN, HOST, "metallb");
    home.are_at(GIVEN, &BTreeSet::from([colons(STRANGER)]));

    // 5: MetalLB stops and leaves its statuses; dualgate has its pools.
    home.stranger_goes();
    let pools = home.pools.clone();
    home.edit("\ngates:\n", &format!("{pools}\ngates:\n"));
    home.are_at(GIVEN, &home.nodes());
    home.answers(GIVEN, HOST, "grafana-");
    assert_eq!(named(&home.lab, &old), GIVEN);
    ask(&home.lab, Ask::apply(&later, "test", balanced("another")));
    until("another Service has addresses", &home.lab, LIMIT, || named(&home.lab, &later).len() == 2);
    let given = named(&home.lab, &later);
    assert!(given.iter().all(|address| !GIVEN.contains(&address.as_str())), "{given:?}");

    // And back: MetalLB finds its own status, and nothing of dualgate's.
    home.edit(&pools, "");
    home.stranger_has("metallb", GIVEN);
    home.are_at(GIVEN, &BTreeSet::from([colons(STRANGER)]));
    home.answers(GIVEN, HOST, "metallb");
    until_named(&home.lab, &later, &[]);
    assert_eq!(named(&home.lab, &old), GIVEN, "{}", logs(&home.lab));
}

/// The edge's second Traefik: any program that has its ports.
fn second_traefik(lab: &Lab, directory: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    let listen: Vec<String> = WAYS[2..].iter().map(|(_, gate)| SocketAddr::new(ip(gate), 80).to_string()).collect();
    command.args(["echo", "--name", "traefik", "--listen", &listen.join(",")]);
    let log = directory.join("traefik.log");
    lab.nodes().processes().spawn(&lab.host(EDGE).unwrap(), command, &log).expect("it starts")
}

/// Who answers at the edge's public addresses.
#[track_caller]
fn answers_outside(lab: &Lab, who: &str) {
    for (from, gate) in &WAYS[2..] {
        let request = Request::new(SocketAddr::new(ip(gate), 80), HOST);
        until(&format!("{who} answers at {gate}"), lab, LIMIT, || {
            let answer = probe::get(&lab.host(from).unwrap(), &request, Duration::from_secs(2));
            answer.is_ok_and(|answer| answer.echo().is_some_and(|echo| echo.pod.starts_with(who)))
        });
    }
}

fn edge(directory: &Path) {
    let lab = crate::kubernetes::seed(directory);
    answers_outside(&lab, "grafana-");
    // 7: dualgate is there and switched off, the other one has the ports.
    lab.nodes().kill(EDGE);
    let traefik = second_traefik(&lab, directory);
    answers_outside(&lab, "traefik");
    // Both at a time: the second one cannot listen, says so, and waits.
    lab.nodes().start(EDGE).expect("it starts");
    until("dualgate says what it cannot have", &lab, LIMIT, || {
        let findings = status(&lab, EDGE)["findings"].to_string();
        WAYS[2..].iter().all(|(_, gate)| {
            findings.contains(&format!("listen on {} for entry point external/web: ", SocketAddr::new(ip(gate), 80)))
        })
    });
    answers_outside(&lab, "traefik");
    drop(traefik);
    answers_outside(&lab, "grafana-");
    // And back.
    lab.nodes().kill(EDGE);
    let _traefik = second_traefik(&lab, directory);
    answers_outside(&lab, "traefik");
    all_answer_at_home(&lab);
}

/// Whatever happens at the edge.
#[track_caller]
fn all_answer_at_home(lab: &Lab) {
    for (from, gate) in &WAYS[..2] {
        until(&format!("{gate} answers"), lab, LIMIT, || crate::kubernetes::code(lab, (from, gate), HOST) == Some(200));
    }
}
