//! The real binary as a process: what it does when the world around it changes, breaks, or goes away.

mod support;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Authority, Client, Home, Node, Pod, application, eventually, gated, output, reserve_pair};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn both_gates_serve_http_and_https_over_both_families() {
    let home = Home::new();
    let (public, private) = (Pod::start("public", &[V4, V6]), Pod::start("private", &[V4]));
    let certificate = Authority::new().issue(&["public.example.org"]);
    let tls = "  tls: [{hosts: [public.example.org], secretName: public}]\n";
    home.manifest("public", &gated("public", &[&public], "internal,external", tls));
    home.manifest("secret", &certificate.secret("public"));
    home.manifest("private", &application("private", &[&private]));
    let _node = Node::serve(&home);
    for (plain, secure, sees_private) in [(home.web, home.websecure, true), (home.public, home.publicsecure, false)] {
        for (plain, secure) in plain.into_iter().zip(secure) {
            assert_eq!(ask(plain, "public"), Ok((200, Some("public".to_owned()))), "{plain}");
            assert_eq!(ask_tls(secure, "public"), Ok((200, Some("public".to_owned()))), "{secure}");
            let private = if sees_private { (200, Some("private".to_owned())) } else { (404, None) };
            assert_eq!(ask(plain, "private"), Ok(private.clone()), "{plain}");
            assert_eq!(ask_tls(secure, "private"), Ok(private), "{secure}");
            assert_eq!(ask(plain, "nobody"), Ok((404, None)), "{plain}");
            let shown = Client::connect_tls(secure, "public.example.org").unwrap();
            assert_eq!(shown.certificate(), Some(&*certificate.der), "{secure}");
        }
    }
}

#[test]
fn it_is_alive_but_not_ready_before_the_first_snapshot() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    let manifests = home.directory.join("manifests");
    fs::remove_dir(&manifests).unwrap();
    let node = Node::start(&home, &[]);
    let early = eventually("an answer of the admin listener", || node.admin("/readyz"));
    assert_eq!((early.status, &*early.text()), (503, "not ready: no plan has been applied yet\n"));
    assert_eq!(node.admin("/livez").unwrap().status, 200);
    assert!(Client::connect(home.web[0]).is_err(), "it listens without a plan");
    home.directory.write("later/web.yaml", &application("web", &[&pod]));
    fs::rename(home.directory.join("later"), manifests).unwrap();
    node.wait_until_ready();
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn changed_manifests_take_effect() {
    let home = Home::new();
    let (one, two) = (Pod::start("one", &[V4]), Pod::start("two", &[V6]));
    let _node = Node::serve(&home);
    let web = home.web[0];
    assert_eq!(ask(web, "web"), Ok((404, None)));
    home.manifest("web", &application("web", &[&one]));
    eventually_answers(web, "web", 200, Some("one"));
    home.manifest("web", &application("web", &[&two]));
    eventually_answers(web, "web", 200, Some("two"));
    home.manifest("web", &application("web", &[]));
    eventually_answers(web, "web", 503, None);
    home.remove("web");
    eventually_answers(web, "web", 404, None);
}

#[test]
fn a_broken_manifest_costs_no_route_and_is_a_finding() {
    let home = Home::new();
    let (pod, other) = (Pod::start("web", &[V4]), Pod::start("other", &[V4]));
    home.manifest("web", &application("web", &[&pod]));
    let node = Node::serve(&home);
    home.manifest("web", "kind: Ingress\n  metadata: [");
    node.wait_for_finding("syntax", "web.yaml");
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    // Other files still count.
    home.manifest("other", &application("other", &[&other]));
    eventually_answers(home.web[0], "other", 200, Some("other"));
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    home.manifest("web", &application("web", &[&other]));
    eventually_answers(home.web[0], "web", 200, Some("other"));
    node.wait_until_no_finding("syntax");
}

#[test]
fn a_broken_site_file_leaves_the_last_good_one_in_force() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    let node = Node::serve(&home);
    home.directory.write("site.yaml", "kind: Site\nnodes: nobody\n");
    node.wait_for_finding("stale", "site.yaml");
    node.wait_for_finding("site-value", "site.yaml");
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    // Manifests still count.
    home.manifest("more", &application("more", &[&pod]));
    eventually_answers(home.web[1], "more", 200, Some("web"));
    home.directory.remove("site.yaml");
    node.wait_for_finding("unreadable", "site.yaml");
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    home.write_site("");
    node.wait_until_no_finding("stale");
    node.wait_until_ready();
}

#[test]
fn a_changed_site_file_moves_listeners_and_leaves_the_others_alone() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    let _node = Node::serve(&home);
    let elsewhere = reserve_pair().map(|reserved| (reserved.address, reserved));
    let mut stays = Client::connect(home.public[0]).unwrap();
    assert_eq!(stays.get("web.example.org", "/").unwrap().status, 404);
    let moved =
        home.site("").replace(&format!("web: {},", home.web[0].port()), &format!("web: {},", elsewhere[0].0.port()));
    home.directory.write("site.yaml", &moved);
    for (address, _) in &elsewhere {
        eventually_answers(*address, "web", 200, Some("web"));
    }
    for address in home.web {
        eventually("the old address is given up", || match Client::connect(address) {
            Ok(_) => Err(format!("{address} is still open")),
            Err(_) => Ok(()),
        });
    }
    assert_eq!(stays.get("web.example.org", "/").unwrap().status, 404);
}

#[test]
fn without_its_source_it_serves_the_last_good_state_and_says_so() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4, V6]);
    let certificate = Authority::new().issue(&["web.example.org"]);
    home.manifest("web", &gated("web", &[&pod], "internal", "  tls: [{secretName: web}]\n"));
    home.manifest("secret", &certificate.secret("web"));
    let mut node = Node::serve(&home);
    let kept = home.directory.join("state/objects.json");
    eventually("the state is on disk", || match fs::read_to_string(&kept) {
        Ok(text) if text.contains("web.example.org") => Ok(()),
        Ok(text) => Err(text),
        Err(error) => Err(error.to_string()),
    });
    assert!(!fs::read_to_string(&kept).unwrap().contains("PRIVATE KEY"), "a key is among the objects");
    eventually("a metric says when", || match node.metric("dualgate_last_good_written_timestamp_seconds") {
        at if at > 1_700_000_000.0 => Ok(()),
        at => Err(at.to_string()),
    });
    assert_eq!(node.metric("dualgate_last_good_failures_total"), 0.0);
    node.signal(Signal::KILL);
    node.wait();
    let (manifests, away) = (home.directory.join("manifests"), home.directory.join("away"));
    fs::rename(&manifests, &away).unwrap();

    let node = Node::serve(&home);
    node.wait_for_finding("stale", "last good state");
    let status = node.document("/status").unwrap();
    assert_eq!(status["objects_from"], "disk", "{status}");
    assert_eq!(node.metric("dualgate_snapshot_stale"), 1.0);
    for address in home.web {
        assert_eq!(ask(address, "web"), Ok((200, Some("web".to_owned()))), "{address}");
    }
    let shown = Client::connect_tls(home.websecure[0], "web.example.org").unwrap();
    assert_eq!(shown.certificate(), Some(&*certificate.der));

    fs::rename(&away, &manifests).unwrap();
    node.wait_until_no_finding("stale");
    assert_eq!(node.document("/status").unwrap()["objects_from"], "source");
    assert_eq!(node.metric("dualgate_snapshot_stale"), 0.0);
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn a_state_that_cannot_be_written_is_counted_and_costs_nothing_else() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &gated("web", &[&pod], "internal", ""));
    // No file can take the place of a folder that holds something.
    home.directory.write("state/objects.json/in the way", "");
    fs::set_permissions(home.directory.join("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let node = Node::serve(&home);
    eventually("it is counted", || match node.metric("dualgate_last_good_failures_total") {
        0.0 => Err("nothing".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(node.metric("dualgate_last_good_written_timestamp_seconds"), 0.0);
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn sigterm_stops_being_ready_then_accepting_and_lets_requests_finish() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.write_site("proxy: {acceptGrace: 2s, drainTimeout: 30s}\n");
    home.manifest("web", &application("web", &[&pod]));
    let mut node = Node::serve(&home);
    let mut idle = Client::connect(home.web[0]).unwrap();
    assert_eq!(idle.get("web.example.org", "/").unwrap().status, 200);
    let mut running = Client::connect(home.web[1]).unwrap();
    running.send(b"GET /-/hold HTTP/1.1\r\nHost: web.example.org\r\n\r\n").unwrap();
    pod.wait_until_held(1);

    node.signal(Signal::TERM);
    eventually("not ready", || {
        let answer = node.admin("/readyz")?;
        let expected = (503, "not ready: draining\n".to_owned());
        if (answer.status, answer.text()) == expected { Ok(()) } else { Err(answer.text()) }
    });
    // Whoever sends connections here has not heard of it yet.
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    eventually("it no longer accepts", || match Client::connect(home.web[0]) {
        Ok(_) => Err("it accepts".to_owned()),
        Err(_) => Ok(()),
    });
    assert!(idle.is_ended(), "a connection without a request stays open");
    assert!(node.is_running(), "it ended before its requests:\n{}", node.log());
    pod.release();
    let answer = running.answer("GET").unwrap();
    assert_eq!((answer.status, answer.pod()), (200, Some("web")));
    assert!(running.is_ended(), "the connection goes on");
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    assert!(node.log().contains("all connections have ended"), "{}", node.log());
}

#[test]
fn what_does_not_end_is_cut_at_the_end_of_the_drain_timeout() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.write_site("proxy: {acceptGrace: 0s, drainTimeout: 300ms}\n");
    home.manifest("web", &application("web", &[&pod]));
    let mut node = Node::serve(&home);
    let mut running = Client::connect(home.web[0]).unwrap();
    running.send(b"GET /-/hold HTTP/1.1\r\nHost: web.example.org\r\n\r\n").unwrap();
    pod.wait_until_held(1);
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code(), Some(0), "{}", node.log());
    assert!(running.is_ended());
    assert!(node.log().contains("were cut"), "{}", node.log());
}

#[test]
fn after_kill_9_it_starts_and_serves_again() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    for _ in 0..3 {
        let mut node = Node::serve(&home);
        // Connections that die with the process must not keep the next one from its ports.
        let mut open = Client::connect(home.web[0]).unwrap();
        assert_eq!(open.get("web.example.org", "/").unwrap().status, 200);
        assert_eq!(ask_tls(home.websecure[1], "web"), Ok((200, Some("web".to_owned()))));
        node.signal(Signal::KILL);
        node.wait();
        assert!(open.is_ended());
    }
}

#[test]
fn a_second_process_with_the_same_state_directory_is_refused() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    let _node = Node::serve(&home);
    let (code, log) = output(&home);
    assert_eq!(code, Some(2), "{log}");
    let state = home.directory.join("state");
    let expected = format!("another dualgate runs with the state directory `{}`", state.display());
    assert!(log.contains(&expected), "{log}");
    assert!(log.contains("--state"), "it does not say what to do: {log}");
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn a_port_that_is_taken_costs_only_its_listener_and_heals_when_it_is_free() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    let taken = TcpListener::bind(home.web[0]).unwrap();
    let node = Node::start(&home, &[]);
    node.wait_for_finding("listener-failed", &home.web[0].to_string());
    let answer = node.admin("/readyz").unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains(&format!("listen on {}", home.web[0])), "{}", answer.text());
    for address in [home.web[1], home.public[0], home.public[1]] {
        let expected = if address == home.web[1] { (200, Some("web".to_owned())) } else { (404, None) };
        assert_eq!(ask(address, "web"), Ok(expected), "{address}");
    }
    assert_eq!(ask_tls(home.websecure[0], "web"), Ok((200, Some("web".to_owned()))));
    drop(taken);
    node.wait_until_ready();
    node.wait_until_no_finding("listener-failed");
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn an_address_that_the_machine_does_not_have_costs_only_its_listener() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    home.manifest("web", &application("web", &[&pod]));
    // An address of the node itself, other than one of a gate, is not listened on before it is there.
    let absent = "fd00:d0a1:9a7e::5";
    let site =
        home.site("").replace("addresses: [127.0.0.1, '::1']}", &format!("addresses: [127.0.0.1, '{absent}']}}"));
    let site = site.replace("internal: {addresses: [127.0.0.1, '::1'], ", "internal: {");
    home.directory.write("site.yaml", &site);
    let node = Node::start(&home, &[]);
    node.wait_for_finding("listener-failed", absent);
    let answer = node.admin("/readyz").unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains(&format!("listen on [{absent}]:{}", home.web[0].port())), "{}", answer.text());
    assert_eq!(ask(home.web[0], "web"), Ok((200, Some("web".to_owned()))));
    assert_eq!(ask_tls(home.websecure[0], "web"), Ok((200, Some("web".to_owned()))));
}

#[test]
fn a_replaced_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let home = Home::new();
    let pod = Pod::start("web", &[V4]);
    let authority = Authority::new();
    let (old, new) = (authority.issue(&["web.example.org"]), authority.issue(&["web.example.org"]));
    home.manifest("web", &gated("web", &[&pod], "internal", "  tls: [{secretName: web}]\n"));
    home.manifest("secret", &old.secret("web"));
    let node = Node::serve(&home);
    let mut open = Client::connect_tls(home.websecure[0], "web.example.org").unwrap();
    assert_eq!(open.certificate(), Some(&*old.der));
    assert_eq!(open.get("web.example.org", "/").unwrap().status, 200);
    home.manifest("secret", &new.secret("web"));
    for address in home.websecure {
        eventually("the new certificate", || {
            let shown = Client::connect_tls(address, "web.example.org").map_err(|error| error.to_string())?;
            if shown.certificate() == Some(&*new.der) { Ok(()) } else { Err("the old one".to_owned()) }
        });
    }
    assert_eq!(open.get("web.example.org", "/").unwrap().pod(), Some("web"));

    // One that cannot be used costs the certificate, not the route.
    home.manifest("secret", &new.secret("web").replace(new.key.lines().nth(1).unwrap(), "AAAA"));
    node.wait_for_finding("secret-invalid", "web");
    assert_eq!(ask_tls(home.websecure[0], "web"), Ok((200, Some("web".to_owned()))));
    assert_eq!(open.get("web.example.org", "/").unwrap().pod(), Some("web"));
}

#[test]
fn the_admin_listener_answers_only_to_addresses() {
    let home = Home::new();
    let _node = Node::serve(&home);
    for address in home.admin {
        let port = address.port();
        for (host, status) in [
            (address.to_string(), 200),
            (format!("localhost:{port}"), 200),
            ("localhost".to_owned(), 200),
            (format!("rebound.example.org:{port}"), 403),
            ("localhost.example.org".to_owned(), 403),
            ("localhost@example.org".to_owned(), 403),
            ("127.0.0.1.example.org".to_owned(), 403),
            (String::new(), 403),
        ] {
            for path in ["/livez", "/snapshot", "/metrics"] {
                let answer = Client::connect(address).unwrap().get(&host, path).unwrap();
                assert_eq!(answer.status, status, "{host:?} {path} at {address}");
            }
        }
    }
}

#[test]
fn no_gate_leads_to_the_admin_listener() {
    let home = Home::new();
    let node = Node::serve(&home);
    for address in home.admin {
        let manifest = application("trap", &[]).replace("endpoints: ''", &format!("endpoints: '{address}'"));
        assert!(manifest.contains(&address.to_string()), "{manifest}");
        home.manifest("trap", &manifest);
        node.wait_for_finding("service-endpoints", &address.to_string());
        eventually_answers(home.web[0], "trap", 503, None);
    }
}

/// Status and pod of one request on a connection of its own.
fn ask(address: SocketAddr, name: &str) -> Result<(u16, Option<String>), String> {
    told(Client::connect(address), name)
}

fn ask_tls(address: SocketAddr, name: &str) -> Result<(u16, Option<String>), String> {
    told(Client::connect_tls(address, &format!("{name}.example.org")), name)
}

fn told(client: io::Result<Client>, name: &str) -> Result<(u16, Option<String>), String> {
    let answer = client.and_then(|mut client| client.get(&format!("{name}.example.org"), "/"));
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status, answer.pod().map(str::to_owned)))
}

#[track_caller]
fn eventually_answers(address: SocketAddr, name: &str, status: u16, pod: Option<&str>) {
    let expected = Ok((status, pod.map(str::to_owned)));
    eventually(&format!("{name} answers {status} {pod:?}"), || {
        let found = ask(address, name);
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

/// Reads from a service manager's socket until somebody says this line; all that was heard on the way.
#[track_caller]
fn hear(socket: &UnixDatagram, line: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut heard = String::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).unwrap();
        let mut buffer = [0; 4096];
        let Ok(size) = socket.recv(&mut buffer) else { break };
        heard.push_str(std::str::from_utf8(&buffer[..size]).unwrap());
        if heard.lines().any(|heard| heard == line) {
            return heard;
        }
    }
    panic!("`{line}` was not said, but:\n{heard}");
}

#[track_caller]
fn tells_its_life(socket: &UnixDatagram, name: &str) {
    let home = Home::new();
    let mut node = Node::start_with(&home, &[], &[("NOTIFY_SOCKET", name)]);
    let heard = hear(socket, "READY=1");
    assert!(!heard.contains("STOPPING"), "{heard}");
    if !heard.contains("STATUS=ready") {
        hear(socket, "STATUS=ready");
    }
    node.signal(Signal::HUP);
    let heard = hear(socket, "RELOADING=1");
    assert!(heard.contains("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    hear(socket, "READY=1");
    node.signal(Signal::TERM);
    hear(socket, "STOPPING=1");
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn a_service_manager_hears_that_it_is_ready_reloads_and_stops() {
    let home = Home::new();
    let path = home.directory.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    tells_its_life(&socket, path.to_str().unwrap());
}

#[test]
fn a_service_manager_without_a_file_hears_the_same() {
    let name = format!("dualgate-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
    tells_its_life(&socket, &format!("@{name}"));
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let home = Home::new();
    let gone = home.directory.join("nobody");
    let node = Node::start_with(&home, &[], &[("NOTIFY_SOCKET", gone.to_str().unwrap())]);
    node.wait_until_ready();
    assert!(node.log().contains("the service manager cannot be told anything"), "{}", node.log());
}
