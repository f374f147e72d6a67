//! Two hosts with a wire between them, and what is done on them.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_core::model::{PublicKey, Secret};
use dualgate_host::keys::Key;
use dualgate_host::namespace::{Namespace, mount_empty};
use dualgate_host::network::{self, Network, NetworkError, Switch, Use};
use dualgate_lab::trial::chain;
use dualgate_tunnel::{Backend, Config, Engine, Peer};

/// The tunnel's interface on both hosts.
pub const INTERFACE: &str = "dualgate0";
pub const MTU: u16 = 1392;
const PORT: u16 = 51820;
const LOOK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Home,
    Edge,
}

/// The two hosts.
pub struct Pair {
    pub home: Arc<Namespace>,
    pub edge: Arc<Namespace>,
}

/// The exit code of a trial that cannot run here; what it printed says why.
const CANNOT_RUN: i32 = 77;

/// The backends that work on this machine. In the guest it is the kernel's that is tested; the others were outside.
pub fn backends() -> Vec<Backend> {
    if is_guest() {
        return vec![Backend::Kernel];
    }
    [Backend::Packet, Backend::Tun, Backend::Kernel].into_iter().filter(|backend| works(*backend).is_ok()).collect()
}

/// Whether this is the guest of `cargo xtask guest`: there the kernel has everything, and everything takes long.
pub fn is_guest() -> bool {
    std::env::var_os("DUALGATE_GUEST").is_some()
}

/// So many octets are many frames of the largest size.
pub fn bulk() -> usize {
    if is_guest() { 128 << 10 } else { 1 << 20 }
}

fn patience() -> Duration {
    Duration::from_secs(if is_guest() { 60 } else { 20 })
}

/// Whether a backend works on this machine; if not, why.
pub fn works(backend: Backend) -> Result<(), String> {
    let choice = Backend::choose();
    match backend {
        Backend::Packet => Ok(()),
        Backend::Kernel if choice.backend == Backend::Kernel => Ok(()),
        Backend::Kernel => Err(choice.why),
        Backend::Tun => match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("/dev/net/tun: {error}")),
        },
    }
}

/// Ends a trial that cannot run here: its runner says so loudly.
pub fn skip(why: &str) -> ! {
    assert!(!is_guest(), "{why}");
    println!("{why}");
    std::process::exit(CANNOT_RUN)
}

/// Ends a trial that lacks a program; where programs are required, as a failure.
pub fn lacks(program: &str) -> ! {
    assert!(std::env::var_os("DUALGATE_REQUIRE_TOOLS").is_none(), "{program} is not installed");
    skip(&format!("{program} is not installed"))
}

/// A private key that is the same each time, and its public part.
pub fn key(number: u8) -> (Secret, PublicKey) {
    let private = Secret::new([number; 32]);
    let text = Key::from_base64(&Secret::new(base64(&[number; 32]).into_bytes())).unwrap();
    (private, text.public().unwrap())
}

fn base64(octets: &[u8; 32]) -> String {
    PublicKey::new(*octets).to_string()
}

/// The address of home in the family of an address of the edge.
pub fn outer_home(edge: &str) -> &'static str {
    if edge.contains(':') { "fd09::1" } else { "10.9.0.1" }
}

/// One end, which dials the other if it is told where that is.
pub fn config(end: End, backend: Backend, outer: Option<&str>) -> Config {
    let (own, other, number) = match end {
        End::Home => (key(1), key(2), 2),
        End::Edge => (key(2), key(1), 1),
    };
    let peer = Peer {
        public_key: other.1,
        preshared_key: Some(Secret::new([5; 32])),
        endpoint: outer.map(|outer| SocketAddr::new(outer.parse().unwrap(), PORT)),
        keepalive: outer.and_then(|_| NonZeroU16::new(25)),
        allowed_ips: vec![
            format!("10.8.0.{number}/32").parse().unwrap(),
            format!("fd08::{number}/128").parse().unwrap(),
        ],
    };
    Config {
        interface: INTERFACE.to_owned(),
        private_key: own.0,
        listen_port: (end == End::Edge).then_some(PORT),
        mtu: MTU,
        peers: vec![peer],
        backend: Some(backend),
    }
}

impl Pair {
    /// With a wire, 10.9.0.0/24 and fd09::/64.
    pub fn new() -> Self {
        let host = |name: &str| Arc::new(Namespace::new(name, || mount_empty("/run")).unwrap());
        let (home, edge) = (host("home"), host("edge"));
        let end = |namespace| network::End { name: "wire", mac: None, mtu: 1500, namespace };
        let ends = [end(home.network()), end(edge.network())];
        Network::open().unwrap().add_veth([&ends[0], &ends[1]]).unwrap();
        for (host, number) in [(&home, 1), (&edge, 2)] {
            let up = move || -> Result<(), NetworkError> {
                let mut network = Network::open()?;
                network.switch("lo", Switch::On)?;
                network.switch("wire", Switch::On)?;
                network.add_address("wire", format!("10.9.0.{number}/24").parse().unwrap(), Use::Both)?;
                network.add_address("wire", format!("fd09::{number}/64").parse().unwrap(), Use::Both)
            };
            host.run(up).unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
        Self { home, edge }
    }

    /// Of two hosts that reach each other already.
    pub fn of(home: Arc<Namespace>, edge: Arc<Namespace>) -> Self {
        Self { home, edge }
    }

    pub fn host(&self, end: End) -> &Namespace {
        match end {
            End::Home => &self.home,
            End::Edge => &self.edge,
        }
    }

    /// One end, which dials the other if it is told where that is.
    pub fn config(&self, end: End, backend: Backend, outer: Option<&str>) -> Config {
        config(end, backend, outer)
    }

    /// Starts an engine, and gives its interface addresses and routes.
    pub fn start(&self, end: End, config: &Config) -> Engine {
        let config = config.clone();
        let engine = self.host(end).run(move || Engine::start(&config));
        let engine = engine.unwrap_or_else(|error| panic!("{}", chain(&error)));
        self.address(end);
        engine
    }

    /// Gives the tunnel's interface its addresses and routes.
    pub fn address(&self, end: End) {
        let number = if end == End::Home { 1 } else { 2 };
        let up = move || -> Result<(), NetworkError> {
            let mut network = Network::open()?;
            network.add_address(INTERFACE, format!("10.8.0.{number}/32").parse().unwrap(), Use::Both)?;
            network.add_address(INTERFACE, format!("fd08::{number}/128").parse().unwrap(), Use::Both)?;
            for to in ["10.8.0.0/16", "fd08::/64"] {
                let route = network::Route { to: to.parse().unwrap(), via: None, source: None, mtu: Some(MTU.into()) };
                network.add_route(INTERFACE, &route)?;
            }
            Ok(())
        };
        self.host(end).run(up).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }

    /// Both ends; home dials the edge.
    pub fn connect(&self, backend: Backend, outer: &str) -> (Engine, Engine) {
        self.join([backend; 2], outer)
    }

    /// Both ends, each with a backend of its own; home, the first, dials the edge.
    pub fn join(&self, [home, edge]: [Backend; 2], outer: &str) -> (Engine, Engine) {
        let edge = self.start(End::Edge, &self.config(End::Edge, edge, None));
        let mut home = self.start(End::Home, &self.config(End::Home, home, Some(outer)));
        eventually("a handshake", || home.status().unwrap().peers[0].last_handshake.is_some());
        (home, edge)
    }
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience();
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// Sends octets by TCP and back, and compares them.
#[track_caller]
pub fn transfer(from: &Namespace, to: &Namespace, address: &str, length: usize) {
    let address: IpAddr = address.parse().unwrap();
    let listener = to.run(move || TcpListener::bind(SocketAddr::new(address, 0))).unwrap();
    let server = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(patience()))?;
        let mut received = vec![0; length];
        stream.read_exact(&mut received)?;
        stream.write_all(&received)
    });
    let stream = from.run(move || TcpStream::connect_timeout(&server, patience()));
    let mut stream = stream.unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(patience())).unwrap();
    let sent: Vec<u8> = (0..length).map(|at| (at ^ (at >> 11)) as u8).collect();
    stream.write_all(&sent).unwrap();
    let mut back = vec![0; length];
    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("{address}: {error}"));
    echo.join().unwrap().unwrap();
    assert!(back == sent, "{address}: other octets came back");
}

/// Datagrams from one host to another, one every two milliseconds.
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
}

impl Flow {
    /// Starts it; `address` is the receiver's.
    pub fn start(from: &Namespace, to: &Namespace, address: &str) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let receiver = to.run(move || UdpSocket::bind(SocketAddr::new(address, 0))).unwrap();
        let to = receiver.local_addr().unwrap();
        let sender = from.run(move || UdpSocket::bind(SocketAddr::new(unspecified(address), 0))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, ended) = (stop.clone(), stop.clone());
        let send = move || {
            let mut sent = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                sender.send_to(&sent.to_be_bytes(), to).unwrap();
                sent += 1;
                std::thread::park_timeout(Duration::from_millis(2));
            }
            sent
        };
        let receive = move || {
            receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let (mut received, mut space) = (0, [0; 16]);
            loop {
                match receiver.recv(&mut space) {
                    Ok(_) => received += 1,
                    Err(_) if ended.load(Ordering::Relaxed) => return received,
                    Err(_) => {}
                }
            }
        };
        Self { stop, sender: std::thread::spawn(send), receiver: std::thread::spawn(receive) }
    }

    /// Ends it: how many were sent, and how many of them did not arrive.
    pub fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, received) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        (sent, sent - received)
    }
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// WireGuard by somebody else, in user space: wireguard-go or boringtun.
#[derive(Clone, Debug)]
pub struct Userspace(PathBuf);

/// A process; ended when dropped.
pub struct Process(pub Child);

/// Whether a program is installed.
pub fn is_there(program: &Path) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl fmt::Display for Userspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.file_name().unwrap_or_default().to_string_lossy())
    }
}

impl Userspace {
    /// If it can run here.
    pub fn find(program: &Path) -> Option<Self> {
        (works(Backend::Tun).is_ok() && is_there(program) && is_there(Path::new("wg")))
            .then(|| Self(program.to_owned()))
    }

    /// One end, as [`config`] describes it.
    pub fn start(&self, pair: &Pair, end: End, outer: Option<&str>) -> Process {
        let text = setconf(&config(end, Backend::Tun, outer));
        let program = self.0.clone();
        let run = move || -> std::io::Result<Child> {
            std::fs::create_dir_all("/run/wireguard")?;
            let mut command = Command::new(&program);
            command
                .args(["-f", INTERFACE])
                .env("WG_PROCESS_FOREGROUND", "1")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if program.to_string_lossy().contains("boringtun") {
                command.arg("--disable-drop-privileges");
            }
            let child = command.spawn()?;
            let deadline = Instant::now() + patience();
            while !Path::new(&format!("/run/wireguard/{INTERFACE}.sock")).exists() && Instant::now() < deadline {
                std::thread::park_timeout(LOOK);
            }
            std::fs::write("/run/wg.conf", text)?;
            let status = Command::new("wg").args(["setconf", INTERFACE, "/run/wg.conf"]).status()?;
            assert!(status.success(), "wg setconf: {status}");
            Ok(child)
        };
        let process = Process(pair.host(end).run(run).unwrap());
        // A route's MTU, as others choose their interface's.
        let up = || -> Result<(), NetworkError> { Network::open()?.switch(INTERFACE, Switch::On) };
        pair.host(end).run(up).unwrap_or_else(|error| panic!("{}", chain(&error)));
        pair.address(end);
        process
    }
}

fn setconf(config: &Config) -> String {
    let secret = |secret: &Secret| base64(secret.expose().try_into().unwrap());
    let mut text = format!("[Interface]\nPrivateKey = {}\n", secret(&config.private_key));
    text.extend(config.listen_port.map(|port| format!("ListenPort = {port}\n")));
    for peer in &config.peers {
        text += &format!("[Peer]\nPublicKey = {}\n", peer.public_key);
        text.extend(peer.preshared_key.as_ref().map(|key| format!("PresharedKey = {}\n", secret(key))));
        text.extend(peer.endpoint.map(|endpoint| format!("Endpoint = {endpoint}\n")));
        text.extend(peer.keepalive.map(|keepalive| format!("PersistentKeepalive = {keepalive}\n")));
        let ips: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        text += &format!("AllowedIPs = {}\n", ips.join(", "));
    }
    text
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
