//! Clients that stall, flood and lie: each of them ends by a deadline or a limit, and the others are served meanwhile.

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use support::h2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GET, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, RawClient,
    SETTINGS, WINDOW_UPDATE, block, frame, integer,
};
use support::{Client, Gate, Plan, Pod, Script, until};
use tokio::io::AsyncWriteExt as _;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ENHANCE_YOUR_CALM: u32 = 11;

/// Every time-out is this short, but for those of pods.
const SHORT: Duration = Duration::from_millis(300);

fn short(pod: &Pod) -> Plan {
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.head_timeout = SHORT;
    plan.settings.body_idle_timeout = SHORT;
    plan.settings.keep_alive_timeout = SHORT;
    plan.settings.tunnel_idle_timeout = SHORT;
    plan
}

/// The connection ends by itself, not at once and not late; what came until then.
async fn ends(client: &mut Client, begun: Instant) -> String {
    let all = client.rest().await;
    let took = begun.elapsed();
    assert!(took >= SHORT.mul_f32(0.8) && took < Duration::from_secs(5), "{took:?}: {all}");
    all
}

async fn is_served(gate: &Gate) {
    assert_eq!(gate.client().await.get("b.example", "/").await.status(), 404, "others must be served");
}

#[tokio::test]
async fn a_head_that_stalls_is_408_or_the_end() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&short(&pod)).await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for sent in [0, 1, 3, 4, 14, 16, 17, request.len() - 1] {
        let begun = Instant::now();
        let mut client = gate.client().await;
        client.send(&request[..sent]).await;
        let all = ends(&mut client, begun).await;
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{sent}: {all}");
        assert_eq!(all.is_empty(), sent == 0, "{sent}");
    }
    until(|| gate.proxy.view().open_connections() == 0).await;
}

#[tokio::test]
async fn a_head_that_drips_has_one_deadline() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&short(&pod)).await;
    let begun = Instant::now();
    let mut client = gate.client().await;
    for byte in "GET / HTTP/1.1\r\nHost: a.example\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 1000)) {
        if client.stream.write_all(&[byte]).await.is_err() || begun.elapsed() > Duration::from_secs(3) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_served(&gate).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&short(&pod)).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/").await.status(), 200);
    assert_eq!(ends(&mut client, Instant::now()).await, "");
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_and_that_stalls_is_not_waited_for_long() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&short(&pod)).await;
    let mut client = gate.client().await;
    let begun = Instant::now();
    let answer = client.ask("POST / HTTP/1.1\r\nHost: b.example\r\nContent-Length: 100\r\n\r\nabc").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(ends(&mut client, begun).await, "");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_frees_the_pod() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            .then_bytes(vec![0; 100_000_000])
            .then_await_end()
    })
    .await;
    let gate = Gate::start(&short(&pod)).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    until(|| pod.requests.load(Relaxed) == 1).await;
    until(|| gate.proxy.view().open_connections() == 0).await;
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .then_await_end()
    })
    .await;
    let gate = Gate::start(&short(&pod)).await;
    let mut client = gate.client().await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(client.ask(request).await.status(), 101);
    ends(&mut client, Instant::now()).await;
    until(|| pod.ends.load(Relaxed) == 1).await;
}

/// A peer whose machine is gone says nothing: the kernel asks.
#[tokio::test]
async fn a_tunnel_probes_both_of_its_ends() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .then_await_end()
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(client.ask(request).await.status(), 101);
    let probed = |local: Option<u16>, remote: Option<u16>| {
        let list = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let is = |address: &str, port: Option<u16>| port.is_none_or(|port| address.ends_with(&format!(":{port:04X}")));
        list.lines().skip(1).any(|line| {
            // Number, local, remote, state, queues, timer: 01 is established, 02 the timer of probes.
            let columns: Vec<&str> = line.split_whitespace().collect();
            is(columns[1], local) && is(columns[2], remote) && columns[3] == "01" && columns[5].starts_with("02:")
        })
    };
    until(|| probed(Some(gate.address.port()), None)).await;
    until(|| probed(None, Some(pod.address.port()))).await;
}

/// A tunnel does not hold a drain up for ever, but for as long as is allowed.
#[tokio::test]
async fn a_tunnel_is_left_alone_until_the_drain_is_over() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            .then_echo()
    })
    .await;
    let mut gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    let request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    assert_eq!(client.ask(request).await.status(), 101);
    let echo = async {
        for _ in 0..5 {
            client.send("ping").await;
            let mut back = [0; 4];
            tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut back).await.unwrap();
            assert_eq!(&back, b"ping");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (left, ()) = tokio::join!(gate.proxy.drain(Duration::from_secs(1)), echo);
    assert_eq!(left, 1);
}

#[tokio::test]
async fn http2_that_stalls_ends_in_each_state() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&short(&pod)).await;
    let settings = frame(SETTINGS, 0, 0, &[]);
    let headers = frame(HEADERS, END_STREAM, 1, &block(&GET));
    let whole = [PREFACE, &settings, &headers].concat();
    let inside_headers = PREFACE.len() + settings.len() + 9 + 5;
    for sent in [1, 4, PREFACE.len() - 1, PREFACE.len(), PREFACE.len() + 5, inside_headers, whole.len()] {
        let begun = Instant::now();
        let mut client = gate.client().await;
        client.stream.write_all(&whole[..sent]).await.unwrap();
        ends(&mut client, begun).await;
    }
    assert_eq!(pod.requests.load(Relaxed), 0, "the last head was never ended");
}

#[tokio::test]
async fn a_preface_may_come_in_any_pieces() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    client.stream.set_nodelay(true).unwrap();
    for byte in [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat() {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut settings = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut settings).await.unwrap();
    assert_eq!(settings[3], SETTINGS);
}

/// CVE-2023-44487: requests that are reset at once cost their sender nothing.
#[tokio::test]
async fn a_burst_of_requests_and_resets_ends_the_connection() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = RawClient::connect(&gate).await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        flood.extend_from_slice(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block(&GET)));
        flood.extend_from_slice(&frame(RST_STREAM, 0, 2 * number + 1, &8u32.to_be_bytes()));
    }
    client.send(&flood).await;
    calm(&client.rest(&[GOAWAY]).await);
    assert!(pod.requests.load(Relaxed) < 200, "{}", pod.requests.load(Relaxed));
    is_served(&gate).await;
}

/// The same, slowly enough that each request reaches the pod.
#[tokio::test]
async fn requests_that_are_reset_one_after_the_other_end_the_connection() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = RawClient::connect(&gate).await;
    let mut ended = None;
    for number in 0..3000u32 {
        let ask = frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block(&GET));
        let before = pod.requests.load(Relaxed);
        if !client.send(&ask).await {
            ended = Some(number);
            break;
        }
        let begun = Instant::now();
        while pod.requests.load(Relaxed) == before && begun.elapsed() < Duration::from_millis(100) {
            tokio::task::yield_now().await;
        }
        if !client.send(&frame(RST_STREAM, 0, 2 * number + 1, &8u32.to_be_bytes())).await {
            ended = Some(number);
            break;
        }
    }
    assert!(ended.is_some(), "3000 requests were reset");
    is_served(&gate).await;
}

/// CVE-2025-8671: faults that make the server do the resetting.
#[tokio::test]
async fn a_client_that_makes_us_reset_its_streams_is_sent_away() {
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = RawClient::connect(&gate).await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        let stream = 2 * number + 1;
        flood.extend_from_slice(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET)));
        flood.extend_from_slice(&frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes()));
    }
    client.send(&flood).await;
    calm(&client.rest(&[GOAWAY]).await);
    is_served(&gate).await;
}

#[tokio::test]
async fn the_hundred_and_first_stream_is_refused() {
    const REFUSED_STREAM: u32 = 7;
    let pod = Pod::scripted(|_, _| Script::default().then_await_end()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = RawClient::connect(&gate).await;
    for number in 0..101 {
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * number + 1, &block(&GET))).await;
    }
    let refused = client.first(&[RST_STREAM]).await.unwrap();
    assert_eq!((refused.stream, refused.reason()), (201, REFUSED_STREAM));
    until(|| pod.requests.load(Relaxed) == 100).await;
}

/// CVE-2024-27316.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    for piece in [block(&[("x", "y")]), Vec::new(), block(&[("x", &"y".repeat(16_000))])] {
        let mut client = RawClient::connect(&gate).await;
        client.send(&frame(HEADERS, END_STREAM, 1, &block(&GET))).await;
        let mut sent = 0;
        while sent < 10_000 && client.send(&frame(CONTINUATION, 0, 1, &piece)).await {
            sent += 1;
        }
        let frames = client.rest(&[GOAWAY, RST_STREAM]).await;
        assert!(sent < 10_000 || !frames.is_empty(), "all were taken");
    }
    assert_eq!(pod.requests.load(Relaxed), 0);
    is_served(&gate).await;
}

/// CVE-2019-9512, CVE-2019-9515, CVE-2019-9518.
#[tokio::test]
async fn floods_of_control_frames_end_the_connection() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    for one in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        frame(0xbb, 0, 0, &[]),
    ] {
        let mut client = RawClient::connect(&gate).await;
        let many = one.repeat(1000);
        for _ in 0..200 {
            client.send(&many).await;
        }
        // It ends long before it would for being idle.
        client.rest(&[]).await;
    }
    let mut client = RawClient::connect(&gate).await;
    let post: Vec<(&str, &str)> = [(":method", "POST")].into_iter().chain(GET[1..].iter().copied()).collect();
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&post))).await;
    let many = frame(DATA, 0, 1, &[]).repeat(1000);
    for _ in 0..200 {
        client.send(&many).await;
    }
    client.rest(&[]).await;
    is_served(&gate).await;
}

/// CVE-2026-49975: a field that is in the table once and named ten thousand times.
#[tokio::test]
async fn a_head_that_grows_when_it_is_unpacked_is_refused() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = RawClient::connect(&gate).await;
    let mut bomb = block(&GET);
    // Literal with incremental indexing, then the first entry of the dynamic table again and again.
    bomb.push(0x40);
    for text in ["cookie", &"a=1; ".repeat(600)] {
        integer(text.len(), 7, 0, &mut bomb);
        bomb.extend_from_slice(text.as_bytes());
    }
    bomb.extend(std::iter::repeat_n(0x80 | 62, 10_000));
    client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await;
    let answer = client.first(&[HEADERS, RST_STREAM, GOAWAY]).await;
    assert!(answer.is_some());
    assert_eq!(pod.requests.load(Relaxed), 0);
    is_served(&gate).await;
}

/// What HTTP/2 can say and HTTP/1.1 must not be told.
#[tokio::test]
async fn no_field_of_http2_becomes_two_lines_or_another_body() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let get = |change: (&'static str, &'static str)| {
        let mut fields = GET.to_vec();
        match fields.iter_mut().find(|(name, _)| *name == change.0) {
            Some(field) => *field = change,
            None => fields.push(change),
        }
        fields
    };
    for fields in [
        get(("x", "a\r\nY: b")),
        get(("x", "a\nY: b")),
        get(("x", "a\0b")),
        get(("x\r\ny", "b")),
        get(("x: y\r\nz", "b")),
        get(("X", "upper case")),
        get(("", "no name")),
        get((":path", "/ HTTP/1.1\r\nY: b")),
        get((":path", "/a b")),
        get((":path", "")),
        get((":path", "no-slash")),
        get((":method", "GET / HTTP/1.1\r\nY: b")),
        get((":method", "GE T")),
        get((":authority", "a.example\r\nY: b")),
        get((":authority", "a.example/x")),
        get((":other", "x")),
        get((":status", "200")),
        get(("connection", "x")),
        get(("transfer-encoding", "chunked")),
        get(("upgrade", "websocket")),
        get(("keep-alive", "x")),
        get(("te", "gzip")),
        get(("content-length", "5")),
        get(("content-length", "-1")),
        get(("content-length", "+0")),
        get(("content-length", "0, 0")),
        GET[..3].to_vec(),
        [&GET[..], &[(":path", "/")]].concat(),
        [&[("x", "y")][..], &GET].concat(),
    ] {
        let mut client = RawClient::connect(&gate).await;
        client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields))).await;
        let answer = client.first(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        assert!(answer.kind != HEADERS || !answer.payload.contains(&0x88), "200 for {fields:?}");
        assert_eq!(pod.requests.load(Relaxed), 0, "{fields:?}");
    }
    is_served(&gate).await;
}

#[tokio::test]
async fn a_body_is_as_long_as_was_said() {
    let pod = Pod::scripted(|_, _| Script::reply(OK)).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let post = [&[(":method", "POST")], &GET[1..], &[("content-length", "5")]].concat();
    for body in ["1234", "123456", "123456GET / HTTP/1.1\r\n\r\n"] {
        let mut client = RawClient::connect(&gate).await;
        client.send(&frame(HEADERS, END_HEADERS, 1, &block(&post))).await;
        client.send(&frame(DATA, END_STREAM, 1, body.as_bytes())).await;
        let answer = client.first(&[HEADERS, RST_STREAM, GOAWAY]).await.unwrap();
        assert!(answer.kind != HEADERS || !answer.payload.contains(&0x88), "{body}: {answer:?}");
    }
    // Whatever the pod saw of them, its next answer belongs to the next request.
    assert_eq!(gate.client().await.get("a.example", "/").await.body, "ok");
}

fn calm(goodbyes: &[Frame]) {
    let reasons: Vec<u32> = goodbyes.iter().map(Frame::reason).collect();
    assert_eq!(reasons, [ENHANCE_YOUR_CALM]);
}
