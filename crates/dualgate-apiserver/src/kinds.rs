//! Which kinds there are, and how each differs from the others: a table of those that are built in, and what
//! CustomResourceDefinitions add to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The kinds that are always there.
///
/// Traits: `status` is a subresource; `generation` counts changes of what is desired; `conditional` updates must say which
/// version they are of; `upsert`: an update may create; `object`: a deletion answers with what was deleted.
const BUILT_IN: &str = "
    v1                        Namespace                namespaces                ns      cluster    status,object
    v1                        Node                     nodes                     no      cluster    status
    v1                        Service                  services                  svc     namespaced status,upsert,object
    v1                        Secret                   secrets                   -       namespaced -
    v1                        ConfigMap                configmaps                cm      namespaced -
    v1                        ServiceAccount           serviceaccounts           sa      namespaced object
    v1                        Pod                      pods                      po      namespaced status,generation,object
    v1                        Event                    events                    ev      namespaced upsert
    v1                        Endpoints                endpoints                 ep      namespaced upsert
    v1                        PersistentVolumeClaim    persistentvolumeclaims    pvc     namespaced status,object
    v1                        PersistentVolume         persistentvolumes         pv      cluster    status,object
    apps/v1                   Deployment               deployments               deploy  namespaced status,generation
    apps/v1                   DaemonSet                daemonsets                ds      namespaced status,generation
    apps/v1                   ReplicaSet               replicasets               rs      namespaced status,generation
    apps/v1                   StatefulSet              statefulsets              sts     namespaced status,generation
    networking.k8s.io/v1      Ingress                  ingresses                 ing     namespaced status,generation
    networking.k8s.io/v1      IngressClass             ingressclasses            -       cluster    generation,conditional
    networking.k8s.io/v1      NetworkPolicy            networkpolicies           netpol  namespaced generation
    discovery.k8s.io/v1       EndpointSlice            endpointslices            -       namespaced generation
    coordination.k8s.io/v1    Lease                    leases                    -       namespaced conditional,upsert
    policy/v1                 PodDisruptionBudget      poddisruptionbudgets      pdb     namespaced status,generation,conditional
    rbac.authorization.k8s.io/v1 Role                  roles                     -       namespaced upsert
    rbac.authorization.k8s.io/v1 RoleBinding           rolebindings              -       namespaced upsert
    rbac.authorization.k8s.io/v1 ClusterRole           clusterroles              -       cluster    upsert
    rbac.authorization.k8s.io/v1 ClusterRoleBinding    clusterrolebindings       -       cluster    upsert
    apiextensions.k8s.io/v1   CustomResourceDefinition customresourcedefinitions crd,crds cluster   status,generation,conditional
";

/// Whether objects of a kind lie in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each belongs to one.
    Namespaced,
    /// They are the cluster's.
    Cluster,
}

/// One kind of one version of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `Ingress`.
    pub kind: String,
    /// `ingresses`: what stands in paths.
    pub plural: String,
    /// `ing`.
    pub short_names: Vec<String>,
    /// Where its objects lie.
    pub scope: Scope,
    traits: Vec<String>,
    /// Defined by a CustomResourceDefinition.
    pub(crate) custom: bool,
}

impl Kind {
    /// `v1` or `GROUP/VERSION`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `ingresses.networking.k8s.io`: the same for all versions, and what messages name.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    fn has(&self, name: &str) -> bool {
        self.traits.iter().any(|of| of == name)
    }

    pub(crate) fn has_status(&self) -> bool {
        self.has("status")
    }

    pub(crate) fn counts_generations(&self) -> bool {
        self.has("generation")
    }

    pub(crate) fn updates_name_a_version(&self) -> bool {
        self.has("conditional")
    }

    pub(crate) fn update_may_create(&self) -> bool {
        self.has("upsert")
    }

    pub(crate) fn deletion_answers_the_object(&self) -> bool {
        self.has("object")
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether it is the one of that name of the groups that are built in.
    pub(crate) fn is(&self, kind: &str) -> bool {
        !self.custom && self.kind == kind
    }
}

/// All kinds that are served.
#[derive(Debug)]
pub(crate) struct Kinds {
    /// By group, version and plural.
    all: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Kinds {
    pub(crate) fn new() -> Self {
        let rows = BUILT_IN.lines().filter(|line| !line.trim().is_empty()).map(built_in);
        Self { all: rows.map(|kind| (path(&kind), Arc::new(kind))).collect() }
    }

    pub(crate) fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    pub(crate) fn by_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let is_it = |of: &&Arc<Kind>| of.group == group && of.version == version && of.kind == kind;
        self.all.values().find(is_it).cloned()
    }

    /// By its name alone, as people write it: `Ingress`, `ingresses` or `ing`.
    pub(crate) fn by_word(&self, word: &str) -> Option<Arc<Kind>> {
        let is_it = |of: &&Arc<Kind>| {
            of.kind == word || of.plural == word || of.singular() == word || of.short_names.iter().any(|of| of == word)
        };
        self.all.values().find(is_it).cloned()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.values()
    }

    /// Serves what a CustomResourceDefinition says, in place of what it said before.
    pub(crate) fn define(&mut self, definition: &Value) {
        self.undefine(definition);
        for kind in defined(definition) {
            self.all.entry(path(&kind)).or_insert_with(|| Arc::new(kind));
        }
    }

    pub(crate) fn undefine(&mut self, definition: &Value) {
        let (group, plural) = (&definition["spec"]["group"], &definition["spec"]["names"]["plural"]);
        self.all.retain(|_, kind| !(kind.custom && *group == kind.group && *plural == kind.plural));
    }
}

fn path(kind: &Kind) -> (String, String, String) {
    (kind.group.clone(), kind.version.clone(), kind.plural.clone())
}

fn built_in(line: &str) -> Kind {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [api_version, kind, plural, short_names, scope, traits] = columns[..] else {
        unreachable!("a row of six columns: {line}")
    };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let words = |text: &str| text.split(',').filter(|word| *word != "-").map(str::to_owned).collect();
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        short_names: words(short_names),
        scope: if scope == "cluster" { Scope::Cluster } else { Scope::Namespaced },
        traits: words(traits),
        custom: false,
    }
}

fn defined(definition: &Value) -> Vec<Kind> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let served = versions.iter().filter(|version| version["served"] != false);
    let kind = |version: &Value| {
        let mut traits = vec!["generation".to_owned(), "conditional".to_owned()];
        if version["subresources"]["status"].is_object() {
            traits.push("status".to_owned());
        }
        let short_names = spec["names"]["shortNames"].as_array().map_or(&[][..], Vec::as_slice);
        Kind {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            kind: text(&spec["names"]["kind"]),
            plural: text(&spec["names"]["plural"]),
            short_names: short_names.iter().map(text).collect(),
            scope: if spec["scope"] == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
            traits,
            custom: true,
        }
    };
    served.map(kind).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_is_found_by_path_and_by_every_name() {
        let kinds = Kinds::new();
        let ingress = kinds.by_path("networking.k8s.io", "v1", "ingresses").unwrap();
        assert_eq!(ingress.resource(), "ingresses.networking.k8s.io");
        for word in ["Ingress", "ingress", "ingresses", "ing"] {
            assert_eq!(kinds.by_word(word), Some(ingress.clone()), "{word}");
        }
        assert_eq!(kinds.by_kind("networking.k8s.io/v1", "Ingress"), Some(ingress));
        assert_eq!(kinds.by_kind("v1", "Ingress"), None);
    }

    #[test]
    fn a_definition_adds_its_served_versions_and_takes_them_away() {
        let mut kinds = Kinds::new();
        let definition = json!({"spec": {
            "group": "traefik.io", "scope": "Namespaced", "names": {"plural": "middlewares", "kind": "Middleware"},
            "versions": [{"name": "v1alpha1", "served": true}, {"name": "v0", "served": false}],
        }});
        kinds.define(&definition);
        assert!(kinds.by_path("traefik.io", "v1alpha1", "middlewares").unwrap().is_namespaced());
        assert_eq!(kinds.by_path("traefik.io", "v0", "middlewares"), None);
        kinds.undefine(&definition);
        assert_eq!(kinds.by_path("traefik.io", "v1alpha1", "middlewares"), None);
    }
}
