//! The routes of one host, as the table asks them.
//!
//! They are sorted by the shelf that they stand on, by the text that they are looked up by, and by precedence; so that
//! those of one shelf and one text stand side by side, the first in precedence first. A small hash table finds them.

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::model::site::Reading;

use super::precedence::compare;
use super::{PathPattern, Route};

/// The routes of one host. Immutable: plans share those that did not change.
#[derive(Clone, Debug, Default)]
pub(super) struct HostRoutes {
    routes: Box<[Arc<Route>]>,
    /// Where each shelf begins; the end of the last one is the end.
    shelves: [u32; Shelf::ALL.len()],
    /// For those that are looked up: one more than the number of the first route of a shelf and text; 0 is free.
    slots: Box<[u32]>,
    /// The length of the longest text on [`Shelf::Prefix`]: bounds the look-ups of a long path.
    longest_prefix: u32,
    /// The lengths of the texts on [`Shelf::Characters`], the longest first, each once.
    lengths: Box<[u32]>,
    /// The same for [`Shelf::TraefikCharacters`].
    traefik_lengths: Box<[u32]>,
}

/// How a route is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shelf {
    /// By the whole path.
    Exact,
    /// By the path without its trailing slash, element by element.
    Prefix,
    /// Prefixes by character that end inside an element, once for each length.
    Characters,
    /// What cannot be hashed: regular expressions, and what has a priority.
    Irregular,
    /// What no other route of the host matched.
    Rest,
    /// As Traefik reads it, by the whole path.
    TraefikExact,
    /// As Traefik reads it, by character.
    TraefikCharacters,
    /// As Traefik reads it, what cannot be hashed.
    TraefikRegex,
    /// As Traefik reads it, what no other route matched.
    TraefikRest,
}

impl Shelf {
    const ALL: [Self; 9] = [
        Self::Exact,
        Self::Prefix,
        Self::Characters,
        Self::Irregular,
        Self::Rest,
        Self::TraefikExact,
        Self::TraefikCharacters,
        Self::TraefikRegex,
        Self::TraefikRest,
    ];

    fn of(route: &Route) -> (Self, &str) {
        match (route.origin.reading, &route.path) {
            (Reading::Traefik, PathPattern::Exact(path)) => (Self::TraefikExact, path),
            (Reading::Traefik, PathPattern::Characters(path)) => (Self::TraefikCharacters, path),
            // The lowering makes no such prefixes; they match as the specification says, in Traefik's order.
            (Reading::Traefik, PathPattern::Prefix { .. } | PathPattern::Regex(_)) => (Self::TraefikRegex, ""),
            (Reading::Traefik, PathPattern::Rest) => (Self::TraefikRest, ""),
            (Reading::Specification, PathPattern::Rest) => (Self::Rest, ""),
            (Reading::Specification, _) if route.priority.unwrap_or(0) != 0 => (Self::Irregular, ""),
            (Reading::Specification, PathPattern::Exact(path)) => (Self::Exact, path),
            (Reading::Specification, PathPattern::Prefix { written }) => {
                (Self::Prefix, written.strip_suffix('/').unwrap_or(written))
            }
            (Reading::Specification, PathPattern::Characters(path)) => match path.strip_suffix('/') {
                // Up to its slash it can only end where an element ends.
                Some(bare) => (Self::Prefix, bare),
                None => (Self::Characters, path),
            },
            (Reading::Specification, PathPattern::Regex(_)) => (Self::Irregular, ""),
        }
    }

    fn is_hashed(self) -> bool {
        match self {
            Self::Exact | Self::Prefix | Self::Characters | Self::TraefikExact | Self::TraefikCharacters => true,
            Self::Irregular | Self::Rest | Self::TraefikRegex | Self::TraefikRest => false,
        }
    }
}

impl HostRoutes {
    pub(super) fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by(|a, b| Shelf::of(a).cmp(&Shelf::of(b)).then_with(|| compare(a, b)));
        let mut host = Self { routes: routes.into(), ..Self::default() };
        host.shelves = Shelf::ALL.map(|shelf| number(host.routes.partition_point(|route| Shelf::of(route).0 < shelf)));
        host.hash();
        let lengths = |shelf: Shelf| {
            let mut lengths: Vec<u32> = host.on(shelf).map(|at| number(Shelf::of(host.route(at)).1.len())).collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
            lengths
        };
        let longest_prefix = lengths(Shelf::Prefix).first().copied().unwrap_or_default();
        let [lengths, traefik_lengths] =
            [Shelf::Characters, Shelf::TraefikCharacters].map(|shelf| lengths(shelf).into_boxed_slice());
        Self { longest_prefix, lengths, traefik_lengths, ..host }
    }

    fn hash(&mut self) {
        let is_first = |at: u32| {
            let here = Shelf::of(self.route(at));
            here.0.is_hashed() && (at == 0 || Shelf::of(self.route(at - 1)) != here)
        };
        let firsts: Vec<u32> = (0..number(self.routes.len())).filter(|at| is_first(*at)).collect();
        if firsts.is_empty() {
            return;
        }
        let mut slots = vec![0; (firsts.len() * 2).next_power_of_two()].into_boxed_slice();
        for first in firsts {
            let (shelf, text) = Shelf::of(self.route(first));
            let mut slot = slot(shelf, text, slots.len());
            while slots[slot] != 0 {
                slot = (slot + 1) % slots.len();
            }
            slots[slot] = first + 1;
        }
        self.slots = slots;
    }

    /// Every route, by number.
    pub(super) fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    pub(super) fn route(&self, number: u32) -> &Route {
        &self.routes[number as usize]
    }

    pub(super) fn longest_prefix(&self) -> usize {
        self.longest_prefix as usize
    }

    /// The lengths of the texts on a shelf of prefixes by character, the longest first.
    pub(super) fn lengths(&self, reading: Reading) -> &[u32] {
        match reading {
            Reading::Specification => &self.lengths,
            Reading::Traefik => &self.traefik_lengths,
        }
    }

    /// The routes of a shelf, in order of precedence where it is not looked up.
    pub(super) fn on(&self, shelf: Shelf) -> Range<u32> {
        let end = self.shelves.get(shelf as usize + 1).copied();
        self.shelves[shelf as usize]..end.unwrap_or(number(self.routes.len()))
    }

    /// The routes of a shelf that are looked up by `text`, in order of precedence.
    pub(super) fn find<'h>(&'h self, shelf: Shelf, text: &'h str) -> impl Iterator<Item = u32> + use<'h> {
        let first = self.first(shelf, text);
        let further = first.map_or(0..0, |first| first + 1..self.on(shelf).end);
        first.into_iter().chain(further.take_while(move |next| Shelf::of(self.route(*next)).1 == text))
    }

    fn first(&self, shelf: Shelf, text: &str) -> Option<u32> {
        if self.on(shelf).is_empty() {
            return None;
        }
        let mut at = slot(shelf, text, self.slots.len());
        // There are twice as many slots as texts: a free one ends it.
        loop {
            let first = self.slots[at].checked_sub(1)?;
            if Shelf::of(self.route(first)) == (shelf, text) {
                return Some(first);
            }
            at = (at + 1) % self.slots.len();
        }
    }

    /// Whether any route is read as Traefik reads it.
    pub(super) fn has_traefik(&self) -> bool {
        self.shelves[Shelf::TraefikExact as usize] < number(self.routes.len())
    }
}

/// Texts come from the configuration alone, so a fixed seed is safe; and it keeps look-ups repeatable.
fn slot(shelf: Shelf, text: &str, slots: usize) -> usize {
    FixedState::default().hash_one((shelf as u8, text)) as usize % slots
}

/// A host has far fewer routes, and a path far fewer octets: the parser sees to that.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
