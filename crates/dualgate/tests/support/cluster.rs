//! A cluster that is only known over its API: the one of `KUBECONFIG`, else one in memory.

use std::net::TcpListener;

use dualgate_apiserver::{ApiServer, Options};
use dualgate_core::parse;
use dualgate_kube::Client;
use dualgate_kube::access::{Access, client};
use hyper::Request;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::Home;

/// A cluster with a namespace of its own, which goes with this.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    namespace: String,
    /// How the program finds it.
    pub arguments: Vec<String>,
    _server: Option<ApiServer>,
}

impl Cluster {
    /// Makes the namespace.
    pub fn any(home: &Home) -> Self {
        let mut arguments = ["--source", "cluster"].map(str::to_owned).to_vec();
        let (mut access, mut server) = (Access::default(), None);
        if std::env::var_os("KUBECONFIG").is_none_or(|named| named.is_empty()) {
            let ours = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], Options::default()).unwrap();
            home.directory.write("kubeconfig", &ours.kubeconfig());
            let path = home.directory.join("kubeconfig");
            arguments.extend(["--kubeconfig".to_owned(), path.display().to_string()]);
            (access.kubeconfig, server) = (Some(path), Some(ours));
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(client(&access)).unwrap();
        let namespace = format!("dualgate-process-{}", std::process::id());
        let cluster = Self { runtime, client, namespace, arguments, _server: server };
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}});
        cluster.ask("POST", "/api/v1/namespaces", &object).unwrap();
        cluster
    }

    /// Server-side apply of manifests that lie in `default`, into this namespace.
    pub fn write(&self, manifests: &str) {
        for document in parse::yaml::documents(manifests).documents {
            let mut object = document.to_json();
            object["metadata"]["namespace"] = self.namespace.as_str().into();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let path = format!("{}?fieldManager=test&force=true", self.path(object["kind"].as_str().unwrap(), &name));
            self.ask("PATCH", &path, &object).unwrap();
        }
    }

    pub fn delete(&self, kind: &str, name: &str) {
        self.ask("DELETE", &self.path(kind, name), &Value::Null).unwrap();
    }

    fn path(&self, kind: &str, name: &str) -> String {
        let (api, resource) = match kind {
            "Ingress" => ("apis/networking.k8s.io/v1", "ingresses"),
            "Service" => ("api/v1", "services"),
            other => panic!("{other}"),
        };
        format!("/{api}/namespaces/{}/{resource}/{name}", self.namespace)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let kind = if method == "PATCH" { "application/apply-patch+yaml" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
        let answer = self.runtime.block_on(self.client.request::<Value>(request));
        answer.map_err(|error| format!("{method} {path}: {error}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ours ends with it.
        let _ = self.ask("DELETE", &format!("/api/v1/namespaces/{}", self.namespace), &Value::Null);
    }
}
