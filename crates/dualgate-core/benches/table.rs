//! What building the table and asking it costs, and how that grows: `cargo bench -p dualgate-core --bench table`.
//!
//! The sizes are interleaved in rounds and the best round counts, so that a busy machine disturbs all alike.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::model::site::Reading;
use dualgate_core::model::{Created, HostPattern, ObjectName};
use dualgate_core::route::{Action, BackendIndex, EntryPointIndex, PathPattern, Route, RouteOrigin, RoutePart, Table};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 40_000];
const ROUNDS: usize = 10;
const LOOKUPS: usize = 100_000;
const HERE: EntryPointIndex = EntryPointIndex(0);

fn main() {
    let mut best = [[Duration::MAX; 3]; SIZES.len()];
    for _ in 0..ROUNDS {
        for (size, best) in SIZES.into_iter().zip(&mut best) {
            let routes: Vec<Arc<Route>> = routes(size).into_iter().map(Arc::new).collect();
            let start = now();
            let table = Table::new(routes);
            best[0] = best[0].min(start.elapsed());
            best[1] = best[1].min(time(|n| table.find(HERE, &host(n % size), "/api/v1/users/42").is_some()));
            best[2] = best[2].min(time(|n| table.find(HERE, &format!("no{n}.example.net"), "/").is_none()));
        }
    }
    println!("{:>7}  {:>10}  {:>12}  {:>13}", "hosts", "build", "found, each", "unknown, each");
    for (size, [build, found, unknown]) in SIZES.into_iter().zip(best) {
        let each = |time: Duration| time / u32::try_from(LOOKUPS).unwrap_or(u32::MAX);
        println!("{size:>7}  {build:>10.1?}  {:>12.1?}  {:>13.1?}", each(found), each(unknown));
    }
    println!("(three paths per host; a look-up includes writing the host's name)");
}

#[expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark does")]
fn now() -> Instant {
    Instant::now()
}

fn time(ask: impl Fn(usize) -> bool) -> Duration {
    let start = now();
    for number in 0..LOOKUPS {
        assert!(black_box(ask(black_box(number))));
    }
    start.elapsed()
}

fn host(number: usize) -> String {
    format!("app{number}.example.org")
}

fn routes(hosts: usize) -> Vec<Route> {
    let paths = ["/", "/api", "/static"];
    (0..hosts)
        .flat_map(|host| paths.into_iter().enumerate().map(move |(path, written)| route(host, path, written)))
        .collect()
}

fn route(number: usize, path: usize, written: &str) -> Route {
    Route {
        host: host(number).parse().unwrap_or(HostPattern::Any),
        path: PathPattern::Prefix { written: written.into() },
        entry_points: [HERE].into_iter().collect(),
        priority: None,
        origin: RouteOrigin {
            created: Created::UNKNOWN,
            ingress: ObjectName::new("default", format!("app{number}")),
            part: RoutePart::Path { rule: 0, path: u16::try_from(path).unwrap_or_default() },
            reading: Reading::Specification,
            service: "app".into(),
        },
        action: Action::Forward(BackendIndex(0)),
    }
}
