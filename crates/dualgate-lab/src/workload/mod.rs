//! What the cluster of a lab does in place of Kubernetes: workloads become pods on nodes, and pods become EndpointSlices.
//!
//! Values in, values out. Nothing runs here: the world starts an echo backend for each [`Pod`], stops it, and says in the
//! pod's `ready` and `alive` what came of it. The words and the rules are those of Kubernetes' own controllers.
//!
//! ```text
//! manifests -> with_templates -> workloads ─┐
//! site, wishes, the pods so far ────────────┴> schedule -> pods ─┬> listens, identity: an echo backend
//!                                                                └> endpoint_slices: manifests again
//! ```

mod name;
mod pod;
mod read;
mod records;
mod schedule;
mod slices;
mod template;

pub use self::pod::Pod;
pub use self::read::{ContainerPort, Workload, WorkloadKind, workloads};
pub use self::records::{Heard, node, node_labels, pod as pod_record, workload_status};
pub use self::schedule::{MAX_PODS, Pending, Placement, Wanted, schedule};
pub use self::slices::{MANAGED_BY, MAX_ENDPOINTS, endpoint_slices, manifest};
pub use self::template::{completed, documents, with_templates};
