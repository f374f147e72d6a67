//! The bundle of an edge: what is in it, and what is not.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Folder, Outcome, root};

fn site() -> String {
    let site = std::fs::read_to_string(root().join("examples/home/site.yaml")).unwrap();
    site.replace("roles: [agent, external-gate, dns]", "roles: [external-gate, dns]")
}

fn bundle(folder: &Folder, more: &[&str]) -> Outcome {
    let args = ["edge", "bundle", "--node", "ionos", "--state", "state", "--binary", "program"];
    folder.dualgate(&[&args[..], more].concat())
}

/// The smallest program that is one: a head of ELF without segments.
fn program() -> Vec<u8> {
    let mut octets = vec![0; 64];
    octets[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (octets[16], octets[18]) = (2, 62);
    octets
}

fn folder(site: &str) -> Folder {
    let folder = Folder::with(&[("site.yaml", site)]);
    std::fs::write(folder.path().join("program"), program()).unwrap();
    folder
}

/// Path, rights and owner of each entry, and what it holds.
fn unpacked(tar: &Path) -> Vec<(String, u32, u64, String)> {
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let (path, header) = (entry.path().unwrap().display().to_string(), entry.header());
        let (mode, owner) = (header.mode().unwrap(), header.uid().unwrap() + header.gid().unwrap());
        let mut octets = Vec::new();
        entry.read_to_end(&mut octets).unwrap();
        (path, mode, owner, String::from_utf8_lossy(&octets).into_owned())
    });
    entries.collect()
}

#[test]
fn a_bundle_holds_what_the_edge_needs_and_no_private_key() {
    let folder = folder(&site());
    let outcome = bundle(&folder, &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let tar = folder.path().join("ionos.tar");
    assert_eq!(tar.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let entries = unpacked(&tar);
    let names: Vec<(&str, u32)> = entries.iter().map(|(path, mode, ..)| (path.as_str(), *mode)).collect();
    let expected = [
        ("usr/local/bin/dualgate", 0o755),
        ("etc/systemd/system/dualgate.service", 0o644),
        ("etc/dualgate/", 0o755),
        ("etc/dualgate/site.yaml", 0o644),
        ("etc/dualgate/INSTALL", 0o644),
        ("var/lib/dualgate/", 0o700),
        ("var/lib/dualgate/wireguard/", 0o700),
        ("var/lib/dualgate/wireguard/preshared/", 0o700),
        ("var/lib/dualgate/wireguard/preshared/ionos+k3s-node1", 0o600),
        ("var/lib/dualgate/wireguard/preshared/ionos+k3s-node2", 0o600),
        ("var/lib/dualgate/wireguard/preshared/ionos+k3s-node3", 0o600),
    ];
    assert_eq!(names, expected);
    assert!(entries.iter().all(|(_, _, owner, _)| *owner == 0), "all belongs to root");
    let text = |path: &str| &entries.iter().find(|entry| entry.0 == path).unwrap().3;
    assert_eq!(*text("etc/dualgate/site.yaml"), site());
    let key = std::fs::read_to_string(folder.path().join("state/wireguard/preshared/ionos+k3s-node2")).unwrap();
    assert_eq!(*text("var/lib/dualgate/wireguard/preshared/ionos+k3s-node2"), key);
    assert!(!outcome.out.contains(key.trim()) && !outcome.err.contains(key.trim()), "a key is never printed");
    // What a person types stands in the bundle and beside it.
    for command in ["tar -C / -xpf ionos.tar", "systemctl enable --now dualgate"] {
        assert!(
            text("etc/dualgate/INSTALL").contains(&format!("\n    {command}\n")),
            "{}",
            text("etc/dualgate/INSTALL")
        );
        assert!(outcome.err.contains(command), "{}", outcome.err);
    }
    assert!(!folder.path().join("state/wireguard/private").exists(), "the edge's private key is the edge's");
    // Nobody of the example has a key yet.
    assert!(outcome.err.contains("warning[tunnel-key]: the public key of `k3s-node1` is not known"), "{}", outcome.err);
}

#[test]
fn the_same_inputs_make_the_same_octets_and_the_keys_stay() {
    let folder = folder(&site());
    let first = bundle(&folder, &[]);
    assert_eq!(first.err.matches("--adopt-preshared").count(), 3, "{}", first.err);
    let second = bundle(&folder, &["--to", "again.tar"]);
    assert_eq!((second.code, second.err.matches("--adopt-preshared").count()), (0, 0), "{}", second.err);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    // The instructions name the file.
    let (one, other) = (unpacked(&folder.path().join("ionos.tar")), unpacked(&folder.path().join("again.tar")));
    let differing = one.iter().zip(&other).filter(|(one, other)| one != other).map(|(one, _)| one.0.as_str());
    assert_eq!(differing.collect::<Vec<_>>(), ["etc/dualgate/INSTALL"]);
    let before = read("ionos.tar");
    assert_eq!(bundle(&folder, &["--force"]).code, 0);
    assert!(read("ionos.tar") == before, "the bundle differs though nothing has changed");
}

#[test]
fn what_is_there_is_kept_unless_it_is_forced() {
    let folder = folder(&site());
    std::fs::write(folder.path().join("ionos.tar"), "precious").unwrap();
    let outcome = bundle(&folder, &[]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("`ionos.tar` is there: --force writes over it"), "{}", outcome.err);
    assert!(!folder.path().join("state").exists(), "no key is made for a bundle that is not");
    assert_eq!(std::fs::read_to_string(folder.path().join("ionos.tar")).unwrap(), "precious");
}

#[test]
fn a_folder_has_the_same_files_with_the_same_rights() {
    let folder = folder(&site());
    let outcome = bundle(&folder, &["--to", "edge"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(bundle(&folder, &[]).code, 0);
    for (path, mode, _, text) in unpacked(&folder.path().join("ionos.tar")) {
        let place = folder.path().join("edge").join(&path);
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o7777, mode, "{path}");
        if !path.ends_with('/') && !path.ends_with("INSTALL") {
            assert_eq!(String::from_utf8_lossy(&std::fs::read(place).unwrap()), text, "{path}");
        }
    }
    assert_eq!(bundle(&folder, &["--to", "edge"]).code, 2);
}

#[test]
fn an_agent_at_the_edge_gets_its_configuration_of_k3s_and_not_the_token() {
    let site = std::fs::read_to_string(root().join("examples/home/site.yaml")).unwrap();
    let folder = folder(&site);
    let outcome = bundle(&folder, &["-o", "json"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let entries = unpacked(&folder.path().join("ionos.tar"));
    let config = &entries.iter().find(|entry| entry.0 == "etc/rancher/k3s/config.yaml").unwrap();
    assert!(config.1 == 0o600 && config.3.contains("\nflannel-iface: dualgate\n"), "{config:?}");
    let unit = &entries.iter().find(|entry| entry.0.ends_with(".service")).unwrap().3;
    assert!(unit.contains("\nBefore=k3s-agent.service\n"), "{unit}");
    assert!(!entries.iter().any(|entry| entry.0.ends_with("token")), "{entries:?}");
    let json = outcome.json();
    assert_eq!(json["madeKeys"], serde_json::json!(["ionos+k3s-node1", "ionos+k3s-node2", "ionos+k3s-node3"]));
    assert!(json["files"].as_array().unwrap().iter().any(|file| file["path"] == "/etc/rancher/k3s/config.yaml"));
}

#[test]
fn a_program_that_needs_libraries_is_told_with_their_names_and_no_program_is_refused() {
    let folder = folder(&site());
    // The program of this test needs what Rust's programs need here.
    let outcome = folder.dualgate(&["edge", "bundle", "--state", "state"]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let needs = outcome.err.contains("warning[bundle-program]: the program needs /");
    assert_eq!(needs, cfg!(not(target_feature = "crt-static")), "{}", outcome.err);
    std::fs::write(folder.path().join("program"), "#!/bin/sh\n").unwrap();
    let outcome = bundle(&folder, &["--force"]);
    assert_eq!(outcome.code, 2);
    assert!(
        outcome.err.contains("`program` is no program for an edge (--binary): it is no ELF file"),
        "{}",
        outcome.err
    );
}

#[test]
fn a_home_node_is_no_edge() {
    let folder = folder(&site());
    let outcome = folder.dualgate(&["edge", "bundle", "--node", "k3s-node1"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("`k3s-node1` is no edge of the site; there is ionos"), "{}", outcome.err);
}
