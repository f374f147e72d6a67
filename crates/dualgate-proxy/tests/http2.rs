//! HTTP/2 through real sockets, to pods that speak HTTP/1.1 and to pods that speak HTTP/2.

mod support;

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dualgate_core::model::site::EntryProtocol;
use dualgate_core::plan::proxy::{Scheme, ServerAddress};
use http::Method;
use support::h2::{H2Client, H2Pod, read, request, upload};
use support::tls::offer;
use support::{Gate, Plan, Pod, Script, dual, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn gate_of(pod: &Pod) -> Gate {
    Gate::start(&Plan::default().site("a.example", &[pod.address])).await
}

fn h2c(pod: &H2Pod) -> Plan {
    Plan::default().site_at("a.example", Scheme::H2c, vec![ServerAddress::Sockets(dual(pod.address))])
}

fn with(method: Method, fields: &[(&str, &str)]) -> http::Request<()> {
    let mut request = request(method, "a.example", "/");
    for (name, value) in fields {
        request.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn requests_pass_with_prior_knowledge_and_over_tls() {
    let pod = Pod::start("one").await;
    let plain = gate_of(&pod).await;
    let plan = Plan { protocol: EntryProtocol::Https, ..Plan::default() }.site("a.example", &[pod.address]);
    let tls = Gate::start(&plan).await;
    let over_tls = tls.tls_client(&offer(rustls::ALL_VERSIONS, &["h2"]), "a.example").await.unwrap();
    let clients =
        [(plain.h2().await, "http"), (H2Client::over(over_tls.stream, h2::client::Builder::new()).await, "https")];
    for (mut client, scheme) in clients {
        for _ in 0..3 {
            let answer = client.get("a.example", "/x?y=1").await;
            assert_eq!((answer.status, answer.field("server")), (200, Some("dualgate")));
            assert!(answer.body.starts_with("one\nGET /x?y=1 HTTP/1.1\r\nHost: a.example\r\n"), "{answer:?}");
            assert!(answer.body.contains(&format!("X-Forwarded-Proto: {scheme}\r\n")), "{answer:?}");
        }
    }
    assert_eq!(pod.connections.load(Relaxed), 2);
}

#[tokio::test]
async fn bodies_pass_in_both_framings_and_both_ways() {
    const SIZE: usize = 1024 * 1024;
    let pod = Pod::scripted(|head, _| {
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = "x".repeat(SIZE);
        Script::reply(&match chunked {
            true => format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SIZE:x}\r\n{body}\r\n0\r\n\r\n"),
            false => format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n{body}"),
        })
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let body = vec![b'y'; SIZE];
    for (fields, announced) in [(&[][..], None), (&[("content-length", SIZE.to_string())][..], Some(SIZE.to_string()))]
    {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = client.post(with(Method::POST, &fields), &body).await.unwrap();
        assert_eq!((answer.body.len(), answer.field("content-length")), (SIZE, announced.as_deref()));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_pod_back() {
    const SIZE: usize = 64 * 1024 * 1024;
    let pod = Pod::scripted(|_, _| {
        Script::default().then(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).then_bytes(vec![0; SIZE])
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let stream = tokio::net::TcpStream::connect(gate.address).await.unwrap();
    let mut client = H2Client::over(stream, builder).await;
    let (answer, _) = client.send(request(Method::GET, "a.example", "/"), true).await;
    let answer = answer.await.unwrap();
    let mut before = u64::MAX;
    while before != pod.sent.load(Relaxed) {
        before = pod.sent.load(Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < SIZE as u64 / 2, "{before} octets are under way");
    assert_eq!(client.get("b.example", "/").await.status, 404, "the others go on");
    drop(answer);
}

#[tokio::test]
async fn a_pod_that_does_not_read_holds_its_client_back() {
    let pod = Pod::scripted(|_, _| Script::default().then_wait(Duration::from_secs(30))).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let (_answer, mut stream) = client.send(request(Method::POST, "a.example", "/"), false).await;
    const SIZE: usize = 64 * 1024 * 1024;
    let all = upload(&mut stream, vec![0; SIZE].into());
    assert!(tokio::time::timeout(Duration::from_secs(1), all).await.is_err(), "everything was taken");
    assert_eq!(client.get("b.example", "/").await.status, 404, "the others go on");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let (old, young) = (
        Pod::scripted(|_, _| {
            Script::reply(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nHost: x\r\n\r\n",
            )
        })
        .await,
        H2Pod::start().await,
    );
    let gate = gate_of(&old).await;
    let trailers = gate.h2().await.get("a.example", "/").await.trailers.unwrap();
    assert_eq!((trailers.len(), trailers.get("x-sum").unwrap().to_str().unwrap()), (1, "7"));
    let gate = Gate::start(&h2c(&young)).await;
    let mut client = gate.h2().await;
    let (answer, mut stream) = client.send(with(Method::POST, &[("te", "trailers")]), false).await;
    stream.send_data(Bytes::from_static(b"body"), false).unwrap();
    let mut sums = http::HeaderMap::new();
    sums.insert("x-sum", "8".parse().unwrap());
    stream.send_trailers(sums).unwrap();
    let answer = read(answer).await.unwrap();
    assert!(answer.body.contains("te: trailers\n") && answer.body.ends_with("x-sum: 8\nbody"), "{answer:?}");
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
    let answer = client.get("a.example", "/trailers-only").await;
    assert_eq!((answer.field("grpc-status"), answer.body.as_str()), (Some("5"), ""));
}

#[tokio::test]
async fn interim_answers_pass() {
    let pod = Pod::scripted(|head, _| {
        let script = Script::default().then("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n");
        let script = if head.to_ascii_lowercase().contains("expect:") {
            script.then("HTTP/1.1 100 Continue\r\n\r\n").then_body()
        } else {
            script
        };
        script.then(OK)
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let (mut answer, mut stream) = client.send(with(Method::POST, &[("expect", "100-continue")]), false).await;
    let hint = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((hint.status().as_u16(), hint.headers().get("link").unwrap().to_str().unwrap()), (103, "<x>"));
    let next = poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!(next.status().as_u16(), 100);
    stream.send_data(Bytes::from_static(b"body"), true).unwrap();
    assert_eq!(read(answer).await.unwrap().body, "ok");
}

#[tokio::test]
async fn interim_answers_of_a_pod_with_http2_pass() {
    let pod = H2Pod::start().await;
    let gate = Gate::start(&h2c(&pod)).await;
    let mut client = gate.client().await;
    let answer = client.get("a.example", "/hint").await;
    assert_eq!((answer.status(), answer.field("link")), (103, Some("<x>")));
    assert_eq!(client.answer().await.status(), 200);
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(client.ask(request).await.status(), 100);
    assert!(client.ask("abc").await.body.contains("\nabc"));
}

#[tokio::test]
async fn streams_run_side_by_side_and_get_their_own_answers() {
    let pod = Pod::scripted(|head, _| {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
        Script::default().then_wait(Duration::from_millis(200)).then(&answer)
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let begun = Instant::now();
    let mut answers = Vec::new();
    for number in 0..80 {
        answers.push(client.send(request(Method::GET, "a.example", &format!("/{number}")), true).await.0);
    }
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(read(answer).await.unwrap().body, format!("/{number}"));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn crumbs_of_a_cookie_become_one_field() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let answer = gate.h2().await.ask(with(Method::GET, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])).await;
    assert!(answer.body.contains("cookie: a=1; b=2\r\n"), "{answer:?}");
    assert_eq!(answer.body.matches("cookie").count(), 1);
}

#[tokio::test]
async fn fields_that_end_at_this_hop_do_not_pass() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let fields =
        [("te", "trailers"), ("proxy-authorization", "x"), ("http2-settings", "x"), ("x-forwarded-for", "1.2.3.4")];
    let answer = gate.h2().await.ask(with(Method::GET, &fields)).await;
    let seen = answer.body.to_ascii_lowercase();
    for field in ["te:", "proxy-authorization", "http2-settings", "1.2.3.4"] {
        assert!(!seen.contains(&format!("\n{field}")) && !seen.contains("1.2.3.4"), "{field} in {seen}");
    }
}

#[tokio::test]
async fn the_authority_must_be_a_host_and_the_only_one() {
    let pod = Pod::start("one").await;
    let plan = Plan::default().site("a.example", &[pod.address]).site("", &[pod.address]);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    assert_eq!(client.ask(with(Method::GET, &[("host", "a.example")])).await.status, 200);
    assert_eq!(client.ask(with(Method::GET, &[("host", "A.example")])).await.status, 200);
    assert_eq!(client.ask(with(Method::GET, &[("host", "b.example")])).await.status, 400);
    assert_eq!(client.ask(with(Method::GET, &[("host", "a.example"), ("host", "a.example")])).await.status, 400);
    assert_eq!(client.get("user@a.example", "/").await.status, 400);
    assert_eq!(client.get("a.example:99999", "/").await.status, 400);
}

#[tokio::test]
async fn connect_is_not_offered() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let request = http::Request::builder().method(Method::CONNECT).uri("a.example:443").body(()).unwrap();
    assert_eq!(gate.h2().await.ask(request).await.status, 501);
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn the_path_that_is_routed_is_the_path_that_the_pod_sees() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let answer = client.get("a.example", "/%66oo//bar/./x/../%2fy?q=/../").await;
    assert!(answer.body.starts_with("one\nGET /foo/bar/%2Fy?q=/../ HTTP/1.1\r\n"), "{answer:?}");
    assert_eq!(client.get("a.example", "/a/../../etc").await.status, 400);
}

#[tokio::test]
async fn a_length_that_is_said_twice_is_refused() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let twice = with(Method::POST, &[("content-length", "3"), ("content-length", "3")]);
    assert_eq!(client.post(twice, b"abc").await.unwrap().status, 400);
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn the_answer_to_head_tells_a_length_and_has_no_body() {
    let pod = Pod::scripted(|_, _| Script::default().then("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")).await;
    let gate = gate_of(&pod).await;
    let answer = gate.h2().await.ask(with(Method::HEAD, &[])).await;
    assert_eq!((answer.field("content-length"), answer.body.as_str()), (Some("50"), ""));
}

#[tokio::test]
async fn a_stream_that_is_reset_and_a_connection_that_is_lost_take_their_requests_with_them() {
    let (old, young) = (Pod::scripted(|_, _| Script::default().then_await_end()).await, H2Pod::start().await);
    let plan = h2c(&young).site("b.example", &[old.address]);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    let mut streams = Vec::new();
    for host in ["a.example", "b.example"] {
        streams.push(client.send(request(Method::GET, host, "/hang"), true).await);
    }
    until(|| young.requests.load(Relaxed) == 1 && old.requests.load(Relaxed) == 1).await;
    for (_, stream) in &mut streams {
        stream.send_reset(h2::Reason::CANCEL);
    }
    until(|| young.ends.load(Relaxed) == 1 && old.ends.load(Relaxed) == 1).await;
    for host in ["a.example", "b.example"] {
        streams.push(client.send(request(Method::GET, host, "/hang"), true).await);
    }
    until(|| young.requests.load(Relaxed) == 2 && old.requests.load(Relaxed) == 2).await;
    client.connection.abort();
    until(|| young.ends.load(Relaxed) == 2 && old.ends.load(Relaxed) == 2).await;
    until(|| gate.proxy.view().open_connections() == 0).await;
}

/// Also after the answer had to wait for its client's window.
#[tokio::test]
async fn a_reset_is_noticed_while_the_pod_is_silent() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .then(&format!("{:x}\r\n{}\r\n", 200_000, "x".repeat(200_000)))
            .then_await_end()
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let (answer, mut stream) = client.send(request(Method::GET, "a.example", "/"), true).await;
    let mut body = answer.await.unwrap().into_body();
    let mut left = 200_000;
    while left > 0 {
        let data = body.data().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
        left -= data.len();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.send_reset(h2::Reason::CANCEL);
    until(|| pod.ends.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_has_more_to_send() {
    let pod = Pod::scripted(|_, _| {
        Script::default().then("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").then_await_end()
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    for (host, status) in [("b.example", 404), ("a.example", 413)] {
        let (answer, mut stream) = client.send(request(Method::POST, host, "/"), false).await;
        stream.send_data(Bytes::from_static(b"the beginning"), false).unwrap();
        let answer = read(answer).await.unwrap();
        assert_eq!(answer.status, status);
        assert!(!answer.body.is_empty());
        let reset = poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, h2::Reason::NO_ERROR, "RFC 9113 8.1");
    }
    assert_eq!(client.get("b.example", "/").await.status, 404, "the connection goes on");
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let pod = Pod::start("one").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.max_body_bytes = Some(10);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    let crumbs = vec![("cookie", "a=1"); 101];
    assert_eq!(client.ask(with(Method::GET, &crumbs)).await.status, 431);
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    assert_eq!(client.ask(with(Method::GET, &fields)).await.status, 431);
    let large = "x".repeat(40_000);
    assert_eq!(client.ask(with(Method::GET, &[("x", &large)])).await.status, 431);
    assert_eq!(client.post(with(Method::POST, &[]), &[0; 11]).await.unwrap().status, 413);
    assert_eq!(client.post(with(Method::POST, &[("content-length", "11")]), &[0; 11]).await.unwrap().status, 413);
    assert_eq!(client.get("a.example", "/").await.status, 200);
}

#[tokio::test]
async fn a_slow_pod_is_504_and_a_slow_client_408() {
    let pod = Pod::scripted(|_, _| Script::default().then_body().then_wait(Duration::from_secs(30))).await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.response_timeout = Duration::from_millis(200);
    plan.settings.body_idle_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    assert_eq!(client.get("a.example", "/").await.status, 504);
    let (answer, _stream) = client.send(request(Method::POST, "a.example", "/"), false).await;
    assert_eq!(read(answer).await.unwrap().status, 408);
}

#[tokio::test]
async fn a_client_that_never_opens_its_window_is_cut_off() {
    let pod = Pod::scripted(|_, _| {
        Script::default().then("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").then_bytes(vec![0; 1_000_000])
    })
    .await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.body_idle_timeout = Duration::from_millis(300);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    let (answer, mut stream) = client.send(request(Method::GET, "a.example", "/"), true).await;
    let _body = answer.await.unwrap();
    let reset = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| stream.poll_reset(cx)));
    assert_eq!(reset.await.expect("it is held for ever").unwrap(), h2::Reason::INTERNAL_ERROR);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset() {
    let pod =
        Pod::scripted(|_, _| Script::reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").then_close()).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.h2().await;
    let error = client.try_ask(request(Method::GET, "a.example", "/")).await.unwrap_err();
    assert!(error.is_reset() && error.is_remote(), "{error:?}");
    assert_eq!(client.get("b.example", "/").await.status, 404, "the connection goes on");
}

#[tokio::test]
async fn an_idle_connection_is_told_that_it_ends() {
    let mut plan = Plan::default();
    plan.settings.keep_alive_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    let mut client = gate.h2().await;
    assert_eq!(client.get("a.example", "/").await.status, 404);
    let ended = tokio::time::timeout(Duration::from_secs(5), client.connection).await;
    assert!(ended.expect("it stays open").unwrap().is_ok(), "without an error");
}

#[tokio::test]
async fn draining_lets_streams_finish_and_says_goodbye() {
    let pod = Pod::scripted(|_, _| Script::default().then_wait(Duration::from_millis(300)).then(OK)).await;
    let mut gate = gate_of(&pod).await;
    let (mut busy, mut idle) = (gate.h2().await, gate.h2().await);
    assert_eq!(idle.get("b.example", "/").await.status, 404);
    let (answer, _) = busy.send(request(Method::GET, "a.example", "/"), true).await;
    until(|| pod.requests.load(Relaxed) == 1).await;
    let (left, answer) = tokio::join!(gate.proxy.drain(Duration::from_secs(8)), read(answer));
    assert_eq!((left, answer.unwrap().body.as_str()), (0, "ok"));
    for client in [busy, idle] {
        assert!(client.connection.await.unwrap().is_ok());
    }
}

/// The goodbye takes a moment to arrive: what was sent before it is served.
#[tokio::test]
async fn a_request_that_crosses_the_goodbye_is_served() {
    let pod = Pod::scripted(|_, _| Script::reply(OK)).await;
    let mut gate = gate_of(&pod).await;
    let mut raw = support::h2::RawClient::connect(&gate).await;
    use support::h2::{END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, block, frame};
    let ask = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET));
    raw.send(&ask(1)).await;
    assert_eq!(raw.first(&[HEADERS]).await.unwrap().stream, 1);
    let crossing = async {
        assert!(raw.first(&[GOAWAY]).await.is_some());
        // Its acknowledgement of the goodbye has not been sent.
        raw.send(&ask(3)).await;
        let answer = raw.first(&[HEADERS, support::h2::RST_STREAM]).await.unwrap();
        assert_eq!((answer.kind, answer.stream), (HEADERS, 3));
    };
    tokio::join!(gate.proxy.drain(Duration::from_secs(3)), crossing);
}

#[tokio::test]
async fn a_pod_with_http2_gets_all_over_one_connection() {
    let pod = H2Pod::start().await;
    let gate = Gate::start(&h2c(&pod)).await;
    let mut client = gate.h2().await;
    let body = "z".repeat(1_000_000);
    for _ in 0..3 {
        let answer = client.post(with(Method::POST, &[]), body.as_bytes()).await.unwrap();
        assert!(answer.body.starts_with("POST http://a.example/\n") && answer.body.ends_with(&body));
    }
    let mut old = gate.client().await;
    let answer = old.ask("POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc").await;
    assert!(answer.body.contains("POST http://a.example/x\n"), "{answer:?}");
    assert_eq!(pod.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn a_pod_with_http2_that_fails_is_502_and_one_that_left_is_found_again() {
    let pod = H2Pod::start().await;
    let gate = Gate::start(&h2c(&pod)).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/reset").await.status(), 502);
    assert_eq!(pod.requests.load(Relaxed), 1, "it may have acted on it");
    assert_eq!(client.get("a.example", "/").await.status(), 200, "one stream is not the pod");
    assert_eq!(client.ask("POST /leave HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").await.status(), 502);
    assert_eq!(client.get("a.example", "/").await.status(), 200);
}

/// A dead pod looks like a slow one: what is kept to it is not waited for again and again.
#[tokio::test]
async fn a_connection_on_which_no_answer_came_is_not_used_again() {
    let pod = H2Pod::start().await;
    let mut plan = h2c(&pod);
    plan.settings.response_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/hang").await.status(), 504);
    assert_eq!(client.get("a.example", "/").await.status(), 200);
    assert_eq!(pod.connections.load(Relaxed), 2);
}

/// RFC 9113 8.7: it was not acted upon, so that even a POST may be sent again.
#[tokio::test]
async fn what_a_pod_refused_is_sent_to_another() {
    let pods = [H2Pod::start().await, H2Pod::start().await];
    let servers = pods.each_ref().map(|pod| ServerAddress::Sockets(dual(pod.address)));
    let gate = Gate::start(&Plan::default().site_at("a.example", Scheme::H2c, servers.to_vec())).await;
    let request = "POST /refuse HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(gate.client().await.ask(request).await.status(), 502);
    assert_eq!(pods.map(|pod| pod.requests.load(Relaxed)), [1, 1]);
}

#[tokio::test]
async fn a_length_does_not_cut_trailers_off() {
    let pod = H2Pod::start().await;
    let gate = Gate::start(&h2c(&pod)).await;
    let answer = gate.h2().await.get("a.example", "/announced").await;
    assert_eq!((answer.field("content-length"), answer.body.as_str()), (Some("2"), "ok"));
    assert_eq!(answer.trailers.unwrap().get("grpc-status").unwrap(), "0");
}

/// Whatever a pod sends behind a 204, HTTP/1.1 has no place for it.
#[tokio::test]
async fn an_answer_without_body_stays_without() {
    let pod = H2Pod::start().await;
    let gate = Gate::start(&h2c(&pod)).await;
    let mut client = gate.client().await;
    for _ in 0..2 {
        let answer = client.get("a.example", "/204").await;
        assert_eq!((answer.status(), answer.field("transfer-encoding")), (204, None));
    }
}

#[tokio::test]
async fn a_pod_with_http2_that_leaves_the_plan_loses_its_connection() {
    let pod = H2Pod::start().await;
    let mut gate = Gate::start(&h2c(&pod)).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 200);
    let stream = open_to(pod.address.port());
    assert_eq!(stream, 1);
    gate.change(&Plan::default()).await;
    until(|| open_to(pod.address.port()) == 0).await;
}

/// Established connections to a port of this machine, as the kernel lists them.
fn open_to(port: u16) -> usize {
    let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{port:04X}");
    list.lines()
        .filter(|line| line.split_whitespace().nth(2).is_some_and(|to| to.ends_with(&wanted)) && line.contains(" 01 "))
        .count()
}
