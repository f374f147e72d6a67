//! The keys that heartbeats are sealed with: the one in use, and the next one while it changes.

use std::path::Path;

use dualgate_core::model::Finding;

use crate::keys::{Keys, KeysError, Slot};

use super::heartbeat::Seal;
use super::trouble;

/// What lies on disk, as it was looked at last.
#[derive(Debug, Default)]
pub struct Ring {
    current: Option<Seal>,
    next: Option<Seal>,
    trouble: Option<String>,
}

impl Ring {
    /// Looks at the key folder: keys may be made or changed while this runs.
    pub fn look(&mut self, state: &Path) {
        let read = || -> Result<_, KeysError> {
            let keys = Keys::open(state)?;
            Ok((keys.current(&Slot::Heartbeat)?, keys.next(&Slot::Heartbeat)?))
        };
        match read() {
            Ok((current, next)) => {
                self.current = Seal::new(current.secret());
                self.next = next.and_then(|next| Seal::new(next.secret()));
                self.trouble = None;
            }
            Err(error) => {
                (self.current, self.next) = (None, None);
                self.trouble = Some(error.to_string());
            }
        }
    }

    /// Why there is no key.
    pub fn trouble(&self) -> Option<Finding> {
        self.trouble.as_deref().map(trouble::key)
    }

    /// Seals with the key in use.
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current.as_ref()?.seal(plain)
    }

    /// Opens with either key: some members may have changed it already.
    pub fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let opened = |seal: &Seal| seal.open(&mut datagram.to_vec()).map(<[u8]>::to_vec);
        self.current.iter().chain(&self.next).find_map(opened)
    }
}
