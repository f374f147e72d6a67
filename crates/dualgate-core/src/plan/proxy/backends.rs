//! The backends of a plan by number, of which most are those of the plan before.

use std::sync::Arc;

use crate::route::BackendIndex;

use super::Backend;

/// How many stand on one page.
pub const PAGE: usize = 64;

/// Backends by number; some numbers are free. Plans share the pages on which nothing has changed.
#[derive(Clone, Debug, Default)]
pub struct Backends {
    pages: Vec<Arc<Page>>,
}

/// Those of consecutive numbers.
pub type Page = [Option<Arc<Backend>>; PAGE];

fn spot(index: BackendIndex) -> (usize, usize) {
    (index.0 as usize / PAGE, index.0 as usize % PAGE)
}

impl Backends {
    /// The backend of a number.
    pub fn get(&self, index: BackendIndex) -> Option<&Arc<Backend>> {
        let (page, at) = spot(index);
        self.pages.get(page)?[at].as_ref()
    }

    /// Puts a backend there, or takes it away.
    pub fn set(&mut self, index: BackendIndex, backend: Option<Arc<Backend>>) {
        let (page, at) = spot(index);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || Arc::new([const { None }; PAGE]));
        }
        Arc::make_mut(&mut self.pages[page])[at] = backend;
    }

    /// The backends with their numbers, in the order of numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (BackendIndex, &Arc<Backend>)> {
        let all = self.pages.iter().flat_map(|page| page.iter());
        (0..).map(BackendIndex).zip(all).filter_map(|(index, backend)| Some((index, backend.as_ref()?)))
    }

    /// The backends in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.pages.iter().flat_map(|page| page.iter()).flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The pages: what is one and the same as before need not be looked at.
    pub fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// Those for which `keep` holds, with the pages of `before` where they are the same.
    pub(super) fn narrowed(&self, before: &Self, keep: impl Fn(BackendIndex) -> bool) -> Self {
        let narrow = |(number, page): (usize, &Arc<Page>)| {
            let index = |at: usize| BackendIndex(u32::try_from(number * PAGE + at).unwrap_or(u32::MAX));
            let kept = |at: usize| page[at].as_ref().filter(|_| keep(index(at)));
            let same = |other: &Arc<Page>| {
                (0..PAGE).all(|at| match (kept(at), &other[at]) {
                    (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                    (one, other) => one.is_none() && other.is_none(),
                })
            };
            [Some(page), before.pages.get(number)]
                .into_iter()
                .flatten()
                .find(|other| same(other))
                .cloned()
                .unwrap_or_else(|| Arc::new(std::array::from_fn(|at| kept(at).cloned())))
        };
        Self { pages: self.pages.iter().enumerate().map(narrow).collect() }
    }
}

/// Numbered in their order.
impl FromIterator<Arc<Backend>> for Backends {
    fn from_iter<I: IntoIterator<Item = Arc<Backend>>>(all: I) -> Self {
        let mut backends = Self::default();
        (0..).zip(all).for_each(|(number, backend)| backends.set(BackendIndex(number), Some(backend)));
        backends
    }
}
