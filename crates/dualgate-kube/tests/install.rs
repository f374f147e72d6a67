//! Installing into an API server: what it writes, what it leaves alone, and what it makes of its own interrupted work.
//!
//! With `KUBECONFIG`, what needs no server that fails at a word is told in that cluster as well, if dualgate is not installed
//! there: one story after the other, as all need the same namespace. Its nodes have no such names, so no pod starts, and
//! everything is removed at the end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dualgate_apiserver::{ApiServer, Options as ServerOptions, Refusal, Verb};
use dualgate_core::model::NodeName;
use dualgate_core::parse::site;
use dualgate_core::plan::install::apply_set::{Inventory, PARENT, PART_OF, id as set_id};
use dualgate_core::plan::install::changes::{Action, Line};
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{HOME, NAMESPACE, Options, install};
use dualgate_kube::Client;
use dualgate_kube::access::{Access, client};
use dualgate_kube::install::{Conflicts, InstallError, Look, Prune, Step, apply, look, wait};
use http::Request;
use kube::client::Body;
use serde_json::{Value, json};

const SITE: &str = "apiVersion: dualgate.dev/v1alpha1
kind: Site
gates: {internal: {}, external: {}}
ingressClasses: [{name: dualgate-test}]
nodes:
  - {name: dualgate-test-home, roles: [server, internal-gate], addresses: [192.168.178.5]}
  - {name: dualgate-test-edge, roles: [agent, external-gate], addresses: [10.44.0.2], publicAddresses: [192.0.2.1]}
";

/// How long anything may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(120);

/// With the edge as a pod, or without.
fn objects(image: &str, edges: &[&str]) -> Vec<Value> {
    let (site, findings) = site::site("site.yaml", SITE);
    let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
    let edges = edges.iter().map(|name| NodeName::new(*name)).collect();
    let options = Options { image: image.to_owned(), site_file: SITE.to_owned(), edges, services: Vec::new() };
    install(&site, &options).expect("it can be installed").objects
}

fn all() -> Vec<Value> {
    objects("dualgate:1", &["dualgate-test-edge"])
}

fn without_edge() -> Vec<Value> {
    objects("dualgate:1", &[])
}

fn ids(objects: &[Value]) -> Vec<ObjectId> {
    objects.iter().map(|object| ObjectId::of(object).expect("a known kind")).collect()
}

fn start() -> ApiServer {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    ApiServer::start(vec![listener], ServerOptions::default()).expect("an API server")
}

/// A kubeconfig that goes away with its test.
struct Kubeconfig(PathBuf);

impl Kubeconfig {
    fn of(server: &ApiServer) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dualgate-install-{}-{number}", std::process::id()));
        std::fs::write(&path, server.kubeconfig()).expect("write a kubeconfig");
        Self(path)
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Somebody else at the same cluster.
struct Other(Client);

impl Other {
    async fn ask(&self, method: &str, path: &str, kind: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body));
        let answer = self.0.send(request.expect("a request")).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await.expect("a whole answer");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn create(&self, object: Value) {
        let path = ObjectId::of(&object).expect("a known kind").path();
        let (list, _) = path.rsplit_once('/').expect("a path");
        let (status, said) = self.ask("POST", list, "application/json", &object).await;
        assert_eq!(status, 201, "{list}: {said}");
    }

    /// Server-side apply by force.
    async fn apply(&self, manager: &str, object: Value) {
        let path = ObjectId::of(&object).expect("a known kind").path();
        let path = format!("{path}?fieldManager={manager}&force=true");
        let (status, said) = self.ask("PATCH", &path, "application/apply-patch+yaml", &object).await;
        assert!(status < 300, "{path}: {status} {said}");
    }

    async fn get(&self, id: &ObjectId) -> Option<Value> {
        let (status, found) = self.ask("GET", &id.path(), "application/json", &Value::Null).await;
        (status == 200).then_some(found)
    }

    async fn delete(&self, id: &ObjectId) {
        let (status, said) = self.ask("DELETE", &id.path(), "application/json", &Value::Null).await;
        assert!(status < 300, "{id}: {said}");
        self.gone(id).await;
    }

    async fn gone(&self, id: &ObjectId) {
        while self.get(id).await.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// An object of the installation with its edge.
fn id(kind: &str, name: &str) -> ObjectId {
    let found = ids(&all()).into_iter().find(|id| id.kind == kind && id.name == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Runs a story in a cluster of its own, and in the one of `KUBECONFIG`.
fn everywhere<F: Future<Output = ()> + 'static>(name: &str, tell: impl Fn(Client) -> F) {
    story(|server, client| {
        let told = tell(client);
        async move {
            let _serving = server;
            told.await;
        }
    });
    if std::env::var_os("KUBECONFIG").is_none() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    run(async {
        let client = client(&Access::default()).await.expect("a client of the cluster that KUBECONFIG names");
        let other = Other(client.clone());
        if other.get(&id("Namespace", NAMESPACE)).await.is_some() {
            return println!("SKIPPED: install::{name}: dualgate is installed there");
        }
        let tasks = tokio::task::LocalSet::new();
        let told = tasks.spawn_local(tell(client.clone()));
        let told = tasks.run_until(told).await;
        // Whatever came of it.
        for id in ids(&all()).iter().rev() {
            if other.get(id).await.is_some() {
                other.delete(id).await;
            }
        }
        if let Err(failed) = told {
            std::panic::resume_unwind(failed.into_panic());
        }
    });
}

/// All of them need the one namespace.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a story against a server of its own.
fn story<F: Future>(tell: impl FnOnce(ApiServer, Client) -> F) -> F::Output {
    run(async {
        let server = start();
        let file = Kubeconfig::of(&server);
        let client = client(&Access { kubeconfig: Some(file.0.clone()), context: None }).await.expect("a client");
        tell(server, client).await
    })
}

fn run<F: Future>(story: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, story).await.expect("it comes to an end") })
}

async fn look_at(client: &Client, objects: &[Value]) -> Look {
    look(client, objects, Conflicts::Refuse).await.expect("the server can be asked")
}

async fn install_all(client: &Client, objects: &[Value], prune: Prune) -> Vec<Step> {
    let mut steps = Vec::new();
    let found = look_at(client, objects).await;
    let done = apply(client, objects, found, prune, Conflicts::Refuse, |step| steps.push(step.clone())).await;
    done.expect("it is applied");
    steps
}

/// What the inventory of the cluster names.
fn inventory(server: &ApiServer) -> Inventory {
    let parent = server.objects().get("ConfigMap", NAMESPACE, PARENT).expect("a parent");
    Inventory::read(&parent).expect("its inventory")
}

fn is_there(server: &ApiServer, id: &ObjectId) -> bool {
    server.objects().get(&id.kind, &id.namespace, &id.name).is_some()
}

fn really_written(server: &ApiServer) -> Vec<String> {
    let written = |request: &&dualgate_apiserver::Request| request.has_written() && !request.query.contains("dryRun");
    server.requests().iter().filter(written).map(|request| request.path.clone()).collect()
}

async fn whole(client: Client) {
    let (first, second) = (all(), objects("dualgate:2", &[]));
    let found = look_at(&client, &first).await;
    let expected: Vec<_> = ids(&first).into_iter().map(|id| (id, Action::Create)).collect();
    let changes: Vec<_> = found.changes.iter().map(|change| (change.id.clone(), change.action)).collect();
    assert_eq!(changes, expected);
    let steps = install_all(&client, &first, Prune::Nothing).await;
    assert_eq!(steps, ids(&first).into_iter().map(Step::Created).collect::<Vec<_>>());

    let again = look_at(&client, &first).await;
    assert!(again.is_as_wanted() && !again.is_interrupted(), "{again:#?}");
    assert_eq!((again.unchanged, again.leftovers.len()), (first.len(), 0));

    let changed = look_at(&client, &second).await;
    let lines: Vec<&Line> = changed.changes.iter().flat_map(|change| &change.lines).collect();
    let expected = [("Gone", "dualgate:1"), ("Come", "dualgate:2")];
    let images: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Gone(text) => Some(("Gone", text.split("image: ").nth(1)?.trim_matches('"'))),
            Line::Come(text) => Some(("Come", text.split("image: ").nth(1)?.trim_matches('"'))),
            Line::Same(_) | Line::Skipped => None,
        })
        .collect();
    assert_eq!((changed.changes.len(), &images[..]), (1, &expected[..]), "{lines:#?}");
    let names: Vec<&str> = changed.leftovers.iter().map(|id| &*id.kind).collect();
    assert_eq!(names, ["DaemonSet", "ServiceAccount"], "{:?}", changed.leftovers);

    let steps = install_all(&client, &second, Prune::Nothing).await;
    assert!(matches!(&steps[..], [Step::Updated(id)] if id.name == HOME), "{steps:?}");
    assert_eq!(look_at(&client, &second).await.leftovers.len(), 2, "what is not removed is not forgotten");
    let steps = install_all(&client, &second, Prune::Unprotected).await;
    assert_eq!(steps, changed.leftovers.into_iter().map(Step::Deleted).collect::<Vec<_>>());
    let again = look_at(&client, &second).await;
    assert!(again.is_as_wanted() && !again.is_interrupted() && again.leftovers.is_empty(), "{again:#?}");

    let steps = install_all(&client, &[], Prune::Unprotected).await;
    assert_eq!(steps.len(), second.len() - 1, "all but the namespace: {steps:?}");
    let left = look_at(&client, &[]).await;
    assert_eq!(left.leftovers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Namespace dualgate-system"]);
    install_all(&client, &[], Prune::Everything).await;
}

#[test]
fn a_site_is_installed_changed_and_removed() {
    everywhere("a_site_is_installed_changed_and_removed", |client| async move {
        whole(client.clone()).await;
        Other(client).gone(&id("Namespace", NAMESPACE)).await;
    });
}

#[test]
fn nothing_is_written_when_nothing_differs_or_nobody_has_agreed() {
    story(|server, client| async move {
        look_at(&client, &all()).await;
        assert_eq!(really_written(&server), Vec::<String>::new());
        install_all(&client, &all(), Prune::Nothing).await;
        server.forget_requests();
        let steps = install_all(&client, &all(), Prune::Everything).await;
        assert_eq!((steps, really_written(&server)), (vec![], vec![]));
    });
}

#[test]
fn what_others_have_stays_whatever_its_labels_say() {
    everywhere("what_others_have_stays_whatever_its_labels_say", |client| async move {
        let other = Other(client.clone());
        install_all(&client, &all(), Prune::Nothing).await;
        let labels = json!({PART_OF: set_id()});
        let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE, "labels": labels});
        let foreign =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "metadata": metadata("foreign")});
        let edge = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("dualgate-edge")});
        let [foreign_id, edge_id] = [&foreign, &edge].map(|object| ObjectId::of(object).expect("a known kind"));
        // A controller has copied the label.
        other.create(foreign).await;
        // Somebody has made anew what we made, with the label and all.
        other.delete(&edge_id).await;
        other.create(edge).await;
        let steps = install_all(&client, &without_edge(), Prune::Everything).await;
        assert!(matches!(&steps[..], [Step::Deleted(id)] if id.kind == "DaemonSet"), "{steps:?}");
        assert!(other.get(&foreign_id).await.is_some());
        assert!(other.get(&edge_id).await.is_some());
        let again = look_at(&client, &without_edge()).await;
        assert!(again.leftovers.is_empty() && !again.is_interrupted(), "{again:#?}");
    });
}

#[test]
fn an_object_that_is_made_anew_after_the_look_is_not_removed() {
    everywhere("an_object_that_is_made_anew_after_the_look_is_not_removed", |client| async move {
        let (other, edge) = (Other(client.clone()), id("DaemonSet", "dualgate-edge"));
        install_all(&client, &all(), Prune::Nothing).await;
        let found = look_at(&client, &without_edge()).await;
        let set = other.get(&edge).await.expect("it is there");
        other.delete(&edge).await;
        let anew = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "spec": set["spec"],
            "metadata": {"name": "dualgate-edge", "namespace": NAMESPACE, "labels": set["metadata"]["labels"]},
        });
        other.create(anew).await;
        let mut steps = Vec::new();
        let wanted = without_edge();
        let done = apply(&client, &wanted, found, Prune::Everything, Conflicts::Refuse, |step| {
            steps.push(step.clone());
        });
        done.await.expect("it is applied");
        assert!(matches!(&steps[..], [Step::Left(_), Step::Deleted(_)]), "{steps:?}");
        assert!(other.get(&edge).await.is_some());
    });
}

#[test]
fn fields_of_others_are_told_with_their_owner_and_taken_only_when_asked_for() {
    everywhere("fields_of_others_are_told_with_their_owner_and_taken_only_when_asked_for", |client| async move {
        install_all(&client, &all(), Prune::Nothing).await;
        let theirs = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": HOME, "namespace": NAMESPACE},
            "spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}},
        });
        Other(client.clone()).apply("somebody", theirs).await;
        let found = look_at(&client, &all()).await;
        let conflicts: Vec<_> = found.conflicts.iter().map(|conflict| (&*conflict.manager, &*conflict.field)).collect();
        assert_eq!(conflicts, [("somebody", ".spec.template.spec.terminationGracePeriodSeconds")]);
        assert_eq!(found.changes.len(), 1, "what would be written is shown all the same");
        let refused = apply(&client, &all(), found, Prune::Nothing, Conflicts::Refuse, |_| {}).await;
        assert!(matches!(refused, Err(InstallError::Conflict(conflict)) if conflict.manager == "somebody"));
        let found = look(&client, &all(), Conflicts::Take).await.expect("it can be looked at");
        assert!(found.conflicts.is_empty());
        apply(&client, &all(), found, Prune::Nothing, Conflicts::Take, |_| {}).await.expect("taken back");
        assert!(look_at(&client, &all()).await.is_as_wanted());
    });
}

#[test]
fn an_object_of_another_set_is_a_conflict() {
    everywhere("an_object_of_another_set_is_a_conflict", |client| async move {
        let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {
            "name": "dualgate-test", "labels": {PART_OF: "applyset-of-others"},
        }, "spec": {"controller": "dualgate.dev/ingress-controller"}});
        Other(client.clone()).create(class).await;
        let found = look_at(&client, &all()).await;
        let managers: BTreeSet<&str> = found.conflicts.iter().map(|conflict| &*conflict.manager).collect();
        assert!(managers.contains("the ApplySet `applyset-of-others`"), "{managers:?}");
    });
}

#[test]
fn the_set_of_another_tool_is_left_alone() {
    everywhere("the_set_of_another_tool_is_left_alone", |client| async move {
        let other = Other(client.clone());
        other.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await;
        let parent = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": PARENT, "namespace": NAMESPACE, "annotations": {"applyset.kubernetes.io/tooling": "kubectl/v1.36"},
        }});
        other.create(parent).await;
        let error = look(&client, &all(), Conflicts::Take).await.expect_err("it is another's").to_string();
        assert!(error.contains("belongs to `kubectl/v1.36`"), "{error}");
    });
}

/// Ends an installation at each of its writes in turn, then installs something else, and looks at what is left.
#[test]
fn an_installation_that_ends_anywhere_is_healed_by_the_next_one() {
    let paths: Vec<String> = ids(&all()).iter().map(ObjectId::path).collect();
    let parent = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{PARENT}");
    for (index, path) in paths.iter().chain([&parent]).enumerate() {
        story(|server, client| async move {
            let found = look_at(&client, &all()).await;
            // The write of this object fails, or the second one of the parent.
            let refusal = Refusal { verb: Some(Verb::Apply), path: path.clone(), ..Refusal::once(500) };
            server.faults().refuse(refusal);
            let ended = apply(&client, &all(), found, Prune::Nothing, Conflicts::Refuse, |_| {}).await;
            assert!(matches!(ended, Err(InstallError::Api { .. })), "{path}: {ended:?}");
            server.faults().clear();
            heal(&server, &client, path).await;
        });
        story(|server, client| async move {
            let found = look_at(&client, &all()).await;
            // The server makes the object, and nobody hears of it: a process that is killed.
            let (killed, left) = (tokio::sync::Notify::new(), RefCell::new(index + 1));
            let objects = all();
            let applied = apply(&client, &objects, found, Prune::Nothing, Conflicts::Refuse, |_| {
                let mut left = left.borrow_mut();
                *left -= 1;
                if *left == 0 {
                    killed.notify_one();
                }
            });
            tokio::select! {
                biased;
                () = killed.notified() => {}
                done = applied => done.expect("nothing is wrong"),
            }
            heal(&server, &client, path).await;
        });
    }
}

/// The next installation wants less.
async fn heal(server: &ApiServer, client: &Client, ended_at: &str) {
    install_all(client, &without_edge(), Prune::Unprotected).await;
    let wanted: BTreeSet<ObjectId> = ids(&without_edge()).into_iter().collect();
    for id in ids(&all()) {
        assert_eq!(is_there(server, &id), wanted.contains(&id), "{id} after an end at {ended_at}");
    }
    let known = inventory(server);
    assert!(wanted.iter().all(|id| known.uid(id).is_some()), "{ended_at}: {known:?}");
    assert!(known.without(&wanted).is_empty(), "{ended_at}: {known:?}");
    let again = look_at(client, &without_edge()).await;
    assert!(again.is_as_wanted() && !again.is_interrupted(), "{ended_at}: {again:#?}");
}

#[test]
fn two_installations_at_a_time_do_not_lose_what_the_other_has_made() {
    everywhere("two_installations_at_a_time_do_not_lose_what_the_other_has_made", |client| async move {
        install_all(&client, &without_edge(), Prune::Nothing).await;
        let late = look_at(&client, &objects("dualgate:2", &["dualgate-test-edge"])).await;
        install_all(&client, &all(), Prune::Nothing).await;
        let objects = objects("dualgate:2", &["dualgate-test-edge"]);
        let refused = apply(&client, &objects, late, Prune::Nothing, Conflicts::Refuse, |_| {}).await;
        assert!(matches!(refused, Err(InstallError::Meanwhile)), "{refused:?}");
    });
}

#[test]
fn waiting_says_what_is_missing_and_ends_when_nothing_is() {
    story(|server, client| async move {
        let nodes = [NodeName::new("dualgate-test-home")];
        install_all(&client, &all(), Prune::Nothing).await;
        let missing = wait(&client, HOME, &nodes, Duration::ZERO, |_| {}).await.expect("it can be asked");
        assert_eq!(missing, ["the cluster has not looked at it yet"]);
        let status = json!({
            "observedGeneration": 1, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1,
            "currentNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1,
        });
        server.objects().patch_status("DaemonSet", NAMESPACE, HOME, status).expect("a status");
        let told = RefCell::new(Vec::new());
        let missing = wait(&client, HOME, &nodes, PATIENCE, |missing| {
            told.borrow_mut().push(missing.to_vec());
            let set = server.objects().get("DaemonSet", NAMESPACE, HOME).expect("it is there");
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {
                    "name": "home", "namespace": NAMESPACE, "labels": set["spec"]["template"]["metadata"]["labels"],
                },
                "spec": {"nodeName": "dualgate-test-home", "containers": [{"name": "dualgate", "image": "dualgate:1"}]},
            });
            server.objects().create(pod).expect("a pod");
            let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            server.objects().patch_status("Pod", NAMESPACE, "home", ready).expect("a status");
        });
        assert_eq!(missing.await.expect("it can be asked"), Vec::<String>::new());
        assert_eq!(
            *told.borrow(),
            [[
                "dualgate-test-home: no pod; is there a node whose label `kubernetes.io/hostname` is `dualgate-test-home`?"
            ]]
        );
    });
}
