//! Zones that live at Knot DNS: written by RFC 2136 with TSIG, beside records that others made.

use std::collections::BTreeSet;

use super::*;
use crate::support::{application, eventually};

const KNOT: &[Tool] = &[Tool::Program("knotd"), Tool::Program("kdig"), Tool::Program("knsupdate")];
/// `openssl rand -base64 32`, for nothing else than these tests.
const SECRET: &str = "y3kMZ8Qm0c1sQw1u5v0rYpJ8cM1o3bqTzKq0bJ9mX2s=";
const OTHER: &str = "AAAAZ8Qm0c1sQw1u5v0rYpJ8cM1o3bqTzKq0bJ9mX2s=";

/// What somebody else has in the zone.
const ZONE: &str = "\
$ORIGIN example.org.
@ 3600 IN SOA ns1.example.org. hostmaster.example.org. 1 3600 600 1209600 60
@ 3600 IN NS ns1.example.org.
ns1 3600 IN A 192.0.2.53
mail 3600 IN A 192.0.2.25
taken 3600 IN A 192.0.2.99
@ 3600 IN MX 10 mail.example.org.
";

/// A name server with the zone, and a home whose site publishes there.
struct Knot {
    home: Home,
    at: SocketAddr,
    server: Child,
    _reserved: super::support::Reservation,
}

impl Drop for Knot {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Knot {
    fn start() -> Self {
        let (home, reserved) = (Home::new(), reserve(V4));
        let at = reserved.address;
        let path = |name: &str| home.directory.join(name).display().to_string();
        home.directory.write("knot/example.org.zone", ZONE);
        home.directory.write("tsig.key", &format!("{SECRET}\n"));
        home.directory.write("other.key", OTHER);
        let conf = format!(
            "server:
    rundir: {run}
    listen: {ip}@{port}
database:
    storage: {run}
log:
  - target: stderr
    any: info
key:
  - id: dualgate
    algorithm: hmac-sha256
    secret: {SECRET}
  - id: long
    algorithm: hmac-sha512
    secret: {SECRET}
acl:
  - id: ours
    key: [dualgate, long]
    action: [transfer, update]
zone:
  - domain: example.org
    storage: {run}
    file: example.org.zone
    acl: ours
",
            run = path("knot"),
            ip = at.ip(),
            port = at.port()
        );
        home.directory.write("knot.conf", &conf);
        let mut command = Command::new("knotd");
        command.args(["-c", &path("knot.conf")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().expect("start knotd");
        let knot = Self { home, at, server, _reserved: reserved };
        eventually("Knot answers", || {
            let said = knot.ask("ns1.example.org", "A");
            if said == ["192.0.2.53"] { Ok(()) } else { Err(format!("{said:?}")) }
        });
        knot.site("tsig.key", "key: dualgate");
        knot
    }

    /// The site file, with this secret and more about the provider.
    fn site(&self, secret: &str, more: &str) {
        let edge = "- {name: edge, roles: [external-gate], addresses: [127.0.0.2], publicAddresses: [203.0.113.10, '2001:db8::10']}\n";
        let dns = format!(
            "dns:
  forward: ['{at}']
  providers:
    knot: {{type: rfc2136, server: '{at}', secretFile: {file}, interval: 1s, {more}}}
  zones:
  - name: example.org
    publish: provider:knot
    records:
    - {{name: direct, type: HTTPS, value: 1 . alpn=h2}}
    - {{name: '@', type: CAA, value: 0 issue ca.example}}
",
            at = self.at,
            file = self.home.directory.join(secret).display(),
        );
        let site = self.home.site(&dns).replace("gates:\n", &format!("{edge}gates:\n"));
        self.home.directory.write("site.yaml", &site);
    }

    fn manifest(&self, name: &str, gates: &str) {
        self.home.manifest(name, &application(name, &[]).replace("'internal'", &format!("'{gates}'")));
    }

    /// What it answers, a line each.
    fn ask(&self, name: &str, rtype: &str) -> Vec<String> {
        let (server, port) = (format!("@{}", self.at.ip()), self.at.port().to_string());
        let said = run(LIMIT, "kdig", &[&server, "-p", &port, "+short", "+retry=0", "+timeout=1", name, rtype]);
        said.out.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The whole zone: `NAME TYPE DATA`, without its start and what it was from the beginning.
    fn records(&self) -> BTreeSet<String> {
        let (server, port) = (format!("@{}", self.at.ip()), self.at.port().to_string());
        let key = format!("hmac-sha256:dualgate:{SECRET}");
        let said = run(LIMIT, "kdig", &[&server, "-p", &port, "-y", &key, "+nocomments", "example.org", "AXFR"]);
        let lines =
            said.out.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric() || "_*".contains(c)));
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[3], words[4..].join(" "))
        };
        lines.map(line).filter(|line| !line.contains(" SOA ") && !line.contains(" TSIG ")).collect()
    }

    /// Changes it as its administrator would.
    fn update(&self, lines: &str) {
        let script = format!("server {} {}\nzone example.org.\n{lines}send\n", self.at.ip(), self.at.port());
        self.home.directory.write("update", &script);
        let key = format!("hmac-sha256:dualgate:{SECRET}");
        let file = self.home.directory.join("update").display().to_string();
        let said = run(LIMIT, "knsupdate", &["-y", &key, &file]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    /// `dualgate dns diff`.
    fn diff(&self) -> Said {
        let (site, source) = (self.home.directory.join("site.yaml"), self.home.directory.join("manifests"));
        let source = format!("folder:{}", source.display());
        let arguments = ["dns", "diff", "--site", &site.display().to_string(), "--source", &source];
        run(LIMIT, env!("CARGO_BIN_EXE_dualgate"), &arguments)
    }

    #[track_caller]
    fn wait_for(&self, name: &str, rtype: &str, expected: &[&str]) {
        eventually(&format!("{name} {rtype} {expected:?}"), || {
            let said = self.ask(name, rtype);
            if said == expected { Ok(()) } else { Err(format!("{said:?}; {:#?}", self.records())) }
        });
    }
}

#[test]
fn knot_says_what_is_wanted_and_what_others_made_stays() {
    if !has("knot_says_what_is_wanted_and_what_others_made_stays", KNOT) {
        return;
    }
    let knot = Knot::start();
    let before = knot.records();
    knot.manifest("app", "internal,external");
    knot.manifest("taken", "external");
    knot.manifest("secret", "internal");
    let said = knot.diff();
    assert_eq!(said.code, Some(1), "{said:?}");
    for line in [
        "example.org at knot",
        "+ app.example.org A: 60 s 203.0.113.10  ingress/default/app",
        "+ app.example.org AAAA: 60 s 2001:db8::10  ingress/default/app",
        "+ direct.example.org HTTPS: 60 s 1 . alpn=h2  site-file",
        "! taken.example.org A: it is there and not dualgate's: it is left as it is",
    ] {
        assert!(said.out.lines().any(|known| known == line), "no `{line}` in\n{}", said.out);
    }
    assert!(!said.out.contains("secret.example.org"), "{}", said.out);
    assert_eq!(knot.records(), before, "a diff changes nothing");

    let node = Node::serve(&knot.home);
    knot.wait_for("app.example.org", "A", &["203.0.113.10"]);
    knot.wait_for("app.example.org", "AAAA", &["2001:db8::10"]);
    knot.wait_for("direct.example.org", "TYPE65", &["1 . alpn=h2"]);
    knot.wait_for("example.org", "CAA", &["0 issue \"ca.example\""]);
    let mark = "\"heritage=external-dns,external-dns/owner=test,external-dns/resource=ingress/default/app\"";
    knot.wait_for("_dualgate-a.app.example.org", "TXT", &[mark]);
    knot.wait_for("taken.example.org", "A", &["192.0.2.99"]);
    node.wait_for_finding("dns-foreign", "taken.example.org A at knot");
    let after = knot.records();
    assert!(before.is_subset(&after), "{before:#?}\n{after:#?}");
    // What is not wanted of this gate is nowhere, neither is an address of home.
    assert!(after.iter().all(|line| !line.contains("secret") && !line.contains("127.0.0.1")), "{after:#?}");

    // Somebody changes what is ours, and takes something away.
    knot.update("del app.example.org. A\nadd app.example.org. 60 A 198.51.100.1\ndel direct.example.org. HTTPS\n");
    knot.wait_for("app.example.org", "A", &["203.0.113.10"]);
    knot.wait_for("direct.example.org", "TYPE65", &["1 . alpn=h2"]);
    // Four sets were created, two were set right; what is counted comes after what is seen.
    eventually("six changes are counted", || match node.metric("dualgate_dns_publish_changes_total") {
        6.0 => Ok(()),
        count => Err(format!("{count}")),
    });
    let status = node.document("/status").unwrap();
    assert_eq!(
        (&status["published"][0]["zone"], &status["published"][0]["conflicts"]),
        (&"example.org".into(), &2.into())
    );

    // A name goes with its Ingress, and its marks with it.
    knot.home.remove("app");
    knot.wait_for("app.example.org", "A", &[]);
    eventually("no mark is left", || {
        let left: Vec<String> = knot.records().into_iter().filter(|line| line.contains("app.example.org")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    assert!(before.is_subset(&knot.records()));
    knot.home.remove("taken");
    eventually("as wanted", || {
        let said = knot.diff();
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    });
}

#[test]
fn knot_refuses_a_wrong_key_and_both_sides_are_told_why() {
    if !has("knot_refuses_a_wrong_key_and_both_sides_are_told_why", KNOT) {
        return;
    }
    let knot = Knot::start();
    let before = knot.records();
    knot.manifest("app", "external");
    for (secret, more, expected) in [
        ("other.key", "key: dualgate", "(BADSIG) (give both sides the same secret)"),
        ("tsig.key", "key: nobody", "(BADKEY) (add the key `nobody` (hmac-sha256) there, or correct its name)"),
        ("none.key", "key: dualgate", "none.key`: No such file or directory"),
        ("knot.conf", "key: dualgate", "knot.conf` holds no base64"),
        ("tsig.key", "key: dualgate, zone: org", "answers NOTAUTH"),
    ] {
        knot.site(secret, more);
        let said = knot.diff();
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(expected), "no `{expected}` in {}", said.err);
        assert!(!said.err.contains(&OTHER[..8]) && !said.err.contains(&SECRET[..8]), "{}", said.err);
    }
    // A node that cannot write says so, and goes on; a corrected file is taken at once.
    knot.site("other.key", "key: dualgate");
    let node = Node::serve(&knot.home);
    node.wait_for_finding("dns-publish", "the server has another secret for this key (BADSIG)");
    assert_eq!(knot.records(), before);
    knot.site("tsig.key", "key: long, algorithm: hmac-sha512");
    knot.wait_for("app.example.org", "A", &["203.0.113.10"]);
    node.wait_until_no_finding("dns-publish");
    assert!(!node.log().contains(&SECRET[..8]) && !node.log().contains(&OTHER[..8]));
}

#[test]
fn knot_has_whole_sets_when_a_node_dies_while_it_writes() {
    if !has("knot_has_whole_sets_when_a_node_dies_while_it_writes", KNOT) {
        return;
    }
    let knot = Knot::start();
    let before = knot.records();
    let names: Vec<String> = (0..300).map(|number| format!("app{number}")).collect();
    let manifests: Vec<String> =
        names.iter().map(|name| application(name, &[]).replace("'internal'", "'external'")).collect();
    knot.home.manifest("apps", &manifests.join("---\n"));
    let marked = |records: &BTreeSet<String>| {
        let names = |rtype: &str| -> BTreeSet<String> {
            let own = records.iter().filter(|line| line.starts_with("app") && line.contains(&format!(" {rtype} ")));
            own.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        let marks = |kind: &str| -> BTreeSet<String> {
            let marks = records.iter().filter_map(|line| line.strip_prefix(&format!("_dualgate-{kind}.app")));
            marks.map(|line| format!("app{}", line.split(' ').next().unwrap())).collect()
        };
        assert_eq!(names("A"), marks("a"));
        assert_eq!(names("AAAA"), marks("aaaa"));
        names("A").len() + names("AAAA").len()
    };
    let mut node = Node::serve(&knot.home);
    eventually("some are there", || {
        let some = knot.records().len();
        if some > before.len() { Ok(()) } else { Err(format!("{some} records")) }
    });
    node.signal(rustix::process::Signal::KILL);
    node.wait();
    let written = marked(&knot.records());
    println!("{written} of 600 sets when it was killed");
    assert!(before.is_subset(&knot.records()));

    let node = Node::serve(&knot.home);
    eventually("all are there", || {
        let count = marked(&knot.records());
        if count == 600 { Ok(()) } else { Err(format!("{count} sets")) }
    });
    knot.home.remove("apps");
    eventually("none is left", || {
        let left: Vec<String> = knot.records().into_iter().filter(|line| line.contains("app")).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{} lines", left.len())) }
    });
    assert!(before.is_subset(&knot.records()));
    drop(node);
}

#[test]
fn knot_keeps_what_it_has_while_the_source_is_away_or_broken() {
    if !has("knot_keeps_what_it_has_while_the_source_is_away_or_broken", KNOT) {
        return;
    }
    let knot = Knot::start();
    let node = Node::serve(&knot.home);
    knot.manifest("app", "external");
    knot.wait_for("app.example.org", "A", &["203.0.113.10"]);
    // A file that was never read may hold just what seems to be gone.
    knot.home.manifest("broken", "kind: [");
    node.wait_for_finding("syntax", "broken.yaml");
    knot.home.remove("app");
    knot.manifest("other", "external");
    knot.wait_for("other.example.org", "A", &["203.0.113.10"]);
    assert_eq!(knot.ask("app.example.org", "A"), ["203.0.113.10"]);
    eventually("it is told", || {
        let kept = node.document("/status")?["published"][0]["kept"].clone();
        if kept[0] == "app.example.org A" { Ok(()) } else { Err(kept.to_string()) }
    });
    knot.home.remove("broken");
    knot.wait_for("app.example.org", "A", &[]);

    // From the disk it serves what it knew, and writes nothing: neither what was taken away there, nor what is gone here.
    eventually("the last good state is kept", || {
        let objects = node.document("/status")?["objects"].clone();
        if objects == 2 { Ok(()) } else { Err(objects.to_string()) }
    });
    node.signal(rustix::process::Signal::TERM);
    let mut node = node;
    node.wait();
    let (folder, away) = (knot.home.directory.join("manifests"), knot.home.directory.join("away"));
    std::fs::rename(&folder, &away).unwrap();
    knot.update("del other.example.org. A\n");
    let node = Node::start(&knot.home, &[]);
    node.wait_for_finding("stale", "the last good state from disk is served");
    assert_eq!(knot.ask("other.example.org", "AAAA"), ["2001:db8::10"]);
    assert_eq!(node.document("/status").unwrap()["published"], Value::Null);
    assert_eq!(knot.ask("other.example.org", "A"), [""; 0]);
    std::fs::rename(&away, &folder).unwrap();
    knot.wait_for("other.example.org", "A", &["203.0.113.10"]);
}

#[test]
fn knot_is_written_by_the_first_home_node_where_nobody_votes() {
    if !has("knot_is_written_by_the_first_home_node_where_nobody_votes", KNOT) {
        return;
    }
    let knot = Knot::start();
    knot.manifest("app", "external");
    let site = std::fs::read_to_string(knot.home.directory.join("site.yaml")).unwrap();
    let other = "- {name: other, roles: [controller], addresses: [127.0.0.3]}\n";
    knot.home.directory.write("site.yaml", &site.replace("nodes:\n", &format!("nodes:\n{other}")));
    let node = Node::serve(&knot.home);
    assert_eq!(node.document("/status").unwrap()["published"], Value::Null);
    knot.manifest("later", "external");
    eventually("both are served", || {
        let objects = node.document("/status")?["objects"].clone();
        if objects == 4 { Ok(()) } else { Err(objects.to_string()) }
    });
    assert_eq!(knot.ask("app.example.org", "A"), [""; 0]);
    knot.home.directory.write("site.yaml", &site);
    knot.wait_for("app.example.org", "A", &["203.0.113.10"]);
    knot.wait_for("later.example.org", "A", &["203.0.113.10"]);
}
