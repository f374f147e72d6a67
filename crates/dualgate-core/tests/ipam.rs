//! Addresses of LoadBalancer Services: cases, and what holds for every site and all Services.
//!
//! A case file holds cases: a line `=== what it shows`, keys of a site file (the rest is [`site_file`]'s), and sections.
//! Inputs: `--- objects` (see [`Service`]), `--- site` (another site), `--- had` (what Services had before, as
//! `name address...`). An input after an output is the next moment: what was assigned before is had then. Outputs:
//! `--- services`, `--- pools`, `--- findings`, `--- differences`, each also `, IPv4 only` or `, IPv6 only` for a home without the other family.
//! `DUALGATE_BLESS=1 cargo test -p dualgate-core --test ipam` writes what is found; review the difference.
//!
//! A number such as `M5` in a title is a case of MetalLB's own suite, `P` of PureLB's, `K` of kube-vip's.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use dualgate_core::model::site::Site;
use dualgate_core::model::snapshot::{Facts, Generation};
use dualgate_core::model::{Assignments, Family, IpRange, ObjectName, ObjectSet, Snapshot};
use dualgate_core::parse::file::{assemble, file};
use dualgate_core::parse::site;
use dualgate_core::plan::ipam::{Assigned, Count, Reason, assign, differences};
use ipnet::IpNet;

#[path = "ipam/properties.rs"]
mod properties;

/// The keys that a case does not write.
const DEFAULTS: [(&str, &str); 5] = [
    ("apiVersion", "dualgate.dev/v1alpha1"),
    ("kind", "Site"),
    ("lan", "{subnets: [192.168.178.0/24, 'fda8::/64'], router: {addresses: [192.168.178.1, 'fda8::1']}}"),
    ("cluster", "{serviceCIDRs: [10.43.0.0/16, 'fd02::/112']}"),
    ("gates", "{internal: {addresses: [192.168.178.10, 'fda8::10']}}"),
];
const NODES: &str =
    "nodes: [{name: node1, roles: [internal-gate, virtual-ips], addresses: [192.168.178.5, 'fda8::5']}]\n";

fn site_file(keys: &str) -> String {
    let has = |key: &str| keys.lines().any(|line| line.starts_with(&format!("{key}:")));
    let mut text = keys.to_owned() + "\n";
    for (key, value) in DEFAULTS.into_iter().filter(|(key, _)| !has(key)) {
        text += &format!("{key}: {value}\n");
    }
    text + if has("nodes") { "" } else { NODES }
}

fn read_site(keys: &str) -> Site {
    let (site, findings) = site::site("site.yaml", &site_file(keys));
    site.unwrap_or_else(|| panic!("{keys}\n{findings:#?}"))
}

/// A Service in a line: `[namespace/]name [key=value...]`. The keys are those below; one with a `/` is an annotation. It is
/// a LoadBalancer with port 80 unless it says so. Lines that start with `{` are whole objects.
fn manifest(line: &str) -> String {
    if line.starts_with('{') {
        return format!("---\n{line}\n");
    }
    let mut words = line.split_whitespace();
    let name = words.next().unwrap();
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let (mut meta, mut spec, mut status) = (String::new(), String::new(), String::new());
    let (mut annotations, mut kind, mut ports) = (Vec::new(), "LoadBalancer", "80");
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("`{word}` in `{line}`"));
        match key {
            "type" => kind = value,
            "ports" => ports = value,
            "policy" => spec += &format!(", ipFamilyPolicy: {value}DualStack"),
            "families" => spec += &format!(", ipFamilies: [{value}]"),
            "class" => spec += &format!(", loadBalancerClass: {value}"),
            "ip" => spec += &format!(", loadBalancerIP: '{value}'"),
            "traffic" => spec += &format!(", externalTrafficPolicy: {value}"),
            "selects" => spec += &format!(", selector: {{app: {value}}}"),
            "created" => meta += &format!(", creationTimestamp: '{value}-01-01T00:00:00Z'"),
            "label" => meta += &format!(", labels: {{{}}}", value.replace(':', ": ")),
            "status" => status = value.split(',').map(|ip| format!("{{ip: '{ip}'}}")).collect::<Vec<_>>().join(", "),
            _ if key.contains('/') => annotations.push(format!("{key}: '{value}'")),
            _ => panic!("`{key}` in `{line}`"),
        }
    }
    let port = |port: &str| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
        format!("{{name: p{number}{}, port: {number}, protocol: {protocol}}}", protocol.to_lowercase())
    };
    let ports: Vec<String> = ports.split(',').map(port).collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}{meta}, annotations: {{{}}}}}\n\
         spec: {{type: {kind}, ports: [{}]{spec}}}\nstatus: {{loadBalancer: {{ingress: [{status}]}}}}\n",
        annotations.join(", "),
        ports.join(", "),
    )
}

fn read_objects(lines: &str) -> ObjectSet {
    let text: String = lines.lines().filter(|line| !line.trim().is_empty()).map(manifest).collect();
    let objects = assemble([&file("objects.yaml", &text)].into_iter());
    assert_eq!(objects.findings, [], "{text}");
    objects
}

fn snapshot(site: Site, objects: ObjectSet, had: &Assignments) -> Snapshot {
    let facts = Facts { assigned: Arc::new(had.clone()), ..Facts::default() };
    Snapshot { generation: Generation(1), site: Arc::new(site), objects: Arc::new(objects), facts }
}

/// The same home without the other family.
fn only(mut site: Site, family: Option<Family>) -> Site {
    let Some(family) = family else { return site };
    let address = |address: &IpAddr| Family::of(*address) == family;
    let net = |net: &IpNet| Family::of(net.addr()) == family;
    let range = |range: &IpRange| range.family() == family;
    site.cluster.service_cidrs.retain(net);
    site.lan.subnets.retain(net);
    site.lan.dhcp.retain(range);
    site.nodes.iter_mut().for_each(|node| node.addresses.retain(address));
    site.gates.values_mut().for_each(|gate| gate.addresses.retain(address));
    for pool in &mut site.pools {
        pool.ranges.retain(range);
        pool.reserved.iter_mut().for_each(|reservation| reservation.ranges.retain(range));
    }
    site
}

const HOMES: [Option<Family>; 3] = [None, Some(Family::V4), Some(Family::V6)];

/// What a case has come to.
struct Moment {
    site: String,
    objects: String,
    /// By home.
    had: [Assignments; 3],
    /// Whether something was looked at since the last input.
    is_looked_at: bool,
}

impl Moment {
    fn snapshot(&self, home: usize) -> Snapshot {
        snapshot(only(read_site(&self.site), HOMES[home]), read_objects(&self.objects), &self.had[home])
    }

    fn assigned(&self, home: usize) -> Assigned {
        assign(&self.snapshot(home))
    }

    fn input(&mut self, what: &str, text: &str) {
        if self.is_looked_at {
            self.had = [0, 1, 2].map(|home| self.assigned(home).assignments);
            self.is_looked_at = false;
        }
        match what {
            "site" => self.site = text.to_owned(),
            "objects" => self.objects = text.to_owned(),
            _ => self.had = [(); 3].map(|()| had(text)),
        }
    }
}

fn had(text: &str) -> Assignments {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (namespace, name) =
            words.next().unwrap().split_once('/').unwrap_or(("default", line.split(' ').next().unwrap()));
        (ObjectName::new(namespace, name), words.map(|word| word.parse().unwrap()).collect())
    };
    text.lines().filter(|line| !line.is_empty()).map(line).collect()
}

fn output(section: &str, snapshot: &Snapshot) -> String {
    let (mut text, assigned) = (String::new(), assign(snapshot));
    match section {
        "services" => {
            for used in &assigned.services {
                let addresses: Vec<String> = used
                    .addresses
                    .iter()
                    .map(|held| format!("{} ({}, {})", held.address, held.pool, word(held.reason)))
                    .collect();
                let missing = used.missing.iter().map(|missing| format!("no {}: {}", missing.family, missing.why));
                let all: Vec<String> = addresses.into_iter().chain(missing).collect();
                writeln!(text, "{}: {}", used.service, all.join("; ")).unwrap();
            }
        }
        "pools" => {
            let count =
                |Count { used, reserved, free }: Count| format!("{used} used, {reserved} reserved, {free} free");
            for pool in &assigned.pools {
                writeln!(text, "{}: IPv4 {}; IPv6 {}", pool.name, count(pool.v4), count(pool.v6)).unwrap();
            }
        }
        "findings" => {
            for finding in &assigned.findings {
                let place = &finding.at;
                let object = place.object.as_ref().unwrap();
                let (severity, code, message) = (finding.severity, finding.code, &finding.message);
                writeln!(text, "{object} {}: {severity}[{code}]: {message}", place.field).unwrap();
                if !finding.help.is_empty() {
                    writeln!(text, "    help: {}", finding.help).unwrap();
                }
            }
        }
        "differences" => differences(snapshot).iter().for_each(|line| writeln!(text, "{line}").unwrap()),
        other => panic!("`{other}` is no section"),
    }
    text
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Kept => "kept",
        Reason::Asked => "asked",
        Reason::Reserved => "reserved",
        Reason::Shared => "shared",
        Reason::Free => "free",
    }
}

/// The case as it is, and how many outputs it has.
fn run(case: &str) -> (String, usize) {
    let mut parts = case.split("\n--- ");
    let (title, site) = parts.next().unwrap().split_once('\n').expect("a case has a site");
    let mut page = format!("=== {title}\n{}\n", site.trim_end());
    let had = [(); 3].map(|()| Assignments::default());
    let mut moment = Moment { site: site.to_owned(), objects: String::new(), had, is_looked_at: false };
    let mut outputs = 0;
    for part in parts {
        let (section, text) = part.split_once('\n').unwrap_or((part, ""));
        if matches!(section, "site" | "objects" | "had") {
            moment.input(section, text);
            page += &format!("--- {section}\n{}\n", text.trim_end());
            continue;
        }
        let (question, home) = match section.split_once(", ") {
            Some((question, "IPv4 only")) => (question, 1),
            Some((question, "IPv6 only")) => (question, 2),
            Some((_, other)) => panic!("{title}: `{other}`"),
            None => (section, 0),
        };
        page += &format!("--- {section}\n{}", output(question, &moment.snapshot(home)));
        moment.is_looked_at = true;
        outputs += 1;
    }
    (page, outputs)
}

#[test]
fn every_case_gives_what_it_says() {
    let bless = std::env::var_os("DUALGATE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/ipam");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut wrong) = (0, String::new());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.strip_prefix("=== ").expect("a file starts with a case");
        let mut blessed = Vec::new();
        for case in text.split("\n=== ") {
            let (page, outputs) = run(case);
            let expected = format!("=== {}", case.trim_end());
            if page.trim_end() != expected {
                writeln!(wrong, "{}\n-- expected\n{expected}\n-- found\n{page}", path.display()).unwrap();
            }
            count += outputs;
            blessed.push(page);
        }
        if bless {
            fs::write(&path, blessed.join("\n")).unwrap();
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 100, "only {count} outputs were compared");
}
