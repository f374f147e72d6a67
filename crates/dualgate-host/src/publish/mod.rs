//! Writes the public view of zones to where they live: reads what a provider has, compares, and changes what is ours.
//!
//! What is wanted, whose a record is and what has to change is decided in `core::plan::publish`. A [`Provider`] only reads
//! and writes sets of records; who may write at all, and when, is decided by whoever calls [`sync`].

pub mod cloudflare;
mod http;
pub mod ionos;
pub mod publisher;
mod records;
pub mod rfc2136;
mod text;
pub mod webhook;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use dualgate_core::model::site::ProviderAccess;
use dualgate_core::plan::publish::{Change, Diff, Kind, Publication, Set, SetKey, Sets, diff};

use cloudflare::Cloudflare;
use ionos::Ionos;
use rfc2136::Rfc2136;
use webhook::Webhook;

/// So often a zone is read again that somebody else changes meanwhile.
const ROUNDS: usize = 3;

/// Where the records of zones are.
pub trait Provider {
    /// Every set of records there; never a part of them.
    fn records(&self, publication: &Publication) -> impl Future<Output = Result<Sets, Failure>>;

    /// How it would keep a set; `None` if it cannot.
    fn fit(&self, key: &SetKey, set: &Set) -> Option<Set>;

    /// Makes changes in their order.
    fn apply(&self, publication: &Publication, changes: &[Change]) -> impl Future<Output = Result<Applied, Failure>>;
}

/// What became of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All are made.
    All,
    /// The zone was not as it was read: so many were made, the others need another look.
    Outdated(usize),
}

/// Why a provider could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, with the provider's own words; never a secret.
    pub what: String,
    /// What to do.
    pub help: String,
    /// How long the provider wants to be left alone.
    pub after: Option<Duration>,
}

impl Failure {
    /// Of something.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into(), after: None }
    }

    /// The same, while this was done.
    fn during(mut self, what: impl fmt::Display) -> Self {
        self.what = format!("{what}: {}", self.what);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.help)
    }
}

impl std::error::Error for Failure {}

/// A provider of any kind.
#[derive(Debug)]
pub enum Opened {
    /// A name server that takes changes.
    Rfc2136(Rfc2136),
    /// A webhook of external-dns.
    Webhook(Webhook),
    /// IONOS.
    Ionos(Ionos),
    /// Cloudflare.
    Cloudflare(Cloudflare),
}

/// Reads the secrets of a provider; nothing is asked of it yet.
pub fn open(publication: &Publication) -> Result<Opened, Failure> {
    let opened = match &publication.provider.access {
        ProviderAccess::Rfc2136 { server, key, algorithm, secret_file } => {
            Rfc2136::open(*server, key.clone(), *algorithm, secret_file).map(Opened::Rfc2136)
        }
        ProviderAccess::Webhook { url } => Webhook::open(url).map(Opened::Webhook),
        ProviderAccess::Ionos { token_file, url } => {
            Ionos::open(url.as_deref().unwrap_or(ionos::URL), token_file).map(Opened::Ionos)
        }
        ProviderAccess::Cloudflare { token_file, url } => {
            Cloudflare::open(url.as_deref().unwrap_or(cloudflare::URL), token_file).map(Opened::Cloudflare)
        }
    };
    opened.map_err(|failure| failure.during(&publication.name))
}

impl Provider for Opened {
    async fn records(&self, publication: &Publication) -> Result<Sets, Failure> {
        match self {
            Self::Rfc2136(provider) => provider.records(publication).await,
            Self::Webhook(provider) => provider.records(publication).await,
            Self::Ionos(provider) => provider.records(publication).await,
            Self::Cloudflare(provider) => provider.records(publication).await,
        }
    }

    fn fit(&self, key: &SetKey, set: &Set) -> Option<Set> {
        match self {
            Self::Rfc2136(provider) => provider.fit(key, set),
            Self::Webhook(provider) => provider.fit(key, set),
            Self::Ionos(provider) => provider.fit(key, set),
            Self::Cloudflare(provider) => provider.fit(key, set),
        }
    }

    async fn apply(&self, publication: &Publication, changes: &[Change]) -> Result<Applied, Failure> {
        match self {
            Self::Rfc2136(provider) => provider.apply(publication, changes).await,
            Self::Webhook(provider) => provider.apply(publication, changes).await,
            Self::Ionos(provider) => provider.apply(publication, changes).await,
            Self::Cloudflare(provider) => provider.apply(publication, changes).await,
        }
    }
}

/// Whether all sets that are to change are as they were read: what an API does not compare itself is compared just before.
fn is_as_read(sets: &Sets, changes: &[Change]) -> bool {
    let edits = changes.iter().flat_map(|change| std::iter::once(&change.record).chain(&change.marks));
    edits.into_iter().all(|edit| sets.get(&edit.key) == edit.before.as_ref())
}

/// What a provider differs in.
pub async fn look<P: Provider>(provider: &P, publication: &Publication) -> Result<Diff, Failure> {
    let read = provider.records(publication).await;
    let sets =
        read.map_err(|failure| failure.during(format!("{}: read zone `{}`", publication.name, publication.at)))?;
    Ok(diff(publication, &sets, |key, set| provider.fit(key, set)))
}

/// What was done at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The changes that were made.
    pub made: Vec<(Kind, SetKey)>,
    /// What is left: conflicts, and what was kept.
    pub left: Diff,
}

/// Makes a provider say what is wanted.
pub async fn sync<P: Provider>(provider: &P, publication: &Publication) -> Result<Synced, Failure> {
    let mut synced = Synced::default();
    for _ in 0..ROUNDS {
        let mut found = look(provider, publication).await?;
        let changes = std::mem::take(&mut found.changes);
        synced.left = found;
        if changes.is_empty() {
            return Ok(synced);
        }
        let applied = provider.apply(publication, &changes).await;
        let applied = applied
            .map_err(|failure| failure.during(format!("{}: change zone `{}`", publication.name, publication.at)))?;
        let count = match applied {
            Applied::All => changes.len(),
            Applied::Outdated(count) => count,
        };
        let made = changes.iter().take(count).map(|change| (change.kind, change.record.key.clone()));
        synced.made.extend(made);
        if applied == Applied::All {
            return Ok(synced);
        }
    }
    let what = format!("{}: zone `{}` changed {ROUNDS} times while it was written", publication.name, publication.at);
    Err(Failure::new(what, "somebody else writes to it all the time; it is tried again"))
}
