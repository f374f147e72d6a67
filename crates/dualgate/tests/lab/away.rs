//! What does not wait for the Kubernetes API: the tunnel and the firewall of nodes whose cluster has never answered.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::parse::site;
use dualgate_host::namespace::Namespace;
use dualgate_lab::probe::{self, Request};
use dualgate_lab::rehearsal::Tunnel;
use dualgate_lab::topology;
use dualgate_lab::trial::{Trial, chain};
use dualgate_lab::world::World;

use crate::site::example;

pub const TRIALS: &[Trial] =
    &[("tunnel_and_firewall_are_there_while_the_cluster_has_never_answered", without_a_cluster)];

const LIMIT: Duration = Duration::from_secs(30);

/// Nobody listens there, on any node.
const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: away
clusters: [{name: away, cluster: {server: 'http://127.0.0.1:6443'}}]
contexts: [{name: away, context: {cluster: away, user: anybody}}]
users: [{name: anybody, user: {}}]
";

/// A running node, which ends with this.
struct Node {
    host: Arc<Namespace>,
    own: PathBuf,
    run: Child,
}

impl Node {
    fn start(world: &World, name: &str, text: &str) -> Self {
        let (host, own) = (world.host(name).expect("a host that is on"), world.run_directory(name));
        std::fs::write(own.join("site.yaml"), text).expect("a file");
        std::fs::write(own.join("kubeconfig"), KUBECONFIG).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
        command.args(["run", "--workers", "1", "--site", "/run/site.yaml", "--state", "/run/state", "--node", name]);
        command.args(["--source", "cluster", "--kubeconfig", "/run/kubeconfig"]);
        let log = std::fs::File::create(own.join("log")).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let run = host.run(move || command.spawn()).expect("the program runs");
        Self { host, own, run }
    }

    fn status(&self) -> serde_json::Value {
        let request = Request::new("127.0.0.1:9180".parse().expect("an address"), "127.0.0.1:9180").path("/status");
        let answer = probe::get(&self.host, &request, Duration::from_secs(1));
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            let log = || std::fs::read_to_string(self.own.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}: {status:#}\n{}", log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

fn without_a_cluster(directory: &Path) {
    dualgate_host::raise_descriptor_limit();
    let text = std::fs::read_to_string(example().join("site.yaml")).expect("the seed's site file");
    let (site, findings) = site::site("site.yaml", &text);
    let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
    let topology = topology::build(&site, Tunnel::Real).expect("a topology");
    let world = World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)));
    for node in &site.nodes {
        let name = node.name.as_str();
        let running = Node::start(&world, name, &text);
        let away = |status: &serde_json::Value| {
            let findings = status["findings"].as_array();
            findings.is_some_and(|found| found.iter().any(|finding| finding["code"] == "cluster-away"))
        };
        let status = running.until("the cluster is away", away);
        assert_eq!(status["objects_from"], "nothing", "{name}");
        running.until("the tunnel is there", |status| status["tunnel"]["backend"].is_string());
        if node.is_edge() {
            running.until("its firewall is there", |status| status["firewall"]["on"] == true);
        }
    }
}
