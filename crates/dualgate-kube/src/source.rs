//! A Kubernetes API as a source of objects.
//!
//! Each kind is listed once and then watched (`reflector.rs`); what arrives is cut into objects (`json.rs`), read by the
//! one parser and kept (`store.rs`). Each change yields the complete set; a burst of changes, one. Nothing is yielded
//! before every kind was listed; what was read stays while the server is away, and while it is listed anew.
//!
//! Only what core reads is asked for:
//!
//! | kind | which | what for | without it |
//! |---|---|---|---|
//! | Ingress | all | routes | nothing is yielded: the gates would lose every route |
//! | IngressClass | all | which Ingresses are ours | nothing is yielded: others' Ingresses could become ours, and public |
//! | Service | all | ports, virtual IPs | nothing is yielded: every backend would be lost |
//! | EndpointSlice | those of a Service (label `kubernetes.io/service-name`) | servers | nothing is yielded: every backend would be lost |
//! | Secret | type `kubernetes.io/tls` | certificates | routes with the default certificate |
//! | Namespace | all; their labels | which pools are for a Service | no pool is for a namespace by its labels |
//! | Node | all; pod networks, addresses, two conditions | refines tunnel and virtual IPs | the site file alone |
//!
//! ConfigMap and everything else means nothing to `lower` and `plan`, so nobody asks for it. Other Secrets,
//! such as those of Helm, never leave the server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dualgate_core::machine::hold_off::HoldOff;
use dualgate_core::model::finding::Finding;
use dualgate_core::model::{Interner, Object, ObjectSet};
use dualgate_core::seam::Source;

use self::feed::Feed;
use self::reflector::{Contact, Refusal, Why};
use self::store::Change;
use crate::access::{self, Access, AccessError, Api};

mod feed;
mod json;
mod kind;
mod reflector;
mod report;
mod store;

pub use self::kind::Kind;
pub(crate) use self::reflector::Ask;
pub use self::report::{KindReport, Report, View};

/// A server that is away for less is not worth a word.
const WORTH_SAYING: Duration = Duration::from_secs(5);

/// How often the kubeconfig is read again while the server is away or does not know us: certificates and tokens change.
const RENEW: Duration = Duration::from_secs(30);

type Renewal = Pin<Box<dyn Future<Output = Result<Api, AccessError>> + Send>>;

/// A watched Kubernetes API.
pub struct ClusterSource {
    access: Access,
    api: Api,
    renewal: Option<Renewal>,
    renewed: Instant,
    feeds: Vec<Feed>,
    /// Of the objects of all kinds.
    texts: Interner,
    hold_off: HoldOff<Instant>,
    /// What is wrong between us and the server.
    troubles: Vec<Trouble>,
    last: Option<Arc<ObjectSet>>,
    timer: Pin<Box<tokio::time::Sleep>>,
    view: View,
}

/// What is wrong, since when, in the words of that moment: a finding that stays is the same finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    since: Instant,
    finding: Finding,
    of: Of,
}

/// What a trouble is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// These kinds, as a set of bits in the order of [`Kind::ALL`], are not answered.
    Away(u8),
    /// It does not know us.
    Unknown,
    /// A kind is refused.
    Kind(Kind, bool),
}

impl ClusterSource {
    /// Finds out where the server is; asks nothing yet. Needs a runtime.
    ///
    /// # Errors
    ///
    /// If nothing says where the API server is, or what says it cannot be used.
    pub async fn new(access: Access) -> Result<Self, AccessError> {
        let api = access::connect(&access).await?;
        let now = Instant::now();
        let view = View::new(&api.server);
        let feeds = Kind::ALL.map(|kind| Feed::new(kind, RandomState::new().hash_one(kind.name()), now));
        Ok(Self {
            access,
            api,
            renewal: None,
            renewed: now,
            feeds: feeds.into(),
            texts: Interner::default(),
            hold_off: HoldOff::due_at(now),
            troubles: Vec::new(),
            last: None,
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            view,
        })
    }

    /// How it is, for whoever asks meanwhile.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Arc<ObjectSet>> {
        loop {
            let (mut more, mut is_back) = (false, false);
            for feed in &mut self.feeds {
                let was_lost = matches!(feed.reflector.contact(), Contact::Lost(..));
                let turn = feed.turn(&self.api.client, &mut self.texts, context);
                is_back |= was_lost && matches!(feed.reflector.contact(), Contact::Well(_));
                more |= turn.more;
                if turn.change == Change::Something {
                    self.hold_off.triggered(Instant::now());
                }
            }
            self.renew(context);
            let now = Instant::now();
            if is_back {
                self.feeds.iter_mut().for_each(|feed| feed.reflector.hurry(now));
            }
            if self.look_for_trouble(now) == Change::Something {
                self.hold_off.triggered(now);
            }
            self.view.update(&self.feeds, &self.troubles);
            let is_ready = self.feeds.iter().all(Feed::is_settled);
            if is_ready && self.hold_off.due().is_some_and(|due| due <= now) {
                self.hold_off.passed(now);
                if let Some(set) = self.assemble() {
                    return Poll::Ready(set);
                }
            }
            if more {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let wake_at = self.wake_at(now, is_ready).into();
            self.timer.as_mut().reset(wake_at);
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn wake_at(&self, now: Instant, is_ready: bool) -> Instant {
        let asked = self.feeds.iter().map(|feed| feed.reflector.poll_timeout());
        let said = self.feeds.iter().filter_map(|feed| match feed.reflector.contact() {
            Contact::Lost(since, _) => Some(*since + WORTH_SAYING).filter(|at| *at > now),
            Contact::None | Contact::Well(_) => None,
        });
        let due = self.hold_off.due().filter(|_| is_ready);
        let wakes = asked.chain(said).chain(due).chain(self.renewal_due());
        wakes.fold(now + RENEW, Instant::min)
    }

    /// When the kubeconfig is to be read again, if that could help.
    fn renewal_due(&self) -> Option<Instant> {
        let could_help = self.feeds.iter().any(|feed| match feed.reflector.contact() {
            // A certificate that has expired is refused when the connection seems to be there (TLS 1.3): it is cut then.
            Contact::Lost(_, failure) => {
                matches!(failure.why, Why::Unreachable | Why::Cut | Why::Refused(Refusal::Unknown))
            }
            Contact::None | Contact::Well(_) => false,
        });
        (self.renewal.is_none() && could_help).then(|| self.renewed + RENEW)
    }

    /// Reads the kubeconfig again when that is due.
    fn renew(&mut self, context: &mut Context<'_>) {
        let now = Instant::now();
        if self.renewal_due().is_some_and(|due| due <= now) {
            self.renewed = now;
            let access = self.access.clone();
            self.renewal = Some(Box::pin(async move { access::connect(&access).await }));
        }
        let Some(renewal) = &mut self.renewal else { return };
        if let Poll::Ready(renewed) = renewal.as_mut().poll(context) {
            self.renewal = None;
            match renewed {
                Ok(api) => {
                    self.view.server(&api.server);
                    self.api = api;
                    self.feeds.iter_mut().for_each(|feed| feed.reflector.renewed(now));
                }
                Err(error) => {
                    tracing::debug!(%error, "the kubeconfig cannot be used at the moment; the last one stays")
                }
            }
        }
    }

    /// Compares what is wrong with what is said to be.
    fn look_for_trouble(&mut self, now: Instant) -> Change {
        let mut found: BTreeMap<Of, (Instant, String)> = BTreeMap::new();
        let mut away: Option<(u8, Instant, String)> = None;
        for (index, feed) in self.feeds.iter().enumerate() {
            let Contact::Lost(since, failure) = feed.reflector.contact() else { continue };
            if *since + WORTH_SAYING > now {
                continue;
            }
            let of = match failure.why {
                Why::Refused(Refusal::Unknown) => Of::Unknown,
                Why::Refused(refusal @ (Refusal::Forbidden | Refusal::Absent)) => {
                    Of::Kind(feed.kind, refusal == Refusal::Forbidden)
                }
                Why::Unreachable | Why::Cut | Why::Gone | Why::Busy | Why::Wrong => {
                    let (kinds, first, text) = away.take().unwrap_or((0, *since, failure.text.clone()));
                    away = Some((kinds | 1 << index, first.min(*since), text));
                    continue;
                }
            };
            found.entry(of).or_insert_with(|| (*since, failure.text.clone()));
        }
        found.extend(away.map(|(kinds, since, text)| (Of::Away(kinds), (since, text))));
        if found.keys().copied().eq(self.troubles.iter().map(|trouble| trouble.of)) {
            return Change::Nothing;
        }
        let known = std::mem::take(&mut self.troubles);
        self.troubles = found
            .into_iter()
            .map(|(of, (since, text))| {
                let said = known.iter().find(|trouble| trouble.of == of).cloned();
                said.unwrap_or_else(|| Trouble { since, of, finding: self.finding(of, since, &text, now) })
            })
            .collect();
        Change::Something
    }

    fn finding(&self, of: Of, since: Instant, text: &str, now: Instant) -> Finding {
        let at = SystemTime::now().checked_sub(now - since).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let since = at.map_or(0, |at| at.as_secs() as i64);
        let was_listed = |kind: Kind| self.feeds.iter().any(|feed| feed.kind == kind && feed.was_listed());
        match of {
            Of::Away(kinds) => {
                let silent = Kind::ALL.iter().enumerate().filter(|(index, _)| kinds & 1 << index != 0);
                let silent: Vec<Kind> = silent.map(|(_, kind)| *kind).collect();
                report::away(&self.api.server, &silent, since, text)
            }
            Of::Unknown => report::unknown(&self.api.server, text),
            Of::Kind(kind, true) => report::forbidden(&self.api.server, kind, was_listed(kind), text),
            Of::Kind(kind, false) => report::absent(&self.api.server, kind, text),
        }
    }

    /// The set, if it is another than the last.
    fn assemble(&mut self) -> Option<Arc<ObjectSet>> {
        let mut objects = Vec::with_capacity(self.feeds.iter().map(|feed| feed.store.len()).sum());
        let mut findings: Vec<Finding> = self.troubles.iter().map(|trouble| trouble.finding.clone()).collect();
        for feed in &self.feeds {
            objects.extend(feed.store.objects());
            findings.extend(feed.store.findings().cloned());
        }
        let set = ObjectSet { objects, findings };
        if self.last.as_ref().is_some_and(|last| is_same(last, &set)) {
            return None;
        }
        let set = Arc::new(set);
        self.last = Some(set.clone());
        Some(set)
    }
}

impl Source for ClusterSource {
    /// What fails is tried again, for ever.
    type Error = Infallible;

    async fn next(&mut self) -> Result<Arc<ObjectSet>, Infallible> {
        Ok(poll_fn(|context| self.poll(context)).await)
    }
}

impl Feed {
    fn was_listed(&self) -> bool {
        self.reflector.counters().lists > 0
    }

    /// Whether a set can be yielded as far as this kind goes.
    fn is_settled(&self) -> bool {
        self.was_listed() || (matches!(self.kind.need(), kind::Need::Desired(_)) && self.reflector.is_refused())
    }
}

fn is_same(a: &ObjectSet, b: &ObjectSet) -> bool {
    let is_same = |(a, b): (&Arc<Object>, &Arc<Object>)| Arc::ptr_eq(a, b);
    a.objects.len() == b.objects.len() && a.objects.iter().zip(&b.objects).all(is_same) && a.findings == b.findings
}
