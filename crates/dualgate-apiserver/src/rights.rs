//! What somebody may do: RBAC (`rbac.authorization.k8s.io/v1`), from the roles and bindings that are among the objects at
//! this moment. Paths that every cluster lets all who are known read ([`OPEN`]) need no role. What there is none of:
//! aggregated roles, the roles that a cluster brings with it, and the rule that nobody grants what they may not do
//! themselves (`escalate`, `bind`).

use serde_json::Value;

use crate::api::{Api, ListOptions, Part, Target, items, text};
use crate::failure::Failure;
use crate::users::{MASTERS, User, account};

/// What all who are known may read: the role `system:discovery`.
const OPEN: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];

/// What somebody wants to do with objects.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub(crate) verb: String,
    pub(crate) group: String,
    /// `ingresses`, `ingresses/status`.
    pub(crate) resource: String,
    /// Empty for the whole cluster.
    pub(crate) namespace: String,
    /// Empty for no object in particular.
    pub(crate) name: String,
}

impl Attributes {
    /// A verb at a target. A Namespace lies in itself.
    pub(crate) fn new(verb: &str, target: &Target) -> Self {
        let (kind, name) = (&target.kind, target.name.clone());
        let resource = match target.part {
            Part::Main => kind.plural.clone(),
            Part::Status => format!("{}/status", kind.plural),
        };
        let namespace = if kind.is("Namespace") { name.clone() } else { target.namespace.clone() };
        Self { verb: verb.to_owned(), group: kind.group.clone(), resource, namespace, name }
    }

    fn is_in(&self, rule: &Value) -> bool {
        let names = texts(rule, "resourceNames");
        let resource = |allowed: &&str| {
            let of_any = allowed.strip_prefix("*/").zip(self.resource.split_once('/'));
            *allowed == "*" || *allowed == self.resource || of_any.is_some_and(|(one, (_, other))| one == other)
        };
        texts(rule, "verbs").iter().any(|verb| *verb == "*" || *verb == self.verb)
            && texts(rule, "apiGroups").iter().any(|group| *group == "*" || *group == self.group)
            && texts(rule, "resources").iter().any(resource)
            && (names.is_empty() || names.contains(&&*self.name))
    }
}

/// Refuses what no rule allows, in the words of an API server.
pub(crate) fn check(api: &Api, user: &User, wanted: &Attributes) -> Result<(), Failure> {
    if may(api, user, wanted) { Ok(()) } else { Err(refusal(user, wanted)) }
}

/// Refuses to read a path that leads to no objects, or to do something else there.
pub(crate) fn check_path(api: &Api, user: &User, method: &str, path: &str) -> Result<(), Failure> {
    let verb = method.to_lowercase();
    let is_open = verb == "get" && OPEN.iter().any(|open| covers(open, path));
    let is_in = |rule: &Value| {
        texts(rule, "verbs").iter().any(|allowed| *allowed == "*" || *allowed == verb)
            && texts(rule, "nonResourceURLs").iter().any(|allowed| covers(allowed, path))
    };
    if is_open || allows(api, user, "", is_in) {
        return Ok(());
    }
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
    Err(Failure::not_allowed(message, serde_json::json!({})))
}

/// Whether a rule allows it.
pub(crate) fn may(api: &Api, user: &User, wanted: &Attributes) -> bool {
    allows(api, user, &wanted.namespace, |rule| wanted.is_in(rule))
}

/// Whether a rule that this user has in a namespace, or everywhere, is as it should be. Whoever is master needs none.
fn allows(api: &Api, user: &User, namespace: &str, is_it: impl Fn(&Value) -> bool) -> bool {
    if user.groups.iter().any(|group| group == MASTERS) {
        return true;
    }
    let everywhere = all(api, "ClusterRoleBinding", "");
    let here = if namespace.is_empty() { Vec::new() } else { all(api, "RoleBinding", namespace) };
    let binds = |binding: &&Value| {
        let namespace = text(binding, "/metadata/namespace");
        items(binding, "/subjects").iter().any(|subject| is(subject, user, namespace))
    };
    let mut roles = everywhere.iter().chain(&here).filter(binds).filter_map(|binding| role(api, binding));
    roles.any(|role| items(&role, "/rules").iter().any(&is_it))
}

/// Whether `/healthz/*` covers a path.
fn covers(allowed: &str, path: &str) -> bool {
    allowed.strip_suffix('*').map_or(allowed == path, |prefix| path.starts_with(prefix))
}

/// Whether the subject of a binding is this user.
fn is(subject: &Value, user: &User, namespace: &str) -> bool {
    let name = text(subject, "/name");
    match text(subject, "/kind") {
        "User" => user.name == name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = Some(text(subject, "/namespace")).filter(|own| !own.is_empty());
            user.name == account(own.unwrap_or(namespace), name)
        }
        _ => false,
    }
}

/// The role of a binding: of the whole cluster, or of the binding's namespace.
fn role(api: &Api, binding: &Value) -> Option<Value> {
    let kind = text(binding, "/roleRef/kind");
    let namespace = if kind == "Role" { text(binding, "/metadata/namespace") } else { "" };
    let target = place(api, kind, namespace, text(binding, "/roleRef/name"))?;
    api.find(&target).ok().map(|entry| entry.value.clone())
}

fn all(api: &Api, kind: &str, namespace: &str) -> Vec<Value> {
    let listed = place(api, kind, namespace, "").and_then(|place| api.list(&place, &ListOptions::default()).ok());
    listed.map(|list| list.items.iter().map(|entry| entry.value.clone()).collect()).unwrap_or_default()
}

fn place(api: &Api, kind: &str, namespace: &str, name: &str) -> Option<Target> {
    let kind = api.kinds.by_kind("rbac.authorization.k8s.io/v1", kind)?;
    Some(Target { kind, namespace: namespace.to_owned(), name: name.to_owned(), part: Part::Main })
}

fn refusal(user: &User, wanted: &Attributes) -> Failure {
    let Attributes { verb, group, resource, namespace, name } = wanted;
    let plural = resource.split('/').next().unwrap_or_default();
    let what = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let place = match namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let message = format!(
        "{what}{named} is forbidden: User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}",
        user.name
    );
    Failure::not_allowed(message, serde_json::json!({"name": name, "group": group, "kind": plural}))
}

fn texts<'a>(rule: &'a Value, field: &str) -> Vec<&'a str> {
    rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
