//! Which upstreams answer: those that keep silent are asked last, and looked at now and then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::dns::Upstream;

/// So many questions in a row without an answer, and an upstream is looked at. It may be there all the same: there are names for
/// which it has no answer.
const SILENCES: u8 = 3;
/// So many without any answer to a question, and it is asked last though it is there: it may be cut off itself, and answer from
/// what it knows alone.
const HOPELESS: u8 = 10;
/// How long it is believed that an upstream writes names in letters of its own.
const LETTERS: Duration = Duration::from_secs(3600);
/// How often an upstream that is away is looked at.
const PROBE: Duration = Duration::from_secs(5);

/// How the upstreams are.
#[derive(Debug, Default)]
pub struct Upstreams(BTreeMap<Arc<Upstream>, Health>);

#[derive(Debug, Default)]
struct Health {
    silences: u8,
    /// When it is looked at.
    probe: Option<Duration>,
    is_away: bool,
    /// Until when it is believed to write names in letters of its own.
    changes_letters: Option<Duration>,
}

impl Upstreams {
    /// These, and what is known of them.
    pub fn are(&mut self, upstreams: impl Iterator<Item = Arc<Upstream>>) {
        let mut former = std::mem::take(&mut self.0);
        self.0 = upstreams.map(|one| (one.clone(), former.remove(&one).unwrap_or_default())).collect();
    }

    /// Whether it counts as away.
    pub fn is_away(&self, upstream: &Arc<Upstream>) -> bool {
        self.0.get(upstream).is_some_and(|health| health.is_away)
    }

    /// Those that are away.
    pub fn away(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter().filter(|(_, health)| health.is_away).map(|(upstream, _)| upstream)
    }

    /// It said something to a question.
    pub fn answered(&mut self, upstream: &Arc<Upstream>) {
        if let Some(health) = self.0.get_mut(upstream) {
            *health = Health { changes_letters: health.changes_letters, ..Health::default() };
        }
    }

    /// It said nothing to a question, or cannot be reached.
    pub fn was_silent(&mut self, upstream: &Arc<Upstream>, now: Duration) {
        if let Some(health) = self.0.get_mut(upstream) {
            health.silences = health.silences.saturating_add(1);
            if health.silences >= SILENCES {
                health.probe.get_or_insert(now);
            }
        }
    }

    /// It was looked at, and spoke.
    pub fn is_there(&mut self, upstream: &Arc<Upstream>, now: Duration) {
        if let Some(health) = self.0.get_mut(upstream) {
            health.is_away = health.silences >= HOPELESS;
            health.probe = health.is_away.then_some(now + PROBE);
            if health.is_away {
                // The next time it is asked again, to see.
                health.silences = SILENCES;
            }
        }
    }

    /// It was looked at, and said nothing; unless it has answered a question meanwhile.
    pub fn is_not_there(&mut self, upstream: &Arc<Upstream>) {
        if let Some(health) = self.0.get_mut(upstream).filter(|health| health.probe.is_some()) {
            health.is_away = true;
        }
    }

    /// It writes names in letters of its own, and there is no other way to know that it is the one who answers.
    pub fn changes_letters(&mut self, upstream: &Arc<Upstream>, now: Duration) {
        self.0.get_mut(upstream).into_iter().for_each(|health| health.changes_letters = Some(now + LETTERS));
    }

    /// Whether names are to come back in the letters in which they were sent.
    pub fn keeps_letters(&self, upstream: &Arc<Upstream>, now: Duration) -> bool {
        self.0.get(upstream).and_then(|health| health.changes_letters).is_none_or(|until| until <= now)
    }

    /// When one is to be looked at.
    pub fn due(&self) -> Option<Duration> {
        self.0.values().filter_map(|health| health.probe).min()
    }

    /// Those that are to be looked at now; each once.
    pub fn probes(&mut self, now: Duration) -> Vec<Arc<Upstream>> {
        let due = self.0.iter_mut().filter(|(_, health)| health.probe.is_some_and(|probe| probe <= now));
        let probed = due.map(|(upstream, health)| {
            health.probe = Some(now + PROBE);
            upstream.clone()
        });
        probed.collect()
    }
}
