//! The kernel's table becomes what the plan says, and stays so.

use std::sync::Arc;
use std::time::Duration;

use dualgate_core::plan::firewall::{FirewallPlan, TABLE};
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::{Changes, Firewall, FirewallError, Protection, inspect};
use dualgate_host::netfilter::Netfilter;
use dualgate_wire::nftables::{Change, Family, Ownership, Table};

use crate::nft::{nft, same_for_nft};
use crate::plans::{converge, now, seed, settled};

const PODS: &str = "10.42.0.5:3000+[fd01::5]:3000,10.42.0.6:3000";

pub fn every_plan_of_the_seed_is_put_into_the_kernel_and_taken_out() {
    let off = Arc::new(FirewallPlan::default());
    for open in [Firewall::open, Firewall::open_shared] {
        let mut firewall = open(None).expect("nftables");
        for node in ["ionos", "k3s-node1", "k3s-node2"] {
            let plan = seed(node, PODS);
            settled(&mut firewall, &off);
            let lines = plan.to_string().lines().filter(|line| !line.trim().is_empty() && line.trim() != "}").count();
            assert_eq!(converge(&mut firewall, &plan).expect("the plan").len(), lines, "{node}");
            settled(&mut firewall, &plan);
            assert_eq!(converge(&mut firewall, &off).expect("off").len(), lines, "{node}");
        }
        settled(&mut firewall, &off);
    }
}

pub fn the_words_of_a_plan_are_read_by_nft_as_the_table_that_is_there() {
    for node in ["ionos", "k3s-node1"] {
        // nft of Debian 12 does not know the flag `persist`.
        let table = Table { ownership: Ownership::Shared, ..seed(node, PODS).table.clone().expect("a table") };
        let mut netfilter = Netfilter::open().expect("nftables");
        netfilter.apply(&[Change::Replace(table.clone())]).expect("the table");
        same_for_nft(&table);
        netfilter.apply(&[delete()]).expect("no table");
    }
}

pub fn a_table_of_somebody_else_is_left_alone() {
    let theirs = Table { comment: Some("mine".to_owned()), ..Table::new(Family::Inet, TABLE) };
    let mut other = Netfilter::open().expect("nftables");
    other.apply(&[Change::Replace(theirs.clone())]).expect("their table");
    let mut firewall = Firewall::open(None).expect("nftables");
    let refused = converge(&mut firewall, &seed("ionos", "")).expect_err("it is not ours");
    assert!(matches!(refused, FirewallError::Foreign), "{refused}");
    assert!(refused.to_string().contains("nft delete table inet dualgate"), "{refused}");
    assert!(matches!(inspect(&seed("ionos", "")), Err(FirewallError::Foreign)));
    assert_eq!(other.differences(&theirs).expect("a listing"), []);
}

pub fn a_table_of_another_running_process_is_left_alone() {
    let plan = seed("ionos", "");
    let mut first = Firewall::open(None).expect("nftables");
    converge(&mut first, &plan).expect("the plan");
    if first.protection() == Protection::Watched {
        eprintln!("SKIPPED: host::firewall_owner: this kernel has no owners whose tables persist");
        return;
    }
    let mut second = Firewall::open(None).expect("nftables");
    let refused = converge(&mut second, &seed("k3s-node1", "")).expect_err("another one's");
    assert!(matches!(refused, FirewallError::Taken { .. }), "{refused}");
    settled(&mut first, &plan);
}

pub fn a_restart_takes_the_table_over() {
    for open in [Firewall::open, Firewall::open_shared] {
        let plan = seed("ionos", "");
        let mut firewall = open(None).expect("nftables");
        converge(&mut firewall, &plan).expect("the plan");
        drop(firewall);
        // What was left there guards meanwhile, and is found.
        let mut observer = Netfilter::open().expect("nftables");
        assert!(observer.observe(Family::Inet, TABLE).expect("a listing").is_some());
        let mut firewall = open(None).expect("nftables");
        assert!(!converge(&mut firewall, &plan).expect("the plan").is_empty());
        settled(&mut firewall, &plan);
        converge(&mut firewall, &Arc::new(FirewallPlan::default())).expect("off");
    }
}

pub fn a_successor_goes_on_with_the_descriptor() {
    let plan = seed("ionos", "");
    let mut first = Firewall::open(None).expect("nftables");
    converge(&mut first, &plan).expect("the plan");
    let mut second = Firewall::adopt(first.descriptor().expect("a descriptor"), None).expect("nftables");
    drop(first);
    converge(&mut second, &plan).expect("it is the owner");
    settled(&mut second, &plan);
}

pub fn pods_that_come_and_go_leave_rules_and_counters_alone() {
    let mut firewall = Firewall::open(None).expect("nftables");
    converge(&mut firewall, &seed("k3s-node1", PODS)).expect("the plan");
    let handles = |netfilter: &mut Netfilter| -> Vec<u64> {
        netfilter.rules(Family::Inet, TABLE).expect("a listing").iter().map(|rule| rule.handle).collect()
    };
    let mut observer = Netfilter::open().expect("nftables");
    let before = handles(&mut observer);
    let moved = seed("k3s-node1", "10.42.0.7:3000+[fd01::7]:3000,10.42.0.6:3000");
    let changes = converge(&mut firewall, &moved).expect("other pods");
    assert_eq!(changes.len(), 4, "the elements of both sets: {changes:?}");
    settled(&mut firewall, &moved);
    assert_eq!(handles(&mut observer), before);
    let other_port = seed("k3s-node1", "10.42.0.7:3001");
    converge(&mut firewall, &other_port).expect("another port");
    settled(&mut firewall, &other_port);
    assert_ne!(handles(&mut observer), before);
}

pub fn what_others_change_is_seen_and_restored() {
    let plan = seed("k3s-node1", PODS);
    let mut firewall = Firewall::open_shared(None).expect("nftables");
    converge(&mut firewall, &plan).expect("the plan");
    let mut other = Netfilter::open_shared().expect("nftables");
    other.apply(&[delete()]).expect("anybody may");
    assert!(!converge(&mut firewall, &plan).expect("restored").is_empty());
    settled(&mut firewall, &plan);
    // The same table with a hole in it.
    let mut hole = plan.table.clone().expect("a table");
    hole.chains.iter_mut().for_each(|chain| chain.rules.truncate(1));
    hole.sets.pop();
    other.apply(&[Change::Replace(hole)]).expect("anybody may");
    let restored = converge(&mut firewall, &plan).expect("restored");
    assert!(restored.iter().all(|line| line.starts_with("+ firewall")), "{restored:?}");
    assert!(restored.iter().any(|line| line.contains("chain from_edge")), "{restored:?}");
    settled(&mut firewall, &plan);
}

pub fn a_flush_of_everything_passes_an_owned_table_by() {
    let plan = seed("ionos", "");
    let mut firewall = Firewall::open(None).expect("nftables");
    converge(&mut firewall, &plan).expect("the plan");
    let Some(flushed) = nft(&["flush", "ruleset"], "") else { return };
    assert!(flushed.status.success(), "{}", String::from_utf8_lossy(&flushed.stderr));
    match firewall.protection() {
        Protection::Owned => settled(&mut firewall, &plan),
        Protection::Watched => {
            assert!(!converge(&mut firewall, &plan).expect("restored").is_empty());
            settled(&mut firewall, &plan);
        }
    }
}

pub fn changes_of_others_are_told() {
    now(async {
        let plan = seed("k3s-node1", "");
        let mut firewall = Firewall::open_shared(None).expect("nftables");
        let mut changes = Changes::open();
        let mut other = Netfilter::open_shared().expect("nftables");
        let quiet = tokio::time::timeout(Duration::from_millis(300), changes.next()).await;
        assert!(quiet.is_err(), "nothing has changed");
        for _ in 0..2 {
            let observed = firewall.observe().await.expect("a listing");
            firewall.apply(&plan, &Firewall::diff(&observed, &plan)).await.expect("the plan");
            tokio::time::timeout(Duration::from_secs(3), changes.next()).await.expect("told of the own change");
            other.apply(&[delete()]).expect("anybody may");
            tokio::time::timeout(Duration::from_secs(3), changes.next()).await.expect("told of the other's");
        }
    });
}

pub fn who_only_looks_sees_differences_and_counters() {
    let plan = seed("ionos", "");
    assert_eq!(inspect(&plan).expect("a listing").differences.len(), 1, "there is no table");
    let mut firewall = Firewall::open(None).expect("nftables");
    converge(&mut firewall, &plan).expect("the plan");
    let seen = inspect(&plan).expect("a listing");
    assert_eq!(seen.differences, []);
    assert_eq!(seen.owner.is_some(), firewall.protection() == Protection::Owned);
    let ssh = |rule: &str| seen.counters.iter().filter(|counter| counter.rule == rule).count();
    // In `input` and in `published`.
    assert_eq!((ssh("ssh"), ssh("shut")), (2, 1));
    assert!(!inspect(&seed("k3s-node1", "")).expect("a listing").differences.is_empty());
    assert!(!inspect(&FirewallPlan::default()).expect("a listing").differences.is_empty());
}

fn delete() -> Change {
    Change::Delete { family: Family::Inet, name: TABLE.to_owned() }
}
