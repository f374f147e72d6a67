//! What is written back to the cluster beside the gates: what the river plans goes to the writer, and whether this node
//! writes comes back.
//!
//! Only home nodes take part, and only where objects come from a cluster. Nothing here waits for the API server.

use std::path::Path;
use std::sync::Arc;

use dualgate_core::lower::Lowered;
use dualgate_core::model::site::{Node, Site};
use dualgate_core::model::{Finding, NodeName, Snapshot};
use dualgate_core::plan::cluster::Memo;
use dualgate_kube::access::Access;
use dualgate_kube::status::{Handle, View, Wanted, writer};
use tokio::task::JoinHandle;

use crate::cli::SourceArgument;

/// The writer of this node, if it has one.
pub struct Cluster(Option<Writing>);

struct Writing {
    handle: Handle,
    task: JoinHandle<()>,
    /// What was said last.
    wanted: Wanted,
    memo: Memo,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Begins to look who writes. Needs a local runtime.
    pub fn start(source: &SourceArgument, kubeconfig: Option<&Path>, site: &Site, node: &NodeName) -> Self {
        let context = match source {
            SourceArgument::Cluster(context) => context.clone(),
            SourceArgument::Folder(_) | SourceArgument::Home => return Self(None),
        };
        if site.node(node).is_none_or(Node::is_edge) {
            return Self(None);
        }
        let access = Access { kubeconfig: kubeconfig.map(Path::to_owned), context };
        let (handle, writer) = writer(access, node);
        let task = tokio::task::spawn_local(writer.run());
        Self(Some(Writing { handle, task, wanted: Wanted::default(), memo: Memo::default() }))
    }

    /// For whoever shows how it is.
    pub fn view(&self) -> Option<View> {
        self.0.as_ref().map(|writing| writing.handle.view())
    }

    /// Whether this node writes; `None` where there is no cluster.
    pub fn writes(&self) -> Option<bool> {
        self.0.as_ref().map(|writing| writing.handle.reign().is_some())
    }

    /// Plans what is to be written, if this node writes. What comes from the disk may be of yesterday.
    pub fn plan(&mut self, snapshot: &Snapshot, lowered: &Lowered, is_from_source: bool) {
        let Some(writing) = &mut self.0 else { return };
        let Some(reign) = writing.handle.reign().filter(|_| is_from_source) else {
            writing.memo = Memo::default();
            return;
        };
        let writes = writing.memo.writes(snapshot, lowered);
        writing.wanted.reign = reign;
        writing.wanted.writes = Arc::new(writes);
        writing.wanted.objects = snapshot.objects.clone();
        writing.say();
    }

    /// Hears what is wrong at this moment: the objects' Events say so.
    pub fn found(&mut self, findings: &[Finding]) {
        let Some(writing) = &mut self.0 else { return };
        if *writing.wanted.findings != findings {
            writing.wanted.findings = Arc::new(findings.to_vec());
            writing.say();
        }
    }

    /// What cannot be written.
    pub fn findings(&self) -> Vec<Finding> {
        self.view().map(|view| view.findings()).unwrap_or_default()
    }

    /// Waits until this node begins or ends to write.
    pub async fn changed(&mut self) {
        match &mut self.0 {
            Some(writing) => writing.handle.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Leaves writing to another node.
    pub async fn leave(&self) {
        if let Some(writing) = &self.0 {
            writing.handle.leave().await;
        }
    }
}

impl Writing {
    fn say(&self) {
        self.handle.want(self.wanted.clone());
    }
}
