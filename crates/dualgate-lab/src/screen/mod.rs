//! A lab as text: a picture of the site, a table of checks, what stands in for what, what to try next.
//!
//! Pure: from a [`Status`] to lines that fit a width. Who prints them decides about colours, and when.

mod card;
mod checks;
mod news;
mod picture;
mod text;

pub use self::news::news;
pub use self::text::{Glyphs, Line, Tone};

use self::text::wrapped;
use crate::report::{HostKind, HostStatus, Status};

/// Where a page is to appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns.
    pub width: usize,
    /// Lines; `None` is as many as there are.
    pub height: Option<usize>,
    /// The characters that it shows.
    pub glyphs: Glyphs,
}

/// A table of checks that is lower than this says too little.
const MIN_CHECKS: usize = 8;

/// The whole page. If it is higher than the screen, the suggestions go first, then checks that pass; on a very low screen
/// the checks come before the picture.
pub fn page(status: &Status, screen: &Screen) -> Vec<Line> {
    let width = screen.width.max(20);
    let height = screen.height.unwrap_or(usize::MAX);
    let title = vec![title(status)];
    let picture = picture::picture(status, width);
    let mut checks = checks::checks(status, width, usize::MAX);
    checks.extend(troubles(status, width));
    let stand_ins = stand_ins(status, width);
    let suggestions = suggestions(status, width);
    let kubernetes = kubernetes(status, width);
    let pages = [
        joined(&[&title, &picture, &kubernetes, &checks, &stand_ins, &suggestions]),
        joined(&[&title, &picture, &kubernetes, &checks, &stand_ins]),
        joined(&[&title, &picture, &kubernetes, &checks]),
        joined(&[&title, &picture, &checks]),
    ];
    let page = pages.into_iter().find(|page| page.len() <= height).unwrap_or_else(|| {
        let left = height.saturating_sub(joined(&[&title, &picture]).len() + 1);
        if left >= MIN_CHECKS.min(checks.len()) {
            return joined(&[&title, &picture, &checks::checks(status, width, left)]);
        }
        let checks = checks::checks(status, width, height.saturating_sub(4).max(3));
        cut(joined(&[&title, &checks, &picture]), height)
    });
    page.into_iter().take(height).map(|line| line.fitted(screen.width, screen.glyphs)).collect()
}

/// How far the lab is while it is built: `11 hosts, 15 links, nodes ready 3/4 (0.9 s)`.
pub fn progress(status: &Status) -> Line {
    let nodes: Vec<&HostStatus> = status.hosts.iter().filter(|host| host.dualgate.is_some()).collect();
    let ready = nodes.iter().filter(|node| node.dualgate.as_deref() == Some("ready")).count();
    let took = duration(status.setup_ms.unwrap_or(status.uptime_ms));
    let (hosts, links, pods) = (status.hosts.len(), status.links.len(), status.pods.len());
    let text = format!("{hosts} hosts, {links} links, {pods} pods, nodes ready {ready}/{} ({took})", nodes.len());
    Line::new(Tone::Plain, &text)
}

/// `0.9 s`, `12 s`, `3 min`, `2 h 5 min`
fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) if seconds < 10 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

fn title(status: &Status) -> Line {
    let line = Line::new(Tone::Strong, &format!("lab {}", status.name));
    let from = if status.origin.is_empty() { String::new() } else { format!(" ({})", status.origin) };
    let line = line.then(Tone::Plain, &format!(": site {}{from}, ", status.site));
    match status.setup_ms {
        Some(setup) => {
            let (setup, up) = (duration(setup), duration(status.uptime_ms));
            line.then(Tone::Good, "ready").then(Tone::Plain, &format!(" after {setup}, up {up}"))
        }
        None => line.then(Tone::Doubtful, "starting").then(Tone::Plain, &format!(", {}", duration(status.uptime_ms))),
    }
}

fn joined(parts: &[&Vec<Line>]) -> Vec<Line> {
    let mut page: Vec<Line> = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !page.is_empty() {
            page.push(Line::default());
        }
        page.extend(part.iter().cloned());
    }
    page
}

fn cut(mut page: Vec<Line>, height: usize) -> Vec<Line> {
    let hidden = page.len().saturating_sub(height.saturating_sub(1));
    page.truncate(height.saturating_sub(1));
    if height > 0 {
        page.push(Line::new(Tone::Doubtful, &format!("… {hidden} more lines: dualgate lab status")));
    }
    page
}

fn troubles(status: &Status, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for trouble in &status.troubles {
        for (number, text) in wrapped(trouble, width.saturating_sub(2).max(10)).into_iter().enumerate() {
            let indent = if number == 0 { "" } else { "  " };
            lines.push(Line::new(Tone::Doubtful, &format!("{indent}{text}")));
        }
    }
    lines
}

/// Where the Kubernetes API is, and how to ask it.
fn kubernetes(status: &Status, width: usize) -> Vec<Line> {
    let Some(kubernetes) = &status.kubernetes else { return Vec::new() };
    let title = Line::new(Tone::Strong, "Kubernetes API");
    let mut lines = vec![match kubernetes.away {
        false => title,
        true => title.then(Tone::Bad, &format!(" away, with {}", kubernetes.node)),
    }];
    lines.extend(kubernetes.servers.iter().map(|server| Line::new(Tone::Plain, &format!("  {server}"))));
    lines.push(Line::new(Tone::Plain, &format!("  KUBECONFIG={} on every host", kubernetes.kubeconfig)));
    let commands = ["kubectl get ingresses -A", "kubectl apply -f FILE"];
    let command = |command: &str| [format!("exec {} --", kubernetes.node), command.to_owned()];
    lines.extend(commands.into_iter().flat_map(|text| suggestion(&command(text), width)));
    lines
}

fn stand_ins(status: &Status, width: usize) -> Vec<Line> {
    if status.stand_ins.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::new(Tone::Strong, "Stands in for what is not built")];
    let longest = status.stand_ins.iter().map(|stand_in| stand_in.part.chars().count()).max().unwrap_or(0);
    let column = longest.min(20) + 4;
    for stand_in in &status.stand_ins {
        let mut line = Line::new(Tone::Plain, "  ").then(Tone::Doubtful, &stand_in.part).then(Tone::Plain, "  ");
        for text in wrapped(&stand_in.instead, width.saturating_sub(column).max(10)) {
            lines.push(line.to_column(column).then(Tone::Plain, &text));
            line = Line::default();
        }
    }
    lines
}

/// What a person can try, with names of this lab; to be copied, so nothing is cut as long as the parts fit.
fn suggestions(status: &Status, width: usize) -> Vec<Line> {
    let of_kind = |kind| status.hosts.iter().find(move |host| host.kind == kind);
    let mut commands = Vec::new();
    let curls = [
        (HostKind::InternetClient, "internet", outer_address(status)),
        (HostKind::LanClient, "home", inner_address(status)),
    ];
    for (kind, check, address) in curls {
        if let (Some(host), Some(address)) = (of_kind(kind), address) {
            let named = named_host(status, check).map(|name| format!("-H 'Host: {name}' ")).unwrap_or_default();
            commands.push([format!("exec {} --", host.name), format!("curl -s {named}http://{address}/")]);
        }
    }
    let nodes = || status.hosts.iter().filter(|host| host.kind == HostKind::HomeNode);
    if let Some(node) = nodes().find(|node| !node.virtual_ips.is_empty()).or_else(|| nodes().next()) {
        commands.push([format!("fail {}", node.name), format!("# and back: heal {}", node.name)]);
        let ours = |ends: &[String; 2]| ends.contains(&node.name);
        if let Some(link) = status.links.iter().find(|link| ours(&link.ends)) {
            commands.push([format!("cut {}", link.name), format!("# and back: heal {}", link.name)]);
        }
    }
    if let Some(pod) = status.pods.first() {
        commands.push([format!("kill {}", pod.name), String::new()]);
        commands.push([format!("scale {} 3", pod.workload), String::new()]);
    }
    if let Some(host) = of_kind(HostKind::Router).or_else(|| status.hosts.first()) {
        commands.push([format!("shell {}", host.name), String::new()]);
    }
    let mut lines = vec![Line::new(Tone::Strong, "Try, in another terminal")];
    lines.extend(commands.iter().flat_map(|command| suggestion(command, width)));
    lines.push(Line::new(Tone::Plain, "  dualgate lab down"));
    lines
}

fn suggestion([command, rest]: &[String; 2], width: usize) -> Vec<Line> {
    let whole = format!("  dualgate lab {command} {rest}");
    if whole.chars().count() <= width {
        return vec![Line::new(Tone::Plain, whole.trim_end())];
    }
    let first = Line::new(Tone::Plain, &format!("  dualgate lab {command} \\"));
    vec![first, Line::new(Tone::Plain, &format!("    {rest}"))]
}

/// A host name that the site serves: that of the first check of this kind.
fn named_host<'s>(status: &'s Status, kind: &str) -> Option<&'s str> {
    let names = status.checks.iter().filter_map(|check| check.id.split_once('/').filter(|(of, _)| *of == kind));
    names.map(|(_, name)| name.split('/').next().unwrap_or(name)).find(|name| name.contains('.'))
}

fn outer_address(status: &Status) -> Option<String> {
    let edge = status.hosts.iter().find(|host| host.kind == HostKind::Edge)?;
    let address = edge.addresses.first()?.split_once(' ')?.1.split('/').next()?.parse().ok()?;
    Some(in_url(address))
}

fn inner_address(status: &Status) -> Option<String> {
    status
        .hosts
        .iter()
        .filter(|host| host.kind == HostKind::HomeNode)
        .flat_map(|node| &node.virtual_ips)
        .min()
        .map(|address| in_url(*address))
}

fn in_url(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}
