//! The kinds of objects that a cluster itself looks at, and where the API has them.

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// `apps/v1`.
    pub(crate) api_version: &'static str,
    /// `Deployment`.
    pub(crate) kind: &'static str,
    /// `deployments`.
    pub(crate) plural: &'static str,
    pub(crate) scope: Scope,
}

/// Whether objects of a kind lie in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

pub(crate) const NODE: Kind = cluster("v1", "Node", "nodes");
pub(crate) const NAMESPACE: Kind = cluster("v1", "Namespace", "namespaces");
pub(crate) const INGRESS_CLASS: Kind = cluster("networking.k8s.io/v1", "IngressClass", "ingressclasses");
pub(crate) const POD: Kind = namespaced("v1", "Pod", "pods");
pub(crate) const ENDPOINT_SLICE: Kind = namespaced("discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
pub(crate) const DEPLOYMENT: Kind = namespaced("apps/v1", "Deployment", "deployments");
pub(crate) const STATEFUL_SET: Kind = namespaced("apps/v1", "StatefulSet", "statefulsets");
pub(crate) const DAEMON_SET: Kind = namespaced("apps/v1", "DaemonSet", "daemonsets");

/// What is watched: what wants pods, what leads to them, and what the lab's checks read.
pub(crate) static WATCHED: [Kind; 10] = [
    NODE,
    INGRESS_CLASS,
    POD,
    ENDPOINT_SLICE,
    DEPLOYMENT,
    STATEFUL_SET,
    DAEMON_SET,
    namespaced("v1", "Service", "services"),
    namespaced("v1", "Secret", "secrets"),
    namespaced("networking.k8s.io/v1", "Ingress", "ingresses"),
];

impl Kind {
    /// The path of a list: of a namespace's objects, or of the cluster's.
    pub(crate) fn list(&self, namespace: &str) -> String {
        let prefix = if self.api_version.contains('/') { "/apis" } else { "/api" };
        match self.scope {
            Scope::Namespaced => format!("{prefix}/{}/namespaces/{namespace}/{}", self.api_version, self.plural),
            Scope::Cluster => self.everywhere(),
        }
    }

    /// The path of the list of all objects.
    pub(crate) fn everywhere(&self) -> String {
        let prefix = if self.api_version.contains('/') { "/apis" } else { "/api" };
        format!("{prefix}/{}/{}", self.api_version, self.plural)
    }

    pub(crate) fn is_pod(&self) -> bool {
        *self == POD
    }
}

const fn namespaced(api_version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, kind, plural, scope: Scope::Namespaced }
}

const fn cluster(api_version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { api_version, kind, plural, scope: Scope::Cluster }
}
