//! Questions by UDP: a thread for each core with sockets of its own, between which the kernel shares them out.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use dualgate_core::machine::dns::rate::{Limiter, Rate};
use dualgate_core::machine::dns::{Outcome, Question, Transport, Verdict};
use dualgate_core::plan::dns::View;
use dualgate_wire::dns::cookie::Asker;
use dualgate_wire::dns::slip;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::batch::Batch;
use super::counters::Counters;
use super::{Common, Waiting, Way};

/// Nobody sends from there (RFC 863).
const DISCARD: u16 = 9;
/// So many times a socket is emptied before it is closed: whoever asks meanwhile asks another one.
const FAREWELL: usize = 64;

/// A thread, and what is wanted of it.
#[derive(Debug)]
pub(super) struct UdpThread {
    wish: Arc<Wish>,
    thread: Option<JoinHandle<()>>,
    pub counters: Arc<Counters>,
}

#[derive(Debug)]
struct Wish {
    wanted: Mutex<Wanted>,
    /// Readable when something changed.
    bell: OwnedFd,
}

#[derive(Clone, Debug, Default)]
struct Wanted {
    sockets: Vec<Arc<UdpSocket>>,
    stop: bool,
}

impl UdpThread {
    /// Starts with no socket.
    pub fn start(number: usize, common: Arc<Common>) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wish = Arc::new(Wish { wanted: Mutex::default(), bell });
        let counters = Arc::new(Counters::default());
        let work = Work { common, counters: counters.clone(), wish: wish.clone(), batch: Batch::default() };
        let thread = std::thread::Builder::new().name(format!("dns-{number}")).spawn(move || work.run())?;
        Ok(Self { wish, thread: Some(thread), counters })
    }

    /// From now on it hears these.
    pub fn hear(&self, sockets: Vec<Arc<UdpSocket>>) {
        self.change(|wanted| wanted.sockets = sockets);
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wish.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        // Its counter cannot overflow: it is read to zero at every ring.
        let _ = rustix::io::write(&self.wish.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for UdpThread {
    fn drop(&mut self) {
        self.change(|wanted| *wanted = Wanted { sockets: Vec::new(), stop: true });
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

/// How many answers go where. All threads count together: whoever asks from many ports reaches all of them.
#[derive(Debug)]
pub(super) struct Rates {
    limiter: Mutex<Limiter>,
    /// Its times are since then.
    started: Instant,
}

impl Rates {
    pub(super) fn new() -> io::Result<Self> {
        let mut seed = [0; 8];
        aws_lc_rs::rand::fill(&mut seed).map_err(|_| io::Error::other("the system has no random numbers"))?;
        Ok(Self { limiter: Mutex::new(Limiter::new(u64::from_ne_bytes(seed))), started: Instant::now() })
    }

    fn judge(&self, from: IpAddr, of: Outcome, name_hash: u64) -> Rate {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.judge(from, of, name_hash, self.started.elapsed())
    }
}

struct Work {
    common: Arc<Common>,
    counters: Arc<Counters>,
    wish: Arc<Wish>,
    batch: Batch,
}

impl Work {
    fn run(mut self) {
        let mut sockets: Vec<Arc<UdpSocket>> = Vec::new();
        loop {
            let mut ready = vec![PollFd::new(&self.wish.bell, PollFlags::IN)];
            ready.extend(sockets.iter().map(|socket| PollFd::new(&**socket, PollFlags::IN)));
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!(%error, "a thread of the DNS cannot wait"),
            }
            let ready: Vec<bool> = ready.iter().map(|one| !one.revents().is_empty()).collect();
            for socket in sockets.iter().zip(&ready[1..]).filter(|(_, ready)| **ready).map(|(socket, _)| socket) {
                self.serve(socket);
            }
            if ready[0] {
                let wanted = self.take();
                let gone = sockets.iter().filter(|old| !wanted.sockets.iter().any(|socket| Arc::ptr_eq(old, socket)));
                for socket in gone {
                    // Connected, it is given no more questions: others of the address get them. Those that wait are answered;
                    // they would be lost with it.
                    let _ = socket.local_addr().and_then(|own| socket.connect((own.ip(), DISCARD)));
                    let _ = (0..FAREWELL).find(|_| self.serve(socket) == 0);
                }
                if wanted.stop {
                    return;
                }
                sockets = wanted.sockets;
            }
        }
    }

    fn take(&self) -> Wanted {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wish.bell, &mut count);
        self.wish.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers what waits, as much as fits in a batch; how much it was.
    fn serve(&mut self, socket: &Arc<UdpSocket>) -> usize {
        let Ok(count) = self.batch.receive(socket.as_fd()) else { return 0 };
        let began = Instant::now();
        let (responder, secret) = (self.common.responder.load(), self.common.secret.load());
        let now = super::seconds();
        for index in 0..count {
            let Some((question, from, answer)) = self.batch.take(index) else { continue };
            // Nobody can be answered at port 0.
            if from.port() == 0 {
                continue;
            }
            match responder.answer(question, from.ip(), Transport::Udp, &secret, now, answer) {
                Verdict::Answer { of, name_hash, asker } => {
                    self.counters.answered(Transport::Udp, of);
                    let is_limited = asker == Asker::Unproven && responder.view() == View::Public;
                    let rate = match is_limited {
                        true => self.common.rates.judge(from.ip(), of, name_hash),
                        false => Rate::Send,
                    };
                    match rate {
                        Rate::Send => {}
                        Rate::Slip => {
                            self.counters.slipped.add(1);
                            slip(answer);
                        }
                        Rate::Drop => {
                            self.counters.dropped.add(1);
                            answer.clear();
                        }
                    }
                }
                Verdict::Silence => {
                    self.counters.silent.add(1);
                    answer.clear();
                }
                Verdict::Forward(question) => {
                    answer.clear();
                    forward(&self.common, &self.counters, socket, from, question);
                }
            }
        }
        let lost = self.batch.send(socket.as_fd());
        self.counters.lost.add(lost as u64);
        self.counters.took(began.elapsed(), count);
        count
    }
}

fn forward(common: &Common, counters: &Counters, socket: &Arc<UdpSocket>, from: SocketAddr, question: Question) {
    counters.forwarded.add(1);
    let asker = Waiting { from, way: Way::Udp(socket.clone()) };
    if common.questions.try_send((question, asker)).is_err() {
        // Others wait already; whoever asks asks again.
        counters.lost.add(1);
    }
}
