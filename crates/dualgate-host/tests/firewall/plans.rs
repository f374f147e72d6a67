//! Plans to put into the kernel, and what else the tests share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, ObjectSet, Snapshot};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::site;
use dualgate_core::plan::firewall::{FirewallPlan, firewall};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{Firewall, FirewallError};

const SEED: &str = include_str!("../../../../examples/home/site.yaml");

/// The plan of a node of the seed, with these pods behind a public route.
pub fn seed(node: &str, pods: &str) -> Arc<FirewallPlan> {
    plan(SEED, node, pods)
}

/// The edge's plan with SSH at another port.
pub fn other_ssh_port() -> Arc<FirewallPlan> {
    plan(&SEED.replace("sshPort: 22\n", "sshPort: 2222\n"), "ionos", "")
}

fn plan(text: &str, node: &str, pods: &str) -> Arc<FirewallPlan> {
    let (site, findings) = site::site("site.yaml", text);
    let site = Arc::new(site.unwrap_or_else(|| panic!("{findings:#?}")));
    let objects = match pods {
        "" => ObjectSet::default(),
        pods => assemble([&file("objects.yaml", &objects(pods))].into_iter()),
    };
    let snapshot = Snapshot { generation: Generation(1), site, objects: Arc::new(objects), facts: Facts::default() };
    let plan = firewall(&snapshot, &NodeName::new(node));
    assert!(plan.table.is_some(), "{node} has a firewall");
    Arc::new(plan)
}

fn objects(pods: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web, namespace: apps, annotations: {{dualgate.dev/endpoints: '{pods}'}}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: apps, annotations: {{dualgate.dev/gates: external}}}}
spec: {{ingressClassName: traefik, defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}

/// One round: what had to change.
pub fn converge(firewall: &mut Firewall, desired: &Arc<FirewallPlan>) -> Result<Vec<String>, FirewallError> {
    now(async {
        let observed = firewall.observe().await?;
        let changes = Firewall::diff(&observed, desired);
        firewall.apply(desired, &changes).await?;
        Ok(changes.iter().map(ToString::to_string).collect())
    })
}

/// What is there is what was wanted.
#[track_caller]
pub fn settled(firewall: &mut Firewall, desired: &Arc<FirewallPlan>) {
    assert_eq!(converge(firewall, desired).expect("a round"), [""; 0]);
}

/// Runs what waits for nothing, or for the network.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A state directory, removed at the end.
pub struct State(PathBuf);

impl State {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dualgate-firewall-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
