//! Virtual IPs on a LAN: who answers for them, before, while and after something fails or is moved.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_host::virtual_ips::control::{Answer, Order, order};
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{Connections, Load, Loss, Request, Running, ping, who_has};
use dualgate_lab::trial::Trial;
use rustix::process::Signal;

use crate::site::{example, get, ip, logs, pass, seed, seed_with_manifests, start, status, until};

pub const TRIALS: &[Trial] = &[
    ("a_node_without_power_is_replaced_and_does_not_take_its_addresses_back", power),
    ("a_process_that_is_killed_is_replaced_and_the_kernel_answers_for_nobody", killed),
    ("a_node_whose_cable_is_pulled_is_replaced_and_is_silent_when_it_is_back", cable),
    ("a_planned_move_breaks_no_open_connection", moved),
    ("a_node_that_is_told_to_end_hands_its_addresses_over_first", told_to_end),
    ("a_frozen_process_is_silent_when_it_wakes", frozen),
    ("a_service_is_answered_for_from_its_creation_to_its_end", service),
    ("the_lan_reaches_the_private_addresses_of_an_edge", edge),
    ("two_nodes_take_over_from_each_other_with_the_router_as_witness", two),
    ("two_nodes_that_do_not_hear_each_other_never_both_answer", apart),
    ("a_node_alone_holds_everything", one),
    ("an_upgrade_moves_no_address_and_breaks_no_connection", upgraded),
    ("services_that_come_to_share_an_address_leave_it_where_it_is", shared),
];

/// The internal gate's.
const GATE: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const HOST: &str = "whoami.yourdomain.com";
const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];
/// Far more than a failover takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// The node that says it holds an address.
fn holder(lab: &Lab, address: &str) -> Option<&'static str> {
    NODES.into_iter().find(|node| lab.nodes().held(node).contains(&ip(address)))
}

#[track_caller]
fn holder_of(lab: &Lab, address: &str) -> &'static str {
    holder(lab, address).unwrap_or_else(|| panic!("nobody holds {address}\n{}", logs(lab)))
}

/// Waits until somebody else than `former` holds the gate's addresses.
#[track_caller]
fn replaced(lab: &Lab, former: &str) -> &'static str {
    until("another node holds the address", lab, LIMIT, || holder(lab, GATE[0]).is_some_and(|node| node != former));
    let node = holder_of(lab, GATE[0]);
    assert_eq!(holder(lab, GATE[1]), Some(node), "both families are at one node");
    node
}

/// The link-layer address of a node, as people write it.
fn mac_of(lab: &Lab, node: &str) -> String {
    let host = lab.topology().hosts.iter().find(|host| host.name == node).expect("a host of the lab");
    let eth0 = host.interfaces.iter().find(|interface| interface.name == "eth0").expect("an interface");
    eth0.mac.expect("an address").map(|octet| format!("{octet:02x}")).join(":")
}

/// Every station that answers one question for an address, asked by the LAN's client.
fn stations(from: &Namespace, address: IpAddr, patience: Duration) -> BTreeSet<String> {
    let seen = who_has(from, "eth0", address, patience).unwrap_or_default();
    seen.iter().map(ToString::to_string).collect()
}

/// Asks the LAN again and again who has the gate's addresses; the largest number of stations that answered one question.
struct Watch {
    stop: Arc<AtomicBool>,
    addresses: Vec<String>,
    threads: Vec<JoinHandle<BTreeSet<String>>>,
}

impl Watch {
    fn start(lab: &Lab) -> Self {
        Self::of(lab, &GATE)
    }

    fn of(lab: &Lab, addresses: &[&str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = |address: &&str| {
            let (stop, address, from) = (stop.clone(), ip(address), lab.host("lan-client").expect("a client"));
            std::thread::spawn(move || {
                let mut most = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let seen = stations(&from, address, Duration::from_millis(20));
                    most = if seen.len() > most.len() { seen } else { most };
                }
                most
            })
        };
        let threads = addresses.iter().map(watch).collect();
        Self { threads, addresses: addresses.iter().map(|address| (*address).to_owned()).collect(), stop }
    }

    #[track_caller]
    fn never_two(self) {
        self.stop.store(true, Ordering::Relaxed);
        for (thread, address) in self.threads.into_iter().zip(self.addresses) {
            let most = thread.join().expect("a watch ends well");
            assert_eq!(most.len(), 1, "{address}: {most:?} answered one question");
        }
    }
}

/// Requests at both of the gate's addresses.
fn traffic(lab: &Lab, connections: Connections) -> Vec<Running> {
    let start = |address: &str| {
        let load = Load {
            request: Request::new(SocketAddr::new(ip(address), 80), HOST),
            pace: Duration::from_millis(10),
            connections,
            patience: Duration::from_secs(2),
            at_most: Duration::from_secs(60),
        };
        load.start(lab.host("lan-client").expect("a client"))
    };
    GATE.map(start).into()
}

fn stop(traffic: Vec<Running>) -> Vec<Loss> {
    let losses: Vec<Loss> = traffic.into_iter().map(Running::stop).collect();
    losses.iter().zip(GATE).for_each(|(loss, address)| println!("{address}: {loss}, {} again", loss.sent_again));
    losses
}

/// Somebody else took over, once, while the former holder had gone.
fn failed_over(lab: &Lab, traffic: Vec<Running>) {
    for loss in stop(traffic) {
        assert!(loss.longest_gap < LIMIT, "{loss}\n{}", logs(lab));
        assert!(loss.answered > 50, "{loss}\n{}", logs(lab));
    }
}

fn power(directory: &Path) {
    let lab = seed(directory);
    let former = holder_of(&lab, GATE[0]);
    let (watch, traffic) = (Watch::start(&lab), traffic(&lab, Connections::Fresh));
    pass(Duration::from_millis(300));
    lab.fail(former).unwrap();
    let node = replaced(&lab, former);
    pass(Duration::from_millis(500));
    lab.heal(former).unwrap();
    lab.wait_until_ready(LIMIT).unwrap();
    pass(Duration::from_secs(1));
    failed_over(&lab, traffic);
    watch.never_two();
    assert_eq!(holder(&lab, GATE[0]), Some(node), "who comes back takes nothing");
}

fn killed(directory: &Path) {
    let lab = seed(directory);
    let former = holder_of(&lab, GATE[0]);
    let (watch, traffic) = (Watch::start(&lab), traffic(&lab, Connections::Fresh));
    pass(Duration::from_millis(300));
    lab.nodes().signal(former, Signal::KILL);
    replaced(&lab, former);
    until("it is started again", &lab, LIMIT, || lab.nodes().state(former).as_deref() == Some("ready"));
    pass(Duration::from_millis(500));
    failed_over(&lab, traffic);
    watch.never_two();
}

fn cable(directory: &Path) {
    let lab = seed(directory);
    let former = holder_of(&lab, GATE[0]);
    let link = format!("lan/{former}");
    let (watch, traffic) = (Watch::start(&lab), traffic(&lab, Connections::Fresh));
    pass(Duration::from_millis(300));
    lab.cut(&link).unwrap();
    replaced(&lab, former);
    pass(Duration::from_millis(300));
    lab.heal(&link).unwrap();
    pass(Duration::from_secs(2));
    failed_over(&lab, traffic);
    watch.never_two();
}

#[track_caller]
fn give(lab: &Lab, address: &str, to: &str) {
    let from = holder_of(lab, address);
    let wish = Order::Move { address: ip(address), to: dualgate_core::model::NodeName::new(to) };
    let answer = order(&lab.state_directory(from), &wish).expect("an answer");
    assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
    until("it has moved", lab, LIMIT, || holder(lab, address) == Some(NODES.into_iter().find(|n| *n == to).unwrap()));
}

fn moved(directory: &Path) {
    let lab = seed(directory);
    let (watch, kept) = (Watch::start(&lab), traffic(&lab, Connections::Kept(16)));
    let fresh = traffic(&lab, Connections::Fresh);
    pass(Duration::from_millis(500));
    // Twice around.
    for _ in 0..6 {
        let from = holder_of(&lab, GATE[0]);
        let position = NODES.iter().position(|node| *node == from).unwrap();
        let to = (position + 1) % 3;
        give(&lab, GATE[0], NODES[to]);
        pass(Duration::from_millis(300));
        let (client, place) = (lab.host("lan-client").unwrap(), BTreeSet::from([mac_of(&lab, NODES[to])]));
        until("it is announced at its place", &lab, LIMIT, || {
            stations(&client, ip(GATE[0]), Duration::from_millis(200)) == place
        });
    }
    let fresh = stop(fresh);
    let kept = stop(kept);
    watch.never_two();
    for loss in fresh.iter().chain(&kept) {
        assert_eq!((loss.failed, loss.sent_again), (0, 0), "{loss}\n{}", logs(&lab));
        assert!(loss.sent > 150, "{loss}");
    }
}

fn told_to_end(directory: &Path) {
    let lab = seed(directory);
    let former = holder_of(&lab, GATE[0]);
    let (watch, traffic) = (Watch::start(&lab), traffic(&lab, Connections::Fresh));
    pass(Duration::from_millis(300));
    lab.nodes().signal(former, Signal::TERM);
    replaced(&lab, former);
    until("it is started again", &lab, Duration::from_secs(40), || {
        lab.nodes().state(former).as_deref() == Some("ready")
    });
    for loss in stop(traffic) {
        assert_eq!(loss.failed, 0, "{loss}\n{}", logs(&lab));
    }
    watch.never_two();
}

fn frozen(directory: &Path) {
    let lab = seed(directory);
    let former = holder_of(&lab, GATE[0]);
    let watch = Watch::start(&lab);
    lab.nodes().signal(former, Signal::STOP);
    let node = replaced(&lab, former);
    // Meanwhile its socket fills with questions for the addresses that it held.
    pass(Duration::from_secs(2));
    lab.nodes().signal(former, Signal::CONT);
    pass(Duration::from_secs(2));
    watch.never_two();
    assert_eq!(holder(&lab, GATE[0]), Some(node), "{}", logs(&lab));
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: direct, namespace: apps}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: whoami}
  ports: [{name: http, port: 8080, targetPort: http}]
";

fn service(directory: &Path) {
    let (lab, manifests) = seed_with_manifests(directory);
    let addresses = ["192.168.178.11", "fda8:a1db:5685::11"];
    let client = lab.host("lan-client").unwrap();
    let asked = |address: &str| stations(&client, ip(address), Duration::from_millis(50));
    assert!(addresses.iter().all(|address| asked(address).is_empty()), "nobody has them yet");
    let created = Instant::now();
    std::fs::write(manifests.join("direct.yaml"), SERVICE).unwrap();
    for address in addresses {
        until("somebody answers", &lab, LIMIT, || asked(address).len() == 1);
        let to = SocketAddr::new(ip(address), 8080);
        let served = || dualgate_lab::probe::get(&client, &Request::new(to, "direct"), Duration::from_secs(2));
        until("a pod answers", &lab, LIMIT, || served().is_ok_and(|answer| answer.status == 200));
    }
    println!("answers {:?} after it was created", created.elapsed());
    let former = holder_of(&lab, addresses[0]);
    lab.fail(former).unwrap();
    for address in addresses {
        until("somebody else answers", &lab, LIMIT, || asked(address).iter().any(|mac| *mac != mac_of(&lab, former)));
    }
    let deleted = Instant::now();
    std::fs::remove_file(manifests.join("direct.yaml")).unwrap();
    for address in addresses {
        until("nobody answers", &lab, LIMIT, || asked(address).is_empty());
    }
    println!("silent {:?} after it was deleted", deleted.elapsed());
    assert_eq!(get(&lab, "lan-client", GATE[0], HOST).status, 200);
}

fn edge(directory: &Path) {
    let lab = seed(directory);
    let client = lab.host("lan-client").unwrap();
    for address in ["192.168.178.201", "fda8:a1db:5685::201"] {
        let reached = || ping(&client, ip(address), Duration::from_secs(1)).is_ok();
        until("the edge answers", &lab, LIMIT, reached);
        let former = holder_of(&lab, address);
        lab.fail(former).unwrap();
        until("the edge answers through another node", &lab, LIMIT, reached);
        lab.heal(former).unwrap();
        lab.wait_until_ready(LIMIT).unwrap();
    }
}

/// A site with as many home nodes as are named, and one gate.
fn homes(directory: &Path, nodes: usize) -> Lab {
    let node = |number: usize| {
        let last = 4 + number;
        format!(
            "- {{name: k3s-node{number}, roles: [internal-gate, virtual-ips], addresses: [192.168.178.{last}, 'fda8:a1db:5685::{last}'], podCIDRs: [10.42.{number}.0/24, 'fd01:0:0:{number}::/64']}}\n"
        )
    };
    let nodes: String = (1..=nodes).map(node).collect();
    let site = format!(
        "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: homes\n\
         cluster: {{podCIDRs: [10.42.0.0/16, 'fd01::/48'], serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}}\n\
         lan: {{subnets: [192.168.178.0/24, 'fda8:a1db:5685::/64'], router: {{kind: other, addresses: [192.168.178.1, 'fda8:a1db:5685::1'], uplink: dual-stack}}}}\n\
         nodes:\n{nodes}\
         pools: [{{name: home, addresses: [192.168.178.11-192.168.178.19, 'fda8:a1db:5685::11-fda8:a1db:5685::19']}}]\n\
         gates: {{internal: {{addresses: [192.168.178.10, 'fda8:a1db:5685::10']}}}}\n"
    );
    let folder = directory.join("homes");
    std::fs::create_dir_all(folder.join("manifests")).unwrap();
    std::fs::write(folder.join("site.yaml"), site).unwrap();
    std::fs::copy(example().join("manifests/whoami.yaml"), folder.join("manifests/whoami.yaml")).unwrap();
    std::fs::copy(example().join("manifests/ingress-class.yaml"), folder.join("manifests/class.yaml")).unwrap();
    start(directory, &folder, Patience::default())
}

fn two(directory: &Path) {
    let lab = homes(directory, 2);
    for _ in 0..2 {
        let former = holder_of(&lab, GATE[0]);
        let watch = Watch::start(&lab);
        lab.fail(former).unwrap();
        let node = replaced(&lab, former);
        lab.heal(former).unwrap();
        until("it is ready again", &lab, LIMIT, || lab.nodes().state(former).as_deref() == Some("ready"));
        pass(Duration::from_secs(2));
        watch.never_two();
        assert_eq!(holder(&lab, GATE[0]), Some(node), "who comes back takes nothing");
    }
}

/// Both reach the router, and not each other: the LAN is the fence.
fn apart(directory: &Path) {
    let lab = homes(directory, 2);
    let former = holder_of(&lab, GATE[0]);
    let watch = Watch::start(&lab);
    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n";
    std::fs::write(lab.state_directory(former).join("heartbeat"), key).unwrap();
    for node in [NODES[0], NODES[1]] {
        until("the other key is told", &lab, LIMIT, || {
            let findings = status(&lab, node)["findings"].to_string();
            findings.contains("virtual-ips-key") && findings.contains("has another key")
        });
    }
    pass(Duration::from_secs(3));
    watch.never_two();
    assert_eq!(holder(&lab, GATE[0]), Some(former), "who has it keeps it\n{}", logs(&lab));
}

fn one(directory: &Path) {
    let lab = homes(directory, 1);
    assert_eq!(holder(&lab, GATE[0]), Some("k3s-node1"));
    assert_eq!(get(&lab, "lan-client", GATE[0], HOST).status, 200);
    assert_eq!(get(&lab, "lan-client", GATE[1], HOST).status, 200);
}

fn upgraded(directory: &Path) {
    let lab = seed(directory);
    let node = holder_of(&lab, GATE[0]);
    let (watch, kept) = (Watch::start(&lab), traffic(&lab, Connections::Kept(8)));
    pass(Duration::from_millis(500));
    let before = lab.nodes().pid(node);
    lab.nodes().succeed(node).unwrap();
    until("the successor is alone", &lab, Duration::from_secs(45), || !lab.nodes().is_succeeded(node));
    assert_ne!(lab.nodes().pid(node), before);
    pass(Duration::from_secs(1));
    for loss in stop(kept) {
        assert_eq!(loss.failed, 0, "{loss}\n{}", logs(&lab));
    }
    watch.never_two();
    assert_eq!(holder(&lab, GATE[0]), Some(node), "an upgrade moves nothing\n{}", logs(&lab));
}

/// Services that share an address, the second one with a lower one of its own besides.
const SHARED: &str = "
apiVersion: v1
kind: Service
metadata: {name: first, namespace: apps, annotations: {dualgate.dev/allow-shared-ip: together, dualgate.dev/addresses: 192.168.178.15}}
spec: {type: LoadBalancer, selector: {app: whoami}, ports: [{name: http, port: 8080, targetPort: http}]}
";
const JOINING: &str = "
apiVersion: v1
kind: Service
metadata: {name: second, namespace: apps, annotations: {dualgate.dev/allow-shared-ip: together, dualgate.dev/addresses: '192.168.178.15,fda8:a1db:5685::15'}}
spec: {type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {app: whoami}, ports: [{name: alt, port: 8081, targetPort: http}]}
";

fn shared(directory: &Path) {
    let (lab, manifests) = seed_with_manifests(directory);
    let address = "192.168.178.15";
    std::fs::write(manifests.join("first.yaml"), SHARED).unwrap();
    until("somebody holds it", &lab, LIMIT, || holder(&lab, address).is_some());
    let former = holder_of(&lab, address);
    let watch = Watch::of(&lab, &[address]);
    for _ in 0..3 {
        std::fs::write(manifests.join("second.yaml"), JOINING).unwrap();
        until("both are held together", &lab, LIMIT, || {
            holder(&lab, "fda8:a1db:5685::15").is_some_and(|node| Some(node) == holder(&lab, address))
        });
        assert_eq!(holder(&lab, address), Some(former), "who joins moves nothing");
        std::fs::remove_file(manifests.join("second.yaml")).unwrap();
        until("it is alone again", &lab, LIMIT, || holder(&lab, "fda8:a1db:5685::15").is_none());
        assert_eq!(holder(&lab, address), Some(former), "who leaves moves nothing");
    }
    watch.never_two();
}
