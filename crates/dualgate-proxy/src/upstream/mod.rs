//! The server's side: connections to pods, kept per worker and used again.

mod connect;
mod h1;
mod h2;
mod pool;

pub use connect::Connector;
pub use h1::{AnswerFailure, H1Server, ServerHead, read_head};
pub use h2::{H2Server, More, StreamBody, StreamHead, StreamOutlet, poll_send, send_end};
pub use pool::{Lease, Pool};
