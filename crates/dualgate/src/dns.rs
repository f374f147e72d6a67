//! The DNS beside the gates: how it is shown and counted.

use std::fmt::Write as _;
use std::net::SocketAddr;

use dualgate_core::machine::dns::{Outcome, Transport};
use dualgate_host::dns::Report as DnsReport;
use serde::{Deserialize, Serialize};

/// What `dualgate status` shows of the DNS.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Where it listens.
    pub listening: Vec<SocketAddr>,
    /// What it answers by itself.
    pub zones: Vec<Zone>,
    /// Questions that were answered here.
    pub answered: u64,
    /// Answers not sent, or cut, as too many went to the same network.
    pub limited: u64,
    /// What is asked of others; nothing where nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarding: Option<Forwarding>,
}

/// A zone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// How many names it has.
    pub names: usize,
}

/// What is asked of others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forwarding {
    /// Questions.
    pub asked: u64,
    /// Answered from what was known.
    pub hits: u64,
    /// Answered with something whose time is over, as nobody answered.
    pub stale: u64,
    /// Not answered.
    pub failed: u64,
    /// Answers that led into the home network, and were not told.
    pub blocked: u64,
    /// Answers that are kept.
    pub kept: usize,
    /// Resolvers that do not answer.
    pub away: Vec<String>,
}

impl Report {
    /// Of what runs.
    pub fn of(report: &DnsReport) -> Self {
        let sum = report.sums.answered.iter().map(|(_, _, count)| count).sum();
        let counts = report.forwarding.counts;
        let forwarding = report.plan.resolver.is_some().then(|| Forwarding {
            asked: counts.asked,
            hits: counts.hits,
            stale: counts.stale,
            failed: counts.failed,
            blocked: counts.blocked,
            kept: report.forwarding.answers,
            away: report.forwarding.away.iter().map(ToString::to_string).collect(),
        });
        let zone = |zone: &std::sync::Arc<dualgate_core::plan::dns::Zone>| Zone {
            name: zone.name.to_string(),
            names: zone.sets.len(),
        };
        Self {
            listening: report.listening.clone(),
            zones: report.plan.zones.iter().map(zone).collect(),
            answered: sum,
            limited: report.sums.dropped + report.sums.slipped,
            forwarding,
        }
    }
}

/// The metrics; nothing where this node answers no DNS.
pub fn write_metrics(out: &mut String, report: &DnsReport) {
    if report.listening.is_empty() {
        return;
    }
    let family = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    };
    let name = "dualgate_dns_queries_total";
    family(out, name, "counter", "Questions that were answered here, by transport and outcome.");
    for (over, of, count) in &report.sums.answered {
        let over = match over {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let word = Outcome::WORDS.iter().find(|(_, one)| one == of).map_or("", |(word, _)| word);
        let _ = writeln!(out, "{name}{{transport=\"{over}\",outcome=\"{word}\"}} {count}");
    }
    let seconds = report.sums.nanoseconds as f64 / 1e9;
    let name = "dualgate_dns_answer_seconds_total";
    family(out, name, "counter", "Time from receiving questions to sending their answers, added up.");
    let _ = writeln!(out, "{name} {seconds}");
    let (sums, counts) = (&report.sums, &report.forwarding.counts);
    for (name, help, value) in [
        ("forwarded", "Questions that others are asked.", sums.forwarded),
        ("ignored", "Messages that are no questions.", sums.silent),
        ("limited", "Answers not sent, as too many went to the same network.", sums.dropped),
        ("slipped", "Answers cut, as too many went to the same network.", sums.slipped),
        ("lost", "Questions and answers that found no room.", sums.lost),
        ("refused_connections", "Connections that were too many.", sums.refused_connections),
        ("cache_hits", "Forwarded questions answered from what was known.", counts.hits),
        ("cache_stale", "Forwarded questions answered with what was over, as nobody answered.", counts.stale),
        ("upstream_queries", "Messages to other resolvers.", counts.sent),
        ("upstream_failures", "Forwarded questions that nobody answered.", counts.failed),
        ("rebind_blocked", "Answers of others that led into the home network.", counts.blocked),
        ("foreign_answers", "Messages to the resolver that answered nothing that was asked.", counts.foreign),
    ] {
        let name = format!("dualgate_dns_{name}_total");
        family(out, &name, "counter", help);
        let _ = writeln!(out, "{name} {value}");
    }
    let name = "dualgate_dns_cache_entries";
    family(out, name, "gauge", "Answers of others that are kept.");
    let _ = writeln!(out, "{name} {}", report.forwarding.answers);
    let name = "dualgate_dns_cache_bytes";
    family(out, name, "gauge", "Octets that they take.");
    let _ = writeln!(out, "{name} {}", report.forwarding.octets);
}
