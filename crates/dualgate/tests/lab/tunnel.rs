//! The tunnel of a whole site: it heals by itself, and its keys change under traffic.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use dualgate_core::model::PublicKey;
use dualgate_core::parse::yaml;
use dualgate_host::keys::{Keys, Slot};
use dualgate_host::network::{Network, Route};
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{self, Connections, Load, Request};
use dualgate_lab::trial::Trial;

use crate::site::{logs, seed, status, until};

pub const TRIALS: &[Trial] = &[
    ("a_tunnel_whose_ipv6_dies_goes_on_over_ipv4", falls_back),
    ("the_keys_of_a_node_change_without_a_lost_request", rotation),
    ("everything_may_start_again_in_any_order", any_order),
];

const HOST: &str = "whoami.yourdomain.com";
const PUBLIC: &str = "203.0.113.10";

/// The peers of a node's tunnel by name.
fn peers(lab: &Lab, node: &str) -> BTreeMap<String, serde_json::Value> {
    let status = status(lab, node);
    let peers = status["tunnel"]["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().map(|peer| (peer["name"].as_str().unwrap_or_default().to_owned(), peer)).collect()
}

fn answers(lab: &Lab) -> bool {
    let Some(client) = lab.host("internet-client") else { return false };
    let request = Request::new(SocketAddr::new(PUBLIC.parse().unwrap(), 80), HOST);
    probe::get(&client, &request, Duration::from_secs(2)).is_ok_and(|answer| answer.status == 200)
}

fn traffic(lab: &Lab) -> probe::Running {
    let load = Load {
        request: Request::new(SocketAddr::new(PUBLIC.parse().unwrap(), 80), HOST),
        pace: Duration::from_millis(20),
        connections: Connections::Fresh,
        patience: Duration::from_secs(8),
        at_most: Duration::from_secs(120),
    };
    load.start(lab.host("internet-client").unwrap())
}

fn falls_back(directory: &Path) {
    let lab = seed(directory);
    let endpoint =
        |node: &str| peers(&lab, node).remove("ionos").and_then(|peer| Some(peer["endpoint"].as_str()?.to_owned()));
    until("home dials over IPv6 first", &lab, Duration::from_secs(5), || {
        endpoint("k3s-node2").is_some_and(|endpoint| endpoint.starts_with("[2001:db8:1::10]"))
    });
    let traffic = traffic(&lab);
    // The Internet forgets the edge's IPv6 address.
    let gone = Route { to: "2001:db8:1::10/128".parse().unwrap(), via: None, source: None, mtu: None };
    let forget = move || Network::open().unwrap().remove_route("ionos", &gone).unwrap();
    lab.host("internet").unwrap().run(forget);
    for node in ["k3s-node1", "k3s-node2", "k3s-node3"] {
        until("home goes over to IPv4", &lab, Duration::from_secs(60), || {
            endpoint(node).is_some_and(|endpoint| endpoint.starts_with("203.0.113.10:"))
        });
    }
    until("the application answers again", &lab, Duration::from_secs(10), || answers(&lab));
    let loss = traffic.stop();
    println!("{loss}");
    assert!(loss.longest_gap < Duration::from_secs(60), "{loss}");
}

/// Writes these public keys of a node into the site file of every node.
fn publish(lab: &Lab, directory: &Path, node: &str, keys: &[PublicKey]) {
    for host in lab.topology().hosts.iter().filter(|host| host.node.is_some()) {
        let file = directory.join("hosts").join(&host.name).join("run/dualgate/site.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut site = yaml::documents(&text).documents[0].to_json();
        for known in site["nodes"].as_array_mut().unwrap() {
            if known["name"] == node {
                known["publicKeys"] = keys.iter().map(ToString::to_string).collect();
            }
        }
        lab.nodes().write_site(&host.name, &site.to_string()).unwrap();
    }
}

fn rotation(directory: &Path) {
    let lab = seed(directory);
    let node = "k3s-node2";
    let keys = Keys::open(&directory.join("hosts").join(node).join("run/dualgate/state")).unwrap();
    let current = keys.current(&Slot::Private).unwrap().public().unwrap();
    let traffic = traffic(&lab);
    keys.prepare(&Slot::Private, None).unwrap();
    let next = keys.next(&Slot::Private).unwrap().unwrap().public().unwrap();
    publish(&lab, directory, node, &[current, next]);
    // Every node looks at its site file once a second.
    park_until(Instant::now() + Duration::from_secs(3));
    keys.finish(&Slot::Private).unwrap();
    until("the edge hears the next key", &lab, Duration::from_secs(30), || {
        let edge = peers(&lab, "ionos");
        let peer = &edge[node];
        peer["public_key"] == next.to_string() && peer["last_handshake_seconds"].as_u64().is_some_and(|age| age < 30)
    });
    publish(&lab, directory, node, &[next]);
    park_until(Instant::now() + Duration::from_secs(3));
    until("the edge believes the node by its next key", &lab, Duration::from_secs(30), || {
        let connected = status(&lab, "ionos")["exchange"]["connected"].clone();
        connected.as_array().is_some_and(|nodes| nodes.iter().any(|known| known == node))
    });
    let loss = traffic.stop();
    println!("{loss}");
    assert_eq!(loss.failed, 0, "{loss}\n{}", logs(&lab));
    let on_node =
        lab.cluster().pods().into_iter().find(|pod| pod.node == node && pod.workload == "apps/whoami").unwrap();
    assert!(loss.pods.keys().any(|pod| on_node.name.ends_with(pod.as_str())), "nothing went through the node's tunnel");
}

fn park_until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        park_timeout(left);
    }
}

fn any_order(directory: &Path) {
    let lab = seed(directory);
    for order in [["ionos", "router", "k3s-node2"], ["k3s-node2", "ionos", "router"], ["router", "k3s-node2", "ionos"]]
    {
        order.iter().for_each(|host| drop(lab.fail(host).unwrap()));
        for host in order {
            lab.heal(host).unwrap();
            park_until(Instant::now() + Duration::from_millis(300));
        }
        until("every node hears the edge", &lab, Duration::from_secs(40), || {
            let edge = peers(&lab, "ionos");
            edge.len() == 3
                && edge.values().all(|peer| peer["last_handshake_seconds"].as_u64().is_some_and(|age| age < 40))
        });
        until("the application answers", &lab, Duration::from_secs(20), || answers(&lab));
    }
}
