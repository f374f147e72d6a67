//! The site file: cases of what is found, the examples, the reference page, and text that means nothing.
//!
//! A case file holds cases: a line `=== what it shows`, a site file, a line `--- findings`, and the findings as
//! printed. `DUALGATE_BLESS=1 cargo test -p dualgate-core --test site` writes what is found into the files;
//! review the difference.

use std::fs;
use std::path::{Path, PathBuf};

use dualgate_core::check;
use dualgate_core::model::{Finding, Severity};
use dualgate_core::parse::site;
use proptest::prelude::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn findings(file: &str, text: &str) -> Vec<Finding> {
    let mut reading = site::read(file, text);
    if let Some(site) = &reading.site {
        reading.findings.extend(check::site::site(site, &reading.marks));
    }
    reading.findings
}

fn printed(text: &str) -> String {
    let one = |finding: Finding| {
        let help = if finding.help.is_empty() { String::new() } else { format!("    help: {}\n", finding.help) };
        format!("{finding}\n{help}")
    };
    findings("site.yaml", text).into_iter().map(one).collect()
}

struct Case<'a> {
    title: &'a str,
    input: &'a str,
    expected: &'a str,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let case = |part| {
        let (title, rest) = str::split_once(part, '\n').expect("a case has a title");
        let (input, expected) = rest.split_once("--- findings\n").expect("a case has `--- findings`");
        Case { title, input, expected: expected.trim_end() }
    };
    let text = text.strip_prefix("=== ").expect("a file starts with a case");
    text.split("\n=== ").map(case).collect()
}

#[test]
fn every_case_finds_what_it_says() {
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/site");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut blessed = Vec::new();
        for Case { title, input, expected } in cases(&text) {
            let found = printed(input);
            blessed.push(format!("=== {title}\n{input}--- findings\n{found}"));
            if found.trim_end() != expected {
                wrong.push_str(&format!("{}: {title}\n-- expected\n{expected}\n-- found\n{found}\n", file.display()));
            }
            count += 1;
        }
        if bless {
            fs::write(&file, blessed.join("\n")).unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 40, "only {count} cases were read");
}

#[test]
fn the_reference_page_is_what_the_schema_says() {
    let path = repository().join("docs/reference/site.md");
    if std::env::var_os("DUALGATE_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, site::reference()).unwrap();
    }
    let page = fs::read_to_string(&path).unwrap_or_default();
    assert!(page == site::reference(), "docs/reference/site.md is out of date: run `cargo xtask docs`");
}

#[test]
fn the_home_example_has_only_the_notes_that_its_readme_explains() {
    let text = fs::read_to_string(repository().join("examples/home/site.yaml")).unwrap();
    let findings = findings("examples/home/site.yaml", &text);
    let noted: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.at.field.as_str())).collect();
    let expected = [
        "nodes[3].roles[0]",
        "nodes[3].addresses",
        "gates.internal.addresses[1]",
        "gates.external",
        "tunnel",
        "tunnel.mtu",
        "dns.zones",
    ];
    assert_eq!(noted, expected.map(|field| (Severity::Note, field)), "{findings:#?}");
}

#[test]
fn the_laptop_example_has_no_findings_and_needs_no_root() {
    let text = fs::read_to_string(repository().join("examples/laptop/site.yaml")).unwrap();
    assert_eq!(findings("examples/laptop/site.yaml", &text), []);
    let site = site::site("", &text).0.unwrap();
    let points = site.gates.values().flat_map(|gate| gate.entry_points.values());
    assert!(
        points.map(|point| point.port).chain(site.admin.listen.iter().map(|at| at.port())).all(|port| port >= 1024)
    );
    assert!(site.gates.values().flat_map(|gate| &gate.addresses).all(std::net::IpAddr::is_loopback));
}

#[test]
fn defaults_are_those_of_the_model() {
    let text = "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nnodes: []\ngates: {}\n";
    let site = site::site("", text).0.unwrap();
    assert_eq!(site.proxy, dualgate_core::model::site::ProxySettings::default());
}

/// Words of the schema in an order that makes no sense, so that more than the YAML parser is reached.
fn nonsense() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "apiVersion",
        "dualgate.dev/v1alpha1",
        "kind",
        "Site",
        "nodes",
        "gates",
        "internal",
        "external",
        "addresses",
        "roles",
        "pools",
        "lan",
        "dhcp",
        "192.168.1.0/24",
        "fd00::1",
        "::/0",
        "0.0.0.0",
        "255.255.255.255/0",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "10.0.0.1-10.0.0.9",
        "web",
        "-1",
        "65536",
        "1h",
        "{",
        "}",
        "[",
        "]",
        "- ",
        ": ",
        ", ",
        "\n",
        "\n  ",
        "&a ",
        "*a",
        "<<: ",
        "'",
        "\"",
        "|",
        "#",
        "\u{e9}",
        "\t",
        "entryPoints",
    ]);
    prop::collection::vec(words, 0..80).prop_map(|words| words.concat())
}

/// A site that is well-formed, with addresses and numbers from the edges of what is allowed.
fn extreme() -> impl Strategy<Value = String> {
    let address = prop::sample::select(vec![
        "0.0.0.0",
        "255.255.255.255",
        "'::'",
        "'::1'",
        "127.0.0.1",
        "192.168.1.1",
        "fe80::1",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ]);
    let net =
        prop::sample::select(vec!["0.0.0.0/0", "'::/0'", "192.168.1.0/24", "10.0.0.0/32", "'::1/128'", "fd00::/8"]);
    let role = prop::sample::select(vec!["internal-gate", "external-gate", "virtual-ips", "agent", "server", "dns"]);
    let many = |strategy| prop::collection::vec(strategy, 0..4);
    (many(address.clone()), many(address.clone()), many(net.clone()), many(net), many(role), many(address), 576u16..9000)
        .prop_map(|(own, gate, lan, pods, roles, public, mtu)| {
            let list = |items: Vec<&str>| items.join(", ");
            format!(
                "apiVersion: dualgate.dev/v1alpha1\nkind: Site\nlan: {{subnets: [{lan}], dhcp: [{lan}]}}\n\
                 cluster: {{podCIDRs: [{pods}], serviceCIDRs: [{pods}]}}\n\
                 nodes: [{{name: a, addresses: [{own}], publicAddresses: [{public}], roles: [{roles}], podCIDRs: [{lan}]}}, \
                 {{name: b, addresses: [{public}], roles: [external-gate]}}]\n\
                 pools: [{{name: p, addresses: [{own}, {lan}]}}]\n\
                 gates: {{internal: {{addresses: [{gate}]}}, external: {{}}}}\ntunnel: {{mtu: {mtu}}}\ndns: {{forward: [{own}]}}\n",
                lan = list(lan), pods = list(pods), own = list(own), public = list(public), roles = list(roles),
                gate = list(gate),
            )
            .replace("[, ", "[").replace(", ]", "]")
        })
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,400}") {
        findings("site.yaml", &text);
    }

    #[test]
    fn nonsense_of_known_words_never_panics(text in nonsense()) {
        findings("site.yaml", &text);
    }

    #[test]
    fn extreme_addresses_never_panic_and_are_read(text in extreme()) {
        let reading = site::read("site.yaml", &text);
        prop_assert!(reading.site.is_some(), "{text}\n{:#?}", reading.findings);
        findings("site.yaml", &text);
    }
}
