//! What assigning addresses costs: `cargo bench -p dualgate-core --bench ipam`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::case::{Case, Families};
use dualgate_core::model::Snapshot;
use dualgate_core::plan::ipam::assign;

const SERVICES: usize = 10_000;
const ROUNDS: usize = 20;

fn main() {
    println!("{SERVICES} Services of type LoadBalancer in both families:");
    let plenty = "10.99.0.0/16, 'fda8::/64'";
    row("everybody is new", plenty, "");
    row("everybody shares one port's addresses", plenty, "dualgate.dev/allow-shared-ip: k");
    row("nobody finds one", "10.99.0.1, 'fda8::1'", "");
}

/// A first round, and one in which everybody keeps what it has.
fn row(what: &str, pool: &str, annotation: &str) {
    let snapshot = Case::parse("bench", &case(pool, annotation)).map(|case| case.snapshot(Families::Both));
    let mut snapshot: Snapshot = match snapshot {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => return eprintln!("{error}"),
        Err(error) => return eprintln!("{error}"),
    };
    let first = best(&snapshot);
    snapshot.facts.assigned = Arc::new(assign(&snapshot).assignments);
    let kept = best(&snapshot);
    let count = snapshot.facts.assigned.iter().count();
    println!("{what:38} {count:>6} have one   {first:>9.1?}   again {kept:>9.1?}");
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark does")]
fn best(snapshot: &Snapshot) -> Duration {
    let time = |_| {
        let start = Instant::now();
        std::hint::black_box(assign(snapshot));
        start.elapsed()
    };
    (0..ROUNDS).map(time).min().unwrap_or_default()
}

fn case(pool: &str, annotation: &str) -> String {
    let mut text = format!(
        "== site
apiVersion: dualgate.dev/v1alpha1
kind: Site
lan: {{subnets: [10.0.0.0/8, 'fda8::/64']}}
nodes: [{{name: node1, roles: [internal-gate, virtual-ips], addresses: [10.0.0.5, 'fda8::5']}}]
gates: {{internal: {{addresses: [10.0.0.10, 'fda8::10']}}}}
pools: [{{name: home, addresses: [{pool}]}}]
== objects
"
    );
    for number in 0..SERVICES {
        _ = writeln!(
            text,
            "---
apiVersion: v1
kind: Service
metadata: {{name: app{number}, namespace: default, annotations: {{{annotation}}}}}
spec: {{type: LoadBalancer, ipFamilyPolicy: PreferDualStack, ports: [{{port: 80}}]}}"
        );
    }
    text
}
