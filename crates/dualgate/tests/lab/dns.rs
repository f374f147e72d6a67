//! Names: what each client is told by real questions, and that it reaches what it was told.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::ops::AddAssign as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use dualgate_core::model::Family;
use dualgate_lab::control::Operator as _;
use dualgate_lab::lab::Lab;
use dualgate_lab::names::{BACK, ELSEWHERE, THERE};
use dualgate_lab::probe::{Resolved, Trouble, resolve};
use dualgate_lab::trial::Trial;

use crate::kubernetes;
use crate::site::{get, has, ip, logs, pass, seed, seed_with_manifests, status, until};

pub const TRIALS: &[Trial] = &[
    ("names_lead_each_client_to_its_gate_and_home_stays_at_home", each_to_its_gate),
    ("names_come_and_go_with_their_ingress_in_both_views", come_and_go),
    ("names_are_answered_through_a_failover_of_their_address", failover),
    ("names_are_answered_while_the_kubernetes_api_is_away", without_api),
    ("a_flood_of_questions_in_somebodys_name_is_damped", flood),
    ("kdig_asks_at_home_and_from_the_internet", kdig),
    ("zonemaster_finds_the_edge_a_name_server_as_it_should_be", zonemaster),
];

const WHOAMI: &str = "whoami.yourdomain.com";
/// Served at home only.
const PAPERLESS: &str = "paperless.yourdomain.com";
/// The internal gate's addresses, where home's names are answered, too.
const HOME: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const EDGE: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
const ROUTER: [&str; 2] = ["192.168.178.1", "fda8:a1db:5685::1"];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const NODES: [&str; 3] = ["k3s-node1", "k3s-node2", "k3s-node3"];
const LIMIT: Duration = Duration::from_secs(20);
const NXDOMAIN: u8 = 3;

pub fn asked(lab: &Lab, from: &str, server: &str, name: &str, of: Family) -> Result<Resolved, Trouble> {
    let host = lab.host(from).expect("a host that is on");
    resolve(&host, SocketAddr::new(ip(server), 53), name, of, Duration::from_secs(5))
}

#[track_caller]
fn told(lab: &Lab, from: &str, server: &str, name: &str, of: Family) -> Resolved {
    asked(lab, from, server, name, of)
        .unwrap_or_else(|trouble| panic!("{from} -> {server} about {name}: {trouble}\n{}", logs(lab)))
}

pub fn leads(addresses: &[&str]) -> Resolved {
    Resolved { code: 0, addresses: addresses.iter().map(|address| ip(address)).collect() }
}

fn each_to_its_gate(directory: &Path) {
    let lab = seed(directory);
    for (from, servers, gates) in [("lan-client", HOME, HOME), ("internet-client", EDGE, EDGE)] {
        for server in servers {
            for (of, gate) in FAMILIES.into_iter().zip(gates) {
                let answer = told(&lab, from, server, WHOAMI, of);
                assert_eq!(answer, leads(&[gate]), "{from} asks {server}");
                // What was told is what is used.
                let address = answer.addresses[0].to_string();
                assert_eq!(get(&lab, from, &address, WHOAMI).status, 200);
            }
        }
    }
    for (of, gate) in FAMILIES.into_iter().zip(HOME) {
        for server in HOME {
            assert_eq!(told(&lab, "lan-client", server, PAPERLESS, of), leads(&[gate]));
            let alias = "whoami.home.arpa";
            assert_eq!(told(&lab, "lan-client", server, alias, of), leads(&[gate]), "{alias}");
            let unknown = told(&lab, "lan-client", server, "nobody.yourdomain.com", of);
            assert_eq!((unknown.code, unknown.addresses.len()), (NXDOMAIN, 0));
        }
        for server in EDGE {
            for name in [PAPERLESS, "whoami.home.arpa", ELSEWHERE, "."] {
                let answer = told(&lab, "internet-client", server, name, of);
                assert!(answer.code != 0 && answer.addresses.is_empty(), "{server} about {name}: {answer:?}");
            }
        }
    }
    // Everything else is asked of the router.
    for (of, there) in FAMILIES.into_iter().zip(THERE) {
        for server in HOME {
            assert_eq!(told(&lab, "lan-client", server, ELSEWHERE, of), leads(&[there]));
        }
    }
    // Who asks the router itself, as guests do, is told the edge, through the carrier.
    for (of, edge) in FAMILIES.into_iter().zip(EDGE) {
        for server in ROUTER {
            assert_eq!(told(&lab, "lan-client", server, WHOAMI, of), leads(&[edge]), "{server}");
        }
    }
    // A name of others that stands for one of ours leads where others say.
    for (of, edge) in FAMILIES.into_iter().zip(EDGE) {
        for server in HOME.into_iter().chain(ROUTER) {
            assert_eq!(told(&lab, "lan-client", server, BACK, of), leads(&[edge]), "{BACK} of {server}");
        }
    }
    let resolv = lab.host("lan-client").unwrap().run(|| std::fs::read_to_string("/etc/resolv.conf")).unwrap();
    assert!(HOME.iter().all(|address| resolv.contains(&format!("nameserver {address}\n"))), "{resolv}");
}

const SECOND: &str = "second.yourdomain.com";

fn come_and_go(directory: &Path) {
    let (lab, manifests) = seed_with_manifests(directory);
    let ways = [("lan-client", HOME), ("internet-client", EDGE)];
    let everywhere = |expected: fn(&Resolved, IpAddr) -> bool, what: &str| {
        for (from, servers) in ways {
            for (of, server) in FAMILIES.into_iter().zip(servers) {
                until(&format!("{SECOND} {what} at {server}"), &lab, LIMIT, || {
                    asked(&lab, from, server, SECOND, of).is_ok_and(|answer| expected(&answer, ip(server)))
                });
            }
        }
    };
    let is_gone = |answer: &Resolved, _: IpAddr| answer.code == NXDOMAIN;
    let is_there = |answer: &Resolved, gate: IpAddr| answer.addresses == [gate];
    everywhere(is_gone, "is not there");
    let whoami = std::fs::read_to_string(manifests.join("whoami.yaml")).unwrap();
    let ingress = whoami.split("---\n").find(|document| document.contains("kind: Ingress\n")).unwrap();
    let second = ingress.replace(WHOAMI, SECOND).replace("name: whoami\n", "name: second\n");
    // Its backend is the Service of the first one.
    let second =
        second.replacen("service:\n                name: second\n", "service:\n                name: whoami\n", 1);
    std::fs::write(manifests.join("second.yaml"), second).unwrap();
    everywhere(is_there, "leads to the gate");
    std::fs::remove_file(manifests.join("second.yaml")).unwrap();
    everywhere(is_gone, "is gone");
}

/// Asks again and again, as a client's resolver does: each question up to three times, a second each.
struct Asking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(u32, Duration)>>,
}

impl Asking {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ask = |(of, server): (Family, &str)| {
            let (stop, host) = (stop.clone(), lab.host("lan-client").expect("a client"));
            let server = SocketAddr::new(ip(server), 53);
            std::thread::spawn(move || {
                let (mut answered, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(answer) = resolve(&host, server, WHOAMI, of, Duration::from_secs(1)) {
                        assert_eq!(answer.addresses, [server.ip()], "{answer:?}");
                        answered += 1;
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                    }
                    park_timeout(Duration::from_millis(10));
                }
                (answered, longest)
            })
        };
        let threads = FAMILIES.into_iter().zip(HOME).map(ask).collect();
        Self { stop, threads }
    }

    /// The longest time without an answer.
    fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(|thread| thread.join().expect("it ends well"));
        let mut longest = Duration::ZERO;
        for (answered, gap) in ended {
            println!("{answered} answers, {gap:?} at most without one");
            assert!(answered > 20, "{answered}");
            longest = longest.max(gap);
        }
        longest
    }
}

fn failover(directory: &Path) {
    let lab = seed(directory);
    let holder = || NODES.into_iter().find(|node| lab.nodes().held(node).contains(&ip(HOME[0])));
    let former = holder().expect("somebody holds the address");
    let asking = Asking::start(&lab);
    pass(Duration::from_millis(300));
    lab.fail(former).unwrap();
    until("another node holds the address", &lab, LIMIT, || holder().is_some_and(|node| node != former));
    pass(Duration::from_millis(500));
    lab.heal(former).unwrap();
    lab.wait_until_ready(LIMIT).unwrap();
    let longest = asking.stop();
    assert!(longest < LIMIT / 2, "{longest:?}\n{}", logs(&lab));
    for (of, there) in FAMILIES.into_iter().zip(THERE) {
        assert_eq!(told(&lab, "lan-client", HOME[0], ELSEWHERE, of), leads(&[there]));
    }
}

fn without_api(directory: &Path) {
    let lab = kubernetes::seed(directory);
    for (of, gate) in FAMILIES.into_iter().zip(HOME) {
        assert_eq!(told(&lab, "lan-client", HOME[0], WHOAMI, of), leads(&[gate]));
    }
    let holder = NODES.into_iter().find(|node| lab.nodes().held(node).contains(&ip(HOME[0]))).unwrap();
    let kept = lab.state_directory(holder).join("objects.json");
    until("what it serves is on its disk", &lab, LIMIT, || kept.exists());
    kubernetes::api(&lab).faults().down();
    let asking = Asking::start(&lab);
    // Who held the address starts again, without the API.
    lab.nodes().signal(holder, rustix::process::Signal::KILL);
    until("it answers what it had", &lab, LIMIT, || {
        lab.nodes().state(holder).as_deref() == Some("ready")
            && status(&lab, holder)["dns"]["listening"].as_array().is_some_and(|at| at.len() == 2)
    });
    pass(Duration::from_millis(500));
    let longest = asking.stop();
    assert!(longest < LIMIT / 2, "{longest:?}\n{}", logs(&lab));
    for (of, there) in FAMILIES.into_iter().zip(THERE) {
        assert_eq!(told(&lab, "lan-client", HOME[1], ELSEWHERE, of), leads(&[there]));
    }
}

/// The questions of a flood.
const FLOOD: usize = 4000;
/// From how many ports they come.
const PORTS: usize = 32;

/// To the edge it makes no difference who really sends: what it sends to one address is what counts.
fn flood(directory: &Path) {
    let lab = seed(directory);
    let host = lab.host("internet-client").expect("a host that is on");
    let question = b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x06whoami\x0ayourdomain\x03com\0\0\x01\0\x01";
    for server in EDGE.map(|address| SocketAddr::new(ip(address), 53)) {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        // From many ports, so that every thread of the server has its share.
        let bind = || {
            let socket = host.run(move || UdpSocket::bind(any)).expect("a socket");
            socket.connect(server).expect("a way");
            socket.set_nonblocking(true).expect("a socket that does not wait");
            socket
        };
        let sockets: Vec<UdpSocket> = (0..PORTS).map(|_| bind()).collect();
        let (mut whole, mut cut, mut octets) = (0, 0, 0);
        let mut receive = |socket: &UdpSocket| {
            let mut space = [0; 2048];
            let length = socket.recv(&mut space).ok()?;
            (if space[2] & 2 == 0 { &mut whole } else { &mut cut }).add_assign(1);
            octets += length;
            Some(())
        };
        for socket in sockets.iter().cycle().take(FLOOD) {
            // A full queue loses what is sent, as on any network.
            let _ = socket.send(question);
            while receive(socket).is_some() {}
        }
        pass(Duration::from_millis(500));
        for socket in &sockets {
            while receive(socket).is_some() {}
        }
        let amplification = octets as f64 / (FLOOD * question.len()) as f64;
        println!("{server}: {FLOOD} questions, {whole} answers, {cut} cut ones: amplification {amplification:.2}");
        assert!((1..FLOOD / 4).contains(&whole) && cut > 0, "{whole} answers, {cut} cut ones");
        assert!(amplification < 0.8, "{amplification}");
        // Whoever really asks is answered by TCP.
        let patience = Duration::from_secs(5);
        let mut stream = host.run(move || TcpStream::connect_timeout(&server, patience)).expect("a connection");
        stream.set_read_timeout(Some(patience)).expect("a deadline");
        let length = u16::try_from(question.len()).expect("a short one").to_be_bytes();
        stream.write_all(&[&length[..], question].concat()).expect("it is sent");
        let mut answer = [0; 14];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!((&answer[2..4], answer[4] & 2, &answer[8..10]), (&question[..2], 0, &[0, 1][..]), "{answer:02x?}");
    }
    let limited = status(&lab, "ionos")["dns"]["limited"].as_u64();
    assert!(limited.is_some_and(|limited| limited > FLOOD as u64), "{limited:?}");
}

/// What a program says on a host.
#[track_caller]
fn run(lab: &Lab, directory: &Path, host: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let file = directory.join(format!("{program}.out"));
    let _ = std::fs::remove_file(&file);
    let process = lab.nodes().processes().spawn(&lab.host(host).unwrap(), command, &file);
    let process = process.unwrap_or_else(|error| panic!("{program}: {error}"));
    let ended = process.wait(LIMIT).unwrap_or_else(|| panic!("{program} does not end"));
    let said = std::fs::read_to_string(&file).unwrap();
    assert!(ended.success(), "{program} {arguments:?}: {said}");
    said
}

fn kdig(directory: &Path) {
    if !has("kdig_asks_at_home_and_from_the_internet", &["kdig"]) {
        return;
    }
    let lab = seed(directory);
    for (from, servers, gates) in [("lan-client", HOME, HOME), ("internet-client", EDGE, EDGE)] {
        for server in servers {
            for over in ["+notcp", "+tcp"] {
                let at = format!("@{server}");
                let short =
                    |name: &str, rtype: &str| run(&lab, directory, from, "kdig", &[&at, over, "+short", name, rtype]);
                assert_eq!(short(WHOAMI, "A").trim(), gates[0], "{from} {server} {over}");
                assert_eq!(short(WHOAMI, "AAAA").trim(), gates[1], "{from} {server} {over}");
                let https = short(WHOAMI, "HTTPS");
                // Of the gate that this client reaches, and of no other.
                let others = if from == "lan-client" { EDGE } else { HOME };
                assert!(!others.iter().any(|address| https.contains(address)), "{https}");
                let full =
                    run(&lab, directory, from, "kdig", &[&at, over, "+edns", "+cookie", "gone.yourdomain.com", "A"]);
                assert!(full.contains("status: NXDOMAIN") && full.contains("SOA"), "{full}");
            }
        }
    }
    // `/etc/resolv.conf` of a client names dualgate: nothing has to be said.
    let plain = run(&lab, directory, "lan-client", "kdig", &["+short", PAPERLESS, "AAAA"]);
    assert_eq!(plain.trim(), HOME[1]);
}

/// A root and a `com` of our own, on the Internet's side: the edge is asked as it would be by everybody.
const ROOTS: &str = "\
server:
    rundir: {run}
    listen: [ 198.51.100.7@53, 2001:db8:7::7@53 ]
database:
    storage: {run}
zone:
  - domain: .
    file: {run}/root.zone
  - domain: com.
    file: {run}/com.zone
log:
  - target: stderr
    any: info
";
const ROOT_ZONE: &str = "\
. 86400 IN SOA ns.nic. hostmaster.nic. 1 14400 3600 1209600 86400
. 86400 IN NS ns.nic.
ns.nic. 86400 IN A 198.51.100.7
ns.nic. 86400 IN AAAA 2001:db8:7::7
com. 86400 IN NS ns.nic.
";
const COM_ZONE: &str = "\
com. 86400 IN SOA ns.nic. hostmaster.nic. 1 14400 3600 1209600 86400
com. 86400 IN NS ns.nic.
yourdomain.com. 86400 IN NS ns1.yourdomain.com.
ns1.yourdomain.com. 86400 IN A 203.0.113.10
ns1.yourdomain.com. 86400 IN AAAA 2001:db8:1::10
";

/// What has to be said of the edge.
const GOOD: [&str; 12] = [
    "HAS_NAMESERVERS",
    "ONE_SOA_SERIAL",
    "ADDRESSES_MATCH",
    "ARE_AUTHORITATIVE",
    "NAMES_MATCH",
    "NO_RECURSOR",
    "EDNS0_SUPPORT",
    "AXFR_FAILURE",
    "SAME_SOURCE_IP",
    "NO_UPWARD_REFERRAL",
    "QNAME_CASE_SENSITIVE",
    "CASE_QUERIES_RESULTS_OK",
];
/// What may be said beside it, and why.
const FAULTS: [(&str, &str); 15] = [
    ("NAMESERVER_IP_PRIVATE_NETWORK", "the lab has addresses for documentation"),
    ("NAMESERVER_IP_WITHOUT_REVERSE", "reverse names of the edge are its provider's; the lab has none"),
    ("NOT_ENOUGH_NS_DEL", "one edge is one name server"),
    ("NOT_ENOUGH_NS_CHILD", "one edge is one name server"),
    ("NOT_ENOUGH_IPV4_NS_CHILD", "one edge is one name server"),
    ("NOT_ENOUGH_IPV6_NS_CHILD", "one edge is one name server"),
    ("NOT_ENOUGH_IPV4_NS_DEL", "one edge is one name server"),
    ("NOT_ENOUGH_IPV6_NS_DEL", "one edge is one name server"),
    ("NEITHER_DNSKEY_NOR_DS", "zones are not signed"),
    ("NOT_SIGNED", "zones are not signed"),
    ("RNAME_MAIL_DOMAIN_INVALID", "the example receives no mail"),
    ("Z09_MISSING_MAIL_TARGET", "the example receives no mail"),
    ("REFRESH_MINIMUM_VALUE_LOWER", "nobody transfers the zone"),
    ("RETRY_MINIMUM_VALUE_LOWER", "nobody transfers the zone"),
    ("SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER", "a name that comes is there within a minute"),
];

fn zonemaster(directory: &Path) {
    if !has("zonemaster_finds_the_edge_a_name_server_as_it_should_be", &["zonemaster-cli", "knotd"]) {
        return;
    }
    let lab = seed(directory);
    // What the host sees as its own `/run`.
    let (at, seen) = (directory.join("hosts/internet-client/run/roots"), "/run/roots");
    std::fs::create_dir_all(&at).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(at.join(name), text.replace("{run}", seen)).unwrap();
        format!("{seen}/{name}")
    };
    write("root.zone", ROOT_ZONE);
    write("com.zone", COM_ZONE);
    let conf = write("knot.conf", ROOTS);
    let hints =
        write("hints", ". 3600 IN NS ns.nic.\nns.nic. 3600 IN A 198.51.100.7\nns.nic. 3600 IN AAAA 2001:db8:7::7\n");
    let mut knot = Command::new("knotd");
    knot.args(["-c", &conf]);
    let host = lab.host("internet-client").expect("a host that is on");
    let _knot = lab.nodes().processes().spawn(&host, knot, &at.join("knot.log")).expect("knotd starts");
    until("the root answers", &lab, LIMIT, || {
        asked(&lab, "internet-client", "198.51.100.7", "ns.nic", Family::V4)
            .is_ok_and(|told| told == leads(&["198.51.100.7"]))
    });
    let options = ["--hints", &hints, "--level", "INFO", "--no-progress", "--raw", "--show-testcase", "yourdomain.com"];
    let said = run(&lab, directory, "internet-client", "zonemaster-cli", &options);
    let tags = |level: fn(&str) -> bool| -> BTreeSet<&str> {
        let of_level = said.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<&str>>()[..] {
            [_, at, _, tag, ..] if level(at) => Some(tag),
            _ => None,
        });
        of_level.collect()
    };
    let (faults, good) = (tags(|level| level != "INFO"), tags(|level| level == "INFO"));
    for tag in GOOD {
        assert!(good.contains(tag), "{tag} is missing in\n{said}");
    }
    let unknown: Vec<_> = faults.iter().filter(|tag| !FAULTS.iter().any(|(known, _)| known == *tag)).collect();
    assert!(unknown.is_empty(), "{unknown:?} in\n{said}");
    FAULTS.iter().filter(|(tag, _)| faults.contains(tag)).for_each(|(tag, why)| println!("{tag}: {why}"));
}
