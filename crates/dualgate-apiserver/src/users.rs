//! Who asks: by a token that was handed out, or by a certificate that was.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The group of those who may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// Who somebody is, as roles are bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME` for a ServiceAccount.
    pub name: String,
    /// The groups that the user is in.
    pub groups: Vec<String>,
}

/// Everybody who is known.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    tokens: BTreeMap<String, User>,
    /// By their octets: only what this server issued is accepted, so nothing needs to be read in it.
    certificates: BTreeMap<Vec<u8>, User>,
    handed_out: u64,
}

impl User {
    /// A user of these groups, and of all who are known.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        Self { name: name.to_owned(), groups }
    }

    /// One who may do everything.
    pub fn admin() -> Self {
        Self::new("kubernetes-admin", &[MASTERS])
    }

    /// A ServiceAccount, as its pods ask.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        Self::new(&account(namespace, name), &["system:serviceaccounts", &of_namespace])
    }
}

/// What the user of a ServiceAccount is called.
pub(crate) fn account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

impl Users {
    /// A token that nobody had before.
    pub(crate) fn hand_out(&self, user: User) -> String {
        let mut known = self.lock();
        known.handed_out += 1;
        let token = format!("token-{}", known.handed_out);
        known.tokens.insert(token.clone(), user);
        token
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    pub(crate) fn certified(&self, certificate: Vec<u8>, user: User) {
        self.lock().certificates.insert(certificate, user);
    }

    pub(crate) fn of_token(&self, token: &str) -> Option<User> {
        self.lock().tokens.get(token).cloned()
    }

    pub(crate) fn of_certificate(&self, certificate: &[u8]) -> Option<User> {
        self.lock().certificates.get(certificate).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
