//! Rules in a real kernel: each test has a network of its own, in a user namespace that this program made.
//!
//! This file has a `main` of its own because only a process with one thread may make a user namespace.

mod compare;
#[path = "../../../dualgate-wire/tests/nftables/examples.rs"]
mod examples;
mod ownership;
mod packets;
mod tables;

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
    tables::a_home_router_is_what_was_written,
    tables::every_word_is_what_was_written,
    tables::a_table_for_arp_is_what_was_written,
    tables::a_table_that_hands_packets_to_a_neighbour_is_what_was_written,
    tables::a_single_chain_is_asked_for,
    tables::a_refused_rule_is_named_and_nothing_changes,
    tables::what_cannot_be_said_is_named,
    tables::a_check_changes_nothing,
    tables::a_table_that_is_not_there_can_be_deleted,
    tables::elements_come_and_go,
    tables::a_change_that_is_too_large_is_named,
    tables::what_others_change_is_seen,
    ownership::an_owned_table_is_changed_by_its_owner_only,
    ownership::a_persistent_table_stays_and_is_taken_over,
    ownership::a_table_without_persistence_goes_with_its_owner,
    ownership::a_socket_that_was_handed_over_owns_the_table,
    ownership::without_owners_every_table_is_shared_and_can_be_restored,
    ownership::a_watch_tells_of_each_change,
    ownership::without_the_right_to_change_rules_it_says_so,
    packets::a_dropped_port_is_silent_and_counted,
    packets::a_rejected_port_answers_at_once,
    packets::sets_decide_by_source_and_port,
    packets::a_destination_is_translated,
    packets::each_source_has_its_own_limit,
    packets::connections_are_counted_for_each_source,
    packets::marks_are_kept_with_the_connection,
    packets::answers_pass_a_filter_that_nobody_else_passes,
    packets::the_largest_segment_is_clamped,
    packets::the_kernel_does_not_answer_for_a_virtual_address,
];

const INSIDE: &str = "DUALGATE_TEST_INSIDE";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        return run();
    }
    match namespace::enter() {
        Ok(_) => {}
        Err(NamespaceError::Forbidden { help, .. }) => {
            eprintln!("SKIPPED: host::netfilter: no user namespaces: {help}");
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
