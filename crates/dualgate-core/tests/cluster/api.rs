//! As much of an API server as writes need: server-side apply of a status and of labels, with whose the fields are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dualgate_core::model::ObjectSet;
use dualgate_core::parse::object::object;
use dualgate_core::plan::cluster::{Fields, Write};
use serde_json::{Map, Value, json};

const CONDITION: &str = "k:{\"type\":\"dualgate.dev/AddressAssigned\"}";

/// A field that somebody owns, as a path.
type Field = Vec<String>;

#[derive(Clone, Default)]
pub struct Api {
    objects: BTreeMap<String, Value>,
    /// By object: who owns what, and whether by apply.
    owners: BTreeMap<String, BTreeMap<(String, bool), BTreeSet<Field>>>,
}

impl Api {
    /// Creates an object, or updates all but its status.
    pub fn put(&mut self, mut value: Value) {
        let key = key(&value);
        if let Some(former) = self.objects.get(&key) {
            value["status"] = former["status"].clone();
        }
        self.objects.insert(key, value);
    }

    pub fn delete(&mut self, key: &str) {
        self.objects.remove(key).unwrap_or_else(|| panic!("there is no {key}"));
        self.owners.remove(key);
    }

    /// Another controller updates `status.loadBalancer.ingress`.
    pub fn update(&mut self, manager: &str, key: &str, entries: Value) {
        let value = self.objects.get_mut(key).unwrap_or_else(|| panic!("there is no {key}"));
        let field: Field = ["status", "loadBalancer", "ingress"].map(str::to_owned).to_vec();
        if value["status"]["loadBalancer"]["ingress"] != entries {
            let owners = self.owners.entry(key.to_owned()).or_default();
            for fields in owners.values_mut() {
                fields.remove(&field);
            }
            owners.entry((manager.to_owned(), false)).or_default().insert(field);
        }
        value["status"]["loadBalancer"] = json!({ "ingress": entries });
    }

    /// Server-side apply by `dualgate`, with force.
    pub fn apply(&mut self, write: &Write, now: i64) {
        assert_eq!(self.try_apply(write, true, now), Ok(()));
    }

    /// The same; without force it is refused if somebody else has another value there: whose object it is.
    pub fn try_apply(&mut self, write: &Write, force: bool, now: i64) -> Result<(), String> {
        let (key, body) = (write.object.to_string(), write.body(now));
        assert_eq!(self::key(&body), key);
        let value = self.objects.get_mut(&key).unwrap_or_else(|| panic!("there is no {key}"));
        let fields = fields(&body, &write.fields);
        let owners = self.owners.entry(key).or_default();
        let differs = |field: &Field, to: &Value| at(value, field) != Some(to);
        let is_others =
            |field: &Field| owners.iter().find(|((manager, _), owned)| manager != "dualgate" && owned.contains(field));
        if let Some(((manager, _), _)) =
            fields.iter().filter(|(field, to)| !force && differs(field, to)).find_map(|(field, _)| is_others(field))
        {
            return Err(manager.clone());
        }
        let ours = owners.remove(&("dualgate".to_owned(), true)).unwrap_or_default();
        for field in ours.difference(&fields.keys().cloned().collect()) {
            if !owners.values().any(|owned| owned.contains(field)) {
                set(value, field, None);
            }
        }
        for (field, to) in &fields {
            if at(value, field) != Some(to) {
                for owned in owners.values_mut() {
                    owned.remove(field);
                }
            }
            set(value, field, Some(to.clone()));
        }
        if !fields.is_empty() {
            owners.insert(("dualgate".to_owned(), true), fields.into_keys().collect());
        }
        Ok(())
    }

    /// Everything, as it is watched.
    pub fn set(&self) -> ObjectSet {
        let mut set = ObjectSet::default();
        for (key, value) in &self.objects {
            let mut value = value.clone();
            value["metadata"]["managedFields"] = self.managed(key).into();
            let parsed = object(&value, None);
            assert!(parsed.refused.is_empty() && parsed.objects.len() == 1, "{value}: {:?}", parsed.findings);
            set.objects.extend(parsed.objects.into_iter().map(Arc::new));
        }
        set.objects.sort_by(|a, b| a.key.cmp(&b.key));
        set
    }

    /// The objects as they are, without whose they are.
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.objects
    }

    /// How many objects have fields of ours.
    pub fn count_ours(&self) -> usize {
        self.owners.values().filter(|owners| owners.contains_key(&("dualgate".to_owned(), true))).count()
    }

    fn managed(&self, key: &str) -> Vec<Value> {
        let mut entries = Vec::new();
        for ((manager, applied), fields) in self.owners.get(key).into_iter().flatten() {
            if fields.is_empty() {
                continue;
            }
            let mut tree = json!({});
            for field in fields {
                let step = |tree, part: &String| &mut tree_of(tree)[format!("f:{part}").replace("f:k:", "k:")];
                *field.iter().fold(&mut tree, step) = json!({});
            }
            let mut entry = json!({
                "manager": manager, "operation": if *applied { "Apply" } else { "Update" }, "fieldsV1": tree,
            });
            if fields.iter().any(|field| field[0] == "status") {
                entry["subresource"] = "status".into();
            }
            entries.push(entry);
        }
        entries
    }
}

fn tree_of(value: &mut Value) -> &mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    value
}

fn key(value: &Value) -> String {
    let metadata = &value["metadata"];
    let (kind, name) = (value["kind"].as_str().unwrap(), metadata["name"].as_str().unwrap());
    match (kind, metadata["namespace"].as_str()) {
        ("Node" | "IngressClass", _) => format!("{kind} {name}"),
        (_, namespace) => format!("{kind} {}/{name}", namespace.unwrap_or("default")),
    }
}

/// What a body applies, and nothing else may be in it.
fn fields(body: &Value, written: &Fields) -> BTreeMap<Field, Value> {
    let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Field>();
    let mut fields = BTreeMap::new();
    let mut bare = body.clone();
    match written {
        Fields::Status { .. } => {
            let status = body["status"].as_object().cloned().unwrap_or_default();
            for (name, value) in status {
                match name.as_str() {
                    "loadBalancer" => {
                        fields.insert(path(&["status", "loadBalancer", "ingress"]), value["ingress"].clone())
                    }
                    "conditions" => fields.insert(path(&["status", "conditions", CONDITION]), value[0].clone()),
                    other => panic!("`{other}` is written"),
                };
            }
            bare.as_object_mut().unwrap().remove("status");
        }
        Fields::Labels(_) => {
            for (name, value) in body["metadata"]["labels"].as_object().unwrap() {
                fields.insert(path(&["metadata", "labels", name]), value.clone());
            }
            bare["metadata"].as_object_mut().unwrap().remove("labels");
        }
    }
    bare["metadata"].as_object_mut().unwrap().retain(|name, _| name != "name" && name != "namespace");
    let kind = (&body["apiVersion"], &body["kind"]);
    assert_eq!(bare, json!({ "apiVersion": kind.0, "kind": kind.1, "metadata": {} }));
    fields
}

fn at<'a>(value: &'a Value, field: &Field) -> Option<&'a Value> {
    match field[1].as_str() {
        "conditions" => condition(value["status"]["conditions"].as_array()?),
        _ => value.get(&field[0])?.get(&field[1])?.get(&field[2]),
    }
}

fn condition(conditions: &[Value]) -> Option<&Value> {
    conditions.iter().find(|condition| condition["type"] == "dualgate.dev/AddressAssigned")
}

fn set(value: &mut Value, field: &Field, to: Option<Value>) {
    if field[1] == "conditions" {
        let former = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let others = former.into_iter().filter(|condition| condition["type"] != "dualgate.dev/AddressAssigned");
        value["status"]["conditions"] = others.chain(to).collect();
        return;
    }
    let parent = &mut tree_of(&mut value[&field[0]])[&field[1]];
    match to {
        Some(to) => tree_of(parent)[&field[2]] = to,
        None => drop(parent.as_object_mut().map(|map: &mut Map<String, Value>| map.remove(&field[2]))),
    }
}
