//! The table itself.
//!
//! A look-up asks at most three hosts: the precise one, the wildcard above it, and "any host". When no path of
//! a more specific host matches, the next is asked. Each host keeps its exact paths and its prefixes under
//! a hash, and prefixes are looked up once per path element, the longest first; prefixes by character once per
//! length that any of them has. What cannot be hashed is in a short ordered list of its host: regular
//! expressions and, by the specification, routes with a priority.

#[expect(clippy::disallowed_types, reason = "only asked, never iterated but to sort each list for itself")]
use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::model::HostPattern;
use crate::model::site::Reading;

use super::precedence::{Lost, Precedence, compare};
use super::{EntryPointIndex, PathPattern, Route, RouteIndex};

/// Which route serves a request. Immutable.
#[derive(Clone, Debug, Default)]
pub struct Table {
    routes: Vec<Route>,
    precise: Map<HostRoutes>,
    wildcard: Map<HostRoutes>,
    any: HostRoutes,
    /// Whether any route is read as Traefik reads it; without one nobody looks for them.
    has_traefik: bool,
}

/// Keys come from the configuration alone, so a fixed seed is safe; and it keeps look-ups repeatable.
#[expect(clippy::disallowed_types, reason = "only asked, never iterated but to sort each list for itself")]
type Map<T> = HashMap<Box<str>, T, FixedState>;

/// One route that was considered for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The route.
    pub route: RouteIndex,
    /// Why it does not serve the request; `None` for the one that does.
    pub lost: Option<Lost>,
}

impl Table {
    /// From routes in any order; their position is their `RouteIndex`.
    pub fn new(routes: Vec<Route>) -> Self {
        let mut table = Self { has_traefik: routes.iter().any(|r| r.reading == Reading::Traefik), ..Self::default() };
        for (number, route) in (0..).zip(&routes) {
            let host = match &route.host {
                HostPattern::Exact(host) => table.precise.entry(host.as_str().into()).or_default(),
                HostPattern::Wildcard(suffix) => table.wildcard.entry(suffix.as_str().into()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            host.add(RouteIndex(number), route);
        }
        let hosts = table.precise.values_mut().chain(table.wildcard.values_mut()).chain([&mut table.any]);
        hosts.for_each(|host| host.sort(&routes));
        table.routes = routes;
        table
    }

    /// Every route, by `RouteIndex`.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route of this number; a number from another table panics.
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[index.0 as usize]
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
        let specified = hosts.iter().flatten().find_map(|host| search.specified(host));
        let traefik = if self.has_traefik { search.traefik(&hosts) } else { None };
        (search.better(specified, traefik), search.steps)
    }

    /// For people: every route that matches the request, the winner first, then those that nearly match: on the
    /// same host with another path, at another entry point, or on a neighbouring host.
    pub fn candidates(&self, entry_point: EntryPointIndex, host: &str, path: &str) -> Vec<Candidate> {
        let winner = self.find(entry_point, host, path);
        let mut found: Vec<Candidate> = (0..)
            .map(RouteIndex)
            .zip(&self.routes)
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

/// A wildcard that covers too few or too many labels, or the host of a wildcard's suffix.
fn is_neighbour(pattern: &HostPattern, host: &str) -> bool {
    let below = |suffix: &str| host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    match pattern {
        HostPattern::Wildcard(suffix) => below(suffix.as_str()),
        HostPattern::Exact(exact) => below(exact.as_str()),
        HostPattern::Any => false,
    }
}

/// The routes of one host. Every list is in order of precedence.
#[derive(Clone, Debug, Default)]
struct HostRoutes {
    /// By the whole path.
    exact: Map<Vec<RouteIndex>>,
    /// By the path without its trailing slash.
    prefix: Map<Vec<RouteIndex>>,
    /// The length of the longest key of `prefix`: bounds the look-ups of a long path.
    longest_prefix: usize,
    /// Prefixes by character that end inside an element.
    characters: Characters,
    /// What cannot be hashed.
    irregular: Vec<RouteIndex>,
    /// What no other route of the host matched.
    rest: Vec<RouteIndex>,
    /// What is read as Traefik reads it, in Traefik's order.
    traefik: Option<Box<TraefikRoutes>>,
}

/// The routes of one host that are read as Traefik reads them. Any of the lists may hold the winner.
#[derive(Clone, Debug, Default)]
struct TraefikRoutes {
    exact: Map<Vec<RouteIndex>>,
    characters: Characters,
    regex: Vec<RouteIndex>,
    rest: Vec<RouteIndex>,
}

/// Prefixes by character.
#[derive(Clone, Debug, Default)]
struct Characters {
    lists: Map<Vec<RouteIndex>>,
    /// The lengths of the keys, the longest first, each once.
    lengths: Vec<usize>,
}

impl HostRoutes {
    fn add(&mut self, index: RouteIndex, route: &Route) {
        if route.reading == Reading::Traefik {
            return self.traefik.get_or_insert_default().add(index, route);
        }
        match &route.path {
            PathPattern::Rest => self.rest.push(index),
            _ if route.priority.unwrap_or(0) != 0 => self.irregular.push(index),
            PathPattern::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(index),
            PathPattern::Prefix { written } => self.add_prefix(written.strip_suffix('/').unwrap_or(written), index),
            PathPattern::Characters(path) => match path.strip_suffix('/') {
                // Up to its slash it can only end where an element ends.
                Some(bare) => self.add_prefix(bare, index),
                None => self.characters.add(path, index),
            },
            PathPattern::Regex(_) => self.irregular.push(index),
        }
    }

    fn add_prefix(&mut self, key: &str, index: RouteIndex) {
        self.longest_prefix = self.longest_prefix.max(key.len());
        self.prefix.entry(key.into()).or_default().push(index);
    }

    fn sort(&mut self, routes: &[Route]) {
        let hashed = self.exact.values_mut().chain(self.prefix.values_mut()).chain(self.characters.sorted());
        hashed.chain([&mut self.irregular, &mut self.rest]).for_each(|list| sort(list, routes));
        if let Some(traefik) = &mut self.traefik {
            let hashed = traefik.exact.values_mut().chain(traefik.characters.sorted());
            hashed.chain([&mut traefik.regex, &mut traefik.rest]).for_each(|list| sort(list, routes));
        }
    }
}

impl TraefikRoutes {
    fn add(&mut self, index: RouteIndex, route: &Route) {
        match &route.path {
            PathPattern::Exact(path) => self.exact.entry(path.as_str().into()).or_default().push(index),
            PathPattern::Characters(path) => self.characters.add(path, index),
            // The lowering makes none; they match as the specification says, in Traefik's order.
            PathPattern::Prefix { .. } | PathPattern::Regex(_) => self.regex.push(index),
            PathPattern::Rest => self.rest.push(index),
        }
    }
}

impl Characters {
    fn add(&mut self, key: &str, index: RouteIndex) {
        if let Err(place) = self.lengths.binary_search_by(|length| key.len().cmp(length)) {
            self.lengths.insert(place, key.len());
        }
        self.lists.entry(key.into()).or_default().push(index);
    }

    fn sorted(&mut self) -> impl Iterator<Item = &mut Vec<RouteIndex>> {
        self.lists.values_mut()
    }
}

fn sort(list: &mut Vec<RouteIndex>, routes: &[Route]) {
    list.sort_by(|a, b| compare(&routes[a.0 as usize], &routes[b.0 as usize]));
    list.shrink_to_fit();
}

/// One look-up.
struct Search<'t> {
    table: &'t Table,
    entry_point: EntryPointIndex,
    path: &'t str,
    steps: usize,
}

impl<'t> Search<'t> {
    /// The hosts to ask, the most specific first.
    fn hosts(&mut self, host: &str) -> [Option<&'t HostRoutes>; 3] {
        self.steps += 3;
        let suffix = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, suffix)| suffix);
        [self.table.precise.get(host), suffix.and_then(|suffix| self.table.wildcard.get(suffix)), Some(&self.table.any)]
    }

    /// The winner of a host by the specification.
    fn specified(&mut self, host: &'t HostRoutes) -> Option<RouteIndex> {
        let hashed = self.exact(&host.exact).or_else(|| {
            let (prefix, characters) = (self.prefix(host), self.longest_characters(&host.characters));
            self.better(prefix, characters)
        });
        self.irregular(host, hashed).or(hashed).or_else(|| self.first(&host.rest))
    }

    fn exact(&mut self, exact: &'t Map<Vec<RouteIndex>>) -> Option<RouteIndex> {
        self.steps += 1;
        exact.get(self.path).and_then(|list| self.first(list))
    }

    fn longest_characters(&mut self, characters: &'t Characters) -> Option<RouteIndex> {
        characters.lengths.iter().find_map(|length| self.of_length(characters, *length))
    }

    fn of_length(&mut self, characters: &'t Characters, length: usize) -> Option<RouteIndex> {
        self.steps += 1;
        characters.lists.get(self.path.get(..length)?).and_then(|list| self.first(list))
    }

    fn better(&self, a: Option<RouteIndex>, b: Option<RouteIndex>) -> Option<RouteIndex> {
        match (a, b) {
            (Some(a), Some(b)) if compare(self.table.route(b), self.table.route(a)).is_lt() => Some(b),
            (a, b) => a.or(b),
        }
    }

    /// Asks for the whole path, then for it up to each of its slashes from the last to the first.
    fn prefix(&mut self, host: &'t HostRoutes) -> Option<RouteIndex> {
        let mut end = self.path.len();
        if end > host.longest_prefix {
            // No key is longer; the first cut that can match is at or before this octet.
            let bytes = &self.path.as_bytes()[..=host.longest_prefix];
            end = bytes.iter().rposition(|byte| *byte == b'/')?;
        }
        loop {
            self.steps += 1;
            if let Some(found) = host.prefix.get(&self.path[..end]).and_then(|list| self.first(list)) {
                return Some(found);
            }
            end = self.path.as_bytes()[..end].iter().rposition(|byte| *byte == b'/')?;
        }
    }

    /// The first irregular route that goes before `regular`.
    fn irregular(&mut self, host: &'t HostRoutes, regular: Option<RouteIndex>) -> Option<RouteIndex> {
        for index in &host.irregular {
            self.steps += 1;
            let route = self.table.route(*index);
            if regular.is_some_and(|regular| compare(self.table.route(regular), route).is_lt()) {
                return None;
            }
            if self.serves(route) {
                return Some(*index);
            }
        }
        None
    }

    /// The winner of all hosts as Traefik counts: any host and any list may hold it.
    fn traefik(&mut self, hosts: &[Option<&'t HostRoutes>; 3]) -> Option<RouteIndex> {
        let mut best = None;
        for routes in hosts.iter().flatten().filter_map(|host| host.traefik.as_deref()) {
            let exact = self.exact(&routes.exact);
            best = self.better(best, exact);
            for length in &routes.characters.lengths {
                let characters = self.of_length(&routes.characters, *length);
                best = self.better(best, characters);
            }
            for list in [&routes.regex, &routes.rest] {
                let first = self.first(list);
                best = self.better(best, first);
            }
        }
        best
    }

    /// The first of a list that serves the request.
    fn first(&mut self, list: &'t [RouteIndex]) -> Option<RouteIndex> {
        for index in list {
            self.steps += 1;
            if self.serves(self.table.route(*index)) {
                return Some(*index);
            }
        }
        None
    }

    fn serves(&self, route: &Route) -> bool {
        route.entry_points.contains(self.entry_point) && route.path.matches(self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ObjectName;
    use crate::route::{Action, BackendIndex, EntryPointSet, PathRegex, RouteOrigin, RoutePart};

    const HERE: EntryPointIndex = EntryPointIndex(0);
    const THERE: EntryPointIndex = EntryPointIndex(1);

    fn route(host: &str, path: PathPattern) -> Route {
        Route {
            host: host.parse().unwrap(),
            path,
            entry_points: [HERE].into_iter().collect(),
            reading: Reading::Specification,
            priority: None,
            origin: RouteOrigin {
                created: None,
                ingress: ObjectName::new("default", "test"),
                part: RoutePart::Path { rule: 0, path: 0 },
                service: String::new(),
                port: None,
            },
            action: Action::Forward(BackendIndex(0)),
        }
    }

    fn prefix(path: &str) -> PathPattern {
        PathPattern::Prefix { written: path.to_owned() }
    }

    fn exact(path: &str) -> PathPattern {
        PathPattern::Exact(path.to_owned())
    }

    fn characters(path: &str) -> PathPattern {
        PathPattern::Characters(path.to_owned())
    }

    /// The best matching route of each reading, then the better of the two by the specification.
    fn naive(routes: &[Route], entry_point: EntryPointIndex, host: &str, path: &str) -> Option<RouteIndex> {
        let best = |reading: Reading| {
            let all = (0..).map(RouteIndex).zip(routes);
            let matching = all.filter(|(_, route)| {
                route.reading == reading
                    && route.entry_points.contains(entry_point)
                    && route.host.matches(host)
                    && route.path.matches(path)
            });
            matching.min_by(|(_, a), (_, b)| compare(a, b))
        };
        let winners = [best(Reading::Specification), best(Reading::Traefik)];
        winners
            .into_iter()
            .flatten()
            .min_by(|(_, a), (_, b)| Precedence::of(a).cmp(&Precedence::of(b)))
            .map(|(index, _)| index)
    }

    fn any_path() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab]{0,2}", 0..4).prop_map(|elements| format!("/{}", elements.join("/")))
    }

    fn any_pattern() -> impl Strategy<Value = PathPattern> {
        prop_oneof![
            2 => any_path().prop_map(PathPattern::Exact),
            4 => any_path().prop_map(|written| PathPattern::Prefix { written }),
            2 => any_path().prop_map(PathPattern::Characters),
            1 => Just(characters("")),
            1 => "(\\^/)?[ab]{1,2}".prop_map(|source| PathPattern::Regex(PathRegex::new(&source).unwrap())),
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
            route.reading = reading;
            route.priority = priority;
            route.origin.created = created;
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
            // The same rule twice in one Ingress: only the numbers differ, and either answer is right.
            let mut routes = routes;
            for (number, route) in (0..).zip(&mut routes) {
                if let RoutePart::Path { path, .. } = &mut route.origin.part { *path = number; }
            }
            let table = Table::new(routes.clone());
            let found = table.find(entry_point, host, &path);
            prop_assert_eq!(found, naive(&routes, entry_point, host, &path));
            let winners: Vec<_> = table.candidates(entry_point, host, &path).into_iter().filter(|c| c.lost.is_none()).collect();
            prop_assert_eq!(winners.iter().map(|c| c.route).collect::<Vec<_>>(), found.into_iter().collect::<Vec<_>>());
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
            routes.extend(traefik.map(|path| Route { reading: Reading::Traefik, ..route("two.example.org", path) }));
            let table = Table::new(routes);
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
        let table = Table::new(vec![route("h.example.org", prefix("/a/b"))]);
        let (found, steps) = table.find_counted(HERE, "h.example.org", &"/a".repeat(10_000));
        assert_eq!(found, None);
        assert!(steps < 12, "{steps} steps");
    }

    #[test]
    fn the_longer_spelling_of_a_prefix_goes_first_also_without_its_slash() {
        let table = Table::new(vec![route("h.example.org", prefix("/foo")), route("h.example.org", prefix("/foo/"))]);
        for path in ["/foo", "/foo/", "/foo/bar"] {
            assert_eq!(table.find(HERE, "h.example.org", path), Some(RouteIndex(1)), "{path}");
        }
    }

    #[test]
    fn a_more_specific_host_without_a_matching_path_hands_over_to_the_next() {
        let table = Table::new(vec![
            route("a.example.org", prefix("/only")),
            route("*.example.org", prefix("/wild")),
            route("", prefix("/")),
        ]);
        let ask = |path: &str| table.find(HERE, "a.example.org", path);
        assert_eq!(
            [ask("/only"), ask("/wild"), ask("/other")],
            [Some(RouteIndex(0)), Some(RouteIndex(1)), Some(RouteIndex(2))]
        );
    }

    #[test]
    fn traefiks_routes_keep_traefiks_order_across_hosts() {
        let mut routes = vec![route("a.example.org", characters("/")), route("*.example.org", characters("/api"))];
        routes.iter_mut().for_each(|route| route.reading = Reading::Traefik);
        assert_eq!(Table::new(routes.clone()).find(HERE, "a.example.org", "/api"), Some(RouteIndex(1)));
        routes.iter_mut().for_each(|route| route.reading = Reading::Specification);
        assert_eq!(Table::new(routes).find(HERE, "a.example.org", "/api"), Some(RouteIndex(0)));
    }

    #[test]
    fn losers_say_why() {
        let mut elsewhere = route("a.example.org", prefix("/foo"));
        elsewhere.entry_points = EntryPointSet::default().with(THERE);
        let table = Table::new(vec![
            route("", PathPattern::Rest),
            route("*.example.org", prefix("/")),
            route("a.example.org", prefix("/foo")),
            route("a.example.org", exact("/foo")),
            route("a.example.org", prefix("/bar")),
            elsewhere,
            route("example.org", prefix("/")),
        ]);
        let found: Vec<_> =
            table.candidates(HERE, "a.example.org", "/foo").iter().map(|c| (c.route.0, c.lost)).collect();
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
