//! A Kubernetes API in memory, for labs and tests: it speaks real HTTP, keeps what it is told, and forgets it with its
//! process. It is no cluster: nothing runs. Who asks and what they may do counts only if [`Options`] say so.
//!
//! ```text
//! HTTP ─> http ──> api ──> store ─┬─> lists, pages: now, or a version that was
//!  (tls)  (paths,  (rules, (objects,└─> watches: the history from a version on
//!  tests    query,  merge,  changes)
//!    └──> objects)  managed)
//! ```
//!
//! `api`, `merge` and `store` are functions of their arguments; time is handed in. `http` and `server` are the shell.
//! What is not here: schemas (an unknown field is kept), tables, protobuf but for what `kubectl create` sends, exec and logs of pods, garbage collection of
//! what has an owner.

mod api;
mod failure;
mod faults;
mod http;
mod kinds;
mod kubeconfig;
mod managed;
mod merge;
mod objects;
mod random;
mod requests;
mod rights;
mod selector;
mod server;
mod shared;
mod store;
mod time;
mod tls;
mod users;

pub use failure::Failure;
pub use faults::{Faults, Refusal};
pub use kubeconfig::Credentials;
pub use objects::Objects;
pub use requests::{Request, Verb};
pub use server::{ApiServer, Authorization, ClientCertificates, Listening, Options};
pub use tls::ClientCertificate;
pub use users::User;
