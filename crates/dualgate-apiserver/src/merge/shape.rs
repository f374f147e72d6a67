//! Where objects are not what they look like: which lists are maps or sets, and which maps count as one value. Server-side
//! apply and strategic merge patches each have their own opinion, so both stand in the table.
//!
//! Anything that the table leaves out is the rule: fields are merged one by one, a list is one value.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::kinds::Kind;

/// `PATH APPLY STRATEGIC`. Apply: `atomic`, `set`, or `by=KEY[:DEFAULT],…`. Strategic: `set`, `by=KEY`, and `retain` where
/// a patch says which fields stay.
const ALL_KINDS: &str = "
    metadata.finalizers        set       set
    metadata.ownerReferences   by=uid    by=uid
    status.conditions          by=type   by=type
";

const POD_SPEC: &str = "
    nodeSelector                atomic                            -
    volumes                     by=name                           by=name,retain
    imagePullSecrets            by=name                           by=name
    hostAliases                 by=ip                             by=ip
    schedulingGates             by=name                           by=name
    topologySpreadConstraints   by=topologyKey,whenUnsatisfiable  by=topologyKey
    affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution  atomic  -
";

const CONTAINER: &str = "
    .                              by=name                         by=name
    ports                          by=containerPort,protocol:TCP   by=containerPort
    env                            by=name                         by=name
    env.valueFrom.configMapKeyRef  atomic                          -
    env.valueFrom.secretKeyRef     atomic                          -
    env.valueFrom.fieldRef         atomic                          -
    env.valueFrom.resourceFieldRef atomic                          -
    volumeMounts                   by=mountPath                    by=mountPath
    volumeDevices                  by=devicePath                   by=devicePath
    resources.claims               by=name                         -
";

const BY_KIND: &[(&str, &str)] = &[
    ("Service", "spec.ports by=port,protocol:TCP by=port\n spec.selector atomic -"),
    ("Node", "spec.podCIDRs set set"),
    ("ServiceAccount", "secrets by=name by=name"),
    ("Pod", "status.podIPs by=ip by=ip"),
    ("Deployment", "spec.selector atomic -\n spec.strategy - retain"),
    ("DaemonSet", "spec.selector atomic -"),
    ("ReplicaSet", "spec.selector atomic -"),
    ("StatefulSet", "spec.selector atomic -"),
    ("NetworkPolicy", "spec.podSelector atomic -"),
    ("PodDisruptionBudget", "spec.selector atomic -"),
    ("PersistentVolumeClaim", "spec.selector atomic -\n spec.dataSource atomic -"),
    ("Event", "involvedObject atomic -\n related atomic -"),
    ("RoleBinding", "roleRef atomic -"),
    ("ClusterRoleBinding", "roleRef atomic -"),
    ("Ingress", "spec.defaultBackend.resource atomic -"),
];

/// One place of an object, and what is below it. The items of a list lie at the list's own place.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) apply: Applied,
    pub(crate) strategic: Strategic,
    /// A strategic merge patch of this map says with `$retainKeys` what stays.
    pub(crate) retains: bool,
    below: BTreeMap<String, Shape>,
}

/// How server-side apply sees a place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A map by its fields, a list as one value.
    #[default]
    Usual,
    /// One value, also if it is a map.
    Atomic,
    /// A list without order or repetition.
    Set,
    /// A list of maps, told apart by these fields; some have a value when they are absent.
    By(Vec<(String, Option<String>)>),
}

/// How a strategic merge patch sees a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Strategic {
    /// As one value.
    #[default]
    Replace,
    /// As a set.
    Set,
    /// As maps that are told apart by a field.
    By(String),
}

static USUAL: Shape =
    Shape { apply: Applied::Usual, strategic: Strategic::Replace, retains: false, below: BTreeMap::new() };

static SHAPES: LazyLock<BTreeMap<&'static str, Shape>> = LazyLock::new(|| {
    let mut shapes: BTreeMap<&str, Shape> = BTreeMap::new();
    for (kind, rows) in BY_KIND {
        shapes.entry(kind).or_default().read("", rows);
    }
    for (kind, pod) in [
        ("Pod", "spec"),
        ("Deployment", "spec.template.spec"),
        ("DaemonSet", "spec.template.spec"),
        ("ReplicaSet", "spec.template.spec"),
        ("StatefulSet", "spec.template.spec"),
    ] {
        let shape = shapes.entry(kind).or_default();
        shape.read(pod, POD_SPEC);
        for containers in ["containers", "initContainers", "ephemeralContainers"] {
            shape.read(&format!("{pod}.{containers}"), CONTAINER);
        }
    }
    shapes.entry("").or_default();
    shapes.values_mut().for_each(|shape| shape.read("", ALL_KINDS));
    shapes
});

/// The shape of a kind's objects.
pub(crate) fn of(kind: &Kind) -> &'static Shape {
    if kind.custom {
        return &USUAL;
    }
    SHAPES.get(kind.kind.as_str()).or_else(|| SHAPES.get("")).unwrap_or(&USUAL)
}

impl Shape {
    pub(crate) fn field(&self, name: &str) -> &Self {
        self.below.get(name).unwrap_or(&USUAL)
    }

    fn read(&mut self, above: &str, rows: &str) {
        for row in rows.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [path, apply, strategic] = columns[..] else { unreachable!("a row of three columns: {row}") };
            let names = above.split('.').chain(path.split('.')).filter(|name| !name.is_empty());
            let place = names.fold(&mut *self, |place, name| place.below.entry(name.to_owned()).or_default());
            place.apply = applied(apply);
            for word in strategic.split(',') {
                match word.split_once('=') {
                    Some((_, key)) => place.strategic = Strategic::By(key.to_owned()),
                    None if word == "set" => place.strategic = Strategic::Set,
                    None => place.retains |= word == "retain",
                }
            }
        }
    }
}

fn applied(text: &str) -> Applied {
    let key = |key: &str| match key.split_once(':') {
        Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
        None => (key.to_owned(), None),
    };
    match text.strip_prefix("by=") {
        Some(keys) => Applied::By(keys.split(',').map(key).collect()),
        None if text == "set" => Applied::Set,
        None if text == "atomic" => Applied::Atomic,
        None => Applied::Usual,
    }
}
