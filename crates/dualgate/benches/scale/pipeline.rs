//! The pipeline of `run` in this process: a set of objects, its snapshot, lowering, the node's plan and a data plane that
//! serves it. For each kind of change it says where the time goes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::check::objects::Lints;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Interner, NodeName, Object, ObjectKey, ObjectSet, Site, Snapshot};
use dualgate_core::parse::object;
use dualgate_core::plan::Planner;
use dualgate_core::seam::Actuator as _;
use dualgate_proxy::Proxy;
use serde_json::Value;

use crate::objects::{Application, CHANGES, KeyPair, Size, class};
use crate::support::reserve;
use crate::{memory, milliseconds, site, site_text, spread, which};

/// Where the kernel tells of this process.
const OWN: &str = "/proc/self/status";

/// The time at which everything happens, in seconds since 1970.
const NOW: i64 = 1_800_000_000;

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
            facts: Facts { now: NOW, ..Facts::default() },
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
            facts: Facts { now: NOW, ..Facts::default() },
        };
        self.step("6 lint", |this| this.lints.of(&snapshot, this.planner.lowered()).len())
    }
}

/// Runs it, and prints.
pub async fn run(size: Size, pairs: &[KeyPair; 2]) -> anyhow::Result<()> {
    let [web, websecure, admin] = [(); 3].map(|()| reserve(Ipv4Addr::LOCALHOST.into()));
    let site = site(&site_text(&web, &websecure, &admin))?;
    println!("empty: {}", memory(OWN));
    let proxy = Proxy::start(2)?;
    println!("data plane started: {}", memory(OWN));
    let start = Instant::now();
    let objects = Arc::new(objects(size, pairs));
    println!("parse {} objects: {:.1?}; {}", objects.objects.len(), start.elapsed(), memory(OWN));
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
    println!("ready after the list: {:.1?} (CPU {:.1?}); {}", start.elapsed(), cpu_time() - cpu, memory(OWN));
    let findings = pipeline.lint();
    println!("{findings} findings; {}", memory(OWN));
    print_steps(&mut pipeline, 1);
    for change in &CHANGES {
        let edit = |turn: usize| {
            let number = which(turn, size);
            let before = size.application(number, None);
            let mut after = before.clone();
            (change.make)(&mut after);
            if turn.is_multiple_of(2) { edits(&before, &after) } else { edits(&after, &before) }
        };
        measure(&mut pipeline, size, change.name, edit).await?;
    }
    let rotate = |turn: usize| {
        let secret = parsed(&size.secret(which(turn, size) % size.certificates, &pairs[1 - turn % 2]));
        vec![(secret.key.clone(), Some(secret))]
    };
    measure(&mut pipeline, size, "a Secret is rotated", rotate).await?;
    println!("at the end: {}", memory(OWN));
    Ok(())
}

/// Every object, sorted by key.
fn objects(size: Size, pairs: &[KeyPair; 2]) -> ObjectSet {
    let mut texts = Interner::default();
    let mut parsed = |value: &Value| {
        let mut object = parsed(value);
        Arc::make_mut(&mut object).intern(&mut texts);
        object
    };
    let mut objects = vec![parsed(&class())];
    objects.extend(size.secrets(&pairs[0]).map(|secret| parsed(&secret)));
    for number in 0..size.ingresses {
        objects.extend(size.application(number, None).objects().map(&mut parsed));
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    ObjectSet { objects, findings: Vec::new() }
}

/// As a source parses what an API server says.
fn parsed(value: &Value) -> Arc<Object> {
    let mut parsed = object::object(value, None);
    assert!(parsed.objects.len() == 1 && parsed.findings.is_empty(), "{:?} in {value}", parsed.findings);
    Arc::new(parsed.objects.remove(0))
}

type Edit = (ObjectKey, Option<Arc<Object>>);

/// What makes one of the other.
fn edits(before: &Application, after: &Application) -> Vec<Edit> {
    let is_new = |value: &&Value| !before.objects().any(|other| other == *value);
    let mut edits: Vec<Edit> = after.objects().filter(is_new).map(parsed).map(|o| (o.key.clone(), Some(o))).collect();
    if after.ingress.is_none() {
        edits.extend(before.ingress.iter().map(|gone| (parsed(gone).key.clone(), None)));
    }
    edits
}

async fn measure(
    pipeline: &mut Pipeline,
    size: Size,
    name: &str,
    edit: impl Fn(usize) -> Vec<Edit>,
) -> anyhow::Result<()> {
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    pipeline.steps.clear();
    for turn in 0..size.changes {
        let edit = edit(turn);
        let (start, used) = (Instant::now(), cpu_time());
        pipeline.change(edit);
        pipeline.round().await?;
        walls.push(start.elapsed());
        // As with changes that are far from each other.
        pipeline.lint();
        cpus.push(cpu_time() - used);
    }
    println!("{name}: wall {}; CPU {}", spread(&mut walls), spread(&mut cpus));
    print_steps(pipeline, size.changes);
    Ok(())
}

fn print_steps(pipeline: &mut Pipeline, changes: usize) {
    let steps = std::mem::take(&mut pipeline.steps);
    let each = |(name, time): (&str, Duration)| format!("{name} {:.2}", milliseconds(time) / changes as f64);
    println!("    {}", steps.into_iter().map(each).collect::<Vec<_>>().join(", "));
}

/// CPU time of this process, all threads.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
