//! A host as a box of text.

use std::net::IpAddr;

use super::text::{Sheet, Tone, shortened, wrapped};
use crate::report::{HostKind, HostStatus, LinkState, PodStatus, Status};
use crate::topology::POD_BRIDGE;

/// Borders and a space at both sides.
const FRAME: usize = 4;
/// Pods that are listed; the others are counted.
const MAX_PODS: usize = 4;

/// A box of text.
pub struct Card<'s> {
    pub host: &'s HostStatus,
    rows: Vec<Row>,
}

enum Row {
    /// Fits, or the box is wider.
    Rigid(Tone, String),
    /// Is broken into lines.
    Loose(Tone, String),
    /// A name that may be cut, and what is never cut.
    Pair(String, Tone, &'static str),
}

impl Row {
    /// How much room it wants, and how much it needs.
    fn widths(&self) -> (usize, usize) {
        let count = |text: &str| text.chars().count();
        match self {
            Self::Rigid(_, text) => (count(text), count(text)),
            Self::Loose(_, text) => (count(text), text.split_whitespace().map(count).max().unwrap_or(0).min(12)),
            Self::Pair(name, _, state) => (count(name) + 1 + count(state), 5 + count(state)),
        }
    }

    fn lines(&self, width: usize) -> Vec<Vec<(Tone, String)>> {
        match self {
            Self::Rigid(tone, text) => vec![vec![(*tone, shortened(text, width))]],
            Self::Loose(tone, text) => wrapped(text, width).into_iter().map(|line| vec![(*tone, line)]).collect(),
            Self::Pair(name, tone, state) => {
                let name = shortened(name, width.saturating_sub(1 + state.chars().count()));
                vec![vec![(Tone::Plain, name + " "), (*tone, (*state).to_owned())]]
            }
        }
    }
}

impl<'s> Card<'s> {
    /// What there is to say of a host. `bars` are the networks whose links are drawn as lines.
    pub fn new(status: &'s Status, host: &'s HostStatus, bars: &[&str]) -> Self {
        let mut rows = vec![title(host)];
        if let Some(said) = host.dualgate.as_deref().filter(|said| host.on && *said != "ready") {
            rows.push(Row::Loose(Tone::Doubtful, format!("dualgate: {said}")));
        }
        rows.extend(addresses(host).into_iter().map(|address| Row::Rigid(Tone::Plain, address)));
        rows.extend(host.virtual_ips.iter().map(|address| Row::Rigid(Tone::Strong, format!("◆ {address}"))));
        if !host.roles.is_empty() {
            rows.push(Row::Loose(Tone::Plain, host.roles.join(" ")));
        }
        for link in status.links.iter().filter(|link| link.state == LinkState::Cut) {
            let other = link.ends.iter().find(|end| **end != host.name);
            let other = other.filter(|other| link.ends.contains(&host.name) && !bars.contains(&other.as_str()));
            if let Some(other) = other.filter(|_| !is_chain(host.kind)) {
                rows.push(Row::Rigid(Tone::Bad, format!("{other} CUT")));
            }
        }
        rows.extend(pods(status, host));
        Self { host, rows }
    }

    /// The same with one more sentence.
    pub fn saying(mut self, tone: Tone, text: String) -> Self {
        self.rows.push(Row::Loose(tone, text));
        self
    }

    /// How wide it wants to be, and how wide it must be.
    pub fn widths(&self) -> (usize, usize) {
        let widths = self.rows.iter().map(Row::widths);
        let (wanted, needed) = widths.fold((0, 0), |(w, n), (wanted, needed)| (w.max(wanted), n.max(needed)));
        (wanted.max(needed) + FRAME, needed + FRAME)
    }

    /// How many lines it takes.
    pub fn height(&self, width: usize) -> usize {
        2 + self.rows.iter().map(|row| row.lines(width.saturating_sub(FRAME)).len()).sum::<usize>()
    }

    /// Draws it with its upper left corner at a place.
    pub fn draw(&self, sheet: &mut Sheet, (x, y): (usize, usize), width: usize) {
        let inner = width.saturating_sub(FRAME);
        let (across, down) = if self.host.on { ("─", "│") } else { ("╌", "┆") };
        let across = across.repeat(width.saturating_sub(2));
        sheet.put((x, y), Tone::Plain, &format!("┌{across}┐"));
        let mut bottom = y + 1;
        for line in self.rows.iter().flat_map(|row| row.lines(inner)) {
            sheet.put((x, bottom), Tone::Plain, down);
            let mut at = x + 2;
            for (tone, text) in line {
                sheet.put((at, bottom), tone, &text);
                at += text.chars().count();
            }
            sheet.put((x + width - 1, bottom), Tone::Plain, down);
            bottom += 1;
        }
        sheet.put((x, bottom), Tone::Plain, &format!("└{across}┘"));
    }
}

/// Whether a host hangs between the Internet and the LAN; its links are lines of their own.
pub fn is_chain(kind: HostKind) -> bool {
    match kind {
        HostKind::Carrier | HostKind::Router => true,
        HostKind::InternetClient
        | HostKind::Internet
        | HostKind::Edge
        | HostKind::Switch
        | HostKind::HomeNode
        | HostKind::LanClient => false,
    }
}

fn title(host: &HostStatus) -> Row {
    match (host.on, host.dualgate.as_deref()) {
        (false, _) => Row::Pair(host.name.clone(), Tone::Bad, "OFF"),
        (true, Some("ready")) => Row::Pair(host.name.clone(), Tone::Good, "ready"),
        (true, _) => Row::Rigid(Tone::Strong, host.name.clone()),
    }
}

/// The first address of each family at each interface: what a person takes for the host's. The interfaces are named if
/// there are several.
fn addresses(host: &HostStatus) -> Vec<String> {
    let mut shown: Vec<(&str, IpAddr)> = Vec::new();
    for entry in &host.addresses {
        let Some((interface, net)) = entry.split_once(' ') else { continue };
        let Some(address) = net.split('/').next().and_then(|text| text.parse::<IpAddr>().ok()) else { continue };
        let known = |(other, first): &(&str, IpAddr)| *other == interface && first.is_ipv4() == address.is_ipv4();
        let held = host.virtual_ips.contains(&address);
        if !is_own(interface, address) || held || shown.iter().any(known) {
            continue;
        }
        shown.push((interface, address));
    }
    let several = shown.windows(2).any(|pair| pair[0].0 != pair[1].0);
    let line = |(interface, address): &(&str, IpAddr)| match several {
        true => format!("{interface} {address}"),
        false => address.to_string(),
    };
    shown.iter().map(line).collect()
}

/// Whether somebody else would use this address to reach the host.
fn is_own(interface: &str, address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !link_local && !address.is_loopback() && interface != POD_BRIDGE
}

fn pods(status: &Status, host: &HostStatus) -> Vec<Row> {
    let here: Vec<&PodStatus> = status.pods.iter().filter(|pod| pod.node == host.name).collect();
    let mut rows: Vec<Row> = here.iter().take(MAX_PODS).map(|pod| pod_row(pod)).collect();
    if here.len() > MAX_PODS {
        let ready = here[MAX_PODS..].iter().filter(|pod| pod.ready && pod.alive).count();
        let rest = here.len() - MAX_PODS;
        rows.push(Row::Loose(Tone::Plain, format!("and {rest} more pods, {ready} ready")));
    }
    rows
}

fn pod_row(pod: &PodStatus) -> Row {
    let (tone, state) = pod_state(pod);
    // Which namespace it is in, says `dualgate lab status --output json`.
    let name = pod.name.rsplit('/').next().unwrap_or(&pod.name);
    Row::Pair(name.to_owned(), tone, state)
}

/// How a pod is, in words.
pub fn pod_state(pod: &PodStatus) -> (Tone, &'static str) {
    match (pod.alive, pod.ready) {
        (true, true) => (Tone::Good, "ready"),
        (true, false) if pod.terminating => (Tone::Doubtful, "ending"),
        (true, false) => (Tone::Doubtful, "not ready"),
        (false, false) => (Tone::Bad, "dead"),
        (false, true) => (Tone::Bad, "dead, unnoticed"),
    }
}
