//! The data path of virtual IPs in a real kernel: hosts on a LAN, in namespaces that this program made.
//!
//! This file has a `main` of its own because only a process with one thread may make a user namespace.

mod converge;
mod edges;
mod lan;
#[path = "../netfilter/compare.rs"]
mod nft;
mod relay;
mod service_proxy;
mod silence;

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
    converge::a_path_is_made_once_and_taken_away_without_a_trace,
    converge::silence_comes_before_routes_and_goes_after_them,
    converge::a_successor_finds_what_a_predecessor_left,
    converge::what_others_remove_is_restored,
    converge::a_flush_of_everything_passes_owned_tables_by,
    converge::a_table_of_somebody_else_is_left_alone,
    converge::a_table_of_another_running_process_is_left_alone,
    converge::an_address_that_an_interface_has_is_named_and_the_others_come,
    converge::the_words_of_its_tables_are_read_by_nft,
    converge::settings_in_the_way_are_named,
    silence::a_node_that_stands_by_says_nothing_and_serves_when_packets_come,
    silence::a_node_asks_for_neighbours_in_its_own_name,
    relay::open_flows_go_on_at_the_former_owner_until_the_relay_ends,
    relay::flows_of_three_owners_go_on_at_each_of_them,
    relay::what_began_here_is_known_when_the_address_comes_back,
    relay::a_port_that_is_used_again_elsewhere_is_not_taken_for_the_connection_that_had_it_here,
    relay::translated_flows_go_on_at_the_former_owner,
    relay::an_address_that_goes_to_and_fro_loses_no_octet,
    edges::the_lan_reaches_an_edge_in_the_name_of_its_node,
    service_proxy::without_kube_proxy_there_is_none,
    service_proxy::its_table_tells_of_nftables,
    service_proxy::its_chain_tells_of_iptables,
    service_proxy::its_chain_tells_of_legacy_iptables,
    service_proxy::its_interface_tells_of_ipvs,
];

const INSIDE: &str = "DUALGATE_TEST_INSIDE";

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        return run();
    }
    match namespace::enter() {
        Ok(_) => {}
        Err(NamespaceError::Forbidden { help, .. }) => {
            eprintln!("SKIPPED: host::data_path: no user namespaces: {help}");
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
