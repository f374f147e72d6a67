//! HTTP/2: the client's side of a connection.
//!
//! The protocol is the `h2` crate's; limits, deadlines and the meeting with [`crate::transaction`] are here.

mod allowance;
mod meter;
mod server;
mod stream;

pub use allowance::Allowance;
pub use server::serve;
