//! Manifests into the API, as `kubectl apply` puts them there: whoever applies them again finds what was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dualgate_core::seam::Source as _;
use dualgate_host::FolderSource;
use dualgate_host::folder::FolderError;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::client::{Ask, ClientError, Connection};
use super::kind::{INGRESS_CLASS, NAMESPACE};
use super::path;
use crate::workload;

/// Where `kubectl apply` notes what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// As whom `kubectl apply` writes.
const KUBECTL: &str = "kubectl-client-side-apply";
/// What is in every cluster, and where what dualgate itself has lies.
const NAMESPACES: [&str; 3] = ["default", "kube-system", "dualgate-system"];
/// What an Ingress says that wants to be dualgate's.
const CLASS: &str = "dualgate";
const CONTROLLER: &str = "dualgate.dev/ingress-controller";

/// Where the API has a kind.
#[derive(Clone, Debug)]
struct Resource {
    /// The path of its group and version.
    base: String,
    plural: String,
    is_namespaced: bool,
}

/// Every object of a folder of manifests, as it is written there.
pub fn manifests(folder: &Path) -> Result<Vec<Value>, FolderError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| FolderError::Read { path, source }
    };
    let mut source = FolderSource::new(folder)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(unreadable(folder))?;
    let set = runtime.block_on(source.next())?;
    // Which files count, the folder decides; what stands in them, core would show without its secrets.
    let files = set.objects.iter().filter_map(|object| object.origin.as_ref());
    let files: BTreeSet<&str> = files.map(|origin| &*origin.file).collect();
    let mut objects = Vec::new();
    for file in files.into_iter().map(Path::new) {
        let text = std::fs::read_to_string(file).map_err(unreadable(file))?;
        objects.extend(workload::documents(&text));
    }
    Ok(objects)
}

/// Creates what every cluster has, and these objects; says which ones the API refuses.
pub(super) async fn load(connection: &mut Connection, objects: Vec<Value>) -> Result<Vec<String>, ClientError> {
    let mut refused = Vec::new();
    for object in base(&objects) {
        let kind = if object["kind"] == NAMESPACE.kind { &NAMESPACE } else { &INGRESS_CLASS };
        let path = path(kind, "", object["metadata"]["name"].as_str().unwrap_or_default());
        connection.ask(&Ask::apply(&path, super::MANAGER, object)).await?;
    }
    let mut resources = BTreeMap::new();
    // What others lie in comes first, whatever file it stands in.
    let (first, rest): (Vec<Value>, Vec<Value>) = objects
        .into_iter()
        .partition(|object| matches!(object["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition")));
    for object in first.into_iter().chain(rest) {
        let name = format!("{} {}", text(&object, "/kind"), text(&object, "/metadata/name"));
        match put(connection, &mut resources, object).await {
            Ok(()) => {}
            Err(error @ ClientError::Refused { .. }) => refused.push(format!("{name}: {error}")),
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// The namespaces that every cluster has or that an object lies in, and the class, where no manifest brings it.
fn base(objects: &[Value]) -> Vec<Value> {
    let used = objects.iter().map(|object| text(object, "/metadata/namespace")).filter(|name| !name.is_empty());
    let namespaces: BTreeSet<&str> = NAMESPACES.into_iter().chain(used).collect();
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let mut base: Vec<Value> = namespaces.into_iter().map(namespace).collect();
    if !objects.iter().any(|object| object["kind"] == INGRESS_CLASS.kind && text(object, "/metadata/name") == CLASS) {
        base.push(json!({
            "apiVersion": INGRESS_CLASS.api_version,
            "kind": INGRESS_CLASS.kind,
            "metadata": {"name": CLASS},
            "spec": {"controller": CONTROLLER},
        }));
    }
    base
}

async fn put(
    connection: &mut Connection,
    resources: &mut BTreeMap<(String, String), Resource>,
    mut object: Value,
) -> Result<(), ClientError> {
    let resource = resource(connection, resources, &object).await?;
    let metadata = &mut object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or("default").to_owned();
    if resource.is_namespaced {
        metadata["namespace"] = json!(namespace);
    }
    // Its own note is the only annotation that kubectl does not note.
    let annotations = &mut object["metadata"]["annotations"];
    match annotations.as_object_mut() {
        Some(annotations) => drop(annotations.remove(LAST_APPLIED)),
        None => *annotations = json!({}),
    }
    let applied = noted(&object);
    object["metadata"]["annotations"][LAST_APPLIED] = json!(applied);
    let list = match resource.is_namespaced {
        true => format!("{}/namespaces/{namespace}/{}", resource.base, resource.plural),
        false => format!("{}/{}", resource.base, resource.plural),
    };
    let name = text(&object, "/metadata/name").to_owned();
    let created = connection.ask(&Ask::create(format!("{list}?fieldManager={KUBECTL}"), object.clone())).await;
    match created {
        Err(error) if error.is(409) => {
            connection.ask(&Ask::merge(format!("{list}/{name}?fieldManager={KUBECTL}"), object)).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// An object as kubectl notes it: in the order of the names, and safe within HTML, as Go writes JSON. Were it different, the
/// next `kubectl apply` of the same file would change something.
fn noted(object: &Value) -> String {
    let text = object.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n"
}

/// Asks the API where it has a kind.
async fn resource(
    connection: &mut Connection,
    known: &mut BTreeMap<(String, String), Resource>,
    object: &Value,
) -> Result<Resource, ClientError> {
    let (version, kind) = (text(object, "/apiVersion").to_owned(), text(object, "/kind").to_owned());
    if let Some(resource) = known.get(&(version.clone(), kind.clone())) {
        return Ok(resource.clone());
    }
    let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let answer = connection.ask(&Ask::get(&*base)).await?;
    let all = answer["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_it = |resource: &&Value| resource["kind"] == *kind && !text(resource, "/name").contains('/');
    let Some(found) = all.iter().find(is_it) else {
        return Err(ClientError::unknown_kind(base, &version, &kind));
    };
    let plural = text(found, "/name").to_owned();
    let resource = Resource { base, plural, is_namespaced: found["namespaced"] == true };
    known.insert((version, kind), resource.clone());
    Ok(resource)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
