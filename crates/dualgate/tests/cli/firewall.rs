//! `dualgate firewall`, as far as it needs no rights; what it does to the kernel is tested in the lab.

use crate::support::{Folder, dualgate};

const SEED: [&str; 2] = ["--site", "examples/home/site.yaml"];

fn show(further: &[&str]) -> crate::support::Outcome {
    dualgate(&[&["firewall", "show"], &SEED[..], further].concat())
}

#[test]
fn the_edges_rules_are_shown_in_nfts_words() {
    let shown = show(&["--node", "ionos"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    assert!(shown.out.starts_with("table inet dualgate {\n"), "{}", shown.out);
    for line in ["policy drop;", "tcp dport 443 counter accept comment \"entry-point-websecure\"", "udp dport 56527"] {
        assert!(shown.out.contains(line), "{line} is not in {}", shown.out);
    }
}

#[test]
fn openings_say_what_is_let_in_and_why() {
    let shown = show(&["--node", "ionos", "--openings"]);
    assert!(shown.out.starts_with("open tcp 22 for everybody: SSH\n"), "{}", shown.out);
    let json = show(&["--node", "ionos", "--output", "json"]).json();
    assert_eq!(json["node"], "ionos");
    assert_eq!(json["openings"].as_array().expect("openings").len(), shown.out.lines().count());
    assert!(json["table"].as_str().expect("a table").starts_with("table inet dualgate {"));
}

#[test]
fn a_home_node_lets_the_edge_reach_what_the_site_and_its_pods_need() {
    let shown = show(&["--node", "k3s-node1", "--openings"]);
    assert_eq!(shown.code, 0);
    assert!(
        shown.out.contains("by the tunnel for 192.168.178.201, fda8:a1db:5685::201: the API server"),
        "{}",
        shown.out
    );
    assert!(!shown.out.contains("for everybody"), "{}", shown.out);
}

#[test]
fn without_a_firewall_in_the_site_file_nothing_is_shown() {
    let shown = dualgate(&["firewall", "show", "--site", "examples/laptop/site.yaml"]);
    assert_eq!(shown.code, 0);
    assert!(shown.out.starts_with('#') && shown.out.contains("has no firewall"), "{}", shown.out);
}

#[test]
fn a_node_that_the_site_does_not_have_is_named() {
    let shown = show(&["--node", "nobody"]);
    assert_eq!(shown.code, 2);
    assert!(shown.err.contains("`nobody`") && shown.err.contains("ionos"), "{}", shown.err);
}

#[test]
fn what_is_not_on_trial_cannot_be_confirmed() {
    let folder = Folder::with(&[]);
    let confirmed = folder.dualgate(&["firewall", "confirm", "--state", "state"]);
    assert_eq!(confirmed.code, 2);
    assert!(confirmed.err.contains("no change waits for a confirmation"), "{}", confirmed.err);
}

#[test]
fn a_guard_that_nobody_instructs_gives_up() {
    let folder = Folder::with(&[]);
    let guard = folder.dualgate(&["firewall", "guard", "--state", "state"]);
    assert_eq!(guard.code, 2);
    assert!(guard.err.contains("guard"), "{}", guard.err);
}
