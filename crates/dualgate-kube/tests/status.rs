//! Several writers on one API server: what is written, by whom, and how often; over real HTTP.

use std::future::Future;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_apiserver::{ApiServer, Options, Refusal, Request, Verb};
use dualgate_core::model::finding::{Code, Finding, Place};
use dualgate_core::model::{NodeName, ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse::object::object;
use dualgate_core::plan::cluster::ClusterPlan;
use dualgate_kube::access::{Access, client};
use dualgate_kube::install::take_back;
use dualgate_kube::status::{Handle, View, Wanted, writer};
use serde_json::{Value, json};

/// No wait may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// An API server with the namespace of dualgate, and what is planned for it.
struct Cluster {
    server: ApiServer,
    kubeconfig: PathBuf,
    told: Arc<Told>,
}

/// What the rivers of all nodes know.
#[derive(Default)]
struct Told {
    plan: Mutex<ClusterPlan>,
    findings: Mutex<Vec<Finding>>,
    changes: AtomicU64,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = ApiServer::start(vec![listener], Options::default()).unwrap();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dualgate-system"}});
        server.objects().create(namespace).unwrap();
        let kubeconfig = std::env::temp_dir().join(format!("dualgate-status-{name}-{}", std::process::id()));
        std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        Self { server, kubeconfig, told: Arc::default() }
    }

    fn ingress(&self, name: &str) {
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": "default"},
            "spec": {"rules": [{"host": "a.example.org", "http": {"paths": [{
                "path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"number": 80}}},
            }]}}]},
        });
        self.server.objects().apply(ingress).unwrap();
    }

    /// Plans these addresses for an Ingress; none is no plan.
    fn plan(&self, name: &str, addresses: &[&str]) {
        let addresses: Arc<[IpAddr]> = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
        let mut plan = lock(&self.told.plan);
        match addresses.is_empty() {
            true => drop(plan.ingresses.remove(&ObjectName::new("default", name))),
            false => drop(plan.ingresses.insert(ObjectName::new("default", name), addresses)),
        }
        drop(plan);
        self.told.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn find(&self, findings: Vec<Finding>) {
        *lock(&self.told.findings) = findings;
        self.told.changes.fetch_add(1, Ordering::SeqCst);
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        let ingress = self.server.objects().get("Ingress", "default", name).unwrap();
        let entries = ingress["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn wait_for_addresses(&self, name: &str, addresses: &[&str]) {
        wait(&format!("{name} with {addresses:?}"), || (self.addresses(name) == addresses).then_some(()));
    }

    fn count(&self, fits: impl Fn(&Request) -> bool) -> usize {
        self.server.count(fits)
    }

    fn writes(&self) -> usize {
        self.count(|request| request.verb == Verb::Apply && request.subresource == "status" && request.has_written())
    }

    fn holder(&self) -> String {
        let lease = self.server.objects().get("Lease", "dualgate-system", "dualgate");
        let holder = lease.as_ref().and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default();
        holder.rsplit_once('_').map_or(holder, |(node, _)| node).to_owned()
    }

    fn start(&self, node: &str) -> Node {
        let access = Access { kubeconfig: Some(self.kubeconfig.clone()), context: None };
        let (handle, writer) = writer(access, &NodeName::new(node));
        let (view, control) = (handle.view(), Arc::new(Control::default()));
        let (told, objects, shared) = (self.told.clone(), self.server.objects(), control.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let task = tokio::spawn(Freezing { inner: Box::pin(writer.run()), control: shared.clone() });
                river(&handle, &told, &|| set(&objects), &shared).await;
                if shared.leaves.load(Ordering::SeqCst) {
                    handle.leave().await;
                    assert!(task.is_finished(), "it has not left");
                }
            });
            // A writer that was killed is dropped here, in the middle of whatever it did.
        });
        Node { view, control, thread: Some(thread) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

/// A node's river and writer, on a thread of their own.
struct Node {
    view: View,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Control {
    ends: AtomicBool,
    leaves: AtomicBool,
    frozen: AtomicBool,
}

impl Node {
    fn kill(&mut self) {
        self.control.ends.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }

    fn leave(&mut self) {
        self.control.leaves.store(true, Ordering::SeqCst);
        self.kill();
    }

    fn holds(&self) -> bool {
        self.view.report().holds_seconds.is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.control.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A future that is not polled while it is frozen, as in a process that is stopped.
struct Freezing<F> {
    inner: Pin<Box<F>>,
    control: Arc<Control>,
}

impl<F: Future<Output = ()>> Future for Freezing<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.control.frozen.load(Ordering::SeqCst) {
            return self.inner.as_mut().poll(context);
        }
        let waker = context.waker().clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            waker.wake();
        });
        Poll::Pending
    }
}

/// Says what differs whenever the plan, the objects or the reign have changed.
async fn river(handle: &Handle, told: &Told, objects: &dyn Fn() -> ObjectSet, control: &Control) {
    let mut known = None;
    while !control.ends.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let Some(reign) = handle.reign().filter(|_| !control.frozen.load(Ordering::SeqCst)) else {
            known = None;
            continue;
        };
        let (objects, changes) = (objects(), told.changes.load(Ordering::SeqCst));
        let now = (reign, changes, objects.objects.clone());
        if known.as_ref() != Some(&now) {
            known = Some(now);
            let writes = Arc::new(lock(&told.plan).diff(&objects));
            let findings = Arc::new(lock(&told.findings).clone());
            handle.want(Wanted { reign, writes, findings, objects: Arc::new(objects) });
        }
    }
}

fn set(objects: &dualgate_apiserver::Objects) -> ObjectSet {
    let all = ["Ingress", "Service", "Node"].into_iter().flat_map(|kind| objects.list(kind, None));
    let mut objects: Vec<_> = all.flat_map(|value| object(&value, None).objects).map(Arc::new).collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    ObjectSet { objects, findings: Vec::new() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[track_caller]
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn holder(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(Node::holds)
}

const BOTH: [&str; 2] = ["192.168.178.10", "fda8:a1db:5685::10"];
const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];

#[test]
fn one_of_three_writes_each_change_once_and_takes_back_what_is_not_planned_any_more() {
    let cluster = Cluster::new("three");
    for name in ["a", "b", "other"] {
        cluster.ingress(name);
    }
    let entry = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}});
    cluster.server.objects().as_manager("nginx").patch_status("Ingress", "default", "other", entry).unwrap();
    let other = cluster.server.objects().get("Ingress", "default", "other").unwrap();
    cluster.plan("a", &BOTH);
    let _nodes = ["home1", "home2", "home3"].map(|node| cluster.start(node));
    cluster.wait_for_addresses("a", &BOTH);
    cluster.plan("b", &PUBLIC);
    cluster.wait_for_addresses("b", &PUBLIC);
    cluster.plan("a", &PUBLIC);
    cluster.wait_for_addresses("a", &PUBLIC);
    cluster.plan("a", &[]);
    cluster.wait_for_addresses("a", &[]);
    cluster.plan("b", &[]);
    cluster.wait_for_addresses("b", &[]);
    assert_eq!(cluster.writes(), 5, "one for each change");
    assert_eq!(cluster.server.objects().get("Ingress", "default", "other").unwrap(), other, "it is another one's");
    let managed = cluster.server.objects().get("Ingress", "default", "a").unwrap();
    assert!(!managed["metadata"]["managedFields"].to_string().contains("\"dualgate\""), "{managed:#}");
    let forced = cluster.count(|request| request.query.contains("force=true"));
    assert_eq!(forced, 0);
}

#[test]
fn a_holder_that_leaves_is_followed_at_once() {
    let cluster = Cluster::new("leaves");
    cluster.ingress("a");
    let mut nodes = ["home1", "home2"].map(|node| cluster.start(node));
    let first = wait("a holder", || holder(&nodes));
    nodes[first].leave();
    assert_ne!(cluster.holder(), format!("home{}", first + 1));
    cluster.plan("a", &BOTH);
    let left = Instant::now();
    cluster.wait_for_addresses("a", &BOTH);
    // Its Lease would have lasted for 15 s.
    assert!(left.elapsed() < Duration::from_secs(12), "{:?}", left.elapsed());
    assert_eq!((cluster.writes(), cluster.holder()), (1, format!("home{}", 2 - first)));
}

#[test]
fn a_holder_that_is_killed_or_frozen_is_followed_after_its_lease_and_writes_nothing_when_it_wakes_up() {
    let cluster = Cluster::new("frozen");
    cluster.ingress("a");
    let mut nodes = ["home1", "home2", "home3"].map(|node| cluster.start(node));
    let first = wait("a holder", || holder(&nodes));
    nodes[first].control.frozen.store(true, Ordering::SeqCst);
    cluster.plan("a", &BOTH);
    cluster.wait_for_addresses("a", &BOTH);
    let second = wait("another holder", || (0..3).find(|node| *node != first && nodes[*node].holds()));
    nodes[first].control.frozen.store(false, Ordering::SeqCst);
    wait("the first one sees it", || (!nodes[first].holds()).then_some(()));
    cluster.plan("a", &PUBLIC);
    cluster.wait_for_addresses("a", &PUBLIC);
    assert_eq!((cluster.writes(), cluster.holder()), (2, format!("home{}", second + 1)));
    nodes[second].kill();
    cluster.plan("a", &BOTH);
    cluster.wait_for_addresses("a", &BOTH);
    assert_eq!(cluster.writes(), 3);
}

#[test]
fn what_another_controller_wrote_is_replaced_once_and_what_it_sets_back_is_left_to_it() {
    let cluster = Cluster::new("contest");
    cluster.ingress("a");
    let traefik = cluster.server.objects().as_manager("traefik");
    let theirs = json!({"loadBalancer": {"ingress": [{"ip": "192.168.178.1"}]}});
    traefik.patch_status("Ingress", "default", "a", theirs.clone()).unwrap();
    cluster.plan("a", &BOTH);
    let nodes = ["home1", "home2"].map(|node| cluster.start(node));
    cluster.wait_for_addresses("a", &BOTH);
    wait("it stands", || (nodes[holder(&nodes)?].view.report().wanted == 0).then_some(()));
    traefik.patch_status("Ingress", "default", "a", theirs).unwrap();
    let contested = wait("a finding", || {
        let view = &nodes[holder(&nodes)?].view;
        let found = view.findings().into_iter().find(|finding| finding.code == Code::StatusContested);
        found.map(|finding| (finding, view.report()))
    });
    assert!(contested.0.message.contains("`traefik`"), "{}", contested.0);
    assert_eq!((contested.1.set_back, contested.1.contests.len()), (1, 1));
    assert_eq!((cluster.addresses("a"), cluster.writes()), (vec!["192.168.178.1".to_owned()], 1));
    assert_eq!(cluster.count(|request| request.query.contains("force=true")), 1);
}

#[test]
fn an_api_server_that_is_away_or_busy_is_asked_now_and_then_and_told_everything_in_the_end() {
    let cluster = Cluster::new("away");
    for name in ["a", "b", "c"] {
        cluster.ingress(name);
    }
    let nodes = ["home1", "home2"].map(|node| cluster.start(node));
    wait("a holder", || holder(&nodes));
    let refusal =
        |code, times| Refusal { code, retry_after: None, verb: Some(Verb::Apply), path: String::new(), times };
    for code in [500, 503] {
        cluster.server.faults().refuse(refusal(code, 2));
    }
    cluster.server.faults().refuse(Refusal { retry_after: Some(1), ..refusal(429, 1) });
    cluster.server.faults().refuse(refusal(409, 1));
    for name in ["a", "b", "c"] {
        cluster.plan(name, &BOTH);
    }
    for name in ["a", "b", "c"] {
        cluster.wait_for_addresses(name, &BOTH);
    }
    let failed = cluster.count(|request| request.verb == Verb::Apply && !request.has_written());
    assert_eq!((cluster.writes(), failed), (3, 6));
    cluster.server.faults().down();
    cluster.plan("a", &PUBLIC);
    // By a write that fails, or by the Lease that nobody holds any more.
    let fails = |node: &Node| node.view.report().failed > 6;
    wait("it is noticed", || (nodes.iter().any(fails) || holder(&nodes).is_none()).then_some(()));
    cluster.server.faults().up();
    cluster.wait_for_addresses("a", &PUBLIC);
    assert_eq!(cluster.writes(), 4);
}

#[test]
fn what_is_not_allowed_is_a_finding_that_names_verb_and_resource() {
    let cluster = Cluster::new("forbidden");
    cluster.ingress("a");
    cluster.plan("a", &BOTH);
    let forbid = |verb, path: &str, times| {
        cluster.server.faults().refuse(Refusal {
            code: 403,
            retry_after: None,
            verb: Some(verb),
            path: path.into(),
            times,
        });
    };
    forbid(Verb::Create, "leases", 2);
    let nodes = [cluster.start("home1")];
    let found = |text: &str| {
        wait(text, || nodes[0].view.findings().into_iter().find(|finding| finding.message.contains(text)));
    };
    found("`create` `leases`");
    forbid(Verb::Apply, "ingresses", 3);
    found("`patch` `ingresses/status`");
    cluster.wait_for_addresses("a", &BOTH);
    wait("nothing is wrong any more", || nodes[0].view.findings().is_empty().then_some(()));
    forbid(Verb::Create, "events", 1);
    cluster.find(vec![missing_service()]);
    found("`create` `events`");
    wait("the Event", || (cluster.server.objects().list("Event", None).len() == 1).then_some(()));
}

#[test]
fn a_namespace_that_is_missing_is_told_and_waited_for() {
    let cluster = Cluster::new("namespace");
    cluster.server.objects().delete("Namespace", "", "dualgate-system").unwrap();
    let nodes = [cluster.start("home1")];
    wait("a finding", || {
        nodes[0].view.findings().into_iter().find(|finding| finding.help.contains("dualgate install"))
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dualgate-system"}});
    cluster.server.objects().create(namespace).unwrap();
    wait("a holder", || holder(&nodes));
}

fn missing_service() -> Finding {
    let key = ObjectKey { kind: "Ingress".into(), name: ObjectName::new("default", "a") };
    let place = Place::field(&key, "spec.rules[0].http.paths[0].backend");
    Finding::new(Code::IngressUnknownService, place, "there is no Service `a`").help("make it")
}

#[test]
fn findings_become_events_that_describe_finds_and_a_successor_does_not_repeat() {
    let cluster = Cluster::new("events");
    cluster.ingress("a");
    cluster.find(vec![missing_service(), missing_service()]);
    let mut nodes = ["home1", "home2"].map(|node| cluster.start(node));
    let event = wait("the Event", || cluster.server.objects().list("Event", Some("default")).pop());
    let uid = cluster.server.objects().get("Ingress", "default", "a").unwrap()["metadata"]["uid"].clone();
    let involved = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "default", "name": "a", "uid": uid,
    });
    assert_eq!((&event["involvedObject"], &event["type"]), (&involved, &Value::from("Warning")));
    assert_eq!(event["reason"], "IngressUnknownService");
    let first = wait("the holder", || holder(&nodes));
    nodes[first].leave();
    let path = "/api/v1/namespaces/default/events";
    wait("its successor tries", || {
        (cluster.count(|request| request.path == path && request.verb == Verb::Create) == 2).then_some(())
    });
    let events = cluster.server.objects().list("Event", None);
    assert_eq!(events.len(), 1, "{events:#?}");
}

impl Cluster {
    /// What is not taken back within the patience; `hear` is told what it waits for and does.
    fn take_back(&self, patience: Duration, hear: impl FnMut(String)) -> Vec<String> {
        let access = Access { kubeconfig: Some(self.kubeconfig.clone()), context: None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = client(&access).await.unwrap();
            take_back(&access, &client, patience, hear).await.unwrap()
        })
    }
}

#[test]
fn what_is_taken_back_is_not_written_again_by_a_node_that_still_runs() {
    let cluster = Cluster::new("back");
    for name in ["a", "b"] {
        cluster.ingress(name);
        cluster.plan(name, &BOTH);
    }
    let mut nodes = ["home1", "home2"].map(|node| cluster.start(node));
    cluster.wait_for_addresses("b", &BOTH);
    let first = wait("a holder", || holder(&nodes));
    let holds = format!("home{}", first + 1);
    let mut told = Vec::new();
    let left = cluster.take_back(Duration::from_secs(4), |line| told.push(line));
    assert_eq!(told, [format!("waiting until `{holds}` does not write statuses any more")]);
    let still = |name: &str| {
        format!("Ingress default/{name}: `{holds}` still writes it: end dualgate there, and uninstall again")
    };
    assert_eq!(left, [still("a"), still("b")]);
    assert_eq!((cluster.addresses("a"), cluster.holder()), (BOTH.map(str::to_owned).to_vec(), holds));

    nodes[1 - first].kill();
    told.clear();
    let (waits, waiting) = mpsc::sync_channel(1);
    let left = std::thread::scope(|scope| {
        scope.spawn(move || {
            waiting.recv().unwrap();
            nodes[first].leave();
        });
        cluster.take_back(LIMIT, |line| {
            told.push(line);
            // Once is enough.
            let _ = waits.try_send(());
        })
    });
    assert_eq!((left, told.last().map(String::as_str)), (vec![], Some("taking back what was written into 2 objects")));
    assert_eq!((cluster.addresses("a"), cluster.addresses("b")), (vec![], vec![]));
    assert_eq!(cluster.server.objects().get("Lease", "dualgate-system", "dualgate"), None);
}

#[test]
fn what_the_api_server_refuses_is_left_and_told_and_all_else_is_taken_back() {
    let cluster = Cluster::new("refuses");
    for name in ["a", "b"] {
        cluster.ingress(name);
        cluster.plan(name, &BOTH);
    }
    let mut node = cluster.start("home1");
    cluster.wait_for_addresses("a", &BOTH);
    cluster.wait_for_addresses("b", &BOTH);
    node.leave();
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/a/status".to_owned();
    cluster.server.faults().refuse(Refusal { verb: Some(Verb::Apply), path, times: usize::MAX, ..Refusal::once(422) });
    let left = cluster.take_back(Duration::from_secs(5), drop);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("Ingress default/a: the API server refuses what is to be written"), "{left:?}");
    assert_eq!((cluster.addresses("a"), cluster.addresses("b")), (BOTH.map(str::to_owned).to_vec(), vec![]));
}
