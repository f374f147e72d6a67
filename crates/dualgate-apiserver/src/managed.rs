//! Who manages which field: `metadata.managedFields`, kept by every write, and server-side apply, which is decided by it.

use serde_json::{Value, json};

use crate::api::{Caller, OnConflict, Part, Target};
use crate::failure::Cause;
use crate::merge::apply::{self, Comparison};
use crate::merge::fields::Fields;
use crate::merge::shape::{self, Shape};

/// Who owns what of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Claims(Vec<Claim>);

/// An apply met fields of others; each cause names one.
#[derive(Debug)]
pub(crate) struct Contested(pub(crate) Vec<Cause>);

#[derive(Clone, Debug, PartialEq)]
struct Claim {
    name: String,
    operation: Operation,
    api_version: String,
    part: Part,
    time: String,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Apply,
    Update,
}

/// Nobody owns these: the server writes them, or they say which object it is.
const NOBODYS: [&[&str]; 13] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "deletionGracePeriodSeconds"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
];

/// These are there in every object of a kind, so that nobody can have added them.
const ALWAYS_THERE: [&[&str]; 2] = [&["spec"], &["status"]];

/// Writes who manages the fields of an object that was created by other means than apply.
pub(crate) fn created(target: &Target, object: &mut Value, caller: &Caller) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    updated(target, &json!({"metadata": {}}), object, caller);
}

/// Gives what differs from `live` to the one who wrote it.
pub(crate) fn updated(target: &Target, live: &Value, object: &mut Value, caller: &Caller) {
    let given = &object["metadata"]["managedFields"];
    let is_reset =
        given.as_array().is_some_and(|given| given.len() == 1 && given[0].as_object().is_some_and(|of| of.is_empty()));
    let mut managers = Claims::read(if is_reset { &Value::Null } else { given });
    if managers.0.is_empty() && !is_reset {
        managers = Claims::read(&live["metadata"]["managedFields"]);
    }
    let shape = shape::of(&target.kind);
    let difference = apply::compare(live, object, shape);
    managers.lose(&difference, None);
    let taken = owned(target, difference.added.union(&difference.modified));
    if !taken.is_empty() {
        let manager = managers.entry(target, Operation::Update, caller);
        manager.fields = std::mem::take(&mut manager.fields).union(&taken);
        manager.time = caller.now.to_string();
    }
    write(object, live, managers);
}

/// Writes who manages the fields of an object that was created by apply.
pub(crate) fn applied_at_creation(target: &Target, wanted: &Value, object: &mut Value, caller: &Caller) {
    let wanted = part_of(target, wanted.clone());
    let mut managers = Claims::default();
    let manager = managers.entry(target, Operation::Apply, caller);
    manager.fields = owned(target, apply::fields_of(&wanted, shape::of(&target.kind)));
    manager.time = caller.now.to_string();
    write(object, &Value::Null, managers);
}

/// What `live` becomes when this manager wants exactly `wanted`, and who owns what of it then.
pub(crate) fn apply(
    target: &Target,
    live: &Value,
    wanted: Value,
    on_conflict: OnConflict,
    caller: &Caller,
) -> Result<(Value, Claims), Contested> {
    let shape = shape::of(&target.kind);
    let wanted = part_of(target, wanted);
    let mut managers = Claims::read(&live["metadata"]["managedFields"]);
    let manager = managers.entry(target, Operation::Apply, caller);
    let fields = owned(target, apply::fields_of(&wanted, shape));
    let last = std::mem::replace(&mut manager.fields, fields);
    let merged = apply::merge(live, &wanted, shape);
    let pruned = apply::prune(&merged, &last, &managers.all(), shape);
    let difference = apply::compare(live, &pruned, shape);
    let mine = Some((caller.manager.as_str(), target.part));
    let contested = managers.contested(&difference, mine, &allowed(live, caller, shape));
    if !contested.is_empty() && on_conflict == OnConflict::Refuse {
        return Err(Contested(contested));
    }
    managers.lose(&difference, mine);
    managers.entry(target, Operation::Apply, caller).time = caller.now.to_string();
    managers.0.retain(|manager| !manager.fields.is_empty());
    Ok((pruned, managers))
}

/// Puts the managers into an object. If nothing else than a time would change, nothing does.
pub(crate) fn write(object: &mut Value, live: &Value, managers: Claims) {
    let mut managers = managers;
    managers.0.retain(|manager| !manager.fields.is_empty());
    let metadata = object["metadata"].as_object_mut();
    let metadata = metadata.unwrap_or_else(|| unreachable!("every object has metadata"));
    let before = &live["metadata"]["managedFields"];
    if before.is_null() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), before.clone());
    }
    if *object == *live && Claims::read(before).is_timelessly(&managers) {
        return;
    }
    if managers.0.is_empty() {
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
    } else {
        object["metadata"]["managedFields"] = managers.to_json();
    }
}

/// What of an applied object counts at this endpoint: the status alone, or everything else.
fn part_of(target: &Target, mut wanted: Value) -> Value {
    let Some(fields) = wanted.as_object_mut() else { return wanted };
    match target.part {
        Part::Main if target.kind.has_status() => drop(fields.remove("status")),
        Part::Main => {}
        Part::Status => fields.retain(|name, _| name == "status" || (name == "metadata" && !target.kind.custom)),
    }
    wanted
}

/// What of these fields can be somebody's who writes at this endpoint.
fn owned(target: &Target, mut fields: Fields) -> Fields {
    if target.part == Part::Main && target.kind.has_status() {
        fields.remove_below("status");
    }
    for path in NOBODYS.into_iter().chain(ALWAYS_THERE) {
        fields.remove(path);
    }
    fields
}

/// What `kubectl apply --server-side` may take over from a former `kubectl apply`: the fields that are still as that one
/// left them in its annotation.
fn allowed(live: &Value, caller: &Caller, shape: &Shape) -> Fields {
    let annotation = &live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    if caller.manager != "kubectl" {
        return Fields::default();
    }
    let Some(last) = annotation.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Fields::default();
    };
    let changed = apply::compare(&last, live, shape);
    apply::fields_of(&last, shape).difference(&changed.modified.union(&changed.removed))
}

impl Claims {
    fn read(json: &Value) -> Self {
        let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let manager = |entry: &Value| Claim {
            name: word(entry, "manager"),
            operation: if entry["operation"] == "Apply" { Operation::Apply } else { Operation::Update },
            api_version: word(entry, "apiVersion"),
            part: if entry["subresource"] == "status" { Part::Status } else { Part::Main },
            time: word(entry, "time"),
            fields: Fields::from_json(&entry["fieldsV1"]),
        };
        let entries = json.as_array().map_or(&[][..], Vec::as_slice).iter();
        Self(entries.filter(|entry| !entry["fieldsV1"].is_null()).map(manager).collect())
    }

    fn to_json(&self) -> Value {
        Value::Array(self.0.iter().map(Claim::to_json).collect())
    }

    /// The entry of this caller.
    fn entry(&mut self, target: &Target, operation: Operation, caller: &Caller) -> &mut Claim {
        let api_version = target.kind.api_version();
        let is_mine = |of: &Claim| {
            let is_same_version = operation == Operation::Apply || of.api_version == api_version;
            of.is(&caller.manager, operation, target.part) && is_same_version
        };
        let index = self.0.iter().position(is_mine).unwrap_or_else(|| {
            let (name, api_version) = (caller.manager.clone(), api_version.clone());
            let (time, fields) = (String::new(), Fields::default());
            self.0.push(Claim { name, operation, api_version, part: target.part, time, fields });
            self.0.len() - 1
        });
        self.0[index].api_version = api_version;
        &mut self.0[index]
    }

    fn all(&self) -> Fields {
        self.0.iter().fold(Fields::default(), |all, manager| all.union(&manager.fields))
    }

    /// Takes from all what changed without them; `applier` is not asked about its own.
    fn lose(&mut self, difference: &Comparison, applier: Option<(&str, Part)>) {
        let changed = difference.added.clone().union(&difference.modified);
        for manager in &mut self.0 {
            if applier.is_some_and(|(name, part)| manager.is(name, Operation::Apply, part)) {
                continue;
            }
            manager.fields = manager.fields.difference(&changed).difference(&difference.removed);
        }
    }

    fn contested(&self, difference: &Comparison, applier: Option<(&str, Part)>, allowed: &Fields) -> Vec<Cause> {
        let changed = difference.added.clone().union(&difference.modified);
        let others =
            self.0.iter().filter(|of| !applier.is_some_and(|(name, part)| of.is(name, Operation::Apply, part)));
        let causes = others.flat_map(|of| {
            let fields = of.fields.intersection(&changed).difference(allowed);
            fields.paths().into_iter().map(|path| Cause::conflict(path, &of.shown())).collect::<Vec<_>>()
        });
        causes.collect()
    }

    fn is_timelessly(&self, other: &Self) -> bool {
        let timeless = |managers: &Self| {
            let mut managers = managers.clone();
            managers.0.iter_mut().for_each(|manager| manager.time.clear());
            managers
        };
        timeless(self) == timeless(other)
    }
}

impl Claim {
    fn is(&self, name: &str, operation: Operation, part: Part) -> bool {
        self.name == name && self.operation == operation && self.part == part
    }

    fn to_json(&self) -> Value {
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let mut entry = json!({
            "manager": self.name, "operation": operation, "apiVersion": self.api_version, "time": self.time,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if self.part == Part::Status {
            entry["subresource"] = json!("status");
        }
        entry
    }

    /// As a conflict names it.
    fn shown(&self) -> String {
        let part = match self.part {
            Part::Main => "",
            Part::Status => " with subresource \"status\"",
        };
        match self.operation {
            Operation::Apply => format!("{:?}{part}", self.name),
            Operation::Update => format!("{:?}{part} using {} at {}", self.name, self.api_version, self.time),
        }
    }
}
