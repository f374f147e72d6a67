//! Label selectors and field selectors, as they stand in a query.

use serde_json::Value;

use crate::failure::Failure;
use crate::kinds::Kind;

/// Which objects of a kind are meant. The empty one means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRule {
    In(String, Vec<String>),
    /// Also true without the label.
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRule {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = split(labels).into_iter().map(label_rule).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(|rule| field_rule(kind, rule)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one object that it is about, if it names one.
    pub(crate) fn name(&self) -> Option<&str> {
        let is_name = |rule: &&FieldRule| rule.path == "metadata.name" && rule.equal;
        self.fields.iter().find(is_name).map(|rule| rule.value.as_str())
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|rule| rule.matches(labels)) && self.fields.iter().all(|rule| rule.matches(object))
    }
}

impl LabelRule {
    fn matches(&self, labels: &Value) -> bool {
        match self {
            Self::In(name, values) => labels[name].as_str().is_some_and(|value| values.iter().any(|of| of == value)),
            Self::NotIn(name, values) => {
                !labels[name].as_str().is_some_and(|value| values.iter().any(|of| of == value))
            }
            Self::Exists(name) => !labels[name].is_null(),
            Self::Absent(name) => labels[name].is_null(),
        }
    }
}

impl FieldRule {
    fn matches(&self, object: &Value) -> bool {
        let value = self.path.split('.').fold(object, |value, name| &value[name]);
        let is_equal = match value {
            Value::Null => self.value.is_empty() || self.value == "false",
            Value::String(text) => *text == self.value,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => self.value == format!("{value}"),
        };
        is_equal == self.equal
    }
}

/// At commas, except within parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = |letter: char| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    };
    text.split(at_comma).map(str::trim).filter(|rule| !rule.is_empty()).collect()
}

fn label_rule(rule: &str) -> Result<LabelRule, Failure> {
    let unreadable = || Failure::bad_request(format!("unable to parse requirement: {rule:?}"));
    let one = |name: &str, value: &str| (name.trim().to_owned(), vec![value.trim().to_owned()]);
    let parsed = if let Some((name, value)) = rule.split_once("!=") {
        let (name, values) = one(name, value);
        LabelRule::NotIn(name, values)
    } else if let Some((name, value)) = rule.split_once("==").or_else(|| rule.split_once('=')) {
        let (name, values) = one(name, value);
        LabelRule::In(name, values)
    } else if let Some((left, values)) = rule.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(unreadable)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match left.split_whitespace().collect::<Vec<_>>()[..] {
            [name, "in"] => LabelRule::In(name.to_owned(), values),
            [name, "notin"] => LabelRule::NotIn(name.to_owned(), values),
            _ => return Err(unreadable()),
        }
    } else if let Some(name) = rule.strip_prefix('!') {
        LabelRule::Absent(name.trim().to_owned())
    } else {
        LabelRule::Exists(rule.to_owned())
    };
    let (LabelRule::In(name, _) | LabelRule::NotIn(name, _) | LabelRule::Exists(name) | LabelRule::Absent(name)) =
        &parsed;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(unreadable());
    }
    Ok(parsed)
}

fn field_rule(kind: &Kind, rule: &str) -> Result<FieldRule, Failure> {
    let (path, value, equal) = if let Some((path, value)) = rule.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = rule.split_once("==").or_else(|| rule.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid selector: {rule:?}; can't understand {rule:?}")));
    };
    if !is_selectable(kind, path) {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    Ok(FieldRule { path: path.to_owned(), value: value.to_owned(), equal })
}

fn is_selectable(kind: &Kind, path: &str) -> bool {
    let own: &[&str] = match kind.kind.as_str() {
        _ if kind.custom => &[],
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "Service" => &["spec.clusterIP", "spec.type"],
        "Secret" => &["type"],
        "Node" => &["spec.unschedulable"],
        "Namespace" => &["status.phase"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "ReplicaSet" => &["status.replicas"],
        _ => &[],
    };
    path == "metadata.name" || (path == "metadata.namespace" && kind.is_namespaced()) || own.contains(&path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::Kinds;

    fn matches(labels: &str, fields: &str) -> bool {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "apps", "labels": {"app": "web", "tier": "front"}},
            "spec": {"nodeName": "node1"}, "status": {"phase": "Running"},
        });
        Selector::parse(&Kinds::new().by_word("pods").unwrap(), labels, fields).unwrap().matches(&pod)
    }

    #[test]
    fn labels_are_compared_as_kubernetes_does() {
        for rules in
            ["", "app", "app=web", "app==web,tier=front", "app in (web, db),tier", "app notin (db)", "!gone", "gone!=x"]
        {
            assert!(matches(rules, ""), "{rules}");
        }
        for rules in ["gone", "app=db", "app!=web", "app in (db)", "app notin (web,db)", "!app", "app=web,tier=back"] {
            assert!(!matches(rules, ""), "{rules}");
        }
    }

    #[test]
    fn fields_are_compared_as_kubernetes_does() {
        for rules in [
            "metadata.name=web",
            "status.phase!=Failed",
            "spec.nodeName=node1,metadata.namespace=apps",
            "spec.hostNetwork=false",
        ] {
            assert!(matches("", rules), "{rules}");
        }
        for rules in ["metadata.name=db", "status.phase!=Running", "spec.nodeName="] {
            assert!(!matches("", rules), "{rules}");
        }
    }

    #[test]
    fn who_names_an_object_names_one() {
        let kinds = Kinds::new();
        let name = |fields: &str| {
            let selector = Selector::parse(&kinds.by_word("pods").unwrap(), "", fields).unwrap();
            selector.name().map(str::to_owned)
        };
        for fields in ["metadata.name=web", "metadata.name==web", "status.phase!=Failed,metadata.name=web"] {
            assert_eq!(name(fields).as_deref(), Some("web"), "{fields}");
        }
        for fields in ["", "metadata.name!=web", "metadata.namespace=web"] {
            assert_eq!(name(fields), None, "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_selected_is_refused() {
        let kinds = Kinds::new();
        let parse = |kind: &str, labels: &str, fields: &str| {
            Selector::parse(&kinds.by_word(kind).unwrap(), labels, fields).unwrap_err().message
        };
        assert_eq!(parse("nodes", "", "metadata.namespace=x"), "field label not supported: metadata.namespace");
        assert_eq!(parse("pods", "", "spec.foo=x"), "field label not supported: spec.foo");
        assert_eq!(parse("pods", "a in b)", ""), "unable to parse requirement: \"a in b)\"");
        assert_eq!(parse("pods", "a in (b", ""), "unable to parse requirement: \"a in (b\"");
    }
}
