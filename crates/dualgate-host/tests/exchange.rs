//! Home and edge talk over loopback sockets, with real keys.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dualgate_core::model::{Code, NodeName, ObjectSet};
use dualgate_core::plan::public;
use dualgate_core::seam::Source as _;
use dualgate_host::exchange::{
    Author, Cut, Heard, Identity, Link, Listener, LocalFacts, MAX_TOLD, Peer, PeerFacts, PeerKey, Phase, Refusal,
    Refusals, Sign, Teller, VERSION,
};
use dualgate_host::keys::Key;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(90);
const SECRET: &str = "-----BEGIN PRIVATE KEY----- not a real one";
const SECRET_IN_BASE64: &str = "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tIG5vdCBhIHJlYWwgb25l";

/// As the binary runs it: one thread, and tasks that stay on it.
fn run(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

async fn until<T>(what: &str, seen: &mut watch::Receiver<T>, is: impl FnMut(&T) -> bool) -> T
where
    T: Clone + std::fmt::Debug,
{
    let found = timeout(PATIENCE, seen.wait_for(is)).await.map(|found| found.unwrap().clone());
    found.unwrap_or_else(|_| panic!("waited for {what}; it is {:?}", seen.borrow()))
}

/// Lets time pass in steps that are short enough to stay in touch.
async fn pass(time: Duration) {
    let step = Duration::from_secs(4);
    for _ in 0..time.as_secs().div_ceil(step.as_secs()) {
        jump(step).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn jump(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A home of two nodes and an edge, with their keys.
struct Site {
    home: [(NodeName, Key); 2],
    edge: (NodeName, Key),
    preshared: Option<Key>,
}

impl Site {
    fn new() -> Self {
        let node = |name: &str| (NodeName::new(name), Key::private().unwrap());
        Self { home: [node("home1"), node("home2")], edge: node("edge"), preshared: Some(Key::preshared().unwrap()) }
    }

    fn identity(&self, (node, private): &(NodeName, Key)) -> Identity {
        Identity { site: "home".into(), node: node.clone(), private: private.clone() }
    }

    fn peer(&self, (node, private): &(NodeName, Key)) -> Peer {
        let key = PeerKey { public: private.public().unwrap(), preshared: self.preshared.clone() };
        Peer { node: node.clone(), keys: vec![key] }
    }

    fn edge(&self) -> Edge {
        self.edge_at(&["127.0.0.1:0".parse().unwrap()])
    }

    fn edge_at(&self, addresses: &[SocketAddr]) -> Edge {
        let facts = watch::Sender::new(LocalFacts {
            node: self.edge.0.clone(),
            version: "1.2.3".into(),
            phase: Phase::Starting,
            applied: None,
            findings: 0,
            listening: Vec::new(),
            now: 0,
        });
        let home = self.home.iter().map(|node| self.peer(node)).collect();
        let listener = Listener::bind(addresses, self.identity(&self.edge), home, facts.subscribe()).unwrap();
        Edge::new(listener, facts)
    }

    fn home(&self, number: usize) -> Home {
        Home::new(self.identity(&self.home[number]))
    }
}

struct Edge {
    addresses: Vec<SocketAddr>,
    heard: watch::Receiver<Heard>,
    refusals: Arc<Refusals>,
    facts: watch::Sender<LocalFacts>,
    sets: mpsc::Receiver<Arc<ObjectSet>>,
    task: AbortHandle,
}

impl Edge {
    fn new(mut listener: Listener, facts: watch::Sender<LocalFacts>) -> Self {
        let (addresses, heard, refusals) = (listener.addresses(), listener.heard(), listener.refusals());
        let (found, sets) = mpsc::channel(16);
        let task = spawn_local(async move {
            while let Ok(set) = listener.next().await {
                found.send(set).await.unwrap();
            }
        });
        Self { addresses, heard, refusals, facts, sets, task: task.abort_handle() }
    }

    fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    async fn next(&mut self) -> Arc<ObjectSet> {
        soon("a set", self.sets.recv()).await.unwrap()
    }

    async fn names(&mut self) -> Vec<String> {
        names(&*self.next().await)
    }

    async fn refused(&self, refusal: Refusal) {
        let counted = async {
            while self.refusals.count(refusal) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let counts = || Refusal::ALL.map(|refusal| (refusal, self.refusals.count(refusal)));
        timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("waited for {refusal:?}: {:?}", counts()));
    }

    /// Waits until the connections of these home nodes are there.
    async fn hears(&mut self, home: &[&str]) -> Heard {
        let is = |heard: &Heard| heard.from.iter().map(|from| from.node.as_str()).eq(home.iter().copied());
        until("home nodes", &mut self.heard, is).await
    }

    /// As a process that is killed.
    async fn kill(self) {
        self.task.abort();
        let gone = async {
            while !self.task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        soon("the end", gone).await;
    }
}

/// What a home node tells, and whom.
struct Home {
    identity: Arc<Identity>,
    author: Author,
    cuts: watch::Sender<Option<Arc<Cut>>>,
    tasks: Vec<AbortHandle>,
}

impl Home {
    fn new(identity: Identity) -> Self {
        let author = Author::new(&identity);
        Self { identity: Arc::new(identity), author, cuts: watch::Sender::new(None), tasks: Vec::new() }
    }

    fn tell(&mut self, names: &[&str]) -> Arc<Cut> {
        self.tell_set(&set(names))
    }

    fn tell_set(&mut self, set: &ObjectSet) -> Arc<Cut> {
        let cut = self.author.write(set).unwrap();
        self.cuts.send_replace(Some(cut.clone()));
        cut
    }

    fn dial(&mut self, edge: Peer, addresses: &[SocketAddr]) -> watch::Receiver<PeerFacts> {
        let (teller, seen) = Teller::new(self.identity.clone(), edge, addresses.to_vec(), self.cuts.subscribe());
        self.tasks.push(spawn_local(teller.run()).abort_handle());
        seen
    }

    fn hang_up(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }
}

/// Services of these names.
fn set(names: &[&str]) -> ObjectSet {
    let service = |name: &&str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "apps"},
            "spec": {"ports": [{"port": 80}]},
        })
    };
    public::read(&names.iter().map(service).collect::<Vec<Value>>())
}

fn names(set: &ObjectSet) -> Vec<String> {
    set.objects.iter().map(|object| object.key.name.name.to_string()).collect()
}

fn codes(set: &ObjectSet) -> Vec<Code> {
    set.findings.iter().map(|finding| finding.code).collect()
}

fn is_connected(facts: &PeerFacts) -> bool {
    matches!(facts.link, Link::Connected { .. })
}

fn why(facts: &PeerFacts) -> &str {
    match &facts.link {
        Link::Away { why, .. } => why,
        Link::Connected { .. } => "",
    }
}

#[test]
fn home_tells_and_tells_again_and_the_edge_says_what_it_applied() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let mut home = site.home(0);
        let mut seen = home.dial(site.peer(&site.edge), &[edge.address()]);
        until("a connection without anything to tell", &mut seen, is_connected).await;
        let first = home.tell(&["grafana"]);
        assert_eq!(edge.names().await, ["grafana"]);
        let second = home.tell(&["grafana", "nextcloud"]);
        let set = edge.next().await;
        assert_eq!((names(&set), codes(&set)), (vec!["grafana".to_owned(), "nextcloud".to_owned()], vec![]));
        assert_eq!((first.generation.counter, second.generation.counter), (1, 2));
        assert_eq!(edge.heard.borrow().generation_of(&set), Some(&second.generation));
        let told = until("what was told", &mut seen, |facts| facts.told.as_ref() == Some(&second.generation)).await;
        assert!(!told.is_up_to_date());
        edge.facts.send_modify(|facts| {
            facts.applied = Some(second.generation.clone());
            facts.phase = Phase::Serving;
            facts.listening = vec!["203.0.113.10:443".parse().unwrap()];
        });
        let seen = until("the edge's facts", &mut seen, PeerFacts::is_up_to_date).await;
        let said = seen.facts.unwrap();
        assert_eq!((said.node.as_str(), said.phase, said.listening.len()), ("edge", Phase::Serving, 1));
        assert!(said.now > 1_700_000_000, "the edge's clock: {}", said.now);
    });
}

#[test]
fn what_says_the_same_is_told_once() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let mut home = site.home(0);
        home.dial(site.peer(&site.edge), &[edge.address()]);
        let first = home.tell(&["grafana"]);
        assert_eq!(edge.names().await, ["grafana"]);
        assert!(Arc::ptr_eq(&first, &home.tell(&["grafana"])));
        home.tell(&["nextcloud"]);
        assert_eq!(edge.names().await, ["nextcloud"]);
    });
}

#[test]
fn every_address_of_the_edge_is_tried_in_both_families() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge_at(&["127.0.0.1:0", "[::1]:0"].map(|address| address.parse().unwrap()));
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = nobody.local_addr().unwrap();
        drop(nobody);
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        let mut seen = home.dial(site.peer(&site.edge), &[closed, edge.addresses[1]]);
        assert_eq!(edge.names().await, ["grafana"]);
        let there = until("a connection", &mut seen, is_connected).await;
        assert!(matches!(there.link, Link::Connected { at, .. } if at.is_ipv6()), "{:?}", there.link);
        home.hang_up();
        let mut other = site.home(1);
        other.tell(&["nextcloud"]);
        other.dial(site.peer(&site.edge), &[edge.addresses[0]]);
        assert_eq!(edge.names().await, ["nextcloud"]);
    });
}

#[test]
fn the_most_senior_home_node_that_is_connected_is_believed() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let (mut senior, mut junior) = (site.home(0), site.home(1));
        junior.tell(&["of-junior"]);
        junior.dial(site.peer(&site.edge), &[edge.address()]);
        assert_eq!(edge.names().await, ["of-junior"]);
        senior.dial(site.peer(&site.edge), &[edge.address()]);
        edge.hears(&["home1", "home2"]).await;
        // Connected is not enough: it has told nothing yet.
        junior.tell(&["of-junior", "more"]);
        assert_eq!(edge.names().await, ["more", "of-junior"]);
        senior.tell(&["of-senior"]);
        assert_eq!(edge.names().await, ["of-senior"]);
        let last = junior.tell(&["of-junior", "last"]);
        let heard = |heard: &Heard| heard.from.iter().any(|from| from.told.as_ref() == Some(&last.generation));
        until("the last word of the junior one", &mut edge.heard, heard).await;
        assert!(edge.sets.try_recv().is_err(), "the senior one's word counts");
        senior.hang_up();
        assert_eq!(edge.names().await, ["last", "of-junior"]);
        let heard = edge.hears(&["home2"]).await;
        assert_eq!(heard.taken, Some(last.generation.clone()));
    });
}

#[test]
fn a_take_over_of_the_same_words_disturbs_nobody() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let (mut senior, mut junior) = (site.home(0), site.home(1));
        for home in [&mut senior, &mut junior] {
            home.tell(&["grafana"]);
            home.dial(site.peer(&site.edge), &[edge.address()]);
        }
        assert_eq!(edge.names().await, ["grafana"]);
        let both = |heard: &Heard| heard.from.len() == 2 && heard.from.iter().all(|from| from.told.is_some());
        until("both", &mut edge.heard, both).await;
        senior.hang_up();
        let heard = edge.hears(&["home2"]).await;
        assert_eq!(heard.taken.unwrap().authority.as_str(), "home2");
        assert!(edge.sets.try_recv().is_err(), "nothing changed for the edge");
    });
}

#[test]
fn home_nodes_that_differ_for_long_are_a_finding() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let (mut senior, mut junior) = (site.home(0), site.home(1));
        senior.tell(&["grafana"]);
        senior.dial(site.peer(&site.edge), &[edge.address()]);
        assert_eq!(edge.names().await, ["grafana"]);
        junior.tell(&["other"]);
        junior.dial(site.peer(&site.edge), &[edge.address()]);
        let both = |heard: &Heard| heard.from.len() == 2 && heard.from.iter().all(|from| from.told.is_some());
        until("both", &mut edge.heard, both).await;
        pass(Duration::from_secs(20)).await;
        assert!(edge.sets.try_recv().is_err(), "a moment is no difference");
        pass(Duration::from_secs(12)).await;
        let set = edge.next().await;
        assert_eq!((names(&set), codes(&set)), (vec!["grafana".to_owned()], vec![Code::HomeDiffers]));
        assert!(set.findings[0].message.contains("`home2` tells something else than `home1`"), "{}", set.findings[0]);
        junior.tell(&["grafana"]);
        assert_eq!(codes(&*edge.next().await), []);
    });
}

#[test]
fn home_that_is_away_for_long_is_a_finding_and_what_it_told_stays() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let mut home = site.home(0);
        let cut = home.tell(&["grafana"]);
        home.dial(site.peer(&site.edge), &[edge.address()]);
        edge.next().await;
        home.hang_up();
        edge.hears(&[]).await;
        jump(Duration::from_secs(20)).await;
        assert!(timeout(Duration::from_millis(50), edge.sets.recv()).await.is_err(), "a moment is no absence");
        jump(Duration::from_secs(11)).await;
        let set = edge.next().await;
        assert_eq!((names(&set), codes(&set)), (vec!["grafana".to_owned()], vec![Code::Stale]));
        let expected = format!("what is served is generation {}", cut.generation);
        assert!(set.findings[0].message.contains(&expected), "{}", set.findings[0]);
        assert_eq!(edge.heard.borrow().generation_of(&set), Some(&cut.generation));
        home.dial(site.peer(&site.edge), &[edge.address()]);
        let set = edge.next().await;
        assert_eq!((names(&set), codes(&set)), (vec!["grafana".to_owned()], vec![]));
    });
}

#[test]
fn an_edge_that_starts_again_is_told_again() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let address = edge.address();
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        let mut seen = home.dial(site.peer(&site.edge), &[address]);
        assert_eq!(edge.names().await, ["grafana"]);
        edge.kill().await;
        // Its host goes on, and says that nobody listens.
        let is_gone = |facts: &PeerFacts| matches!(facts.link, Link::Away { sign: Sign::NobodyListens, .. });
        until("the loss", &mut seen, is_gone).await;
        let mut edge = site.edge_at(&[address]);
        assert_eq!(edge.names().await, ["grafana"]);
    });
}

#[test]
fn a_home_node_that_starts_again_takes_the_place_of_its_former_connection() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let cable = Cable::to(edge.address()).await;
        let mut before = site.home(0);
        before.tell(&["grafana"]);
        before.dial(site.peer(&site.edge), &[cable.address]);
        assert_eq!(edge.names().await, ["grafana"]);
        // Nobody tells the edge that this one is dead.
        cable.stall();
        let mut after = site.home(0);
        after.tell(&["nextcloud"]);
        after.dial(site.peer(&site.edge), &[edge.address()]);
        assert_eq!(edge.names().await, ["nextcloud"]);
        edge.hears(&["home1"]).await;
    });
}

#[test]
fn a_connection_that_is_silent_is_given_up_by_both() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let cable = Cable::to(edge.address()).await;
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        let mut seen = home.dial(site.peer(&site.edge), &[cable.address]);
        edge.next().await;
        until("a connection", &mut seen, is_connected).await;
        pass(Duration::from_secs(40)).await;
        assert!(is_connected(&seen.borrow()) && edge.heard.borrow().from.len() == 1, "both say that they are there");
        cable.stall();
        pass(Duration::from_secs(24)).await;
        edge.refused(Refusal::Silent).await;
        edge.hears(&[]).await;
        until("the loss", &mut seen, |facts| !is_connected(facts)).await;
    });
}

#[test]
fn an_edge_that_does_not_listen_keeps_nobody_waiting() {
    run(async {
        let site = Site::new();
        let (mut edge, mut slow) = (site.edge(), site.edge());
        let cable = Cable::to(slow.address()).await;
        let mut home = site.home(0);
        home.tell(&["one"]);
        home.dial(site.peer(&site.edge), &[edge.address()]);
        let mut of_slow = home.dial(site.peer(&site.edge), &[cable.address]);
        edge.next().await;
        slow.next().await;
        until("a connection", &mut of_slow, is_connected).await;
        cable.stall();
        // More than fits into any buffer on the way.
        let many: Vec<String> = (0..60_000).map(|number| format!("service-{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        home.tell(&many);
        assert_eq!(edge.names().await.len(), many.len());
        home.tell(&["three"]);
        assert_eq!(edge.names().await, ["three"]);
        assert!(slow.sets.try_recv().is_err());
    });
}

#[test]
fn a_home_node_that_stops_in_the_middle_of_a_word_keeps_no_other_waiting() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let cable = Cable::to(edge.address()).await;
        let (mut senior, mut junior) = (site.home(0), site.home(1));
        senior.dial(site.peer(&site.edge), &[cable.address]);
        edge.hears(&["home1"]).await;
        cable.stall_after(300);
        let many: Vec<String> = (0..1000).map(|number| format!("service-{number}")).collect();
        senior.tell(&many.iter().map(String::as_str).collect::<Vec<_>>());
        junior.tell(&["grafana"]);
        junior.dial(site.peer(&site.edge), &[edge.address()]);
        assert_eq!(edge.names().await, ["grafana"]);
    });
}

#[test]
fn ten_thousand_endpoints_are_told_at_once() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let mut home = site.home(0);
        let values: Vec<Value> = (0..10)
            .map(|slice| {
                let endpoint = |pod: u32| {
                    let address = format!("10.{}.{}.{}", 64 + slice, pod / 250, pod % 250 + 1);
                    json!({"addresses": [address], "targetRef": {"name": format!("web-{slice}-{pod}")}})
                };
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {
                        "name": format!("web-{slice}"), "namespace": "apps",
                        "labels": {"kubernetes.io/service-name": "web"},
                    },
                    "ports": [{"port": 8080}], "endpoints": (0..1000).map(endpoint).collect::<Vec<_>>(),
                })
            })
            .collect();
        let set = public::read(&values);
        home.dial(site.peer(&site.edge), &[edge.address()]);
        edge.hears(&["home1"]).await;
        let start = std::time::Instant::now();
        home.tell_set(&set);
        let told = edge.next().await;
        assert_eq!(told.objects, set.objects);
        assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    });
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    run(async {
        let site = Site::new();
        let other = Key::preshared().unwrap();
        let stranger = (site.home[0].0.clone(), Key::private().unwrap());
        let peer = |public: &Key, preshared: Option<&Key>| Peer {
            node: site.edge.0.clone(),
            keys: vec![PeerKey { public: public.public().unwrap(), preshared: preshared.cloned() }],
        };
        let right = site.preshared.as_ref();
        for (what, who, edge_key, preshared) in [
            ("another private key", &stranger, &site.edge.1, right),
            ("another preshared key", &site.home[0], &site.edge.1, Some(&other)),
            ("no preshared key", &site.home[0], &site.edge.1, None),
            ("another public key of the edge", &site.home[0], &stranger.1, right),
        ] {
            let edge = site.edge();
            let mut home = Home::new(site.identity(who));
            home.tell(&["grafana"]);
            let mut seen = home.dial(peer(edge_key, preshared), &[edge.address()]);
            edge.refused(Refusal::WrongKey).await;
            let seen = until(what, &mut seen, |facts| why(facts).contains("keys do not fit")).await;
            assert!(why(&seen).contains("dualgate keys show-public"), "{what}: {}", why(&seen));
            assert!(edge.heard.borrow().from.is_empty(), "{what}");
        }
    });
}

#[test]
fn while_keys_change_every_one_that_is_known_is_tried() {
    run(async {
        let mut site = Site::new();
        site.preshared = None;
        let (old, other) = (Key::private().unwrap(), Key::private().unwrap());
        let key = |key: &Key| PeerKey { public: key.public().unwrap(), preshared: None };
        let facts = site.edge().facts;
        let home_keys = vec![key(&other), key(&site.home[0].1)];
        let peer = Peer { node: site.home[0].0.clone(), keys: home_keys };
        let address = ["127.0.0.1:0".parse().unwrap()];
        let listener = Listener::bind(&address, site.identity(&site.edge), vec![peer], facts.subscribe()).unwrap();
        let mut edge = Edge::new(listener, facts);
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        let keys = vec![key(&old), key(&site.edge.1)];
        home.dial(Peer { node: site.edge.0.clone(), keys }, &[edge.address()]);
        assert_eq!(edge.names().await, ["grafana"]);
    });
}

#[test]
fn another_site_another_node_and_another_authority_are_refused() {
    run(async {
        let site = Site::new();
        let edge = site.edge();
        let mut elsewhere = Home::new(Identity { site: "elsewhere".into(), ..site.identity(&site.home[0]) });
        let mut seen = elsewhere.dial(site.peer(&site.edge), &[edge.address()]);
        until("the refusal", &mut seen, |facts| why(facts).contains("of another site")).await;
        edge.refused(Refusal::Site).await;
        let stranger = (NodeName::new("home3"), site.home[0].1.clone());
        let mut stranger = Home::new(site.identity(&stranger));
        let mut seen = stranger.dial(site.peer(&site.edge), &[edge.address()]);
        until("the refusal", &mut seen, |facts| why(facts).contains("may not speak here")).await;
        edge.refused(Refusal::UnknownNode).await;
        // One node with its own keys and another's words.
        let before = edge.refusals.count(Refusal::UnknownNode);
        stranger.hang_up();
        let mut pretender = site.home(1);
        pretender.author = Author::new(&site.identity(&site.home[0]));
        pretender.tell(&["grafana"]);
        let mut seen = pretender.dial(site.peer(&site.edge), &[edge.address()]);
        until("a connection", &mut seen, is_connected).await;
        until("its end", &mut seen, |facts| !is_connected(facts)).await;
        assert!(edge.refusals.count(Refusal::UnknownNode) > before);
        assert!(edge.heard.borrow().taken.is_none());
    });
}

#[test]
fn another_version_is_refused_and_both_are_named() {
    run(async {
        let site = Site::new();
        let edge = site.edge();
        let mut stream = TcpStream::connect(edge.address()).await.unwrap();
        stream.write_all(b"dualgate\x00\x02 whatever version 2 says").await.unwrap();
        let mut answer = Vec::new();
        soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
        let [high, low] = VERSION.to_be_bytes();
        assert_eq!(answer, [4, high, low]);
        edge.refused(Refusal::Version).await;

        let later = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut home = site.home(0);
        let mut seen = home.dial(site.peer(&site.edge), &[later.local_addr().unwrap()]);
        let (mut stream, _) = soon("the call", later.accept()).await.unwrap();
        stream.write_all(&[4, 0, 9]).await.unwrap();
        let seen = until("the refusal", &mut seen, |facts| why(facts).contains("version")).await;
        assert_eq!(
            why(&seen),
            "it speaks version 9 of the exchange, this node version 1: run the same version of dualgate on both"
        );
    });
}

#[test]
fn whoever_does_not_prove_who_he_is_is_refused_and_counted() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        for (said, refusal) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Refusal::Foreign),
            (b"dualgate\x00\x01\x04ho", Refusal::Truncated),
            (b"dualgate\x00\x01\x04home\x05home1", Refusal::Truncated),
            (b"dualgate\x00\x01\x04home\x05home1ffffffffffffffffffffffffffffffffffffffffffffffff", Refusal::WrongKey),
        ] {
            let mut stream = TcpStream::connect(edge.address()).await.unwrap();
            stream.write_all(said).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
            assert_eq!(answer.len(), 3, "{refusal:?}");
            edge.refused(refusal).await;
        }
        let mut waiting = Vec::new();
        for _ in 0..17 {
            waiting.push(TcpStream::connect(edge.address()).await.unwrap());
        }
        edge.refused(Refusal::TooMany).await;
        assert_eq!(edge.refusals.count(Refusal::TooMany), 1, "sixteen may wait");
        jump(Duration::from_secs(6)).await;
        edge.refused(Refusal::Late).await;
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        home.dial(site.peer(&site.edge), &[edge.address()]);
        assert_eq!(edge.names().await, ["grafana"]);
        assert_eq!(edge.refusals.count(Refusal::Late), 16);
    });
}

#[test]
fn what_was_said_before_proves_nothing() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let cable = Cable::to(edge.address()).await;
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        home.dial(site.peer(&site.edge), &[cable.address]);
        edge.next().await;
        home.hang_up();
        edge.hears(&[]).await;
        let said = cable.said();
        assert!(said.len() > 200, "{} octets", said.len());
        let mut stream = TcpStream::connect(edge.address()).await.unwrap();
        stream.write_all(&said).await.unwrap();
        edge.refused(Refusal::Replayed).await;
        assert!(edge.heard.borrow().from.is_empty());
    });
}

#[test]
fn a_frame_that_was_altered_ends_the_connection_and_changes_nothing() {
    run(async {
        let site = Site::new();
        let mut edge = site.edge();
        let cable = Cable::to(edge.address()).await;
        let mut home = site.home(0);
        home.tell(&["grafana"]);
        let mut seen = home.dial(site.peer(&site.edge), &[cable.address]);
        edge.next().await;
        until("a connection", &mut seen, is_connected).await;
        cable.alter();
        home.tell(&["altered"]);
        edge.refused(Refusal::Forged).await;
        until("the loss", &mut seen, |facts| !is_connected(facts)).await;
        assert!(edge.sets.try_recv().is_err());
        // The next connection is as good as any.
        assert_eq!(edge.names().await, ["altered"]);
    });
}

#[test]
fn nothing_secret_is_shown() {
    run(async {
        let site = Site::new();
        let edge = site.edge();
        let mut home = site.home(0);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "tls", "namespace": "apps"},
            "stringData": {"tls.crt": "a certificate", "tls.key": SECRET},
        });
        let cut = home.tell_set(&public::read(&[secret]));
        let mut seen = home.dial(site.peer(&site.edge), &[edge.address()]);
        let mut heard = edge.heard.clone();
        let heard = until("the set", &mut heard, |heard| heard.set.is_some()).await;
        let seen = until("a connection", &mut seen, is_connected).await;
        let shown =
            format!("{cut:?} {:?} {:?} {heard:?} {seen:?} {:?}", home.author, home.identity, site.peer(&site.edge));
        let private = String::from_utf8(site.home[0].1.to_base64().expose().to_vec()).unwrap();
        for hidden in [SECRET, SECRET_IN_BASE64, &private, "PRIVATE KEY"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
        let dualgate_core::model::object::Body::Secret(body) = &heard.set.unwrap().objects[0].body else { panic!() };
        assert_eq!(body.data["tls.key"].expose(), SECRET.as_bytes());
    });
}

#[test]
fn more_than_can_be_told_is_not() {
    let site = Site::new();
    let mut author = Author::new(&site.identity(&site.home[0]));
    let many: BTreeSet<String> = (0..2000).map(|number| format!("{}-{number}", "a".repeat(20))).collect();
    let secret = |name: &String| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "apps"},
            "stringData": {"a": "a".repeat(30_000)},
        })
    };
    let set = public::read(&many.iter().map(secret).collect::<Vec<_>>());
    let error = author.write(&set).unwrap_err();
    assert!(error.octets > MAX_TOLD && error.to_string().contains("an edge can be told 67108864"), "{error}");
    assert_eq!(author.write(&self::set(&["grafana"])).unwrap().generation.counter, 1);
}

/// A connection through something that can fail.
struct Cable {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What home has said.
    said: Vec<u8>,
    /// How much more of it passes; unlimited if absent.
    left: Option<usize>,
    alter: bool,
}

impl Cable {
    async fn to(edge: SocketAddr) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let of_cable = state.clone();
        spawn_local(async move {
            while let Ok((near, _)) = socket.accept().await {
                let Ok(far) = TcpStream::connect(edge).await else { continue };
                let ((from_home, to_home), (from_edge, to_edge)) = (near.into_split(), far.into_split());
                spawn_local(pump(from_home, to_edge, of_cable.clone(), Direction::Out));
                spawn_local(pump(from_edge, to_home, of_cable.clone(), Direction::Back));
            }
        });
        Self { address, state }
    }

    /// Nothing passes any more, in neither direction, and nobody is told.
    fn stall(&self) {
        self.stall_after(0);
    }

    fn stall_after(&self, octets: usize) {
        self.state.lock().unwrap().left = Some(octets);
    }

    /// One octet of what home says next is another one.
    fn alter(&self) {
        self.state.lock().unwrap().alter = true;
    }

    fn said(&self) -> Vec<u8> {
        self.state.lock().unwrap().said.clone()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Out,
    Back,
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    state: Arc<Mutex<State>>,
    direction: Direction,
) {
    let mut buffer = vec![0; 4096];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let passes = {
            let mut state = state.lock().unwrap();
            if direction == Direction::Out {
                state.said.extend_from_slice(&buffer[..count]);
                if std::mem::take(&mut state.alter) {
                    buffer[count / 2] ^= 1;
                }
            }
            let passes = state.left.map_or(count, |left| left.min(count));
            state.left = state.left.map(|left| left - passes);
            passes
        };
        if to.write_all(&buffer[..passes]).await.is_err() {
            return;
        }
        if passes < count {
            return std::future::pending().await;
        }
    }
}
