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

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use dualgate_core::model::site::ProviderAccess;
use dualgate_core::plan::publish::{Change, Diff, Kind, Publication, Set, SetKey, Sets, diff};

use cloudflare::Cloudflare;
use ionos::Ionos;
use rfc2136::Rfc2136;
use webhook::Webhook;

/// So often in a row a zone is read again that somebody else changes meanwhile.
const ROUNDS: usize = 3;
/// And so often in all.
const LOOKS: usize = 100;
/// So many changes that are refused one by one, and none that is made, and it is not for what they say.
const REFUSALS: usize = 32;

/// Where the records of zones are.
pub trait Provider {
    /// What is there.
    fn read(&self, publication: &Publication) -> impl Future<Output = Result<There, Failure>>;

    /// Makes changes in their order. Of those that it fails to make, none is half made but for its mark.
    fn apply(&self, publication: &Publication, changes: &[Change]) -> impl Future<Output = Result<Applied, Failure>>;
}

/// A zone at its provider.
pub struct There {
    /// Every set of records; never a part of them.
    pub sets: Sets,
    /// How the provider would keep a set.
    pub fit: Fit,
}

/// How a set would be kept; `None` if it cannot.
pub type Fit = Box<dyn Fn(&SetKey, &Set) -> Option<Set>>;

/// What became of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// All are made.
    All,
    /// The first so many are made, and something is not as it was read: the others need another look.
    Part(usize),
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
    /// Whether the provider does not want what was asked: others may be welcome all the same.
    pub is_refusal: bool,
}

impl Failure {
    /// Of something.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), help: help.into(), after: None, is_refusal: false }
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
    async fn read(&self, publication: &Publication) -> Result<There, Failure> {
        match self {
            Self::Rfc2136(provider) => provider.read(publication).await,
            Self::Webhook(provider) => provider.read(publication).await,
            Self::Ionos(provider) => provider.read(publication).await,
            Self::Cloudflare(provider) => provider.read(publication).await,
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
    let read = provider.read(publication).await;
    let there = read.map_err(|failure| {
        let failure = failure.during(format!("{}: read zone `{}`", publication.name, publication.at));
        // It is not about a record.
        Failure { is_refusal: false, ..failure }
    })?;
    Ok(diff(publication, &there.sets, there.fit))
}

/// What was done at a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The changes that were made.
    pub made: Vec<(Kind, SetKey)>,
    /// What the provider does not take, and what it says.
    pub refused: BTreeMap<SetKey, Failure>,
    /// What is left: conflicts, and what was kept.
    pub left: Diff,
}

/// Makes a provider say what is wanted. What it refuses is found by halves, and keeps nothing else from being written.
pub async fn sync<P: Provider>(provider: &P, publication: &Publication) -> Result<Synced, Failure> {
    let mut synced = Synced::default();
    let (mut looks, mut rounds, mut fewest) = (0, 0, usize::MAX);
    while looks < LOOKS && rounds < ROUNDS {
        let mut found = look(provider, publication).await?;
        let mut changes = std::mem::take(&mut found.changes);
        changes.retain(|change| !synced.refused.contains_key(&change.record.key));
        synced.left = found;
        let before = synced.made.len() + synced.refused.len();
        let is_nearer = changes.len() < fewest;
        fewest = fewest.min(changes.len());
        if changes.is_empty() || change(provider, publication, &changes, &mut synced).await? == Done::All {
            return Ok(synced);
        }
        looks += 1;
        let is_nearer = is_nearer || synced.made.len() + synced.refused.len() > before;
        rounds = if is_nearer { 0 } else { rounds + 1 };
    }
    let what = format!("{}: zone `{}` changed {ROUNDS} times while it was written", publication.name, publication.at);
    Err(Failure::new(what, "somebody else writes to it all the time; it is tried again"))
}

/// How far changes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// Each is made, or refused.
    All,
    /// Some need another look.
    Part,
}

async fn change<P: Provider>(
    provider: &P,
    publication: &Publication,
    changes: &[Change],
    synced: &mut Synced,
) -> Result<Done, Failure> {
    let mut by_name = changes.to_vec();
    by_name.sort_by(|one, other| one.record.key.name.cmp(&other.record.key.name));
    let mut left = vec![changes];
    while let Some(part) = left.pop() {
        let count = match provider.apply(publication, part).await {
            Ok(Applied::All) => part.len(),
            Ok(Applied::Part(count)) => count,
            Err(failure) => {
                let whole = if part.len() == by_name.len() { &by_name } else { part };
                if failure.is_refusal
                    && let Some((first, second)) = halves(whole)
                {
                    left.extend([second, first]);
                    continue;
                }
                let what = format!("{}: change zone `{}`", publication.name, publication.at);
                let refused = synced.refused.len() + part.len();
                let is_all = synced.made.is_empty() && (refused >= REFUSALS || refused == changes.len());
                if !failure.is_refusal || is_all {
                    return Err(failure.during(what));
                }
                synced.refused.extend(part.iter().map(|change| (change.record.key.clone(), failure.clone())));
                continue;
            }
        };
        synced.made.extend(part.iter().take(count).map(|change| (change.kind, change.record.key.clone())));
        if count < part.len() {
            return Ok(Done::Part);
        }
    }
    Ok(Done::All)
}

/// Two parts of changes that are in the order of names. Those of one name stay together: what goes there may make room for
/// what comes.
fn halves(changes: &[Change]) -> Option<(&[Change], &[Change])> {
    let is_cut = |at: &usize| changes[at - 1].record.key.name != changes[*at].record.key.name;
    let at = (1..changes.len()).filter(is_cut).min_by_key(|at| at.abs_diff(changes.len() / 2))?;
    Some(changes.split_at(at))
}

#[cfg(test)]
mod tests {
    use dualgate_core::plan::publish::Edit;
    use dualgate_wire::dns::RecordType;

    use super::*;

    #[test]
    fn what_is_of_one_name_is_not_parted() {
        let change = |name: &str| {
            let key = SetKey::new(format!("{name}.example.org").parse().unwrap(), RecordType::A);
            let record = Edit { key, before: None, after: None };
            Change { kind: Kind::Create, record, marks: Vec::new(), from: "".into() }
        };
        let parts = |names: &[&str]| {
            let changes: Vec<Change> = names.iter().map(|name| change(name)).collect();
            halves(&changes).map(|(first, second)| (first.len(), second.len()))
        };
        assert_eq!(parts(&["a", "b", "c", "d"]), Some((2, 2)));
        assert_eq!(parts(&["a", "b", "b", "b"]), Some((1, 3)));
        assert_eq!(parts(&["a", "a", "a", "b"]), Some((3, 1)));
        assert_eq!((parts(&["a", "a"]), parts(&["a"]), parts(&[])), (None, None, None));
    }
}
