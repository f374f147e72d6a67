//! `dualgate vip` and the key of the heartbeats: what is said where nothing runs, and where it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Folder, dualgate_in};

const SITE: &str = "\
apiVersion: dualgate.dev/v1alpha1
kind: Site
lan: {subnets: [192.168.1.0/24, 'fd00:1::/64'], router: {kind: other, addresses: [192.168.1.1], uplink: dual-stack}}
nodes:
- {name: one, roles: [internal-gate, virtual-ips], addresses: [192.168.1.5, 'fd00:1::5']}
- {name: two, roles: [internal-gate, virtual-ips], addresses: [192.168.1.6, 'fd00:1::6']}
gates: {internal: {addresses: [192.168.1.10, 'fd00:1::10']}}
";

fn folder() -> Folder {
    Folder::with(&[("site.yaml", SITE)])
}

#[test]
fn an_order_without_a_running_process_names_the_state_directory() {
    let folder = folder();
    for order in [&["vip", "move", "192.168.1.10", "--to", "two"][..], &["vip", "drain"]] {
        let outcome = folder.dualgate(&[order, &["--node", "one", "--state", "s"]].concat());
        assert_eq!((outcome.code, &*outcome.out), (2, ""), "{}", outcome.err);
        assert!(outcome.err.contains("no `dualgate run`") && outcome.err.contains("`s`"), "{}", outcome.err);
        assert!(outcome.err.contains("--state"), "{}", outcome.err);
    }
}

#[test]
fn a_word_that_is_no_address_is_refused() {
    let outcome = folder().dualgate(&["vip", "explain", "gate"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("'gate'") && outcome.err.contains("ADDRESS"), "{}", outcome.err);
}

#[test]
fn the_key_of_the_heartbeats_is_made_once_and_taken_to_the_others() {
    let folder = folder();
    let made = folder.dualgate(&["keys", "init", "--node", "one", "--state", "s1", "--heartbeat"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.contains("made the key of the heartbeats"), "{}", made.out);
    assert!(made.out.contains("take s1/heartbeat to every other home node"), "{}", made.out);
    let file = folder.path().join("s1/heartbeat");
    let key = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!made.out.contains(key.trim()), "it is not printed");
    let arguments = ["keys", "init", "--node", "two", "--state", "s2", "--adopt-heartbeat", "s1/heartbeat"];
    let adopted = folder.dualgate(&arguments);
    assert!(adopted.code == 0 && adopted.out.contains("adopted the key of the heartbeats"), "{adopted:?}");
    assert_eq!(fs::read_to_string(folder.path().join("s2/heartbeat")).unwrap(), key);
    let again = folder.dualgate(&arguments);
    assert!(again.code == 0 && again.out.contains("is there already"), "{again:?}");
}

#[test]
fn a_key_of_the_heartbeats_that_others_can_read_is_refused() {
    let folder = folder();
    let file = folder.path().join("open");
    fs::write(&file, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused =
        dualgate_in(folder.path(), &["keys", "init", "--node", "one", "--state", "s", "--adopt-heartbeat", "open"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("chmod 0600 open"), "{}", refused.err);
}
