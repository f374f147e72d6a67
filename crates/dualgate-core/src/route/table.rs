//! The table itself.
//!
//! A look-up asks at most three hosts: the precise one, the wildcard above it, and "any host". When no path of
//! a more specific host matches, the next is asked. Each host keeps its exact paths and its prefixes under
//! a hash, and prefixes are looked up once per path element, the longest first; prefixes by character once per
//! length that any of them has. What cannot be hashed is in a short ordered list of its host: regular
//! expressions and, by the specification, routes with a priority.
//!
//! A table is changed by making another one that shares the hosts that did not change.

#[expect(clippy::disallowed_types, reason = "only asked, never iterated")]
use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::site::Reading;
use crate::model::{Host, HostPattern, ObjectName};

use super::host::{HostRoutes, Shelf};
use super::precedence::{Lost, Precedence, compare};
use super::{EntryPointIndex, Route, RouteIndex, RoutePart};

/// Which route serves a request. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The hosts by number; those without routes any more are free.
    hosts: Vec<Arc<HostRoutes>>,
    precise: Arc<Numbers>,
    wildcard: Arc<Numbers>,
    any: Option<u32>,
    free: Vec<u32>,
    routes: usize,
    /// How many hosts have a route that is read as Traefik reads it; without one nobody looks for them.
    traefik: usize,
}

/// Names come from the configuration alone, so a fixed seed is safe; and it keeps look-ups repeatable.
#[expect(clippy::disallowed_types, reason = "only asked, never iterated")]
type Numbers = HashMap<Host, u32, FixedState>;

/// One route that was considered for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The route.
    pub route: RouteIndex,
    /// Why it does not serve the request; `None` for the one that does.
    pub lost: Option<Lost>,
}

impl Table {
    /// From routes in any order.
    pub fn new(routes: impl IntoIterator<Item = Arc<Route>>) -> Self {
        Self::default().with([], routes)
    }

    /// The same without some of its routes, known by host and origin, and with others.
    pub fn with<'a>(
        &self,
        gone: impl IntoIterator<Item = &'a Route>,
        come: impl IntoIterator<Item = Arc<Route>>,
    ) -> Self {
        let mut changes: BTreeMap<HostPattern, Change<'a>> = BTreeMap::new();
        for route in gone {
            let change = changes.entry(route.host.clone()).or_default();
            change.gone.insert((&route.origin.ingress, route.origin.part));
        }
        for route in come {
            match changes.get_mut(&route.host) {
                Some(change) => change.come.push(route),
                None => drop(changes.insert(route.host.clone(), Change { come: vec![route], ..Change::default() })),
            }
        }
        let mut table = self.clone();
        for (host, change) in changes {
            table.change(&host, change);
        }
        table
    }

    fn change(&mut self, host: &HostPattern, change: Change<'_>) {
        let at = self.number(host);
        let mut routes = change.come;
        if let Some(before) = at.map(|at| &self.hosts[at as usize]) {
            let stays = |route: &&Arc<Route>| !change.gone.contains(&(&route.origin.ingress, route.origin.part));
            routes.extend(before.routes().iter().filter(stays).cloned());
            self.routes -= before.routes().len();
            self.traefik -= usize::from(before.has_traefik());
        }
        let after = HostRoutes::new(routes);
        self.routes += after.routes().len();
        self.traefik += usize::from(after.has_traefik());
        match (at, after.routes().is_empty()) {
            (Some(at), false) => self.hosts[at as usize] = Arc::new(after),
            (Some(at), true) => {
                self.hosts[at as usize] = Arc::default();
                self.free.push(at);
                self.set_number(host, None);
            }
            (None, false) => {
                let at = self.free.pop().unwrap_or_else(|| {
                    self.hosts.push(Arc::default());
                    u32::try_from(self.hosts.len() - 1).unwrap_or(u32::MAX)
                });
                self.hosts[at as usize] = Arc::new(after);
                self.set_number(host, Some(at));
            }
            (None, true) => {}
        }
    }

    fn number(&self, host: &HostPattern) -> Option<u32> {
        match host {
            HostPattern::Exact(host) => self.precise.get(host).copied(),
            HostPattern::Wildcard(suffix) => self.wildcard.get(suffix).copied(),
            HostPattern::Any => self.any,
        }
    }

    fn set_number(&mut self, host: &HostPattern, number: Option<u32>) {
        let (numbers, host) = match host {
            HostPattern::Exact(host) => (&mut self.precise, host),
            HostPattern::Wildcard(suffix) => (&mut self.wildcard, suffix),
            HostPattern::Any => return self.any = number,
        };
        let numbers = Arc::make_mut(numbers);
        match number {
            Some(number) => drop(numbers.insert(host.clone(), number)),
            None => drop(numbers.remove(host)),
        }
    }

    /// Every route with its number, host by host, each host's in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = (RouteIndex, &Arc<Route>)> {
        (0..).zip(&self.hosts).flat_map(|(host, routes)| {
            (0..).zip(routes.routes()).map(move |(route, found)| (RouteIndex { host, route }, found))
        })
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.iter().map(|(_, route)| route)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes == 0
    }

    /// The route of this number; a number from another table may panic.
    pub fn route(&self, index: RouteIndex) -> &Route {
        self.hosts[index.host as usize].route(index.route)
    }

    /// The route that serves a request. `host` is lower case, without port and trailing dot; `path` is
    /// canonical, without query. A route that is not served at `entry_point` is as if absent.
    pub fn find(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> Option<RouteIndex> {
        self.find_counted(entry_point, host, path).0
    }

    /// As [`Table::find`], with the number of hash look-ups and list entries that it took.
    pub fn find_counted(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> (Option<RouteIndex>, usize) {
        let mut search = Search { table: self, entry_point, path, steps: 0 };
        let hosts = search.hosts(host);
        let specified = hosts.iter().flatten().find_map(|host| search.specified(*host));
        let traefik = if self.traefik > 0 { search.traefik(&hosts) } else { None };
        (search.better(specified, traefik), search.steps)
    }

    /// For people: every route that matches the request, the winner first, then those that nearly match: on the
    /// same host with another path, at another entry point, or on a neighbouring host.
    pub fn candidates(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> Vec<Candidate> {
        let winner = self.find(entry_point, host, path);
        let mut found: Vec<Candidate> = self
            .iter()
            .filter_map(|(index, route)| {
                let lost = self.verdict(route, index, winner, (entry_point, host, path))?;
                Some(Candidate { route: index, lost })
            })
            .collect();
        found.sort_by(|a, b| {
            let rank = |candidate: &Candidate| match candidate.lost {
                None => 0,
                Some(Lost::OtherEntryPoint) => 2,
                Some(Lost::OtherPath) => 3,
                Some(Lost::OtherHost) => 4,
                Some(_) => 1,
            };
            let order = Precedence::of(self.route(a.route)).cmp(&Precedence::of(self.route(b.route)));
            rank(a).cmp(&rank(b)).then(order).then(a.route.cmp(&b.route))
        });
        found
    }

    /// `None`: not worth a word. `Some(None)`: the winner.
    fn verdict(
        &self,
        route: &Route,
        index: RouteIndex,
        winner: Option<RouteIndex>,
        (entry_point, host, path): (EntryPointIndex, &str, &str),
    ) -> Option<Option<Lost>> {
        let path_matches = route.path.matches(path);
        if !route.host.matches(host) {
            return (path_matches && is_neighbour(&route.host, host)).then_some(Some(Lost::OtherHost));
        }
        if !path_matches {
            return Some(Some(Lost::OtherPath));
        }
        if !route.entry_points.contains(entry_point) {
            return Some(Some(Lost::OtherEntryPoint));
        }
        let winner = winner?;
        Some((index != winner).then(|| Lost::against(route, self.route(winner))))
    }
}

/// What changes at one host.
#[derive(Default)]
struct Change<'a> {
    gone: BTreeSet<(&'a ObjectName, RoutePart)>,
    come: Vec<Arc<Route>>,
}

/// A wildcard that covers too few or too many labels, or the host of a wildcard's suffix.
fn is_neighbour(pattern: &HostPattern, host: &str) -> bool {
    let below = |suffix: &str| host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match pattern {
        HostPattern::Wildcard(suffix) => below(suffix.as_str()),
        HostPattern::Exact(exact) => below(exact.as_str()),
        HostPattern::Any => false,
    }
}

/// A host with its number.
type Asked<'t> = (u32, &'t HostRoutes);

/// One look-up.
struct Search<'t> {
    table: &'t Table,
    entry_point: EntryPointIndex,
    path: &'t str,
    steps: usize,
}

impl<'t> Search<'t> {
    /// The hosts to ask, the most specific first.
    fn hosts(&mut self, host: &str) -> [Option<Asked<'t>>; 3] {
        self.steps += 3;
        let suffix = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, suffix)| suffix);
        let wildcard = suffix.and_then(|suffix| self.table.wildcard.get(suffix));
        [self.table.precise.get(host), wildcard, self.table.any.as_ref()]
            .map(|number| number.map(|number| (*number, &*self.table.hosts[*number as usize])))
    }

    /// The winner of a host by the specification.
    fn specified(&mut self, host: Asked<'t>) -> Option<RouteIndex> {
        let hashed = self.find(host, Shelf::Exact, self.path).or_else(|| {
            let (prefix, characters) = (self.prefix(host), self.by_length(host, Reading::Specification).next(self));
            self.better(prefix, characters)
        });
        self.irregular(host, hashed).or(hashed).or_else(|| self.first(host, Shelf::Rest))
    }

    /// The first route of a shelf that is looked up by `text` and serves the request.
    fn find(&mut self, (number, host): Asked<'t>, shelf: Shelf, text: &'t str) -> Option<RouteIndex> {
        self.steps += 1;
        for route in host.find(shelf, text) {
            self.steps += 1;
            if self.serves(host.route(route)) {
                return Some(RouteIndex { host: number, route });
            }
        }
        None
    }

    fn better(&self, a: Option<RouteIndex>, b: Option<RouteIndex>) -> Option<RouteIndex> {
        match (a, b) {
            (Some(a), Some(b)) if compare(self.table.route(b), self.table.route(a)).is_lt() => Some(b),
            (a, b) => a.or(b),
        }
    }

    /// Asks for the whole path, then for it up to each of its slashes from the last to the first.
    fn prefix(&mut self, host: Asked<'t>) -> Option<RouteIndex> {
        if host.1.on(Shelf::Prefix).is_empty() {
            return None;
        }
        let mut end = self.path.len();
        let longest = host.1.longest_prefix();
        if end > longest {
            // No key is longer; the first cut that can match is at or before this octet.
            let bytes = &self.path.as_bytes()[..=longest];
            end = bytes.iter().rposition(|byte| *byte == b'/')?;
        }
        loop {
            if let Some(found) = self.find(host, Shelf::Prefix, &self.path[..end]) {
                return Some(found);
            }
            end = self.path.as_bytes()[..end].iter().rposition(|byte| *byte == b'/')?;
        }
    }

    /// The winners among prefixes by character, one for each length, the longest first.
    fn by_length(&self, host: Asked<'t>, reading: Reading) -> ByLength<'t> {
        let shelf = match reading {
            Reading::Specification => Shelf::Characters,
            Reading::Traefik => Shelf::TraefikCharacters,
        };
        ByLength { host, shelf, lengths: host.1.lengths(reading).iter() }
    }

    /// The first irregular route that goes before `regular`.
    fn irregular(&mut self, (number, host): Asked<'t>, regular: Option<RouteIndex>) -> Option<RouteIndex> {
        for route in host.on(Shelf::Irregular) {
            self.steps += 1;
            let found = host.route(route);
            if regular.is_some_and(|regular| compare(self.table.route(regular), found).is_lt()) {
                return None;
            }
            if self.serves(found) {
                return Some(RouteIndex { host: number, route });
            }
        }
        None
    }

    /// The winner of all hosts as Traefik counts: any host and any list may hold it.
    fn traefik(&mut self, hosts: &[Option<Asked<'t>>; 3]) -> Option<RouteIndex> {
        let mut best = None;
        for host in hosts.iter().flatten().copied().filter(|(_, host)| host.has_traefik()) {
            let exact = self.find(host, Shelf::TraefikExact, self.path);
            best = self.better(best, exact);
            let mut by_length = self.by_length(host, Reading::Traefik);
            while let Some(characters) = by_length.next(self) {
                best = self.better(best, Some(characters));
            }
            for shelf in [Shelf::TraefikRegex, Shelf::TraefikRest] {
                let first = self.first(host, shelf);
                best = self.better(best, first);
            }
        }
        best
    }

    /// The first route of a shelf that serves the request.
    fn first(&mut self, (number, host): Asked<'t>, shelf: Shelf) -> Option<RouteIndex> {
        for route in host.on(shelf) {
            self.steps += 1;
            if self.serves(host.route(route)) {
                return Some(RouteIndex { host: number, route });
            }
        }
        None
    }

    fn serves(&self, route: &Route) -> bool {
        route.entry_points.contains(self.entry_point) && route.path.matches(self.path)
    }
}

/// Prefixes by character, one length after the other.
struct ByLength<'t> {
    host: Asked<'t>,
    shelf: Shelf,
    lengths: std::slice::Iter<'t, u32>,
}

impl<'t> ByLength<'t> {
    fn next(&mut self, search: &mut Search<'t>) -> Option<RouteIndex> {
        for length in self.lengths.by_ref() {
            if let Some(text) = search.path.get(..*length as usize)
                && let Some(found) = search.find(self.host, self.shelf, text)
            {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Created, Text};
    use crate::route::{Action, BackendIndex, EntryPointSet, PathPattern, PathRegex, RouteOrigin};

    const HERE: EntryPointIndex = EntryPointIndex(0);
    const THERE: EntryPointIndex = EntryPointIndex(1);

    fn read_as(reading: Reading, mut route: Route) -> Route {
        route.origin.reading = reading;
        route
    }

    fn route(host: &str, path: PathPattern) -> Route {
        Route {
            host: host.parse().unwrap(),
            path,
            entry_points: [HERE].into_iter().collect(),
            priority: None,
            origin: RouteOrigin {
                created: Created::UNKNOWN,
                ingress: ObjectName::new("default", "test"),
                part: RoutePart::Path { rule: 0, path: 0 },
                reading: Reading::Specification,
                service: Text::EMPTY,
            },
            action: Action::Forward(BackendIndex(0)),
        }
    }

    fn prefix(path: &str) -> PathPattern {
        PathPattern::Prefix { written: path.into() }
    }

    fn exact(path: &str) -> PathPattern {
        PathPattern::Exact(path.into())
    }

    fn characters(path: &str) -> PathPattern {
        PathPattern::Characters(path.into())
    }

    /// The best matching route of each reading, then the better of the two by the specification.
    fn naive(routes: &[Route], entry_point: EntryPointIndex, host: &str, path: &str) -> Option<u16> {
        let best = |reading: Reading| {
            let matching = routes.iter().filter(|route| {
                route.origin.reading == reading
                    && route.entry_points.contains(entry_point)
                    && route.host.matches(host)
                    && route.path.matches(path)
            });
            matching.min_by(|a, b| compare(a, b))
        };
        let winners = [best(Reading::Specification), best(Reading::Traefik)].into_iter().flatten();
        winners.min_by(|a, b| Precedence::of(a).cmp(&Precedence::of(b))).map(number)
    }

    /// The number that a route has by being one of several.
    fn number(route: &Route) -> u16 {
        match route.origin.part {
            RoutePart::Path { path, .. } => path,
            RoutePart::Rule { .. } | RoutePart::DefaultBackend => 0,
        }
    }

    /// Numbers routes, so that no two are the same rule of one Ingress.
    fn numbered(mut routes: Vec<Route>) -> Vec<Route> {
        for (number, route) in (0..).zip(&mut routes) {
            if let RoutePart::Path { path, .. } = &mut route.origin.part {
                *path = number;
            }
        }
        routes
    }

    fn table(routes: Vec<Route>) -> Table {
        Table::new(numbered(routes).into_iter().map(Arc::new))
    }

    fn found(table: &Table, entry_point: EntryPointIndex, host: &str, path: &str) -> Option<u16> {
        table.find(entry_point, host, path).map(|index| number(table.route(index)))
    }

    fn any_path() -> impl Strategy<Value = Text> {
        prop::collection::vec("[ab]{0,2}", 0..4).prop_map(|elements| format!("/{}", elements.join("/")).into())
    }

    fn any_pattern() -> impl Strategy<Value = PathPattern> {
        prop_oneof![
            2 => any_path().prop_map(PathPattern::Exact),
            4 => any_path().prop_map(|written| PathPattern::Prefix { written }),
            2 => any_path().prop_map(PathPattern::Characters),
            1 => Just(characters("")),
            1 => "(\\^/)?[ab]{1,2}".prop_map(|source| PathPattern::Regex(Box::new(PathRegex::new(&source).unwrap()))),
            1 => Just(PathPattern::Rest),
        ]
    }

    prop_compose! {
        fn any_route()(
            host in prop::sample::select(vec!["", "*.x.y", "a.x.y", "b.x.y", "*.y", "x.y"]),
            path in any_pattern(),
            here in 0..4u8,
            reading in prop::sample::select(vec![Reading::Specification, Reading::Specification, Reading::Traefik]),
            priority in prop::option::weighted(0.2, -2..40i64),
            created in prop::option::of(0..3i64),
            name in "[ab]",
            rule in 0..3u16,
        ) -> Route {
            let mut route = route(host, path);
            route.entry_points = [HERE, THERE].into_iter().filter(|e| here == e.0 || here > 1).collect();
            route.origin.reading = reading;
            route.priority = priority;
            route.origin.created = created.into();
            route.origin.ingress = ObjectName::new("default", name);
            route.origin.part = RoutePart::Path { rule, path: 0 };
            route
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_table_finds_what_a_scan_of_all_routes_finds(
            routes in prop::collection::vec(any_route(), 0..24),
            host in prop::sample::select(vec!["a.x.y", "b.x.y", "c.x.y", "x.y", "z", "", ".x.y", "q.a.x.y"]),
            path in any_path(),
            entry_point in prop::sample::select(vec![HERE, THERE]),
        ) {
            let routes = numbered(routes);
            let table = table(routes.clone());
            let winner = table.find(entry_point, host, &path);
            prop_assert_eq!(found(&table, entry_point, host, &path), naive(&routes, entry_point, host, &path));
            let winners: Vec<_> = table.candidates(entry_point, host, &path).into_iter().filter(|c| c.lost.is_none()).collect();
            prop_assert_eq!(winners.iter().map(|c| c.route).collect::<Vec<_>>(), winner.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(table.len(), routes.len());
        }

        #[test]
        fn a_table_that_was_changed_is_as_one_that_was_made_so(
            routes in prop::collection::vec(any_route(), 0..24),
            steps in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 0..6), prop::collection::vec(any::<prop::sample::Index>(), 0..6)), 0..6),
            hosts in Just(["a.x.y", "b.x.y", "c.x.y", "x.y", "z", ""]),
            path in any_path(),
        ) {
            let routes = numbered(routes);
            prop_assume!(!routes.is_empty());
            let (mut there, mut changed) = (BTreeSet::new(), Table::default());
            for (gone, come) in steps {
                let gone: BTreeSet<usize> = gone.iter().map(|at| at.index(routes.len())).filter(|at| there.contains(at)).collect();
                there.retain(|at| !gone.contains(at));
                let come: BTreeSet<usize> = come.iter().map(|at| at.index(routes.len())).filter(|at| !there.contains(at)).collect();
                there.extend(come.iter().copied());
                changed = changed.with(gone.iter().map(|at| &routes[*at]), come.iter().map(|at| Arc::new(routes[*at].clone())));
                let made = Table::new(there.iter().map(|at| Arc::new(routes[*at].clone())));
                prop_assert_eq!((changed.len(), changed.traefik), (made.len(), made.traefik));
                for host in hosts {
                    for point in [HERE, THERE] {
                        prop_assert_eq!(found(&changed, point, host, &path), found(&made, point, host, &path), "{}", host);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(Table::default().find(HERE, "a.example.org", "/"), None);
    }

    #[test]
    fn steps_do_not_grow_with_the_number_of_routes() {
        let steps = |count: usize| {
            let mut routes: Vec<Route> = (0..count).map(|n| route(&format!("h{n}.example.org"), prefix("/"))).collect();
            routes.extend((0..count).map(|n| route("one.example.org", prefix(&format!("/p{n:05}/x")))));
            routes.extend((0..count).map(|n| route("one.example.org", exact(&format!("/p{n:05}/y")))));
            routes.extend((0..count).map(|n| route("one.example.org", characters(&format!("/c{n:05}")))));
            let traefik = (0..count).flat_map(|n| [characters(&format!("/t{n:05}")), exact(&format!("/t{n:05}"))]);
            routes.extend(traefik.map(|path| read_as(Reading::Traefik, route("two.example.org", path))));
            let table = table(routes);
            let ask = |host: &str, path: &str| {
                let (found, steps) = table.find_counted(HERE, host, path);
                (found.is_some(), steps)
            };
            [
                ask("h7.example.org", "/a/b/c"),
                ask("one.example.org", "/p00003/x/y/z"),
                ask("one.example.org", "/p00003/y"),
                ask("one.example.org", "/c00003/x"),
                ask("one.example.org", "/none/of/these"),
                ask("two.example.org", "/t00003"),
                ask("two.example.org", "/t00003x"),
                ask("unknown.example.org", "/"),
            ]
        };
        assert_eq!(steps(10), steps(10_000));
        assert_eq!(steps(10).map(|(found, _)| found), [true, true, true, true, false, true, true, false]);
    }

    #[test]
    fn a_long_path_costs_no_more_look_ups_than_the_longest_prefix_has_elements() {
        let table = table(vec![route("h.example.org", prefix("/a/b"))]);
        let (found, steps) = table.find_counted(HERE, "h.example.org", &"/a".repeat(10_000));
        assert_eq!(found, None);
        assert!(steps < 12, "{steps} steps");
    }

    #[test]
    fn no_request_makes_ten_thousand_routes_slow() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut routes = Vec::new();
        for n in 0..10_000 {
            let path: String = (0..=random(6)).map(|_| ["/a", "/b", "/aa", "/ab"][random(4)]).collect();
            let pattern = [prefix, exact, characters][random(3)](&path);
            let host = match n % 50 {
                0 => String::new(),
                1..10 => format!("*.h{}.example.org", random(100)),
                _ => format!("h{}.example.org", random(1000)),
            };
            let reading = [Reading::Specification, Reading::Traefik][random(2)];
            routes.push(read_as(reading, route(&host, pattern)));
        }
        let table = table(routes.clone());
        let mut most = 0;
        for _ in 0..20_000 {
            let like = &routes[random(routes.len())];
            let host = match random(4) {
                0 => format!("{}example.org", "a.".repeat(random(120))),
                1 => format!("{}.h{}.example.org", "x".repeat(random(63)), random(100)),
                _ => like.host.to_string().replace('*', "x"),
            };
            let known = like.path.written();
            let path = match random(5) {
                0 => known[..1 + random(known.len())].to_owned(),
                1 => format!("{known}{}", "/a".repeat(random(4000))),
                2 => format!("{known}{}", "/".repeat(random(8000))),
                3 => format!("/{}", "a".repeat(random(8000))),
                _ => (0..random(4000)).map(|_| ["/a", "/b", "/aa", "/ab"][random(4)]).collect(),
            };
            most = most.max(table.find_counted(HERE, &host, &path).1);
        }
        assert!(most < 150, "{most} steps");
    }

    #[test]
    fn the_longer_spelling_of_a_prefix_goes_first_also_without_its_slash() {
        let table = table(vec![route("h.example.org", prefix("/foo")), route("h.example.org", prefix("/foo/"))]);
        for path in ["/foo", "/foo/", "/foo/bar"] {
            assert_eq!(found(&table, HERE, "h.example.org", path), Some(1), "{path}");
        }
    }

    #[test]
    fn a_more_specific_host_without_a_matching_path_hands_over_to_the_next() {
        let table = table(vec![
            route("a.example.org", prefix("/only")),
            route("*.example.org", prefix("/wild")),
            route("", prefix("/")),
        ]);
        let ask = |path: &str| found(&table, HERE, "a.example.org", path);
        assert_eq!([ask("/only"), ask("/wild"), ask("/other")], [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn traefiks_routes_keep_traefiks_order_across_hosts() {
        let mut routes = vec![route("a.example.org", characters("/")), route("*.example.org", characters("/api"))];
        routes.iter_mut().for_each(|route| route.origin.reading = Reading::Traefik);
        assert_eq!(found(&table(routes.clone()), HERE, "a.example.org", "/api"), Some(1));
        routes.iter_mut().for_each(|route| route.origin.reading = Reading::Specification);
        assert_eq!(found(&table(routes), HERE, "a.example.org", "/api"), Some(0));
    }

    #[test]
    fn losers_say_why() {
        let mut elsewhere = route("a.example.org", prefix("/foo"));
        elsewhere.entry_points = EntryPointSet::default().with(THERE);
        let table = table(vec![
            route("", PathPattern::Rest),
            route("*.example.org", prefix("/")),
            route("a.example.org", prefix("/foo")),
            route("a.example.org", exact("/foo")),
            route("a.example.org", prefix("/bar")),
            elsewhere,
            route("example.org", prefix("/")),
        ]);
        let candidates = table.candidates(HERE, "a.example.org", "/foo");
        let found: Vec<_> = candidates.iter().map(|c| (number(table.route(c.route)), c.lost)).collect();
        assert_eq!(
            found,
            [
                (3, None),
                (2, Some(Lost::NotExact)),
                (1, Some(Lost::LessSpecificHost)),
                (0, Some(Lost::LessSpecificHost)),
                (5, Some(Lost::OtherEntryPoint)),
                (4, Some(Lost::OtherPath)),
                (6, Some(Lost::OtherHost)),
            ]
        );
    }
}
