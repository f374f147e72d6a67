//! The keys that heartbeats are sealed with: the one in use, and the next one while it changes.

use std::path::Path;

use dualgate_core::model::Finding;

use crate::keys::{Key, Keys, KeysError};

use super::heartbeat::Seal;
use super::trouble;

/// What lies on disk, as it was looked at last.
#[derive(Debug, Default)]
pub struct Ring {
    current: Option<Seal>,
    next: Option<Seal>,
    trouble: Option<Finding>,
}

impl Ring {
    /// The keys as they lie in this state directory. What cannot be read at the moment costs no key that was read before; a
    /// file that is gone does.
    pub fn take(&mut self, current: Result<Key, KeysError>, next: Result<Option<Key>, KeysError>, state: &Path) {
        self.trouble = None;
        match current {
            Ok(key) => self.current = Seal::new(key.secret()),
            Err(error) => {
                if matches!(error, KeysError::Missing(_)) {
                    self.current = None;
                }
                self.trouble = Some(trouble::key(&error, &Keys::heartbeat(state)));
            }
        }
        match next {
            Ok(key) => self.next = key.and_then(|key| Seal::new(key.secret())),
            Err(error) => self.trouble = self.trouble.take().or(Some(trouble::next_key(&error))),
        }
    }

    /// Whether there is a key to speak with.
    pub const fn has_key(&self) -> bool {
        self.current.is_some()
    }

    /// Why there is no key.
    pub fn trouble(&self) -> Option<Finding> {
        self.trouble.clone()
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
