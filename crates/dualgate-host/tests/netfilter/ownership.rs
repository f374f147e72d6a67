//! Who may change a table, and what becomes of it when its owner is gone.

use std::os::fd::AsFd as _;

use dualgate_host::netfilter::{Netfilter, NetfilterError, Watch};
use dualgate_wire::nftables::{Change, Dialect, Difference, Family, Ownership, Table};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::compare::nft;
use crate::examples::router;

pub fn an_owned_table_is_changed_by_its_owner_only() {
    let Some(mut owner) = open() else { return };
    let table = owned(Ownership::OwnerPersist);
    owner.apply(&[Change::Replace(table.clone())]).expect("an owned table");
    assert_eq!(owner.differences(&table).expect("a listing"), []);
    let mut other = Netfilter::open().expect("nftables");
    assert_eq!(other.differences(&table).expect("a listing"), [Difference::Owner]);
    let delete = Change::Delete { family: Family::Inet, name: table.name.clone() };
    for change in [Change::Replace(table.clone()), delete] {
        let refused = other.apply(&[change]).expect_err("another one's table");
        assert!(matches!(&refused, NetfilterError::Refused { .. }), "{refused}");
        assert!(refused.to_string().contains("another owner"), "{refused}");
    }
    if let Some(flushed) = nft(&["flush", "ruleset"], "") {
        assert!(flushed.status.success(), "{}", String::from_utf8_lossy(&flushed.stderr));
    }
    assert_eq!(owner.differences(&table).expect("a listing"), []);
    owner.apply(&[Change::Replace(table.clone())]).expect("the owner changes it");
}

pub fn a_persistent_table_stays_and_is_taken_over() {
    let Some(mut owner) = open() else { return };
    let table = owned(Ownership::OwnerPersist);
    owner.apply(&[Change::Replace(table.clone())]).expect("an owned table");
    drop(owner);
    let mut successor = Netfilter::open().expect("nftables");
    assert_eq!(successor.differences(&table).expect("a listing"), [Difference::Owner]);
    successor.apply(&[Change::Replace(table.clone())]).expect("the orphan is taken over");
    assert_eq!(successor.differences(&table).expect("a listing"), []);
    let mut other = Netfilter::open().expect("nftables");
    other.apply(&[Change::Replace(table)]).expect_err("another one's table");
}

pub fn a_table_without_persistence_goes_with_its_owner() {
    let Some(mut owner) = open() else { return };
    let table = owned(Ownership::Owner);
    owner.apply(&[Change::Replace(table.clone())]).expect("an owned table");
    assert_eq!(owner.differences(&table).expect("a listing"), []);
    drop(owner);
    let mut other = Netfilter::open().expect("nftables");
    assert_eq!(other.differences(&table).expect("a listing"), [Difference::TableAbsent]);
}

pub fn a_socket_that_was_handed_over_owns_the_table() {
    let Some(mut owner) = open() else { return };
    let table = owned(Ownership::OwnerPersist);
    owner.apply(&[Change::Replace(table.clone())]).expect("an owned table");
    let descriptor = owner.as_fd().try_clone_to_owned().expect("a second descriptor");
    drop(owner);
    let mut successor = Netfilter::adopt(descriptor).expect("nftables");
    assert_eq!(successor.differences(&table).expect("a listing"), []);
    successor.apply(&[Change::Delete { family: Family::Inet, name: table.name }]).expect("the owner deletes it");
    assert_eq!(successor.tables().expect("a listing"), []);
}

pub fn without_owners_every_table_is_shared_and_can_be_restored() {
    let mut netfilter = Netfilter::open_shared().expect("nftables");
    assert_eq!(netfilter.dialect(), Dialect::Shared);
    let table = owned(Ownership::OwnerPersist);
    for _ in 0..2 {
        netfilter.apply(&[Change::Replace(table.clone())]).expect("a shared table");
        assert_eq!(netfilter.differences(&table).expect("a listing"), []);
    }
    let mut other = Netfilter::open_shared().expect("nftables");
    let delete = Change::Delete { family: Family::Inet, name: table.name.clone() };
    for _ in 0..2 {
        other.apply(std::slice::from_ref(&delete)).expect("anybody may");
        assert_eq!(netfilter.differences(&table).expect("a listing"), [Difference::TableAbsent]);
    }
    netfilter.apply(&[Change::Replace(table.clone())]).expect("it is restored");
    assert_eq!(netfilter.differences(&table).expect("a listing"), []);
}

pub fn a_watch_tells_of_each_change() {
    let mut watch = Watch::open().expect("nftables");
    let mut netfilter = Netfilter::open().expect("nftables");
    netfilter.check(&[Change::Replace(router())]).expect("a check");
    assert!(!watch.changed().expect("a watch"), "nothing has changed");
    netfilter.apply(&[Change::Replace(router())]).expect("a table");
    assert!(watch.changed().expect("a watch"), "a table was made");
    assert!(!watch.changed().expect("a watch"), "it was told");
    // More than the socket keeps.
    (0..2000).for_each(|_| netfilter.apply(&[Change::Replace(router())]).expect("a table"));
    assert!(watch.changed().expect("a watch"), "many changes");
    assert!(!watch.changed().expect("a watch"), "they were told");
}

pub fn without_the_right_to_change_rules_it_says_so() {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .expect("give up all capabilities of this thread");
    let refused = Netfilter::open().expect_err("no right to change rules");
    assert!(matches!(refused, NetfilterError::Unavailable { errno: Errno::PERM, .. }), "{refused}");
    assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
}

/// Where the kernel has no owners, there is nothing to see.
fn open() -> Option<Netfilter> {
    let netfilter = Netfilter::open().expect("nftables");
    match netfilter.dialect() {
        Dialect::Owners => Some(netfilter),
        Dialect::Shared => {
            eprintln!("SKIPPED: host::netfilter_owner: this kernel has no owners whose tables persist");
            None
        }
    }
}

fn owned(ownership: Ownership) -> Table {
    Table { ownership, ..router() }
}
