//! Whether what was seen is what should have been. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dualgate_http::Scheme;
use dualgate_wire::ethernet::Mac;

use super::{Ask, Expectation, Observation, Probe, Promised, Servers};
use crate::probe::{Answer, Dialled, Resolved, Shown, Trouble};
use crate::report::Verdict;

/// Compares what one probe saw with what it should have seen. `now` in seconds since 1970, for certificates.
pub fn judge(probe: &Probe, seen: &Observation, now: i64) -> Verdict {
    match (&probe.expect, seen) {
        // Nobody gets into a host that is off.
        (Expectation::Blocked, Observation::Off(host)) if *host != probe.from => {
            Verdict::Pass(format!("{host} is off"))
        }
        (_, Observation::Off(host)) => {
            Verdict::Fail(format!("{host} is off; `dualgate lab heal {host}` switches it on"))
        }
        _ => match compare(probe, seen, now) {
            Verdict::Fail(why) => Verdict::Fail(format!("{probe}: {why}")),
            verdict @ (Verdict::Pass(_) | Verdict::NotBuilt(_) | Verdict::Absent | Verdict::Waiting) => verdict,
        },
    }
}

fn compare(probe: &Probe, seen: &Observation, now: i64) -> Verdict {
    match (&probe.expect, seen) {
        (_, Observation::Trouble(Trouble::Failed(why))) => Verdict::Fail(format!("could not look: {why}")),
        (Expectation::Blocked, seen) => blocked(probe, seen),
        (expect, Observation::Trouble(trouble)) => Verdict::Fail(unanswered(probe, expect, trouble)),
        (Expectation::Ready, Observation::Answer(answer)) => ready(probe, answer),
        (Expectation::Heard(peers), Observation::Answer(answer)) => heard(peers, answer),
        (Expectation::Echo, Observation::Echo) => Verdict::Pass(format!("{} reaches {}", probe.from, there(probe))),
        (Expectation::Pod(pod), Observation::Answer(answer)) => pod_itself(probe, pod, answer),
        (Expectation::SeenAs(addresses), Observation::Dialled(dialled)) => seen_as(addresses, *dialled),
        (Expectation::SeenAsItself, Observation::Dialled(dialled)) => seen_as_itself(*dialled),
        (Expectation::Served { service, by }, Observation::Answer(answer)) => served(probe, service, by, answer),
        (Expectation::OneOf(stations), Observation::Stations(seen)) => one_of(stations, seen),
        (Expectation::Addresses(addresses), Observation::Resolved(seen)) => addresses_of(addresses, seen),
        (Expectation::NotFound, Observation::Answer(answer)) => not_found(answer),
        (Expectation::Certificate { host, promised }, Observation::Answer(answer)) => match &answer.certificate {
            Some(shown) => certificate(host, promised.as_ref(), shown, now),
            None => Verdict::Fail("no certificate was shown that can be read".to_owned()),
        },
        (
            Expectation::Ready
            | Expectation::Heard(_)
            | Expectation::Echo
            | Expectation::Pod(_)
            | Expectation::SeenAs(_)
            | Expectation::SeenAsItself
            | Expectation::Served { .. }
            | Expectation::OneOf(_)
            | Expectation::Addresses(_)
            | Expectation::NotFound
            | Expectation::Certificate { .. },
            Observation::Answer(_)
            | Observation::Echo
            | Observation::Dialled(_)
            | Observation::Connected
            | Observation::Stations(_)
            | Observation::Resolved(_)
            | Observation::Off(_),
        ) => Verdict::Fail("what was asked cannot show what is expected".to_owned()),
    }
}

/// One verdict for all probes of a row: the worst.
pub(super) fn worst(verdicts: &[Verdict]) -> Verdict {
    let mut failed = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Fail(why) => Some(why),
        Verdict::Pass(_) | Verdict::NotBuilt(_) | Verdict::Absent | Verdict::Waiting => None,
    });
    if let Some(why) = failed.next() {
        return Verdict::Fail(match (verdicts.len(), 1 + failed.count()) {
            (_, 1) => why.clone(),
            (all, count) => format!("{why} ({count} of {all} fail)"),
        });
    }
    let find = |wanted: fn(&Verdict) -> bool| verdicts.iter().find(|one| wanted(one));
    let unfinished = find(|one| *one == Verdict::Waiting).or_else(|| find(|one| matches!(one, Verdict::NotBuilt(_))));
    match (unfinished, verdicts) {
        (Some(verdict), _) => verdict.clone(),
        (None, []) => Verdict::Absent,
        (None, [Verdict::Pass(first), rest @ ..]) if !rest.is_empty() => {
            Verdict::Pass(format!("{first}, and {} more", rest.len()))
        }
        (None, [verdict, ..]) => verdict.clone(),
    }
}

fn unanswered(probe: &Probe, expect: &Expectation, trouble: &Trouble) -> String {
    let hint = match (expect, trouble) {
        (Expectation::Ready | Expectation::Heard(_), _) => {
            format!("`dualgate run` does not answer on {0}; see `dualgate lab log {0}`", probe.from)
        }
        (Expectation::Pod(pod), _) => format!("look at the pod {pod} and at the way to its node"),
        (_, Trouble::Refused) => "nobody listens there; look at the node that should".to_owned(),
        (_, Trouble::Unreachable(_) | Trouble::Silent(_)) => "look at the links and hosts on the way".to_owned(),
        (_, Trouble::Ended | Trouble::Broken(_) | Trouble::Failed(_)) => "look at the log of the node there".to_owned(),
    };
    format!("{trouble}; {hint}")
}

/// What was asked.
fn there(probe: &Probe) -> String {
    match &probe.ask {
        Ask::Get(request) => request.to.to_string(),
        Ask::Ping { at, address } | Ask::Dial { at, address } => format!("{at} ({address})"),
        Ask::Connect(to) => to.to_string(),
        Ask::Resolve { server, .. } => server.to_string(),
        Ask::WhoHas { address, .. } => address.to_string(),
    }
}

/// A virtual IP is at exactly one home node.
fn one_of(stations: &[(Mac, String)], seen: &BTreeSet<Mac>) -> Verdict {
    let name = |mac: &Mac| match stations.iter().find(|(station, _)| station == mac) {
        Some((_, name)) => name.clone(),
        None => format!("a stranger ({mac})"),
    };
    let names: Vec<String> = seen.iter().map(name).collect();
    match (seen.iter().all(|mac| stations.iter().any(|(station, _)| station == mac)), names.as_slice()) {
        (true, [one]) => Verdict::Pass(format!("{one} answers for it")),
        _ => Verdict::Fail(format!("{} answer for it; it should be one home node", names.join(" and "))),
    }
}

/// A session of WireGuard lives for three minutes after its handshake.
const SESSION: u64 = 180;

fn heard(peers: &[String], answer: &Answer) -> Verdict {
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let tunnel = &status["tunnel"];
    let Some(backend) = tunnel["backend"].as_str() else {
        let findings = status["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let why = findings.iter().find(|finding| finding["code"] == "tunnel-failed");
        let why = why.and_then(|finding| finding["message"].as_str()).unwrap_or("look at its log");
        return Verdict::Fail(format!("it has no tunnel: {why}"));
    };
    let known = tunnel["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let age = |name: &String| known.iter().find(|peer| peer["name"] == **name)?["last_handshake_seconds"].as_u64();
    match peers.iter().find(|name| age(name).is_none_or(|age| age >= SESSION)) {
        Some(name) => Verdict::Fail(format!("it does not hear {name}; `dualgate tunnel status` there says more")),
        None => {
            let oldest = peers.iter().filter_map(age).max().unwrap_or_default();
            let names = peers.join(", ");
            Verdict::Pass(format!("WireGuard ({backend}) with {names}: the last handshake {oldest} s ago at most"))
        }
    }
}

fn blocked(probe: &Probe, seen: &Observation) -> Verdict {
    match seen {
        Observation::Trouble(
            trouble @ (Trouble::Refused | Trouble::Unreachable(_) | Trouble::Silent(_) | Trouble::Ended),
        ) => Verdict::Pass(format!("{}: {trouble}", there(probe))),
        Observation::Trouble(trouble @ (Trouble::Broken(_) | Trouble::Failed(_))) => {
            Verdict::Fail(format!("could not look: {trouble}"))
        }
        Observation::Answer(_)
        | Observation::Echo
        | Observation::Dialled(_)
        | Observation::Connected
        | Observation::Resolved(_)
        | Observation::Stations(_) => {
            let hint = "it must not; look at what the router and the carrier let in";
            Verdict::Fail(format!("a connection; {hint}"))
        }
        Observation::Off(host) => Verdict::Fail(format!("{host} is off")),
    }
}

fn ready(probe: &Probe, answer: &Answer) -> Verdict {
    let text = answer.text();
    match (answer.status, text.lines().next().unwrap_or_default()) {
        (200, "ready") => Verdict::Pass("ready".to_owned()),
        (503, why) => Verdict::Fail(format!("{why}; `dualgate lab exec {} -- dualgate status` says more", probe.from)),
        (status, text) => {
            let hint = "somebody else listens at the admin listener's address";
            Verdict::Fail(format!("{status} `{text}`; {hint}"))
        }
    }
}

fn pod_itself(probe: &Probe, pod: &str, answer: &Answer) -> Verdict {
    match answer.echo() {
        Some(echo) if is_pod(&echo.pod, pod) => Verdict::Pass(format!("{} reaches {}", probe.from, who(answer))),
        Some(_) | None => {
            let hint = "the EndpointSlice names another pod's address";
            Verdict::Fail(format!("{} from {}, not from {pod}; {hint}", answer.status, who(answer)))
        }
    }
}

fn seen_as(addresses: &[IpAddr], dialled: Dialled) -> Verdict {
    let seen = dialled.peer.ip();
    if addresses.contains(&seen) {
        return Verdict::Pass(format!("seen as {seen}"));
    }
    let wanted: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let wanted = wanted.join(" or ");
    Verdict::Fail(format!("seen as {seen}, not as {wanted}; look at the translation of the router and the carrier"))
}

fn seen_as_itself(dialled: Dialled) -> Verdict {
    let (own, seen) = (dialled.local.ip(), dialled.peer.ip());
    if own == seen {
        return Verdict::Pass(format!("seen as itself, {seen}"));
    }
    Verdict::Fail(format!("seen as {seen}, though it speaks from {own}; nothing should translate IPv6"))
}

fn served(probe: &Probe, service: &str, by: &Servers, answer: &Answer) -> Verdict {
    let status = answer.status;
    if let Servers::Nobody(why) = by {
        return Verdict::Fail(format!("{status}: {why}"));
    }
    match status {
        404 => {
            return Verdict::Fail(format!(
                "404: the gate has no route for it; `dualgate explain {}` says why",
                url(probe)
            ));
        }
        502..=504 => return Verdict::Fail(format!("{status}: the gate reaches no pod of {service}; look at its pods")),
        500.. => return Verdict::Fail(format!("{status} from {}", who(answer))),
        _ => {}
    }
    let pods = match by {
        Servers::Pods(pods) => pods,
        Servers::Anyone => return Verdict::Pass(format!("{status} from {service}")),
        Servers::Nobody(why) => return Verdict::Fail(format!("{status}: {why}")),
    };
    let Some(echo) = answer.echo() else {
        return Verdict::Fail(format!("{status}, but not from a pod of {service}; something else listens there"));
    };
    if !pods.iter().any(|pod| is_pod(&echo.pod, pod)) {
        let hint = format!("`dualgate explain {}` shows the route", url(probe));
        return Verdict::Fail(format!("{status} from {}, which is no pod of {service}; {hint}", who(answer)));
    }
    let own = answer.local.ip().to_canonical();
    match echo.client_address().map(|told| told.to_canonical()) {
        Some(told) if told == own => Verdict::Pass(format!("{status} from {}, told {own}", who(answer))),
        told => {
            let told = told.map(|told| told.to_string()).or(echo.client).unwrap_or_else(|| "no client".to_owned());
            let hint = "something on the way translates addresses, or the gate believes the wrong peer";
            Verdict::Fail(format!("{status} from {}, told {told} and not {own}; {hint}", who(answer)))
        }
    }
}

fn addresses_of(expected: &[IpAddr], seen: &Resolved) -> Verdict {
    let list = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let said = match (seen.code, seen.addresses.as_slice()) {
        (0, []) => "no address".to_owned(),
        (0, addresses) => list(addresses),
        (3, _) => "no such name".to_owned(),
        (code, _) => format!("response code {code}"),
    };
    let is_right = match expected {
        [] => seen.addresses.is_empty() && matches!(seen.code, 0 | 3 | 5),
        expected => seen.code == 0 && seen.addresses == expected,
    };
    match is_right {
        true => Verdict::Pass(said),
        false if expected.is_empty() => {
            Verdict::Fail(format!("{said}, and nothing should be told; `dualgate dns show` says what is"))
        }
        false => Verdict::Fail(format!("{said}, not {}; `dualgate dns show` says what is told", list(expected))),
    }
}

fn not_found(answer: &Answer) -> Verdict {
    match (answer.status, answer.echo()) {
        (404, None) => Verdict::Pass("404".to_owned()),
        (status, Some(_)) => {
            let hint = "it should not be public; `dualgate exposure` says what is";
            Verdict::Fail(format!("{status} from {}; {hint}", who(answer)))
        }
        (status, None) => {
            let hint = "the gate knows the host, and should not; `dualgate exposure` says what is public";
            Verdict::Fail(format!("{status}; {hint}"))
        }
    }
}

fn certificate(host: &str, promised: Option<&Promised>, shown: &Shown, now: i64) -> Verdict {
    let by = if shown.self_signed { "self-signed".to_owned() } else { format!("by {}", shown.issuer) };
    match promised {
        None if shown.self_signed => {
            Verdict::NotBuilt("ACME is not there yet: a self-signed certificate is shown".to_owned())
        }
        Some(promised) if promised.der != shown.der => {
            let hint = format!("not the one of Secret {}; `dualgate explain` says which is chosen", promised.secret);
            Verdict::Fail(format!("another certificate is shown ({by}, {}), {hint}", names(shown)))
        }
        _ if !shown.speaks_for(host) => {
            Verdict::Fail(format!("it does not speak for {host}: {}; browsers refuse it", names(shown)))
        }
        _ if now < shown.not_before => Verdict::Fail("it is not valid yet; look at the clocks".to_owned()),
        _ if now > shown.not_after => Verdict::Fail(format!("it has expired{}; renew it", of_secret(promised))),
        _ => Verdict::Pass(format!("{by}{}, {} days left", of_secret(promised), (shown.not_after - now) / 86_400)),
    }
}

fn of_secret(promised: Option<&Promised>) -> String {
    promised.map(|promised| format!(", of Secret {}", promised.secret)).unwrap_or_default()
}

fn names(shown: &Shown) -> String {
    if shown.names.is_empty() { "for no name".to_owned() } else { format!("for {}", shown.names.join(", ")) }
}

/// `grafana-1 on k3s-node2`, as far as the answer says.
fn who(answer: &Answer) -> String {
    match answer.echo() {
        None => "somebody who is no pod".to_owned(),
        Some(echo) => match echo.node {
            None => echo.pod,
            Some(node) => format!("{} on {node}", echo.pod),
        },
    }
}

/// A pod may say its namespace, too.
fn is_pod(said: &str, pod: &str) -> bool {
    said == pod || said.rsplit_once('/').is_some_and(|(_, name)| name == pod)
}

fn url(probe: &Probe) -> String {
    match &probe.ask {
        Ask::Get(request) => {
            let port = match (request.scheme, request.to.port()) {
                (Scheme::Http, 80) | (Scheme::Https, 443) => String::new(),
                (Scheme::Http | Scheme::Https, port) => format!(":{port}"),
            };
            format!("{}://{}{port}{}", request.scheme.as_str(), request.host, request.path)
        }
        Ask::Ping { .. } | Ask::Dial { .. } | Ask::Connect(_) | Ask::Resolve { .. } | Ask::WhoHas { .. } => {
            there(probe)
        }
    }
}

#[cfg(test)]
mod tests;
