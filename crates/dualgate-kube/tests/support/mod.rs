//! A cluster to test with: a real one, if the environment has `KUBECONFIG`, else one in memory.
//!
//! On a real one everything lies in namespaces of its own, which end with their `Cluster`; nothing outside of them is
//! written. What only ours can do, such as failing at a word, is skipped there, loudly.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dualgate_apiserver::{ApiServer, Authorization, Credentials, Options, User};
use dualgate_core::model::ObjectSet;
use dualgate_core::parse;
use dualgate_core::plan::install;
use dualgate_core::seam::Source as _;
use dualgate_kube::access::{Access, client};
use dualgate_kube::source::ClusterSource;
use http::Request;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Nothing in these tests takes longer, unless it says so.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster, and what a test made in it.
pub struct Cluster {
    server: Option<ApiServer>,
    /// Of ours; removed with it.
    file: Option<PathBuf>,
    access: Access,
    /// What tests themselves ask with.
    admin: Access,
    /// Of ours; removed with it.
    account: Option<PathBuf>,
    /// Of the runtime that asked first; to make one reads the system's certificates.
    client: OnceCell<Client>,
    suffix: String,
    /// What was made in no namespace of this test: the paths of objects.
    made: Mutex<Vec<String>>,
}

/// Why an object was not taken.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub message: String,
}

impl Cluster {
    /// A real one, or ours.
    pub fn any() -> Self {
        match std::env::var_os("KUBECONFIG").filter(|named| !named.is_empty()) {
            None => Self::ours(),
            Some(_) => {
                let suffix = format!("-dualgate-{}-{}", std::process::id(), count());
                Self::new(None, None, Access::default(), suffix)
            }
        }
    }

    /// Ours, which can fail at a word.
    pub fn ours() -> Self {
        Self::serving(ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], Options::default()).unwrap())
    }

    /// This one.
    pub fn serving(server: ApiServer) -> Self {
        let path = std::env::temp_dir().join(format!("dualgate-kubeconfig-{}-{}", std::process::id(), count()));
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let access = Access { kubeconfig: Some(path.clone()), context: None };
        Self::new(Some(server), Some(path), access, String::new())
    }

    fn new(server: Option<ApiServer>, file: Option<PathBuf>, access: Access, suffix: String) -> Self {
        let admin = access.clone();
        Self { server, file, access, admin, account: None, client: OnceCell::new(), suffix, made: Mutex::default() }
    }

    /// Ours, over TLS, in which dualgate may do what was installed for this site and nothing else.
    pub async fn guarded(site: &str) -> Self {
        let (site, findings) = parse::site::site("site.yaml", site);
        let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
        let what = install::Options {
            image: "dualgate:1".to_owned(),
            site_file: String::new(),
            edges: Vec::new(),
            services: Vec::new(),
        };
        let installation = install::install(&site, &what).unwrap();
        let options = Options {
            authorization: Authorization::Rbac,
            certificate_for: vec!["127.0.0.1".to_owned()],
            ..Options::default()
        };
        let server = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], options).unwrap();
        server.objects().apply_all(installation.objects).unwrap();
        let token = server.token(User::service_account(install::NAMESPACE, install::HOME));
        let text = server.kubeconfig_as(&server.url(), &Credentials::Token(token));
        let path = std::env::temp_dir().join(format!("dualgate-account-{}-{}", std::process::id(), count()));
        std::fs::write(&path, text).unwrap();
        let mut cluster = Self::serving(server);
        cluster.access = Access { kubeconfig: Some(path.clone()), context: None };
        cluster.account = Some(path);
        cluster
    }

    /// How to reach it.
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    /// Ours, if it is ours.
    pub fn server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    /// What this test's namespaces end with; empty on ours, where it is alone.
    pub fn suffix(&self) -> &str {
        &self.suffix
    }

    /// A namespace of this test.
    pub async fn namespace(&self, name: &str) -> String {
        let name = format!("{name}{}", self.suffix);
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        match self.send("POST", "/api/v1/namespaces", object).await {
            Ok(_) => {}
            // Each cluster has some.
            Err(refused) if refused.status == 409 => {}
            Err(refused) => panic!("{refused:?}"),
        }
        name
    }

    /// Creates an object that lies in no namespace of this test, and is removed with it.
    pub async fn create_outside(&self, object: &Value) -> Result<Value, Refused> {
        let created = self.create(object).await?;
        let path = format!("{}/{}", path(object), object["metadata"]["name"].as_str().unwrap_or_default());
        self.made.lock().unwrap().push(path);
        Ok(created)
    }

    /// An object as it is.
    pub async fn get(&self, object: &Value) -> Option<Value> {
        let path = format!("{}/{}", path(object), object["metadata"]["name"].as_str().unwrap_or_default());
        match self.send("GET", &path, Value::Null).await {
            Ok(found) => Some(found),
            Err(refused) if refused.status == 404 => None,
            Err(refused) => panic!("{refused:?}"),
        }
    }

    /// All of a kind, where an object like this lies.
    pub async fn list(&self, like: &Value) -> Vec<Value> {
        let list = self.send("GET", &path(like), Value::Null).await.unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Writes a status as another controller does.
    pub async fn status(&self, object: &Value, manager: &str, status: Value) -> Result<Value, Refused> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{}/{name}/status?fieldManager={manager}", path(object));
        self.send("PATCH", &path, json!({ "status": status })).await
    }

    /// Creates an object, with its status.
    pub async fn create(&self, object: &Value) -> Result<Value, Refused> {
        let path = path(object);
        let created = self.send("POST", &path, object.clone()).await?;
        if object["status"].is_null() {
            return Ok(created);
        }
        let path = format!("{path}/{}/status", object["metadata"]["name"].as_str().unwrap_or_default());
        self.send("PATCH", &path, json!({"status": object["status"]})).await
    }

    /// A JSON merge patch.
    pub async fn patch(&self, object: &Value, patch: Value) -> Result<Value, Refused> {
        let path = format!("{}/{}", path(object), object["metadata"]["name"].as_str().unwrap_or_default());
        self.send("PATCH", &path, patch).await
    }

    /// Deletes it.
    pub async fn delete(&self, object: &Value) {
        let path = format!("{}/{}", path(object), object["metadata"]["name"].as_str().unwrap_or_default());
        self.send("DELETE", &path, Value::Null).await.unwrap();
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Result<Value, Refused> {
        let client = self.client.get_or_init(|| async { client(&self.admin).await.unwrap() }).await;
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body));
        let answer = client.send(request.unwrap()).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let status = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status < 300 {
            return Ok(body);
        }
        Err(Refused { status, message: body["message"].as_str().unwrap_or_default().to_owned() })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for file in self.file.iter().chain(&self.account) {
            let _ = std::fs::remove_file(file);
        }
        if self.server.is_some() {
            return;
        }
        let (access, suffix) = (self.access.clone(), self.suffix.clone());
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let remove = move || {
            run(async move {
                let cluster = Self::new(None, None, access, String::new());
                for path in made {
                    let _ = cluster.send("DELETE", &path, Value::Null).await;
                }
                let list = cluster.send("GET", "/api/v1/namespaces", Value::Null).await.unwrap();
                for item in list["items"].as_array().into_iter().flatten() {
                    let name = item["metadata"]["name"].as_str().unwrap_or_default();
                    if name.ends_with(&suffix) {
                        let _ = cluster.send("DELETE", &format!("/api/v1/namespaces/{name}"), Value::Null).await;
                    }
                }
                // It is this thread's own, and has nothing to remove.
                std::mem::forget(cluster);
            });
        };
        let _ = std::thread::spawn(remove).join();
    }
}

/// A source, and what it said last.
pub struct Listener {
    pub source: ClusterSource,
    pub last: Arc<ObjectSet>,
}

impl Listener {
    pub async fn new(cluster: &Cluster) -> Self {
        Self { source: ClusterSource::new(cluster.access()).await.unwrap(), last: Arc::default() }
    }

    /// Waits for a set that is as wished.
    #[track_caller]
    pub fn until(&mut self, what: &str, is: impl Fn(&ObjectSet) -> bool) -> impl Future<Output = Arc<ObjectSet>> {
        let caller = std::panic::Location::caller();
        let what = what.to_owned();
        async move {
            let wait = async {
                loop {
                    let Ok(set) = self.source.next().await;
                    self.last = set.clone();
                    if is(&set) {
                        return set;
                    }
                }
            };
            let found = tokio::time::timeout(PATIENCE, wait).await;
            found.unwrap_or_else(|_| {
                panic!(
                    "{caller}: {what}: not within {PATIENCE:?}; it knows {:?} {:?}; {:?}",
                    keys(&self.last),
                    self.last.findings,
                    self.source.view().report()
                )
            })
        }
    }

    /// It says nothing for a while, though it is listened to.
    pub async fn goes_on(&mut self, time: Duration) -> Option<Arc<ObjectSet>> {
        tokio::time::timeout(time, self.source.next()).await.ok().map(|next| match next {
            Ok(set) => set,
        })
    }
}

/// `Ingress apps/grafana`, each.
pub fn keys(set: &ObjectSet) -> Vec<String> {
    // Each cluster has namespaces of its own.
    let objects = set.objects.iter().filter(|object| *object.key.kind != *"Namespace");
    objects.map(|object| object.key.to_string()).collect()
}

/// Whether there is an object of this name.
pub fn has(set: &ObjectSet, key: &str) -> bool {
    set.objects.iter().any(|object| object.key.to_string() == key)
}

/// The path of a kind's collection.
fn path(object: &Value) -> String {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let root = if version.contains('/') { "apis" } else { "api" };
    let resource = match kind {
        "Ingress" => "ingresses".to_owned(),
        "IngressClass" => "ingressclasses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{root}/{version}/namespaces/{namespace}/{resource}"),
        None => format!("/{root}/{version}/{resource}"),
    }
}

/// On a thread's own runtime.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Says that a test cannot run here.
pub fn skipped(name: &str, why: &str) {
    eprintln!("SKIPPED: {name}: {why}");
}

fn count() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
