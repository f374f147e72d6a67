//! The schemas of Kubernetes, as a judge of what is installed there.

use std::path::Path;

use serde_json::Value;

use super::LIMIT;
use super::support::Directory;
use super::support::tools::{Said, Tool, has, run, script};

const SCHEMAS: &[Tool] = &[Tool::Program("python3"), Tool::Python("kubernetes_validate")];

/// The versions that K3s is maintained for.
const VERSIONS: [&str; 5] = ["1.33", "1.34", "1.35", "1.36", "1.37"];

const HEAD: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\ngates: {internal: {}}\n";

#[test]
fn what_is_installed_has_the_form_that_every_version_of_kubernetes_asks_for() {
    if !has("what_is_installed_has_the_form_that_every_version_of_kubernetes_asks_for", SCHEMAS) {
        return;
    }
    let node = |address: &str| {
        format!("{HEAD}nodes: [{{name: a, roles: [server, internal-gate], addresses: ['{address}']}}]\n")
    };
    let laptop = example("laptop").replace("roles: [", "roles: [server, ");
    let sites: [(&str, String, &[&str]); 6] = [
        ("home", example("home"), &[]),
        ("home, with its edge as a pod", example("home"), &["--edge-daemonset", "ionos"]),
        ("a laptop that runs K3s", laptop, &[]),
        ("IPv4 only", node("192.168.178.5"), &[]),
        ("IPv6 only", node("fd00:1::5") + "admin: {listen: ['[::]:9180']}\n", &[]),
        ("a default class", node("10.0.0.1") + "ingressClasses: [{name: web, default: true}]\n", &["--image", "a/b:c"]),
    ];
    let directory = Directory::new();
    for (name, site, options) in &sites {
        directory.write("site.yaml", site);
        let path = directory.join("site.yaml").display().to_string();
        let arguments = [&["install", "--print", "--site", &path], *options].concat();
        let printed = run(LIMIT, env!("CARGO_BIN_EXE_dualgate"), &arguments);
        let notes =
            if options.contains(&"--edge-daemonset") { "note: the pod on the edge makes the tunnel" } else { "" };
        assert!(
            printed.err.starts_with(notes) && printed.err.is_empty() == notes.is_empty(),
            "{name}: {}",
            printed.err
        );
        assert_eq!(printed.code, Some(0), "{name}");
        let judged = judge(&directory, &printed.out);
        assert_eq!((judged.code, &*judged.err), (Some(0), ""), "{name}: {}", judged.out);
        let objects = printed.out.split("---\n").count();
        assert!(objects >= 11, "{name}: {objects} objects");
        let expected: Value = VERSIONS.iter().map(|version| ((*version).to_owned(), Value::from(objects))).collect();
        assert_eq!(serde_json::from_str::<Value>(&judged.out).unwrap(), expected, "{name}");
    }
    // The judge sees a field that stands where nobody knows it.
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nhostNetwork: true\n";
    let judged = judge(&directory, wrong);
    assert_eq!(judged.code, Some(1));
    assert!(VERSIONS.iter().all(|version| judged.err.contains(&format!("{version}: ConfigMap a"))), "{}", judged.err);
}

fn example(name: &str) -> String {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).join("site.yaml");
    std::fs::read_to_string(site).unwrap()
}

/// What the schemas say to manifests.
fn judge(directory: &Directory, manifests: &str) -> Said {
    directory.write("manifests.yaml", manifests);
    let path = directory.join("manifests.yaml").display().to_string();
    run(LIMIT, "python3", &[&[&*script("manifests.py"), &path], &VERSIONS[..]].concat())
}
