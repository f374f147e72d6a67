//! HTTP/1.1: bodies on both sides, and the client's side of a connection.

mod body;
mod outlet;
mod reply;
mod server;

pub use body::Body;
pub use outlet::Outlet;
pub use server::{refuse, serve};
