//! Echo requests to both families of a virtual IP, one each millisecond, whatever comes back.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_lab::probe;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

const PACE: Duration = Duration::from_millis(1);
/// The most probes of one run.
const MOST: usize = 60_000;
/// How long the answer to the last probe may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// What every probe carries, before its number.
const MARK: &[u8; 8] = b"failover";

/// What was lost in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gap {
    /// Probes without an answer.
    pub lost: u64,
    /// From the last probe that was answered to the first one that was answered again, the longest time of that kind.
    pub without: Duration,
}

/// Probes of one family. Times are nanoseconds since the start; 0 is never.
struct Lane {
    socket: Socket,
    sent: Vec<AtomicU64>,
    answered: Vec<AtomicBool>,
    next: AtomicUsize,
}

/// A prober at work.
pub struct Prober {
    started: Instant,
    lanes: [Arc<Lane>; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Prober {
    /// Begins.
    pub fn start(from: &Namespace, to: [IpAddr; 2]) -> io::Result<Self> {
        let lanes = [Arc::new(Lane::open(from, to[0])?), Arc::new(Lane::open(from, to[1])?)];
        let (started, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        for lane in lanes.clone() {
            let stop = stop.clone();
            threads.push(std::thread::spawn(move || lane.hear(&stop)));
        }
        let (sending, ended) = (lanes.clone(), stop.clone());
        threads.push(std::thread::spawn(move || send(&sending, started, &ended)));
        Ok(Self { started, lanes, stop, threads })
    }

    /// Whether in both families a probe that left after this moment was answered.
    pub fn answered_since(&self, moment: Instant) -> bool {
        let moment = nanoseconds(moment.saturating_duration_since(self.started));
        self.lanes.iter().all(|lane| {
            let (end, least) = (lane.next.load(Ordering::Acquire), moment);
            let recent = (0..end).rev().take_while(|n| lane.sent[*n].load(Ordering::Relaxed) > least);
            recent.into_iter().any(|number| lane.answered[number].load(Ordering::Relaxed))
        })
    }

    /// Ends; what was lost of that which was sent from this moment on.
    pub fn stop(self, from: Instant) -> [Gap; 2] {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // Nothing in it panics.
            let _ = thread.join();
        }
        let from = nanoseconds(from.saturating_duration_since(self.started));
        self.lanes.each_ref().map(|lane| lane.gap(from))
    }
}

impl Lane {
    fn open(from: &Namespace, to: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = from.run(move || -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
            socket.connect(&SocketAddr::new(to, 0).into())?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let sent = (0..MOST).map(|_| AtomicU64::new(0)).collect();
        let answered = (0..MOST).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { socket, sent, answered, next: AtomicUsize::new(0) })
    }

    fn send(&self, number: usize, now: Duration) {
        let kind = if self.socket.local_addr().is_ok_and(|address| address.is_ipv4()) { 8 } else { 128 };
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message[6..8].copy_from_slice(&((number & 0xffff) as u16).to_be_bytes());
        message.extend_from_slice(MARK);
        message.extend_from_slice(&(number as u64).to_be_bytes());
        self.sent[number].store(nanoseconds(now).max(1), Ordering::Relaxed);
        // The first attempt may be told what came of an earlier probe, and then says nothing of this one.
        let _ = self.socket.send(&message).or_else(|_| self.socket.send(&message));
        self.next.store(number + 1, Ordering::Release);
    }

    fn hear(&self, stop: &AtomicBool) {
        let mut space = [0; 128];
        let mut last = false;
        loop {
            let number = match recv(&self.socket, &mut space[..], RecvFlags::empty()) {
                Ok((24, _)) if space[8..16] == *MARK => {
                    space[16..24].try_into().ok().map(|octets| u64::from_be_bytes(octets) as usize)
                }
                Ok(_) => None,
                // The read's patience is over after the last probe has left.
                Err(rustix::io::Errno::AGAIN) if last => return,
                Err(_) => {
                    last = stop.load(Ordering::Relaxed);
                    None
                }
            };
            if let Some(answered) = number.and_then(|number| self.answered.get(number)) {
                answered.store(true, Ordering::Relaxed);
            }
        }
    }

    fn gap(&self, from: u64) -> Gap {
        let mut gap = Gap::default();
        let (mut before, mut missing) = (None, false);
        for number in 0..self.next.load(Ordering::Acquire) {
            let sent = self.sent[number].load(Ordering::Relaxed);
            let answered = self.answered[number].load(Ordering::Relaxed);
            if sent >= from && !answered {
                (gap.lost, missing) = (gap.lost + 1, true);
                gap.without = gap.without.max(Duration::from_nanos(sent - before.unwrap_or(sent)));
            }
            if answered {
                let span = Duration::from_nanos(sent - before.unwrap_or(sent));
                gap.without = if std::mem::take(&mut missing) { gap.without.max(span) } else { gap.without };
                before = Some(sent);
            }
        }
        gap
    }
}

/// One probe for each family and millisecond; what the machine was too busy for is sent as soon as it is not.
fn send(lanes: &[Arc<Lane>; 2], started: Instant, stop: &AtomicBool) {
    for number in 0..MOST {
        let due = started + PACE * number as u32;
        while let Some(early) = due.checked_duration_since(Instant::now()).filter(|early| !early.is_zero()) {
            std::thread::park_timeout(early);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        lanes.iter().for_each(|lane| lane.send(number, started.elapsed()));
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Connections to a port of both addresses, one after the other each two milliseconds: after a process was killed its host's
/// kernel still answers echo requests, and refuses connections.
pub struct Dialler {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<(Instant, bool)>>>,
}

impl Dialler {
    /// Begins.
    pub fn start(from: &Arc<Namespace>, to: [SocketAddr; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let dial = |to: SocketAddr| {
            let (from, stop) = (from.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut dialled = Vec::new();
                while !stop.load(Ordering::Relaxed) && dialled.len() < MOST {
                    let at = Instant::now();
                    dialled.push((at, probe::tcp(&from, to, PATIENCE).is_ok()));
                    std::thread::park_timeout((2 * PACE).saturating_sub(at.elapsed()));
                }
                dialled
            })
        };
        Self { threads: to.map(dial).into(), stop }
    }

    /// Ends; what was refused.
    pub fn stop(self) -> [Gap; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let mut gaps = [Gap::default(); 2];
        for (gap, thread) in gaps.iter_mut().zip(self.threads) {
            *gap = gap_of(&thread.join().unwrap_or_default());
        }
        gaps
    }
}

fn gap_of(dialled: &[(Instant, bool)]) -> Gap {
    let mut gap = Gap::default();
    let (mut before, mut missing) = (None, false);
    for (at, connected) in dialled {
        let span = before.map_or(Duration::ZERO, |before| *at - before);
        match connected {
            false => (gap.lost, missing, gap.without) = (gap.lost + 1, true, gap.without.max(span)),
            true => {
                gap.without = if std::mem::take(&mut missing) { gap.without.max(span) } else { gap.without };
                before = Some(*at);
            }
        }
    }
    gap
}
