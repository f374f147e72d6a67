//! Which object of a cluster is meant, and where its API is.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The kinds that are installed, each behind those that it needs: their API and the name of their resources.
const KINDS: [(&str, &str, &str); 9] = [
    ("v1", "Namespace", "namespaces"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("rbac.authorization.k8s.io/v1", "Role", "roles"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    ("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
    ("v1", "ConfigMap", "configmaps"),
    ("apps/v1", "DaemonSet", "daemonsets"),
];

/// When an object's turn is among the others; a kind that is not known is last.
pub(super) fn rank(id: &ObjectId) -> usize {
    KINDS.iter().position(|known| known.1 == id.kind).unwrap_or(KINDS.len())
}

/// One object, with all that is needed to ask for it, also by a program that does not know its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectId {
    /// Group and version, such as `apps/v1`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// The name of its resources in the API.
    pub resource: String,
    /// Its namespace, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectId {
    /// Of an object that is installed; nothing if its kind is none of those, or if it has no name.
    pub fn of(object: &Value) -> Option<Self> {
        let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        let known = KINDS.iter().find(|known| (known.0, known.1) == (api_version, kind));
        Some(Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            resource: known?.2.to_owned(),
            namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        })
    }

    /// The group of its API; empty for the core one.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Where it is in the API.
    pub fn path(&self) -> String {
        let Self { api_version, resource, namespace, name, .. } = self;
        let root = if self.group().is_empty() { "api" } else { "apis" };
        match namespace.as_str() {
            "" => format!("/{root}/{api_version}/{resource}/{name}"),
            namespace => format!("/{root}/{api_version}/namespaces/{namespace}/{resource}/{name}"),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_found_at_its_path() {
        let id = |value: Value| ObjectId::of(&value);
        let namespace = id(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})).unwrap();
        assert_eq!((namespace.path(), namespace.to_string()), ("/api/v1/namespaces/a".into(), "Namespace a".into()));
        let metadata = json!({"name": "b", "namespace": "a"});
        let set = id(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata})).unwrap();
        assert_eq!(set.path(), "/apis/apps/v1/namespaces/a/daemonsets/b");
        assert_eq!((set.to_string(), set.group()), ("DaemonSet a/b".into(), "apps"));
        assert_eq!(id(json!({"apiVersion": "apps/v1", "kind": "Gate", "metadata": metadata})), None);
    }
}
