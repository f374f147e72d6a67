//! The source against a cluster, and against everything that can go wrong between the two.

mod support;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use dualgate_apiserver::{ApiServer, Options, Refusal, Request, Verb};
use dualgate_core::model::{Code, ObjectSet};
use serde_json::{Value, json};
use support::{Cluster, Listener, has, keys, run};

fn service(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": port}]},
    })
}

fn ingress(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": namespace},
        "spec": {"rules": [{"host": format!("{name}.example.org"), "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"number": 80}}}},
        ]}}]},
    })
}

fn slice(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": 80}], "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

fn secret(namespace: &str, name: &str, kind: &str) -> Value {
    let pem = "LS0t";
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "type": kind,
        "data": {"tls.crt": pem, "tls.key": pem},
    })
}

/// Ours, with a Service and a route, and a source that has read them.
async fn begun() -> (Cluster, Listener) {
    let cluster = Cluster::ours();
    for object in [service("default", "a", 80), ingress("default", "a"), slice("default", "a", "10.42.0.7")] {
        cluster.create(&object).await.unwrap();
    }
    let mut listener = Listener::new(&cluster).await;
    let first = listener.until("the first set", |_| true).await;
    assert_eq!(keys(&first), ["EndpointSlice default/a", "Ingress default/a", "Service default/a"]);
    (cluster, listener)
}

fn server(cluster: &Cluster) -> &ApiServer {
    cluster.server().unwrap()
}

fn is_list_of(resource: &'static str) -> impl Fn(&Request) -> bool {
    move |request| request.verb == Verb::List && request.path.ends_with(resource)
}

fn codes(set: &ObjectSet) -> BTreeSet<Code> {
    set.findings.iter().map(|finding| finding.code).collect()
}

fn port(set: &ObjectSet, key: &str) -> Option<u16> {
    let object = set.objects.iter().find(|object| object.key.to_string() == key)?;
    match &object.body {
        dualgate_core::model::object::Body::Service(service) => Some(service.ports[0].port),
        _ => None,
    }
}

#[test]
fn what_is_added_changed_and_removed_is_heard() {
    run(async {
        let cluster = Cluster::any();
        let space = cluster.namespace("heard").await;
        let (web, key) = (service(&space, "web", 80), format!("Service {space}/web"));
        let mut listener = Listener::new(&cluster).await;
        listener.until("the first set", |set| !has(set, &key)).await;
        cluster.create(&web).await.unwrap();
        listener.until("it is there", |set| port(set, &key) == Some(80)).await;
        cluster
            .patch(&web, json!({"spec": {"ports": [{"port": 81, "protocol": "TCP", "targetPort": 80}]}}))
            .await
            .unwrap();
        listener.until("it has another port", |set| port(set, &key) == Some(81)).await;
        for object in
            [ingress(&space, "web"), slice(&space, "web", "10.42.0.7"), secret(&space, "web", "kubernetes.io/tls")]
        {
            cluster.create(&object).await.unwrap();
        }
        let others = ["Ingress", "EndpointSlice", "Secret"].map(|kind| format!("{kind} {space}/web"));
        listener.until("all are there", |set| others.iter().all(|key| has(set, key))).await;
        cluster.delete(&web).await;
        listener.until("it is gone", |set| !has(set, &key)).await;
    });
}

#[test]
fn only_what_is_read_is_asked_for() {
    run(async {
        let cluster = Cluster::any();
        let space = cluster.namespace("asked").await;
        let unlabelled = {
            let mut slice = slice(&space, "of-nobody", "10.42.0.7");
            slice["metadata"]["labels"] = json!({});
            slice
        };
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map", "namespace": space}, "data": {}});
        for object in [secret(&space, "other", "Opaque"), unlabelled, map, service(&space, "web", 80)] {
            cluster.create(&object).await.unwrap();
        }
        let mut listener = Listener::new(&cluster).await;
        let set = listener.until("the first set", |_| true).await;
        let of_space = |key: &String| key.contains(&format!(" {space}/")) && !key.contains("kube-root-ca");
        let found: Vec<String> = keys(&set).into_iter().filter(of_space).collect();
        assert_eq!(found, [format!("Service {space}/web")]);
        assert!(set.objects.is_sorted_by_key(|object| object.key.clone()));
    });
}

#[test]
fn a_long_list_is_read_in_pages() {
    run(async {
        let cluster = Cluster::ours();
        for number in 0..1_203 {
            server(&cluster).objects().create(service("default", &format!("s{number:04}"), 80)).unwrap();
        }
        let mut listener = Listener::new(&cluster).await;
        let set = listener.until("the first set", |_| true).await;
        assert_eq!(keys(&set).len(), 1_203);
        let pages = server(&cluster).count(is_list_of("/services"));
        assert_eq!(pages, 3, "of 500 each");
    });
}

#[test]
fn nothing_is_said_before_every_kind_was_listed() {
    run(async {
        let cluster = Cluster::ours();
        cluster.create(&slice("default", "a", "10.42.0.7")).await.unwrap();
        cluster.create(&service("default", "a", 80)).await.unwrap();
        let busy =
            |path: &str, code| Refusal { verb: Some(Verb::List), path: path.into(), times: 4, ..Refusal::once(code) };
        server(&cluster).faults().refuse(busy("endpointslices", 503));
        server(&cluster).faults().refuse(busy("nodes", 500));
        let mut listener = Listener::new(&cluster).await;
        let first = listener.until("a set", |_| true).await;
        assert_eq!(keys(&first), ["EndpointSlice default/a", "Service default/a"]);
        assert!(first.findings.is_empty(), "{:?}", first.findings);
    });
}

#[test]
fn a_server_that_is_busy_is_left_in_peace_as_long_as_it_says() {
    run(async {
        let cluster = Cluster::ours();
        let busy = Refusal { path: "ingresses".into(), retry_after: Some(2), ..Refusal::once(429) };
        server(&cluster).faults().refuse(busy);
        let begin = Instant::now();
        Listener::new(&cluster).await.until("a set", |_| true).await;
        assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[test]
fn slow_lists_are_waited_for() {
    run(async {
        let cluster = Cluster::ours();
        cluster.create(&service("default", "a", 80)).await.unwrap();
        server(&cluster).faults().slow_lists(Duration::from_secs(3));
        let first = Listener::new(&cluster).await.until("a set", |_| true).await;
        assert_eq!(keys(&first), ["Service default/a"]);
        assert_eq!(server(&cluster).count(is_list_of("/services")), 1);
    });
}

#[test]
fn a_watch_that_is_cut_goes_on_where_it_was() {
    run(async {
        let (cluster, mut listener) = begun().await;
        let server = server(&cluster);
        let watches = |requests: &[Request]| requests.iter().filter(|request| request.verb == Verb::Watch).count();
        // The first set comes with the lists; the watches follow.
        listener.goes_on(Duration::from_millis(1)).await;
        for round in 0..5u16 {
            server.objects().create(service("default", &format!("more-{round}"), 80)).unwrap();
            listener.until("what is added", |set| has(set, &format!("Service default/more-{round}"))).await;
            assert!(watches(&server.requests()) >= 1);
            server.faults().cut_connections();
        }
        server.objects().delete("Service", "default", "more-0").unwrap();
        listener
            .until("what is removed", |set| !has(set, "Service default/more-0") && has(set, "Service default/more-4"))
            .await;
        assert_eq!(server.count(is_list_of("/services")), 1, "nothing was listed anew");
    });
}

#[test]
fn watches_that_end_after_each_event_lose_none() {
    run(async {
        let (cluster, mut listener) = begun().await;
        server(&cluster).faults().cut_watches_after(1);
        for number in 0..8 {
            cluster.create(&service("default", &format!("more-{number}"), 80)).await.unwrap();
        }
        listener
            .until("all of them", |set| (0..8).all(|number| has(set, &format!("Service default/more-{number}"))))
            .await;
        assert_eq!(server(&cluster).count(is_list_of("/services")), 1);
    });
}

#[test]
fn a_version_that_is_forgotten_is_listed_anew_and_nothing_flaps() {
    run(async {
        let (cluster, mut listener) = begun().await;
        let server = server(&cluster);
        let mut kept = 0;
        for round in 0..3 {
            server.faults().down();
            for number in 0..20 {
                server.objects().create(service("default", &format!("r{round}-{number}"), 80)).unwrap();
            }
            server.faults().compact();
            server.faults().up();
            let is_there = format!("Service default/r{round}-19");
            let set = listener
                .until("the new list", |set| {
                    assert!(has(set, "Service default/a") && has(set, "Ingress default/a"), "{:?}", keys(set));
                    assert!(keys(set).len() >= kept);
                    has(set, &is_there)
                })
                .await;
            kept = keys(&set).len();
        }
        assert_eq!(kept, 3 + 60);
    });
}

#[test]
fn an_api_that_is_away_is_said_and_what_it_said_last_stays() {
    run(async {
        let (cluster, mut listener) = begun().await;
        server(&cluster).faults().down();
        let view = listener.source.view();
        let away = listener
            .until("it is away", |set| {
                assert_eq!(keys(set).len(), 3);
                // One kind after the other is found to be away.
                set.findings.iter().any(|finding| finding.message.contains(" has not answered since 2"))
            })
            .await;
        let said: Vec<String> = view.findings().into_iter().map(|finding| finding.message).collect();
        assert_eq!(said, away.findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>());
        assert!(said.len() == 1 && codes(&away).contains(&Code::ClusterAway), "{said:?}");
        assert!(!view.report().connected);
        server(&cluster).objects().delete("Service", "default", "a").unwrap();
        server(&cluster).objects().create(service("default", "b", 80)).unwrap();
        server(&cluster).faults().up();
        let back = listener
            .until("what happened meanwhile", |set| has(set, "Service default/b") && set.findings.is_empty())
            .await;
        assert_eq!(keys(&back), ["EndpointSlice default/a", "Ingress default/a", "Service default/b"]);
        assert!(view.findings().is_empty());
    });
}

#[test]
fn a_server_with_other_versions_in_its_place_is_listed() {
    run(async {
        let first = ApiServer::start(vec![TcpListener::bind("127.0.0.1:0").unwrap()], Options::default()).unwrap();
        let address = first.address();
        for number in 0..50 {
            first.objects().create(service("default", &format!("old-{number}"), 80)).unwrap();
        }
        let kubeconfig = std::env::temp_dir().join(format!("dualgate-restart-{}", std::process::id()));
        std::fs::write(&kubeconfig, first.kubeconfig()).unwrap();
        let access = dualgate_kube::access::Access { kubeconfig: Some(kubeconfig.clone()), context: None };
        let source = dualgate_kube::source::ClusterSource::new(access).await.unwrap();
        let mut listener = Listener { source, last: std::sync::Arc::default() };
        listener.until("the first set", |set| keys(set).len() == 50).await;
        drop(first);
        // The port may still be held by connections that end.
        listener.until("it is away", |set| codes(set).contains(&Code::ClusterAway)).await;
        let second = ApiServer::start(vec![TcpListener::bind(address).unwrap()], Options::default()).unwrap();
        second.objects().create(service("default", "restored", 80)).unwrap();
        let set = listener.until("the other server's objects", |set| has(set, "Service default/restored")).await;
        assert_eq!(keys(&set), ["Service default/restored"]);
        second.objects().create(service("default", "later", 80)).unwrap();
        listener.until("what happens there", |set| has(set, "Service default/later")).await;
        let _ = std::fs::remove_file(kubeconfig);
    });
}

#[test]
fn a_kind_that_is_forbidden_is_said_and_only_what_routes_need_is_waited_for() {
    run(async {
        let cluster = Cluster::ours();
        for object in
            [service("default", "a", 80), secret("default", "a", "kubernetes.io/tls"), ingress("default", "a")]
        {
            cluster.create(&object).await.unwrap();
        }
        let forbid = |path: &str, code| Refusal { path: path.into(), times: usize::MAX, ..Refusal::once(code) };
        server(&cluster).faults().refuse(forbid("secrets", 403));
        server(&cluster).faults().refuse(forbid("nodes", 404));
        let mut listener = Listener::new(&cluster).await;
        let set = listener.until("a set without Secrets", |set| set.findings.len() == 2).await;
        assert_eq!(keys(&set), ["Ingress default/a", "Service default/a"]);
        assert!(set.findings.iter().all(|finding| finding.code == Code::ClusterForbidden), "{:?}", set.findings);
        assert!(
            set.findings.iter().any(|finding| finding.help.contains("`list` and `watch` of `secrets`")),
            "{:?}",
            set.findings
        );
        server(&cluster).faults().clear();
        listener.until("the Secret", |set| has(set, "Secret default/a") && set.findings.is_empty()).await;

        server(&cluster).faults().refuse(forbid("ingresses", 403));
        let mut listener = Listener::new(&cluster).await;
        let view = listener.source.view();
        let early = listener.goes_on(Duration::from_secs(8)).await;
        assert!(early.is_none(), "{:?}", early.map(|set| keys(&set)));
        let said = view.findings();
        assert!(said.len() == 1 && said[0].help.contains("nothing of this cluster is served"), "{said:?}");
        server(&cluster).faults().clear();
        listener.until("the routes", |set| has(set, "Ingress default/a")).await;
    });
}

/// A server that comes back knows its roles a moment later than its objects.
#[test]
fn a_server_that_was_away_and_then_refuses_secrets_once_costs_no_secret() {
    run(async {
        let cluster = Cluster::ours();
        for object in [secret("default", "a", "kubernetes.io/tls"), ingress("default", "a")] {
            cluster.create(&object).await.unwrap();
        }
        server(&cluster).faults().down();
        let mut listener = Listener::new(&cluster).await;
        let early = listener.goes_on(Duration::from_secs(6)).await;
        assert!(early.is_none(), "{:?}", early.map(|set| keys(&set)));
        server(&cluster).faults().refuse(Refusal { path: "secrets".into(), ..Refusal::once(403) });
        server(&cluster).faults().up();
        let first = listener.until("the first set", |set| !set.objects.is_empty()).await;
        assert_eq!(keys(&first), ["Ingress default/a", "Secret default/a"]);
    });
}

#[test]
fn watches_that_stay_silent_are_caught_up_with_once_they_are_cut() {
    run(async {
        let (cluster, mut listener) = begun().await;
        let faults = server(&cluster).faults();
        faults.hold_watches();
        cluster.create(&service("default", "b", 80)).await.unwrap();
        assert!(listener.goes_on(Duration::from_secs(1)).await.is_none());
        faults.cut_connections();
        faults.release_watches();
        listener.until("what was held back", |set| has(set, "Service default/b")).await;
    });
}

#[test]
fn a_burst_of_changes_is_a_few_sets() {
    run(async {
        let (cluster, mut listener) = begun().await;
        let objects = server(&cluster).objects();
        let writer = std::thread::spawn(move || {
            (0..500).for_each(|number| drop(objects.create(service("default", &format!("b{number}"), 80)).unwrap()));
        });
        let sets = std::cell::Cell::new(0);
        listener
            .until("all of them", |set| {
                sets.set(sets.get() + 1);
                keys(set).len() == 503
            })
            .await;
        writer.join().unwrap();
        assert!(sets.get() < 250, "{} sets for 500 changes", sets.get());
    });
}

#[test]
fn an_object_that_nobody_can_read_costs_only_itself() {
    run(async {
        let (cluster, mut listener) = begun().await;
        // As a later Kubernetes might have it.
        let mut later = service("default", "b", 80);
        later["spec"]["sessionAffinity"] = json!("ClientIP");
        later["spec"]["loadBalancerSourceRanges"] = json!(["fritz.box"]);
        match cluster.create(&later).await {
            Ok(_) => {}
            Err(refused) => panic!("{refused:?}"),
        }
        cluster.create(&service("default", "c", 80)).await.unwrap();
        let set = listener.until("the others", |set| has(set, "Service default/c")).await;
        assert!(!has(&set, "Service default/b"));
        let place = set.findings.iter().map(|finding| finding.at.to_string()).collect::<Vec<_>>();
        assert_eq!(place, ["Service default/b spec.loadBalancerSourceRanges[0]"]);
    });
}
