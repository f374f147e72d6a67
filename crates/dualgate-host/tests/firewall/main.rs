//! The firewall in a real kernel: each test has a network of its own, in a user namespace that this program made.
//!
//! This file has a `main` of its own because only a process with one thread may make a user namespace.

mod connections;
mod converge;
#[path = "../netfilter/compare.rs"]
mod nft;
mod plans;
mod trial;

use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};

use dualgate_host::namespace::{self, NamespaceError};
use dualgate_host::network::{Network, Switch};

/// A test and its name.
type Case = (&'static str, fn());

macro_rules! cases {
    ($($module:ident :: $name:ident,)*) => { &[$((stringify!($name), $module::$name),)*] };
}

const CASES: &[Case] = cases![
    converge::every_plan_of_the_seed_is_put_into_the_kernel_and_taken_out,
    converge::the_words_of_a_plan_are_read_by_nft_as_the_table_that_is_there,
    converge::a_table_of_somebody_else_is_left_alone,
    converge::a_table_of_another_running_process_is_left_alone,
    converge::a_restart_takes_the_table_over,
    converge::a_successor_goes_on_with_the_descriptor,
    converge::pods_that_come_and_go_leave_rules_and_counters_alone,
    converge::what_others_change_is_seen_and_restored,
    converge::a_flush_of_everything_passes_an_owned_table_by,
    converge::changes_of_others_are_told,
    converge::who_only_looks_sees_differences_and_counters,
    connections::who_is_connected_is_listed_with_the_way_that_he_came,
    trial::a_change_that_is_confirmed_stays,
    trial::a_change_that_nobody_confirms_is_undone,
    trial::the_time_that_is_left_is_told_to_whoever_asks,
    trial::what_is_remembered_of_a_change_goes_with_its_confirmation_alone,
    trial::what_was_open_to_people_is_known_to_the_next_process,
    trial::the_first_rules_of_all_are_undone_too,
    trial::a_change_is_undone_though_its_process_was_killed,
    trial::a_guard_that_is_terminated_undoes_at_once,
    trial::a_second_change_waits_for_the_first,
    trial::a_change_that_the_kernel_refuses_leaves_no_guard_behind,
];

const INSIDE: &str = "DUALGATE_TEST_INSIDE";

fn main() -> ExitCode {
    if let Some(code) = trial::other_roles() {
        return code;
    }
    if std::env::var_os(INSIDE).is_some() {
        return run();
    }
    match namespace::enter() {
        Ok(_) => {}
        Err(NamespaceError::Forbidden { help, .. }) => {
            eprintln!("SKIPPED: host::firewall: no user namespaces: {help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("enter namespaces: {error}"),
    }
    let itself = std::env::current_exe().expect("the path of this test");
    let status = Command::new(itself).args(std::env::args_os().skip(1)).env(INSIDE, "1").status();
    if status.expect("start this test again").success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cases whose names hold one of the arguments, or all.
fn run() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let mut failed = 0;
    for (name, test) in CASES.iter().filter(|(name, _)| chosen(name)) {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
            continue;
        }
        let passed = in_a_network(*test);
        failed += usize::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the test passes on a thread in a network that holds a loopback interface and nothing else.
fn in_a_network(test: fn()) -> bool {
    let network = namespace::network().expect("a network of its own");
    let outcome = namespace::in_network(network.as_fd(), || {
        let mut network = Network::open().map_err(std::io::Error::other)?;
        network.switch("lo", Switch::On).map_err(std::io::Error::other)?;
        test();
        Ok(())
    });
    outcome.inspect_err(|error| eprintln!("{error}")).is_ok()
}
