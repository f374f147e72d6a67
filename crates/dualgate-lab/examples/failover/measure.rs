//! One fault at one subject.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_lab::capture::{Capture, Claim, Frame, owners};
use dualgate_lab::probe::who_has;
use dualgate_wire::ethernet::Mac;

use crate::prober::{Dialler, Gap, Prober};
use crate::subject::{Failure, Fault, Subject};

/// Nothing takes longer, or it has failed.
const LIMIT: Duration = Duration::from_secs(20);
/// How long probes run before and after.
const LEAD: Duration = Duration::from_millis(250);

/// What was seen of one fault.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// By family, IPv4 first.
    pub gaps: [Gap; 2],
    /// Of connections to the gate, where the process that serves them was killed.
    pub refused: Option<[Gap; 2]>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [v4, v6] = self.gaps.map(|gap| (gap.without.as_secs_f64() * 1000.0, gap.lost));
        write!(f, "IPv4 {:.0} ms ({} lost), IPv6 {:.0} ms ({} lost)", v4.0, v4.1, v6.0, v6.1)?;
        let refused = self.refused.iter().flatten().map(|gap| gap.without.as_millis());
        refused.into_iter().try_for_each(|without| write!(f, ", TCP {without} ms"))
    }
}

/// Watches who says that it has the addresses, from the first fault to the last.
pub struct Watch {
    addresses: [IpAddr; 2],
    capture: Capture,
    stop: Arc<AtomicBool>,
    askers: Vec<JoinHandle<()>>,
    asked: Arc<AtomicU64>,
    /// Answers that were captured.
    pub answers: u64,
    /// How often a station spoke for an address that another one had taken from it.
    pub overlaps: u64,
    /// The faults after which that was.
    pub when: Vec<String>,
    /// By fault: the longest time between two answers to questions for an address, in milliseconds.
    pub silences: BTreeMap<Fault, Vec<f64>>,
    last: Option<Fault>,
}

impl Watch {
    /// Begins to ask and to listen.
    pub fn start(subject: &dyn Subject, addresses: [IpAddr; 2]) -> Result<Self, Failure> {
        let switch = subject.host("lan").ok_or("the LAN's switch is off")?;
        let client = subject.host("lan-client").ok_or("the LAN's client is off")?;
        let capture = Capture::start(&switch)?;
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let askers = addresses.map(|address| {
            let (client, stop, asked) = (client.clone(), stop.clone(), asked.clone());
            std::thread::spawn(move || ask(&client, address, &stop, &asked))
        });
        let askers = askers.into();
        Ok(Self {
            addresses,
            capture,
            stop,
            askers,
            asked,
            answers: 0,
            overlaps: 0,
            when: Vec::new(),
            silences: BTreeMap::new(),
            last: None,
        })
    }

    /// Questions that were asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Counts what was captured since the last fault.
    pub fn account(&mut self) {
        let frames = self.capture.take();
        let claims = frames.iter().filter_map(Frame::claim);
        let answers = claims.filter(|(address, _, how)| *how == Claim::Answer && self.addresses.contains(address));
        self.answers += answers.count() as u64;
        let Some(fault) = self.last.take() else { return };
        let longest = self.addresses.map(|address| silence(&frames, address)).into_iter().max().unwrap_or_default();
        self.silences.entry(fault).or_default().push(longest.as_secs_f64() * 1000.0);
        for address in self.addresses {
            let owners = owners(&frames, address);
            let again = (1..owners.len()).filter(|at| owners[..*at].contains(&owners[*at])).count() as u64;
            self.overlaps += again;
            if again > 0 {
                let after = after(&frames, address).as_millis();
                self.when
                    .push(format!("{address}, {}: {again}, {after} ms at most after another one began", fault.words()));
            }
        }
    }

    /// Lets one fault happen once everything is in place, and puts everything in order again.
    pub fn measure(&mut self, subject: &dyn Subject, fault: Fault) -> Result<Outcome, Failure> {
        let owner = self.settled(subject)?;
        self.account();
        let client = subject.host("lan-client").ok_or("the LAN's client is off")?;
        let prober = Prober::start(&client, self.addresses)?;
        let serves = fault == Fault::Kill && subject.does(Fault::TakeOver);
        let dialler = serves.then(|| Dialler::start(&client, self.addresses.map(|ip| SocketAddr::new(ip, 80))));
        let before = Instant::now();
        wait("the addresses answer", LIMIT, || prober.answered_since(before))?;
        pass(LEAD);
        let moment = Instant::now();
        self.last = Some(fault);
        subject.hit(fault, &owner)?;
        let over = self.until_over(subject, fault, &owner, &prober);
        pass(LEAD);
        let gaps = prober.stop(moment);
        let refused = dialler.map(Dialler::stop);
        subject.mend(fault, &owner)?;
        over?;
        Ok(Outcome { gaps, refused })
    }

    fn until_over(&self, subject: &dyn Subject, fault: Fault, owner: &str, prober: &Prober) -> Result<(), Failure> {
        // A successor on the same node keeps the addresses or not; all other faults move them.
        let moved = |address: IpAddr| {
            let frames = self.capture.so_far();
            let claims = frames.iter().filter_map(Frame::claim);
            let mut others = claims.filter(|(claimed, ..)| *claimed == address);
            others.any(|(_, mac, _)| subject.node_of(mac.0).is_some_and(|node| node != owner))
        };
        wait("it is over", LIMIT, || {
            subject.is_over(fault, owner) && (fault == Fault::TakeOver || self.addresses.iter().all(|a| moved(*a)))
        })?;
        let moved_at = Instant::now();
        wait("the addresses answer again", LIMIT, || prober.answered_since(moved_at))
    }

    /// Waits until nothing is missing and one node answers for both addresses; which one.
    fn settled(&self, subject: &dyn Subject) -> Result<String, Failure> {
        let deadline = Instant::now() + 2 * LIMIT;
        loop {
            let mut missing = subject.missing();
            if missing.is_empty() {
                let seen = self.addresses.map(|address| subject.answering(address));
                let first = seen[0].first().cloned().unwrap_or_default();
                if seen.iter().all(|nodes| nodes.len() == 1 && nodes.contains(&first)) {
                    // Whoever came back has heard of the others by then.
                    pass(Duration::from_millis(400));
                    return Ok(first);
                }
                missing.push(format!("{seen:?} answer"));
            }
            if Instant::now() > deadline {
                return Err(format!("not in place: {}", missing.join("; ")).into());
            }
            pass(Duration::from_millis(20));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for asker in self.askers.drain(..) {
            // Nothing in it panics.
            let _ = asker.join();
        }
    }
}

/// How long at most after another station had begun to speak for an address one spoke that had before. A frame that waited in a
/// queue is late by a few milliseconds; a station that has the address again, by more than a lease.
fn after(frames: &[Frame], address: IpAddr) -> Duration {
    let claims = frames.iter().filter_map(|frame| Some((frame.at, frame.claim()?)));
    let mut owners: Vec<(Mac, Instant)> = Vec::new();
    let mut longest = Duration::ZERO;
    for (at, (_, mac, _)) in claims.filter(|(_, (claimed, ..))| *claimed == address) {
        match owners.last() {
            Some((last, _)) if *last == mac => continue,
            Some((_, began)) if owners.iter().any(|(owner, _)| *owner == mac) => longest = longest.max(at - *began),
            Some(_) | None => {}
        }
        owners.push((mac, at));
    }
    longest
}

/// The longest time between two answers.
fn silence(frames: &[Frame], address: IpAddr) -> Duration {
    let is_answer = |frame: &&Frame| frame.claim().is_some_and(|(of, _, how)| of == address && how == Claim::Answer);
    let at: Vec<Instant> = frames.iter().filter(is_answer).map(|frame| frame.at).collect();
    at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// A question every 20 milliseconds; the answers are seen in the capture.
pub fn ask(client: &Namespace, address: IpAddr, stop: &AtomicBool, asked: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let _ = who_has(client, "eth0", address, Duration::ZERO);
        asked.fetch_add(1, Ordering::Relaxed);
        pass(Duration::from_millis(20));
    }
}

/// Waits, with a limit.
pub fn wait(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {} s", limit.as_secs()).into());
        }
        pass(Duration::from_millis(5));
    }
    Ok(())
}

/// Lets time pass.
pub fn pass(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
