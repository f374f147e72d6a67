//! The handle of the virtual IPs' thread: what is wanted goes in, how it is comes out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dualgate_core::model::{Assignments, NodeName};
use dualgate_core::plan::virtual_ips::{GroupId, VirtualIpPlan};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;
use tokio::time::Instant;

use super::report::Report;
use super::trouble;
use super::work::{HANDED, Work};

/// How long a node that leaves waits until others have taken what it held.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long it goes on to offer what nobody would take.
const REFUSED: Duration = Duration::from_secs(1);

/// The keeper of one node's virtual IPs.
#[derive(Debug)]
pub struct Keeper {
    wish: Arc<Wish>,
    told: Arc<Told>,
    known: watch::Receiver<Known>,
    thread: Option<JoinHandle<()>>,
}

/// What the other nodes and this one have agreed on, as planners need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The addresses that Services have.
    pub assigned: Arc<Assignments>,
    /// Whether this node assigns them.
    pub holds: bool,
}

/// How a node ends its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The machine goes on without this program: what the host was told is taken back.
    Clean,
    /// A successor goes on in its place, with the same routes and rules.
    Succeeded,
}

/// What is wanted: the last counts, none waits.
#[derive(Debug)]
pub(super) struct Wish {
    inner: Mutex<Wanted>,
    /// Readable when something changed.
    pub bell: OwnedFd,
}

/// The parts of a wish.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub plan: Arc<VirtualIpPlan>,
    /// The groups that the rest of this program can serve; those that it cannot, with the reason.
    pub ready: Arc<BTreeMap<GroupId, String>>,
    /// To be told to all members, if this node is the holder.
    pub publish: Option<Arc<Assignments>>,
    pub drain: bool,
    pub leave: Option<Leave>,
}

impl Wish {
    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
        self.ring();
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        // Its counter cannot overflow: it is read to zero at every ring.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// What is wanted at this moment. What is to be published is taken out: it is said once.
    pub fn take(&self) -> Wanted {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let publish = inner.publish.take();
        Wanted { publish, ..inner.clone() }
    }
}

/// What the thread tells.
#[derive(Debug)]
pub(super) struct Told {
    report: Mutex<Report>,
    pub known: watch::Sender<Known>,
}

impl Told {
    pub fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Starts with nothing planned, in the network of the calling thread. `state` holds the key and what is remembered.
    ///
    /// # Errors
    ///
    /// If the system has no thread or descriptor left.
    pub fn start(state: &Path, node: &NodeName) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wish = Arc::new(Wish { inner: Mutex::default(), bell });
        let (sender, known) = watch::channel(Known::default());
        let told = Arc::new(Told { report: Mutex::default(), known: sender });
        let work = Work::new(state, node, wish.clone(), told.clone())?;
        let thread = std::thread::Builder::new().name("virtual-ips".to_owned()).spawn(run(work, told.clone()))?;
        Ok(Self { wish, told, known, thread: Some(thread) })
    }

    /// What is to be from now on.
    pub fn plan(&self, plan: Arc<VirtualIpPlan>) {
        self.wish.change(|wanted| wanted.plan = plan);
    }

    /// Which groups could be served here: an empty text says that nothing is missing. Groups that are not named are not
    /// ready yet.
    pub fn ready(&self, ready: BTreeMap<GroupId, String>) {
        self.wish.change(|wanted| wanted.ready = Arc::new(ready));
    }

    /// Tells all members who has which address. Only what the holder says counts.
    pub fn publish(&self, assigned: Arc<Assignments>) {
        self.wish.change(|wanted| wanted.publish = Some(assigned));
    }

    /// What is agreed on, and when that changes.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// A handle that tells how it is, for whoever shows it.
    pub fn view(&self) -> View {
        View(self.told.clone())
    }

    /// Gives all away that another node can take, and waits until the LAN has heard so, for a moment at most. Packets of open
    /// connections are served on.
    pub async fn drain(&self) {
        self.wish.change(|wanted| wanted.drain = true);
        let (view, began) = (self.view(), Instant::now());
        loop {
            let report = view.report();
            // Where nobody takes it, it is held to the end.
            let waits = (!report.drained && began.elapsed() < FAREWELL)
                || (!report.to_give.is_empty() && began.elapsed() < REFUSED);
            let is_given = report.given.is_empty() || began.elapsed() >= FAREWELL + HANDED;
            if !waits && is_given {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends its part.
    pub fn leave(mut self, how: Leave) {
        self.end(how);
    }

    fn end(&mut self, how: Leave) {
        self.wish.change(|wanted| wanted.leave = wanted.leave.or(Some(how)));
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end(Leave::Clean);
    }
}

/// Runs the thread's work. Other nodes take over when it ends by a fault, as its heartbeats end too; people hear why.
fn run(work: Work, told: Arc<Told>) -> impl FnOnce() + Send {
    move || {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || work.run()));
        if ended.is_err() {
            tracing::error!("the thread of the virtual IPs has died of a fault: restart dualgate on this node");
            *told.report() = Report { on: true, findings: vec![trouble::died()], ..Report::default() };
        }
    }
}

/// Tells how the virtual IPs are.
#[derive(Clone, Debug)]
pub struct View(Arc<Told>);

impl View {
    /// How they are.
    pub fn report(&self) -> Report {
        self.0.report().clone()
    }
}
