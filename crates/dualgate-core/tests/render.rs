//! What is written for a person to install: cases, and what holds for every site.
//!
//! A case file of `tests/cases/k3s` holds cases: a line `=== what it shows`, a site file (its head is added) or a line
//! `file: PATH` below the repository, and sections `--- NODE`, perhaps with options of `dualgate render k3s` behind the
//! name: the node's `config.yaml`, its findings behind `>>> findings` and the steps behind `>>> steps`.
//! `DUALGATE_BLESS=1 cargo test -p dualgate-core --test render` writes what is found; review the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use dualgate_core::model::{NodeName, Severity, Site};
use dualgate_core::parse::site::{self, Marks};
use dualgate_core::parse::yaml;
use dualgate_core::render::k3s::{self, KEYS, Rendered, Wishes};
use proptest::prelude::*;

const HEAD: &str = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(title: &str, text: &str) -> (Site, Marks) {
    let (file, text) = match text.trim_end().strip_prefix("file: ") {
        Some(path) => (path.to_owned(), fs::read_to_string(repository().join(path)).unwrap()),
        None => ("site.yaml".to_owned(), format!("{HEAD}{text}")),
    };
    let reading = site::read(&file, &text);
    let site = reading.site.unwrap_or_else(|| panic!("{title}: {:#?}", reading.findings));
    (site, reading.marks)
}

fn wishes(title: &str, options: &[&str]) -> Wishes {
    let mut wishes = Wishes::default();
    for pair in options.chunks(2) {
        match *pair {
            ["--first", name] => wishes.first = Some(NodeName::new(name)),
            ["--tls-san", name] => wishes.tls_san.push(name.to_owned()),
            ["--node-label", label] => wishes.node_label.push(label.to_owned()),
            ["--node-taint", taint] => wishes.node_taint.push(taint.to_owned()),
            _ => panic!("{title}: `{pair:?}`"),
        }
    }
    wishes
}

fn printed(rendered: &Rendered) -> String {
    let mut page = rendered.config.as_ref().map(k3s::Config::to_yaml).unwrap_or_default();
    if !rendered.findings.is_empty() {
        page.push_str(">>> findings\n");
    }
    for finding in &rendered.findings {
        let _ = writeln!(page, "{finding}\n    help: {}", finding.help);
    }
    if !rendered.steps.is_empty() {
        page.push_str(">>> steps\n");
    }
    rendered.steps.iter().for_each(|step| page.push_str(&format!("{step}\n")));
    page
}

fn rendered(title: &str, input: &str, question: &str) -> Rendered {
    let (site, marks) = read(title, input);
    let mut words = question.split(' ');
    let node = NodeName::new(words.next().unwrap());
    k3s::k3s(&site, &marks, &node, &wishes(title, &words.collect::<Vec<_>>()))
}

#[test]
fn every_node_gets_what_its_case_says() {
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/k3s");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let mut blessed = Vec::new();
        for case in text.strip_prefix("=== ").expect("a file starts with a case").split("\n=== ") {
            let mut parts = case.split("\n--- ");
            let (title, input) = parts.next().unwrap().split_once('\n').expect("a case has a site");
            let mut page = format!("=== {title}\n{input}");
            for part in parts {
                let (question, expected) = part.split_once('\n').unwrap_or((part, ""));
                let found = printed(&rendered(title, input, question));
                if found.trim_end() != expected.trim_end() {
                    let _ = writeln!(wrong, "{}: {title}: {question}\n{found}", path.display());
                }
                let _ = write!(page, "\n--- {question}\n{}", found.trim_end());
                count += 1;
            }
            blessed.push(page);
        }
        if bless {
            fs::write(&path, blessed.join("\n\n") + "\n").unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 12, "only {count} nodes were written");
}

/// Sites of every size and mixture of families, in both orders.
fn sites() -> impl Strategy<Value = String> {
    let family = prop::sample::select(vec!["v4", "v6", "v4v6", "v6v4"]);
    let role = prop::sample::select(vec!["server", "agent", "internal-gate"]);
    (family, prop::collection::vec(role, 1..6), 8_u8..30, 40_u8..118, any::<bool>()).prop_map(
        |(family, roles, v4, v6, edge)| {
            let list = |v4: String, v6: String| match family {
                "v4" => format!("[{v4}]"),
                "v6" => format!("[\"{v6}\"]"),
                "v4v6" => format!("[{v4}, \"{v6}\"]"),
                _ => format!("[\"{v6}\", {v4}]"),
            };
            let mut nodes = String::new();
            for (index, role) in roles.iter().enumerate() {
                let addresses = list(format!("192.168.9.{}", index + 1), format!("fd00:9::{:x}", index + 1));
                let _ = writeln!(nodes, "  - {{name: n{index}, roles: [{role}], addresses: {addresses}}}");
            }
            if edge {
                let addresses = list("10.9.0.1".to_owned(), "fd00:a::1".to_owned());
                let _ = writeln!(nodes, "  - {{name: edge, roles: [agent, external-gate], addresses: {addresses}}}");
            }
            let pods = list(format!("10.0.0.0/{v4}"), format!("fd01::/{v6}"));
            let services = list("172.16.0.0/16".to_owned(), "fd02::/112".to_owned());
            format!("{HEAD}cluster: {{podCIDRs: {pods}, serviceCIDRs: {services}}}\ngates: {{internal: {{}}, external: {{}}}}\ntunnel: {{}}\nnodes:\n{nodes}")
        },
    )
}

proptest! {
    #[test]
    fn whatever_is_written_is_yaml_with_known_keys_and_equal_where_it_must_be(text in sites()) {
        let reading = site::read("site.yaml", &text);
        let site = reading.site.expect("it is well-formed");
        let mut equal: Vec<(String, serde_json::Value)> = Vec::new();
        for node in &site.nodes {
            let rendered = k3s::k3s(&site, &reading.marks, &node.name, &Wishes::default());
            let failed = rendered.findings.iter().any(|finding| finding.severity == Severity::Error);
            prop_assert_eq!(rendered.config.is_none(), failed, "{:#?}", rendered.findings);
            let Some(config) = rendered.config else { continue };
            let documents = yaml::documents(&config.to_yaml());
            prop_assert!(documents.error.is_none() && documents.duplicates.is_empty());
            let value = documents.documents[0].to_json();
            let written = value.as_object().unwrap();
            prop_assert!(written.keys().all(|name| KEYS.iter().any(|key| key.name == name)), "{written:?}");
            prop_assert_eq!(written["node-ip"].as_str().unwrap().split(',').count(), site.cluster.pod_cidrs.len());
            if config.part.program() != "server" {
                prop_assert!(!config.to_yaml().contains("rancher/k3s/token"), "the server token is no agent's");
                continue;
            }
            let same = KEYS.iter().filter(|key| matches!(key.later, k3s::Later::Equal | k3s::Later::FixedAndEqual));
            let found: Vec<(String, serde_json::Value)> =
                same.filter_map(|key| Some((key.name.to_owned(), written.get(key.name)?.clone()))).collect();
            if equal.is_empty() {
                equal.clone_from(&found);
            }
            prop_assert_eq!(&equal, &found);
        }
    }
}
