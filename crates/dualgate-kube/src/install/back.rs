//! What dualgate wrote into objects of others, statuses and labels, taken back before it goes.
//!
//! It is written as it always is, by the holder of the Lease: so no node that still runs writes it again meanwhile, and what
//! the API server refuses or is too busy for is tried again.

use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::{NodeName, ObjectSet};
use dualgate_core::parse::object::object;
use dualgate_core::plan::cluster::{ClusterPlan, Write};
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{LEASE, NAMESPACE};
use kube::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::InstallError;
use super::api::Api;
use crate::access::Access;
use crate::source::Kind;
use crate::status::{Handle, Wanted, writer};

/// The kinds that dualgate writes into.
const WRITTEN: [Kind; 3] = [Kind::Ingress, Kind::Node, Kind::Service];

/// What the holder of the Lease is called meanwhile.
const ME: &str = "uninstall";

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What takes back all that dualgate wrote into objects of others: nothing, if there is nothing.
///
/// # Errors
///
/// If the API server cannot be asked.
pub async fn written(client: &Client) -> Result<Vec<Arc<Write>>, InstallError> {
    let api = Api::new(client.clone());
    let mut objects = Vec::new();
    for kind in WRITTEN {
        // What cannot be read was never written to.
        api.pages(kind, |page| objects.extend(object(page, None).objects.into_iter().map(Arc::new))).await?;
    }
    objects.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(ClusterPlan::default().diff(&ObjectSet { objects, findings: Vec::new() }))
}

/// Takes it back, and removes the Lease. Returns what is left at the end of the patience, each with why. `progress` hears
/// what is waited for, and what was done.
///
/// # Errors
///
/// If the API server cannot be asked.
pub async fn take_back(
    access: &Access,
    client: &Client,
    patience: Duration,
    progress: impl FnMut(String),
) -> Result<Vec<String>, InstallError> {
    let api = Api::new(client.clone());
    if api.get(&id("v1", "Namespace", "namespaces", "", NAMESPACE)).await?.is_none() {
        let left = written(client).await?;
        let why = format!("the Lease of who writes needs the namespace `{NAMESPACE}`: make it, and uninstall again");
        return Ok(left.iter().map(|write| format!("{}: {why}", write.object)).collect());
    }
    let (handle, writer) = writer(access.clone(), &NodeName::new(ME));
    let mut writing = JoinSet::new();
    writing.spawn(writer.run());
    let left = TakingBack { client, handle: &handle, told: String::new(), progress }.run(patience).await;
    let holds = handle.reign().is_some();
    handle.leave().await;
    let left = left?;
    if left.is_empty() && holds {
        api.delete(&id("coordination.k8s.io/v1", "Lease", "leases", NAMESPACE, LEASE), None).await?;
    }
    Ok(left)
}

struct TakingBack<'a, P> {
    client: &'a Client,
    handle: &'a Handle,
    /// What was told last, not twice.
    told: String,
    progress: P,
}

impl<P: FnMut(String)> TakingBack<'_, P> {
    async fn run(mut self, patience: Duration) -> Result<Vec<String>, InstallError> {
        let deadline = Instant::now() + patience;
        loop {
            let is_over = Instant::now() >= deadline;
            match self.handle.reign() {
                None if is_over => return Ok(self.left(&written(self.client).await?)),
                None => self.waits(),
                Some(reign) => {
                    let writes = written(self.client).await?;
                    if writes.is_empty() || is_over {
                        return Ok(self.left(&writes));
                    }
                    self.tell(format!("taking back what was written into {} objects", writes.len()));
                    self.handle.want(Wanted { reign, writes: Arc::new(writes), ..Wanted::default() });
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Another one that may write.
    fn holder(&self) -> Option<String> {
        let holder = self.handle.view().report().holder;
        let node = holder.rsplit_once('_').map_or(&*holder, |(node, _)| node);
        (!node.is_empty() && node != ME).then(|| node.to_owned())
    }

    fn waits(&mut self) {
        if let Some(node) = self.holder() {
            self.tell(format!("waiting until `{node}` does not write statuses any more"));
        }
    }

    fn tell(&mut self, line: String) {
        if self.told != line {
            (self.progress)(line.clone());
            self.told = line;
        }
    }

    fn left(&self, writes: &[Arc<Write>]) -> Vec<String> {
        let findings = self.handle.view().findings();
        let why = |write: &Write| {
            let of_it = findings.iter().find(|finding| finding.at.object.as_ref() == Some(&write.object));
            match (of_it.or(findings.first()), self.holder()) {
                (Some(finding), _) => finding.message.clone(),
                (None, Some(node)) => format!("`{node}` still writes it: end dualgate there, and uninstall again"),
                (None, None) => "there was not enough time: uninstall again".to_owned(),
            }
        };
        writes.iter().map(|write| format!("{}: {}", write.object, why(write))).collect()
    }
}

fn id(api_version: &str, kind: &str, resource: &str, namespace: &str, name: &str) -> ObjectId {
    ObjectId {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
