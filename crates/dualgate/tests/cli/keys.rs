//! `dualgate keys` and `dualgate tunnel export`: keys are made, changed and used, and never printed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Folder, Outcome, command};

const SITE: &str = "\
apiVersion: dualgate.dev/v1alpha1
kind: Site
lan: {subnets: [192.168.1.0/24, 'fd00:1::/64'], router: {kind: fritzbox, addresses: [192.168.1.1], uplink: ds-lite}}
gates: {internal: {}, external: {}}
nodes:
- {name: home, roles: [server, internal-gate], addresses: [192.168.1.5, 'fd00:1::5'], podCIDRs: [10.42.0.0/24]}
- {name: edge, roles: [external-gate], addresses: [192.168.1.201, 'fd00:1::201'], publicAddresses: [203.0.113.10, '2001:db8::10']}
tunnel: {}
";

/// RFC 7748 6.1.
const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

fn folder() -> Folder {
    Folder::with(&[("site.yaml", SITE)])
}

fn keys(folder: &Folder, arguments: &str) -> Outcome {
    folder.dualgate(&["keys"].into_iter().chain(arguments.split(' ')).collect::<Vec<_>>())
}

fn key(folder: &Folder, path: &str) -> String {
    fs::read_to_string(folder.path().join(path)).unwrap().trim_end().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_made_once_and_only_its_public_part_is_printed() {
    let folder = folder();
    let made = keys(&folder, "init --node home --state s --preshared-with edge --output json");
    assert_eq!((made.code, &*made.err), (0, ""));
    let report = made.json();
    assert_eq!((&report["node"], &report["presharedKeys"][0]), (&"home".into(), &"edge+home".into()));
    let again = keys(&folder, "init --node home --state s");
    assert!(again.code == 0 && again.out.contains("is there already"), "{}", again.out);
    assert!(again.out.contains(report["publicKey"].as_str().unwrap()), "{}", again.out);
    for secret in [key(&folder, "s/wireguard/private"), key(&folder, "s/wireguard/preshared/edge+home")] {
        assert!(![&made.out, &again.out].iter().any(|out| out.contains(&secret)));
    }
}

#[test]
fn a_key_of_wg_is_adopted_from_a_file_or_from_standard_input() {
    let folder = folder();
    fs::write(folder.path().join("wg.key"), ALICE).unwrap();
    let open = keys(&folder, "init --node home --state s --adopt wg.key");
    assert!(open.code == 2 && open.err.contains("chmod 0600 wg.key"), "{}", open.err);
    assert!(!folder.path().join("s").exists(), "nothing is made when something is wrong");
    let mut child = command(folder.path(), &["keys", "init", "--node", "home", "--state", "s", "--adopt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{ALICE}\n").as_bytes()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(out.contains("adopted the private key of home") && out.contains(ALICE_PUBLIC), "{out}");
    fs::set_permissions(folder.path().join("wg.key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(keys(&folder, "init --node home --state s --adopt wg.key").code, 0, "it is the same key");
    let other = keys(&folder, "init --node edge --state e");
    assert_eq!(other.code, 0);
    let taken = keys(&folder, "init --node edge --state e --adopt wg.key");
    assert!(taken.code == 2 && taken.err.contains("holds another key already"), "{}", taken.err);
}

#[test]
fn show_public_compares_with_the_site_file() {
    let folder = folder();
    let none = keys(&folder, "show-public --node home --state s");
    assert!(none.code == 2 && none.err.contains("dualgate keys init"), "{}", none.err);
    let public = keys(&folder, "init --node home --state s -o json").json()["publicKey"].as_str().unwrap().to_owned();
    let shown = keys(&folder, "show-public --node home --state s");
    assert!(shown.code == 1 && shown.out.contains(&format!("publicKeys: [\"{public}\"]")), "{}", shown.out);
    let known = SITE.replace("{name: home,", &format!("{{name: home, publicKeys: ['{public}'],"));
    fs::write(folder.path().join("site.yaml"), known).unwrap();
    let shown = keys(&folder, "show-public --node home --state s -o json");
    assert_eq!((shown.code, &shown.json()["inSiteFile"]), (0, &true.into()));
}

#[test]
fn a_rotation_shows_both_keys_until_it_is_finished() {
    let folder = folder();
    let public = |outcome: &Outcome, key: &str| outcome.json()[key].as_str().unwrap_or_default().to_owned();
    let first = public(&keys(&folder, "init --node home --state s -o json"), "publicKey");
    let early = keys(&folder, "rotate --node home --state s --finish");
    assert!(early.code == 2 && early.err.contains("dualgate keys rotate"), "{}", early.err);
    let prepared = keys(&folder, "rotate --node home --state s -o json");
    let next = public(&prepared, "nextPublicKey");
    assert_eq!(public(&prepared, "publicKey"), first);
    assert_eq!(public(&keys(&folder, "rotate --node home --state s -o json"), "nextPublicKey"), next);
    let finished = keys(&folder, "rotate --node home --state s --finish -o json");
    assert_eq!((public(&finished, "publicKey"), public(&finished, "nextPublicKey")), (next, String::new()));
    keys(&folder, "rotate --node home --state s");
    let cancelled = keys(&folder, "rotate --node home --state s --cancel -o json");
    assert_eq!(public(&cancelled, "publicKey"), public(&finished, "publicKey"));
}

#[test]
fn who_is_no_other_node_is_no_pair() {
    let folder = folder();
    for (name, why) in [("home", "no pair with itself"), ("gone", "no node `gone`"), ("../x", "no node `../x`")] {
        let outcome = keys(&folder, &format!("init --node home --state s --preshared-with {name}"));
        assert!(outcome.code == 2 && outcome.err.contains(why), "{}", outcome.err);
    }
    assert!(!folder.path().join("s").exists());
}

#[test]
fn an_export_without_keys_marks_their_places_and_needs_none() {
    let folder = folder();
    let export = folder.dualgate(&["tunnel", "export", "--for", "wg-quick", "--node", "edge"]);
    assert_eq!(export.code, 0, "{}", export.err);
    assert!(export.out.contains("PrivateKey = REPLACE-BY-THE-PRIVATE-KEY\n"), "{}", export.out);
    assert!(export.err.starts_with("1. replace `REPLACE-BY-THE-PRIVATE-KEY`"), "{}", export.err);
    let none = folder.dualgate(&["tunnel", "export", "--for", "fritzbox"]);
    assert!(none.code == 2 && none.err.contains("homeEnd: router"), "{}", none.err);
}

#[test]
fn an_export_with_keys_is_a_file_for_its_owner_that_wg_quick_reads() {
    let folder = folder();
    let bin = |name: &str| Command::new(name).arg("--help").output().is_ok();
    fs::create_dir(folder.path().join("out")).unwrap();
    keys(&folder, "init --node edge --state s --preshared-with home");
    let public = keys(&folder, "init --node home --state h -o json").json()["publicKey"].as_str().unwrap().to_owned();
    let known = SITE.replace("{name: home,", &format!("{{name: home, publicKeys: ['{public}'],"));
    fs::write(folder.path().join("site.yaml"), known).unwrap();
    let arguments = "tunnel export --for wg-quick --node edge --state s --with-keys out";
    let export = folder.dualgate(&arguments.split(' ').collect::<Vec<_>>());
    assert_eq!((export.code, &*export.out), (0, "wrote out/dualgate.conf\n"), "{}", export.err);
    assert!(!export.err.contains("REPLACE"), "{}", export.err);
    let path = folder.path().join("out/dualgate.conf");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!("PrivateKey = {}\n", key(&folder, "s/wireguard/private"))));
    assert!(text.contains(&format!("PresharedKey = {}\n", key(&folder, "s/wireguard/preshared/edge+home"))));
    assert!(!text.contains("REPLACE") && mode(&path) == 0o600, "{text}");
    if !bin("wg-quick") {
        assert!(std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_none(), "wg-quick is not installed");
        eprintln!("SKIPPED: cli::export_wg_quick: wg-quick is not installed");
        return;
    }
    let stripped = Command::new("wg-quick").arg("strip").arg(&path).output().unwrap();
    let (out, err) = (String::from_utf8(stripped.stdout).unwrap(), String::from_utf8(stripped.stderr).unwrap());
    assert!(stripped.status.success(), "{err}");
    // What is left is for `wg setconf`; the rest was wg-quick's own.
    assert!(out.contains("AllowedIPs = 10.42.0.0/24, 192.168.1.5/32, fd00:1::5/128\n"), "{out}");
    assert!(!out.contains("Address") && !out.contains("MTU") && out.contains("ListenPort = 56527"), "{out}");
}
