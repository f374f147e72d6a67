//! `dualgate status`: what a running node serves, and what is wrong with it.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use dualgate_core::model::NodeName;
use dualgate_core::model::site::Site;
use dualgate_host::virtual_ips::{GroupReport, Report as VirtualIpReport};

use crate::cli::{Format, Status};
use crate::dns;
use crate::exchange::{self, EdgeReport};
use crate::inputs::{now, state_directory};
use crate::output::finding::{self, Files, Shown, Tally};
use crate::output::{self, Colour, Style, count};
use crate::publishing;
use crate::state::Report;

/// For each step of asking.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 << 20;

/// What lines of a plan begin with, and what is written above them.
const CHAPTERS: &[(&str, &str)] = &[
    ("listen", "listens on"),
    ("route", "routes"),
    ("backend", "backends"),
    ("certificate", "certificates"),
    ("tunnel", "tunnel"),
    ("virtual IP", "virtual IPs"),
    ("open", "lets in"),
];

/// 0 when it is ready and without errors, else 1.
pub fn run(args: &Status) -> anyhow::Result<ExitCode> {
    let report = ask(args.admin)?;
    let mut findings = findings(&report)?;
    match args.output.output {
        Format::Json => output::json(&report)?,
        Format::Text => output::text(&page(&report, &mut findings, Style::stdout()))?,
    }
    Ok(output::verdict(report.ready && Tally::of(&findings).errors == 0))
}

fn findings(report: &Report) -> anyhow::Result<Vec<Shown>> {
    let read = report.findings.iter().map(|finding| serde_json::from_value(finding.clone()));
    read.collect::<Result<_, _>>().context("read the node's findings (is it another version?)")
}

/// Asks a node how it is.
pub fn ask(admin: SocketAddr) -> anyhow::Result<Report> {
    let answer = fetch(admin, "/status").map_err(|error| {
        anyhow!(
            "the node at {admin} does not answer: {error}\n\
             Is `dualgate run` running there? Where it is to be asked says `admin.listen` of its site file; --admin names \
             another address."
        )
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("what answers at {admin} is no node"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("what answers at {admin} says `{}` to GET /status: is it a dualgate?", output::one_line(status));
    }
    serde_json::from_str(body).with_context(|| format!("read the status from {admin} (is it another version?)"))
}

/// The state directory of the process that runs as this node: as said, else as it says itself, else as it would be chosen.
pub fn running_state(named: Option<&Path>, site: &Site, node: &NodeName) -> PathBuf {
    let said = || {
        let report = site.admin.listen.first().and_then(|admin| ask(*admin).ok())?;
        (report.node == node.as_str() && !report.state.as_os_str().is_empty()).then_some(report.state)
    };
    named.map(Path::to_owned).or_else(said).unwrap_or_else(|| state_directory(None, site, node))
}

/// HTTP/1.0 and no keep-alive: the answer ends where the connection ends.
fn fetch(admin: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

fn page(report: &Report, findings: &mut Vec<Shown>, style: Style) -> String {
    let mut page = String::new();
    let now = u64::try_from(now()).unwrap_or(0);
    let readiness = match report.ready {
        true => style.paint(Colour::Green, "ready"),
        false => style.paint(Colour::Red, "not ready"),
    };
    let name = style.paint(Colour::Bold, &report.node);
    let _ = writeln!(page, "{name} of site {}: {}, {readiness}", report.site, report.phase);
    for why in &report.not_ready {
        let _ = writeln!(page, "  {} {}", style.paint(Colour::Red, "because:"), output::one_line(why));
    }
    let _ = writeln!(
        page,
        "  snapshot {} of {} from {}; {}; up for {}",
        report.generation,
        count(report.objects, "object"),
        origin(&report.objects_from),
        count(report.connections, "open connection"),
        uptime(report.uptime_seconds)
    );
    if let Some(source) = report.source.line() {
        let _ = writeln!(page, "  source: {}", output::one_line(&source));
    }
    if let Some(statuses) = &report.statuses {
        let _ = writeln!(page, "  statuses are written by {}", output::one_line(&statuses.line()));
        for contest in &statuses.contests {
            let _ = writeln!(page, "    {}", output::one_line(&contest.line()));
        }
    }
    for (word, title) in CHAPTERS {
        let lines: Vec<&str> = report.plan.iter().filter_map(|line| after_word(line, word)).collect();
        chapter(&mut page, title, &lines, style);
    }
    let is_known = |line: &str| CHAPTERS.iter().any(|(word, _)| after_word(line, word).is_some());
    let others: Vec<&str> = report.plan.iter().map(String::as_str).filter(|line| !is_known(line)).collect();
    chapter(&mut page, "also", &others, style);
    let held = held(&report.virtual_ips);
    chapter(&mut page, "held on the LAN", &held.iter().map(String::as_str).collect::<Vec<_>>(), style);
    let names = names(&report.dns);
    chapter(&mut page, "names", &names.iter().map(String::as_str).collect::<Vec<_>>(), style);
    let published: Vec<String> = report.published.iter().map(|zone| publishing::line(zone, now)).collect();
    chapter(&mut page, "zones at providers", &published.iter().map(String::as_str).collect::<Vec<_>>(), style);
    let neighbours = neighbours(&report.exchange);
    chapter(&mut page, "exchange", &neighbours.iter().map(String::as_str).collect::<Vec<_>>(), style);
    let tally = Tally::of(findings);
    findings.retain(|finding| !finding.is_note());
    if !findings.is_empty() {
        let _ = write!(page, "\n{}", finding::render(findings, style, &mut Files::elsewhere()));
    }
    let counts = [(tally.errors, "error"), (tally.warnings, "warning"), (tally.notes, "note")];
    let found: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(*n, noun)).collect();
    if !found.is_empty() {
        let _ = writeln!(page, "\n{} (`dualgate check --notes` prints all)", found.join(", "));
    }
    page
}

/// Who holds which virtual IP, a line each.
fn held(report: &VirtualIpReport) -> Vec<String> {
    let line = |group: &GroupReport| {
        let addresses: Vec<String> = group.addresses.iter().map(ToString::to_string).collect();
        let owner = match (&group.owner, group.held) {
            (_, true) => "this node".to_owned(),
            (Some(owner), false) => owner.clone(),
            (None, false) => "nobody".to_owned(),
        };
        format!("{} by {owner}", addresses.join(", "))
    };
    report.groups.iter().map(line).collect()
}

/// What has been asked about names, a line each.
fn names(dns: &dns::Report) -> Vec<String> {
    if dns.listening.is_empty() {
        return Vec::new();
    }
    let limited = if dns.limited > 0 { format!(", {} held back or cut", dns.limited) } else { String::new() };
    let mut lines = vec![format!("{} answered here{limited}", count(dns.answered as usize, "question"))];
    if let Some(others) = &dns.forwarding {
        let known = others.hits + others.stale;
        lines.push(format!("{} for others, {known} of them known", count(others.asked as usize, "question")));
        lines.extend(others.away.iter().map(|upstream| format!("resolver {upstream} does not answer")));
    }
    lines
}

/// Who tells whom what is public, a line each.
fn neighbours(exchange: &exchange::Report) -> Vec<String> {
    let edge = |edge: &EdgeReport| {
        let state = match (edge.connected, edge.up_to_date) {
            (true, true) => "serves what it was told last".to_owned(),
            (true, false) => "is being told".to_owned(),
            (false, _) => format!("is away: {}", edge.why),
        };
        let wrong =
            if edge.findings > 0 { format!("; {}", count(edge.findings as usize, "finding")) } else { String::new() };
        format!("{} {state}{wrong}", edge.node)
    };
    let mut lines: Vec<String> = exchange.edges.iter().map(edge).collect();
    lines.extend(exchange.told_by.iter().map(|by| format!("told {by}")));
    if !exchange.connected.is_empty() {
        lines.push(format!("connected: {}", exchange.connected.join(", ")));
    }
    lines
}

fn chapter(page: &mut String, title: &str, lines: &[&str], style: Style) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{}", style.paint(Colour::Bold, title));
    for line in lines {
        let _ = writeln!(page, "  {}", output::one_line(line));
    }
}

fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix(word)?.strip_prefix(' ')
}

fn origin(word: &str) -> &str {
    match word {
        "source" => "its source",
        "disk" => "the disk, as the source is away",
        "nothing" => "nowhere yet",
        other => other,
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{} {hours} h", count(usize::try_from(days).unwrap_or(usize::MAX), "day")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let plan = [
            "backend apps/grafana:80 http: 127.0.0.1:9001",
            "listen 127.0.0.1:8080 for internal/web (http)",
            "route grafana.example.org Prefix / at internal/web -> apps/grafana:80 (Ingress apps/grafana)",
            "something else",
        ];
        Report {
            site: "laptop".into(),
            node: "laptop".into(),
            state: PathBuf::new(),
            phase: "serving".into(),
            objects_from: "disk".into(),
            source: crate::source::Report { name: "folder apps".into(), cluster: None },
            statuses: Some(dualgate_kube::status::Report {
                holder: "laptop_00ff".into(),
                holds_seconds: Some(61),
                made: 4,
                set_back: 1,
                contests: vec![dualgate_kube::status::ContestReport {
                    object: "Ingress apps/grafana".into(),
                    other: "traefik".into(),
                    times: 1,
                    again_seconds: 290,
                }],
                ..dualgate_kube::status::Report::default()
            }),
            ready: false,
            not_ready: vec!["127.0.0.1:8080 is not open".into()],
            generation: 3,
            uptime_seconds: 11_520,
            objects: 1,
            connections: 2,
            plan: plan.iter().map(|line| (*line).to_owned()).collect(),
            tunnel: dualgate_tunnel::Report::default(),
            published: Vec::new(),
            dns: Default::default(),
            virtual_ips: VirtualIpReport::default(),
            exchange: crate::exchange::Report::default(),
            firewall: crate::wall::Report::default(),
            findings: vec![
                serde_json::json!({"code": "stale", "severity": "warning", "at": {}, "message": "it is old"}),
                serde_json::json!({"code": "ingress-exposed", "severity": "note", "at": {}, "message": "public"}),
            ],
        }
    }

    #[test]
    fn a_person_reads_how_the_edges_are_and_who_tells_an_edge() {
        let edge = |node: &str, connected, up_to_date, why: &str, findings| EdgeReport {
            node: node.into(),
            connected,
            up_to_date,
            why: why.into(),
            findings,
            version: "0.1.0".into(),
        };
        let report = exchange::Report {
            edges: vec![edge("east", true, true, "", 0), edge("west", false, false, "no answer", 2)],
            told_by: Some("3 of `k3s-node1` since 2026-11-22T09:30:01Z".into()),
            connected: vec!["k3s-node1".into(), "k3s-node2".into()],
        };
        let expected = [
            "east serves what it was told last",
            "west is away: no answer; 2 findings",
            "told 3 of `k3s-node1` since 2026-11-22T09:30:01Z",
            "connected: k3s-node1, k3s-node2",
        ];
        assert_eq!(neighbours(&report), expected);
        assert!(neighbours(&exchange::Report::default()).is_empty());
    }

    #[test]
    fn a_person_reads_how_the_node_is() {
        let mut found = findings(&report()).unwrap();
        assert_eq!(
            page(&report(), &mut found, Style::Plain),
            "\
laptop of site laptop: serving, not ready
  because: 127.0.0.1:8080 is not open
  snapshot 3 of 1 object from the disk, as the source is away; 2 open connections; up for 3 h 12 min
  source: folder apps
  statuses are written by this node, for 61 s; 4 writes and 0 Events by this node, 1 set back
    Ingress apps/grafana is left to `traefik`, which set it back 1 times; it is tried again in 290 s

listens on
  127.0.0.1:8080 for internal/web (http)

routes
  grafana.example.org Prefix / at internal/web -> apps/grafana:80 (Ingress apps/grafana)

backends
  apps/grafana:80 http: 127.0.0.1:9001

also
  something else

warning[stale]: it is old

1 warning, 1 note (`dualgate check --notes` prints all)
"
        );
    }

    #[test]
    fn times_are_as_coarse_as_they_are_long() {
        assert_eq!(
            [59, 60, 3_600, 86_400, 266_400].map(uptime),
            ["59 s", "1 min", "1 h 0 min", "1 day 0 h", "3 days 2 h"]
        );
    }
}
