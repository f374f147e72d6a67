//! What is installed into a cluster: cases.
//!
//! A case file holds cases: a line `=== what it shows`, a site file (its head is added), perhaps a line
//! `--- edges NODE...` that says which edges run as pods, one `--- services NODE...` that says which home nodes do not, and sections of what comes of it: `--- list` names the objects
//! in their order, `--- all` is all of them, `--- KIND NAME` is one, `--- refused` is why there are none.
//! `DUALGATE_BLESS=1 cargo test -p dualgate-core --test install` writes what is found; review the difference.

use std::fs;
use std::path::Path;

use dualgate_core::model::NodeName;
use dualgate_core::parse::site;
use dualgate_core::plan::install::object::ObjectId;
use dualgate_core::plan::install::{InstallError, Installation, Options, install};
use dualgate_core::yaml;

const HEAD: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\ngates: {internal: {}, external: {}}\n";

struct Case<'a> {
    title: &'a str,
    site: &'a str,
    edges: Vec<NodeName>,
    services: Vec<NodeName>,
    /// Title and text of what is expected.
    sections: Vec<(&'a str, &'a str)>,
}

fn case(text: &str) -> Case<'_> {
    let mut parts = text.split("\n--- ");
    let (title, site) = parts.next().unwrap().split_once('\n').expect("a case has a site");
    let mut sections: Vec<_> = parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect();
    let named = |choice: &str| -> Vec<NodeName> {
        let nodes = sections.iter().find_map(|(title, _)| title.strip_prefix(choice));
        nodes.unwrap_or_default().split_whitespace().map(NodeName::new).collect()
    };
    let (edges, services) = (named("edges "), named("services "));
    sections.retain(|(title, _)| !title.starts_with("edges ") && !title.starts_with("services "));
    Case { title, site, edges, services, sections }
}

impl Case<'_> {
    fn install(&self) -> Result<Installation, InstallError> {
        let site_file = format!("{HEAD}{}\n", self.site);
        let (site, findings) = site::site("site.yaml", &site_file);
        let site = site.unwrap_or_else(|| panic!("{}: {findings:#?}", self.title));
        let (edges, services) = (self.edges.clone(), self.services.clone());
        install(&site, &Options { image: "localhost/dualgate:1".to_owned(), site_file, edges, services })
    }

    fn result(&self, section: &str) -> String {
        let installation = match self.install() {
            Ok(installation) => installation,
            Err(error) => return format!("{error}\n"),
        };
        let ids = || installation.objects.iter().map(|object| ObjectId::of(object).expect("a known kind"));
        match section {
            "list" => ids().map(|id| format!("{id}\n")).collect(),
            "all" => yaml::documents(&installation.objects),
            one => {
                let found = installation.objects.iter().zip(ids());
                let mut found = found.filter(|(_, id)| id.to_string().replace("dualgate-system/", "") == one);
                found.next().map_or("nothing\n".to_owned(), |(object, _)| yaml::document(object))
            }
        }
    }
}

#[test]
fn a_site_comes_to_its_objects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/install");
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let (mut count, mut wrong) = (0, String::new());
    for entry in fs::read_dir(&folder).expect("the cases") {
        let path = entry.expect("a case file").path();
        let text = fs::read_to_string(&path).expect("a case file");
        let cases = text.strip_prefix("=== ").expect("a file starts with a case").trim_end();
        let mut written = Vec::new();
        for case in cases.split("\n=== ").map(|text| case(text.trim_end())) {
            let mut found = format!("=== {}\n{}\n", case.title, case.site);
            for (choice, nodes) in [("edges", &case.edges), ("services", &case.services)] {
                if !nodes.is_empty() {
                    let nodes: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                    found.push_str(&format!("--- {choice} {}\n", nodes.join(" ")));
                }
            }
            for (section, expected) in &case.sections {
                let result = case.result(section);
                if result.trim_end() != expected.trim_end() {
                    wrong.push_str(&format!("{}: {section}\n{result}", case.title));
                }
                found.push_str(&format!("--- {section}\n{result}"));
                count += 1;
            }
            written.push(found);
        }
        if bless {
            fs::write(&path, written.join("\n")).expect("write the case file");
        }
    }
    assert!(count > 10, "only {count} sections");
    assert!(bless || wrong.is_empty(), "{wrong}");
}

#[test]
fn an_installation_is_for_the_nodes_that_it_names() {
    let text = "nodes:\n  - {name: a, roles: [server, internal-gate], addresses: [10.0.0.1]}\n  \
        - {name: b, roles: [internal-gate], addresses: [10.0.0.2]}\n  \
        - {name: e, roles: [agent, external-gate], addresses: [10.0.0.3], publicAddresses: [192.0.2.1]}";
    let case = case_of(text, "e");
    let installation = case.install().expect("it can be installed");
    let nodes: Vec<(&str, Vec<&str>)> =
        installation.nodes.iter().map(|(set, nodes)| (*set, nodes.iter().map(NodeName::as_str).collect())).collect();
    assert_eq!(nodes, [("dualgate-edge", vec!["e"]), ("dualgate-home", vec!["a"])]);
}

#[test]
fn a_site_file_that_no_config_map_holds_is_refused() {
    let text = "nodes: [{name: a, roles: [server, internal-gate], addresses: [10.0.0.1]}]";
    let large = format!("{text}\n{}", "#".repeat(1 << 20));
    assert!(matches!(case_of(&large, "").install(), Err(InstallError::TooLarge(_))));
    assert!(case_of(text, "").install().is_ok());
}

#[test]
fn a_file_that_no_pod_sees_is_refused() {
    let site = |path: &str| {
        format!(
            "nodes: [{{name: a, roles: [server, internal-gate, dns], addresses: [10.0.0.1]}}]\n\
             dns:\n  zones: [{{name: example.org, publish: 'provider:ionos'}}]\n  \
             providers: {{ionos: {{type: ionos, tokenFile: {path}}}}}"
        )
    };
    let wrong = site("/etc/dualgate/ionos.key");
    let refused = case_of(&wrong, "").install().expect_err("it cannot be read").to_string();
    assert_eq!(
        refused,
        "`/etc/dualgate/ionos.key` is not to be seen in a pod; put it below `/var/lib/dualgate` on every home node"
    );
    case_of(&site("/var/lib/dualgate/ionos.key"), "").install().expect("it is the node's own");
}

fn case_of<'a>(site: &'a str, edges: &'a str) -> Case<'a> {
    let edges = edges.split_whitespace().map(NodeName::new).collect();
    Case { title: "", site, edges, services: Vec::new(), sections: Vec::new() }
}
