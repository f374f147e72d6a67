//! What a large cluster costs: `cargo bench -p dualgate --bench scale -- --ingresses 10000 --endpoints 20000`.
//!
//! The pipeline of `run` in one process: a set of objects, its snapshot, lowering, the node's plan and a data plane that
//! serves it. Each kind of change is made many times; wall time and the CPU time of the whole process are told for each,
//! and where the time goes.

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use dualgate_core::check::objects::Lints;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{NodeName, Object, ObjectKey, ObjectSet, Site, Snapshot};
use dualgate_core::parse;
use dualgate_core::plan::Planner;
use dualgate_core::seam::Actuator as _;
use dualgate_proxy::Proxy;

use objects::{KeyPair, Size, parsed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often each kind of change is made.
const CHANGES: usize = 60;

fn main() -> anyhow::Result<()> {
    let size = arguments()?;
    let pairs = [key_pair()?, key_pair()?];
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(size, &pairs))
}

fn arguments() -> anyhow::Result<Size> {
    let mut size = Size { ingresses: 10_000, endpoints: 20_000, paths: 3, certificates: 100 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let place = match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => continue,
            "--ingresses" => &mut size.ingresses,
            "--endpoints" => &mut size.endpoints,
            "--paths" => &mut size.paths,
            "--certificates" => &mut size.certificates,
            other => bail!("`{other}` is none of --ingresses, --endpoints, --paths, --certificates"),
        };
        *place = arguments.next().and_then(|n| n.parse().ok()).with_context(|| format!("{argument} needs a number"))?;
    }
    Ok(size)
}

fn key_pair() -> anyhow::Result<KeyPair> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["*.example.org".to_owned()])?.self_signed(&key)?;
    let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    Ok(KeyPair { chain: encode(certificate.pem()), key: encode(key.serialize_pem()) })
}

const SITE: &str = "
apiVersion: dualgate.dev/v1alpha1
kind: Site
name: scale
nodes:
  - { name: home1, addresses: [127.0.0.1], roles: [internal-gate] }
gates:
  internal:
    addresses: [127.0.0.1]
    entryPoints:
      web: 18080
      websecure: { port: 18443, protocol: https }
ingressClasses: [{ name: dualgate, controller: dualgate.dev/ingress-controller }]
";

/// What runs.
struct Pipeline {
    site: Arc<Site>,
    node: NodeName,
    generation: u64,
    objects: Arc<ObjectSet>,
    planner: Planner,
    lints: Lints,
    proxy: Proxy,
    /// Time spent in each step, summed.
    steps: BTreeMap<&'static str, Duration>,
}

impl Pipeline {
    fn step<T>(&mut self, name: &'static str, run: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let result = run(self);
        *self.steps.entry(name).or_default() += start.elapsed();
        result
    }

    /// Replaces or removes objects, as a source does.
    fn change(&mut self, changes: Vec<(ObjectKey, Option<Arc<Object>>)>) {
        self.step("1 set", |this| {
            let mut objects = this.objects.objects.clone();
            for (key, object) in changes {
                match (objects.binary_search_by(|known| known.key.cmp(&key)), object) {
                    (Ok(at), Some(object)) => objects[at] = object,
                    (Ok(at), None) => drop(objects.remove(at)),
                    (Err(at), Some(object)) => objects.insert(at, object),
                    (Err(_), None) => {}
                }
            }
            this.objects = Arc::new(ObjectSet { objects, findings: Vec::new() });
        });
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        self.generation += 1;
        let snapshot = Snapshot {
            generation: Generation(self.generation),
            site: self.site.clone(),
            objects: self.objects.clone(),
            facts: Facts { now: 1_800_000_000, ..Facts::default() },
        };
        let plan = self.step("2 plan", |this| this.planner.plan(&snapshot, &this.node));
        let desired = Arc::new(plan.proxy);
        let start = Instant::now();
        let observed = self.proxy.observe().await?;
        let changes = Proxy::diff(&observed, &desired);
        *self.steps.entry("3 observe and diff").or_default() += start.elapsed();
        let start = Instant::now();
        self.proxy.apply(&desired, &changes).await?;
        *self.steps.entry("4 apply").or_default() += start.elapsed();
        self.step("5 drop", |_| drop((snapshot, desired, observed)));
        Ok(())
    }

    /// What looks for mistakes between objects, when changes rest.
    fn lint(&mut self) -> usize {
        let snapshot = Snapshot {
            generation: Generation(self.generation),
            site: self.site.clone(),
            objects: self.objects.clone(),
            facts: Facts { now: 1_800_000_000, ..Facts::default() },
        };
        self.step("6 lint", |this| this.lints.of(&snapshot, this.planner.lowered()).len())
    }
}

async fn run(size: Size, pairs: &[KeyPair]) -> anyhow::Result<()> {
    let (site, findings) = parse::site::site("site.yaml", SITE);
    let site = site.with_context(|| format!("the site: {findings:?}"))?;
    println!("empty: {}", memory());
    let proxy = Proxy::start(2)?;
    println!("data plane started: {}", memory());
    let start = Instant::now();
    let objects = Arc::new(size.objects(pairs));
    println!("parse {} objects: {:.1?}; {}", objects.objects.len(), start.elapsed(), memory());
    let mut pipeline = Pipeline {
        site: Arc::new(site),
        node: NodeName::new("home1"),
        generation: 0,
        objects,
        planner: Planner::default(),
        lints: Lints::default(),
        proxy,
        steps: BTreeMap::new(),
    };
    let (start, cpu) = (Instant::now(), cpu_time());
    pipeline.round().await?;
    println!("ready after the list: {:.1?} (CPU {:.1?}); {}", start.elapsed(), cpu_time() - cpu, memory());
    let findings = pipeline.lint();
    println!("{findings} findings; {}", memory());
    print_steps(&mut pipeline, 1);
    println!("\n{:24} {:>10} {:>10} {:>10} {:>10}  per change, ms", "", "wall p50", "wall p99", "CPU p50", "CPU p99");
    for kind in KINDS {
        measure(&mut pipeline, size, pairs, kind).await?;
    }
    println!("\nat the end: {}", memory());
    Ok(())
}

/// Makes the changes of application `number`, the `turn`th time.
type Change = fn(Size, &[KeyPair], usize, usize) -> (ObjectKey, Option<Arc<Object>>);

const KINDS: [(&str, Change); 5] = [
    ("endpoint goes or comes", |size, _, number, turn| put(parsed(&size.slice(number, 1 - turn % 2)))),
    ("path changes", |size, _, number, turn| put(parsed(&size.ingress(number, &format!("v{turn}"))))),
    ("Ingress goes", |size, _, number, _| (size.ingress_key(number), None)),
    ("Ingress comes", |size, _, number, _| put(parsed(&size.ingress(number, "api")))),
    ("certificate changes", |size, pairs, number, turn| {
        put(parsed(&size.secret(number % size.certificates.max(1), &pairs[1 - turn % 2])))
    }),
];

fn put(object: Arc<Object>) -> (ObjectKey, Option<Arc<Object>>) {
    (object.key.clone(), Some(object))
}

async fn measure(
    pipeline: &mut Pipeline,
    size: Size,
    pairs: &[KeyPair],
    (name, change): (&str, Change),
) -> anyhow::Result<()> {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    pipeline.steps.clear();
    for turn in 0..CHANGES {
        let number = turn * 7919 % size.ingresses;
        let change = change(size, pairs, number, turn);
        let (start, used) = (Instant::now(), cpu_time());
        pipeline.change(vec![change]);
        pipeline.round().await?;
        wall.push(start.elapsed());
        if turn % 10 == 0 {
            pipeline.lint();
        }
        cpu.push(cpu_time() - used);
    }
    wall.sort();
    cpu.sort();
    let milliseconds = |times: &[Duration], part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!(
        "{name:24} {:>10.2} {:>10.2} {:>10.2} {:>10.2}",
        milliseconds(&wall, 50),
        milliseconds(&wall, 99),
        milliseconds(&cpu, 50),
        milliseconds(&cpu, 99),
    );
    print_steps(pipeline, CHANGES);
    Ok(())
}

fn print_steps(pipeline: &mut Pipeline, changes: usize) {
    let steps = std::mem::take(&mut pipeline.steps);
    let each = |(name, time): (&str, Duration)| {
        let rounds = if name == "6 lint" { changes.div_ceil(10) } else { changes };
        format!("{name} {:.2}", time.as_secs_f64() * 1000.0 / rounds as f64)
    };
    println!("    {}", steps.into_iter().map(each).collect::<Vec<_>>().join(", "));
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory now and at most.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default() / 1000.0
    };
    format!("RSS {:.1} MB, peak {:.1} MB", field("VmRSS:"), field("VmHWM:"))
}
