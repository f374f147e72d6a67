//! Commit-confirm of the process that keeps the firewall: what would shut out the operator is on trial, whatever happens
//! to the process meanwhile.
//!
//! A plain listener stands in for sshd, a client on the Internet is the operator. Findings are asked for often, ports
//! seldom: SSH has a limit for each source.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dualgate_core::parse::site;
use dualgate_core::seam::Actuator as _;
use dualgate_host::firewall::Firewall;
use dualgate_host::namespace::Namespace;
use dualgate_lab::probe::{self, Request, Trouble};
use dualgate_lab::rehearsal::Tunnel;
use dualgate_lab::topology;
use dualgate_lab::trial::{Trial, chain};
use dualgate_lab::world::World;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use crate::site::{example, ip};

pub const TRIALS: &[Trial] = &[
    ("a_change_that_shuts_the_operator_out_is_undone_and_his_connection_lives", undone),
    ("a_change_that_shuts_the_operator_out_stays_once_he_has_confirmed_it", confirmed),
    ("an_opening_that_loses_the_operators_network_is_on_trial_too", other_networks),
    ("a_change_that_shuts_nobody_out_is_in_force_at_once", at_once),
    ("the_first_rules_leave_open_what_the_operator_came_by", first_rules),
    ("a_process_that_is_killed_during_a_trial_leaves_nobody_locked_out", killed),
    ("a_trial_goes_on_while_its_process_starts_again", restarted),
    ("a_machine_that_is_reset_during_a_trial_comes_back_with_the_former_ways_open", reset),
    ("what_changed_while_no_process_ran_is_on_trial_too", changed_meanwhile),
];

const EDGE: &str = "ionos";
const CLIENT: &str = "internet-client";
const PUBLIC: [&str; 2] = ["203.0.113.10", "2001:db8:1::10"];
const SILENCE: Duration = Duration::from_millis(400);
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough to look at a trial, on a busy machine too.
const SHORT: &str = "6s";
/// Longer than any trial.
const LONG: &str = "60m";

/// The seed's site file with SSH at this port and these openings.
fn text(ssh: u16, allow: &str) -> String {
    let text = std::fs::read_to_string(example().join("site.yaml")).expect("the seed's site file");
    let text = text.replace("sshPort: 22\n", &format!("sshPort: {ssh}\n"));
    text.replace("  allow: []", &format!("  allow: [{allow}]"))
}

/// The seed's edge and the Internet; nothing runs at home.
struct Site {
    world: World,
    /// What is `/run` on the edge.
    own: PathBuf,
    run: Option<Child>,
}

impl Site {
    fn build(directory: &Path) -> Self {
        dualgate_host::raise_descriptor_limit();
        let (site, findings) = site::site("site.yaml", &text(22, ""));
        let site = site.unwrap_or_else(|| panic!("{findings:#?}"));
        let topology = topology::build(&site, Tunnel::Real).expect("a topology");
        let world = World::build(topology, directory).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let own = world.run_directory(EDGE);
        std::fs::create_dir_all(own.join("manifests")).expect("a folder");
        let site = Self { world, own, run: None };
        site.until("the Internet is up", || PUBLIC.iter().all(|to| site.dial(to, 7999) == Err(Trouble::Refused)));
        site
    }

    fn host(&self, name: &str) -> Arc<Namespace> {
        self.world.host(name).expect("a host that is on")
    }

    fn write(&self, text: &str) {
        let part = self.own.join("site.part");
        std::fs::write(&part, text).expect("a file");
        std::fs::rename(part, self.own.join("site.yaml")).expect("a file");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dualgate"));
        command.args(arguments).args(["--state", "/run/state", "--site", "/run/site.yaml", "--node", EDGE]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the process that keeps the edge's firewall.
    fn start(&mut self, patience: &str) {
        let source = "folder:/run/manifests";
        let mut command = self.command(&["run", "--workers", "1", "--confirm", patience, "--source", source]);
        let mut options = std::fs::File::options();
        let log = options.create(true).append(true).open(self.log()).expect("a log");
        command.stdout(Stdio::null()).stderr(log);
        self.run = Some(self.host(EDGE).run(move || command.spawn()).expect("the program runs"));
    }

    /// The same, once its rules are in force.
    fn keep(&mut self, patience: &str) {
        self.start(patience);
        self.until("its rules are in force", || self.keeps_rules());
    }

    fn signal(&self, signal: Signal) {
        let run = self.run.as_ref().expect("it runs");
        let pid = i32::try_from(run.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it is there");
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.run.take().expect("it runs").wait().expect("it ends");
    }

    /// `dualgate firewall ...` on the edge: its exit code and what it printed.
    fn firewall(&self, what: &str) -> (Option<i32>, String) {
        let mut command = self.command(&["firewall", what]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.host(EDGE).run(move || command.spawn()).and_then(Child::wait_with_output).expect("it runs");
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// What the admin listener says.
    fn status(&self) -> serde_json::Value {
        let request = Request::new("127.0.0.1:9180".parse().expect("an address"), "127.0.0.1:9180").path("/status");
        let answer = probe::get(&self.host(EDGE), &request, Duration::from_secs(1));
        answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
    }

    fn keeps_rules(&self) -> bool {
        self.status()["firewall"]["on"] == true
    }

    /// What is unconfirmed; nothing before rules are kept.
    fn unconfirmed(&self) -> Option<String> {
        let status = self.status();
        let findings = status["findings"].as_array()?;
        let found = findings.iter().find(|finding| finding["code"] == "firewall-unconfirmed")?;
        Some(found["message"].as_str()?.to_owned())
    }

    #[track_caller]
    fn finds(&self, what: &str) -> String {
        self.until(what, || self.unconfirmed().is_some_and(|message| message.contains(what)));
        self.unconfirmed().expect("it stays")
    }

    #[track_caller]
    fn finds_nothing(&self) {
        self.until("nothing is unconfirmed", || self.keeps_rules() && self.unconfirmed().is_none());
    }

    /// Whether the client comes in; [`Trouble::Refused`] is an open port that nobody listens on.
    fn dial(&self, to: &str, port: u16) -> Result<(), Trouble> {
        probe::tcp(&self.host(CLIENT), SocketAddr::new(ip(to), port), SILENCE)
    }

    #[track_caller]
    fn is_open(&self, port: u16) {
        for to in PUBLIC {
            let dialled = self.dial(to, port);
            assert!(matches!(dialled, Ok(()) | Err(Trouble::Refused)), "{to}:{port}: {dialled:?}\n{}", self.logged());
        }
    }

    #[track_caller]
    fn is_shut(&self, port: u16) {
        for to in PUBLIC {
            let dialled = self.dial(to, port);
            assert!(matches!(dialled, Err(Trouble::Silent(_))), "{to}:{port}: {dialled:?}\n{}", self.logged());
        }
    }

    fn log(&self) -> PathBuf {
        self.own.join("run.log")
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: not in time\n{:?}\n{}", self.unconfirmed(), self.logged());
            std::thread::park_timeout(Duration::from_millis(30));
        }
    }

    /// Connects over both families to what stands in for sshd.
    fn operator(&self, port: u16) -> Operator {
        let connect = |to: &str| {
            let address = SocketAddr::new(ip(to), port);
            let listen = move || -> std::io::Result<TcpListener> {
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(128)?;
                Ok(socket.into())
            };
            let listener = self.host(EDGE).run(listen).expect("a listener");
            let client = self.host(CLIENT).run(move || TcpStream::connect_timeout(&address, LIMIT));
            let client = client.unwrap_or_else(|error| panic!("{address}: {error}\n{}", self.logged()));
            let (server, _) = listener.accept().expect("the operator's connection");
            for end in [&client, &server] {
                end.set_read_timeout(Some(LIMIT)).expect("a setting");
            }
            (client, server, listener)
        };
        Operator(PUBLIC.map(connect))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut run) = self.run.take() {
            let _ = run.kill();
            let _ = run.wait();
        }
    }
}

/// The operator's connections: both ends of each, and what accepted it.
struct Operator([(TcpStream, TcpStream, TcpListener); 2]);

impl Operator {
    /// Something goes there and back.
    #[track_caller]
    fn lives(&mut self) {
        for (client, server, _) in &mut self.0 {
            let mut octet = [0];
            client.write_all(b"?").and_then(|()| server.read_exact(&mut octet)).expect("the way there");
            server.write_all(b"!").and_then(|()| client.read_exact(&mut octet)).expect("the way back");
            assert_eq!(octet, *b"!");
        }
    }
}

const ON_TRIAL: &str = "it is on trial for";
const NOT_CONFIRMED: &str = "was not confirmed in time";

fn undone(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(SHORT);
    let mut operator = site.operator(22);
    site.write(&text(2222, ""));
    let found = site.finds(ON_TRIAL);
    assert!(found.contains("198.51.100.7, which is connected to port 22; 2001:db8:7::7, which"), "{found}");
    let (code, page) = site.firewall("status");
    assert_eq!(code, Some(0), "{page}");
    assert!(page.contains("198.51.100.7") && page.contains("is on trial for"), "{page}");
    site.is_shut(22);
    operator.lives();
    let (code, refused) = site.firewall("apply");
    assert_eq!(code, Some(2), "{refused}");
    assert!(refused.contains("a change waits for its confirmation"), "{refused}");
    site.finds(NOT_CONFIRMED);
    site.is_open(22);
    site.is_open(2222);
    operator.lives();
    let (code, page) = site.firewall("status");
    assert_eq!(code, Some(1), "{page}");
    assert!(page.contains("was not confirmed; open besides: tcp 22 for everybody"), "{page}");
    assert_eq!(site.firewall("confirm").0, Some(2), "nothing is on trial");
    let (code, refused) = site.firewall("apply");
    assert_eq!(code, Some(2), "{refused}");
    assert!(refused.contains("puts on trial what would shut somebody out"), "{refused}");
    // What else is planned is in force meanwhile, and the change is not tried again.
    let planned = text(2222, "");
    let (before, after) = planned.split_once("  external:").expect("the external gate");
    let after = after.replacen("websecure: 443}", "websecure: 443, other: 8443}", 1);
    site.write(&format!("{before}  external:{after}"));
    site.until("the entry point is there", || site.dial(PUBLIC[0], 8443) == Ok(()));
    site.is_open(22);
    site.finds(NOT_CONFIRMED);
    // Taken back, nothing is left of it.
    site.write(&text(22, ""));
    site.finds_nothing();
    site.is_shut(2222);
    site.is_open(22);
    assert_eq!(site.firewall("status").0, Some(0));
    operator.lives();
}

fn confirmed(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(LONG);
    let mut operator = site.operator(22);
    site.write(&text(2222, ""));
    site.finds(ON_TRIAL);
    site.is_open(2222);
    // What is planned meanwhile waits.
    site.write(&text(2222, "{protocol: tcp, port: 9000}"));
    let read = |times| site.logged().matches("the site file was read again").count() >= times;
    site.until("it is read", || read(2));
    site.is_shut(9000);
    let (code, said) = site.firewall("confirm");
    assert_eq!(code, Some(0), "{said}");
    site.finds_nothing();
    site.is_shut(22);
    site.is_open(2222);
    site.until("what waited is in force", || site.dial(PUBLIC[0], 9000) == Err(Trouble::Refused));
    operator.lives();
    // He is still connected, and could not come back by that port: that was confirmed.
    site.write(&text(2222, ""));
    site.until("it is read", || read(3));
    site.until("it is in force at once", || matches!(site.dial(PUBLIC[0], 9000), Err(Trouble::Silent(_))));
    site.finds_nothing();
    // Nor does the next process ask again.
    site.end(Signal::TERM);
    site.keep(LONG);
    site.finds_nothing();
    site.is_shut(22);
    operator.lives();
}

fn other_networks(directory: &Path) {
    let mut site = Site::build(directory);
    let allow = |from: &str| text(22, &format!("{{protocol: tcp, port: 9000, from: [{from}]}}"));
    site.write(&text(22, "{protocol: tcp, port: 9000}"));
    site.keep(SHORT);
    let mut operator = site.operator(9000);
    site.write(&allow("198.51.100.0/24, '2001:db8:7::/48'"));
    let read = |times| site.logged().matches("the site file was read again").count() >= times;
    site.until("it is read", || read(1));
    site.finds_nothing();
    site.is_open(9000);
    // One family is enough.
    site.write(&allow("198.51.100.0/24"));
    let found = site.finds(ON_TRIAL);
    assert!(found.contains("shut out 2001:db8:7::7, which is connected to port 9000: it"), "{found}");
    assert!(matches!(site.dial(PUBLIC[1], 9000), Err(Trouble::Silent(_))));
    site.finds(NOT_CONFIRMED);
    site.is_open(9000);
    operator.lives();
}

fn at_once(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, "{protocol: tcp, port: 9000}"));
    site.keep(SHORT);
    let mut operator = site.operator(22);
    site.write(&text(22, "{protocol: tcp, port: 9001}"));
    site.until("it is in force", || site.dial(PUBLIC[0], 9001) == Err(Trouble::Refused));
    site.is_shut(9000);
    site.finds_nothing();
    operator.lives();
    // Who has gone is not asked.
    drop(operator);
    site.write(&text(2222, ""));
    site.until("it is in force", || site.dial(PUBLIC[0], 2222) == Err(Trouble::Refused));
    site.is_shut(22);
    site.finds_nothing();
    assert!(!site.logged().contains("trial"), "{}", site.logged());
}

fn first_rules(directory: &Path) {
    let mut site = Site::build(directory);
    let mut operator = site.operator(2222);
    site.write(&text(22, ""));
    site.start(SHORT);
    let found = site.finds(ON_TRIAL);
    assert!(found.contains("connected to port 2222"), "{found}");
    site.is_shut(2222);
    site.is_shut(9000);
    site.finds(NOT_CONFIRMED);
    site.is_open(2222);
    site.is_shut(9000);
    operator.lives();
}

fn killed(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(SHORT);
    let mut operator = site.operator(22);
    site.write(&text(2222, ""));
    site.finds(ON_TRIAL);
    site.end(Signal::KILL);
    site.is_shut(22);
    operator.lives();
    site.until("the guard has undone it", || !site.firewall("status").1.contains("is on trial"));
    site.is_open(22);
    operator.lives();
    site.keep(SHORT);
    site.finds(NOT_CONFIRMED);
    site.is_open(22);
    site.is_open(2222);
    site.is_shut(9000);
    operator.lives();
    assert_eq!(site.logged().matches("a change of the firewall is on trial").count(), 1, "{}", site.logged());
}

fn restarted(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(LONG);
    let mut operator = site.operator(22);
    site.write(&text(2222, ""));
    site.finds(ON_TRIAL);
    for signal in [Signal::TERM, Signal::KILL] {
        site.end(signal);
        site.start(LONG);
        site.finds("since before this process began");
        site.is_shut(22);
        operator.lives();
    }
    assert_eq!(site.firewall("confirm").0, Some(0));
    site.finds_nothing();
    site.is_shut(22);
    site.is_open(2222);
    operator.lives();
}

fn reset(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(LONG);
    let operator = site.operator(22);
    site.write(&text(2222, ""));
    site.finds(ON_TRIAL);
    // Both processes are gone at once, and the kernel begins anew.
    kill_guards(site.run.as_ref().expect("it runs").id());
    site.end(Signal::KILL);
    drop(operator);
    site.host(EDGE).run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let deleted = runtime.block_on(async {
            let (mut firewall, nothing) = (Firewall::open(None)?, Arc::default());
            let observed = firewall.observe().await?;
            firewall.apply(&nothing, &Firewall::diff(&observed, &nothing)).await
        });
        deleted.expect("no rules");
    });
    site.keep(LONG);
    site.finds(NOT_CONFIRMED);
    site.is_open(22);
    site.is_open(2222);
    site.is_shut(9000);
}

/// Kills the children of a process that are guards.
fn kill_guards(of: u32) {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).expect("its children");
    let mut killed = 0;
    for child in children.split_ascii_whitespace() {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if command.contains("guard") {
            let pid = child.parse().ok().and_then(Pid::from_raw).expect("a process");
            kill_process(pid, Signal::KILL).expect("it is there");
            killed += 1;
        }
    }
    assert_eq!(killed, 1, "{children}");
}

fn changed_meanwhile(directory: &Path) {
    let mut site = Site::build(directory);
    site.write(&text(22, ""));
    site.keep(SHORT);
    let mut operator = site.operator(22);
    site.end(Signal::TERM);
    site.is_open(22);
    site.write(&text(2222, ""));
    site.start(SHORT);
    site.finds(ON_TRIAL);
    site.is_shut(22);
    // A guard that is killed has given no verdict: the change is undone by who started it.
    kill_guards(site.run.as_ref().expect("it runs").id());
    site.finds(NOT_CONFIRMED);
    site.is_open(22);
    operator.lives();
}
