//! When what is written: each change once, and never against another controller that insists.
//!
//! [`Writes::want`] hears the difference between what is planned and what the objects say, each time either is known
//! anew; [`Writes::poll_write`] gives what is to be sent, and [`Writes::handle_answer`] hears what became of it. One write
//! of an object is under way at a time, and few of all.
//!
//! **Once.** What was written is not written again until the objects say it, or [`SETTLE`] has passed: they come later
//! than the answer.
//!
//! **Contested.** What was written, and then says something else although the plan has not changed, was set back by
//! another controller. It is left alone for [`YIELD`], the next time for twice as long, at most [`LONGEST`]; a change of the
//! plan shortens that to [`YIELD`] again, and what stands for [`LONGEST`] is settled. So whatever another one does, an object is written at most 27 times in a day, and 24 in each
//! further one, beyond once for each change of the plan.
//!
//! **Failing.** An API server that is away, or that is busy, pauses everything; a refusal, only its object.
//!
//! Only the holder of the Lease asks for anything; whoever loses it forgets all of this.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::finding::{Code, Finding, Place};
use crate::model::{ObjectKey, Text};
use crate::plan::cluster::{EDGE_LABELS, Fields, Write};

pub mod events;

/// How long the objects may take to say what was written.
pub const SETTLE: Duration = Duration::from_secs(30);

/// How long an object that another controller set back is left to it, the first time.
pub const YIELD: Duration = Duration::from_secs(5 * 60);

/// The longest that it is.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// How many writes are under way at most.
pub const AT_ONCE: usize = 4;

/// The pauses after failures: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// A write that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// What.
    pub write: Arc<Write>,
    /// Whether fields of other managers are taken over.
    pub force: bool,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was made.
    Made,
    /// Another manager has a field of it.
    Conflict,
    /// The object is gone.
    Gone,
    /// It is not allowed.
    Forbidden,
    /// It was refused, in these words.
    Refused(String),
    /// The API server is away or busy, and may say for how long.
    Away(Option<Duration>),
}

/// What has been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were made.
    pub made: u64,
    /// Writes that were not made.
    pub failed: u64,
    /// How often another controller set a value back.
    pub contested: u64,
}

/// An object that another controller sets back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The object.
    pub object: ObjectKey,
    /// The other field manager, where it is known.
    pub other: Option<Text>,
    /// How often it did.
    pub times: u32,
    /// When it is tried again.
    pub again: Duration,
}

/// What is written, and when.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    jobs: BTreeMap<ObjectKey, Job>,
    /// Those that do not stand: few, while the others are as many as the objects.
    open: BTreeSet<ObjectKey>,
    /// When which job that does not stand is to be looked at.
    agenda: BTreeSet<(Duration, ObjectKey)>,
    /// When those that stand are to be looked at, all of them: the first has been there for long.
    review: Option<Duration>,
    under_way: usize,
    /// Nothing is sent before, because the API server is away.
    pause: Duration,
    pauses: u32,
    counts: Counts,
    /// Resources that may not be patched.
    forbidden: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Job {
    /// What is to be written; `None` when the object says what is planned.
    wanted: Option<Arc<Write>>,
    /// What was written last.
    written: Option<Fields>,
    state: State,
    /// Where it stands in the agenda.
    at: Duration,
    /// Hardly any job has some.
    troubles: Option<Box<Troubles>>,
}

/// What stood in the way of a job so far.
#[derive(Clone, Debug, Default)]
struct Troubles {
    /// How often another one set it back.
    lost: u32,
    /// When it was seen to have done so last.
    lost_at: Duration,
    refusals: u32,
    /// Whether another manager was in the way, which the object does not tell.
    had_conflict: bool,
    /// Why it was refused.
    refused: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is to be written when its time comes.
    Due,
    /// It is left to another controller until then.
    Yielding,
    /// A write is under way.
    UnderWay,
    /// It was written; the objects do not say so yet.
    Settling,
    /// The objects said so; it is remembered for a while.
    Stands,
}

impl Writes {
    /// Hears all that is to be written. What is not in it says what is planned.
    pub fn want(&mut self, writes: &[Arc<Write>], now: Duration) {
        let mut wanted: BTreeMap<ObjectKey, Arc<Write>> =
            writes.iter().map(|write| (write.object.clone(), write.clone())).collect();
        let falls = |key: &&ObjectKey| self.jobs.contains_key(*key) && !self.open.contains(*key);
        let moved: Vec<ObjectKey> = self.open.iter().chain(wanted.keys().filter(falls)).cloned().collect();
        for key in moved {
            match wanted.remove(&key) {
                Some(write) => self.differs(&key, write, now),
                None => self.agrees(&key, now),
            }
        }
        self.agenda.extend(wanted.keys().map(|key| (now, key.clone())));
        self.open.extend(wanted.keys().cloned());
        let new = wanted.into_iter().map(|(key, write)| (key, Job::new(write, now)));
        // Maps that are made in one go are packed, and the first ones are most of all.
        match self.jobs.is_empty() {
            true => self.jobs = new.collect(),
            false => self.jobs.extend(new),
        }
    }

    /// The next write that is to be sent at `now`, if there is one.
    pub fn poll_write(&mut self, now: Duration) -> Option<Send> {
        if self.review.is_some_and(|at| at <= now) {
            self.forget_standing(now);
        }
        while let Some((at, key)) = self.agenda.first().filter(|(at, _)| *at <= now).cloned() {
            let Some(job) = self.jobs.get(&key) else {
                self.agenda.remove(&(at, key));
                continue;
            };
            match job.state {
                State::Due | State::Yielding => {
                    if self.under_way >= AT_ONCE || now < self.pause {
                        return None;
                    }
                    self.agenda.remove(&(at, key.clone()));
                    let job = self.jobs.get_mut(&key)?;
                    let write = job.wanted.clone()?;
                    self.under_way += 1;
                    (job.state, job.written) = (State::UnderWay, Some(write.fields.clone()));
                    let had_conflict = job.troubles.as_ref().is_some_and(|troubles| troubles.had_conflict);
                    return Some(Send { force: had_conflict || write.replaces.is_some(), write });
                }
                State::Settling if job.wanted.is_some() => self.set_back(&key, now),
                State::Settling => self.schedule(&key, State::Stands, now + LONGEST),
                State::Stands | State::UnderWay => drop(self.agenda.remove(&(at, key))),
            }
        }
        None
    }

    /// When something may be to be sent.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = self.agenda.first().and_then(|(at, key)| {
            let sends = self.jobs.get(key).is_some_and(|job| matches!(job.state, State::Due | State::Yielding));
            match (sends, self.under_way >= AT_ONCE) {
                (true, true) => None,
                (true, false) => Some((*at).max(self.pause)),
                (false, _) => Some(*at),
            }
        });
        due.into_iter().chain(self.review).min()
    }

    /// What became of the write of an object.
    pub fn handle_answer(&mut self, object: &ObjectKey, answer: Answer, now: Duration) {
        let Some(job) = self.jobs.get_mut(object).filter(|job| job.state == State::UnderWay) else { return };
        self.under_way -= 1;
        // The plan may be another one by now; the answer is about what was sent.
        let sent = job.written.clone();
        let resource = sent.as_ref().map(|fields| fields.resource(object));
        match answer {
            Answer::Made => self.counts.made += 1,
            // Perhaps it was made.
            Answer::Away(_) => self.counts.failed += 1,
            Answer::Conflict | Answer::Gone | Answer::Forbidden | Answer::Refused(_) => {
                self.counts.failed += 1;
                job.written = None;
            }
        }
        match answer {
            Answer::Made => self.made(object, resource.as_deref(), now),
            Answer::Gone => self.refuse(object, None, now),
            Answer::Conflict => {
                job.troubles().had_conflict = true;
                self.refuse(object, None, now);
            }
            Answer::Forbidden if sent.is_some_and(|fields| fields.takes_labels_back()) => {
                self.refuse(object, Some(format!("it may not; {}", labels_help(object))), now);
            }
            Answer::Forbidden => {
                self.forbidden.extend(resource);
                self.refuse(object, None, now);
            }
            Answer::Refused(why) => self.refuse(object, Some(why), now),
            Answer::Away(pause) => self.rest(object, pause, now),
        }
    }

    /// The Lease is lost: others write. What is under way ends unheard.
    pub fn forget_all(&mut self) {
        *self = Self { counts: self.counts, ..Self::default() };
    }

    /// What has been counted, over all Leases.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many objects do not say what is planned.
    pub fn count_wanted(&self) -> usize {
        self.wanted().count()
    }

    /// The objects that another controller sets back.
    pub fn contests(&self) -> impl Iterator<Item = Contest> {
        self.wanted().filter(|(_, job)| job.lost() > 0).map(|(object, job)| Contest {
            object: object.clone(),
            other: job.wanted.as_ref().and_then(|write| write.replaces.clone()),
            times: job.lost(),
            again: job.at,
        })
    }

    /// What does not work.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (object, job) in self.wanted() {
            if job.lost() > 0 {
                findings.push(contested(object, job));
            }
            if let Some(why) = job.troubles.as_ref().and_then(|troubles| troubles.refused.as_ref()) {
                let message = format!("the API server refuses what is to be written: {why}");
                findings.push(Finding::new(Code::ClusterWrite, Place::object(object), message));
            }
        }
        for resource in &self.forbidden {
            let message = format!("it may not `patch` `{resource}`, so what is to be written there is not");
            let finding = Finding::new(Code::ClusterForbidden, Place::default(), message);
            findings.push(finding.help("run `dualgate install` again: it grants the rights that are needed"));
        }
        findings
    }

    /// The objects that do not say what is planned.
    fn wanted(&self) -> impl Iterator<Item = (&ObjectKey, &Job)> {
        let open = self.open.iter().filter_map(|key| self.jobs.get_key_value(key));
        open.filter(|(_, job)| job.wanted.is_some())
    }

    fn made(&mut self, object: &ObjectKey, resource: Option<&str>, now: Duration) {
        (self.pauses, self.pause) = (0, Duration::ZERO);
        self.forbidden.retain(|forbidden| Some(forbidden.as_str()) != resource);
        let Some(job) = self.jobs.get_mut(object) else { return };
        job.forgive();
        match (&job.wanted, &job.written) {
            (Some(wanted), Some(written)) if wanted.fields == *written => {
                self.schedule(object, State::Settling, now + SETTLE);
            }
            // The plan has changed meanwhile.
            (Some(_), _) => self.schedule(object, State::Due, now),
            // The objects were faster than the answer.
            (None, _) => self.schedule(object, State::Stands, now + LONGEST),
        }
    }

    /// The API server is away or busy. Those that were sent before it was known to be tell nothing more.
    fn rest(&mut self, object: &ObjectKey, pause: Option<Duration>, now: Duration) {
        if now >= self.pause {
            self.pause = now + pause.unwrap_or_else(|| doubled(PAUSE, self.pauses)).min(PAUSE.1);
            self.pauses = self.pauses.saturating_add(1);
        }
        self.schedule(object, State::Due, now);
    }

    /// The object says something else than what is planned.
    fn differs(&mut self, key: &ObjectKey, write: Arc<Write>, now: Duration) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let is_as_written = job.written.as_ref() == Some(&write.fields);
        let is_as_wanted = job.wanted.as_ref().is_some_and(|wanted| wanted.fields == write.fields);
        job.wanted = Some(write);
        match (job.state, is_as_written) {
            // What was refused was something else.
            (State::Due, _) if !is_as_wanted && job.forgive() => {
                self.schedule(key, State::Due, now);
            }
            // As what was set back was.
            (State::Yielding, false) if !is_as_wanted => {
                let again = job.at.min(job.troubles().lost_at + YIELD);
                self.schedule(key, State::Yielding, again);
            }
            // It waits for its turn, or for an answer, or for the objects.
            (State::Due | State::Yielding | State::UnderWay, _) | (State::Settling, true) => {}
            (State::Stands, true) => self.set_back(key, now),
            (State::Settling | State::Stands, false) => self.schedule(key, State::Due, now),
        }
    }

    /// The object says what is planned.
    fn agrees(&mut self, key: &ObjectKey, now: Duration) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.wanted = None;
        match job.state {
            State::Due if job.lost() == 0 && job.written.is_none() => self.forget(key),
            State::Due | State::Yielding | State::Settling => self.schedule(key, State::Stands, now + LONGEST),
            State::UnderWay | State::Stands => {}
        }
    }

    /// Another controller has set it back.
    fn set_back(&mut self, key: &ObjectKey, now: Duration) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        self.counts.contested += 1;
        let wait = doubled((YIELD, LONGEST), job.lost());
        let troubles = job.troubles();
        (troubles.lost, troubles.lost_at) = (troubles.lost.saturating_add(1), now);
        self.schedule(key, State::Yielding, now + wait);
    }

    fn refuse(&mut self, key: &ObjectKey, why: Option<String>, now: Duration) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        let troubles = job.troubles();
        troubles.refused = why.map(Into::into);
        let pause = doubled(PAUSE, troubles.refusals);
        troubles.refusals = troubles.refusals.saturating_add(1);
        match job.wanted {
            Some(_) => self.schedule(key, State::Due, now + pause),
            None => self.forget(key),
        }
    }

    fn schedule(&mut self, key: &ObjectKey, state: State, at: Duration) {
        let Some(job) = self.jobs.get_mut(key) else { return };
        self.agenda.remove(&(job.at, key.clone()));
        (job.state, job.at) = (state, at);
        match state {
            State::Stands => {
                self.open.remove(key);
                self.review.get_or_insert(at);
            }
            State::Due | State::Yielding | State::UnderWay | State::Settling => {
                self.open.insert(key.clone());
                self.agenda.insert((at, key.clone()));
            }
        }
    }

    /// Those that have stood for long. There may be as many as objects, and each of them has its own time: they are not
    /// looked at again for every one.
    fn forget_standing(&mut self, now: Duration) {
        self.jobs.retain(|_, job| job.state != State::Stands || job.at > now);
        let first = self.jobs.values().filter(|job| job.state == State::Stands).map(|job| job.at).min();
        self.review = first.map(|at| at.max(now + SETTLE));
    }

    fn forget(&mut self, key: &ObjectKey) {
        self.open.remove(key);
        if let Some(job) = self.jobs.remove(key) {
            self.agenda.remove(&(job.at, key.clone()));
        }
    }
}

impl Job {
    fn new(write: Arc<Write>, now: Duration) -> Self {
        Self { wanted: Some(write), written: None, state: State::Due, at: now, troubles: None }
    }

    fn troubles(&mut self) -> &mut Troubles {
        self.troubles.get_or_insert_default()
    }

    /// How often another one set it back.
    fn lost(&self) -> u32 {
        self.troubles.as_ref().map_or(0, |troubles| troubles.lost)
    }

    /// A refusal counts no more; whether there was one.
    fn forgive(&mut self) -> bool {
        let Some(troubles) = &mut self.troubles else { return false };
        troubles.refusals = 0;
        troubles.refused.take().is_some()
    }
}

/// Rights are for the site's edges only, and this is none any more.
fn labels_help(object: &ObjectKey) -> String {
    let [role, restricted] = EDGE_LABELS;
    format!("`kubectl label node {} {role}- {restricted}-` takes the labels of a former edge back", object.name)
}

fn contested(object: &ObjectKey, job: &Job) -> Finding {
    let other = job.wanted.as_ref().and_then(|write| write.replaces.as_deref());
    let other = other.map_or("another controller".to_owned(), |manager| format!("another controller (`{manager}`)"));
    let message = format!("{other} sets back what is written there; it is left to it, and tried again within the hour");
    let help = "let only one of them serve it: take the other one away, or give the object another class";
    Finding::new(Code::StatusContested, Place::object(object), message).help(help)
}

/// The first, doubled so many times, up to the longest.
fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}
