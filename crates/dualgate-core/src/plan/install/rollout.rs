//! Whether what was installed runs: a judgement of a DaemonSet and its pods.

use serde_json::Value;

use crate::model::NodeName;

/// What is missing until every node runs the DaemonSet as it was applied; nothing when it does.
pub fn missing(set: &Value, pods: &[Value], nodes: &[NodeName]) -> Vec<String> {
    let count = |path: &str| set.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    if count("/status/observedGeneration") < count("/metadata/generation") {
        return vec!["the cluster has not looked at it yet".to_owned()];
    }
    let mut missing: Vec<String> = nodes.iter().filter_map(|node| of_node(node, pods)).collect();
    let (updated, wanted) = (count("/status/updatedNumberScheduled"), count("/status/desiredNumberScheduled"));
    if missing.is_empty() && updated < wanted {
        missing.push(format!("{} of {wanted} pods are still of the former form", wanted - updated));
    }
    if missing.is_empty() && count("/status/numberAvailable") < wanted {
        missing.push("not every pod has been ready for long enough".to_owned());
    }
    missing
}

fn of_node(node: &NodeName, pods: &[Value]) -> Option<String> {
    let is_there = |pod: &&Value| meant_for(pod) == Some(node.as_str());
    let goes = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    let here: Vec<&Value> = pods.iter().filter(is_there).collect();
    let Some(pod) = here.iter().find(|pod| !goes(pod)).or(here.first()) else {
        return Some(format!("{node}: no pod; is there a node whose label `kubernetes.io/hostname` is `{node}`?"));
    };
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    (!ready || goes(pod)).then(|| format!("{node}: {}", reason(pod)))
}

/// The node of a pod; before it was scheduled, the one that the DaemonSet's controller made it for.
fn meant_for(pod: &Value) -> Option<&str> {
    let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    let named = pod.pointer(affinity).map(|term| &term["matchFields"][0]["values"][0]);
    pod["spec"]["nodeName"].as_str().or_else(|| named?.as_str())
}

fn reason(pod: &Value) -> String {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return "the former pod is ending".to_owned();
    }
    let status = &pod["status"]["containerStatuses"][0];
    let waiting = &status["state"]["waiting"];
    let said = [&waiting["reason"], &waiting["message"]];
    let said: Vec<&str> = said.iter().filter_map(|text| text.as_str()).collect();
    if !said.is_empty() {
        return said.join(": ");
    }
    let ended = &status["lastState"]["terminated"]["exitCode"];
    match (status["state"]["running"].is_object(), ended.as_i64()) {
        (true, None) => "it runs and is not ready yet".to_owned(),
        (true, Some(code)) => format!("it runs and is not ready; it has ended before, with exit code {code}"),
        (false, _) => {
            let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let unscheduled = conditions
                .iter()
                .find(|condition| condition["type"] == "PodScheduled" && condition["status"] == "False");
            let why = pod["status"]["message"].as_str().or_else(|| unscheduled?["message"].as_str());
            match (why, &pod["spec"]["nodeName"]) {
                (Some(why), _) => format!("{phase}: {why}"),
                (None, Value::Null) => format!("{phase}: it has not been scheduled"),
                (None, _) => phase.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nodes() -> Vec<NodeName> {
        ["a", "b"].map(NodeName::new).to_vec()
    }

    fn set(updated: u64, available: u64) -> Value {
        json!({"metadata": {"generation": 2}, "status": {
            "observedGeneration": 2, "desiredNumberScheduled": 2,
            "updatedNumberScheduled": updated, "numberAvailable": available,
        }})
    }

    fn ready(node: &str) -> Value {
        json!({"spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn nothing_is_missing_once_every_node_runs_it() {
        assert_eq!(missing(&set(2, 2), &[ready("a"), ready("b")], &nodes()), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_told_by_node() {
        let pulling = json!({"spec": {"nodeName": "a"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
        ]}});
        assert_eq!(
            missing(&set(1, 0), &[pulling], &nodes()),
            [
                "a: ImagePullBackOff: no such image",
                "b: no pod; is there a node whose label `kubernetes.io/hostname` is `b`?",
            ]
        );
        let ended = json!({"spec": {"nodeName": "b"}, "status": {"containerStatuses": [
            {"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 2}}},
        ]}});
        assert_eq!(
            missing(&set(2, 1), &[ready("a"), ended], &nodes()),
            ["b: it runs and is not ready; it has ended before, with exit code 2"]
        );
    }

    #[test]
    fn a_pod_that_is_not_scheduled_is_told_at_the_node_that_it_is_for() {
        let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]);
        let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        let pod = |status: Value| json!({"spec": {"affinity": {"nodeAffinity": affinity}}, "status": status});
        let of_a = |status: Value| missing(&set(1, 0), &[pod(status), ready("b")], &nodes());
        assert_eq!(of_a(json!({"phase": "Pending"})), ["a: Pending: it has not been scheduled"]);
        let unscheduled = json!([{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]);
        assert_eq!(
            of_a(json!({"phase": "Pending", "conditions": unscheduled})),
            ["a: Pending: 0/2 nodes are available"]
        );
    }

    #[test]
    fn a_pod_of_the_former_form_is_not_what_was_applied() {
        let both = [ready("a"), ready("b")];
        assert_eq!(missing(&set(1, 2), &both, &nodes()), ["1 of 2 pods are still of the former form"]);
        assert_eq!(missing(&set(2, 1), &both, &nodes()), ["not every pod has been ready for long enough"]);
        let unseen = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
        assert_eq!(missing(&unseen, &both, &nodes()), ["the cluster has not looked at it yet"]);
        let mut ending = ready("b");
        ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(missing(&set(2, 2), &[ready("a"), ending], &nodes()), ["b: the former pod is ending"]);
    }
}
