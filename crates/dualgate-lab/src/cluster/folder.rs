//! A cluster whose objects are manifests in a folder; what it writes itself lies in a file beside them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::model::ObjectSet;
use dualgate_core::seam::Source as _;
use dualgate_host::FolderSource;
use tokio::runtime::Builder;

use super::{Shared, State};
use crate::trial::chain;
use crate::workload;

/// The file that holds what a cluster itself writes, beside the manifests: Nodes and EndpointSlices.
pub(super) const FILE: &str = "lab-cluster.yaml";

impl Shared {
    /// Reads the manifests whenever they change.
    pub(super) fn read(&self, mut folder: FolderSource) {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                self.lock().unread = Some(format!("start a runtime for the manifests: {error}"));
                return;
            }
        };
        let mut previous = Arc::<ObjectSet>::default();
        loop {
            let objects = match runtime.block_on(folder.next()) {
                Ok(objects) => objects,
                Err(error) => {
                    self.lock().unread = Some(chain(&error));
                    std::thread::park_timeout(Duration::from_secs(1));
                    continue;
                }
            };
            let text = |file: &str| std::fs::read_to_string(file).ok();
            previous = Arc::new(workload::with_templates(&objects, text, &previous));
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            state.unread = None;
            state.read = Some(previous.clone());
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Writes the Nodes that the manifests lack, and the EndpointSlices, if they changed.
    pub(super) fn write(&self, state: &mut State, folder: &Path) -> io::Result<()> {
        let mut objects =
            self.nodes(state).filter(|(node, _)| !state.has_node(&node.name)).map(|(_, json)| json).collect::<Vec<_>>();
        objects.extend(workload::endpoint_slices(&state.objects, &state.placement.all()));
        let text = workload::manifest(&objects);
        if state.written != text {
            let part = folder.join(format!(".{FILE}"));
            std::fs::write(&part, &text)?;
            std::fs::rename(part, folder.join(FILE))?;
            state.written = text;
        }
        state.placed = true;
        Ok(())
    }
}
