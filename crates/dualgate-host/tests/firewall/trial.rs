//! Commit-confirm: whatever happens, a change that nobody confirms is undone.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::plan::firewall::{FirewallPlan, Ways};
use dualgate_host::firewall::{
    Firewall, FirewallError, Guard, Held, Outcome, confirm, inspect, is_on_trial, remaining, stand_guard,
};
use dualgate_wire::nftables::Rule;

use crate::plans::{State, converge, now, other_ssh_port, seed, settled};

/// In whose place this program stands, and its state directory.
const GUARD: &str = "DUALGATE_TEST_GUARD";
const OPERATOR: &str = "DUALGATE_TEST_OPERATOR";
const SHORT: Duration = Duration::from_millis(400);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(10);

/// This program as a guard, or as somebody who changes the firewall and waits to be killed.
pub fn other_roles() -> Option<ExitCode> {
    if let Some(state) = std::env::var_os(GUARD) {
        let outcome = now(stand_guard(Path::new(&state)));
        return Some(outcome.map_or(ExitCode::FAILURE, |outcome| ExitCode::from(outcome.exit_code())));
    }
    let state = std::env::var_os(OPERATOR)?;
    let state = Path::new(&state);
    let mut firewall = Firewall::open(Some(state)).expect("nftables");
    let _guard = firewall.apply_on_trial(&other_ssh_port(), 3 * SHORT, state, &mut guard(state)).expect("a trial");
    println!("applied");
    loop {
        std::thread::park();
    }
}

fn guard(state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env_remove(OPERATOR).env(GUARD, state).stderr(Stdio::null());
    command
}

fn try_other_port(firewall: &mut Firewall, state: &State, patience: Duration) -> Guard {
    let guard = firewall.apply_on_trial(&other_ssh_port(), patience, state.path(), &mut guard(state.path()));
    guard.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

fn is_in_force(plan: &FirewallPlan) -> bool {
    inspect(plan).expect("a listing").differences.is_empty()
}

#[track_caller]
fn becomes(plan: &FirewallPlan) {
    let deadline = Instant::now() + DEADLINE;
    while !is_in_force(plan) {
        assert!(Instant::now() < deadline, "the former rules are not restored");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// On kernels with owners, and as on one without.
fn each_way(test: impl Fn(&mut Firewall, &State)) {
    for open in [Firewall::open, Firewall::open_shared] {
        let state = State::new();
        let mut firewall = open(Some(state.path())).expect("nftables");
        converge(&mut firewall, &seed("ionos", "")).expect("the former rules");
        test(&mut firewall, &state);
        converge(&mut firewall, &Arc::new(FirewallPlan::default())).expect("off");
    }
}

pub fn a_change_that_is_confirmed_stays() {
    each_way(|firewall, state| {
        let mut guard = try_other_port(firewall, state, LONG);
        assert!(is_in_force(&other_ssh_port()));
        assert_eq!(guard.outcome().expect("a guard"), None);
        confirm(state.path()).expect("it is confirmed");
        assert_eq!(guard.wait().expect("a guard"), Outcome::Confirmed);
        firewall.concluded(&guard, Outcome::Confirmed);
        settled(firewall, &other_ssh_port());
        let again = confirm(state.path()).expect_err("nothing is left to confirm");
        assert!(matches!(again, FirewallError::NothingToConfirm(_)), "{again}");
    });
}

pub fn a_change_that_nobody_confirms_is_undone() {
    each_way(|firewall, state| {
        let mut guard = try_other_port(firewall, state, SHORT);
        assert!(is_in_force(&other_ssh_port()));
        assert_eq!(guard.wait().expect("a guard"), Outcome::Undone);
        assert!(is_in_force(&seed("ionos", "")));
        firewall.concluded(&guard, Outcome::Undone);
        settled(firewall, &seed("ionos", ""));
    });
}

pub fn the_time_that_is_left_is_told_to_whoever_asks() {
    each_way(|firewall, state| {
        assert_eq!((is_on_trial(state.path()), remaining(state.path())), (false, None));
        let mut guard = try_other_port(firewall, state, LONG);
        assert!(is_on_trial(state.path()));
        let first = remaining(state.path()).expect("a trial");
        let second = remaining(state.path()).expect("asking ends nothing");
        assert!(LONG >= first && first >= second && second > LONG - DEADLINE, "{first:?}, {second:?}");
        confirm(state.path()).expect("it is confirmed");
        assert_eq!(guard.wait().expect("a guard"), Outcome::Confirmed);
        assert_eq!((is_on_trial(state.path()), remaining(state.path())), (false, None));
    });
}

pub fn what_is_remembered_of_a_change_goes_with_its_confirmation_alone() {
    each_way(|firewall, state| {
        let plan = other_ssh_port();
        let kept = plan.missing(&seed("ionos", "").ways(), &[]);
        assert_eq!(kept.len(), 1);
        let held = Held { refused: plan.ways(), kept, who: "198.51.100.7".to_owned() };
        held.write(state.path()).expect("it is written");
        let mut guard = try_other_port(firewall, state, SHORT);
        assert_eq!(guard.wait().expect("a guard"), Outcome::Undone);
        firewall.concluded(&guard, Outcome::Undone);
        assert_eq!(Held::read(state.path()).expect("it is there"), Some(held));
        assert_eq!(firewall.former().expect("it is known"), seed("ionos", "").ways());
        let mut guard = try_other_port(firewall, state, LONG);
        confirm(state.path()).expect("it is confirmed");
        assert_eq!(guard.wait().expect("a guard"), Outcome::Confirmed);
        firewall.concluded(&guard, Outcome::Confirmed);
        assert_eq!(Held::read(state.path()).expect("it is gone"), None);
        assert_eq!(firewall.former().expect("it is known"), plan.ways());
    });
}

pub fn what_was_open_to_people_is_known_to_the_next_process() {
    each_way(|firewall, state| {
        let ways = seed("ionos", "").ways();
        assert!(matches!(&ways, Ways::These(ways) if ways.len() == 1), "{ways:?}");
        let next = || Firewall::open(Some(state.path())).expect("nftables").former().expect("it can be read");
        assert_eq!(next(), ways);
        let mut guard = try_other_port(firewall, state, SHORT);
        assert_eq!(next(), ways, "it is on trial");
        assert_eq!(guard.wait().expect("a guard"), Outcome::Undone);
        assert_eq!(next(), ways);
        firewall.concluded(&guard, Outcome::Undone);
        converge(firewall, &seed("k3s-node1", "")).expect("it shuts nothing for people");
        assert_eq!(next(), Ways::All);
        std::fs::write(state.path().join("firewall.rules"), "what nobody understands").expect("a file");
        assert_eq!(next(), Ways::All);
    });
    assert_eq!(Firewall::open(None).expect("nftables").former().expect("nothing is read"), Ways::All);
}

pub fn the_first_rules_of_all_are_undone_too() {
    let state = State::new();
    let mut firewall = Firewall::open(Some(state.path())).expect("nftables");
    let mut guard = try_other_port(&mut firewall, &state, SHORT);
    assert!(is_in_force(&other_ssh_port()));
    assert_eq!(guard.wait().expect("a guard"), Outcome::Undone);
    assert!(is_in_force(&FirewallPlan::default()));
}

pub fn a_change_is_undone_though_its_process_was_killed() {
    let state = State::new();
    let before = seed("ionos", "");
    let mut firewall = Firewall::open(Some(state.path())).expect("nftables");
    converge(&mut firewall, &before).expect("the former rules");
    // The table is an orphan from here on, as after a restart.
    drop(firewall);
    let (mut operator, word) = operator(state.path());
    assert_eq!(word, "applied\n");
    assert!(is_in_force(&other_ssh_port()));
    operator.kill().expect("it is killed");
    operator.wait().expect("it is gone");
    assert!(is_in_force(&other_ssh_port()), "its time is not over");
    becomes(&before);
    let mut firewall = Firewall::open(Some(state.path())).expect("nftables");
    // The guard has let go of the table a moment after.
    let deadline = Instant::now() + DEADLINE;
    while matches!(converge(&mut firewall, &before), Err(FirewallError::Taken { .. })) {
        assert!(Instant::now() < deadline, "the guard does not let go");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    settled(&mut firewall, &before);
}

fn operator(state: &Path) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let mut operator = command.env(OPERATOR, state).stdout(Stdio::piped()).spawn().expect("another process");
    let mut word = String::new();
    BufReader::new(operator.stdout.take().expect("its output")).read_line(&mut word).expect("a word");
    (operator, word)
}

pub fn a_guard_that_is_terminated_undoes_at_once() {
    each_way(|firewall, state| {
        let mut guard = try_other_port(firewall, state, LONG);
        let process = i32::try_from(guard.process()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
        rustix::process::kill_process(process, rustix::process::Signal::HUP).expect("it is there");
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it is there");
        assert_eq!(guard.wait().expect("a guard"), Outcome::Undone);
        assert!(is_in_force(&seed("ionos", "")));
        firewall.concluded(&guard, Outcome::Undone);
    });
}

pub fn a_second_change_waits_for_the_first() {
    each_way(|firewall, state| {
        let mut first = try_other_port(firewall, state, LONG);
        let second = firewall.apply_on_trial(&seed("ionos", ""), LONG, state.path(), &mut guard(state.path()));
        assert!(matches!(second, Err(FirewallError::Pending)), "{second:?}");
        confirm(state.path()).expect("it is confirmed");
        assert_eq!(first.wait().expect("a guard"), Outcome::Confirmed);
    });
}

pub fn a_change_that_the_kernel_refuses_leaves_no_guard_behind() {
    each_way(|firewall, state| {
        let mut wrong = (*seed("ionos", "")).clone();
        let table = wrong.table.as_mut().expect("a table");
        let nowhere = dualgate_wire::nftables::Action::Jump("nowhere".to_owned());
        table.chains[0].rules.push(Rule::new(Vec::new(), nowhere));
        let refused = firewall.apply_on_trial(&Arc::new(wrong), LONG, state.path(), &mut guard(state.path()));
        assert!(matches!(refused, Err(FirewallError::Netfilter(_))), "{refused:?}");
        assert!(matches!(confirm(state.path()), Err(FirewallError::NothingToConfirm(_))));
        assert!(is_in_force(&seed("ionos", "")));
    });
}
