//! What a whole rebuild costs, from manifests to a node's plan: `cargo bench -p dualgate-core --bench plan`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use dualgate_core::case::{Case, Families};
use dualgate_core::check::objects;
use dualgate_core::model::NodeName;
use dualgate_core::{lower, plan};

const INGRESSES: usize = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let case = match Case::parse("bench", &manifests()) {
        Ok(case) => case,
        Err(error) => return eprintln!("{error}"),
    };
    let (snapshot, parse) = match time(|| case.snapshot(Families::Both)) {
        (Ok(snapshot), parse) => (snapshot, parse),
        (Err(error), _) => return eprintln!("{error}"),
    };
    let node = NodeName::new("home1");
    let mut best = [Duration::MAX; 3];
    for _ in 0..ROUNDS {
        let (lowered, took) = time(|| lower::snapshot(&snapshot));
        best[0] = best[0].min(took);
        best[1] = best[1].min(time(|| plan::select(&snapshot, &lowered, &node)).1);
        best[2] = best[2].min(time(|| objects::objects(&snapshot)).1);
    }
    println!("{INGRESSES} Ingresses with three paths, as many Services with a pod of both families:");
    println!("parse the manifests (YAML)  {parse:>10.1?}");
    for (what, took) in ["lower", "plan one node", "lint"].iter().zip(best) {
        println!("{what:26}  {took:>10.1?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark does")]
fn time<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn manifests() -> String {
    let mut text = "== services\n".to_owned();
    for number in 0..INGRESSES {
        _ = writeln!(text, "app{number} http=80");
    }
    text.push_str("== objects\n");
    for number in 0..INGRESSES {
        let path = |path: &str| {
            format!(
                "{{path: {path}, pathType: Prefix, backend: {{service: {{name: app{number}, port: {{name: http}}}}}}}}"
            )
        };
        _ = writeln!(
            text,
            "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: app{number}, namespace: default}}
spec: {{rules: [{{host: app{number}.example.org, http: {{paths: [{}, {}, {}]}}}}]}}",
            path("/"),
            path("/api"),
            path("/static")
        );
    }
    text
}
