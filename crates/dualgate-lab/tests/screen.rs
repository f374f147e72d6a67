//! What a person sees of a lab: pictures as text, compared whole.
//!
//! `DUALGATE_BLESS=1 cargo test -p dualgate-lab --test screen` writes the pictures anew; look at them before they are
//! committed.

use std::net::IpAddr;
use std::path::Path;

use dualgate_lab::report::{
    Check, HostKind, HostStatus, KubernetesStatus, LinkState, LinkStatus, PodStatus, StandIn, Status, Verdict,
};
use dualgate_lab::screen::{Glyphs, Line, Screen, Tone, news, page, progress};

fn host(name: &str, kind: HostKind, addresses: &[&str]) -> HostStatus {
    HostStatus {
        name: name.into(),
        kind,
        on: true,
        addresses: addresses.iter().map(|address| (*address).into()).collect(),
        virtual_ips: Vec::new(),
        roles: Vec::new(),
        dualgate: None,
    }
}

fn node(name: &str, kind: HostKind, addresses: &[&str], roles: &[&str]) -> HostStatus {
    let roles = roles.iter().map(|role| (*role).into()).collect();
    HostStatus { roles, dualgate: Some("ready".into()), ..host(name, kind, addresses) }
}

fn link(one: &str, other: &str) -> LinkStatus {
    LinkStatus { name: format!("{other}/{one}"), ends: [one.into(), other.into()], state: LinkState::Up }
}

fn pod(name: &str, workload: &str, node: &str) -> PodStatus {
    PodStatus {
        name: name.into(),
        workload: workload.into(),
        node: node.into(),
        addresses: Vec::new(),
        ready: true,
        alive: true,
        terminating: false,
    }
}

fn check(id: &str, title: &str, v4: Verdict, v6: Verdict) -> Check {
    Check { id: id.into(), title: title.into(), v4, v6 }
}

fn pass(seen: &str) -> Verdict {
    Verdict::Pass(seen.into())
}

fn home_node(number: u8) -> HostStatus {
    let name = format!("k3s-node{number}");
    let own = number + 4;
    let addresses = [
        format!("eth0 192.168.178.{own}/24"),
        format!("eth0 fda8:a1db:5685::{own}/64"),
        format!("eth0 2001:db8:100:1:d6:ff:fe00:{own}/64"),
        format!("cni0 10.42.{number}.1/24"),
        format!("tunnel0 fe80::d6:ff:fe00:{own}/64"),
    ];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    node(&name, HostKind::HomeNode, &addresses, &["server", "internal-gate", "virtual-ips", "dns"])
}

fn edge(name: &str, last: u8) -> HostStatus {
    let addresses = [
        format!("eth0 203.0.113.{last}/32"),
        format!("eth0 2001:db8:1::{last}/128"),
        format!("tunnel0 192.168.178.2{last}/32"),
        format!("tunnel0 fda8:a1db:5685::2{last}/128"),
    ];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    node(name, HostKind::Edge, &addresses, &["agent", "external-gate", "dns"])
}

/// The site of the home example.
fn seed() -> Status {
    let client = ["eth0 198.51.100.7/32", "eth0 2001:db8:7::7/128"];
    let router = ["wan0 192.0.0.2/32", "lan0 192.168.178.1/24", "lan0 fda8:a1db:5685::1/64", "lan0 fe80::1/64"];
    let lan_client = ["eth0 192.168.178.21/24", "eth0 fda8:a1db:5685:0:d6:ff:fe00:15/64"];
    let mut hosts = vec![
        host("internet-client", HostKind::InternetClient, &client),
        host("internet", HostKind::Internet, &["ionos 169.254.0.1/32"]),
        edge("ionos", 10),
        host("carrier", HostKind::Carrier, &["eth0 192.0.2.1/32", "home0 169.254.0.1/32"]),
        host("router", HostKind::Router, &router),
        host("tunnel", HostKind::Switch, &[]),
        host("lan", HostKind::Switch, &[]),
        home_node(1),
        home_node(2),
        home_node(3),
        host("lan-client", HostKind::LanClient, &lan_client),
    ];
    hosts[7].virtual_ips = vec![IpAddr::from([192, 168, 178, 10]), "fda8:a1db:5685::10".parse().unwrap()];
    let mut links: Vec<LinkStatus> = ["internet-client", "ionos", "carrier"].map(|end| link(end, "internet")).into();
    links.push(link("router", "carrier"));
    links.extend(["router", "k3s-node1", "k3s-node2", "k3s-node3", "lan-client"].map(|end| link(end, "lan")));
    links.extend(["ionos", "k3s-node1", "k3s-node2", "k3s-node3"].map(|end| link(end, "tunnel")));
    let pods = vec![
        pod("apps/grafana-0", "apps/grafana", "k3s-node1"),
        pod("apps/paperless-0", "apps/paperless", "k3s-node2"),
        pod("apps/paperless-1", "apps/paperless", "k3s-node3"),
    ];
    let not_built = || Verdict::NotBuilt("no tunnel".into());
    let checks = vec![
        check(
            "internet/grafana.yourdomain.com",
            "grafana.yourdomain.com from outside",
            pass("grafana-0"),
            pass("grafana-0"),
        ),
        check("home/grafana.yourdomain.com", "grafana.yourdomain.com at home", pass("grafana-0"), pass("grafana-0")),
        check("tunnel", "the tunnel is encrypted", not_built(), not_built()),
        check("inbound", "home is shut from outside", Verdict::Absent, pass("no answer")),
    ];
    let stand_in = |part: &str, instead: &str| StandIn { part: part.into(), instead: instead.into() };
    Status {
        name: "home".into(),
        site: "home".into(),
        origin: "built-in example".into(),
        uptime_ms: 12_400,
        setup_ms: Some(940),
        hosts,
        links,
        pods,
        kubernetes: None,
        stand_ins: vec![
            stand_in("tunnel", "a plain segment with plain routes joins the edge and home; nothing on it is encrypted"),
            stand_in("names", "nobody answers DNS"),
        ],
        troubles: Vec::new(),
        checks,
    }
}

fn single_node() -> Status {
    let mut status = seed();
    status.hosts.retain(|host| !["ionos", "tunnel", "k3s-node2", "k3s-node3"].contains(&host.name.as_str()));
    let names: Vec<String> = status.hosts.iter().map(|host| host.name.clone()).collect();
    status.links.retain(|link| link.ends.iter().all(|end| names.contains(end)));
    status.pods.retain(|pod| names.contains(&pod.node));
    status.stand_ins.clear();
    status
}

fn two_edges() -> Status {
    let mut status = seed();
    status.hosts.insert(3, edge("hetzner", 20));
    status.links.extend([link("hetzner", "internet"), link("hetzner", "tunnel")]);
    status
}

fn failed_node() -> Status {
    let mut status = seed();
    let old = std::mem::take(&mut status.hosts[7].virtual_ips);
    status.hosts[8].virtual_ips = old;
    status.hosts[7].on = false;
    status.hosts[7].dualgate = None;
    status.hosts[9].dualgate = Some("not ready: 192.168.178.7:80 is not open".into());
    for link in status.links.iter_mut().filter(|link| link.ends.contains(&"k3s-node1".to_owned())) {
        link.state = LinkState::Off;
    }
    status.pods[0].alive = false;
    status.pods[1].ready = false;
    status.checks[1].v4 =
        Verdict::Fail("502 Bad Gateway after 3 ms, from the internal gate at 192.168.178.10 port 80, k3s-node2".into());
    status
}

fn cut_links() -> Status {
    let mut status = seed();
    for name in ["lan/k3s-node2", "tunnel/ionos", "tunnel/k3s-node3", "carrier/router", "internet/internet-client"] {
        status.links.iter_mut().find(|link| link.name == name).unwrap().state = LinkState::Cut;
    }
    status
}

fn wide(width: usize) -> Screen {
    Screen { width, height: None, glyphs: Glyphs::Unicode }
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.plain() + "\n").collect()
}

/// Compares a page with the picture of this name.
fn compare(name: &str, status: &Status, screen: &Screen) {
    let drawn = text(&page(status, screen));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screen").join(format!("{name}.txt"));
    if std::env::var_os("DUALGATE_BLESS").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(drawn, expected, "{name} looks different:\n{drawn}");
}

#[test]
fn the_site_of_the_seed_fits_into_80_columns() {
    compare("seed", &seed(), &wide(80));
}

#[test]
fn a_wide_screen_has_all_of_home_in_a_row() {
    compare("seed-wide", &seed(), &wide(132));
}

#[test]
fn ascii_is_enough() {
    compare("seed-ascii", &seed(), &Screen { glyphs: Glyphs::Ascii, ..wide(80) });
}

#[test]
fn a_kubernetes_api_is_shown_with_what_to_type() {
    let mut status = seed();
    let api = |away| KubernetesStatus {
        node: "k3s-node1".into(),
        servers: vec!["https://192.168.178.5:6443".into(), "https://[fda8:a1db:5685::5]:6443".into()],
        kubeconfig: "/run/dualgate/kubeconfig".into(),
        away,
    };
    status.kubernetes = Some(api(false));
    let shown = text(&page(&status, &wide(80)));
    let block = "\nKubernetes API
  https://192.168.178.5:6443
  https://[fda8:a1db:5685::5]:6443
  KUBECONFIG=/run/dualgate/kubeconfig on every host
  dualgate lab exec k3s-node1 -- kubectl get ingresses -A
  dualgate lab exec k3s-node1 -- kubectl apply -f FILE

Checks";
    assert!(shown.contains(block), "{shown}");
    status.kubernetes = Some(api(true));
    let shown = text(&page(&status, &wide(80)));
    assert!(shown.contains("\nKubernetes API away, with k3s-node1\n"), "{shown}");
}

#[test]
fn one_node_alone_has_no_tunnel() {
    compare("single-node", &single_node(), &wide(80));
}

#[test]
fn two_edges_have_two_tunnels() {
    compare("two-edges", &two_edges(), &wide(80));
}

#[test]
fn a_failed_node_is_off_in_words_and_its_virtual_ips_are_elsewhere() {
    compare("failed-node", &failed_node(), &wide(80));
}

#[test]
fn cut_links_are_told_in_words_wherever_they_are() {
    compare("cut-links", &cut_links(), &wide(80));
}

#[test]
fn a_low_screen_shows_the_checks_first_and_says_what_it_hides() {
    compare("seed-low", &failed_node(), &Screen { height: Some(24), ..wide(80) });
}

#[test]
fn a_screen_without_room_for_all_checks_shows_those_that_fail() {
    let mut status = failed_node();
    let rows = (0..40).map(|number| check(&format!("c/{number}"), &format!("check {number}"), pass("ok"), pass("ok")));
    status.checks.splice(0..0, rows);
    compare("many-checks", &status, &Screen { height: Some(48), ..wide(80) });
}

#[test]
fn an_empty_lab_is_drawn_too() {
    let status = Status { name: "x".into(), site: "x".into(), ..Status::default() };
    assert_eq!(
        text(&page(&status, &wide(80))),
        "lab x: site x, starting, 0.0 s\n\nTry, in another terminal\n  dualgate lab down\n"
    );
}

#[test]
fn no_line_is_wider_and_no_page_higher_than_the_screen() {
    let mut long = cut_links();
    long.hosts[2].name = "an-edge-with-quite-a-long-name-that-somebody-gave-it".into();
    long.checks[0].title = "a title that is longer than any screen is wide, told in full detail and once more".into();
    long.checks[0].v6 = Verdict::Fail("x".repeat(300));
    long.stand_ins[0].part = "a part with a long name and more".into();
    for status in [seed(), single_node(), two_edges(), failed_node(), cut_links(), long, Status::default()] {
        for width in (0..170).step_by(3) {
            for (glyphs, height) in
                [(Glyphs::Unicode, None), (Glyphs::Ascii, Some(width / 3)), (Glyphs::Ascii, Some(50))]
            {
                let page = page(&status, &Screen { width, height, glyphs });
                assert!(page.iter().all(|line| line.width() <= width), "{width} columns:\n{}", text(&page));
                assert!(height.is_none_or(|height| page.len() <= height), "{} lines of {height:?}", page.len());
                let ascii = glyphs == Glyphs::Unicode || page.iter().all(|line| line.plain().is_ascii());
                assert!(ascii, "{}", text(&page));
            }
        }
    }
}

#[test]
fn boxes_stand_beside_each_other_at_every_width() {
    for status in [seed(), single_node(), two_edges(), failed_node(), cut_links()] {
        for width in 40..170 {
            let drawn = text(&page(&status, &wide(width)));
            for name in status.hosts.iter().filter(|host| host.kind != HostKind::Switch).map(|host| &host.name) {
                assert!(drawn.contains(name.as_str()), "{name} at {width} columns:\n{drawn}");
            }
            let corners = |corner: char| drawn.chars().filter(|c| *c == corner).count();
            let boxes =
                status.hosts.iter().filter(|h| !matches!(h.kind, HostKind::Switch | HostKind::Internet)).count();
            let all = [corners('┌'), corners('┐'), corners('└'), corners('┘')];
            assert_eq!(all, [boxes; 4], "at {width} columns:\n{drawn}");
        }
    }
}

#[test]
fn good_is_green_and_bad_is_red_but_never_by_colour_alone() {
    let page = page(&failed_node(), &wide(80));
    let tones =
        |line: &Line| line.painted(|tone, text| if tone == Tone::Bad { format!("<{text}>") } else { text.into() });
    let bad: String = page.iter().map(tones).collect();
    assert!(bad.contains("<OFF>") && bad.contains("<FAIL>") && bad.contains("<dead, unnoticed>"), "{bad}");
}

#[test]
fn a_log_has_a_line_for_each_change() {
    let lines: Vec<String> = news(&seed(), &failed_node()).iter().map(Line::plain).collect();
    assert_eq!(
        lines,
        [
            "k3s-node1 was switched off",
            "k3s-node2 holds the virtual IP 192.168.178.10",
            "k3s-node2 holds the virtual IP fda8:a1db:5685::10",
            "dualgate at k3s-node3 is not ready: 192.168.178.7:80 is not open",
            "pod apps/grafana-0 is dead, unnoticed",
            "pod apps/paperless-0 is not ready",
            "FAIL home/grafana.yourdomain.com IPv4: 502 Bad Gateway after 3 ms, from the internal gate at 192.168.178.10 port 80, k3s-node2",
        ]
    );
    let back: Vec<String> = news(&cut_links(), &seed()).iter().map(Line::plain).collect();
    assert_eq!(back.len(), 5, "{back:?}");
    assert_eq!(back[0], "link internet/internet-client was mended");
    let mut scaled = seed();
    scaled.pods[0].name = "apps/grafana-1".into();
    let pods: Vec<String> = news(&seed(), &scaled).iter().map(Line::plain).collect();
    assert_eq!(pods, ["pod apps/grafana-1 came on k3s-node1: ready", "pod apps/grafana-0 is gone from k3s-node1"]);
    assert_eq!(news(&seed(), &seed()), []);
}

#[test]
fn the_first_news_of_a_lab_are_its_checks() {
    let mut before = seed();
    before.checks.clear();
    let lines: Vec<String> = news(&before, &seed()).iter().map(Line::plain).collect();
    assert_eq!(
        lines,
        [
            "pass internet/grafana.yourdomain.com: grafana-0",
            "pass home/grafana.yourdomain.com: grafana-0",
            "not built tunnel: no tunnel",
            "pass inbound IPv6: no answer",
        ]
    );
}

#[test]
fn while_it_is_built_numbers_grow() {
    let mut status = seed();
    status.setup_ms = None;
    status.uptime_ms = 640;
    status.hosts[9].dualgate = Some("starting".into());
    assert_eq!(progress(&status).plain(), "11 hosts, 13 links, 3 pods, nodes ready 3/4 (0.6 s)");
}
