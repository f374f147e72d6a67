//! What is counted for each Service port.

use std::fmt::Write as _;

use dualgate_core::plan::forward::ForwardId;

use crate::metrics::{Counter, describe, quote};
use crate::state::Runtime;

/// What all workers count for one forward.
#[derive(Debug, Default)]
pub struct ForwardCounters {
    /// Connections that were joined, or flows of datagrams.
    pub connections: Counter,
    /// Of them, those that are open.
    pub active: Counter,
    /// Octets from clients.
    pub received: Counter,
    /// Octets to clients.
    pub sent: Counter,
    /// Connections and datagrams that got nowhere, by [`Refused`].
    refused: [Counter; Refused::ALL.len()],
    /// Flows that ended because another one needed their place.
    pub evicted: Counter,
}

/// Why a connection or a datagram got nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client is in none of the Service's source ranges.
    SourceRange,
    /// There are as many connections as there may be.
    Limit,
    /// The Service has no server.
    NoEndpoints,
    /// No server could be reached.
    Unreachable,
    /// A datagram was lost on its way: there was no room for it, or it was too large.
    Lost,
}

impl Refused {
    const ALL: [(Self, &'static str); 5] = [
        (Self::SourceRange, "source-range"),
        (Self::Limit, "limit"),
        (Self::NoEndpoints, "no-endpoints"),
        (Self::Unreachable, "unreachable"),
        (Self::Lost, "lost"),
    ];
}

impl ForwardCounters {
    /// One more that got nowhere.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].increment();
    }

    /// One more connection or flow, for as long as the guard lives.
    pub fn open(&self) -> Open<'_> {
        self.connections.increment();
        self.active.increment();
        Open(self)
    }
}

/// An open connection or flow.
#[derive(Debug)]
pub struct Open<'a>(&'a ForwardCounters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.active.decrement();
    }
}

/// The counters of all forwards of a plan in Prometheus' text form.
pub fn write(runtime: &Runtime, out: &mut String) {
    type Read = fn(&ForwardCounters) -> u64;
    let total = "dualgate_service_connections_total";
    let plain: [(&str, &str, &str, &str, Read); 5] = [
        (total, "counter", "Connections to Services, and flows of datagrams.", "", |c| c.connections.get()),
        ("dualgate_service_connections_active", "gauge", "Of them, those that are open.", "", |c| c.active.get()),
        ("dualgate_service_bytes_total", "counter", "Octets of Services' clients.", ",direction=\"in\"", |c| {
            c.received.get()
        }),
        ("dualgate_service_bytes_total", "", "", ",direction=\"out\"", |c| c.sent.get()),
        ("dualgate_service_flows_evicted_total", "counter", "Flows that ended to make room for others.", "", |c| {
            c.evicted.get()
        }),
    ];
    for (name, kind, help, label, read) in plain {
        if !kind.is_empty() {
            describe(name, kind, help, out);
        }
        for (labels, counters) in each(runtime) {
            let _ = writeln!(out, "{name}{{{labels}{label}}} {}", read(counters));
        }
    }
    let refused = "dualgate_service_refused_total";
    describe(refused, "counter", "Connections and datagrams of Services' clients that got nowhere.", out);
    for (labels, counters) in each(runtime) {
        for (why, word) in Refused::ALL {
            let count = counters.refused[why as usize].get();
            let _ = writeln!(out, "{refused}{{{labels},reason=\"{word}\"}} {count}");
        }
    }
}

/// Labels and counters, in the plan's order.
fn each(runtime: &Runtime) -> impl Iterator<Item = (String, &ForwardCounters)> {
    let forwards = runtime.plan.forwards.iter().filter_map(|forward| runtime.forward(&forward.id));
    forwards.map(|state| (labels(&state.forward.id), &state.shared.counters))
}

fn labels(id: &ForwardId) -> String {
    let service = quote(&id.service.to_string());
    format!("service=\"{service}\",port=\"{}\",protocol=\"{}\"", id.port, id.transport)
}
