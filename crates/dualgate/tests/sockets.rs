//! Runs the case files of `dualgate-core/tests/cases/ingress` through real sockets.
//!
//! The planner of each node says what is served; only addresses are exchanged for ones on loopback: those of listeners,
//! and those of servers, behind which are pods that say who they are. Every request of a case is then sent by a client
//! of our own to every address of its gate, and the whole answer is compared. What is found wrong with the objects is
//! for the planner's own runner to compare.
//!
//! The same once more with the objects in a Kubernetes API; what it refuses, and dates of its own, are the battery's of
//! `dualgate-kube` to compare.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dualgate_apiserver::{ApiServer, Options};
use dualgate_core::case::{Answer, Case, Families, Request};
use dualgate_core::model::site::{EntryProtocol, Role};
use dualgate_core::model::{Family, GateName, Snapshot, Sockets};
use dualgate_core::parse;
use dualgate_core::plan;
use dualgate_core::plan::proxy::{Backend, Certificate, ProxyPlan, Scheme, Server, ServerAddress};
use dualgate_core::seam::{Actuator as _, Source as _};
use dualgate_kube::access::Access;
use dualgate_kube::source::{ClusterSource, Kind};
use dualgate_proxy::Proxy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use support::{Client, Pod, Reservation, reserve};

/// What never reaches the table that the planner's runner asks, by case and request; it is refused with 400, because.
const REFUSED: &[(&str, &str, &str)] = &[
    ("conformance-default-backend.case", "DB-4-empty", "an empty Host field names nobody"),
    ("hosts.case", "HO-18", "a host with an empty label is no host"),
];

#[test]
fn every_case_holds_through_real_sockets_for_ipv4_only_ipv6_only_and_both() {
    let cases = cases();
    let jobs: Vec<(&Case, Families)> =
        cases.iter().flat_map(|case| Families::ALL.map(|families| (case, families))).collect();
    let asked = all(&jobs, |case, families| match case.snapshot(families) {
        Ok(snapshot) => run(case, families, &snapshot),
        Err(error) => (0, vec![error]),
    });
    println!("{} cases, {asked} requests over real connections", cases.len());
    let written: usize = cases.iter().map(|case| case.requests.len()).sum();
    // Each is asked of every node and address of its gate, in three variants.
    assert!(asked >= 4 * written, "{written} requests were asked only {asked} times");
}

#[test]
fn every_case_holds_through_real_sockets_from_a_cluster() {
    let mut cases = cases();
    cases.retain(|case| {
        let manifests = case.manifests(Families::Both);
        let has = |text: &str| manifests.contains(text);
        // The API server gives the date, and the default class, by itself.
        !has("creationTimestamp") && !has("is-default-class")
    });
    let jobs: Vec<(&Case, Families)> = cases.iter().map(|case| (case, Families::Both)).collect();
    let refused = Mutex::new(BTreeSet::new());
    let asked = all(&jobs, |case, families| match from_cluster(case, families) {
        Ok(snapshot) => run(case, families, &snapshot),
        Err(NotTaken::Refused) => {
            refused.lock().unwrap().insert(case.name.clone());
            (0, Vec::new())
        }
        Err(NotTaken::Broken(why)) => (0, vec![why]),
    });
    let refused = refused.into_inner().unwrap();
    cases.retain(|case| !refused.contains(&case.name));
    assert!(cases.len() >= 25, "{} cases are left; refused were {refused:?}", cases.len());
    let written: usize = cases.iter().map(|case| case.requests.len()).sum();
    assert!(asked >= 2 * written, "{written} requests were asked only {asked} times");
}

/// Why a case is not in a cluster.
enum NotTaken {
    /// The API server refuses an object of it.
    Refused,
    Broken(String),
}

/// The case's snapshot with the objects from an API server.
fn from_cluster(case: &Case, families: Families) -> Result<Snapshot, NotTaken> {
    let broken = |why: &dyn std::fmt::Display| NotTaken::Broken(why.to_string());
    let snapshot = case.snapshot(families).map_err(|error| broken(&error))?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| broken(&error))?;
    let server = ApiServer::start(vec![listener], Options::default()).map_err(|error| broken(&error))?;
    for document in parse::yaml::documents(&case.manifests(families)).documents {
        let object = document.to_json();
        let kind = object["kind"].as_str().unwrap_or_default();
        if !Kind::ALL.iter().any(|known| known.name() == kind) {
            continue;
        }
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            server.objects().apply(namespace).map_err(|error| broken(&error))?;
        }
        server.objects().create(object).map_err(|_| NotTaken::Refused)?;
    }
    let directory = support::Directory::new();
    directory.write("kubeconfig", &server.kubeconfig());
    let access = Access { kubeconfig: Some(directory.join("kubeconfig")), context: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| broken(&error))?;
    let read = runtime.block_on(async {
        let mut source = ClusterSource::new(access).await.map_err(|error| broken(&error))?;
        tokio::time::timeout(support::PATIENCE * 2, source.next()).await.map_err(|error| broken(&error))
    })?;
    let Ok(objects) = read;
    Ok(Snapshot { objects, ..snapshot })
}

/// Does all jobs, some at a time; how many requests were asked.
fn all(jobs: &[(&Case, Families)], run: impl Fn(&Case, Families) -> (usize, Vec<String>) + Sync) -> usize {
    let (next, asked, failures) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((case, families)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (count, failed) = run(case, *families);
                    asked.fetch_add(count, Ordering::Relaxed);
                    let fail = |what| format!("{} ({families:?}): {what}", case.name);
                    failures.lock().unwrap().extend(failed.into_iter().map(fail));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    asked.into_inner()
}

#[test]
fn what_is_refused_is_in_the_cases() {
    let cases = cases();
    for (name, id, why) in REFUSED {
        let case = cases.iter().find(|case| case.name == *name).unwrap_or_else(|| panic!("no case {name}"));
        assert!(case.requests.iter().any(|request| request.id == *id), "no request {id} in {name}");
        assert!(!why.is_empty(), "{name} {id}");
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dualgate-core/tests/cases/ingress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        Case::parse(&name, &fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    };
    let cases: Vec<Case> = paths.iter().map(|path| read(path)).collect();
    assert!(cases.len() >= 39, "only {} cases were found", cases.len());
    cases
}

/// How many requests were asked, and which answers were wrong.
fn run(case: &Case, families: Families, snapshot: &Snapshot) -> (usize, Vec<String>) {
    let (mut asked, mut failures) = (0, Vec::new());
    for node in &snapshot.site.nodes {
        let is_asked = |request: &&Request| node.has(Role::of_gate(request.gate));
        let requests: Vec<&Request> = case.requests.iter().filter(is_asked).collect();
        if requests.is_empty() {
            continue;
        }
        let fail = |request: &Request, why: String| format!("{request} at {}: {why}", node.name);
        let stage = match Stage::set(plan::node(snapshot, &node.name).proxy, families) {
            Ok(stage) => stage,
            Err(why) => return (asked, vec![format!("{}: {why}", node.name)]),
        };
        for request in requests {
            let addresses = stage.addresses(request);
            let expected = stage.expected(case, request);
            if addresses.is_empty() {
                failures.push(fail(request, "nobody listens there".to_owned()));
            }
            for address in addresses {
                asked += 1;
                match stage.ask(request, address) {
                    Ok(found) if found == expected => {}
                    Ok(found) => failures.push(fail(request, format!("expected {expected:?}, found {found:?}"))),
                    Err(error) => failures.push(fail(request, format!("{address}: {error}"))),
                }
            }
        }
    }
    (asked, failures)
}

/// A node's plan, moved to loopback and served.
struct Stage {
    plan: Arc<ProxyPlan>,
    /// Where the plan wanted to listen, and where that is.
    moved: Vec<(SocketAddr, GateName, EntryProtocol, SocketAddr)>,
    /// Where servers were, and where they are.
    servers: BTreeMap<String, String>,
    _proxy: Proxy,
    _pods: Vec<Pod>,
    _reserved: Vec<Reservation>,
}

impl Stage {
    fn set(mut plan: ProxyPlan, families: Families) -> Result<Self, String> {
        let mut reserved = Vec::new();
        let mut moved = Vec::new();
        for listener in &mut plan.listeners {
            let wanted = listener.address;
            let place = reserve(loopback(wanted.ip()));
            listener.address = place.address;
            listener.address_may_be_absent = false;
            moved.push((wanted, listener.gate, listener.protocol, place.address));
            reserved.push(place);
        }
        let (mut pods, mut servers) = (Vec::new(), BTreeMap::new());
        let planned: Vec<_> = plan.backends.numbered().map(|(index, backend)| (index, backend.clone())).collect();
        for (index, backend) in planned {
            let mut real = Backend::clone(&backend);
            for server in &mut real.servers {
                let (pod, at) = stand_in(&backend, server);
                servers.extend(named(&server.at).into_iter().zip(named(&at)));
                server.at = at;
                pods.push(pod);
            }
            plan.backends.set(index, Some(Arc::new(real)));
        }
        let has = |family: fn(&SocketAddr) -> bool| plan.listeners.iter().any(|listener| family(&listener.address));
        if (has(SocketAddr::is_ipv4), has(SocketAddr::is_ipv6)) != listens(families) {
            return Err(format!("it listens on {:?}", plan.listeners));
        }
        let plan = Arc::new(plan);
        let proxy = serve(&plan)?;
        Ok(Self { plan, moved, servers, _proxy: proxy, _pods: pods, _reserved: reserved })
    }

    /// Where the gate of a request listens on the port of its URL.
    fn addresses(&self, request: &Request) -> Vec<SocketAddr> {
        let is_asked = |wanted: &SocketAddr, gate| gate == request.gate && wanted.port() == request.port();
        self.moved.iter().filter(|(wanted, gate, ..)| is_asked(wanted, *gate)).map(|(.., address)| *address).collect()
    }

    /// What must come back, in terms of loopback.
    fn expected(&self, case: &Case, request: &Request) -> Answer {
        if REFUSED.iter().any(|(name, id, _)| *name == case.name && *id == request.id) {
            return Answer { status: 400, ..Answer::default() };
        }
        let mut answer = request.answer.clone();
        answer.host = answer.host.map(|host| self.servers.get(&host).cloned().unwrap_or(host));
        if answer.status != 200 {
            // What routes to a Service without servers: only the planner can tell which.
            (answer.service, answer.port) = (None, None);
        }
        answer
    }

    /// Sends a request as often as it takes, and says what came back, as far as the case asks for it.
    fn ask(&self, request: &Request, address: SocketAddr) -> io::Result<Answer> {
        let protocol = self.moved.iter().find(|(.., place)| *place == address).map(|(_, _, protocol, _)| *protocol);
        let mut client = match protocol {
            Some(EntryProtocol::Https) => Client::connect_tls(address, name_of(&request.authority))?,
            Some(EntryProtocol::Http) | None => Client::connect(address)?,
        };
        let mut found = Answer { certificate: self.certificate(request, &client), ..Answer::default() };
        let wanted = &request.answer;
        let times = request.times.max(3 * u32::from(wanted.pods.unwrap_or(0))).max(1);
        let mut pods = BTreeSet::new();
        let mut statuses = BTreeSet::new();
        for _ in 0..times {
            client.send(&wire(request))?;
            let answer = client.answer(&request.method)?;
            statuses.insert(answer.status);
            found.status = answer.status;
            let Some(pod) = answer.pod() else { continue };
            let (service, server) = pod.split_once('#').ok_or_else(|| io::Error::other(format!("pod {pod}")))?;
            let (service, port) = service.split_once(':').ok_or_else(|| io::Error::other(format!("pod {pod}")))?;
            pods.insert(server.to_owned());
            // A pod that answers where none is expected is shown too.
            let is_wanted = wanted.service.is_some() || wanted.status != 200;
            found.service = is_wanted.then(|| service.to_owned());
            found.port = wanted.port.and(port.parse().ok());
            let Some(seen) = answer.seen() else { continue };
            if seen.method != request.method {
                return Err(io::Error::other(format!("the pod saw the method {}", seen.method)));
            }
            found.path = wanted.path.as_ref().map(|_| seen.target);
            found.host = wanted.host.as_ref().map(|_| seen.host);
        }
        if statuses.len() > 1 {
            return Err(io::Error::other(format!("one request was answered with {statuses:?}")));
        }
        if found.status == 200 && pods.is_empty() && request.method != "HEAD" {
            return Err(io::Error::other("no pod answered"));
        }
        found.pods = wanted.pods.map(|_| u16::try_from(pods.len()).unwrap_or(u16::MAX));
        Ok(found)
    }

    /// The Secret whose certificate is shown; several may hold the same.
    fn certificate(&self, request: &Request, client: &Client) -> Option<String> {
        let wanted = request.answer.certificate.as_ref()?;
        let shown = client.certificate()?;
        let is_shown = |certificate: &&Arc<Certificate>| leaf(certificate).is_some_and(|leaf| *leaf == *shown);
        let secrets = self.plan.certificates.iter().filter(is_shown).map(|certificate| certificate.secret.to_string());
        let secrets: BTreeSet<String> = secrets.collect();
        Some(match secrets.get(wanted).or(secrets.first()) {
            Some(secret) => secret.clone(),
            None => "default".to_owned(),
        })
    }
}

fn serve(plan: &Arc<ProxyPlan>) -> Result<Proxy, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let apply = async {
            let mut proxy = Proxy::start(1)?;
            let changes = Proxy::diff(&proxy.observe().await?, plan);
            proxy.apply(plan, &changes).await?;
            Ok::<_, dualgate_proxy::ProxyError>(proxy)
        };
        let proxy = apply.await.map_err(|error| error.to_string())?;
        let findings = proxy.findings();
        if findings.is_empty() { Ok(proxy) } else { Err(format!("{findings:?}")) }
    })
}

/// The request as it is sent.
fn wire(request: &Request) -> Vec<u8> {
    let slash = if request.target.starts_with('/') { "" } else { "/" };
    let target = request.raw_target.clone().unwrap_or_else(|| format!("{slash}{}", request.target));
    let length = if request.method == "GET" { "" } else { "Content-Length: 0\r\n" };
    let (method, host) = (&request.method, request.host_field());
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n").into_bytes()
}

/// A pod in the place of a server, and how it is reached.
fn stand_in(backend: &Backend, server: &Server) -> (Pod, ServerAddress) {
    let name = format!("{}#{}", backend.id, server.id);
    let start = |addresses: &[IpAddr]| match backend.scheme {
        Scheme::Https => Pod::start_tls(&name, addresses),
        Scheme::Http | Scheme::H2c => Pod::start(&name, addresses),
    };
    match &server.at {
        ServerAddress::Sockets(sockets) => {
            let addresses: Vec<IpAddr> = sockets.iter().map(|socket| loopback(socket.ip())).collect();
            let pod = start(&addresses);
            let at = Sockets::new(pod.addresses.iter().copied()).unwrap();
            let families = |sockets: &Sockets| sockets.iter().map(|socket| Family::of(socket.ip())).collect::<Vec<_>>();
            assert_eq!(families(&at), families(sockets));
            (pod, ServerAddress::Sockets(at))
        }
        // A name that this machine knows; the pod listens at the first address that it has.
        ServerAddress::Name { .. } => {
            let first = ("localhost", 0).to_socket_addrs().unwrap().next().unwrap().ip();
            let pod = start(&[first]);
            let port = pod.addresses[0].port();
            (pod, ServerAddress::Name { host: "localhost".into(), port })
        }
    }
}

/// A server's addresses as a Host field names them.
fn named(at: &ServerAddress) -> Vec<String> {
    match at {
        ServerAddress::Sockets(sockets) => sockets.iter().map(|socket| socket.to_string()).collect(),
        ServerAddress::Name { host, port } => vec![format!("{host}:{port}")],
    }
}

fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn listens(families: Families) -> (bool, bool) {
    match families {
        Families::V4 => (true, false),
        Families::V6 => (false, true),
        Families::Both => (true, true),
    }
}

/// What a client asks for in its handshake.
fn name_of(authority: &str) -> &str {
    let host = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

fn leaf(certificate: &Certificate) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(&certificate.chain).ok()
}
