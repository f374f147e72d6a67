//! Virtual IPs on captured frames: what is seen on the wire is judged, not what a node says of itself.
//!
//! Trials bear the numbers of MetalLB's end-to-end cases that they answer to; those without one are tested by nobody there.
//! Where this program does otherwise on purpose, the trial says what it does: who takes over keeps what it took.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dualgate_host::network::{Network, Use};
use dualgate_lab::capture::{Capture, Claim, Frame, Mac, owners};
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::probe::{Request, get as fetch, ping, tcp, who_has};
use dualgate_lab::trial::Trial;
use rustix::process::Signal;

use crate::site::{example, has, ip, pass, start, status, until};

pub const TRIALS: &[Trial] = &[
    ("frames_of_a_take_over_tell_everybody_in_every_form", take_over),
    ("frames_answer_neighbours_that_ask_one_node_whether_it_is_still_there", neighbours),
    ("frames_keep_a_device_from_taking_an_address_and_name_one_that_does", intruder),
    ("frames_follow_a_cable_a_name_and_a_link_layer_address", link),
    ("services_1_9_12_15_16_18_41_get_an_address_and_one_node_answers", services),
    ("services_11_13_14_are_announced_by_nodes_that_may", nodes),
    ("pools_24_to_32_choose_nodes_and_nothing_comes_back", pools),
    ("pools_4_5_go_and_services_move_with_the_gate", site_file),
    ("services_2_40_keep_their_address_when_all_nodes_restart_in_any_order", reboot),
    ("outside_judges_agree", judges),
];

const GATE: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];
const LIMIT: Duration = Duration::from_secs(10);
/// More pools than the example has: a prefix, one for two nodes, one with a preference, and one of a single address.
const POOLS: &str = "
  - {name: prefix, autoAssign: false, addresses: [192.168.178.208/29, 'fda8:a1db:5685::d0/125']}
  - {name: pinned, autoAssign: false, nodes: [k3s-node2], addresses: [192.168.178.216-192.168.178.219]}
  - {name: liked, autoAssign: false, preferredNodes: [k3s-node3, k3s-node1], addresses: [192.168.178.220/31]}
  - {name: single, autoAssign: false, addresses: [192.168.178.222]}

gates:
";

/// A site with a capture of its LAN from before the first frame of interest.
struct Ground {
    lab: Lab,
    capture: Capture,
    site: PathBuf,
    manifests: PathBuf,
}

impl Ground {
    fn new(directory: &Path) -> Self {
        let home = directory.join("home");
        let manifests = home.join("manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        let site = home.join("site.yaml");
        let text = std::fs::read_to_string(example().join("site.yaml")).unwrap();
        std::fs::write(&site, text.replacen("\ngates:\n", POOLS, 1)).unwrap();
        for file in std::fs::read_dir(example().join("manifests")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), manifests.join(file.file_name())).unwrap();
        }
        let lab = start(directory, &home, Patience::default());
        let capture = Capture::start(&lab.host("lan").unwrap()).unwrap();
        Self { lab, capture, site, manifests }
    }

    /// Puts a manifest in place of another of that name.
    fn write(&self, name: &str, text: &str) {
        let part = self.manifests.join(format!(".{name}"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.manifests.join(format!("{name}.yaml"))).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifests.join(format!("{name}.yaml"))).unwrap();
    }

    fn edit_site(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.site).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&self.site, text.replacen(from, to, 1)).unwrap();
    }

    fn mac(&self, node: &str) -> Mac {
        let host = self.lab.topology().hosts.iter().find(|host| host.name == node).expect("a host of the lab");
        let eth0 = host.interfaces.iter().find(|interface| interface.name == "eth0").expect("an interface");
        Mac(eth0.mac.expect("an address"))
    }

    /// The nodes that answer a question of the LAN's client; a station that is no node by its address.
    fn answering(&self, address: &str) -> BTreeSet<String> {
        let client = self.lab.host("lan-client").unwrap();
        let macs = who_has(&client, "eth0", ip(address), Duration::from_millis(80)).unwrap_or_default();
        let name = |mac: &Mac| NODES.iter().find(|node| self.mac(node) == *mac).map(ToString::to_string);
        macs.iter().map(|mac| name(mac).unwrap_or_else(|| mac.to_string())).collect()
    }

    /// Waits until exactly one station answers, and says which.
    #[track_caller]
    fn announcer(&self, address: &str) -> String {
        let mut answered = BTreeSet::new();
        until(&format!("one node answers for {address}"), &self.lab, LIMIT, || {
            answered = self.answering(address);
            answered.len() == 1
        });
        answered.pop_first().unwrap_or_default()
    }

    #[track_caller]
    fn at(&self, address: &str, node: &str) {
        let only = BTreeSet::from([node.to_owned()]);
        until(&format!("{node} answers for {address}"), &self.lab, LIMIT, || self.answering(address) == only);
    }

    #[track_caller]
    fn silent(&self, address: &str) {
        until(&format!("nobody answers for {address}"), &self.lab, LIMIT, || self.answering(address).is_empty());
    }

    /// What a Service has, as any node says.
    fn assigned(&self, service: &str) -> Vec<String> {
        let name = format!("apps/{service}");
        let on = NODES.iter().find(|node| self.lab.host(node).is_some());
        let status = on.map(|node| status(&self.lab, node)).unwrap_or_default();
        let groups = status["virtual_ips"]["groups"].as_array().cloned().unwrap_or_default();
        let used = |group: &serde_json::Value| {
            let users = group["users"].as_array().map(Vec::as_slice).unwrap_or_default();
            users.iter().any(|user| user == &format!("Service {name}"))
        };
        let of_service = groups.iter().filter(|group| used(group));
        let addresses = of_service.filter_map(|group| group["addresses"].as_array()).flatten();
        addresses.filter_map(|address| Some(address.as_str()?.to_owned())).collect()
    }

    /// A Service has these addresses. Its owner serves it a moment before the others know.
    #[track_caller]
    fn has(&self, service: &str, addresses: &[&str]) {
        until(&format!("{service} has {addresses:?}"), &self.lab, LIMIT, || self.assigned(service) == addresses);
    }

    /// Each address was at one station at a time, and at no other in between.
    #[track_caller]
    fn never_two(&self, address: &str) -> Vec<Mac> {
        let owners = owners(&self.capture.so_far(), ip(address));
        let distinct: BTreeSet<Mac> = owners.iter().copied().collect();
        assert_eq!(distinct.len(), owners.len(), "{address}: somebody spoke again after another one: {owners:?}");
        owners
    }

    fn frames_of(&self, address: &str) -> Vec<(Frame, Mac, Claim)> {
        let claim = |frame: &Frame| {
            let (claimed, mac, how) = frame.claim()?;
            (claimed == ip(address)).then_some((*frame, mac, how))
        };
        self.capture.so_far().iter().filter_map(claim).collect()
    }

    /// Waits until a station has told everybody, unasked, that the address is there.
    #[track_caller]
    fn told(&self, address: &str, mac: Mac) {
        let forms = match ip(address) {
            IpAddr::V4(_) => [Claim::Request, Claim::Reply],
            IpAddr::V6(_) => [Claim::AllNodes, Claim::AllRouters],
        };
        until(&format!("{mac} tells everybody of {address}"), &self.lab, LIMIT, || {
            let seen = self.frames_of(address);
            forms.iter().all(|form| seen.iter().any(|(_, who, how)| (*who, *how) == (mac, *form)))
        });
    }
}

/// A Service of type LoadBalancer.
fn service(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: apps, annotations: {{{annotations}}}}}\n\
         spec:\n  type: LoadBalancer\n  selector: {{app: whoami}}\n{spec}\n"
    )
}

fn ports(port: u16) -> String {
    format!("  ports: [{{name: http, port: {port}, targetPort: http}}]")
}

fn take_over(directory: &Path) {
    let ground = Ground::new(directory);
    let former = ground.announcer(GATE[0]);
    assert_eq!(ground.answering(GATE[1]), BTreeSet::from([former.clone()]), "both families are at one node");
    ground.capture.take();
    ground.lab.nodes().signal(&former, Signal::KILL);
    until("another node answers", &ground.lab, LIMIT, || {
        GATE.iter().all(|address| !ground.answering(address).is_empty() && !ground.answering(address).contains(&former))
    });
    let owner = ground.announcer(GATE[0]);
    let mac = ground.mac(&owner);
    for address in GATE {
        ground.told(address, mac);
        let frames = ground.frames_of(address);
        // 20: the address that is told is the node's own, and the frame comes from there.
        for (frame, who, how) in &frames {
            assert_eq!((*who, frame.header.source), (mac, mac), "{frame:?}");
            assert_ne!(*how, Claim::Weak, "no kernel speaks for {address}: {frame:?}");
            let to_all = matches!(how, Claim::Request | Claim::Reply | Claim::AllNodes | Claim::AllRouters);
            assert_eq!(frame.header.destination.is_group(), to_all, "{frame:?}");
        }
        // It is said more than once: the first one may be lost.
        until("it is said again", &ground.lab, LIMIT, || {
            let again = ground.frames_of(address).into_iter().filter(|(.., how)| *how != Claim::Answer);
            again.count() >= 6
        });
        assert_eq!(ground.never_two(address), [mac]);
    }
}

fn neighbours(directory: &Path) {
    let ground = Ground::new(directory);
    let owner = ground.announcer(GATE[0]);
    let mac = ground.mac(&owner);
    let client = ground.lab.host("lan-client").unwrap();
    // As short as the kernel lets it be; what it knows is doubted after half a second.
    let set = || {
        for family in ["ipv4", "ipv6"] {
            for (name, value) in [("base_reachable_time_ms", "500"), ("delay_first_probe_time", "1")] {
                std::fs::write(format!("/proc/sys/net/{family}/neigh/eth0/{name}"), value).unwrap();
            }
        }
    };
    client.run(set);
    ground.capture.take();
    let asked_directly = |address: &str| {
        let frames = ground.capture.so_far();
        let questions = frames.iter().filter(|frame| frame.question() == Some(ip(address)));
        questions.filter(|frame| frame.header.destination == mac).count()
    };
    until("the client asks the owner alone", &ground.lab, LIMIT, || {
        let reached = GATE.map(|address| ping(&client, ip(address), Duration::from_secs(1)).is_ok());
        assert_eq!(reached, [true; 2]);
        GATE.iter().all(|address| asked_directly(address) >= 2)
    });
    pass(Duration::from_millis(100));
    for address in GATE {
        let answers = ground.frames_of(address).into_iter().filter(|(.., how)| *how == Claim::Answer).count();
        assert!(answers >= asked_directly(address), "{address}: {answers} answers");
    }
}

fn intruder(directory: &Path) {
    if !has("frames_keep_a_device_from_taking_an_address_and_name_one_that_does", &["ip"]) {
        return;
    }
    let ground = Ground::new(directory);
    let owner = ground.announcer(GATE[0]);
    let client = ground.lab.host("lan-client").unwrap();
    // A Linux machine that is to have the address looks whether it is free, and does not take it (RFC 4862 5.4).
    let set = || {
        for (name, value) in [("accept_dad", "1"), ("dad_transmits", "1")] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/eth0/{name}"), value).unwrap();
        }
    };
    client.run(set);
    let (code, said) = run(&ground, "lan-client", "ip", &["addr", "add", "fda8:a1db:5685::10/64", "dev", "eth0"]);
    assert_eq!(code, Some(0), "{said}");
    until("the kernel gives the address up", &ground.lab, LIMIT, || {
        let (_, said) = run(&ground, "lan-client", "ip", &["-6", "addr", "show", "dev", "eth0"]);
        said.lines().any(|line| line.contains("fda8:a1db:5685::10/64") && line.contains("dadfailed"))
    });
    let (code, said) = run(&ground, "lan-client", "ip", &["addr", "del", "fda8:a1db:5685::10/64", "dev", "eth0"]);
    assert_eq!(code, Some(0), "{said}");
    // With IPv4 it takes the address without a look; its next question to the LAN tells everybody so.
    client.run(|| {
        let net = "192.168.178.10/32".parse().unwrap();
        Network::open().unwrap().add_address("eth0", net, Use::Both).unwrap();
        let socket = UdpSocket::bind("192.168.178.10:0").unwrap();
        socket.send_to(b"x", "192.168.178.250:9").unwrap();
    });
    let mac = ground.mac("lan-client").to_string();
    let conflict = || {
        let status = status(&ground.lab, &owner);
        status["virtual_ips"]["conflicts"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["address"] == GATE[0] && one["mac"] == mac.as_str()))
    };
    until("the node names the device", &ground.lab, LIMIT, conflict);
    let said = status(&ground.lab, &owner)["findings"].to_string();
    assert!(said.contains("virtual-ips-conflict") && said.contains(&mac) && said.contains(GATE[0]), "{said}");
    let metrics = Request::new("127.0.0.1:9180".parse().unwrap(), "127.0.0.1:9180").path("/metrics");
    let metrics = fetch(&ground.lab.host(&owner).unwrap(), &metrics, Duration::from_secs(2)).unwrap();
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    let is_it = |line: &&str| line.starts_with("dualgate_virtual_ip_conflict{") && line.contains(GATE[0]);
    assert!(metrics.lines().find(is_it).is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    let log = ground.lab.nodes().log(&owner).unwrap();
    assert!(log.lines().any(|line| line.contains("answers for an address") && line.contains(&mac)), "{log}");
    // It keeps the address, and says so to all: the last word is its own.
    ground.told(GATE[0], ground.mac(&owner));
    let last = ground.frames_of(GATE[0]).into_iter().rfind(|(.., how)| *how != Claim::Answer);
    assert_eq!(last.map(|(_, who, _)| who), Some(ground.mac(&owner)));
}

/// A command on a host, to its end.
#[track_caller]
fn run(ground: &Ground, host: &str, program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments);
    let file = std::env::temp_dir().join(format!("acceptance-{}-{program}", std::process::id()));
    let file = ground.site.with_file_name(file.file_name().unwrap());
    let _ = std::fs::remove_file(&file);
    let process = ground.lab.nodes().processes().spawn(&ground.lab.host(host).unwrap(), command, &file);
    let process = process.unwrap_or_else(|error| panic!("{program}: {error}"));
    let status = process.wait(LIMIT).unwrap_or_else(|| panic!("{program} does not end"));
    (status.code(), std::fs::read_to_string(&file).unwrap())
}

fn link(directory: &Path) {
    if !has("frames_follow_a_cable_a_name_and_a_link_layer_address", &["ip"]) {
        return;
    }
    let ground = Ground::new(directory);
    let owner = ground.announcer(GATE[0]);
    // A cable that is out for less than a lease: the switch may have forgotten, so it is said again.
    let cable = format!("lan/{owner}");
    ground.lab.cut(&cable).unwrap();
    pass(Duration::from_millis(50));
    ground.capture.take();
    ground.lab.heal(&cable).unwrap();
    let node = ground.announcer(GATE[0]);
    GATE.iter().for_each(|address| ground.told(address, ground.mac(&node)));
    // Another link-layer address, as a bond that changes its interface has.
    let owner = node;
    ground.capture.take();
    let other: Mac = Mac([2, 0xaa, 0, 0, 0, 0x42]);
    let (code, said) = run(&ground, &owner, "ip", &["link", "set", "eth0", "address", &other.to_string()]);
    assert_eq!(code, Some(0), "{said}");
    GATE.iter().for_each(|address| ground.told(address, other));
    let mac = ground.mac(&owner).to_string();
    assert_eq!(run(&ground, &owner, "ip", &["link", "set", "eth0", "address", &mac]).0, Some(0));
    // Another name. The kernel wants it down for that; what is lost with it is put back as a network daemon would.
    let number = &owner[owner.len() - 1..];
    let last = number.parse::<u8>().unwrap() + 4;
    let script = format!(
        "ip link set eth0 down && ip link set eth0 name lan7 && ip link set lan7 up && \
         ip addr add fda8:a1db:5685::{last}/64 dev lan7 nodad"
    );
    let (code, said) = run(&ground, &owner, "sh", &["-c", &script]);
    assert_eq!(code, Some(0), "{said}");
    until("the node sees its LAN at lan7", &ground.lab, LIMIT, || {
        let status = status(&ground.lab, &owner);
        let groups = status["virtual_ips"]["groups"].as_array().cloned().unwrap_or_default();
        let is_ready = groups.iter().any(|group| group["addresses"][0] == GATE[0] && group["ready"] == true);
        is_ready && status["virtual_ips"]["links"][0]["name"] == "lan7"
    });
    // Whoever has them by then: this one can have them again, and tells so from there.
    let rest = NODES.into_iter().filter(|node| *node != owner);
    ground.capture.take();
    rest.for_each(|node| drop(ground.lab.fail(node)));
    pass(Duration::from_millis(100));
    for node in NODES.into_iter().filter(|node| *node != owner) {
        ground.lab.heal(node).unwrap();
    }
    if ground.announcer(GATE[0]) != owner {
        let from = ground.announcer(GATE[0]);
        give(&ground, &from, GATE[0], &owner);
    }
    GATE.iter().for_each(|address| ground.told(address, ground.mac(&owner)));
}

#[track_caller]
fn give(ground: &Ground, from: &str, address: &str, to: &str) {
    use dualgate_host::virtual_ips::control::{Answer, Order, order};
    let wish = Order::Move { address: ip(address), to: dualgate_core::model::NodeName::new(to) };
    // Whoever was just started is not heard yet.
    until("it is moved", &ground.lab, LIMIT, || {
        let answer = order(&ground.lab.state_directory(from), &wish);
        answer.is_ok_and(|answer| matches!(answer, Answer::Done(_)))
    });
    ground.at(address, to);
}

fn services(directory: &Path) {
    let ground = Ground::new(directory);
    let client = ground.lab.host("lan-client").unwrap();
    let reached = |address: &str, port: u16| {
        let to = std::net::SocketAddr::new(ip(address), port);
        fetch(&client, &Request::new(to, "x"), Duration::from_secs(2)).is_ok_and(|answer| answer.status == 200)
    };
    // 9: any node; both families at the same one.
    let dual = format!("  ipFamilyPolicy: RequireDualStack\n{}", ports(8080));
    ground.write("cluster", &service("cluster", "", &dual));
    let node = ground.announcer("192.168.178.11");
    ground.at("fda8:a1db:5685::11", &node);
    // 12: one address for both protocols.
    let mixed = "  ports: [{name: t, port: 53, protocol: TCP, targetPort: http}, {name: u, port: 53, protocol: UDP}]";
    ground.write("mixed", &service("mixed", "", mixed));
    ground.announcer("192.168.178.12");
    until("TCP is open", &ground.lab, LIMIT, || {
        tcp(&client, "192.168.178.12:53".parse().unwrap(), Duration::from_secs(1)).is_ok()
    });
    // 15, 18: a pool that is written as a prefix and is given to nobody who does not ask for it.
    let wish = "metallb.io/address-pool: prefix";
    ground.write("asks", &service("asks", wish, &format!("  ipFamilyPolicy: PreferDualStack\n{}", ports(8081))));
    let node = ground.announcer("192.168.178.208");
    ground.at("fda8:a1db:5685::d0", &node);
    // 16: two that share an address are at the same node, each with its port; 3: so is a third that changes its mind.
    let shares = |port| ("metallb.io/allow-shared-ip: web, metallb.io/address-pool: single", ports(port));
    for (name, port) in [("one", 8001), ("two", 8002)] {
        let (annotations, spec) = shares(port);
        ground.write(name, &service(name, annotations, &spec));
    }
    ground.announcer("192.168.178.222");
    for port in [8001, 8002] {
        until("both are served", &ground.lab, LIMIT, || reached("192.168.178.222", port));
    }
    ground.has("one", &["192.168.178.222"]);
    ground.has("two", &["192.168.178.222"]);
    // 1: whoever waits for an address gets it when it is free, by another type or by an end.
    let alone = |name: &str| service(name, "metallb.io/address-pool: single", &ports(8003));
    ground.write("waits", &alone("waits"));
    pass(Duration::from_millis(500));
    assert_eq!(ground.assigned("waits"), [""; 0], "the address belongs to others");
    let (annotations, spec) = shares(8001);
    ground.write("one", &service("one", annotations, &spec).replace("LoadBalancer", "ClusterIP"));
    pass(Duration::from_millis(300));
    assert_eq!(ground.assigned("waits"), [""; 0], "one is left");
    ground.remove("two");
    until("it is its turn", &ground.lab, LIMIT, || reached("192.168.178.222", 8003));
    ground.has("waits", &["192.168.178.222"]);
    // 41: somebody else's.
    let foreign = format!("  loadBalancerClass: example.com/other\n{}", ports(8009));
    ground.write("foreign", &service("foreign", "", &foreign));
    // Who comes after it has what it would have had.
    ground.write("next", &service("next", "", &ports(8010)));
    ground.announcer("192.168.178.13");
    assert_eq!(ground.assigned("foreign"), [""; 0]);
    ground.has("next", &["192.168.178.13"]);
    // 1: an end is silence.
    ground.remove("cluster");
    ground.silent("192.168.178.11");
    ground.silent("fda8:a1db:5685::11");
    let all = ["192.168.178.11", "fda8:a1db:5685::11", "192.168.178.12", "192.168.178.208", "192.168.178.13"];
    all.iter().for_each(|address| assert_eq!(ground.never_two(address).len(), 1, "{address}"));
}

/// Pods of a Service that has no selector, on one node, or on none.
fn slice(name: &str, node: Option<&str>) -> String {
    let endpoint = |node: &str| format!("[{{addresses: [10.42.0.9], nodeName: {node}, conditions: {{ready: true}}}}]");
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}, namespace: \
         apps, labels: {{kubernetes.io/service-name: {name}}}}}\nports: [{{name: http, port: 80}}]\nendpoints: {}\n",
        node.map_or_else(|| "[]".to_owned(), endpoint)
    )
}

fn nodes(directory: &Path) {
    let ground = Ground::new(directory);
    // 11: only where a pod is, and nowhere without one.
    let local = format!("  externalTrafficPolicy: Local\n{}", ports(8080));
    let local = service("local", "", &local).replace("  selector: {app: whoami}\n", "");
    let address = "192.168.178.11";
    let with_pods = |node| format!("{local}---\n{}", slice("local", node));
    for node in [Some("k3s-node2"), Some("k3s-node3"), None] {
        ground.write("local", &with_pods(node));
        match node {
            Some(node) => ground.at(address, node),
            None => ground.silent(address),
        }
    }
    assert_eq!(ground.never_two(address), [ground.mac("k3s-node2"), ground.mac("k3s-node3")]);
    ground.remove("local");
    // 13, 14: not from a node that says so of itself; and (ours) nothing comes back when it no longer does.
    let address = "192.168.178.13";
    ground.write("any", &service("any", "dualgate.dev/addresses: 192.168.178.13", &ports(8081)));
    let first = ground.announcer(address);
    let object = |node: &str, labels: &str, conditions: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}, labels: {{{labels}}}}}\nstatus: {{conditions: \
             [{{type: Ready, status: 'True'}}{conditions}]}}\n"
        )
    };
    let unavailable = ", {type: NetworkUnavailable, status: 'True'}";
    ground.write("node", &object(&first, "", unavailable));
    until("it has left that node", &ground.lab, LIMIT, || {
        let seen = ground.answering(address);
        seen.len() == 1 && !seen.contains(&first)
    });
    let second = ground.announcer(address);
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers: ''";
    ground.write("node", &format!("{}---\n{}", object(&first, "", unavailable), object(&second, exclude, "")));
    let third = *NODES.iter().find(|node| ![&first[..], &second].contains(node)).unwrap();
    ground.at(address, third);
    ground.remove("node");
    pass(Duration::from_secs(1));
    assert_eq!(ground.announcer(address), third, "who has it keeps it");
    assert_eq!(ground.never_two(address).len(), 3);
}

fn pools(directory: &Path) {
    let ground = Ground::new(directory);
    // 24, 25: the nodes that the pool names, and no other.
    ground.write("pinned", &service("pinned", "metallb.io/address-pool: pinned", &ports(8080)));
    let pinned = "192.168.178.216";
    ground.at(pinned, "k3s-node2");
    // 28: the preferred one; 29: a Service whose pool prefers none is announced all the same.
    ground.write("liked", &service("liked", "metallb.io/address-pool: liked", &ports(8081)));
    let liked = "192.168.178.220";
    ground.at(liked, "k3s-node3");
    ground.write("any", &service("any", "", &ports(8082)));
    ground.announcer("192.168.178.11");
    // 28, 30: another one takes its place, the second of the list first; (ours) it keeps it.
    ground.lab.fail("k3s-node3").unwrap();
    ground.at(liked, "k3s-node1");
    ground.lab.heal("k3s-node3").unwrap();
    ground.lab.wait_until_ready(LIMIT).unwrap();
    pass(Duration::from_secs(1));
    ground.at(liked, "k3s-node1");
    assert_eq!(ground.never_two(liked), [ground.mac("k3s-node3"), ground.mac("k3s-node1")]);
    // 32, 33: a hard limit stays one, even if nobody is left.
    ground.lab.fail("k3s-node2").unwrap();
    ground.silent(pinned);
    pass(Duration::from_secs(1));
    ground.silent(pinned);
    // 26, 27: one more node may.
    ground.edit_site("nodes: [k3s-node2]", "nodes: [k3s-node2, k3s-node3]");
    ground.at(pinned, "k3s-node3");
    ground.lab.heal("k3s-node2").unwrap();
    ground.lab.wait_until_ready(LIMIT).unwrap();
    assert_eq!(ground.never_two(pinned), ["k3s-node2", "k3s-node3"].map(|node| ground.mac(node)));
    // 31: and when it may not any more, it does not. The nodes read the change one after the other.
    ground.edit_site("nodes: [k3s-node2, k3s-node3]", "nodes: [k3s-node1]");
    ground.at(pinned, "k3s-node1");
}

fn site_file(directory: &Path) {
    let ground = Ground::new(directory);
    ground.write("free", &service("free", "", &format!("  ipFamilyPolicy: PreferDualStack\n{}", ports(8080))));
    let node = ground.announcer("192.168.178.11");
    ground.at("fda8:a1db:5685::11", &node);
    // 5: its pool goes, another one is there.
    let pool = "      - 192.168.178.11-192.168.178.20\n      - fda8:a1db:5685::11-fda8:a1db:5685::1a\n";
    let other = "      - 192.168.178.15-192.168.178.20\n      - fda8:a1db:5685::15-fda8:a1db:5685::1a\n";
    ground.edit_site(pool, other);
    let node = ground.announcer("192.168.178.15");
    ground.at("fda8:a1db:5685::15", &node);
    ground.silent("192.168.178.11");
    ground.silent("fda8:a1db:5685::11");
    // The gate's own address is another one: a prefix that changed.
    ground.capture.take();
    ground.edit_site(
        "addresses: [192.168.178.10, \"fda8:a1db:5685::10\"]",
        "addresses: [192.168.178.9, \"fda8:a1db:5685::9\"]",
    );
    let node = ground.announcer("192.168.178.9");
    ground.at("fda8:a1db:5685::9", &node);
    ["192.168.178.9", "fda8:a1db:5685::9"].iter().for_each(|address| ground.told(address, ground.mac(&node)));
    GATE.iter().for_each(|address| ground.silent(address));
    // 4: no pool at all.
    ground.edit_site("    autoAssign: true\n", "    autoAssign: false\n");
    let text = std::fs::read_to_string(&ground.site).unwrap();
    let (before, rest) = text.split_once("\npools:\n").unwrap();
    let (_, after) = rest.split_once("\ngates:\n").unwrap();
    std::fs::write(&ground.site, format!("{before}\ngates:\n{after}")).unwrap();
    ground.silent("192.168.178.15");
    ground.silent("fda8:a1db:5685::15");
    assert_eq!(ground.assigned("free"), [""; 0]);
    assert_eq!(ground.answering("192.168.178.9").len(), 1, "the gate does not care");
}

fn reboot(directory: &Path) {
    let ground = Ground::new(directory);
    ground.write("first", &service("first", "", &ports(8080)));
    ground.announcer("192.168.178.11");
    ground.write("second", &service("second", "", &ports(8081)));
    ground.announcer("192.168.178.12");
    ground.remove("first");
    ground.silent("192.168.178.11");
    // A fresh assignment would give the lower one, which is free: what the Service has is remembered.
    for order in [[2, 0, 1], [1, 2, 0]] {
        NODES.iter().for_each(|node| drop(ground.lab.fail(node).unwrap()));
        ground.silent("192.168.178.12");
        ground.capture.take();
        for node in order {
            ground.lab.heal(NODES[node]).unwrap();
            pass(Duration::from_millis(100));
        }
        ground.announcer("192.168.178.12");
        ground.has("second", &["192.168.178.12"]);
        assert!(ground.answering("192.168.178.11").is_empty());
        assert_eq!(ground.never_two("192.168.178.12").len(), 1);
    }
    // 2: all processes at once, without a word.
    NODES.iter().for_each(|node| ground.lab.nodes().signal(node, Signal::KILL));
    ground.silent("192.168.178.12");
    ground.announcer("192.168.178.12");
    ground.has("second", &["192.168.178.12"]);
    // 40: a failover moves it once, and whoever comes back does not take it.
    ground.lab.wait_until_ready(LIMIT).unwrap();
    let former = ground.announcer("192.168.178.12");
    ground.capture.take();
    ground.lab.fail(&former).unwrap();
    until("another node answers", &ground.lab, LIMIT, || {
        ground.answering("192.168.178.12").iter().any(|node| *node != former)
    });
    let node = ground.announcer("192.168.178.12");
    ground.lab.heal(&former).unwrap();
    ground.lab.wait_until_ready(LIMIT).unwrap();
    pass(Duration::from_secs(1));
    assert_eq!(ground.announcer("192.168.178.12"), node);
    ground.never_two("192.168.178.12");
}

fn judges(directory: &Path) {
    if !has("outside_judges_agree", &["arping", "ndisc6"]) {
        return;
    }
    let ground = Ground::new(directory);
    let owner = ground.announcer(GATE[0]);
    let mac = ground.mac(&owner).to_string();
    // One answer to each question, from one station; -d would tell of a second.
    let (code, said) = run(&ground, "lan-client", "arping", &["-d", "-c", "3", "-w", "5", "-i", "eth0", GATE[0]]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches(&format!("from {mac} ({}", GATE[0])).count(), 3, "{said}");
    // A probe of RFC 5227, from nobody: the address is in use.
    let (code, said) = run(&ground, "lan-client", "arping", &["-0", "-c", "2", "-w", "5", "-i", "eth0", GATE[0]]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&mac), "{said}");
    let (code, said) = run(&ground, "lan-client", "ndisc6", &["-m", GATE[1], "eth0"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.to_lowercase().matches(&mac).count(), 1, "{said}");
    // Nobody answers for an address of the pool that no Service has.
    let (code, said) = run(&ground, "lan-client", "arping", &["-c", "1", "-w", "1", "-i", "eth0", "192.168.178.19"]);
    assert_ne!(code, Some(0), "{said}");
    let (code, said) = run(&ground, "lan-client", "ndisc6", &["-r", "1", "fda8:a1db:5685::19", "eth0"]);
    assert_ne!(code, Some(0), "{said}");
}
