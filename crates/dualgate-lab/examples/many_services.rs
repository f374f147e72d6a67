//! A thousand Services of type LoadBalancer on three home nodes: all are answered for and served, also when a node has died,
//! and what that costs.
//!
//! ```text
//! cargo build --release -p dualgate
//! cargo run --release -p dualgate-lab --example many_services -- --binary target/release/dualgate
//! ```
//!
//! Each Service has an address of either family. "Answered" is what a client on the LAN saw: it asks for every address by ARP
//! or Neighbor Discovery, as often as it takes; a node answers one station 250 times a second at most. Every twentieth Service is asked
//! for a page, too, over both families. CPU is that of the node's process, in seconds. The last line is the verdict, and the
//! exit code: 0 if all were answered for before and after, else 1.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_lab::cluster::Patience;
use dualgate_lab::control::Operator as _;
use dualgate_lab::init;
use dualgate_lab::lab::{Lab, Options, Origin};
use dualgate_lab::probe::{Request, get, who_has};

const INSIDE: &str = "DUALGATE_MANY_SERVICES_INSIDE";
const USAGE: &str = "usage: many_services [--binary PATH] [--services N]";
const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// Longer than anything takes on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);
/// So many questions are under way at a time.
const ASKERS: usize = 32;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(150);
/// Of so many Services one is asked for a page.
const SAMPLE: usize = 20;
/// How long it is looked what the nodes need when nothing happens.
const REST: Duration = Duration::from_secs(10);
/// The kernel counts a process's time in hundredths of a second (USER_HZ).
const TICKS: f64 = 100.0;

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    binary: PathBuf,
    services: u16,
}

impl Arguments {
    fn read() -> Option<Self> {
        let own = std::env::current_exe().ok()?;
        let mut read = Self { binary: own.parent()?.parent()?.join("dualgate"), services: 1_000 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next()?;
            match argument.as_str() {
                "--binary" => read.binary = value.into(),
                "--services" => read.services = value.parse().ok().filter(|services| (1..=1_000).contains(services))?,
                _ => return None,
            }
        }
        read.binary = read.binary.canonicalize().ok()?;
        Some(read)
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    init::alone(INSIDE, |directory| measure(&arguments, directory))
}

fn measure(arguments: &Arguments, directory: &Path) -> Result<ExitCode, Failure> {
    let home = directory.join("home");
    write_home(&home)?;
    let options = Options {
        name: None,
        site: home.join("site.yaml"),
        origin: "a measurement".to_owned(),
        source: home.join("manifests"),
        objects: Origin::Folder,
        program: arguments.binary.clone(),
        directory: directory.to_owned(),
        patience: Patience::default(),
    };
    let lab = Lab::start(&options)?;
    let took = lab.wait_until_ready(LIMIT)?;
    println!("three nodes are ready after {} ms", took.as_millis());
    print_costs(&lab, "before")?;

    let created = Instant::now();
    std::fs::write(home.join("manifests/many.yaml"), services(arguments.services))?;
    let answered = wait_for_all(&lab, arguments.services, "they were created", created)?;
    print_costs(&lab, "with all of them")?;
    rest(&lab)?;

    let victim = most(&lab);
    println!("{victim} has no power from here on");
    let died = Instant::now();
    lab.fail(&victim).map_err(|refusal| refusal.to_string())?;
    let again = wait_for_all(&lab, arguments.services, "it died", died)?;
    print_costs(&lab, "with a node less")?;
    let held: usize = NODES.iter().map(|node| lab.nodes().held(node).len()).sum();
    println!(
        "{answered} of {} were answered for, {again} after a node had died; {held} addresses are held",
        2 * arguments.services
    );
    Ok(if answered == again { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_home(home: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(home.join("manifests"))?;
    let node = |number: usize| {
        format!(
            "- {{name: node{number}, roles: [internal-gate, virtual-ips], addresses: [10.77.0.{number}, 'fd77::{number}'], \
             podCIDRs: [10.42.{number}.0/24, 'fd01:0:0:{number}::/64']}}\n"
        )
    };
    let nodes: String = (1..=NODES.len()).map(node).collect();
    let site = format!(
        "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nname: many\n\
         cluster: {{podCIDRs: [10.42.0.0/16, 'fd01::/48'], serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}}\n\
         lan: {{subnets: [10.77.0.0/16, 'fd77::/64'], router: {{kind: other, addresses: [10.77.0.254, 'fd77::fe'], uplink: dual-stack}}}}\n\
         nodes:\n{nodes}\
         pools: [{{name: many, addresses: [10.77.16.0-10.77.19.255, 'fd77::1000-fd77::13ff']}}]\n\
         gates: {{internal: {{addresses: [10.77.0.10, 'fd77::10']}}}}\n"
    );
    std::fs::write(home.join("site.yaml"), site)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home/manifests");
    for file in ["whoami.yaml", "ingress-class.yaml"] {
        std::fs::copy(example.join(file), home.join("manifests").join(file))?;
    }
    Ok(())
}

/// As many Services, all of the same pods.
fn services(count: u16) -> String {
    let one = |number: u16| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: apps}}\nspec: {{type: LoadBalancer, \
             ipFamilyPolicy: RequireDualStack, selector: {{app: whoami}}, ports: [{{name: http, port: 8080, targetPort: http}}]}}\n"
        )
    };
    (0..count).map(one).collect()
}

/// The addresses of a Service: the lowest free ones are given in the order of the names, so all up to the last are used.
fn addresses(count: u16) -> Vec<IpAddr> {
    let of = |number: u16| {
        let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 16, 0).to_bits() + u32::from(number));
        [IpAddr::from(v4), IpAddr::from(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x1000 + number))]
    };
    (0..count).flat_map(of).collect()
}

/// Asks until somebody has answered for every address, and a pod for the sample; how many addresses that are.
fn wait_for_all(lab: &Lab, count: u16, since: &str, started: Instant) -> Result<usize, Failure> {
    let client = lab.host("lan-client").ok_or("the LAN's client is off")?;
    let mut left = addresses(count);
    let all = left.len();
    let gone: BTreeSet<[u8; 6]> = macs_of_the_dead(lab);
    while !left.is_empty() {
        if started.elapsed() > LIMIT {
            let shown: Vec<String> = left.iter().take(8).map(ToString::to_string).collect();
            return Err(format!("{} of {all} are not answered for: {} ...", left.len(), shown.join(", ")).into());
        }
        lab.tend();
        left = unanswered(&client, left, &gone);
    }
    println!("somebody has answered for all {all} addresses {} ms after {since}", started.elapsed().as_millis());
    for address in addresses(count).chunks(2).step_by(SAMPLE).flatten() {
        let request = Request::new(SocketAddr::new(*address, 8080), "many");
        while get(&client, &request, Duration::from_secs(2)).is_err() {
            if started.elapsed() > LIMIT {
                return Err(format!("no pod answers at {address}").into());
            }
            lab.tend();
        }
    }
    println!("a pod has answered at every {SAMPLE}th Service {} ms after {since}", started.elapsed().as_millis());
    Ok(all)
}

/// The link-layer addresses of the nodes that are off: nobody may speak with them any more.
fn macs_of_the_dead(lab: &Lab) -> BTreeSet<[u8; 6]> {
    let off = lab.topology().hosts.iter().filter(|host| lab.host(&host.name).is_none());
    off.flat_map(|host| host.interfaces.iter().filter_map(|interface| interface.mac)).collect()
}

/// Those of the addresses for which nobody has answered who is there.
fn unanswered(client: &Arc<Namespace>, addresses: Vec<IpAddr>, gone: &BTreeSet<[u8; 6]>) -> Vec<IpAddr> {
    let queue = Mutex::new(addresses.into_iter());
    let left = Mutex::new(Vec::new());
    let ask = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(address) = next else { return };
            let seen = who_has(client, "eth0", address, ANSWER).unwrap_or_default();
            if !seen.iter().any(|mac| !gone.contains(&mac.0)) {
                left.lock().unwrap_or_else(PoisonError::into_inner).push(address);
            }
        }
    };
    std::thread::scope(|scope| (0..ASKERS).for_each(|_| drop(scope.spawn(ask))));
    left.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The node that holds most.
fn most(lab: &Lab) -> String {
    let most = NODES.iter().max_by_key(|node| lab.nodes().held(node).len());
    most.map_or_else(String::new, |node| (*node).to_owned())
}

fn print_costs(lab: &Lab, when: &str) -> Result<(), Failure> {
    for node in NODES.iter().filter(|node| lab.nodes().pid(node).is_some()) {
        let (seconds, mebibytes) = used(lab, node)?;
        let held = lab.nodes().held(node).len();
        println!("{when}: {node} holds {held}, has used {seconds:.2} s of CPU, and has {mebibytes:.0} MiB");
    }
    Ok(())
}

/// What the nodes need while nothing happens.
fn rest(lab: &Lab) -> Result<(), Failure> {
    let mut before = Vec::new();
    for node in NODES {
        before.push(used(lab, node)?.0);
    }
    let until = Instant::now() + REST;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
    for (node, before) in NODES.iter().zip(before) {
        let percent = (used(lab, node)?.0 - before) / REST.as_secs_f64() * 100.0;
        println!("at rest: {node} uses {percent:.1} % of a core");
    }
    Ok(())
}

/// Seconds of CPU and mebibytes of memory of a node's process so far.
fn used(lab: &Lab, node: &str) -> Result<(f64, f64), Failure> {
    let pid = lab.nodes().pid(node).ok_or("it does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no such file")?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or("no such field");
    let seconds = (number(11)? + number(12)?) / TICKS;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no such line")?;
    let kibibytes: f64 = resident.trim().trim_end_matches(" kB").trim().parse()?;
    Ok((seconds, kibibytes / 1024.0))
}
