//! What each expectation takes for right, and what not.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::probe::Request;

const NOW: i64 = 1_795_305_600;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn get(expect: Expectation) -> Probe {
    let request = Request::new(socket("192.168.178.10:80"), "grafana.example.org");
    Probe { from: "lan-client".to_owned(), ask: Ask::Get(request), expect }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        fields: Vec::new(),
        body: body.as_bytes().to_vec(),
        local: socket("192.168.178.50:40000"),
        certificate: None,
        took: Duration::ZERO,
    }
}

fn echo(status: u16, pod: &str, client: &str) -> Observation {
    seen(answer(status, &format!(r#"{{"pod": "{pod}", "node": "k3s-node2", "client": "{client}"}}"#)))
}

fn seen(answer: Answer) -> Observation {
    Observation::Answer(Box::new(answer))
}

fn served() -> Expectation {
    let by = Servers::Pods(vec!["grafana-1".to_owned(), "grafana-2".to_owned()]);
    Expectation::Served { service: "apps/grafana".to_owned(), by }
}

fn every_expectation() -> Vec<Expectation> {
    vec![
        Expectation::Ready,
        Expectation::Echo,
        Expectation::Pod("grafana-1".to_owned()),
        Expectation::SeenAs(vec!["192.0.2.1".parse().unwrap()]),
        Expectation::SeenAsItself,
        Expectation::Blocked,
        served(),
        Expectation::NotFound,
        Expectation::Certificate { host: "grafana.example.org".to_owned(), promised: None },
    ]
}

fn every_trouble() -> Vec<Trouble> {
    vec![
        Trouble::Refused,
        Trouble::Unreachable("no way to the host".to_owned()),
        Trouble::Silent(1500),
        Trouble::Ended,
        Trouble::Broken("broken".to_owned()),
        Trouble::Failed("no socket".to_owned()),
    ]
}

#[track_caller]
fn passes(expect: Expectation, seen: Observation, detail: &str) {
    assert_eq!(judge(&get(expect), &seen, NOW), Verdict::Pass(detail.to_owned()));
}

#[track_caller]
fn fails(expect: Expectation, seen: Observation, part: &str) {
    match judge(&get(expect), &seen, NOW) {
        Verdict::Fail(why) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_must_answer_fails_with_every_trouble() {
    for expect in every_expectation().into_iter().filter(|expect| *expect != Expectation::Blocked) {
        for trouble in every_trouble() {
            let verdict = judge(&get(expect.clone()), &Observation::Trouble(trouble.clone()), NOW);
            assert!(matches!(verdict, Verdict::Fail(_)), "{expect:?} {trouble:?} {verdict:?}");
        }
    }
}

#[test]
fn a_host_that_is_off_fails_every_row_but_what_must_not_reach_it() {
    for expect in every_expectation() {
        let asker = judge(&get(expect.clone()), &Observation::Off("lan-client".to_owned()), NOW);
        assert!(matches!(asker, Verdict::Fail(_)), "{expect:?} {asker:?}");
        let asked = judge(&get(expect.clone()), &Observation::Off("k3s-node1".to_owned()), NOW);
        assert_eq!(matches!(asked, Verdict::Fail(_)), expect != Expectation::Blocked, "{expect:?} {asked:?}");
    }
}

#[test]
fn what_cannot_show_the_expected_fails() {
    let other = [Observation::Echo, Observation::Connected, echo(200, "grafana-1", "192.168.178.50")];
    for seen in other {
        fails(Expectation::SeenAsItself, seen.clone(), "cannot show");
        fails(Expectation::SeenAs(Vec::new()), seen, "cannot show");
    }
    fails(Expectation::Ready, Observation::Echo, "cannot show");
    fails(served(), Observation::Connected, "cannot show");
}

#[test]
fn blocked_is_what_stays_without_a_connection() {
    for trouble in every_trouble() {
        let blocks = !matches!(trouble, Trouble::Broken(_) | Trouble::Failed(_));
        let verdict = judge(&get(Expectation::Blocked), &Observation::Trouble(trouble.clone()), NOW);
        assert_eq!(matches!(verdict, Verdict::Pass(_)), blocks, "{trouble:?} {verdict:?}");
    }
    let dialled = Dialled { local: socket("198.51.100.7:1"), peer: socket("198.51.100.7:1") };
    fails(Expectation::Blocked, Observation::Dialled(dialled), "it must not");
    fails(Expectation::Blocked, Observation::Connected, "it must not");
    fails(Expectation::Blocked, Observation::Echo, "it must not");
    fails(Expectation::Blocked, echo(404, "x", ""), "it must not");
}

#[test]
fn a_node_is_ready_when_it_says_so() {
    passes(Expectation::Ready, seen(answer(200, "ready\n")), "ready");
    let why = "not ready: the source has not been read";
    fails(Expectation::Ready, seen(answer(503, &format!("{why}\n"))), why);
    fails(Expectation::Ready, seen(answer(200, "<html>")), "somebody else listens");
    fails(Expectation::Ready, seen(answer(404, "")), "somebody else listens");
}

#[test]
fn a_tunnel_is_there_when_every_peer_was_heard_lately() {
    let heard = || Expectation::Heard(vec!["k3s-node1".to_owned(), "k3s-node2".to_owned()]);
    let status = |ages: [Option<u64>; 2]| {
        let peer = |(name, age): (&str, Option<u64>)| serde_json::json!({"name": name, "last_handshake_seconds": age});
        let peers: Vec<_> = ["k3s-node1", "k3s-node2"].into_iter().zip(ages).map(peer).collect();
        seen(answer(200, &serde_json::json!({"tunnel": {"backend": "packet", "peers": peers}}).to_string()))
    };
    passes(
        heard(),
        status([Some(3), Some(179)]),
        "WireGuard (packet) with k3s-node1, k3s-node2: the last handshake 179 s ago at most",
    );
    fails(heard(), status([Some(3), Some(180)]), "it does not hear k3s-node2");
    fails(heard(), status([None, Some(1)]), "it does not hear k3s-node1");
    let down = serde_json::json!({"tunnel": {"peers": []}, "findings": [
        {"code": "tunnel-failed", "message": "there is no key"},
    ]});
    fails(heard(), seen(answer(200, &down.to_string())), "it has no tunnel: there is no key");
    fails(heard(), seen(answer(200, "nonsense")), "it has no tunnel");
}

#[test]
fn a_pod_itself_must_be_the_one_that_was_asked_for() {
    let pod = || Expectation::Pod("grafana-1".to_owned());
    passes(pod(), echo(200, "grafana-1", ""), "lan-client reaches grafana-1 on k3s-node2");
    passes(pod(), echo(200, "apps/grafana-1", ""), "lan-client reaches apps/grafana-1 on k3s-node2");
    fails(pod(), echo(200, "grafana-2", ""), "not from grafana-1");
    fails(pod(), seen(answer(200, "hello")), "somebody who is no pod");
}

#[test]
fn whom_the_internet_sees_must_be_the_translation_or_the_host_itself() {
    let dialled = |local, peer| Observation::Dialled(Dialled { local: socket(local), peer: socket(peer) });
    let carrier = || Expectation::SeenAs(vec!["192.0.2.1".parse().unwrap()]);
    passes(carrier(), dialled("192.168.178.5:1", "192.0.2.1:4711"), "seen as 192.0.2.1");
    fails(carrier(), dialled("192.168.178.5:1", "192.168.178.5:1"), "not as 192.0.2.1");
    let own = "[2001:db8:100:1::5]:1";
    passes(Expectation::SeenAsItself, dialled(own, own), "seen as itself, 2001:db8:100:1::5");
    fails(Expectation::SeenAsItself, dialled(own, "[2001:db8::1]:9"), "nothing should translate IPv6");
}

#[test]
fn an_application_is_served_by_a_pod_of_its_own_that_was_told_the_client() {
    passes(served(), echo(200, "grafana-2", "192.168.178.50"), "200 from grafana-2 on k3s-node2, told 192.168.178.50");
    fails(served(), echo(200, "paperless-1", "192.168.178.50"), "no pod of apps/grafana");
    fails(served(), echo(200, "grafana-1", "10.42.0.1"), "told 10.42.0.1 and not 192.168.178.50");
    fails(served(), echo(200, "grafana-1", "unknown"), "told unknown");
    fails(served(), seen(answer(200, r#"{"pod": "grafana-1"}"#)), "told no client");
    fails(served(), seen(answer(200, "welcome")), "not from a pod");
    fails(served(), seen(answer(404, "")), "dualgate explain http://grafana.example.org/");
    for status in [502, 503, 504] {
        fails(served(), seen(answer(status, "")), "reaches no pod of apps/grafana");
    }
    fails(served(), echo(500, "grafana-1", "192.168.178.50"), "500 from grafana-1");
}

#[test]
fn an_application_without_pods_fails_whatever_answers() {
    let nobody = || Expectation::Served {
        service: "apps/grafana".to_owned(),
        by: Servers::Nobody("no pod of apps/grafana is ready".to_owned()),
    };
    fails(nobody(), seen(answer(503, "")), "503: no pod of apps/grafana is ready");
    fails(nobody(), echo(200, "grafana-1", "192.168.178.50"), "no pod of apps/grafana is ready");
    let anyone = || Expectation::Served { service: "apps/nas".to_owned(), by: Servers::Anyone };
    passes(anyone(), seen(answer(200, "hello")), "200 from apps/nas");
    fails(anyone(), seen(answer(502, "")), "502");
}

#[test]
fn what_stays_at_home_is_unknown_outside() {
    passes(Expectation::NotFound, seen(answer(404, "not found\n")), "404");
    fails(Expectation::NotFound, echo(200, "paperless-1", "198.51.100.7"), "should not be public");
    fails(Expectation::NotFound, echo(404, "paperless-1", "198.51.100.7"), "should not be public");
    fails(Expectation::NotFound, seen(answer(503, "")), "should not");
}

fn shown(names: &[&str], signer: &str) -> Shown {
    Shown {
        der: b"der".to_vec(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        issuer: signer.to_owned(),
        self_signed: signer == "itself",
        not_before: NOW - 86_400,
        not_after: NOW + 90 * 86_400,
    }
}

fn with(shown: Shown) -> Observation {
    seen(Answer { certificate: Some(shown), ..answer(200, "") })
}

fn certificate(der: Option<&[u8]>) -> Expectation {
    let promised = der.map(|der| Promised { secret: "apps/tls".to_owned(), der: der.to_vec() });
    Expectation::Certificate { host: "grafana.example.org".to_owned(), promised }
}

#[test]
fn a_self_signed_certificate_that_no_secret_promised_means_that_acme_is_not_there() {
    let verdict = judge(&get(certificate(None)), &with(shown(&["default.invalid"], "itself")), NOW);
    assert!(matches!(verdict, Verdict::NotBuilt(_)), "{verdict:?}");
    fails(certificate(None), seen(answer(200, "")), "no certificate");
}

#[test]
fn a_certificate_of_a_secret_must_be_shown_speak_for_the_host_and_be_valid() {
    let wildcard = shown(&["*.example.org"], "itself");
    passes(certificate(Some(b"der")), with(wildcard.clone()), "self-signed, of Secret apps/tls, 90 days left");
    passes(certificate(None), with(shown(&["grafana.example.org"], "CN=CA")), "by CN=CA, 90 days left");
    fails(certificate(Some(b"other")), with(wildcard.clone()), "not the one of Secret apps/tls");
    fails(certificate(Some(b"der")), with(shown(&["example.org"], "CN=CA")), "does not speak for");
    fails(certificate(None), with(shown(&[], "CN=CA")), "for no name");
    fails(
        certificate(Some(b"der")),
        with(Shown { not_after: NOW - 1, ..wildcard.clone() }),
        "expired, of Secret apps/tls",
    );
    fails(certificate(Some(b"der")), with(Shown { not_before: NOW + 1, ..wildcard }), "not valid yet");
}

#[test]
fn a_row_is_as_bad_as_its_worst_probe() {
    let pass = || Verdict::Pass("404".to_owned());
    let fail = || Verdict::Fail("503".to_owned());
    let not_built = || Verdict::NotBuilt("not yet".to_owned());
    let waiting = || Verdict::Waiting;
    assert_eq!(worst(&[]), Verdict::Absent);
    assert_eq!(worst(&[pass()]), Verdict::Pass("404".to_owned()));
    assert_eq!(worst(&[pass(), pass(), pass()]), Verdict::Pass("404, and 2 more".to_owned()));
    assert_eq!(worst(&[pass(), not_built()]), not_built());
    assert_eq!(worst(&[not_built(), waiting(), pass()]), Verdict::Waiting);
    assert_eq!(worst(&[fail()]), fail());
    assert_eq!(worst(&[waiting(), fail(), not_built()]), fail());
    assert_eq!(worst(&[fail(), pass(), fail()]), Verdict::Fail("503 (2 of 3 fail)".to_owned()));
}

#[test]
fn a_virtual_ip_is_answered_for_by_one_home_node_and_by_nobody_else() {
    let (one, two, stranger) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 9]));
    let ask = Ask::WhoHas { interface: "eth0".to_owned(), address: [192, 168, 178, 10].into() };
    let expect = Expectation::OneOf(vec![(one, "home1".to_owned()), (two, "home2".to_owned())]);
    let probe = Probe { from: "lan-client".to_owned(), ask, expect };
    let judged = |seen: &[Mac]| judge(&probe, &Observation::Stations(seen.iter().copied().collect()), 0);
    assert_eq!(judged(&[two]), Verdict::Pass("home2 answers for it".to_owned()));
    let Verdict::Fail(why) = judged(&[one, two]) else { panic!("two owners") };
    assert!(why.contains("home1 and home2 answer for it"), "{why}");
    let Verdict::Fail(why) = judged(&[stranger]) else { panic!("a stranger") };
    assert!(why.contains("a stranger (02:00:00:00:00:09)"), "{why}");
    let silent = judge(&probe, &Observation::Trouble(Trouble::Silent(300)), 0);
    assert!(matches!(silent, Verdict::Fail(why) if why.contains("silence")));
}
