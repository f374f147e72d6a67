//! The words that everything else is written in.
//!
//! Plain values without behaviour of their own beyond ordering and display. `object` holds Kubernetes'
//! words as they were written; `site` the site file; everything after `lower` uses neither.

pub mod address;
pub mod assignment;
pub(crate) mod changes;
pub mod created;
pub(crate) mod exact;
pub mod finding;
mod intern;
pub mod moment;
pub mod names;
pub mod object;
pub mod origin;
pub mod public_key;
pub mod secret;
pub mod site;
pub mod snapshot;
pub mod text;
pub mod texts;
pub mod uid;
pub mod upstream;

pub use address::{Dual, Family, IpRange, Sockets};
pub use assignment::Assignments;
pub use created::Created;
pub use finding::{Code, Finding, Place, Severity};
pub use names::{EntryPointName, GateName, Host, HostPattern, NodeName, ObjectKey, ObjectName};
pub use object::{Object, ObjectSet};
pub use origin::{Origin, Positions};
pub use public_key::{PublicKey, PublicKeys};
pub use secret::{Digest, Secret};
pub use site::Site;
pub use snapshot::{Facts, ServiceProxy, Snapshot};
pub use text::{Interner, Text};
pub use texts::Texts;
pub use uid::Uid;
