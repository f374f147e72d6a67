//! An edge from its bundle: all that it has comes out of one file, and home only learns its public key.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dualgate_core::plan::tunnel::{Pair, PeerName};
use dualgate_host::keys::{Keys, Slot};
use dualgate_lab::lab::Lab;
use dualgate_lab::process::Process;
use dualgate_lab::trial::Trial;

use crate::site::{get, seed, until};

pub const TRIALS: &[Trial] =
    &[("an_edge_runs_from_its_bundle_with_three_capabilities_and_answers_the_internet", from_bundle)];

const EDGE: &str = "ionos";
const HOST: &str = "whoami.yourdomain.com";
const LIMIT: Duration = Duration::from_secs(60);

fn from_bundle(directory: &Path) {
    let lab = seed(directory);
    assert_eq!(get(&lab, "internet-client", "203.0.113.10", HOST).status, 200);
    // The edge that was is gone, with its files and its keys.
    lab.nodes().kill(EDGE);
    std::fs::remove_dir_all(lab.state_directory(EDGE)).unwrap();

    // A host sees of the lab's files what lies in its own `/run`.
    let run = directory.join("hosts").join(EDGE).join("run");
    let desk = run.join("desk");
    std::fs::create_dir(&desk).unwrap();
    share_keys(&lab, &desk.join("state"));
    let site = site_of(directory, "k3s-node1", None);
    std::fs::write(desk.join("site.yaml"), &site).unwrap();
    let mut bundle = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    bundle.current_dir("/run/desk").args(["edge", "bundle", "--node", EDGE, "--state", "state"]);
    succeed(&lab, bundle, &desk.join("log"));

    // `tar -C / -xpf ionos.tar`, where `/` is a folder.
    let root = run.join("edge");
    let mut archive = tar::Archive::new(std::fs::File::open(desk.join("ionos.tar")).unwrap());
    archive.set_preserve_permissions(true);
    std::fs::create_dir(&root).unwrap();
    archive.unpack(&root).unwrap();
    std::fs::remove_dir_all(&desk).unwrap();

    let notified = UnixDatagram::bind(root.join("notify")).unwrap();
    succeed(&lab, started(&root, "ExecStartPre"), &root.join("log"));
    let edge = lab.nodes().processes().spawn(&lab.host(EDGE).unwrap(), started(&root, "ExecStart"), &root.join("log"));
    let edge = edge.unwrap();
    wait_for_ready(&notified, &lab, &root);

    // Home hears of it once its public key stands in the site file.
    let public = Keys::open(&root.join("var/lib/dualgate")).unwrap().current(&Slot::Private).unwrap().public().unwrap();
    for node in ["k3s-node1", "k3s-node2", "k3s-node3"] {
        lab.nodes().write_site(node, &site_of(directory, node, Some(&public.to_string()))).unwrap();
    }
    for address in ["203.0.113.10", "2001:db8:1::10"] {
        until("the edge from the bundle answers the Internet", &lab, LIMIT, || {
            assert!(edge.ended().is_none(), "{}", log(&root));
            answers(&lab, address)
        });
    }
    assert_eq!(get(&lab, "internet-client", "203.0.113.10", "paperless.yourdomain.com").status, 404);
    assert_eq!(capabilities(&edge), 0b0011_0100_0000_0000, "CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_NET_RAW");
    edge.signal(rustix::process::Signal::TERM);
    let ended = edge.wait(LIMIT);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", log(&root));
}

/// The keys that home's nodes share with the edge, as somebody collected them.
fn share_keys(lab: &Lab, state: &Path) {
    std::fs::create_dir(state).unwrap();
    let desk = Keys::create(state).unwrap();
    for node in lab.site().nodes.iter().filter(|node| !node.is_edge()) {
        let edge = lab.site().nodes.iter().find(|node| node.is_edge()).unwrap();
        let slot = Slot::Preshared(Pair::new(PeerName::Node(node.name.clone()), PeerName::Node(edge.name.clone())));
        let key = Keys::open(&lab.state_directory(node.name.as_str())).unwrap().current(&slot).unwrap();
        desk.adopt(&slot, &key).unwrap();
    }
}

/// A node's site file, with this public key of the edge or with none.
fn site_of(directory: &Path, node: &str, key: Option<&str>) -> String {
    let text = std::fs::read_to_string(directory.join("hosts").join(node).join("run/dualgate/site.yaml")).unwrap();
    let mut site: serde_json::Value = serde_json::from_str(&text).unwrap();
    for node in site["nodes"].as_array_mut().unwrap().iter_mut().filter(|node| node["name"] == EDGE) {
        node["publicKeys"] = key.map_or_else(|| serde_json::json!([]), |key| serde_json::json!([key]));
    }
    serde_json::to_string_pretty(&site).unwrap()
}

/// A command of the unit, below the folder, with the rights that the unit leaves it.
fn started(root: &Path, key: &str) -> Command {
    let unit = std::fs::read_to_string(root.join("etc/systemd/system/dualgate.service")).unwrap();
    let of = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap().to_owned();
    let kept = of("CapabilityBoundingSet").replace("CAP_", ",+").replace(' ', "").to_lowercase();
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &format!("-all{kept}"), "--"]);
    let below = |word: &str| word.strip_prefix('/').map_or_else(|| word.to_owned(), |path| format!("/run/edge/{path}"));
    command.args(of(key).split(' ').map(below));
    command.env("STATE_DIRECTORY", "/run/edge/var/lib/dualgate").env("NOTIFY_SOCKET", "/run/edge/notify");
    command.current_dir("/");
    command
}

/// Runs a command in the edge's host to its end.
fn succeed(lab: &Lab, command: Command, log: &Path) {
    let process = lab.nodes().processes().spawn(&lab.host(EDGE).unwrap(), command, log).unwrap();
    let ended = process.wait(LIMIT);
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", said());
}

fn wait_for_ready(socket: &UnixDatagram, lab: &Lab, root: &Path) {
    socket.set_nonblocking(true).unwrap();
    let mut said = String::new();
    until("the edge says that it is ready", lab, LIMIT, || {
        let mut buffer = [0; 4096];
        while let Ok(size) = socket.recv(&mut buffer) {
            said.push_str(&String::from_utf8_lossy(&buffer[..size]));
        }
        said.contains("READY=1")
    });
    assert!(said.contains("STATUS=not ready"), "home has told it nothing yet: {said}{}", log(root));
}

fn answers(lab: &Lab, address: &str) -> bool {
    let address = std::net::SocketAddr::new(address.parse().unwrap(), 80);
    let request = dualgate_lab::probe::Request::new(address, HOST);
    let answer = dualgate_lab::probe::get(&lab.host("internet-client").unwrap(), &request, Duration::from_secs(2));
    answer.is_ok_and(|answer| answer.status == 200)
}

/// What the process may do, as a set of bits.
fn capabilities(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap()
}

fn log(root: &Path) -> String {
    std::fs::read_to_string(root.join("log")).unwrap_or_default()
}
