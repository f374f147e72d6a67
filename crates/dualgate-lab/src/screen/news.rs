//! What has changed between two looks at a lab, a line each: for logs, where a picture cannot be drawn again.

use super::card::pod_state;
use super::checks::word;
use super::text::{Line, Tone};
use crate::report::{Check, HostStatus, LinkState, LinkStatus, PodStatus, Status, Verdict};

/// The changes, in the order of the picture.
pub fn news(before: &Status, now: &Status) -> Vec<Line> {
    let mut lines = Vec::new();
    for host in &now.hosts {
        let old = before.hosts.iter().find(|old| old.name == host.name);
        host_news(old, host, &mut lines);
    }
    for link in &now.links {
        let old = before.links.iter().find(|old| old.name == link.name);
        lines.extend(link_news(old.map(|old| old.state), link));
    }
    pod_news(&before.pods, &now.pods, &mut lines);
    for check in &now.checks {
        let old = before.checks.iter().find(|old| old.id == check.id);
        check_news(old, check, &mut lines);
    }
    lines
}

fn host_news(old: Option<&HostStatus>, host: &HostStatus, lines: &mut Vec<Line>) {
    let was_on = old.is_none_or(|old| old.on);
    match (was_on, host.on) {
        (true, false) => lines.push(Line::new(Tone::Bad, &format!("{} was switched off", host.name))),
        (false, true) => lines.push(Line::new(Tone::Good, &format!("{} was switched on", host.name))),
        (true, true) | (false, false) => {}
    }
    for address in &host.virtual_ips {
        if old.is_some_and(|old| !old.virtual_ips.contains(address)) {
            lines.push(Line::new(Tone::Strong, &format!("{} holds the virtual IP {address}", host.name)));
        }
    }
    if let (Some(said), Some(old)) = (&host.dualgate, old)
        && old.dualgate.as_ref() != Some(said)
        && host.on
    {
        let tone = if said == "ready" { Tone::Good } else { Tone::Doubtful };
        lines.push(Line::new(tone, &format!("dualgate at {} is {said}", host.name)));
    }
}

fn link_news(old: Option<LinkState>, link: &LinkStatus) -> Option<Line> {
    let old = old.unwrap_or(LinkState::Up);
    match (old, link.state) {
        (LinkState::Up | LinkState::Off, LinkState::Cut) => {
            Some(Line::new(Tone::Bad, &format!("link {} was cut", link.name)))
        }
        (LinkState::Cut, LinkState::Up | LinkState::Off) => {
            Some(Line::new(Tone::Good, &format!("link {} was mended", link.name)))
        }
        // Hosts that go off or on are told themselves.
        (LinkState::Up | LinkState::Off, LinkState::Up | LinkState::Off) | (LinkState::Cut, LinkState::Cut) => None,
    }
}

fn pod_news(before: &[PodStatus], now: &[PodStatus], lines: &mut Vec<Line>) {
    for pod in now {
        let (tone, state) = pod_state(pod);
        match before.iter().find(|old| old.name == pod.name).map(pod_state) {
            Some((_, old)) if old == state => {}
            Some(_) => lines.push(Line::new(tone, &format!("pod {} is {state}", pod.name))),
            None => lines.push(Line::new(tone, &format!("pod {} came on {}: {state}", pod.name, pod.node))),
        }
    }
    for gone in before.iter().filter(|old| now.iter().all(|pod| pod.name != old.name)) {
        lines.push(Line::new(Tone::Doubtful, &format!("pod {} is gone from {}", gone.name, gone.node)));
    }
}

fn check_news(old: Option<&Check>, check: &Check, lines: &mut Vec<Line>) {
    let v4 = verdict_news(old.map(|old| &old.v4), &check.v4);
    let v6 = verdict_news(old.map(|old| &old.v6), &check.v6);
    let mut tell = |family: &str, (tone, text, detail): (Tone, &str, &str)| {
        let colon = if detail.is_empty() { "" } else { ": " };
        let line = Line::new(tone, text).then(Tone::Plain, &format!(" {}{family}{colon}{detail}", check.id));
        lines.push(line);
    };
    match (v4, v6) {
        (Some(v4), Some(v6)) if v4 == v6 => tell("", v4),
        (v4, v6) => {
            v4.into_iter().for_each(|v4| tell(" IPv4", v4));
            v6.into_iter().for_each(|v6| tell(" IPv6", v6));
        }
    }
}

/// A verdict that is another than before, if something was seen.
fn verdict_news<'v>(old: Option<&Verdict>, verdict: &'v Verdict) -> Option<(Tone, &'static str, &'v str)> {
    let (tone, text) = word(verdict);
    let detail = match verdict {
        Verdict::Pass(detail) | Verdict::Fail(detail) | Verdict::NotBuilt(detail) => detail,
        Verdict::Absent | Verdict::Waiting => return None,
    };
    let same = old.is_some_and(|old| word(old) == (tone, text));
    if same { None } else { Some((tone, text, detail)) }
}
