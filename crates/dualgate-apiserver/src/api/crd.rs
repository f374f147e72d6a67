//! CustomResourceDefinitions: at once established, since nothing has to be compiled for them here.

use serde_json::{Value, json};

use super::{Api, fields};
use crate::store::Key;
use crate::time::Timestamp;

/// Fills in names and conditions, as their controllers do.
pub(super) fn establish(definition: &mut Value, now: Timestamp) {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let names = fields(&mut definition["spec"]["names"]);
    names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    let names = names.clone();
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
    let condition = |kind: &str, reason: &str, message: &str| {
        let at = now.to_string();
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at})
    };
    definition["status"] = json!({
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": names,
        "storedVersions": stored,
    });
}

impl Api {
    /// Takes kinds away, and their objects.
    pub(super) fn undefine(&mut self, definition: &Value) {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource =
            format!("{}.{}", word(&definition["spec"]["names"]["plural"]), word(&definition["spec"]["group"]));
        let keys: Vec<Key> = self.store.all(&resource, None).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.store.remove(&resource, &key);
        }
        self.kinds.undefine(definition);
    }
}
