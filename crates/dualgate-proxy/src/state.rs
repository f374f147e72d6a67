//! What requests share: the running plan, and the state that outlives plans.
//!
//! Balancers, health and counters are keyed by what they belong to, not by the plan that named it: a new plan finds
//! them as they were. They are atomics, because they hold for all workers together. A backend's state begins with the first
//! request for it: of ten thousand applications at home hardly any is asked for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dualgate_core::model::{Family, Text};
use dualgate_core::plan::forward::{ForwardId, Transport};
use dualgate_core::plan::proxy::{
    self as plan, Backend, BackendId, Listener, ProxyPlan, Scheme, Server, ServerAddress,
};
use dualgate_core::route::{Action, BackendIndex, Route};
use foldhash::{HashMap, HashMapExt as _, HashSet};

use crate::listener::EntryPointId;
use crate::metrics::BackendCounters;
use crate::service::ForwardState;

/// Backends, as many as on a page of the plan.
type Page = [Option<Arc<Slot>>; plan::PAGE];

/// A backend, with its state as soon as a request went there.
#[derive(Debug)]
struct Slot {
    backend: Arc<Backend>,
    state: OnceLock<Box<BackendState>>,
}

impl Slot {
    fn new(backend: Arc<Backend>) -> Self {
        Self { backend, state: OnceLock::new() }
    }

    fn servers(&self) -> &[Arc<ServerState>] {
        self.state.get().map(|state| state.servers.as_slice()).unwrap_or_default()
    }
}

/// A plan with its state: immutable, replaced as a whole.
#[derive(Debug)]
pub struct Runtime {
    /// The plan.
    pub plan: Arc<ProxyPlan>,
    /// By number, as in the plan. Those of a page of the plan that did not change are the same ones as before.
    backends: Vec<Arc<Page>>,
    maker: Arc<Maker>,
    forwards: HashMap<ForwardId, Arc<ForwardState>>,
    /// Where datagrams of Services come in.
    datagrams: HashSet<SocketAddr>,
}

impl Runtime {
    /// The backend that a route points to.
    pub fn backend(&self, index: BackendIndex) -> Option<&BackendState> {
        let (page, at) = (index.0 as usize / plan::PAGE, index.0 as usize % plan::PAGE);
        let slot = self.backends.get(page)?[at].as_ref()?;
        // A request under a former plan may begin one that nobody else has; its connections end when they have been idle.
        let begin = || Box::new(self.maker.backend(&self.plan, &slot.backend, None));
        Some(slot.state.get_or_init(begin))
    }

    /// The backend of a route.
    pub fn backend_of(&self, route: &Route) -> Option<&BackendState> {
        match route.action {
            Action::Forward(index) => self.backend(index),
            Action::Unavailable(_) => None,
        }
    }

    /// How an entry point is to be served; `None` if it no longer is.
    pub fn listener(&self, id: &EntryPointId) -> Option<&Listener> {
        self.plan.listeners.iter().find(|listener| listener.gate == id.gate && listener.entry_point == id.entry_point)
    }

    /// The backends that a request went to.
    pub fn backends(&self) -> impl Iterator<Item = &BackendState> {
        self.backends.iter().flat_map(|page| page.iter()).flatten().filter_map(|slot| Some(&**slot.state.get()?))
    }

    /// A port of a Service; `None` if it is no longer forwarded.
    pub fn forward(&self, id: &ForwardId) -> Option<&Arc<ForwardState>> {
        self.forwards.get(id)
    }

    /// Whether datagrams of a Service come in there.
    pub fn takes_datagrams(&self, address: SocketAddr) -> bool {
        self.datagrams.contains(&address)
    }
}

/// A backend with its state.
#[derive(Debug)]
pub struct BackendState {
    /// What the plan says of it.
    pub backend: Arc<Backend>,
    /// Its servers, in the plan's order.
    pub servers: Vec<Arc<ServerState>>,
    /// What outlives the plan.
    pub shared: Arc<BackendShared>,
}

/// What a backend keeps from plan to plan.
#[derive(Debug, Default)]
pub struct BackendShared {
    next: AtomicUsize,
    /// What is counted for it.
    pub counters: BackendCounters,
}

impl BackendState {
    /// The next server in turn that is well and not in `tried`; one that is not well where no other is left.
    pub fn pick(&self, now: Instant, tried: &[u64]) -> Option<&Arc<ServerState>> {
        in_turn(&self.servers, &self.shared.next, now, tried)
    }
}

/// The next of `servers` in turn that is well and not in `tried`; one that is not well where no other is left.
pub fn in_turn<'s>(
    servers: &'s [Arc<ServerState>],
    next: &AtomicUsize,
    now: Instant,
    tried: &[u64],
) -> Option<&'s Arc<ServerState>> {
    let count = servers.len();
    if count == 0 {
        return None;
    }
    let start = next.fetch_add(1, Relaxed);
    let in_turn = || (0..count).map(|step| &servers[start.wrapping_add(step) % count]);
    let untried = |server: &&Arc<ServerState>| !tried.contains(&server.uid);
    in_turn().filter(untried).find(|server| server.health.is_well(now)).or_else(|| in_turn().find(untried))
}

/// One server with its state.
#[derive(Debug)]
pub struct ServerState {
    /// A number that no other server of this process has: the key of its connections.
    pub uid: u64,
    /// Its name, for people.
    pub id: Text,
    /// Where it is.
    pub at: ServerAddress,
    /// What it speaks. What a Service's server speaks is not ours to know; there it says nothing.
    pub scheme: Scheme,
    /// Whether it answers.
    pub health: Health,
    /// Addresses that its name may not turn out to mean.
    pub forbidden: Arc<[SocketAddr]>,
    prefers_v4: AtomicBool,
    retired: AtomicBool,
}

impl ServerState {
    /// The family over which it was reached last; IPv6 to begin with.
    pub fn preferred(&self) -> Family {
        if self.prefers_v4.load(Relaxed) { Family::V4 } else { Family::V6 }
    }

    /// It was reached over this family.
    pub fn prefer(&self, family: Family) {
        self.prefers_v4.store(family == Family::V4, Relaxed);
    }

    /// No plan names it any more: its idle connections can be closed.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }
}

/// Passive health: a server that cannot be reached is left out, each time for longer.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    failures: AtomicU32,
    until_millis: AtomicU64,
}

impl Health {
    /// The first time out; it doubles with each failure in a row.
    pub const FIRST: Duration = Duration::from_secs(1);
    /// The longest time out.
    pub const LONGEST: Duration = Duration::from_secs(30);

    fn new(epoch: Instant) -> Self {
        Self { epoch, failures: AtomicU32::new(0), until_millis: AtomicU64::new(0) }
    }

    /// Whether requests should go there.
    pub fn is_well(&self, now: Instant) -> bool {
        self.until_millis.load(Relaxed) <= self.millis(now)
    }

    /// It answered.
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.until_millis.store(0, Relaxed);
        }
    }

    /// It could not be reached.
    pub fn failed(&self, now: Instant) {
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        let out = Self::FIRST.saturating_mul(1 << failures).min(Self::LONGEST);
        self.until_millis.store(self.millis(now) + out.as_millis() as u64, Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64 + 1
    }
}

/// Whose server it is: what its health says depends on how it is reached.
#[derive(Clone, Copy)]
enum Owner {
    Backend(Scheme),
    Forward,
}

impl Owner {
    fn scheme(self) -> Scheme {
        match self {
            Self::Backend(scheme) => scheme,
            Self::Forward => Scheme::Http,
        }
    }
}

/// The state that outlives plans: what runs, and how to make what is to run next.
#[derive(Debug)]
pub struct Registry {
    maker: Arc<Maker>,
    backends: Vec<Arc<Page>>,
    /// The pages of the plan that they were made from.
    planned: Vec<Arc<plan::Page>>,
    forwards: HashMap<ForwardId, Arc<ForwardState>>,
}

impl Registry {
    /// Knows nothing yet; `epoch` is any moment before the first failure.
    pub fn new(epoch: Instant) -> Self {
        let maker = Arc::new(Maker { epoch, next_uid: AtomicU64::new(1) });
        Self { maker, backends: Vec::new(), planned: Vec::new(), forwards: HashMap::new() }
    }

    /// Joins a plan with what is known; what the plan no longer names is forgotten.
    pub fn compile(&mut self, plan: Arc<ProxyPlan>) -> Runtime {
        self.compile_backends(&plan);
        let mut left = std::mem::take(&mut self.forwards);
        for forward in &plan.forwards {
            let known = left.remove(&forward.id);
            let former = known.as_ref().map(|known| known.servers.as_slice()).unwrap_or_default();
            let servers = self.maker.servers(&plan, Owner::Forward, &forward.servers, former);
            retire(former, &servers);
            let shared = known.map(|known| known.shared.clone()).unwrap_or_default();
            let state = ForwardState { forward: forward.clone(), servers, shared };
            self.forwards.insert(forward.id.clone(), Arc::new(state));
        }
        for gone in left.values() {
            gone.shared.dismiss();
            retire(&gone.servers, &[]);
        }
        let of_datagrams = plan.forwards.iter().filter(|forward| forward.id.transport == Transport::Udp);
        let datagrams = of_datagrams.flat_map(|forward| forward.listen.iter().copied()).collect();
        let (backends, maker, forwards) = (self.backends.clone(), self.maker.clone(), self.forwards.clone());
        Runtime { plan, backends, maker, forwards, datagrams }
    }

    /// A page that did not change keeps its states; the others find theirs again by identity, wherever it was.
    fn compile_backends(&mut self, plan: &ProxyPlan) {
        let pages = plan.backends.pages();
        let same = |number: usize| match (self.planned.get(number), pages.get(number)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (Some(_) | None, _) => false,
        };
        let changed: HashSet<usize> =
            (0..pages.len().max(self.planned.len())).filter(|number| !same(*number)).collect();
        let slots = changed.iter().filter_map(|number| self.backends.get(*number)).flat_map(|page| page.iter());
        let mut known: HashMap<BackendId, Arc<Slot>> =
            slots.flatten().map(|slot| (slot.backend.id.clone(), slot.clone())).collect();
        let former = std::mem::take(&mut self.backends);
        self.backends = Vec::with_capacity(pages.len());
        for (number, page) in pages.iter().enumerate() {
            let kept = former.get(number).filter(|_| !changed.contains(&number)).cloned();
            let next = kept.unwrap_or_else(|| {
                let mut slot = |backend: &Arc<Backend>| self.slot(plan, backend, known.remove(&backend.id));
                Arc::new(std::array::from_fn(|at| page[at].as_ref().map(&mut slot)))
            });
            self.backends.push(next);
        }
        known.values().for_each(|gone| retire(gone.servers(), &[]));
        self.planned = pages.to_vec();
    }

    fn slot(&self, plan: &ProxyPlan, backend: &Arc<Backend>, known: Option<Arc<Slot>>) -> Arc<Slot> {
        if let Some(known) = &known
            && Arc::ptr_eq(&known.backend, backend)
        {
            return known.clone();
        }
        let slot = Slot::new(backend.clone());
        if let Some(known) = known.as_ref().and_then(|known| known.state.get()) {
            let state = self.maker.backend(plan, backend, Some(known));
            retire(&known.servers, &state.servers);
            let _ = slot.state.set(Box::new(state));
        }
        Arc::new(slot)
    }
}

/// Makes states, for whoever needs one first.
#[derive(Debug)]
struct Maker {
    epoch: Instant,
    next_uid: AtomicU64,
}

impl Maker {
    fn backend(&self, plan: &ProxyPlan, backend: &Arc<Backend>, known: Option<&BackendState>) -> BackendState {
        let same_scheme = known.filter(|known| known.backend.scheme == backend.scheme);
        let servers = same_scheme.map(|known| known.servers.as_slice()).unwrap_or_default();
        let servers = self.servers(plan, Owner::Backend(backend.scheme), &backend.servers, servers);
        let shared = known.map(|known| known.shared.clone()).unwrap_or_default();
        BackendState { backend: backend.clone(), servers, shared }
    }

    /// The servers with their states, those of `known` as they were.
    fn servers(
        &self,
        plan: &ProxyPlan,
        owner: Owner,
        servers: &[Server],
        known: &[Arc<ServerState>],
    ) -> Vec<Arc<ServerState>> {
        let mut states: Vec<Arc<ServerState>> = Vec::with_capacity(servers.len());
        let known: HashMap<(&str, &ServerAddress), &Arc<ServerState>> =
            known.iter().map(|state| ((&*state.id, &state.at), state)).collect();
        for server in servers {
            let twin = known.get(&(&*server.id, &server.at)).map(|state| (*state).clone());
            states.push(twin.unwrap_or_else(|| self.server(plan, owner, server)));
        }
        states
    }

    fn server(&self, plan: &ProxyPlan, owner: Owner, server: &Server) -> Arc<ServerState> {
        Arc::new(ServerState {
            uid: self.next_uid.fetch_add(1, Relaxed),
            id: server.id.clone(),
            at: server.at.clone(),
            scheme: owner.scheme(),
            health: Health::new(self.epoch),
            forbidden: plan.forbidden.clone(),
            prefers_v4: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        })
    }
}

/// No plan names those any more that are not among `stay`.
fn retire(servers: &[Arc<ServerState>], stay: &[Arc<ServerState>]) {
    let stay: HashSet<u64> = stay.iter().map(|server| server.uid).collect();
    for gone in servers.iter().filter(|server| !stay.contains(&server.uid)) {
        gone.retired.store(true, Relaxed);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use dualgate_core::model::ObjectName;

    /// A server with this name.
    pub fn server(id: &str) -> Arc<ServerState> {
        backend_of(&Registry::new(Instant::now()).compile(plan_of(&[id]))).servers[0].clone()
    }

    fn plan_of(servers: &[&str]) -> Arc<ProxyPlan> {
        let servers = servers
            .iter()
            .enumerate()
            .map(|(number, id)| Server {
                id: (*id).into(),
                at: ServerAddress::Sockets(SocketAddr::from(([10, 0, 0, number as u8], 80)).into()),
            })
            .collect();
        let backend = Backend {
            id: BackendId { service: ObjectName::new("apps", "a"), port: 80 },
            scheme: Scheme::Http,
            pass_host: true,
            servers,
        };
        Arc::new(ProxyPlan { backends: [Arc::new(backend)].into_iter().collect(), ..ProxyPlan::default() })
    }

    fn backend_of(runtime: &Runtime) -> &BackendState {
        runtime.backend(BackendIndex(0)).unwrap()
    }

    #[test]
    fn turns_go_round_all_servers_and_go_on_across_plans() {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        let picked = |runtime: &Runtime| backend_of(runtime).pick(now, &[]).unwrap().id.to_string();
        let first = registry.compile(plan_of(&["a", "b", "c"]));
        assert_eq!([picked(&first), picked(&first)], ["a", "b"]);
        let second = registry.compile(plan_of(&["a", "b", "c"]));
        assert_eq!([picked(&second), picked(&second)], ["c", "a"]);
    }

    #[test]
    fn a_backend_has_a_state_as_soon_as_a_request_went_there_and_then_keeps_it() {
        let mut registry = Registry::new(Instant::now());
        let plan = plan_of(&["a"]);
        let first = registry.compile(plan.clone());
        assert_eq!(first.backends().count(), 0);
        let second = registry.compile(plan_of(&["a"]));
        backend_of(&second).servers[0].health.failed(Instant::now());
        let third = registry.compile(plan_of(&["a", "b"]));
        let states: Vec<_> = third.backends().map(|state| &state.servers[0].uid).collect();
        assert_eq!(states, [&backend_of(&second).servers[0].uid]);
    }

    #[test]
    fn health_survives_a_plan_and_a_server_that_left_is_retired() {
        let now = Instant::now();
        let mut registry = Registry::new(now);
        let first = registry.compile(plan_of(&["a", "b"]));
        backend_of(&first).servers[0].health.failed(now);
        let second = registry.compile(plan_of(&["a"]));
        assert!(!backend_of(&second).servers[0].health.is_well(now));
        assert!(backend_of(&first).servers[1].is_retired() && !backend_of(&second).servers[0].is_retired());
    }

    #[test]
    fn a_server_that_fails_is_left_out_for_longer_each_time_until_it_answers() {
        let now = Instant::now();
        let health = Health::new(now);
        health.failed(now);
        assert!(!health.is_well(now + Duration::from_millis(900)) && health.is_well(now + Duration::from_millis(1100)));
        health.failed(now);
        assert!(!health.is_well(now + Duration::from_millis(1900)));
        health.succeeded();
        assert!(health.is_well(now));
    }

    #[test]
    fn when_no_server_is_well_one_is_tried_all_the_same_but_none_twice() {
        let now = Instant::now();
        let runtime = Registry::new(now).compile(plan_of(&["a", "b"]));
        let backend = backend_of(&runtime);
        backend.servers.iter().for_each(|server| server.health.failed(now));
        let first = backend.pick(now, &[]).unwrap().uid;
        let second = backend.pick(now, &[first]).unwrap().uid;
        assert_ne!(first, second);
        assert!(backend.pick(now, &[first, second]).is_none());
    }

    /// Name, scheme and servers of a backend.
    type Made = (u8, Scheme, Vec<u8>);

    /// A plan with backends anywhere among the numbers, or with none where there was one.
    fn numbered(former: &ProxyPlan, changes: &[(u32, Option<Made>)]) -> Arc<ProxyPlan> {
        let mut plan = former.clone();
        for (number, backend) in changes {
            let made = backend.as_ref().map(|(name, scheme, servers)| {
                let server = |n: &u8| Server {
                    id: format!("pod{n}").into(),
                    at: ServerAddress::Sockets(SocketAddr::from(([10, 0, 0, *n], 80)).into()),
                };
                let id = BackendId { service: ObjectName::new("apps", format!("s{name}")), port: 80 };
                Arc::new(Backend {
                    id,
                    scheme: *scheme,
                    pass_host: true,
                    servers: servers.iter().map(server).collect(),
                })
            });
            // A plan has each backend once.
            if let Some(made) = &made {
                let twins: Vec<_> =
                    plan.backends.numbered().filter(|(_, other)| other.id == made.id).map(|(index, _)| index).collect();
                twins.into_iter().for_each(|index| plan.backends.set(index, None));
            }
            plan.backends.set(BackendIndex(*number), made);
        }
        Arc::new(plan)
    }

    type Known = std::collections::BTreeMap<(String, String, String), Arc<ServerState>>;

    fn known(runtime: &Runtime) -> Known {
        let of_backend = |state: &BackendState| {
            let name = (state.backend.id.to_string(), format!("{:?}", state.backend.scheme));
            let server =
                |server: &Arc<ServerState>| ((name.0.clone(), name.1.clone(), server.id.to_string()), server.clone());
            state.servers.iter().map(server).collect::<Vec<_>>()
        };
        runtime.backends().flat_map(of_backend).collect()
    }

    #[test]
    fn wherever_a_backend_goes_among_the_numbers_its_servers_stay_the_same_ones() {
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut registry = Registry::new(Instant::now());
        let mut plan = Arc::new(ProxyPlan::default());
        let mut before = Known::new();
        let mut seen = HashSet::default();
        for _ in 0..300 {
            let changes: Vec<_> = (0..random(6))
                .map(|_| {
                    let scheme = if random(5) == 0 { Scheme::Https } else { Scheme::Http };
                    let servers = (0..8).filter(|_| random(2) == 0).collect();
                    let backend = (random(4) > 0).then(|| (random(20) as u8, scheme, servers));
                    (random(3 * plan::PAGE as u64) as u32, backend)
                })
                .collect();
            plan = numbered(&plan, &changes);
            let runtime = registry.compile(plan.clone());
            let kept = known(&runtime);
            for (index, backend) in plan.backends.numbered().filter(|_| random(3) > 0) {
                assert!(Arc::ptr_eq(&runtime.backend(index).unwrap().backend, backend));
            }
            assert!(runtime.backends().count() <= plan.backends.len());
            let now = known(&runtime);
            for (key, server) in &now {
                assert!(!before.contains_key(key) || kept.contains_key(key), "{key:?} was let go of");
                match before.get(key) {
                    Some(known) => assert!(Arc::ptr_eq(known, server), "{key:?}"),
                    None => assert!(seen.insert(server.uid), "{key:?} has the number of another one"),
                }
                assert!(!server.is_retired(), "{key:?}");
            }
            for (key, gone) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
                assert!(gone.is_retired(), "{key:?}");
            }
            before = now;
        }
        assert!(seen.len() > 100, "{}", seen.len());
    }
}
