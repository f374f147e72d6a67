//! Ten changes a second under load: no request of a route that stays fails, and none reaches another Service.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::{Answer, Authority, Client, Home, Issued, Node, Pod, application, eventually, gated};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// How many changes there are, and how often.
const CHANGES: u32 = 100;
const PACE: Duration = Duration::from_millis(100);
/// How many routes stay.
const STABLE: usize = 4;
/// The one long answer: it begins before the first change and ends after the last.
const DOWNLOAD: usize = 20_000_000;
const DOWNLOAD_TIME: Duration = Duration::from_millis(11_000);

#[test]
fn a_hundred_changes_in_ten_seconds_cost_no_request() {
    let scene = Scene::new();
    let node = Node::serve(&scene.home);
    let before = generation(&node);
    let (over, asked, failures) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let fail = |what: String| failures.lock().unwrap().push(what);
    std::thread::scope(|scope| {
        for number in 0..12 {
            let (scene, over, asked, fail) = (&scene, &over, &asked, &fail);
            let kind = if number < 8 { Connections::Kept } else { Connections::Fresh };
            scope.spawn(move || {
                let mut client = Asker::new(scene, kind, number);
                while !over.load(Ordering::Relaxed) {
                    if let Err(why) = client.ask() {
                        fail(format!("client {number}, request {}: {why}", client.asked));
                        client.connection = None;
                    }
                }
                asked.fetch_add(client.asked, Ordering::Relaxed);
            });
        }
        let download = scope.spawn(|| scene.download());
        let start = Instant::now();
        for change in 0..CHANGES {
            // The pace of changes is what is tested here.
            while let Some(left) = (start + PACE * change).checked_duration_since(Instant::now()) {
                std::thread::park_timeout(left);
            }
            scene.change(change);
        }
        assert!(!download.is_finished(), "the download was over before the last change");
        match download.join().unwrap() {
            Ok(answer) if (answer.status, answer.body.len()) == (200, DOWNLOAD) => {}
            Ok(answer) => fail(format!("the download was {} with {} octets", answer.status, answer.body.len())),
            Err(error) => fail(format!("the download: {error}")),
        }
        over.store(true, Ordering::Relaxed);
    });
    let (asked, failures) = (asked.into_inner(), failures.into_inner().unwrap());
    let made = generation(&node) - before;
    println!("{asked} requests through {CHANGES} changes in {made} snapshots; {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {asked} requests failed, first of all:\n{}", failures.len(), first(&failures));
    assert!(asked > 2_000, "only {asked} requests were asked");
    assert!(made >= u64::from(CHANGES) / 2, "only {made} snapshots were made");
    scene.assert_last_state(&node);
    assert_eq!(node.metric("dualgate_proxy_panics_total"), 0.0);
    assert_eq!(node.metric("dualgate_requests_aborted_total"), 0.0);
}

fn generation(node: &Node) -> u64 {
    node.document("/status").unwrap()["generation"].as_u64().unwrap()
}

fn first(failures: &[String]) -> String {
    failures.iter().take(10).cloned().collect::<Vec<_>>().join("\n")
}

/// What is served, and how it changes.
struct Scene {
    home: Home,
    /// Three for each route that stays; two or three of them are its endpoints.
    stable: Vec<[Pod; 3]>,
    other: Pod,
    certificates: Vec<Issued>,
}

impl Scene {
    fn new() -> Self {
        let pods =
            |number: usize| ["a", "b", "c"].map(|letter| Pod::start(&format!("stable-{number}/{letter}"), &[V4, V6]));
        let authority = Authority::new();
        let names: Vec<String> = (0..STABLE).map(|number| format!("stable-{number}.example.org")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let scene = Self {
            home: Home::new(),
            stable: (0..STABLE).map(pods).collect(),
            other: Pod::start("other", &[V4]),
            certificates: (0..2).map(|_| authority.issue(&names)).collect(),
        };
        for number in 0..STABLE {
            scene.write_stable(number, 0);
        }
        scene.home.manifest("secret", &scene.certificates[0].secret("tls"));
        scene
    }

    /// The endpoints of a route that stays: always live, never the same as before.
    fn write_stable(&self, number: usize, version: u32) {
        let [a, b, c] = &self.stable[number];
        let endpoints: &[&Pod] = match version % 4 {
            0 => &[a, b],
            1 => &[a, b, c],
            2 => &[c, a],
            _ => &[b],
        };
        let tls = "  tls: [{secretName: tls}]\n";
        self.home.manifest(
            &format!("stable-{number}"),
            &gated(&format!("stable-{number}"), endpoints, "internal,external", tls),
        );
    }

    fn change(&self, number: u32) {
        let other = |number: u32| format!("other-{number}");
        match number % 5 {
            0 => self.home.manifest(&other(number), &application(&other(number), &[&self.other])),
            1 => self.write_stable(number as usize % STABLE, number),
            // The same hosts as the routes that stay, one path more.
            2 => self.home.manifest(&other(number), &self.beside(number)),
            3 => {
                let certificate = &self.certificates[number as usize / 5 % 2];
                self.home.manifest("secret", &certificate.secret("tls"));
            }
            _ if number > 10 => self.home.remove(&other(number - 4 - 5)),
            _ => self.home.manifest(&other(number - 4), &application(&other(number - 4), &[])),
        }
    }

    /// Another Ingress for the hosts of the routes that stay.
    fn beside(&self, number: u32) -> String {
        let host = format!("stable-{}.example.org", number as usize % STABLE);
        let manifest = application(&format!("other-{number}"), &[&self.other]);
        let path = format!("path: /other/{number}, pathType: Prefix");
        manifest.replace(&format!("other-{number}.example.org"), &host).replace("path: /, pathType: Prefix", &path)
    }

    fn download(&self) -> std::io::Result<Answer> {
        let mut client = Client::connect_tls(self.home.publicsecure[0], "stable-0.example.org")?;
        let path = format!("/-/download/{DOWNLOAD}/{}", DOWNLOAD_TIME.as_millis());
        client.get("stable-0.example.org", &path)
    }

    /// What the last changes said is in force in the end.
    fn assert_last_state(&self, node: &Node) {
        let web = self.home.web[0];
        eventually("the last state is served", || {
            let status = |host: &str, path: &str| {
                let answer = Client::connect(web).and_then(|mut client| client.get(host, path));
                answer.map(|answer| (answer.status, answer.pod().map(str::to_owned))).map_err(|error| error.to_string())
            };
            let other = Some("other".to_owned());
            for (host, path, expected) in [
                ("other-95.example.org", "/", (200, other.clone())),
                ("other-90.example.org", "/", (404, None)),
                ("stable-1.example.org", "/other/97", (200, other.clone())),
            ] {
                let found = status(host, path)?;
                if found != expected {
                    return Err(format!("{host}{path}: {found:?}"));
                }
            }
            let shown = Client::connect_tls(self.home.websecure[1], "stable-0.example.org");
            let shown = shown.map_err(|error| error.to_string())?;
            let last = &self.certificates[98 / 5 % 2];
            if shown.certificate() == Some(&*last.der) { Ok(()) } else { Err("another certificate".to_owned()) }
        });
        // The one without endpoints was left behind on purpose.
        let is_expected = |finding: &str| finding.contains("\"note\"") || finding.contains("other-0.yaml");
        let unexpected: Vec<_> =
            node.findings().unwrap().into_iter().filter(|(_, finding)| !is_expected(finding)).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    /// One, as long as the gate keeps it.
    Kept,
    /// One for each request.
    Fresh,
}

/// A client that asks one route after the other.
struct Asker<'a> {
    scene: &'a Scene,
    kind: Connections,
    number: usize,
    asked: u64,
    connection: Option<Client>,
}

impl<'a> Asker<'a> {
    fn new(scene: &'a Scene, kind: Connections, number: usize) -> Self {
        Self { scene, kind, number, asked: 0, connection: None }
    }

    /// Both gates, both families, with and without TLS: each client has one of them.
    fn connect(&self) -> std::io::Result<Client> {
        let home = &self.scene.home;
        let plain: [SocketAddr; 4] = [home.web[0], home.web[1], home.public[0], home.public[1]];
        let secure = [home.websecure[0], home.websecure[1], home.publicsecure[0], home.publicsecure[1]];
        match (self.number / 4 + self.number) % 2 {
            0 => Client::connect(plain[self.number % 4]),
            _ => Client::connect_tls(secure[self.number % 4], "stable-0.example.org"),
        }
    }

    fn ask(&mut self) -> Result<(), String> {
        let service = format!("stable-{}", self.asked as usize % STABLE);
        self.asked += 1;
        let answer = self.exchange(&service).map_err(|error| format!("{service}: {error}"))?;
        let served_by = answer.pod().and_then(|pod| pod.split('/').next()).unwrap_or("nobody");
        let seen = answer.seen();
        if (answer.status, served_by) != (200, &service) {
            return Err(format!("{service} was answered with {} by {served_by}", answer.status));
        }
        match seen {
            Some(seen) if seen.host == format!("{service}.example.org") => Ok(()),
            seen => Err(format!("the pod of {service} saw {seen:?}")),
        }
    }

    fn exchange(&mut self, service: &str) -> std::io::Result<Answer> {
        let mut client = match self.connection.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let host = format!("{service}.example.org");
        let answer = match self.asked % 3 {
            0 => {
                let body = "x".repeat(10_000);
                let head = format!("POST /{} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10000\r\n\r\n", self.asked);
                client.send((head + &body).as_bytes())?;
                client.answer("POST")?
            }
            _ => client.get(&host, &format!("/{}", self.asked))?,
        };
        let is_kept = answer.field("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
        if self.kind == Connections::Kept && is_kept {
            self.connection = Some(client);
        }
        Ok(answer)
    }
}
