//! Clients that were not written here: curl, dig, dnsperf, kdig, nghttp, h2load, kubectl, slowhttptest, and Python's `h2` and
//! `websockets`; and the schemas of Kubernetes, as a judge of what is installed there.
//!
//! A test whose tool is missing says `SKIPPED` and passes; with `DUALGATE_REQUIRE_TOOLS=1` it fails.

#[path = "outside/dns.rs"]
mod dns;
#[path = "outside/knot.rs"]
mod knot;
#[path = "outside/kubectl.rs"]
mod kubectl;
#[path = "outside/manifests.rs"]
mod manifests;
mod support;

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use support::tools::{Said, Tool, has, run, script};
use support::{Authority, Client, Home, Node, Pod, gated, reserve};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

const CURL: &[Tool] = &[Tool::Program("curl")];
const NGHTTP: &[Tool] = &[Tool::Program("nghttp"), Tool::Program("h2load")];
const PYTHON_H2: &[Tool] = &[Tool::Program("python3"), Tool::Python("h2")];
const WEBSOCKETS: &[Tool] = &[Tool::Program("python3"), Tool::Python("websockets.asyncio.server")];
const SYSTEMD: &[Tool] = &[Tool::Program("systemd-analyze")];
const SLOW: &[Tool] = &[Tool::Program("slowhttptest")];

/// No program may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A node whose `web.example.org` is dualgate's own echo backend, with a certificate.
struct Echoing {
    home: Home,
    authority: String,
    _node: Node,
}

impl Echoing {
    fn start() -> Self {
        let (home, authority) = (Home::new(), Authority::new());
        let echo = reserve(V4);
        let manifest = gated("web", &[], "internal,external", "  tls: [{secretName: web}]\n");
        let endpoints = format!("endpoints: '{}'", echo.address);
        home.manifest("web", &manifest.replace("endpoints: ''", &endpoints));
        home.manifest("secret", &authority.issue(&["web.example.org"]).secret("web"));
        home.directory.write("authority.pem", &authority.pem());
        let node = Node::start(&home, &["--echo", &echo.address.to_string()]);
        node.wait_until_ready();
        let authority = home.directory.join("authority.pem").display().to_string();
        Self { home, authority, _node: node }
    }

    /// Runs curl for a URL at an address; it trusts the authority of the test and nobody else.
    fn curl(&self, address: SocketAddr, url: &str, options: &[&str]) -> Said {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let port = address.port();
        let resolve = format!("{host}:{port}:{}", ip(address));
        let url = format!("{scheme}://{host}:{port}/{path}");
        let mut arguments = vec!["-sS", "--max-time", "30", "--resolve", &resolve, "--cacert", &self.authority];
        arguments.extend_from_slice(options);
        arguments.push(&url);
        run(LIMIT, "curl", &arguments)
    }

    /// The echo backend's report, and what curl says of the version.
    #[track_caller]
    fn report(&self, address: SocketAddr, url: &str, options: &[&str]) -> (Value, String) {
        let said = self.curl(address, url, &[&["-w", "\n%{http_version} %{response_code}"], options].concat());
        assert_eq!(said.code, Some(0), "{url} {options:?} at {address}: {said:?}");
        let (body, version) = said.out.rsplit_once('\n').unwrap();
        let report = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        (report, version.to_owned())
    }
}

#[test]
fn curl_speaks_every_version_of_http_over_both_families() {
    if !has("curl_speaks_every_version_of_http_over_both_families", CURL) {
        return;
    }
    let echoing = Echoing::start();
    let home = &echoing.home;
    let plain = [("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2", "2"), ("--http2-prior-knowledge", "2")];
    let secure = [("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2", "2")];
    for (addresses, scheme, versions) in [
        (home.web, "http", &plain[..]),
        (home.public, "http", &plain[..]),
        (home.websecure, "https", &secure[..]),
        (home.publicsecure, "https", &secure[..]),
    ] {
        for address in addresses {
            for (option, version) in versions {
                let url = format!("{scheme}://web.example.org/a?b=c");
                let (report, found) = echoing.report(address, &url, &[option]);
                // An upgrade from HTTP/1.1 to h2c is obsolete (RFC 9113 3.1): the request is answered as it came.
                let version = if (*option, scheme) == ("--http2", "http") { "1.1" } else { version };
                assert_eq!(found, format!("{version} 200"), "{option} at {address}");
                let expected = serde_json::json!({
                    "path": "/a?b=c",
                    "host": format!("web.example.org:{}", address.port()),
                    "method": "GET",
                    "client": address.ip().to_string(),
                });
                for (key, value) in expected.as_object().unwrap() {
                    assert_eq!(&report[key], value, "{key} with {option} at {address}: {report}");
                }
                assert_eq!(report["headers"]["x-forwarded-proto"][0], scheme, "{report}");
            }
        }
    }
}

#[test]
fn curl_verifies_the_certificate_of_the_secret_and_refuses_the_default_one() {
    if !has("curl_verifies_the_certificate_of_the_secret_and_refuses_the_default_one", CURL) {
        return;
    }
    let echoing = Echoing::start();
    for address in [echoing.home.websecure, echoing.home.publicsecure].concat() {
        for version in ["--tlsv1.3", "--tls-max=1.2"] {
            let options: Vec<&str> = version.split('=').collect();
            assert_eq!(echoing.report(address, "https://web.example.org/", &options).1, "2 200");
            let refused = echoing.curl(address, "https://nobody.example.org/", &options);
            assert_eq!(refused.code, Some(60), "{version} {refused:?}");
            let unknown = [&options[..], &["-k", "-o", "/dev/null", "-w", "%{response_code}"]].concat();
            let answer = echoing.curl(address, "https://nobody.example.org/", &unknown);
            assert_eq!((answer.code, &*answer.out), (Some(0), "404"), "{version} {answer:?}");
        }
    }
}

#[test]
fn curl_uploads_and_downloads_in_every_way_that_it_knows() {
    if !has("curl_uploads_and_downloads_in_every_way_that_it_knows", CURL) {
        return;
    }
    let echoing = Echoing::start();
    let content: Vec<u8> = (0..5_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let digest: String = Sha256::digest(&content).iter().map(|octet| format!("{octet:02x}")).collect();
    let file = echoing.home.directory.join("upload");
    std::fs::write(&file, &content).unwrap();
    let data = format!("@{}", file.display());
    let path = file.display().to_string();
    let ways: &[&[&str]] = &[
        &["--data-binary", &data],
        &["--data-binary", &data, "-H", "Expect: 100-continue"],
        &["--data-binary", &data, "-H", "Expect:"],
        &["-T", &path],
        &["-T", &path, "-H", "Transfer-Encoding: chunked"],
        &["-T", &path, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
    ];
    let [web, secure] = [echoing.home.web, echoing.home.websecure];
    for (address, url, version) in [
        (web[0], "http://web.example.org/upload", "--http1.1"),
        (web[1], "http://web.example.org/upload", "--http2-prior-knowledge"),
        (secure[1], "https://web.example.org/upload", "--http1.1"),
        (secure[0], "https://web.example.org/upload", "--http2"),
    ] {
        for way in ways {
            let (report, found) = echoing.report(address, url, &[&[version], *way].concat());
            assert!(found.ends_with(" 200"), "{version} {way:?}: {found}");
            assert_eq!(report["body"]["length"], content.len(), "{version} {way:?}: {report}");
            assert_eq!(report["body"]["sha256"], digest, "{version} {way:?}: {report}");
        }
        let size = &[version, "-o", "/dev/null", "-w", "%{response_code} %{size_download}"];
        let url = url.replace("/upload", "/?size=20MiB");
        let said = echoing.curl(address, &url, size);
        assert_eq!((said.code, &*said.out), (Some(0), "200 20971520"), "{version}: {said:?}");
        let said = echoing.curl(address, &url.replace("size=20MiB", "stream=5"), &[version]);
        assert_eq!((said.code, said.out.is_empty()), (Some(0), false), "{version}: {said:?}");
        let head = echoing.curl(address, &url, &[version, "-I"]);
        assert_eq!(head.code, Some(0), "{version}: {head:?}");
        assert!(head.out.contains("20971520"), "{version}: {head:?}");
    }
}

#[test]
fn nghttp_gets_many_answers_over_one_connection() {
    if !has("nghttp_gets_many_answers_over_one_connection", NGHTTP) {
        return;
    }
    let echoing = Echoing::start();
    for (address, scheme) in [
        (echoing.home.web[0], "http"),
        (echoing.home.web[1], "http"),
        (echoing.home.websecure[0], "https"),
        (echoing.home.websecure[1], "https"),
    ] {
        let url = format!("{scheme}://{}:{}/", ip(address), address.port());
        let arguments = ["-nsy", "-t", "30", "-m", "50", "-H", ":authority: web.example.org", &url];
        let said = run(LIMIT, "nghttp", &arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        // One line of statistics for each stream, with its status.
        assert_eq!(said.out.matches(" 200 ").count(), 50, "{said:?}");
    }
}

#[test]
fn h2load_sees_no_failed_request_over_many_streams() {
    if !has("h2load_sees_no_failed_request_over_many_streams", NGHTTP) {
        return;
    }
    let home = Home::new();
    let pods: Vec<Pod> = ["one", "two", "three"].iter().map(|name| Pod::start(name, &[V4, V6])).collect();
    home.manifest("web", &gated("web", &pods.iter().collect::<Vec<_>>(), "internal,external", ""));
    let node = Node::serve(&home);
    let ways: [(SocketAddr, &str, &[&str]); 5] = [
        (home.web[0], "http", &[]),
        (home.web[1], "http", &["--h1"]),
        (home.websecure[0], "https", &[]),
        (home.websecure[1], "https", &["--h1"]),
        (home.publicsecure[1], "https", &[]),
    ];
    for (address, scheme, more) in ways {
        let url = format!("{scheme}://{}:{}/", ip(address), address.port());
        let streams = if more.is_empty() { "100" } else { "1" };
        let base =
            ["-n", "3000", "-c", "8", "-m", streams, "-T", "20", "-N", "20", "-H", ":authority: web.example.org"];
        let said = run(LIMIT, "h2load", &[&base[..], more, &[&url]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        let requests = "3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.out.contains(requests), "{more:?} at {address}: {}", said.out);
        assert!(said.out.contains("3000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{more:?} at {address}: {}", said.out);
    }
    assert_eq!(node.metric("dualgate_proxy_panics_total"), 0.0);
}

#[test]
fn h2load_sees_no_failed_request_while_manifests_change() {
    if !has("h2load_sees_no_failed_request_while_manifests_change", NGHTTP) {
        return;
    }
    let home = Home::new();
    let pods: Vec<Pod> = ["one", "two"].iter().map(|name| Pod::start(name, &[V4, V6])).collect();
    let write = |version: usize| {
        // The first, both, the second.
        let endpoints = [0..1, 0..2, 1..2][version % 3].clone().map(|index| &pods[index]).collect::<Vec<_>>();
        home.manifest("web", &gated("web", &endpoints, "internal", ""));
        home.manifest(
            &format!("other-{}", version % 10),
            &gated(&format!("other-{version}"), &[&pods[0]], "internal", ""),
        );
    };
    write(0);
    let node = Node::serve(&home);
    let url = format!("https://127.0.0.1:{}/", home.websecure[0].port());
    let over = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 1;
            while !over.load(Ordering::Relaxed) {
                write(version);
                version += 1;
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let arguments = ["-D", "5", "-c", "4", "-m", "20", "-T", "10", "-N", "10", "-H", ":authority: web.example.org"];
        let said = run(LIMIT, "h2load", &[&arguments[..], &[&url]].concat());
        over.store(true, Ordering::Relaxed);
        said
    });
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = said.out.lines().find(|line| line.starts_with("requests: ")).unwrap_or_else(|| panic!("{said:?}"));
    assert!(line.contains(" 0 failed, 0 errored, 0 timeout"), "{}", said.out);
    assert!(said.out.contains(" 0 3xx, 0 4xx, 0 5xx"), "{}", said.out);
    assert!(!line.starts_with("requests: 0 "), "{}", said.out);
    let generation = node.document("/status").unwrap()["generation"].as_u64().unwrap();
    assert!(generation > 20, "only {generation} snapshots were made");
    assert_eq!(node.metric("dualgate_proxy_panics_total"), 0.0);
}

#[test]
fn websockets_pass_through_both_families_with_and_without_tls() {
    if !has("websockets_pass_through_both_families_with_and_without_tls", WEBSOCKETS) {
        return;
    }
    let (server, port) = WebSocketServer::start();
    let home = Home::new();
    let endpoints = format!("endpoints: '127.0.0.1:{port}'");
    home.manifest("web", &gated("web", &[], "internal,external", "").replace("endpoints: ''", &endpoints));
    let node = Node::serve(&home);
    for (addresses, scheme) in [(home.web, "ws"), (home.websecure, "wss"), (home.publicsecure, "wss")] {
        for address in addresses {
            let (ip, port) = (address.ip().to_string(), address.port().to_string());
            let said = run(LIMIT, "python3", &[&script("websocket.py"), "ask", &ip, &port, scheme]);
            assert_eq!((said.code, &*said.out), (Some(0), "ok\n"), "{scheme} at {address}: {}", said.err);
        }
    }
    assert_eq!(node.metric("dualgate_proxy_panics_total"), 0.0);
    drop(server);
}

/// Python's server; it is killed with its value.
struct WebSocketServer(Child);

impl WebSocketServer {
    fn start() -> (Self, u16) {
        let mut command = Command::new("python3");
        command.args([&script("websocket.py"), "serve"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|error| panic!("{line:?} is no port: {error}"));
        (Self(child), port)
    }
}

impl Drop for WebSocketServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a gate may need more during an attack, in KiB.
const MEMORY: u64 = 64 * 1024;

/// A node under attack, and somebody else who goes on asking meanwhile.
struct Attacked {
    home: Home,
    node: Node,
    _pod: Pod,
    before: u64,
}

impl Attacked {
    fn start() -> Self {
        let home = Home::new();
        let pod = Pod::start("web", &[V4]);
        home.write_site("proxy: {headTimeout: 3s, bodyIdleTimeout: 3s, keepAliveTimeout: 3s, responseTimeout: 30s}\n");
        // A scanner sends the address as host.
        let anyone = gated("anyone", &[&pod], "internal", "").replace("host: anyone.example.org", "host: ''");
        home.manifest("web", &gated("web", &[&pod], "internal", ""));
        home.manifest("anyone", &anyone);
        let node = Node::serve(&home);
        assert_eq!(Client::connect(home.web[0]).unwrap().get("web.example.org", "/").unwrap().status, 200);
        let before = node.peak_memory();
        Self { home, node, _pod: pod, before }
    }

    /// Runs the attack while others ask over kept and over fresh connections; they must not notice.
    #[track_caller]
    fn during<T>(&mut self, attack: impl FnOnce(SocketAddr) -> T) -> T {
        let (over, address) = (AtomicBool::new(false), self.home.web[0]);
        let outcome = std::thread::scope(|scope| {
            let others = scope.spawn(|| ask_until(&over, self.home.web));
            let outcome = attack(address);
            over.store(true, Ordering::Relaxed);
            let (asked, slowest) = others.join().unwrap().unwrap_or_else(|why| panic!("another client: {why}"));
            println!("others asked {asked} times meanwhile; the slowest answer took {slowest:?}");
            assert!(slowest < Duration::from_secs(3), "an answer took {slowest:?}");
            outcome
        });
        assert!(self.node.is_running(), "{}", self.node.log());
        let grown = self.node.peak_memory() - self.before;
        println!("memory grew by {grown} KiB");
        assert!(grown < MEMORY, "memory grew by {grown} KiB");
        assert_eq!(self.node.metric("dualgate_proxy_panics_total"), 0.0);
        outcome
    }

    /// An attack by the script.
    #[track_caller]
    fn by_h2(&mut self, attack: &str) -> Value {
        let report = self.during(|address| {
            let (ip, port) = (address.ip().to_string(), address.port().to_string());
            let said = run(LIMIT, "python3", &[&script("h2_attack.py"), &ip, &port, attack]);
            assert_eq!(said.code, Some(0), "{said:?}");
            serde_json::from_str::<Value>(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
        });
        println!("{attack}: {report}");
        report
    }
}

/// How often was asked, and how long the slowest answer took.
fn ask_until(over: &AtomicBool, addresses: [SocketAddr; 2]) -> Result<(u32, Duration), String> {
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    let mut kept = Client::connect(addresses[0]).map_err(|error| error.to_string())?;
    while !over.load(Ordering::Relaxed) || asked < 10 {
        let start = Instant::now();
        let fresh = Client::connect(addresses[1]).and_then(|mut client| client.get("web.example.org", "/"));
        for answer in [fresh, kept.get("web.example.org", "/")] {
            match answer {
                Ok(answer) if answer.pod() == Some("web") => asked += 1,
                Ok(answer) => return Err(format!("request {asked} was answered with {answer:?}")),
                Err(error) => return Err(format!("request {asked}: {error}")),
            }
        }
        slowest = slowest.max(start.elapsed());
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok((asked, slowest))
}

/// What a test of an attack by `h2` begins with; `None` where Python's package is missing.
fn attacked(test: &str) -> Option<Attacked> {
    has(test, PYTHON_H2).then(Attacked::start)
}

#[test]
fn rapid_resets_end_the_connection() {
    let Some(mut attacked) = attacked("rapid_resets_end_the_connection") else { return };
    let report = attacked.by_h2("rapid_reset");
    assert_eq!((&report["ended"], &report["goaway"]), (&true.into(), &"ENHANCE_YOUR_CALM".into()), "{report}");
}

#[test]
fn resets_that_the_client_provokes_end_the_connection() {
    let Some(mut attacked) = attacked("resets_that_the_client_provokes_end_the_connection") else { return };
    let report = attacked.by_h2("made_you_reset");
    assert_eq!((&report["ended"], &report["goaway"]), (&true.into(), &"ENHANCE_YOUR_CALM".into()), "{report}");
}

#[test]
fn a_flood_of_continuations_ends_the_connection() {
    for attack in ["continuation_flood", "empty_continuations"] {
        let Some(mut attacked) = attacked("a_flood_of_continuations_ends_the_connection") else { return };
        let report = attacked.by_h2(attack);
        assert_eq!(report["ended"], true, "{report}");
    }
}

#[test]
fn a_bomb_of_compressed_cookies_is_refused() {
    let Some(mut attacked) = attacked("a_bomb_of_compressed_cookies_is_refused") else { return };
    let report = attacked.by_h2("cookie_bomb");
    assert!(report["statuses"] == serde_json::json!([431]) || report["ended"] == true, "{report}");
    assert_ne!(report["statuses"][0], 200, "{report}");
}

#[test]
fn a_cookie_in_hundreds_of_crumbs_is_refused() {
    let Some(mut attacked) = attacked("a_cookie_in_hundreds_of_crumbs_is_refused") else { return };
    let report = attacked.by_h2("cookie_crumbs");
    assert_eq!(report["statuses"], serde_json::json!([431]), "{report}");
    assert_eq!(report["answers"], 50, "{report}");
}

#[test]
fn answers_that_nobody_takes_are_given_up() {
    let Some(mut attacked) = attacked("answers_that_nobody_takes_are_given_up") else { return };
    let report = attacked.by_h2("window_stall");
    assert!(report["ended"] == true || report["finished"] == 100, "{report}");
    assert_eq!(report["octets"], 0, "{report}");
}

#[test]
fn floods_of_control_frames_end_the_connection() {
    for attack in [
        "settings_flood",
        "settings_flood_read",
        "ping_flood",
        "ping_flood_read",
        "window_update_flood",
        "unknown_frame_flood",
    ] {
        let Some(mut attacked) = attacked("floods_of_control_frames_end_the_connection") else { return };
        let report = attacked.by_h2(attack);
        assert_eq!(report["ended"], true, "{attack}: {report}");
        assert!(report["seconds"].as_f64().unwrap() < 3.0, "only a deadline ended {attack}: {report}");
    }
}

#[test]
fn a_body_of_empty_frames_is_given_up() {
    let Some(mut attacked) = attacked("a_body_of_empty_frames_is_given_up") else { return };
    let report = attacked.by_h2("empty_data_flood");
    assert_eq!(report["ended"], true, "{report}");
}

#[test]
fn a_window_that_overflows_ends_the_connection() {
    let Some(mut attacked) = attacked("a_window_that_overflows_ends_the_connection") else { return };
    let report = attacked.by_h2("window_overflow");
    assert_eq!((&report["ended"], &report["goaway"]), (&true.into(), &"FLOW_CONTROL_ERROR".into()), "{report}");
}

#[test]
fn a_body_that_contradicts_its_length_is_refused() {
    let Some(mut attacked) = attacked("a_body_that_contradicts_its_length_is_refused") else { return };
    let report = attacked.by_h2("content_length_mismatch");
    let (statuses, resets) = (report["statuses"].clone(), report["resets"].clone());
    assert_ne!(statuses[0], 200, "a pod saw it as whole: {report}");
    assert!(resets == serde_json::json!(["PROTOCOL_ERROR"]) || statuses == serde_json::json!([400]), "{report}");
}

#[test]
fn slow_clients_take_nothing_from_others() {
    if !has("slow_clients_take_nothing_from_others", SLOW) {
        return;
    }
    let mut attacked = Attacked::start();
    // Slowloris, slow bodies, slow reading of answers that fill every buffer.
    for (attack, path) in [
        (&["-H", "-i", "1"][..], ""),
        (&["-B", "-i", "1", "-s", "100000"], ""),
        (&["-X", "-w", "16", "-y", "64", "-n", "1", "-z", "8", "-k", "3"], "-/download/200000/0"),
    ] {
        let said = attacked.during(|address| {
            let url = format!("http://{}:{}/{path}", ip(address), address.port());
            let base = ["-c", "300", "-r", "300", "-l", "6", "-p", "3", "-v", "1", "-u", &url];
            run(LIMIT, "slowhttptest", &[attack, &base].concat())
        });
        assert!(said.out.contains("YES"), "{attack:?}: {said:?}");
        assert!(!said.out.contains("NO"), "{attack:?}: {said:?}");
    }
}

/// As a URL names it.
fn ip(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The file of a unit for a node of the example, with this program instead of the installed one.
fn unit(home: &Home, node: &[&str]) -> String {
    let site = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/home/site.yaml");
    let program = env!("CARGO_BIN_EXE_dualgate");
    let said = run(LIMIT, program, &[&["render", "unit", "--site", site, "--node"], node].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    home.directory.write("dualgate.service", &said.out.replace("/usr/local/bin/dualgate", program));
    home.directory.join("dualgate.service").display().to_string()
}

#[test]
fn systemd_takes_the_unit_and_finds_little_to_fear() {
    if !has("systemd_takes_the_unit_and_finds_little_to_fear", SYSTEMD) {
        return;
    }
    let home = Home::new();
    for node in [&["ionos"][..], &["k3s-node1"], &["k3s-node1", "--source", "cluster"]] {
        let path = unit(&home, node);
        let verified = run(LIMIT, "systemd-analyze", &["verify", "--man=no", &path]);
        // It prints each word that it does not know, and goes on.
        assert_eq!((verified.code, &*verified.out, &*verified.err), (Some(0), "", ""), "{node:?}");
        let judged =
            run(LIMIT, "systemd-analyze", &["security", "--no-pager", "--offline=yes", "--threshold=26", &path]);
        assert_eq!(judged.code, Some(0), "more than 2.6 of 10: {}", judged.out);
        // What it has is what it was given.
        let has = |line: &str| judged.out.lines().any(|said| said.starts_with("\u{2717}") && said.contains(line));
        assert!(has("CapabilityBoundingSet=~CAP_NET_ADMIN") && has("CapabilityBoundingSet=~CAP_NET_(BIND_SERVICE"));
        for other in [
            "CAP_SYS_ADMIN",
            "CAP_DAC_",
            "CAP_SYS_PTRACE",
            "CAP_SETUID",
            "SystemCallFilter=~@privileged",
            "ProtectSystem",
        ] {
            assert!(!has(other), "{other}: {}", judged.out);
        }
        println!("{node:?}: {}", judged.out.lines().last().unwrap_or_default());
    }
}
