//! Rules in a real kernel: each test has a network of its own, in a user namespace that the test made.
//!
//! This file has a `main` of its own because only a process with one thread may make a user namespace.

use std::io::ErrorKind;
use std::process::{Command, ExitCode};

use dualgate_host::namespace::{self, NamespaceError};
use dualgate_host::netfilter::Netfilter;
use dualgate_host::network::{Network, Switch};
use dualgate_wire::nftables::{
    Action, Chain, ChainType, Change, ConnectionStates, Family, Hook, HookPoint, IpFamily, Match, Policy, Rule, Select,
    Table,
};

const INSIDE: &str = "DUALGATE_TEST_INSIDE";

type Case = (&'static str, fn());

const CASES: &[Case] = &[(
    "a_home_router_is_one_transaction_and_reads_back_as_written",
    a_home_router_is_one_transaction_and_reads_back_as_written,
)];

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

fn run() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (name, test) in CASES {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let network = namespace::network().expect("a network of its own");
        let outcome = namespace::in_network(std::os::fd::AsFd::as_fd(&network), || {
            let mut network = Network::open().map_err(std::io::Error::other)?;
            network.switch("lo", Switch::On).map_err(std::io::Error::other)?;
            test();
            Ok(())
        });
        failed += usize::from(outcome.is_err());
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn a_home_router_is_one_transaction_and_reads_back_as_written() {
    let netfilter = Netfilter::open().expect("nftables");
    let router = router();
    netfilter.apply(&[Change::Replace(router.clone())]).expect("the router's rules");
    netfilter.apply(&[Change::Replace(router.clone())]).expect("the same once more");
    assert_eq!(netfilter.differences(&router).expect("a listing"), []);
    compare_with_nft(&router);
}

/// What a home router does: answers come in, nothing else; IPv4 takes its address.
fn router() -> Table {
    let mut table = Table::new(Family::Inet, "router");
    let answers = ConnectionStates::ESTABLISHED.or(ConnectionStates::RELATED);
    let forward = vec![
        Rule::new(vec![Match::InputInterface(Select::one("wan")), Match::ConnectionState(answers)], Action::Accept),
        Rule::new(vec![Match::InputInterface(Select::one("wan"))], Action::Drop).counted().named("unasked"),
    ];
    let translate = vec![Rule::new(
        vec![Match::OutputInterface(Select::one("wan")), Match::IpFamily(IpFamily::V4)],
        Action::Masquerade,
    )];
    table.chains = vec![
        Chain::base("forward", hook(ChainType::Filter, HookPoint::Forward, 0), forward),
        Chain::base("postrouting", hook(ChainType::Nat, HookPoint::Postrouting, 100), translate),
    ];
    table
}

fn hook(kind: ChainType, at: HookPoint, priority: i32) -> Hook {
    Hook { kind, at, priority, policy: Policy::Accept }
}

/// What nft lists of a table is what the table's `Display` says, but for spaces and the values of counters.
fn compare_with_nft(table: &Table) {
    let listed = Command::new("nft").args(["-y", "list", "table", &table.family.to_string(), &table.name]).output();
    let listed = match listed {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("SKIPPED: host::netfilter_nft: nft is not installed");
            return;
        }
        listed => listed.expect("start nft"),
    };
    assert!(listed.status.success(), "nft: {}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("nft writes UTF-8");
    assert_eq!(words(&listed), words(&table.to_string()));
}

fn words(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    while let Some(at) = words.windows(5).position(|five| five[0] == "counter" && five[1] == "packets") {
        words.drain(at + 1..at + 5);
    }
    words.join(" ")
}
