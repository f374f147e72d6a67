//! HTTP/1.1 through real sockets: what a client sends, what the pod sees, what comes back.

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dualgate_core::plan::proxy::{Scheme, ServerAddress};
use support::{Gate, Plan, Pod, Script, until};

#[tokio::test]
async fn a_request_reaches_the_pod_of_its_host_and_the_answer_comes_back() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let answer = gate.client().await.get("a.example", "/x?y=1").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.body.starts_with("one\nGET /x?y=1 HTTP/1.1\r\nHost: a.example\r\n"), "{}", answer.body);
    assert!(answer.field("date").is_some() && answer.field("server") == Some("dualgate"), "{}", answer.head);
}

#[tokio::test]
async fn an_unknown_host_is_404_and_the_connection_goes_on() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("b.example", "/").await.status(), 404);
    assert_eq!(client.get("a.example", "/").await.status(), 200);
}

#[tokio::test]
async fn keep_alive_requests_take_two_reads_and_two_writes_each_and_never_block() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    client.get("a.example", "/warm-up").await;
    // A write is counted a moment after the client has read what it wrote.
    until(|| gate.proxy.view().system_calls().1 == 2).await;
    let before = gate.proxy.view().system_calls();
    for _ in 0..100 {
        client.get("a.example", "/").await;
    }
    until(|| gate.proxy.view().system_calls().1 >= before.1 + 200).await;
    let after = gate.proxy.view().system_calls();
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (200, 200, 0));
    assert_eq!(pod.connections.load(Relaxed), 1, "one kept connection serves all");
}

#[tokio::test]
async fn a_client_cannot_say_who_it_is() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let answer = gate
        .client()
        .await
        .ask(
            "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
             Forwarded: for=1.2.3.4\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Proto: https\r\n\r\n",
        )
        .await;
    let seen = answer.body.to_ascii_lowercase();
    assert!(!seen.contains("1.2.3.4") && !seen.contains("evil") && !seen.contains("https"), "{seen}");
    for field in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-real-ip: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: a.example\r\n",
        "x-forwarded-port: 80\r\n",
        "forwarded: for=127.0.0.1;host=a.example;proto=http\r\n",
    ] {
        assert!(seen.contains(field), "{field} is missing in {seen}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_may_speak_for_its_client_and_is_appended() {
    let pod = Pod::start("one").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let gate = Gate::start(&plan).await;
    let answer = gate
        .client()
        .await
        .ask("GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n\r\n")
        .await;
    let seen = answer.body.to_ascii_lowercase();
    assert!(seen.contains("x-forwarded-for: 198.51.100.7, 127.0.0.1\r\n"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: https\r\n") && !seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
}

#[tokio::test]
async fn requests_go_round_all_pods_even_on_one_connection() {
    let pods = [Pod::start("a").await, Pod::start("b").await, Pod::start("c").await];
    let gate = Gate::start(&Plan::default().site("a.example", &pods.each_ref().map(|pod| pod.address))).await;
    let mut client = gate.client().await;
    for _ in 0..30 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
    }
    assert_eq!(pods.map(|pod| pod.requests.load(Relaxed)), [10, 10, 10]);
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_passed_over_and_then_left_out() {
    let pod = Pod::start("alive").await;
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], support::free_port([127, 0, 0, 1].into())));
    let gate = Gate::start(&Plan::default().site("a.example", &[dead, pod.address])).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
    }
    let mut metrics = String::new();
    gate.proxy.view().write_metrics(&mut metrics);
    assert!(metrics.contains("dualgate_backend_connect_failures_total{backend=\"apps/s0:80\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn without_any_reachable_pod_the_answer_is_502_at_once() {
    let dead = std::net::SocketAddr::from(([127, 0, 0, 1], support::free_port([127, 0, 0, 1].into())));
    let gate = Gate::start(&Plan::default().site("a.example", &[dead]).site("empty.example", &[])).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/").await.status(), 502);
    assert_eq!(client.get("empty.example", "/").await.status(), 503);
}

#[tokio::test]
async fn a_kept_connection_that_the_pod_closed_costs_no_request() {
    let pod = Pod::scripted(|_, number| {
        let script = Script::reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if number % 2 == 0 { script } else { Script::close() }
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    for _ in 0..6 {
        assert_eq!(client.get("a.example", "/").await.status(), 200);
    }
}

#[tokio::test]
async fn a_post_whose_pod_closed_is_not_sent_twice() {
    let pod = Pod::scripted(|_, _| Script::default().then_body().then_close()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let request = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(gate.client().await.ask(request).await.status(), 502);
    assert_eq!(pod.requests.load(Relaxed), 1);
}

#[tokio::test]
async fn bodies_pass_in_both_framings_and_both_ways() {
    let pod = Pod::scripted(|head, _| {
        let chunked = head.contains("/chunked");
        let script = Script::default().then_body();
        match chunked {
            true => {
                script.then("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            }
            false => script.then("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"),
        }
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    let chunked =
        "POST /chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n";
    let answer = client.ask(chunked).await;
    assert!(answer.field("transfer-encoding") == Some("chunked") && answer.body.contains("abc"), "{answer:?}");
    let plain = "POST /plain HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n\r\nwxyz";
    assert_eq!(client.ask(plain).await.body, "abcde");
    assert_eq!(client.get("a.example", "/again").await.body, "abcde");
}

#[tokio::test]
async fn an_http10_client_gets_no_chunks_and_its_connection_is_closed() {
    let pod = Pod::scripted(|_, _| {
        Script::reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let answer = gate.client().await.ask("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    assert_eq!((answer.field("transfer-encoding"), answer.field("connection")), (None, Some("close")));
    assert_eq!(answer.body, "abc");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_the_speed_of_the_slower_side() {
    const SIZE: usize = 20 * 1024 * 1024;
    let pod = Pod::scripted(|head, _| {
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
        match head.starts_with("GET") {
            true => Script::default().then(&reply).then_bytes(vec![b'x'; SIZE]),
            false => Script::reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    assert_eq!(client.get("a.example", "/").await.body.len(), SIZE);
    client.send(&format!("PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    client.send(&"y".repeat(SIZE)).await;
    assert_eq!(client.answer().await.body, "ok");
}

#[tokio::test]
async fn expectations_and_interim_answers_are_relayed() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            .then("HTTP/1.1 100 Continue\r\n\r\n")
            .then_body()
            .then("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.answer().await.field("link"), Some("</a.css>"));
    assert_eq!(client.answer().await.status(), 100);
    assert_eq!(client.ask("abc").await.body, "ok");
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_only_after_the_pod_agreed() {
    let pod = Pod::scripted(|head, _| match head.contains("/refused") {
        true => Script::default().then("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
        false => Script::default()
            .then("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            .then_echo(),
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let upgrade = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    };
    let mut client = gate.client().await;
    assert_eq!(client.ask(&upgrade("/refused")).await.status(), 403);
    let answer = client.ask(&upgrade("/")).await;
    assert_eq!(
        (answer.status(), answer.field("upgrade"), answer.field("connection")),
        (101, Some("websocket"), Some("Upgrade"))
    );
    client.send("frames").await;
    use tokio::io::AsyncWriteExt as _;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "frames");
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_bad_answer() {
    let pod = Pod::scripted(|_, _| {
        Script::default().then(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        )
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 502);
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_and_the_connection() {
    let pod = Pod::scripted(|_, _| {
        Script::default()
            .then("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .then_wait(Duration::from_secs(5))
    })
    .await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\nstart").await;
    let answer = client.answer().await;
    assert_eq!((answer.status(), answer.body.as_str()), (413, "big"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_broken_off_for_the_client_too() {
    let pod =
        Pod::scripted(|_, _| Script::reply("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").then_close()).await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.ends_with("\r\n\r\nabc"), "{all}");
}

#[tokio::test]
async fn a_slow_pod_is_504_and_a_slow_client_408() {
    let pod = Pod::scripted(|_, _| Script::default().then_wait(Duration::from_secs(30))).await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.settings.response_timeout = Duration::from_millis(200);
    plan.settings.head_timeout = Duration::from_millis(200);
    let gate = Gate::start(&plan).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 504);
    let mut client = gate.client().await;
    client.get("none.example", "/").await;
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHo").await.status(), 408);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_status_and_a_close() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n", 400),
        ("GET /%00 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        ("GET /a/../../etc HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nX_Forwarded_For: 1.2.3.4\r\nConnection: close\r\n\r\n", 400),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", 501),
        ("GET / HTTP/3.0\r\nHost: a.example\r\n\r\n", 505),
    ] {
        let mut client = gate.client().await;
        let answer = client.ask(request).await;
        assert_eq!((answer.status(), answer.field("connection")), (status, Some("close")), "{request}");
        assert_eq!(client.rest().await, "", "{request}");
    }
    assert_eq!(pod.requests.load(Relaxed), 0);
}

#[tokio::test]
async fn the_path_that_is_routed_is_the_path_that_the_pod_sees() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let answer = gate.client().await.get("a.example", "/%66oo//bar/./x/../%2fy?q=/../").await;
    assert!(answer.body.starts_with("one\nGET /foo/bar/%2Fy?q=/../ HTTP/1.1\r\n"), "{}", answer.body);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let pod = Pod::start("one").await;
    let gate = Gate::start(&Plan::default().site("a.example", &[pod.address])).await;
    let mut client = gate.client().await;
    let requests: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\n")).collect();
    client.send(&requests).await;
    for n in 0..5 {
        assert!(client.answer().await.body.starts_with(&format!("one\nGET /{n} ")));
    }
}

#[tokio::test]
async fn a_new_plan_serves_open_connections_and_running_requests_end_on_the_old_one() {
    let slow = Pod::scripted(|_, _| {
        Script::default().then_wait(Duration::from_millis(300)).then("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
    })
    .await;
    let pod = Pod::start("new").await;
    let mut gate = Gate::start(&Plan::default().site("a.example", &[slow.address])).await;
    let (mut running, mut idle) = (gate.client().await, gate.client().await);
    idle.get("none.example", "/").await;
    running.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    while slow.requests.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    gate.change(&Plan::default().site("a.example", &[pod.address])).await;
    assert!(idle.get("a.example", "/").await.body.starts_with("new"));
    assert_eq!(running.answer().await.body, "old");
    assert!(running.get("a.example", "/").await.body.starts_with("new"));
}

#[tokio::test]
async fn draining_ends_idle_connections_and_lets_requests_finish() {
    let slow = Pod::scripted(|_, _| {
        Script::default().then_wait(Duration::from_millis(300)).then("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let mut gate = Gate::start(&Plan::default().site("a.example", &[slow.address])).await;
    let (mut running, mut idle) = (gate.client().await, gate.client().await);
    idle.get("none.example", "/").await;
    running.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    while slow.requests.load(Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let (left, answer) = tokio::join!(gate.proxy.drain(Duration::from_secs(5)), running.answer());
    assert_eq!((left, answer.body.as_str()), (0, "ok"));
    assert_eq!(idle.rest().await, "");
    assert!(tokio::net::TcpStream::connect(gate.address).await.is_err(), "no new connections");
}

#[tokio::test]
async fn a_name_that_turns_out_to_mean_the_admin_listener_leads_nowhere() {
    let admin = Pod::start("admin").await;
    let name = ServerAddress::Name { host: "localhost".into(), port: admin.address.port() };
    let mut plan = Plan::default().site_at("a.example", Scheme::Http, vec![name]);
    let gate = Gate::start(&plan).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 200, "names are resolved");
    plan.forbidden = vec![admin.address];
    let gate = Gate::start(&plan).await;
    assert_eq!(gate.client().await.get("a.example", "/").await.status(), 502);
    assert_eq!(admin.requests.load(Relaxed), 1);
}

#[tokio::test]
async fn both_families_are_served() {
    let pod = Pod::start_on("::1".parse().unwrap(), "six").await;
    let mut plan = Plan::default().site("a.example", &[pod.address]);
    plan.address = "::1".parse().unwrap();
    let gate = Gate::start(&plan).await;
    let answer = gate.client().await.get("a.example", "/").await;
    assert!(answer.body.contains("X-Forwarded-For: ::1\r\n"), "{}", answer.body);
    assert!(answer.body.contains("Forwarded: for=\"[::1]\""), "{}", answer.body);
}
