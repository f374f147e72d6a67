//! Names, as `kdig`, `dig` and `dnsperf` see them.

use super::*;
use crate::support::resolver::Upstream;
use crate::support::{Reservation, application, reserve_pair};

const ASKERS: &[Tool] = &[Tool::Program("kdig"), Tool::Program("dig")];
const LOAD: &[Tool] = &[Tool::Program("dnsperf")];

/// A node that answers for `example.org`, with records of the site file.
struct Named {
    _home: Home,
    _node: Node,
    _upstream: Upstream,
    at: [SocketAddr; 2],
    _reserved: [Reservation; 2],
}

impl Named {
    fn start() -> Self {
        let (home, upstream, reserved) = (Home::new(), Upstream::start(), reserve_pair());
        let at = [reserved[0].address, reserved[1].address];
        let dns = format!(
            "dns:
  addresses: ['{}', '{}']
  forward: ['{}']
  zones:
  - name: example.org
    records:
    - {{name: '@', type: MX, value: '10 mail.example.org.'}}
    - {{name: www, type: CNAME, value: web.example.org.}}
    - {{name: a.b.c, type: TXT, value: '\"below names that have nothing\"'}}
",
            at[0], at[1], upstream.address
        );
        let site = home.site(&dns).replace("external-gate, controller]", "external-gate, controller, dns]");
        home.directory.write("site.yaml", &site);
        home.manifest("web", &application("web", &[]));
        let node = Node::serve(&home);
        Self { _home: home, _node: node, _upstream: upstream, at, _reserved: reserved }
    }
}

/// What a program says to one question.
#[track_caller]
fn ask(program: &str, at: SocketAddr, arguments: &[&str]) -> String {
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    let said = run(LIMIT, program, &[&[server.as_str(), "-p", port.as_str()], arguments].concat());
    assert_eq!(said.code, Some(0), "{program} {arguments:?}: {said:?}");
    assert!(!said.out.contains("WARNING"), "{program} {arguments:?}: {}", said.out);
    said.out
}

#[test]
fn kdig_and_dig_get_every_kind_of_answer_over_both_families_and_transports() {
    if !has("kdig_and_dig_get_every_kind_of_answer_over_both_families_and_transports", ASKERS) {
        return;
    }
    let named = Named::start();
    // A name and a type, and what the answer must hold.
    let questions: [(&[&str], &[&str]); 10] = [
        (&["web.example.org", "A"], &["NOERROR", " aa", "127.0.0.1"]),
        (&["web.example.org", "AAAA"], &["NOERROR", " aa", "::1"]),
        (&["web.example.org", "TXT"], &["NOERROR", " aa", "SOA"]),
        (&["WWW.example.org", "A"], &["NOERROR", " aa", "CNAME", "127.0.0.1"]),
        (&["example.org", "MX"], &["NOERROR", " aa", "10 mail.example.org."]),
        (&["example.org", "SOA"], &["NOERROR", " aa"]),
        // An empty non-terminal exists (RFC 8020).
        (&["b.c.example.org", "A"], &["NOERROR", " aa", "SOA"]),
        (&["gone.example.org", "A"], &["NXDOMAIN", " aa", "SOA"]),
        (&["web.example.org", "ANY"], &["NOERROR", " aa"]),
        (&["www.example.net", "A"], &["NOERROR", " ra", "203.0.113.99"]),
    ];
    for program in ["kdig", "dig"] {
        for at in named.at {
            for over in ["+notcp", "+tcp"] {
                for (question, expected) in questions {
                    let said = ask(program, at, &[&[over], question].concat());
                    let missing: Vec<_> = expected.iter().filter(|text| !said.contains(**text)).collect();
                    assert!(missing.is_empty(), "{program} {over} {question:?} at {at} lacks {missing:?}:\n{said}");
                }
            }
        }
    }
    // Cookies are given, and taken when they come back.
    let said = ask("dig", named.at[0], &["+cookie=0123456789abcdef", "web.example.org", "A"]);
    assert!(said.contains("COOKIE: 0123456789abcdef") && said.contains("(good)"), "{said}");
    // An unknown version of EDNS.
    let said = ask("dig", named.at[0], &["+edns=1", "+noednsnegotiation", "web.example.org", "A"]);
    assert!(said.contains("BADVERS"), "{said}");
    // Nobody is told what runs here.
    let said = ask("dig", named.at[0], &["CH", "TXT", "version.bind"]);
    assert!(said.contains("REFUSED"), "{said}");
}

#[test]
fn dnsperf_loses_nothing() {
    if !has("dnsperf_loses_nothing", LOAD) {
        return;
    }
    let named = Named::start();
    named
        ._home
        .directory
        .write("questions", "web.example.org A\nweb.example.org AAAA\ngone.example.org A\nwww.example.net A\n");
    let questions = named._home.directory.join("questions").display().to_string();
    for at in named.at {
        for mode in ["udp", "tcp"] {
            let (server, port) = (at.ip().to_string(), at.port().to_string());
            // A busy machine answers late; what is late is not lost.
            let arguments = [
                "-s", &server, "-p", &port, "-d", &questions, "-m", mode, "-c", "4", "-n", "500", "-q", "20", "-t",
                "30",
            ];
            let said = run(LIMIT, "dnsperf", &arguments);
            assert_eq!(said.code, Some(0), "{said:?}");
            let lost = said.out.lines().find(|line| line.contains("Queries lost:")).unwrap_or_default();
            assert!(lost.contains("lost:         0 ") || lost.split_whitespace().nth(2) == Some("0"), "{}", said.out);
            let sent = said.out.lines().find(|line| line.contains("Queries sent:")).unwrap_or_default();
            assert_eq!(sent.split_whitespace().nth(2), Some("2000"), "{}", said.out);
        }
    }
}
