//! Requests to a lab over real sockets, with an operator that keeps state instead of a lab.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dualgate_lab::control::{
    Answer, ControlError, Entrance, Event, LabName, NamespaceKind, Operator, Refusal, Request, Server, ask, bind,
    choose, running,
};
use dualgate_lab::report::{HostKind, HostStatus, Status};

const PATIENCE: Duration = Duration::from_secs(10);

/// A lab of two hosts that can be switched off and on.
struct Fake {
    off: Mutex<Vec<String>>,
    gate: Mutex<()>,
}

const HOSTS: [&str; 2] = ["k3s-node1", "k3s-node2"];

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self { off: Mutex::default(), gate: Mutex::default() })
    }

    fn known(&self, host: &str) -> Result<(), Refusal> {
        if HOSTS.contains(&host) { Ok(()) } else { Err(Refusal::unknown("host", host, HOSTS)) }
    }
}

impl Operator for Fake {
    fn status(&self) -> Status {
        let off = self.off.lock().unwrap();
        let host = |name: &str| HostStatus {
            name: name.into(),
            kind: HostKind::HomeNode,
            on: !off.contains(&name.to_owned()),
            addresses: Vec::new(),
            virtual_ips: Vec::new(),
            roles: Vec::new(),
            dualgate: None,
        };
        Status { name: "fake".into(), hosts: HOSTS.map(host).into(), ..Status::default() }
    }

    fn look(&self) {}

    fn fail(&self, host: &str) -> Result<String, Refusal> {
        self.known(host)?;
        self.off.lock().unwrap().push(host.into());
        Ok(format!("{host} is off"))
    }

    fn heal(&self, what: &str) -> Result<String, Refusal> {
        self.known(what)?;
        self.off.lock().unwrap().retain(|off| off != what);
        Ok(format!("{what} is on"))
    }

    fn cut(&self, link: &str) -> Result<String, Refusal> {
        // Waits as long as a test holds it.
        drop(self.gate.lock().unwrap());
        Ok(format!("{link} is cut"))
    }

    fn kill(&self, pod: &str) -> Result<String, Refusal> {
        Err(Refusal::unknown("pod", pod, []))
    }

    fn scale(&self, workload: &str, replicas: u32) -> Result<String, Refusal> {
        Ok(format!("{workload} has {replicas}"))
    }

    fn log(&self, host: &str) -> Result<String, Refusal> {
        Ok("a long line\n".repeat(50_000) + host)
    }

    fn enter(&self, host: &str) -> Result<Entrance, Refusal> {
        self.known(host)?;
        let open = |kind: NamespaceKind| (kind, File::open(format!("/proc/self/ns/{}", kind.file())).unwrap().into());
        let kinds = [NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::User];
        let environment = vec![("DUALGATE_LAB_HOST".to_owned(), host.to_owned())];
        Ok(Entrance { namespaces: kinds.map(open).into(), directory: "/".into(), environment })
    }

    fn down(&self) {}
}

struct Lab {
    name: LabName,
    told: Receiver<Event>,
    operator: Arc<Fake>,
    _server: Server,
}

/// A lab with a name that no other test has.
fn lab(test: &str) -> Lab {
    let name: LabName = format!("test-{test}-{}", std::process::id()).parse().unwrap();
    let (tell, told) = sync_channel(64);
    let operator = Fake::new();
    let listener = bind(&name).unwrap();
    let server = Server::start(listener, operator.clone(), move |event| tell.send(event).unwrap()).unwrap();
    Lab { name, told, operator, _server: server }
}

fn done(answer: Result<Answer, ControlError>) -> Result<String, String> {
    match answer {
        Ok(Answer::Done { message }) => Ok(message),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

/// A connection of somebody who does not speak as the client does.
fn raw(lab: &Lab) -> UnixStream {
    let user = rustix::process::getuid().as_raw();
    let address = SocketAddr::from_abstract_name(format!("dualgate-lab/{user}/{}", lab.name)).unwrap();
    let stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn first_line(stream: UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn what_is_asked_is_done_and_seen() {
    let lab = lab("done");
    let ask = |request: Request| ask(&lab.name, &request);
    assert_eq!(done(ask(Request::Fail { host: "k3s-node1".into() })), Ok("k3s-node1 is off".into()));
    assert_eq!(lab.told.try_recv(), Ok(Event::Changed));
    let Ok(Answer::Status(status)) = ask(Request::Status) else { panic!("no status") };
    assert_eq!(*status, lab.operator.status());
    assert!(!status.hosts[0].on && status.hosts[1].on);
    assert_eq!(done(ask(Request::Heal { what: "k3s-node1".into() })), Ok("k3s-node1 is on".into()));
    assert_eq!(done(ask(Request::Cut { link: "lan/a".into() })), Ok("lan/a is cut".into()));
    assert_eq!(done(ask(Request::Scale { workload: "a/b".into(), replicas: 3 })), Ok("a/b has 3".into()));
    let refused = done(ask(Request::Fail { host: "k3s-node3".into() })).unwrap_err();
    assert!(refused.starts_with("there is no host `k3s-node3`: did you mean `k3s-node1`?"), "{refused}");
    assert_eq!(done(ask(Request::Kill { pod: "x".into() })).unwrap_err(), "there is no pod `x`: the lab has no pods");
    let changes = std::iter::from_fn(|| lab.told.try_recv().ok()).count();
    assert_eq!(changes, 3, "a refusal changes nothing");
}

#[test]
fn a_long_answer_arrives_whole() {
    let lab = lab("long");
    let Ok(Answer::Log { text }) = ask(&lab.name, &Request::Log { host: "end".into() }) else { panic!("no log") };
    assert_eq!((text.len(), &text[text.len() - 4..]), (12 * 50_000 + 3, "\nend"));
}

#[test]
fn the_namespaces_of_a_host_change_hands() {
    let lab = lab("enter");
    let request = Request::Enter { host: "k3s-node2".into() };
    let Ok(Answer::Enter(entrance)) = ask(&lab.name, &request) else { panic!("no entrance") };
    assert_eq!(entrance.environment, [("DUALGATE_LAB_HOST".to_owned(), "k3s-node2".to_owned())]);
    let kinds: Vec<NamespaceKind> = entrance.namespaces.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [NamespaceKind::Mount, NamespaceKind::Network, NamespaceKind::User]);
    for (kind, received) in &entrance.namespaces {
        let own = File::open(format!("/proc/self/ns/{}", kind.file())).unwrap();
        let number = |file: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(file).unwrap().st_ino;
        assert_eq!(number(received.as_fd()), number(own.as_fd()), "{kind:?}");
    }
}

#[test]
fn who_ends_a_lab_waits_until_it_has_ended() {
    let lab = lab("down");
    let name = lab.name.clone();
    let asking = std::thread::spawn(move || done(ask(&name, &Request::Down)));
    assert_eq!(lab.told.recv_timeout(PATIENCE), Ok(Event::Down));
    let (tell, ended) = sync_channel(1);
    std::thread::spawn(move || tell.send(asking.join().unwrap()).unwrap());
    assert!(ended.recv_timeout(Duration::from_millis(100)).is_err(), "the lab has not ended yet");
    drop(lab);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Ok("the lab has ended".into()));
}

#[test]
fn broken_and_oversized_requests_are_refused_and_harm_nobody() {
    let lab = lab("broken");
    for broken in ["nonsense\n", "{}\n", "{\"request\":\"fly\"}\n", "\u{0}\n", "{\"request\":\"fail\"}\n"] {
        let mut stream = raw(&lab);
        stream.write_all(broken.as_bytes()).unwrap();
        let line = first_line(stream);
        assert!(line.contains("\"refused\"") && line.contains("does not know this request"), "{broken}: {line}");
    }
    let mut stream = raw(&lab);
    // The server may close before all of it is written.
    let _ = stream.write_all(&vec![b'x'; 100 << 10]);
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.is_empty() || said.contains("longer than 4096 octets"), "{said}");
    drop(raw(&lab));
    assert!(matches!(ask(&lab.name, &Request::Status), Ok(Answer::Status(_))));
}

#[test]
fn a_client_that_says_nothing_holds_up_nobody_and_too_many_are_refused() {
    let lab = lab("many");
    let held = lab.operator.gate.lock().unwrap();
    let mut waiting: Vec<UnixStream> = (0..15).map(|_| raw(&lab)).collect();
    assert!(matches!(ask(&lab.name, &Request::Status), Ok(Answer::Status(_))));
    let cut = b"{\"request\":\"cut\",\"link\":\"a\"}\n";
    waiting.iter_mut().for_each(|stream| stream.write_all(cut).unwrap());
    let mut last = raw(&lab);
    last.write_all(cut).unwrap();
    // One more than there is room for.
    let refused = first_line(raw(&lab));
    assert!(refused.contains("too many requests"), "{refused}");
    drop(held);
    for stream in waiting.into_iter().chain([last]) {
        assert_eq!(first_line(stream), "{\"answer\":\"done\",\"message\":\"a is cut\"}\n");
    }
    assert!(matches!(ask(&lab.name, &Request::Status), Ok(Answer::Status(_))));
}

#[test]
fn a_lab_is_found_by_its_name_and_a_name_is_given_once() {
    let lab = lab("found");
    let found = running().unwrap();
    assert!(found.contains(&lab.name), "{found:?}");
    assert_eq!(choose(Some(&lab.name), found).unwrap(), lab.name);
    let taken = bind(&lab.name).unwrap_err().to_string();
    assert!(taken.contains("runs already") && taken.contains("dualgate lab down --name"), "{taken}");
    let name = lab.name.clone();
    drop(lab);
    assert!(!running().unwrap().contains(&name));
    let gone = ask(&name, &Request::Status).unwrap_err();
    assert!(matches!(gone, ControlError::Ask { .. }), "{gone}");
}

#[test]
fn another_user_is_refused_on_both_sides() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: another_user_is_refused_on_both_sides: only root can act as another user");
        return;
    }
    let python = |user: u32, script: &str| {
        let output = Command::new("setpriv")
            .args([&format!("--reuid={user}"), "--clear-groups", "--", "python3", "-c", script])
            .output();
        output.ok().filter(|output| output.status.success() || !output.stdout.is_empty())
    };
    if python(65534, "print('here')").is_none() {
        eprintln!("SKIPPED: another_user_is_refused_on_both_sides: no setpriv or python3 here");
        return;
    }
    let lab = lab("stranger");
    let script = format!(
        "import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect('\\0dualgate-lab/0/{}')\n\
         print(s.recv(4096).decode())",
        lab.name
    );
    let output = python(65534, &script).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\"refused\"") && said.contains("belongs to another user"), "{output:?}");
    // And who takes our name is not believed.
    let name: LabName = format!("test-thief-{}", std::process::id()).parse().unwrap();
    let script = format!(
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('\\0dualgate-lab/0/{name}'); s.listen()\n\
         print('listens', flush=True); sys.stdin.read()"
    );
    let mut thief = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "--", "python3", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(thief.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listens\n");
    let outcome = ask(&name, &Request::Status);
    drop(thief.stdin.take());
    thief.wait().unwrap();
    assert!(matches!(outcome, Err(ControlError::Stranger(_))), "{outcome:?}");
}
