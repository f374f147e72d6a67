//! Another controller that sets back whatever we write: how often we write.

use std::time::Duration;

use dualgate_core::machine::writes::{Answer, LONGEST, SETTLE, Writes, YIELD};
use dualgate_core::model::finding::Code;
use dualgate_core::model::{NodeName, ObjectName};
use dualgate_core::plan::cluster::{ClusterPlan, EDGE_LABELS};
use serde_json::{Value, json};

use super::api::Api;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: u64 = 3600;

/// An Ingress at whose status two controllers write.
struct Ring {
    api: Api,
    writes: Writes,
    plan: ClusterPlan,
    now: Duration,
    /// How soon the other one sets it back; `None` is never.
    other: Option<Duration>,
    set_back_at: Option<Duration>,
    /// How late we see what is.
    late: Duration,
    seen: Option<Duration>,
    sent: Vec<Duration>,
    forced: usize,
}

fn theirs() -> Value {
    json!([{ "ip": "192.168.178.1" }])
}

impl Ring {
    fn new(other: Option<Duration>, late: Duration) -> Self {
        let mut api = Api::default();
        api.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "a", "namespace": "default"}, "spec": {"rules": [{}]},
        }));
        if other.is_some() {
            api.update("traefik", "Ingress default/a", theirs());
        }
        let mut ring = Self {
            api,
            writes: Writes::default(),
            plan: ClusterPlan::default(),
            now: SECOND,
            other,
            set_back_at: None,
            late,
            seen: Some(SECOND),
            sent: Vec::new(),
            forced: 0,
        };
        ring.plan(10);
        ring
    }

    fn plan(&mut self, number: u8) {
        let addresses = [[192, 168, 178, number].into()];
        self.plan.ingresses.insert(ObjectName::new("default", "a"), addresses.into_iter().collect());
        self.seen = Some(self.now + self.late);
    }

    fn run(&mut self, time: u64) {
        let end = self.now + SECOND * time as u32;
        while self.now < end {
            self.now += SECOND;
            if self.set_back_at.is_some_and(|at| at <= self.now) {
                self.set_back_at = None;
                self.api.update("traefik", "Ingress default/a", theirs());
                self.seen = Some(self.now + self.late);
            }
            if self.seen.is_some_and(|at| at <= self.now) {
                self.seen = None;
                self.writes.want(&self.plan.diff(&self.api.set()), self.now);
            }
            while let Some(send) = self.writes.poll_write(self.now) {
                self.sent.push(self.now);
                self.forced += usize::from(send.force);
                let answer = match self.api.try_apply(&send.write, send.force, 0) {
                    Ok(()) => Answer::Made,
                    Err(_) => Answer::Conflict,
                };
                self.writes.handle_answer(&send.write.object, answer, self.now);
                self.set_back_at = self.other.map(|delay| self.now + delay);
                self.seen = Some(self.now + self.late);
            }
        }
    }
}

#[test]
fn against_a_controller_that_insists_the_number_of_writes_is_bounded() {
    // At once, as Traefik and MetalLB do; after a resync; just before and after all is forgotten.
    for delay in [0, 1, 7, 45, 120, 600, HOUR - 1, HOUR + 60] {
        for late in [0, 1, 10] {
            let mut ring = Ring::new(Some(SECOND * delay as u32), SECOND * late);
            ring.run(24 * HOUR);
            let first_day = ring.sent.len();
            ring.run(24 * HOUR);
            let second_day = ring.sent.len() - first_day;
            assert!(first_day <= 27 && second_day <= 24, "{delay} s: {first_day}, then {second_day} writes");
            assert!(first_day >= 12, "{delay} s: it is tried again: {first_day}");
        }
    }
}

#[test]
fn a_contest_is_a_finding_that_names_the_other_controller_and_ends_with_it() {
    let mut ring = Ring::new(Some(SECOND), SECOND);
    ring.run(60);
    let findings = ring.writes.findings();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!((finding.code, finding.at.to_string().as_str()), (Code::StatusContested, "Ingress default/a"));
    assert!(finding.message.contains("`traefik`"), "{finding}");
    let contests: Vec<_> = ring.writes.contests().collect();
    assert_eq!((contests.len(), contests[0].times, ring.sent.len()), (1, 1, 1));
    assert_eq!(contests[0].other.as_deref(), Some("traefik"));
    assert!(contests[0].again >= YIELD && contests[0].again <= YIELD + SETTLE + SECOND * 10);
    ring.other = None;
    ring.run(400);
    assert_eq!((ring.sent.len(), ring.forced), (2, 2));
    assert_eq!((ring.writes.findings(), ring.writes.contests().count()), (vec![], 0));
    ring.run(LONGEST.as_secs() * 2);
    ring.plan(11);
    ring.run(10);
    assert_eq!(ring.sent.len(), 3, "all is as if it had never been");
}

#[test]
fn a_change_of_the_plan_does_not_reopen_a_contest() {
    let mut ring = Ring::new(Some(SECOND), SECOND);
    ring.run(60);
    for number in 20..60 {
        ring.plan(number);
        ring.run(5);
    }
    assert_eq!(ring.sent.len(), 1);
    ring.run(HOUR);
    assert!(ring.sent.len() <= 5, "{:?}", ring.sent);
}

#[test]
fn after_a_long_contest_a_change_of_the_plan_is_said_within_minutes() {
    let mut ring = Ring::new(Some(SECOND), SECOND);
    ring.run(12 * HOUR);
    let last = *ring.sent.last().unwrap();
    ring.run(YIELD.as_secs() + 10);
    assert_eq!(ring.sent.last(), Some(&last), "it is left to the other one for an hour");
    // The other one goes, and leaves behind what it wrote.
    ring.other = None;
    ring.plan(20);
    ring.run(10);
    assert!(*ring.sent.last().unwrap() > last, "{:?}", ring.sent);
    assert_eq!((ring.writes.findings(), ring.writes.contests().count()), (vec![], 0));
}

#[test]
fn without_another_controller_each_change_is_written_once_and_without_force() {
    for late in [0, 1, 29] {
        let mut ring = Ring::new(None, SECOND * late);
        ring.run(60);
        for number in 20..60 {
            ring.plan(number);
            ring.run(70);
        }
        ring.run(3 * HOUR);
        assert_eq!((ring.sent.len(), ring.forced, ring.writes.counts().contested), (41, 0, 0));
        assert_eq!(ring.writes.count_wanted(), 0);
    }
}

#[test]
fn a_status_that_another_controller_left_behind_is_taken_over_once() {
    let mut ring = Ring::new(None, SECOND);
    ring.api.update("traefik", "Ingress default/a", theirs());
    ring.run(24 * HOUR);
    assert_eq!((ring.sent.len(), ring.forced, ring.writes.counts().contested), (1, 1, 0));
}

#[test]
fn a_conflict_that_the_objects_do_not_tell_of_is_overcome_once() {
    let mut ring = Ring::new(None, SECOND);
    let stale = ring.api.set();
    ring.api.update("traefik", "Ingress default/a", theirs());
    ring.writes.want(&ring.plan.diff(&stale), ring.now);
    ring.seen = None;
    ring.run(60);
    assert_eq!((ring.sent.len(), ring.forced), (2, 1));
    let counts = ring.writes.counts();
    assert_eq!((counts.made, counts.failed, counts.contested), (1, 1, 0));
}

#[test]
fn an_api_server_that_is_away_pauses_everything_and_a_refusal_only_its_object() {
    let mut api = Api::default();
    let mut plan = ClusterPlan::default();
    for number in 0..50 {
        let name = format!("i{number:02}");
        api.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"rules": [{}]},
        }));
        plan.ingresses.insert(ObjectName::new("default", name), [[10, 0, 0, 1].into()].into_iter().collect());
    }
    let mut writes = Writes::default();
    writes.want(&plan.diff(&api.set()), SECOND);
    let mut sent = 0;
    for second in 1..600 {
        while let Some(send) = writes.poll_write(SECOND * second) {
            sent += 1;
            writes.handle_answer(&send.write.object, Answer::Away(None), SECOND * second);
        }
    }
    assert!((5..20).contains(&sent), "{sent} requests in ten minutes");
    let mut refused = 0;
    for second in 600..1200 {
        let mut under_way = Vec::new();
        while let Some(send) = writes.poll_write(SECOND * second) {
            under_way.push(send);
        }
        assert!(under_way.len() <= 4);
        for send in under_way {
            let answer = match &*send.write.object.name.name {
                "i07" => Answer::Refused("it is wrong".to_owned()),
                _ => Answer::Made,
            };
            refused += usize::from(answer != Answer::Made);
            if answer == Answer::Made {
                api.apply(&send.write, 0);
            }
            writes.handle_answer(&send.write.object, answer, SECOND * second);
            writes.want(&plan.diff(&api.set()), SECOND * second);
        }
    }
    assert_eq!((writes.counts().made, writes.count_wanted()), (49, 1));
    assert!((5..20).contains(&refused), "{refused}");
    let findings = writes.findings();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(finding.code, Code::ClusterWrite);
    assert!(finding.to_string().starts_with("Ingress default/i07: "), "{finding}");
}

#[test]
fn what_is_forbidden_is_one_finding_that_names_verb_and_resource() {
    let mut ring = Ring::new(None, SECOND);
    ring.writes.want(&ring.plan.diff(&ring.api.set()), SECOND);
    let send = ring.writes.poll_write(SECOND).expect("a write");
    ring.writes.handle_answer(&send.write.object, Answer::Forbidden, SECOND);
    let findings = ring.writes.findings();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert_eq!(finding.code, Code::ClusterForbidden);
    assert!(finding.message.contains("`patch` `ingresses/status`"), "{finding}");
    ring.run(60);
    assert_eq!((ring.writes.findings(), ring.writes.counts().made), (vec![], 1));
}

#[test]
fn what_was_forbidden_is_not_any_more_once_it_was_made_however_fast_the_objects_say_so() {
    let mut ring = Ring::new(None, SECOND);
    ring.writes.want(&ring.plan.diff(&ring.api.set()), SECOND);
    let send = ring.writes.poll_write(SECOND).expect("a write");
    ring.writes.handle_answer(&send.write.object, Answer::Forbidden, SECOND);
    let again = ring.writes.poll_write(SECOND * 2).expect("it again");
    ring.api.apply(&again.write, 0);
    ring.writes.want(&ring.plan.diff(&ring.api.set()), SECOND * 2);
    ring.writes.handle_answer(&again.write.object, Answer::Made, SECOND * 2);
    assert_eq!(ring.writes.findings(), []);
}

#[test]
fn labels_of_a_former_edge_that_may_not_be_taken_back_are_told_with_the_command_that_does() {
    let mut api = Api::default();
    api.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge"}}));
    let label = |plan: &ClusterPlan, api: &mut Api| plan.diff(&api.set()).iter().for_each(|write| api.apply(write, 0));
    let labels = EDGE_LABELS.iter().map(|key| (*key, "true")).collect();
    label(&ClusterPlan { labels: [(NodeName::new("edge"), labels)].into(), ..ClusterPlan::default() }, &mut api);
    let mut writes = Writes::default();
    writes.want(&ClusterPlan::default().diff(&api.set()), SECOND);
    let send = writes.poll_write(SECOND).expect("a write");
    assert_eq!((send.write.to_string().as_str(), send.force), ("Node edge: nothing of ours", false));
    writes.handle_answer(&send.write.object, Answer::Forbidden, SECOND);
    let findings = writes.findings();
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(finding.message.contains("`kubectl label node edge node-role.kubernetes.io/edge- "), "{finding}");
}
