//! The edge is told: it has nothing but what is public, serves it also while home is away, and hears whoever is left at home.

use std::path::Path;
use std::time::Duration;

use dualgate_lab::control::Operator as _;
use dualgate_lab::probe::{self, Request};
use dualgate_lab::trial::Trial;

use crate::site::{get, seed_with_manifests, status, until};

pub const TRIALS: &[Trial] = &[
    ("an_edge_has_nothing_on_its_disk_but_what_is_public", nothing_private),
    ("an_edge_that_starts_while_home_is_away_serves_what_it_had_and_says_so", home_away),
    ("an_edge_hears_the_next_home_node_when_the_first_one_dies", next_in_line),
];

const EDGE: &str = "ionos";
/// Home and edge find each other again within this time.
const LIMIT: Duration = Duration::from_secs(30);
const PUBLIC: &str = "203.0.113.10";
const HOST: &str = "whoami.yourdomain.com";

/// Every octet that lies on the edge.
fn disk(folder: &Path, found: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found.extend_from_slice(path.to_string_lossy().as_bytes());
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            disk(&path, found);
        } else if path.is_file() && !path.ends_with("site.yaml") {
            found.extend(std::fs::read(&path).unwrap());
        }
    }
}

const BOTH: &str = "
apiVersion: v1
kind: Secret
metadata: {name: vault-key, namespace: vault}
stringData: {password: hunter2-of-the-vault}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: vault, annotations: {dualgate.dev/endpoints: '192.168.178.77:8200'}}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: vault, namespace: vault, annotations: {dualgate.dev/gates: internal, note: written-by-hand}}
spec:
  rules:
  - host: vault.yourdomain.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: vault, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shown, namespace: apps, annotations: {dualgate.dev/gates: 'internal,external'}}
spec:
  rules:
  - host: shown.yourdomain.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: whoami, port: {name: http}}}}]}
";

fn nothing_private(directory: &Path) {
    let (lab, manifests) = seed_with_manifests(directory);
    std::fs::write(manifests.join("more.yaml"), BOTH).unwrap();
    until("what is public reaches the edge", &lab, LIMIT, || {
        get(&lab, "internet-client", PUBLIC, "shown.yourdomain.com").status == 200
    });
    let edge = lab.site().nodes.iter().find(|node| node.is_edge()).unwrap();
    // Its log lies elsewhere, and holds what clients ask for.
    let own = directory.join("hosts").join(edge.name.as_str()).join("run");
    until("it is kept on disk", &lab, LIMIT, || {
        let mut found = Vec::new();
        disk(&own, &mut found);
        String::from_utf8_lossy(&found).contains("shown.yourdomain.com")
    });
    let mut found = Vec::new();
    disk(&own, &mut found);
    let text = String::from_utf8_lossy(&found);
    for private in ["vault", "hunter2", "192.168.178.77", "paperless", "postgres", "redis", "written-by-hand"] {
        let at = text.find(private).map(|at| text[at.saturating_sub(80)..].chars().take(200).collect::<String>());
        assert_eq!(at, None, "`{private}` lies on the edge");
    }
    assert_eq!(get(&lab, "internet-client", PUBLIC, "vault.yourdomain.com").status, 404);
}

fn home_away(directory: &Path) {
    let (lab, _) = seed_with_manifests(directory);
    assert_eq!(get(&lab, "internet-client", PUBLIC, HOST).status, 200);
    until("what was told lies on its disk", &lab, LIMIT, || {
        lab.nodes().log(EDGE).is_ok()
            && directory.join("hosts").join(EDGE).join("run/dualgate/state/objects.json").exists()
    });
    lab.cut("carrier/router").unwrap();
    lab.fail(EDGE).unwrap();
    lab.heal(EDGE).unwrap();
    until("the edge serves what it had", &lab, LIMIT, || status(&lab, EDGE)["objects_from"] == "disk");
    let findings = status(&lab, EDGE)["findings"].to_string();
    assert!(findings.contains("\"stale\""), "{findings}");
    // The route is known, its pods are out of reach.
    let client = lab.host("internet-client").unwrap();
    let request = Request::new((PUBLIC.parse::<std::net::IpAddr>().unwrap(), 80).into(), HOST);
    let known = probe::get(&client, &request, Duration::from_secs(20)).unwrap().status;
    assert!(matches!(known, 502..=504), "{known}");
    assert_eq!(get(&lab, "internet-client", PUBLIC, "paperless.yourdomain.com").status, 404);
    lab.heal("carrier/router").unwrap();
    until("home is back", &lab, LIMIT, || {
        status(&lab, EDGE)["objects_from"] == "source" && get(&lab, "internet-client", PUBLIC, HOST).status == 200
    });
}

fn next_in_line(directory: &Path) {
    let (lab, manifests) = seed_with_manifests(directory);
    until("the first one is heard", &lab, LIMIT, || {
        status(&lab, EDGE)["exchange"]["told_by"].as_str().is_some_and(|by| by.contains("k3s-node1"))
    });
    lab.fail("k3s-node1").unwrap();
    std::fs::write(manifests.join("more.yaml"), BOTH).unwrap();
    until("the edge hears what changed from the next one", &lab, LIMIT, || {
        let status = status(&lab, EDGE);
        status["exchange"]["told_by"].as_str().is_some_and(|by| by.contains("k3s-node2"))
            && status["plan"].to_string().contains("shown.yourdomain.com")
    });
    lab.heal("k3s-node1").unwrap();
    until("the first one's word counts again", &lab, LIMIT, || {
        status(&lab, EDGE)["exchange"]["told_by"].as_str().is_some_and(|by| by.contains("k3s-node1"))
    });
}
