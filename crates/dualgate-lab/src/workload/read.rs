//! Workloads: what Deployments, StatefulSets and DaemonSets ask for.
//!
//! As core does with other kinds: a part that is wrong is left out with a finding, and a workload is refused only when the
//! part is what its pods cannot be without.

use std::collections::BTreeMap;

use dualgate_core::model::finding::{Code, Severity};
use dualgate_core::model::object::{Object, Protocol};
use dualgate_core::model::{Finding, NodeName, ObjectKey, ObjectName, ObjectSet};
use dualgate_core::parse::object::dump;
use serde_json::{Map, Value};

use super::name;

/// What wants pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind, namespace and name: `Deployment apps/grafana`.
    pub key: ObjectKey,
    /// Its kind.
    pub kind: WorkloadKind,
    /// `spec.replicas`; a DaemonSet has none and does not look at it.
    pub replicas: u32,
    /// `spec.template.metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The ports of all containers, in their order.
    pub ports: Vec<ContainerPort>,
    /// `spec.template.spec.nodeName`: the only node that will do.
    pub node: Option<NodeName>,
    /// `spec.template.spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.serviceName` of a StatefulSet: the headless Service that gives its pods names.
    pub subdomain: Option<String>,
    /// A digest of `spec.template`: pods of another one are replaced.
    pub template: u64,
}

/// The kinds that want pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkloadKind {
    /// So many that are alike.
    Deployment,
    /// So many with a name each.
    StatefulSet,
    /// One on every node.
    DaemonSet,
}

impl WorkloadKind {
    const WORDS: [(&str, Self); 3] =
        [("Deployment", Self::Deployment), ("StatefulSet", Self::StatefulSet), ("DaemonSet", Self::DaemonSet)];

    /// The kind of an object, with its word; core calls a kind that it does not read by its group, too.
    pub(super) fn of(object: &Object) -> Option<(&'static str, Self)> {
        let kind = object.key.kind.strip_suffix(".apps")?;
        Self::WORDS.into_iter().find(|(word, _)| *word == kind)
    }
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// `name`.
    pub name: Option<String>,
    /// `containerPort`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
}

/// The workloads of a set, and what is wrong with them.
pub fn workloads(objects: &ObjectSet) -> (Vec<Workload>, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut workloads = Vec::new();
    for object in &objects.objects {
        if let Some((word, kind)) = WorkloadKind::of(object) {
            let dump = dump(object);
            let mut read = Reader { object, dump: &dump, findings: &mut findings };
            workloads.extend(read.workload(word, kind));
        }
    }
    workloads.sort_by(|a, b| a.key.cmp(&b.key));
    (workloads, findings)
}

const SELECTOR: &str = "spec.selector.matchLabels";
const LABELS: &str = "spec.template.metadata.labels";
const POD: &str = "spec.template.spec";

/// Reads one object and notes what is wrong with it.
struct Reader<'a> {
    object: &'a Object,
    dump: &'a Value,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Reader<'a> {
    fn workload(&mut self, word: &str, kind: WorkloadKind) -> Option<Workload> {
        if self.field("apiVersion").as_str() != Some("apps/v1") {
            self.wrong(
                "apiVersion",
                format!("Kubernetes has no {word} in this version"),
                "write `apiVersion: apps/v1`",
            );
            return None;
        }
        if !self.field("spec.template").is_object() {
            self.wrong("spec.template", "`template` is required: it says what the pods are", "");
            return None;
        }
        let labels = self.texts(LABELS);
        self.selector(&labels)?;
        if self.field(POD)["hostNetwork"] == Value::Bool(true) {
            let message = "its pods use the node's own network; the lab does not run them";
            self.wrong(&format!("{POD}.hostNetwork"), message, "").severity = Severity::Warning;
            return None;
        }
        let own = &self.object.key.name;
        let namespace = if own.namespace.is_empty() { "default".into() } else { own.namespace.clone() };
        Some(Workload {
            key: ObjectKey { kind: word.into(), name: ObjectName { namespace, name: own.name.clone() } },
            kind,
            replicas: self.replicas(),
            labels,
            ports: self.ports()?,
            node: self.text(&format!("{POD}.nodeName")).map(NodeName::new),
            node_selector: self.texts(&format!("{POD}.nodeSelector")),
            subdomain: match kind {
                WorkloadKind::StatefulSet => self.text("spec.serviceName").map(str::to_owned),
                WorkloadKind::Deployment | WorkloadKind::DaemonSet => None,
            },
            template: name::digest(&[&self.field("spec.template").to_string()]),
        })
    }

    /// Pods that their own workload does not select would never be counted: the API server refuses that.
    fn selector(&mut self, labels: &BTreeMap<String, String>) -> Option<()> {
        let selector = self.texts(SELECTOR);
        let has_expressions =
            self.field("spec.selector.matchExpressions").as_array().is_some_and(|all| !all.is_empty());
        if selector.is_empty() && !has_expressions {
            let help = "write the labels of the pods into `selector.matchLabels`";
            self.wrong("spec.selector", "`selector` is required", help);
            return None;
        }
        let (name, value) = match selector.iter().find(|(name, value)| labels.get(*name) != Some(value)) {
            None => return Some(()),
            Some(missing) => missing,
        };
        let message = format!("it selects `{name}: {value}`, which is no label of its pods");
        self.wrong(SELECTOR, message, "write it into `template.metadata.labels`");
        None
    }

    fn replicas(&mut self) -> u32 {
        let field = self.field("spec.replicas");
        let number = field.as_u64().and_then(|number| u32::try_from(number).ok());
        if number.is_none() && !field.is_null() {
            self.wrong("spec.replicas", format!("{field} is no number of pods; 1 is taken"), "");
        }
        number.unwrap_or(1)
    }

    fn ports(&mut self) -> Option<Vec<ContainerPort>> {
        let path = format!("{POD}.containers");
        let containers = self.field(&path).as_array().map(Vec::as_slice).unwrap_or_default();
        if containers.is_empty() {
            self.wrong(&path, "`containers` is required", "");
            return None;
        }
        let mut ports = Vec::new();
        for (index, container) in containers.iter().enumerate() {
            let path = format!("{path}[{index}].ports");
            match &container["ports"] {
                Value::Null => {}
                Value::Array(list) => {
                    let read = |(index, port)| self.port(port, &format!("{path}[{index}]"));
                    ports.extend(list.iter().enumerate().filter_map(read));
                }
                other => drop(self.wrong(&path, format!("{other} is no list of ports; it is left out"), "")),
            }
        }
        Some(ports)
    }

    fn port(&mut self, port: &Value, path: &str) -> Option<ContainerPort> {
        let number = &port["containerPort"];
        let Some(port_number) = number.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) else {
            let message = format!("{number} is no port from 1 to 65535; it is left out");
            self.wrong(&format!("{path}.containerPort"), message, "");
            return None;
        };
        let protocol = match port["protocol"].as_str() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(other) => {
                let message = format!("`{}` is no protocol of a port; it is left out", other.escape_debug());
                self.wrong(&format!("{path}.protocol"), message, "write TCP, UDP or SCTP");
                return None;
            }
        };
        Some(ContainerPort { name: port["name"].as_str().map(str::to_owned), port: port_number, protocol })
    }

    /// A text that is not empty.
    fn text(&self, path: &str) -> Option<&'a str> {
        self.field(path).as_str().filter(|text| !text.is_empty())
    }

    /// A mapping of texts, such as labels.
    fn texts(&mut self, path: &str) -> BTreeMap<String, String> {
        let empty = Map::new();
        let field = self.field(path);
        if !field.is_null() && !field.is_object() {
            self.wrong(path, "a mapping of texts is needed; it is left out", "");
        }
        let mut texts = BTreeMap::new();
        for (name, value) in field.as_object().unwrap_or(&empty) {
            match value.as_str() {
                Some(text) => drop(texts.insert(name.clone(), text.to_owned())),
                None => {
                    let message = format!("`{}` is {value}, not text; it is left out", name.escape_debug());
                    self.wrong(path, message, "put it in quotation marks");
                }
            }
        }
        texts
    }

    /// A field by its path, in which no name holds a dot; `null` if it is absent.
    fn field(&self, path: &str) -> &'a Value {
        path.split('.').fold(self.dump, |value, key| value.get(key).unwrap_or(&Value::Null))
    }

    fn wrong(&mut self, field: &str, message: impl Into<String>, help: &str) -> &mut Finding {
        let finding = Finding::new(Code::ObjectInvalid, self.object.place(field), message).help(help);
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
}
