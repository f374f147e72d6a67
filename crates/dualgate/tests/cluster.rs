//! The real binary with a Kubernetes API as its source: served, away, back, and misconfigured.

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use dualgate_apiserver::{ApiServer, Options, Request, Verb};
use dualgate_core::parse;
use rustix::process::Signal;
use serde_json::Value;
use support::{Authority, Client, Cluster, Home, Node, Pod, application, eventually, gated};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An API server that may go and come back in the same place.
struct Api {
    address: SocketAddr,
    server: Option<ApiServer>,
}

impl Api {
    fn start() -> Self {
        let server = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], Options::default()).unwrap();
        Self { address: server.address(), server: Some(server) }
    }

    /// It is gone with all that it knew.
    fn stop(&mut self) {
        self.server = None;
    }

    /// Another one is in its place, which knows nothing.
    fn start_again(&mut self) {
        let server = eventually("the port is free", || {
            let listener = TcpListener::bind(self.address).map_err(|error| error.to_string())?;
            ApiServer::start(vec![listener], Options::default()).map_err(|error| error.to_string())
        });
        self.server = Some(server);
    }

    fn write(&self, manifests: &str) {
        for document in parse::yaml::documents(manifests).documents {
            self.server.as_ref().unwrap().objects().apply(document.to_json()).unwrap();
        }
    }

    fn delete(&self, kind: &str, name: &str) {
        self.server.as_ref().unwrap().objects().delete(kind, "default", name).unwrap();
    }

    /// Where `home` finds it.
    fn kubeconfig(&self, home: &Home) -> String {
        home.directory.write("kubeconfig", &self.server.as_ref().unwrap().kubeconfig());
        home.directory.join("kubeconfig").display().to_string()
    }
}

fn from_cluster(home: &Home, kubeconfig: &str) -> Node {
    Node::start(home, &["--source", "cluster", "--kubeconfig", kubeconfig])
}

fn ask(address: SocketAddr, name: &str) -> Result<(u16, String), String> {
    let answer = Client::connect(address).and_then(|mut client| client.get(&format!("{name}.example.org"), "/"));
    answer.map(|answer| (answer.status, answer.text())).map_err(|error| error.to_string())
}

#[track_caller]
fn eventually_answers(address: SocketAddr, name: &str, status: u16) {
    eventually(&format!("{name} answers {status}"), || match ask(address, name) {
        Ok((found, _)) if found == status => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn source(node: &Node) -> Value {
    node.document("/status").unwrap()["source"].clone()
}

#[test]
fn a_cluster_is_served_and_its_changes_take_effect() {
    let (home, api) = (Home::new(), Api::start());
    let (one, two) = (Pod::start("one", &[V4]), Pod::start("two", &[V4]));
    let certificate = Authority::new().issue(&["one.example.org"]);
    api.write(&gated("one", &[&one], "internal,external", "  tls: [{hosts: [one.example.org], secretName: one}]\n"));
    api.write(&certificate.secret("one"));
    let node = from_cluster(&home, &api.kubeconfig(&home));
    node.wait_until_ready();
    for address in [home.web[0], home.web[1], home.public[0]] {
        assert_eq!(ask(address, "one").unwrap().0, 200, "{address}");
    }
    let shown = Client::connect_tls(home.websecure[0], "one.example.org").unwrap();
    assert_eq!(shown.certificate(), Some(&*certificate.der));
    api.write(&application("two", &[&two]));
    eventually_answers(home.web[0], "two", 200);
    assert_eq!(ask(home.public[0], "two").unwrap().0, 404, "nobody made it public");
    api.delete("Ingress", "one");
    eventually_answers(home.web[0], "one", 404);

    let of_source = source(&node);
    assert_eq!(of_source["name"], format!("cluster http://{}/", api.address), "{of_source}");
    eventually("every kind is watched", || match source(&node)["cluster"]["connected"].as_bool() {
        Some(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(node.metric("dualgate_cluster_connected"), 1.0);
    assert_eq!(node.metric("dualgate_cluster_lists_total"), 7.0, "one for each kind");
    assert!(node.metric("dualgate_cluster_events_total") >= 3.0);
    let status = Command::new(env!("CARGO_BIN_EXE_dualgate"))
        .args(["status", "--admin", &home.admin[0].to_string()])
        .output()
        .unwrap();
    let page = String::from_utf8(status.stdout).unwrap();
    assert!(page.contains(&format!("  source: cluster http://{}/, connected\n", api.address)), "{page}");
}

#[test]
fn a_cluster_that_is_known_by_its_kubeconfig_alone_is_served_and_read() {
    let home = Home::new();
    let cluster = Cluster::any(&home);
    let (one, two) = (Pod::start("one", &[V4]), Pod::start("two", &[V4]));
    cluster.write(&gated("one", &[&one], "internal,external", ""));
    let arguments: Vec<&str> = cluster.arguments.iter().map(String::as_str).collect();
    let node = Node::start(&home, &arguments);
    node.wait_until_ready();
    for address in [home.web[0], home.web[1], home.public[0]] {
        eventually_answers(address, "one", 200);
    }
    cluster.write(&application("two", &[&two]));
    eventually_answers(home.web[0], "two", 200);
    assert_eq!(ask(home.public[0], "two").unwrap().0, 404, "nobody made it public");
    cluster.delete("Service", "two");
    eventually_answers(home.web[0], "two", 503);
    cluster.delete("Ingress", "one");
    eventually_answers(home.web[0], "one", 404);
    let site = home.directory.join("site.yaml").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    let explained = command.args(["explain", "http://two.example.org/", "--site", &site]).args(&arguments).output();
    let page = String::from_utf8(explained.unwrap().stdout).unwrap();
    assert!(page.contains("two.example.org") && page.contains("503"), "{page}");
}

#[test]
fn an_api_that_goes_away_costs_nothing_and_its_return_is_followed() {
    let (home, mut api) = (Home::new(), Api::start());
    let pod = Pod::start("web", &[V4]);
    api.write(&application("web", &[&pod]));
    let kubeconfig = api.kubeconfig(&home);
    let mut node = from_cluster(&home, &kubeconfig);
    node.wait_until_ready();
    eventually_answers(home.web[0], "web", 200);
    let kept = home.directory.join("state/objects.json");
    eventually("the state is on disk", || match std::fs::read_to_string(&kept) {
        Ok(text) if text.contains("web.example.org") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    api.stop();
    node.wait_for_finding("cluster-away", "has not answered since 2");
    eventually_answers(home.web[0], "web", 200);
    assert_eq!(node.admin("/readyz").unwrap().status, 200);
    assert_eq!(node.metric("dualgate_cluster_connected"), 0.0);

    node.signal(Signal::KILL);
    node.wait();
    let node = from_cluster(&home, &kubeconfig);
    node.wait_until_ready();
    node.wait_for_finding("stale", "last good state");
    node.wait_for_finding("cluster-away", "has not answered since 2");
    assert_eq!(node.document("/status").unwrap()["objects_from"], "disk");
    eventually_answers(home.web[0], "web", 200);

    api.start_again();
    api.write(&application("other", &[&pod]));
    support::eventually_within(std::time::Duration::from_secs(90), "it follows the cluster", || {
        let (web, other) = (ask(home.web[0], "web")?.0, ask(home.web[0], "other")?.0);
        if (web, other) == (404, 200) { Ok(()) } else { Err(format!("web {web}, other {other}")) }
    });
    node.wait_until_no_finding("stale");
    node.wait_until_no_finding("cluster-away");
    assert_eq!(node.document("/status").unwrap()["objects_from"], "source");
}

#[test]
fn without_api_and_disk_it_says_why_it_serves_nothing() {
    let (home, mut api) = (Home::new(), Api::start());
    let pod = Pod::start("web", &[V4]);
    let kubeconfig = api.kubeconfig(&home);
    api.stop();
    let node = from_cluster(&home, &kubeconfig);
    node.wait_for_finding("cluster-away", "has not answered since 2");
    assert_eq!(node.admin("/readyz").unwrap().status, 503);
    assert!(Client::connect(home.web[0]).is_err(), "it listens without a plan");
    api.start_again();
    api.write(&application("web", &[&pod]));
    support::eventually_within(std::time::Duration::from_secs(90), "it serves", || match ask(home.web[0], "web")?.0 {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    node.wait_until_no_finding("cluster-away");
}

#[test]
fn a_kubeconfig_that_comes_later_is_taken() {
    let (home, api) = (Home::new(), Api::start());
    let pod = Pod::start("web", &[V4]);
    api.write(&application("web", &[&pod]));
    let absent = home.directory.join("kubeconfig").display().to_string();
    let node = from_cluster(&home, &absent);
    node.wait_for_finding("unreadable", "read the kubeconfig");
    assert_eq!(api.kubeconfig(&home), absent);
    eventually_answers(home.web[0], "web", 200);
    node.wait_until_no_finding("unreadable");
}

/// Exit code, standard output and standard error.
fn run(home: &Home, arguments: &[&str]) -> (Option<i32>, String, String) {
    let site = home.directory.join("site.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
    let output = command.args(arguments).arg("--site").arg(site).env_remove("KUBECONFIG").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn commands_read_a_cluster_once() {
    let (home, api) = (Home::new(), Api::start());
    let pod = Pod::start("web", &[V4]);
    api.write(&gated("web", &[&pod], "internal,external", ""));
    let kubeconfig = api.kubeconfig(&home);
    let cluster = ["--source", "cluster:dualgate", "--kubeconfig", &kubeconfig];
    let ask = |command: &[&str]| run(&home, &[command, &cluster[..]].concat());
    let (code, page, error) = ask(&["check"]);
    assert_eq!((code, &*error), (Some(0), ""), "{page}");
    // Two of ours, and the four namespaces that every cluster has.
    assert!(page.contains("and 6 objects of the cluster"), "{page}");
    let (code, page, _) = ask(&["explain", "http://web.example.org/"]);
    assert!(code == Some(0) && page.contains("web"), "{page}");
    let (code, page, _) = ask(&["exposure"]);
    assert!(code == Some(0) && page.contains("web.example.org"), "{page}");
    api.delete("Service", "web");
    let (code, page, _) = ask(&["check"]);
    assert!(code == Some(1) && page.contains("ingress-unknown-service"), "{page}");
    let (code, page, _) = ask(&["plan"]);
    assert!(code == Some(2) && page.contains("could not be asked: this is its whole plan"), "{page}");
}

#[test]
fn what_is_wrong_with_a_kubeconfig_is_said_with_what_to_do() {
    let (home, mut api) = (Home::new(), Api::start());
    let kubeconfig = api.kubeconfig(&home);
    let absent = home.directory.join("absent").display().to_string();
    for (source, file, said) in [
        ("cluster", absent.as_str(), ["read the kubeconfig", "absent", "--kubeconfig names another file"]),
        ("cluster:work", kubeconfig.as_str(), ["no context `work`", "it has `dualgate`", "--source cluster:CONTEXT"]),
    ] {
        let (code, _, error) = run(&home, &["check", "--source", source, "--kubeconfig", file]);
        assert_eq!(code, Some(2));
        assert!(said.iter().all(|part| error.contains(part)), "{error}");
    }
    let (code, _, error) = run(&home, &["check", "--source", "clutser"]);
    assert!(code == Some(2) && error.contains("`cluster`, `cluster:CONTEXT`"), "{error}");
    api.stop();
    let (code, _, error) = run(&home, &["check", "--source", "cluster", "--kubeconfig", &kubeconfig]);
    assert!(code == Some(2) && error.contains("has not answered since") && error.contains("curl"), "{error}");
}

/// A home whose external gate is reached at public addresses.
fn public_home() -> Home {
    let home = Home::new();
    let site =
        home.site("").replace("external: {addresses: [127.0.0.1, '::1']", "external: {addresses: [0.0.0.0, '::']");
    let site = site.replace("'::1']}\ngates", "'::1'], publicAddresses: [203.0.113.10, '2001:db8::10']}\ngates");
    home.directory.write("site.yaml", &site);
    home
}

#[track_caller]
fn eventually_published(api: &Api, name: &str, addresses: &[&str]) {
    eventually(&format!("{name} has {addresses:?}"), || {
        let ingress = api.server.as_ref().unwrap().objects().get("Ingress", "default", name).ok_or("it is gone")?;
        let entries = ingress["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        let found: Vec<&str> = entries.iter().filter_map(|entry| entry["ip"].as_str()).collect();
        if found == addresses { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn writes_statuses(node: &Node) -> bool {
    node.metric("dualgate_status_leader") == 1.0
}

const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8::10"];

#[test]
fn one_of_two_processes_says_in_statuses_where_an_ingress_is_served_and_the_other_goes_on() {
    let (homes, api) = ([public_home(), public_home()], Api::start());
    let pod = Pod::start("web", &[V4]);
    api.write("{apiVersion: v1, kind: Namespace, metadata: {name: dualgate-system}}");
    api.write(&gated("web", &[&pod], "external", ""));
    let mut nodes = homes.each_ref().map(|home| from_cluster(home, &api.kubeconfig(home)));
    nodes.iter().for_each(Node::wait_until_ready);
    eventually_published(&api, "web", &PUBLIC);
    let server = api.server.as_ref().unwrap();
    let written = |fits: &dyn Fn(&Request) -> bool| {
        server.count(|request| request.verb == Verb::Apply && request.subresource == "status" && fits(request))
    };
    assert_eq!(written(&|_| true), 1);
    let first = usize::from(writes_statuses(&nodes[1]));
    assert!(writes_statuses(&nodes[first]) && !writes_statuses(&nodes[1 - first]));
    let status = Command::new(env!("CARGO_BIN_EXE_dualgate"))
        .args(["status", "--admin", &homes[first].admin[0].to_string()])
        .output()
        .unwrap();
    let page = String::from_utf8(status.stdout).unwrap();
    assert!(page.contains("  statuses are written by this node, for "), "{page}");

    api.write(&gated("missing", &[&pod], "external", ""));
    eventually_published(&api, "missing", &PUBLIC);
    api.delete("Service", "missing");
    eventually_published(&api, "missing", &[]);
    eventually("an Event", || {
        let events = server.objects().list("Event", Some("default"));
        let fits =
            |event: &&Value| event["reason"] == "IngressUnknownService" && event["involvedObject"]["name"] == "missing";
        events.iter().find(fits).map(|_| ()).ok_or_else(|| format!("{events:#?}"))
    });

    nodes[first].signal(Signal::TERM);
    nodes[first].wait();
    api.write(&gated("other", &[&pod], "external", ""));
    eventually_published(&api, "other", &PUBLIC);
    assert!(writes_statuses(&nodes[1 - first]));
    assert_eq!(written(&|_| true), 4, "one for each change");
    assert_eq!(written(&|request| request.query.contains("force=true")), 0);
    let lease = server.objects().get("Lease", "dualgate-system", "dualgate").unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "{lease:#}");
}

/// Nobody listens at this provider; who writes says so.
fn tries_to_publish(node: &Node) -> Result<bool, String> {
    let published = &node.document("/status")?["published"][0];
    let is_failed = published["error"].as_str().is_some_and(|error| error.contains("http://127.0.0.1:1/"));
    if published.is_null() || is_failed { Ok(is_failed) } else { Err(published.to_string()) }
}

#[test]
fn one_of_two_processes_writes_to_providers_and_the_other_goes_on() {
    let (homes, api) = ([public_home(), public_home()], Api::start());
    api.write("{apiVersion: v1, kind: Namespace, metadata: {name: dualgate-system}}");
    api.write(&gated("web", &[], "external", ""));
    for home in &homes {
        let site = std::fs::read_to_string(home.directory.join("site.yaml")).unwrap();
        let dns = "dns:\n  forward: [127.0.0.1]\n  providers: {hook: {type: webhook, url: 'http://127.0.0.1:1'}}\n  \
                   zones: [{name: example.org, publish: 'provider:hook'}]\n";
        home.directory.write("site.yaml", &format!("{site}{dns}"));
    }
    let mut nodes = homes.each_ref().map(|home| from_cluster(home, &api.kubeconfig(home)));
    nodes.iter().for_each(Node::wait_until_ready);
    let first = eventually("one of them writes", || match [&nodes[0], &nodes[1]].map(tries_to_publish) {
        [Ok(true), Ok(false)] => Ok(0),
        [Ok(false), Ok(true)] => Ok(1),
        both => Err(format!("{both:?}")),
    });
    assert!(writes_statuses(&nodes[first]) && !writes_statuses(&nodes[1 - first]));
    nodes[1 - first].wait_until_no_finding("dns-publish");
    nodes[first].wait_for_finding("dns-publish", "hook: read zone `example.org`: GET http://127.0.0.1:1/");
    nodes[first].signal(Signal::TERM);
    nodes[first].wait();
    eventually("the other one writes", || match tries_to_publish(&nodes[1 - first]) {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
