//! A change on trial: a process of its own restores the former rules unless somebody confirms the change in time.
//!
//! The guard is started *before* the change and holds the netlink socket that owns the table, and the transaction that
//! restores the former one: it needs nothing else to undo the change, not the process that made it, not a terminal, not
//! the site file. It has a session of its own, so that the end of an SSH session does not reach it. Whatever ends the
//! trial otherwise (the other process dies at the wrong moment, somebody terminates the guard) undoes the change at
//! once; and if the kernel refuses the former rules, the table goes altogether: nobody is locked out.
//!
//! Who can confirm proves that there is still a way in, from a connection that was made since.
//!
//! ```text
//! process  ── patience, transactions ──> guard        before the change
//! process <── `r` ────────────────────── guard        it listens for the confirmation
//! process  ── `a` applied, `f` failed ─> guard        from `a` on the time runs; silence undoes
//! anybody  ── `?` ─────────────────────> guard        it answers how much time is left
//! confirm  ── `c` ─────────────────────> guard        it answers `k` and ends
//! ```

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dualgate_core::plan::firewall::FirewallPlan;
use dualgate_wire::nftables::{Reply, replies};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, recv, sendto};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::record;
use super::{Firewall, FirewallError, Held};

/// How long one step of a conversation may take.
const STEP: Duration = Duration::from_secs(10);
const READY: u8 = b'r';
const APPLIED: u8 = b'a';
const FAILED: u8 = b'f';
const CONFIRM: u8 = b'c';
const ASK: u8 = b'?';
const KEPT: u8 = b'k';
/// The exit code of a guard that undid the change.
const UNDONE: i32 = 3;
/// Rulesets are far smaller.
const MOST: u32 = 64 << 20;

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The change was confirmed and stays.
    Confirmed,
    /// The former rules are in force again.
    Undone,
}

impl Outcome {
    /// The exit code by which the guard tells it.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Confirmed => 0,
            Self::Undone => UNDONE as u8,
        }
    }
}

/// A running trial. Dropping it does not end it.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    former: Arc<FirewallPlan>,
}

fn socket_path(state: &Path) -> PathBuf {
    state.join("firewall.sock")
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> FirewallError {
    move |source| FirewallError::Guard { what, source }
}

impl Firewall {
    /// Puts the plan into the kernel for this long, and for good if it is [`confirm`]ed. `guard` is the command that
    /// ends in [`stand_guard`] with the same `state`.
    ///
    /// # Errors
    ///
    /// If the guard cannot be started, or the change cannot be made: then nothing was changed.
    pub fn apply_on_trial(
        &mut self,
        desired: &Arc<FirewallPlan>,
        patience: Duration,
        state: &Path,
        guard: &mut Command,
    ) -> Result<Guard, FirewallError> {
        if is_on_trial(state) {
            return Err(FirewallError::Pending);
        }
        let observed = self.look()?;
        let dialect = self.netfilter.dialect();
        let former = match (&self.applied, observed.table) {
            (_, None) => record::transaction(&FirewallPlan::default(), dialect)?,
            (Some(applied), Some(_)) => record::transaction(applied, dialect)?,
            // Of a process that has ended.
            (None, Some(_)) => match record::read(state)? {
                Some(former) => former.transaction,
                None => record::transaction(&FirewallPlan::default(), dialect)?,
            },
        };
        let open = record::transaction(&FirewallPlan::default(), dialect)?;
        let (mut here, there) = UnixStream::pair().map_err(failed("make the socket"))?;
        let bounded = here.set_read_timeout(Some(STEP)).and_then(|()| here.set_write_timeout(Some(STEP)));
        bounded.map_err(failed("make the socket"))?;
        let netlink = self.descriptor().map_err(failed("hand over the netlink socket"))?;
        guard.stdin(Stdio::from(OwnedFd::from(there))).stdout(Stdio::from(netlink));
        let child = guard.spawn().map_err(failed("start the process"))?;
        guard.stdin(Stdio::null()).stdout(Stdio::null());
        let before = Arc::new(FirewallPlan { table: None, openings: Vec::new() });
        let mut trial = Guard { child, former: self.applied.clone().unwrap_or(before) };
        brief(&mut here, patience, [&former, &open]).map_err(failed("instruct the process"))?;
        if let Err(error) = record::write_trial(state, desired, dialect).and_then(|()| self.put(desired)) {
            // A guard that does not hear it undoes what was not done.
            let _ = here.write_all(&[FAILED]);
            let _ = trial.child.wait();
            return Err(error);
        }
        if let Err(error) = here.write_all(&[APPLIED]).map_err(failed("tell the process")) {
            // It hears nothing, and undoes the change.
            let _ = trial.child.wait();
            self.concluded(&trial, Outcome::Undone);
            return Err(error);
        }
        Ok(trial)
    }

    /// What is to be remembered of a trial that has ended.
    pub fn concluded(&mut self, guard: &Guard, outcome: Outcome) {
        match outcome {
            Outcome::Confirmed => {}
            Outcome::Undone => {
                self.applied = guard.former.table.is_some().then(|| guard.former.clone());
                self.intact = false;
            }
        }
    }
}

/// Tells the guard what it needs, and waits until it stands.
fn brief(stream: &mut UnixStream, patience: Duration, transactions: [&[u8]; 2]) -> io::Result<()> {
    let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    stream.write_all(&millis.to_ne_bytes())?;
    for octets in transactions {
        let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_ne_bytes())?;
        stream.write_all(octets)?;
    }
    let mut word = [0];
    stream.read_exact(&mut word)?;
    if word == [READY] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl Guard {
    /// How the trial has ended, if it has.
    ///
    /// # Errors
    ///
    /// If the guard was killed: then the change stays, and nobody knows whether it locks somebody out.
    pub fn outcome(&mut self) -> Result<Option<Outcome>, FirewallError> {
        let status = self.child.try_wait().map_err(failed("wait for the process"))?;
        status.map(|status| ended(status.code())).transpose()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// As [`Guard::outcome`].
    pub fn wait(&mut self) -> Result<Outcome, FirewallError> {
        let status = self.child.wait().map_err(failed("wait for the process"))?;
        ended(status.code())
    }

    /// The guard's process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

fn ended(code: Option<i32>) -> Result<Outcome, FirewallError> {
    match code {
        Some(0) => Ok(Outcome::Confirmed),
        Some(UNDONE) => Ok(Outcome::Undone),
        Some(_) | None => Err(failed("learn the verdict")(io::Error::other("it ended without one"))),
    }
}

/// Confirms the change that is on trial.
///
/// # Errors
///
/// If there is none, or its time has just run out.
pub fn confirm(state: &Path) -> Result<(), FirewallError> {
    let path = socket_path(state);
    let Ok(mut stream) = UnixStream::connect(&path) else { return Err(FirewallError::NothingToConfirm(path)) };
    let mut said = [0];
    let asked = stream.set_read_timeout(Some(STEP)).and_then(|()| stream.write_all(&[CONFIRM]));
    match asked.and_then(|()| stream.read_exact(&mut said)) {
        Ok(()) if said == [KEPT] => Ok(()),
        Ok(()) | Err(_) => Err(FirewallError::Undone),
    }
}

/// Whether a change is on trial, whoever made it.
#[must_use]
pub fn is_on_trial(state: &Path) -> bool {
    UnixStream::connect(socket_path(state)).is_ok()
}

/// How long the change that is on trial can still be confirmed; none if there is no such change.
#[must_use]
pub fn remaining(state: &Path) -> Option<Duration> {
    let mut stream = UnixStream::connect(socket_path(state)).ok()?;
    stream.set_read_timeout(Some(STEP)).and_then(|()| stream.write_all(&[ASK])).ok()?;
    let mut millis = [0; 8];
    stream.read_exact(&mut millis).ok()?;
    Some(Duration::from_millis(u64::from_ne_bytes(millis)))
}

/// Stands guard: standard input is the other process, standard output the netlink socket.
///
/// # Errors
///
/// If it was not started as a guard.
pub async fn stand_guard(state: &Path) -> Result<Outcome, FirewallError> {
    // Fails for the first process of a session, which has its own already.
    let _ = rustix::process::setsid();
    let other = io::stdin().as_fd().try_clone_to_owned().map_err(failed("take the socket"))?;
    let netlink = io::stdout().as_fd().try_clone_to_owned().map_err(failed("take the netlink socket"))?;
    let mut other = UnixStream::from(other);
    other.set_read_timeout(Some(STEP)).map_err(failed("take the socket"))?;
    let (patience, former, open) = instructions(&mut other).map_err(failed("read the instructions"))?;
    let restore = || restore(&netlink, [&former, &open]);
    let Ok(mut stops) = Stops::new() else { return Err(failed("hear signals")(io::ErrorKind::Other.into())) };
    let path = socket_path(state);
    // Nobody listens there: it was asked before.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(failed("listen at the state directory"))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, private).map_err(failed("listen at the state directory"))?;
    other.write_all(&[READY]).map_err(failed("tell that it stands"))?;
    let mut word = [0];
    let said = other.read_exact(&mut word).map(|()| word[0]);
    let end = Instant::now() + patience;
    let outcome = match said {
        Ok(APPLIED) => tokio::select! {
            () = confirmed(&listener, end) => Outcome::Confirmed,
            () = sleep_until(end) => Outcome::Undone,
            () = stops.next() => Outcome::Undone,
        },
        Ok(FAILED) => {
            record::forget_trial(state);
            let _ = std::fs::remove_file(&path);
            return Ok(Outcome::Undone);
        }
        // It may have been applied.
        Ok(_) | Err(_) => Outcome::Undone,
    };
    let ended = match outcome {
        Outcome::Confirmed => Held::forget(state).and_then(|()| record::keep_trial(state)),
        Outcome::Undone => {
            record::forget_trial(state);
            restore().map_err(failed("restore the former rules"))
        }
    };
    // Whoever waits for the end of the trial finds what comes of it.
    let _ = std::fs::remove_file(&path);
    ended.map(|()| outcome)
}

fn instructions(stream: &mut UnixStream) -> io::Result<(Duration, Vec<u8>, Vec<u8>)> {
    let mut millis = [0; 8];
    stream.read_exact(&mut millis)?;
    let mut transaction = || {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_ne_bytes(length);
        if length > MOST {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut octets = vec![0; length as usize];
        stream.read_exact(&mut octets)?;
        Ok(octets)
    };
    let (former, open) = (transaction()?, transaction()?);
    Ok((Duration::from_millis(u64::from_ne_bytes(millis)), former, open))
}

/// Waits until somebody confirms; others are sent away.
async fn confirmed(listener: &UnixListener, end: Instant) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let asks = async {
            match stream.read_u8().await? {
                CONFIRM => stream.write_u8(KEPT).await.map(|()| true),
                ASK => {
                    let left = end.saturating_duration_since(Instant::now()).as_millis();
                    let left = u64::try_from(left).unwrap_or(u64::MAX);
                    stream.write_all(&left.to_ne_bytes()).await.map(|()| false)
                }
                _ => Ok::<_, io::Error>(false),
            }
        };
        if let Ok(Ok(true)) = tokio::time::timeout(Duration::from_secs(1), asks).await {
            return;
        }
    }
}

/// The signals that end a process politely. That of a terminal that is gone is none of them.
struct Stops {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    _hang_up: tokio::signal::unix::Signal,
}

impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Sends the first transaction that the kernel takes. Each of them says what is to be, so that sending one twice does
/// no harm: another process that shares the socket may have taken the answer.
fn restore(netlink: &OwnedFd, transactions: [&[u8]; 2]) -> io::Result<()> {
    let mut last = io::Error::other("the kernel did not answer");
    for octets in transactions {
        for _ in 0..5 {
            sendto(netlink, octets, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
            match answer(netlink)? {
                Some(Reply::Done) => return Ok(()),
                Some(Reply::Refused { errno, .. }) => {
                    last = io::Error::from_raw_os_error(errno);
                    break;
                }
                None => {}
            }
        }
    }
    Err(last)
}

/// The worst of the answers that are there.
fn answer(netlink: &OwnedFd) -> io::Result<Option<Reply>> {
    let mut answer = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut ready = [PollFd::new(netlink, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        if poll(&mut ready, Some(&patience))? == 0 {
            return Ok(answer);
        }
        match recv(netlink, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => {
                for reply in replies(buffer.get(..length).unwrap_or_default()) {
                    answer = match (answer, reply) {
                        (Some(refused @ Reply::Refused { .. }), _) => Some(refused),
                        (_, reply) => Some(reply),
                    };
                }
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => return Ok(answer),
            Err(error) => return Err(error.into()),
        }
    }
}
