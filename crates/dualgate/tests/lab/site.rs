//! The sites of the trials, and what is asked in them.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use dualgate_lab::cluster::Patience;
use dualgate_lab::lab::{Lab, Options, Origin};
use dualgate_lab::probe::{self, Answer, Request};
use dualgate_lab::trial::chain;

/// Nothing in a lab takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The seed's site: three home nodes, an edge, DS-Lite.
pub fn seed(directory: &Path) -> Lab {
    start(directory, &example(), Patience::default())
}

/// A lab of the seed whose manifests may be changed.
pub fn seed_with_manifests(directory: &Path) -> (Lab, PathBuf) {
    let folder = directory.join("home");
    std::fs::create_dir_all(folder.join("manifests")).unwrap();
    std::fs::copy(example().join("site.yaml"), folder.join("site.yaml")).unwrap();
    for file in std::fs::read_dir(example().join("manifests")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join("manifests").join(file.file_name())).unwrap();
    }
    let lab = start(directory, &folder, Patience::default());
    (lab, folder.join("manifests"))
}

/// The folder with the seed's site file and manifests.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/home")
}

/// A lab of the site in a folder, once every node is ready.
pub fn start(directory: &Path, home: &Path, patience: Patience) -> Lab {
    start_with(directory, home, patience, Origin::Folder)
}

/// The same, with the objects in a folder or in a Kubernetes API.
pub fn start_with(directory: &Path, home: &Path, patience: Patience, objects: Origin) -> Lab {
    let options = Options {
        name: None,
        site: home.join("site.yaml"),
        origin: "a test".to_owned(),
        source: home.join("manifests"),
        objects,
        program: PathBuf::from(env!("CARGO_BIN_EXE_dualgate")),
        directory: directory.to_owned(),
        patience,
    };
    let lab = Lab::start(&options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let took = lab.wait_until_ready(PATIENCE).unwrap_or_else(|missing| panic!("{missing}\n{}", logs(&lab)));
    println!("ready after {took:?}");
    lab
}

/// What every node has logged.
pub fn logs(lab: &Lab) -> String {
    let nodes = lab.topology().hosts.iter().filter(|host| host.node.is_some());
    let log = |name: &str| lab.nodes().log(name).unwrap_or_else(|error| error.to_string());
    let told = |name: &str| {
        let log = log(name);
        log.lines()
            .filter(|line| !line.contains(r#""entryPoint""#))
            .fold(String::new(), |said, line| said + line + "\n")
    };
    nodes.map(|host| format!("--- {}\n{}", host.name, told(&host.name))).collect()
}

/// Asks from a host.
#[track_caller]
pub fn get(lab: &Lab, from: &str, address: &str, host: &str) -> Answer {
    let address = SocketAddr::new(address.parse().expect("an address"), 80);
    let namespace = lab.host(from).expect("a host that is on");
    let answer = probe::get(&namespace, &Request::new(address, host), Duration::from_secs(5));
    answer.unwrap_or_else(|trouble| panic!("{from} -> {host} at {address}: {trouble}\n{}", logs(lab)))
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Lets time pass: nothing else is waited for.
pub fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        park_timeout(left);
    }
}

/// Asks until the answer is yes; meanwhile the lab is tended.
#[track_caller]
pub fn until(what: &str, lab: &Lab, limit: Duration, mut ask: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !ask() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}\n{}", logs(lab));
        lab.tend();
        park_timeout(Duration::from_millis(20));
    }
}

/// What a node's admin listener says of the node; nothing while it does not answer.
pub fn status(lab: &Lab, node: &str) -> serde_json::Value {
    let Some(host) = lab.host(node) else { return serde_json::Value::Null };
    let request = Request::new("127.0.0.1:9180".parse().expect("an address"), "127.0.0.1:9180").path("/status");
    let answer = probe::get(&host, &request, Duration::from_secs(1));
    answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
}

/// Whether programs are there; without one a trial says so.
pub fn has(trial: &str, programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        let mut folders = std::env::split_paths(&paths).chain(["/usr/sbin".into(), "/sbin".into()]);
        folders.any(|folder| folder.join(program).is_file())
    };
    let Some(missing) = programs.iter().find(|program| !is_there(program)) else { return true };
    let required = std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "{missing} is not installed");
    println!("SKIPPED: lab::{trial}: {missing} is not installed");
    false
}
