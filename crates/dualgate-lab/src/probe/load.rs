//! A prober: requests at a steady pace for a while, and what was lost of them.
//!
//! The pace does not depend on the answers: while one request waits for its deadline, others are sent, as other people's
//! would be. So a gap in the service is a gap in the record, not a pause of the prober.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;

use super::Trouble;
use super::http::{Answer, Connection, Request, get};

/// The most requests that are under way at a time.
const MAX_WORKERS: u32 = 64;
/// How many failures are kept in words.
const MAX_FAILURES: usize = 8;

/// What is sent, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// What is asked.
    pub request: Request,
    /// From one request to the next.
    pub pace: Duration,
    /// On which connections.
    pub connections: Connections,
    /// How long one request may take.
    pub patience: Duration,
    /// It ends by itself after this time.
    pub at_most: Duration,
}

/// On which connections requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Each has its own.
    Fresh,
    /// So many are kept and take turns. One that ends is opened again; when it had ended before the first octet of an
    /// answer, the request is sent again, once, as browsers do (RFC 9112 9.3.1).
    Kept(u16),
}

/// What was sent and what came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loss {
    /// Requests sent.
    pub sent: u64,
    /// Answers with a status below 400.
    pub answered: u64,
    /// Everything else, other answers too.
    pub failed: u64,
    /// Requests that found their kept connection ended and were sent again, whatever came of them then.
    pub sent_again: u64,
    /// Requests that were due while as many as there can be were under way; they are not in `sent`.
    pub not_sent: u64,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The longest time without a success, from the start, between two, or until the end.
    pub longest_gap: Duration,
    /// The slowest success.
    pub slowest: Duration,
    /// Which pods answered, and how often; answers that are not an echo backend's are not in here.
    pub pods: BTreeMap<String, u64>,
    /// How long it ran.
    pub ran: Duration,
}

/// One request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Since the start, when it had failed.
    pub after: Duration,
    /// Why.
    pub why: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, failed, .. } = self;
        let (gap, slowest) = (self.longest_gap.as_millis(), self.slowest.as_millis());
        write!(f, "{failed} of {sent} requests lost, longest gap {gap} ms, slowest answer {slowest} ms")?;
        for Failure { after, why } in &self.failures {
            write!(f, "\n  after {} ms: {why}", after.as_millis())?;
        }
        Ok(())
    }
}

impl Load {
    /// Starts it.
    pub fn start(self, from: Arc<Namespace>) -> Running {
        let started = Instant::now();
        let record = Record { next: 0, stopped: None, last_success: started, loss: Loss::default() };
        let shared = Arc::new(Shared { load: self, from, started, record: Mutex::new(record) });
        let workers = (0..shared.load.workers()).filter_map(|number| {
            let shared = shared.clone();
            let name = format!("load-{number}");
            std::thread::Builder::new().name(name).spawn(move || shared.work()).ok()
        });
        Running { workers: workers.collect(), shared }
    }

    /// So many that the pace is kept while every request waits for its deadline, or for its turn on its connection.
    fn workers(&self) -> u32 {
        match self.connections {
            Connections::Fresh => {
                let under_way = self.patience.as_micros() / self.pace.as_micros().max(1) + 1;
                u32::try_from(under_way).unwrap_or(MAX_WORKERS).min(MAX_WORKERS)
            }
            Connections::Kept(count) => u32::from(count).clamp(1, MAX_WORKERS),
        }
    }
}

/// A prober at work. Dropping it stops it.
#[derive(Debug)]
#[must_use = "the prober stops when this is dropped"]
pub struct Running {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Running {
    /// What came back so far.
    pub fn so_far(&self) -> Loss {
        self.shared.loss()
    }

    /// Stops it: requests that are under way end within their deadline, and count.
    pub fn stop(mut self) -> Loss {
        self.end();
        self.shared.loss()
    }

    fn end(&mut self) {
        self.shared.record().stopped.get_or_insert_with(Instant::now);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        for worker in self.workers.drain(..) {
            // Nothing in it panics but with the host, and then there is nothing more to record.
            let _ = worker.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
struct Shared {
    load: Load,
    from: Arc<Namespace>,
    started: Instant,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    /// The number of the next request: it is due so many paces after the start.
    next: u32,
    /// When it was told to.
    stopped: Option<Instant>,
    last_success: Instant,
    loss: Loss,
}

impl Record {
    fn success(&mut self, answer: &Answer, now: Instant) {
        self.loss.answered += 1;
        // Two workers may come here in another order than their answers did.
        self.loss.longest_gap = self.loss.longest_gap.max(now.saturating_duration_since(self.last_success));
        self.last_success = self.last_success.max(now);
        self.loss.slowest = self.loss.slowest.max(answer.took);
        if let Some(echo) = answer.echo() {
            *self.loss.pods.entry(echo.pod).or_default() += 1;
        }
    }

    fn failure(&mut self, after: Duration, why: String) {
        self.loss.failed += 1;
        if self.loss.failures.len() < MAX_FAILURES {
            self.loss.failures.push(Failure { after, why });
        }
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came back until now, or until it ended.
    fn loss(&self) -> Loss {
        let record = self.record();
        let until = record.stopped.unwrap_or_else(Instant::now).min(self.started + self.load.at_most);
        let open_gap = until.saturating_duration_since(record.last_success);
        let longest_gap = record.loss.longest_gap.max(open_gap);
        Loss { longest_gap, ran: until.saturating_duration_since(self.started), ..record.loss.clone() }
    }

    fn work(&self) {
        let mut kept = None;
        while let Some(due) = self.turn() {
            if !self.wait_until(due) {
                return;
            }
            self.record().loss.sent += 1;
            let outcome = match self.load.connections {
                Connections::Fresh => get(&self.from, &self.load.request, self.load.patience),
                Connections::Kept(_) => self.ask_on(&mut kept),
            };
            let (now, mut record) = (Instant::now(), self.record());
            match outcome {
                Ok(answer) if answer.status < 400 => record.success(&answer, now),
                Ok(answer) => record.failure(now - self.started, format!("status {}", answer.status)),
                Err(trouble) => record.failure(now - self.started, trouble.to_string()),
            }
        }
    }

    /// When this worker's next request is due. What everybody was too busy for is left out.
    fn turn(&self) -> Option<Instant> {
        let mut record = self.record();
        let pace = self.load.pace.max(Duration::from_micros(100));
        let elapsed = self.started.elapsed();
        let current = u32::try_from(elapsed.as_micros() / pace.as_micros()).unwrap_or(u32::MAX);
        let all = u32::try_from(self.load.at_most.as_nanos().div_ceil(pace.as_nanos())).unwrap_or(u32::MAX);
        if record.stopped.is_some() {
            return None;
        }
        let number = record.next.max(current).min(all);
        record.loss.not_sent += u64::from(number - record.next);
        record.next = number.saturating_add(1).min(all);
        (number < all).then(|| self.started + pace.saturating_mul(number))
    }

    /// Whether that moment came before the end.
    fn wait_until(&self, due: Instant) -> bool {
        loop {
            if self.record().stopped.is_some() {
                return false;
            }
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return true,
                early => std::thread::park_timeout(early),
            }
        }
    }

    fn ask_on(&self, kept: &mut Option<Connection>) -> Result<Answer, Trouble> {
        let Load { request, patience, .. } = &self.load;
        if let Some(mut connection) = kept.take() {
            match connection.get(request, *patience) {
                Err(Trouble::Ended) => self.record().loss.sent_again += 1,
                outcome => {
                    *kept = Some(connection).filter(|connection| connection.keeps());
                    return outcome;
                }
            }
        }
        let started = Instant::now();
        let mut connection = Connection::open(&self.from, request, *patience)?;
        let answer = connection.get(request, patience.saturating_sub(started.elapsed()))?;
        *kept = Some(connection).filter(|connection| connection.keeps());
        Ok(Answer { took: started.elapsed(), ..answer })
    }
}
