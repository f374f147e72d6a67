//! The data plane: the only IO on the path of a request.
//!
//! One thread per core, sharing nothing: each has its sockets ([`worker`]), its connections to clients ([`connection`],
//! then [`h1`] or [`h2`]), its kept connections to servers ([`upstream`]) and its buffers ([`buffer`]). What they serve
//! is a plan, compiled with the state that outlives plans ([`state`]) and swapped in as a whole by the [`actuator`].
//!
//! What comes to the addresses of Services is handed on unread ([`service`]).
//!
//! A request's way: [`connection`] -> [`transaction`] (what all versions of HTTP have in common) -> [`forward`]
//! (route, server, exchange) -> [`upstream`]. Errors become answers in [`answer`] only.

mod access;
mod actuator;
mod answer;
mod buffer;
mod connection;
mod forward;
mod h1;
mod h2;
mod headers;
mod io;
mod listener;
mod metrics;
mod service;
mod state;
mod timer;
mod tls;
mod transaction;
mod tunnel;
mod upstream;
mod worker;

pub use actuator::{EntryPointMetrics, ListeningSockets, Proxy, ProxyChange, ProxyError, ProxyView};
