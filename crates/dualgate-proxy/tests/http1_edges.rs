//! HTTP/1.1 at its edges: framing that must not slip, time-outs that must blame the right side, connections that must
//! not be used again.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use dualgate_core::model::Dual;
use dualgate_core::plan::proxy::{Scheme, ServerAddress};
use support::{Gate, Plan, Pod, Script, free_port, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn gate_of(pod: &Pod) -> Gate {
    Gate::start(&Plan::default().site("a.example", &[pod.address])).await
}

/// What was refused as a body must never be read as a request.
#[tokio::test]
async fn a_body_beyond_the_limit_is_413_and_no_second_request() {
    let pod = Pod::start("one").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.max_body_bytes = Some(10);
    let gate = Gate::start(&plan).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for framed in [
        format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{chunk}"),
    ] {
        let mut client = gate.client().await;
        let answer = client.ask(&format!("POST / HTTP/1.1\r\nHost: a.example\r\n{framed}")).await;
        assert_eq!(answer.status(), 413, "{framed}");
        // It may stay open where all of the body was there to be thrown away.
        let _ = client.stream.write_all(b"GET /next HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
        let rest = client.rest().await;
        assert!(!rest.contains("/hidden"), "{rest}");
    }
}

#[tokio::test]
async fn a_body_announced_beyond_the_limit_never_reaches_a_pod() {
    let pod = Pod::start("one").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.max_body_bytes = Some(10);
    let gate = Gate::start(&plan).await;
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(gate.client().await.ask(request).await.status(), 413);
    assert_eq!(pod.connections.load(Relaxed), 0);
}

/// RFC 9110 8.6: 1xx and 204 have no Content-Length; 304 and the answer to HEAD tell that of the body they spare.
#[tokio::test]
async fn answers_without_body_end_where_they_should() {
    let pod = Pod::scripted(|head, _| {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        match path.as_str() {
            "/204" => Script::reply("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
            "/304" => Script::reply("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n"),
            _ => Script::reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        }
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/204").await.field("content-length"), None);
    assert_eq!(client.get("a.example", "/304").await.field("content-length"), Some("5"));
    client.send("HEAD / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.contains("Content-Length: 5\r\n") && all.ends_with("\r\n\r\n"), "{all}");
    assert_eq!(pod.connections.load(Relaxed), 1, "each answer ended where the pod thought it did");
}

#[tokio::test]
async fn a_204_that_announces_a_body_costs_the_pod_its_connection() {
    let pod = Pod::scripted(|_, _| {
        Script::reply(
            "HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        )
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a.example", "/").await.status(), 204);
    }
    assert_eq!(pod.connections.load(Relaxed), 3);
}

#[tokio::test]
async fn a_connection_with_more_than_the_answer_is_not_used_again() {
    let pod =
        Pod::scripted(|_, _| Script::reply(&format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"))).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a.example", "/").await.body, "ok");
    }
    assert_eq!(pod.connections.load(Relaxed), 3);
}

#[tokio::test]
async fn a_pod_that_says_close_or_http10_gets_a_connection_for_each_request() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let pod = Pod::scripted(move |_, _| Script::reply(answer)).await;
        let gate = gate_of(&pod).await;
        let mut client = gate.client().await;
        for _ in 0..3 {
            let answer = client.get("a.example", "/").await;
            assert_eq!((answer.body.as_str(), answer.field("connection")), ("ok", None));
        }
        assert_eq!(pod.connections.load(Relaxed), 3, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_becomes_chunks() {
    let pod = Pod::scripted(|_, _| Script::reply("HTTP/1.0 200 OK\r\n\r\nall of it").then_close()).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    for _ in 0..2 {
        let answer = client.get("a.example", "/").await;
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.body, "9\r\nall of it\r\n0\r\n\r\n");
    }
}

/// To an HTTP/1.0 client the end of the connection is the end of the body: only a reset says that some is missing.
#[tokio::test]
async fn an_http10_client_can_tell_half_an_answer_from_all_of_it() {
    let pod = Pod::scripted(|_, _| {
        Script::reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .then_wait(Duration::from_millis(50))
            .then_close()
    })
    .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all).await;
    assert!(end.is_err(), "{:?} ended well", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn an_http10_client_gets_no_interim_answer() {
    let pod =
        Pod::scripted(|_, _| Script::default().then("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n").then(OK)).await;
    let gate = gate_of(&pod).await;
    assert_eq!(gate.client().await.ask("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await.status(), 200);
}

#[tokio::test]
async fn a_pod_that_stops_reading_is_504_and_not_the_clients_fault() {
    let pod = Pod::scripted(|_, _| Script::default().then_wait(Duration::from_secs(30))).await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.body_idle_timeout = Duration::from_millis(300);
    let gate = Gate::start(&plan).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n").await;
    let (mut read, mut write) = client.stream.split();
    let upload = async {
        let piece = vec![b'x'; 1 << 20];
        while write.write_all(&piece).await.is_ok() {}
    };
    let answer = async {
        let mut start = [0; 12];
        read.read_exact(&mut start).await.unwrap();
        start
    };
    let start = tokio::select! { start = answer => start, () = async { upload.await; std::future::pending().await } => unreachable!() };
    assert_eq!(&start, b"HTTP/1.1 504");
}

#[tokio::test]
async fn a_client_that_stops_sending_its_body_is_408() {
    let pod = Pod::scripted(|_, _| Script::reply(OK)).await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.body_idle_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    for body in
        ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5", "Transfer-Encoding: chunked\r\n\r\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{body}");
        assert_eq!(gate.client().await.ask(&request).await.status(), 408, "{body}");
    }
}

/// The time-out for the head of an answer is one for all of it: a byte now and then does not move it.
#[tokio::test]
async fn a_pod_that_drips_its_head_is_504() {
    let pod = Pod::scripted(|_, _| {
        let mut script = Script::default().then("HTTP/1.1 200 OK\r\n");
        for n in 0..100 {
            script = script.then_wait(Duration::from_millis(100)).then(&format!("A{n}: b\r\n"));
        }
        script
    })
    .await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.response_timeout = Duration::from_millis(400);
    let gate = Gate::start(&plan).await;
    let begun = Instant::now();
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 504);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pod_that_closed_after_an_interim_answer_is_not_asked_again() {
    let pod =
        Pod::scripted(|_, _| Script::default().then("HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n").then_close())
            .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/").await.status(), 103);
    assert_eq!(client.answer().await.status(), 502);
    assert_eq!(pod.requests.load(Relaxed), 1);
}

/// What was already written when a flush was given up must not be written again.
#[tokio::test]
async fn the_gates_answer_behind_a_stalled_interim_one_is_whole() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(20_000));
    let all = hint.repeat(1000);
    let pod = Pod::scripted(move |_, _| Script::default().then(&all).then_await_end()).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    // Nothing is read, so at some time nothing more is written.
    let writes = || gate.proxy.view().system_calls().1;
    until(|| writes() > 10).await;
    let mut before = 0;
    while before != writes() {
        before = writes();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    client.send("no chunk\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answers = client.rest().await;
    let last = answers.rfind("HTTP/1.1 103").unwrap();
    assert!(answers[..last].len().is_multiple_of(hint.len()), "an interim answer was cut");
    let behind = answers[last..].strip_prefix(&*hint).expect("the last interim answer is whole");
    assert!(behind.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{behind}");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = gate_of(&pod).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\nabc",
    ] {
        let (requests, ends) = (pod.requests.load(Relaxed), pod.ends.load(Relaxed));
        let mut client = gate.client().await;
        client.send(request).await;
        until(|| pod.requests.load(Relaxed) > requests).await;
        drop(client);
        until(|| pod.ends.load(Relaxed) > ends).await;
    }
}

#[tokio::test]
async fn a_chunk_that_is_none_is_400_and_the_pod_sees_no_end() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    until(|| pod.requests.load(Relaxed) == 1).await;
    assert_eq!(client.ask("3\r\nabcX\r\n0\r\n\r\n").await.status(), 400);
    assert_eq!(client.rest().await, "");
    until(|| pod.ends.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn a_client_that_waited_to_continue_and_got_a_final_answer_is_told_that_the_connection_ends() {
    let pod =
        Pod::scripted(|_, _| Script::default().then("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"))
            .await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let answer = client.ask(request).await;
    assert_eq!((answer.status(), answer.field("connection")), (417, Some("close")));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn trailers_reach_a_client_that_can_read_them() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
    let pod = Pod::scripted(move |_, _| Script::reply(answer)).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n"), "{all}");
    let answer = gate.client().await.ask("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(answer.body, "abc");
}

#[tokio::test]
async fn a_pod_cannot_change_to_a_protocol_that_the_client_did_not_name() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n")
            .then_echo()
    })
    .await;
    let gate = gate_of(&pod).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(gate.client().await.ask(request).await.status(), 502);
}

#[tokio::test]
async fn the_asterisk_and_the_absolute_form_reach_the_pod() {
    let pod = Pod::start("one").await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    let answer = client.ask("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(answer.body.starts_with("one\nOPTIONS * HTTP/1.1\r\n"), "{answer:?}");
    let answer = client.ask("GET http://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(answer.body.starts_with("one\nGET /x?y HTTP/1.1\r\nHost: a.example\r\n"), "{answer:?}");
    let answer = client.ask("GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert_eq!(answer.status(), 400);
}

/// While a request runs, what its client sends ahead waits in the kernel, not in memory.
#[tokio::test]
async fn requests_sent_ahead_are_not_hoarded() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = gate_of(&pod).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let piece = "GET /ahead HTTP/1.1\r\nHost: a.example\r\n\r\n".repeat(1000);
    let mut sent = 0;
    while tokio::time::timeout(Duration::from_millis(300), client.stream.write_all(piece.as_bytes())).await.is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "the gate takes everything");
    }
}

#[tokio::test]
async fn more_connections_than_allowed_are_refused_and_room_is_found_again() {
    let pod = Pod::start("one").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.max_connections = 2;
    let gate = Gate::start(&plan).await;
    let (mut first, mut second) = (gate.client().await, gate.client().await);
    assert_eq!(first.get("a.example", "/").await.status(), 200);
    assert_eq!(second.get("a.example", "/").await.status(), 200);
    assert_eq!(gate.client().await.rest().await, "");
    drop(first);
    until(|| gate.proxy.view().open_connections() == 1).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 200);
}

#[tokio::test]
async fn a_pod_is_reached_over_the_family_that_works() {
    let (v4, v6) = (Pod::start("four").await, Pod::start_on("::1".parse().unwrap(), "six").await);
    let dead = |address: &str| SocketAddr::new(address.parse().unwrap(), free_port(address.parse().unwrap()));
    for (at, name) in [
        (Dual::Both { v4: v4.address, v6: dead("::1") }, "four"),
        (Dual::Both { v4: dead("127.0.0.1"), v6: v6.address }, "six"),
        (Dual::Both { v4: v4.address, v6: v6.address }, "six"),
    ] {
        let gate =
            Gate::start(&Plan::default().site_at("a.example", Scheme::Http, vec![ServerAddress::Sockets(at.into())]))
                .await;
        let answer = gate.client().await.get("a.example", "/").await;
        assert!(answer.body.starts_with(name), "{answer:?}");
    }
}

/// A family whose packets vanish costs its head start once; then the other is known to work.
#[tokio::test]
async fn a_family_that_is_silent_costs_a_moment_and_only_once() {
    let pod =
        Pod::scripted(|_, _| Script::reply("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"))
            .await;
    let silent = Silent::on("::1");
    let at = ServerAddress::Sockets(Dual::Both { v4: pod.address, v6: silent.address }.into());
    let gate = Gate::start(&Plan::default().site_at("a.example", Scheme::Http, vec![at])).await;
    let begun = Instant::now();
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 200);
    let first = begun.elapsed();
    assert!(first >= Duration::from_millis(200) && first < Duration::from_secs(2), "{first:?}");
    // A head start for each of these connections would be two and a half seconds.
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(gate.client().await.get("a.example", "/").await.status(), 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_pod_that_is_silent_is_passed_over_after_the_connect_timeout() {
    let pod = Pod::start("alive").await;
    let silent = Silent::on("127.0.0.1");
    let mut plan =
        Plan::default().site("a.example", &[silent.address, pod.address]).site("b.example", &[silent.address]);
    plan.settings.connect_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    let mut client = gate.client().await;
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(client.ask(request).await.status(), 200, "nothing was sent to the first, so the second may be asked");
    assert_eq!(client.get("b.example", "/").await.status(), 502);
}

#[tokio::test]
async fn a_name_outside_of_the_cluster_is_resolved() {
    let pod = Pod::start("named").await;
    let at = |host: &str| ServerAddress::Name { host: host.into(), port: pod.address.port() };
    let plan = Plan::default().site_at("a.example", Scheme::Http, vec![at("localhost")]).site_at(
        "b.example",
        Scheme::Http,
        vec![at("nowhere.invalid")],
    );
    let gate = Gate::start(&plan).await;
    let mut client = gate.client().await;
    assert!(client.get("a.example", "/").await.body.starts_with("named\n"));
    assert_eq!(client.get("b.example", "/").await.status(), 502);
}

#[tokio::test]
async fn a_pod_that_leaves_the_plan_finishes_what_it_runs_and_is_not_kept() {
    let slow =
        Pod::scripted(|_, _| Script::default().then_wait(Duration::from_millis(200)).then(OK).then_await_end()).await;
    let mut gate = gate_of(&slow).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    until(|| slow.requests.load(Relaxed) == 1).await;
    gate.change(&Plan::default()).await;
    assert_eq!(client.answer().await.body, "ok");
    until(|| slow.ends.load(Relaxed) == 1).await;
    assert_eq!(client.get("a.example", "/").await.status(), 404);
}

/// An address that takes no connection and refuses none: its queue is full.
struct Silent {
    address: SocketAddr,
    _listener: socket2::Socket,
    _queue: Vec<socket2::Socket>,
}

impl Silent {
    fn on(address: &str) -> Self {
        let domain = if address.contains(':') { socket2::Domain::IPV6 } else { socket2::Domain::IPV4 };
        let socket = || socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let queue = (0..4)
            .map(|_| {
                let client = socket();
                client.set_nonblocking(true).unwrap();
                // In progress, or in the queue: either way it is taken by nobody.
                let _ = client.connect(&address.into());
                client
            })
            .collect();
        Self { address, _listener: listener, _queue: queue }
    }
}
