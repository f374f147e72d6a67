//! Waits until what was installed runs.

use std::time::Duration;

use dualgate_core::model::NodeName;
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{NAMESPACE, rollout};
use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::InstallError;
use super::api::Api;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until a DaemonSet of ours runs on its nodes as it was applied. Returns what is missing at the end of the
/// patience: nothing, if it does. `progress` hears what is missing whenever that changes.
///
/// # Errors
///
/// If the API server cannot be asked.
pub async fn wait(
    client: &Client,
    name: &str,
    nodes: &[NodeName],
    patience: Duration,
    mut progress: impl FnMut(&[String]),
) -> Result<Vec<String>, InstallError> {
    let (api, deadline) = (Api::new(client.clone()), Instant::now() + patience);
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name, "namespace": NAMESPACE},
    });
    let Some(id) = ObjectId::of(&set) else { return Ok(Vec::new()) };
    let mut told = None;
    loop {
        let missing = match api.get(&id).await? {
            Some(set) => rollout::missing(&set, &pods(&api, &set).await?, nodes),
            None => vec![format!("there is no {id}")],
        };
        if missing.is_empty() || Instant::now() >= deadline {
            return Ok(missing);
        }
        if told.as_ref() != Some(&missing) {
            progress(&missing);
            told = Some(missing);
        }
        sleep(LOOK).await;
    }
}

/// The pods that the DaemonSet selects.
async fn pods(api: &Api, set: &Value) -> Result<Vec<Value>, InstallError> {
    let labels = set["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}%3D{}", value.as_str().unwrap_or(""))).collect();
    api.list(&format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={}", labels.join("%2C"))).await
}
