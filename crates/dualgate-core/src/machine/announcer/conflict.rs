//! Who else has an address, and since when it is quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use dualgate_wire::ethernet::Mac;

use super::{Heard, Timing};

/// So many stations are told of for each address; more are somebody's game.
const STATIONS: usize = 8;

/// The other stations of one address.
#[derive(Debug, Default)]
pub(super) struct Conflicts(BTreeMap<Mac, Station>);

#[derive(Debug)]
struct Station {
    heard: Heard,
    heard_at: Duration,
    told_at: Duration,
}

impl Conflicts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that a station was heard. Whether that is to be told.
    pub(super) fn hear(&mut self, mac: Mac, heard: Heard, now: Duration) -> bool {
        if let Some(station) = self.0.get_mut(&mac) {
            (station.heard, station.heard_at) = (heard, now);
            return false;
        }
        let known = self.0.len() < STATIONS;
        if known {
            self.0.insert(mac, Station { heard, heard_at: now, told_at: now });
        }
        known
    }

    /// Forgets who is quiet for long enough. Who is to be told of again, and whether nobody is left of some.
    pub(super) fn look(&mut self, now: Duration, timing: &Timing) -> (Vec<(Mac, Heard)>, bool) {
        let before = self.0.len();
        self.0.retain(|_, station| now < station.heard_at.saturating_add(timing.silence));
        let mut lasting = Vec::new();
        for (mac, station) in &mut self.0 {
            if now >= station.told_at.saturating_add(timing.repeat) {
                station.told_at = now;
                lasting.push((*mac, station.heard));
            }
        }
        (lasting, before > 0 && self.0.is_empty())
    }

    /// Forgets everybody. Whether there was somebody.
    pub(super) fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    /// When to look next.
    pub(super) fn next(&self, timing: &Timing) -> Option<Duration> {
        let due = |station: &Station| {
            let repeat = station.told_at.saturating_add(timing.repeat);
            repeat.min(station.heard_at.saturating_add(timing.silence))
        };
        self.0.values().map(due).min()
    }
}
