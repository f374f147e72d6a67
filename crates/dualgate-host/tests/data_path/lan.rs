//! Hosts on one LAN, with an announcer for two virtual IPs that answers on whichever host is told to hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_host::network::{End, Network, Switch, Use};
use dualgate_host::virtual_ips::data_path::{Change, DataPath, DataPathError, Kernel};
use dualgate_host::virtual_ips::packet::{PacketSocket, Protocol};
use dualgate_wire::arp::{self, Operation};
use dualgate_wire::bpf::Instruction;
use dualgate_wire::ethernet::{EtherType, Header, Mac};
use dualgate_wire::ndp::{self, Advertisement, Flags, Message};
use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_ip_freebind, set_ipv6_freebind, set_ipv6_v6only};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socket_with};

/// The virtual IPs.
pub const V4: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 100);
pub const V6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 0x100);
pub const BOTH: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];
/// Each host's interface on the LAN.
pub const LAN: &str = "lan";
pub const PORT: u16 = 80;
/// Nothing takes so long that goes well.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);
const NOBODY: usize = usize::MAX;

/// A switch, and what is plugged into it.
pub struct Lan {
    pub hosts: Vec<Host>,
    _switch: Namespace,
    holder: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

/// A machine.
pub struct Host {
    pub namespace: Namespace,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    pub mac: Mac,
    kernel: Arc<Mutex<Option<Kernel>>>,
    frames: Arc<Frames>,
    hears: OwnedFd,
    speaks: Arc<PacketSocket>,
}

/// What came and went, as far as it was read.
#[derive(Default)]
struct Frames {
    read: Mutex<Vec<Vec<u8>>>,
    /// How often somebody wanted to know, and for which of these times all that had come was read.
    asked: AtomicUsize,
    complete: AtomicUsize,
}

impl Lan {
    /// Hosts with these names.
    pub fn new(names: &[&str]) -> Self {
        let switch = Namespace::new("switch", || Ok(())).expect("a switch");
        switch.run(|| {
            Network::open().and_then(|mut network| network.add_bridge("lan", None)).expect("a bridge");
        });
        let holder = Arc::new(AtomicUsize::new(NOBODY));
        let ends = Arc::new(AtomicBool::new(false));
        let hosts: Vec<Host> = names.iter().enumerate().map(|(at, name)| Host::new(&switch, at, name)).collect();
        for (at, host) in hosts.iter().enumerate() {
            let (holder, ends, frames, mac) = (holder.clone(), ends.clone(), host.frames.clone(), host.mac);
            let (hears, speaks) = (host.hears.try_clone().expect("a descriptor"), host.speaks.clone());
            std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let asked = frames.asked.load(Ordering::SeqCst);
                    let Some(frame) = next(&hears) else {
                        frames.complete.store(asked, Ordering::SeqCst);
                        continue;
                    };
                    if holder.load(Ordering::SeqCst) == at {
                        answer(&frame, mac).into_iter().for_each(|answer| transmit(&speaks, &answer));
                    }
                    frames.read.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
                }
            });
        }
        Self { hosts, _switch: switch, holder, ends }
    }

    /// Gives the addresses to this host, which says so.
    pub fn hold(&self, at: usize) {
        self.holder.store(at, Ordering::SeqCst);
        let host = &self.hosts[at];
        claims(host.mac).iter().for_each(|frame| transmit(&host.speaks, frame));
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

impl Host {
    fn new(switch: &Namespace, at: usize, name: &str) -> Self {
        let last = u8::try_from(at).expect("few hosts") + 10;
        let (v4, v6) = (Ipv4Addr::new(192, 168, 7, last), Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, last.into()));
        let mac = [2, 0, 0, 0, 0, last];
        let namespace = Namespace::new(name, || Ok(())).expect("a host");
        let network = namespace.network().try_clone_to_owned().expect("a descriptor");
        let port = format!("port{at}");
        switch.run(move || {
            let mut here = Network::open().expect("rtnetlink");
            let own = dualgate_host::namespace::current_network().expect("this network");
            let end = |name, mac, namespace| End { name, mac, mtu: 1500, namespace };
            let cable = [&end(&port, None, own.as_fd()), &end(LAN, Some(mac), network.as_fd())];
            here.add_veth(cable).expect("a cable");
            here.plug(&port, "lan").expect("a port");
            here.switch(&port, Switch::On).expect("a port");
        });
        let (hears, speaks) = namespace.run(move || {
            let mut network = Network::open().expect("rtnetlink");
            network.switch("lo", Switch::On).expect("lo");
            network.add_address(LAN, net(v4.into(), 24), Use::Both).expect("an address");
            network.add_address(LAN, net(v6.into(), 64), Use::Both).expect("an address");
            network.switch(LAN, Switch::On).expect("a cable");
            (frames(), Arc::new(speaker()))
        });
        let (kernel, frames) = (Arc::new(Mutex::new(None)), Arc::new(Frames::default()));
        Self { namespace, v4, v6, mac: mac.into(), kernel, frames, hears, speaks }
    }

    pub fn own(&self, to: IpAddr) -> IpAddr {
        if to.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }

    /// What a node does that may hold the addresses.
    pub fn path(&self) -> DataPath {
        DataPath {
            local: BOTH.into(),
            silent: BTreeSet::from([V4]),
            own: BTreeMap::from([(LAN.to_owned(), self.v4)]),
            ..DataPath::default()
        }
    }

    /// The same, with the flows that are open at another.
    pub fn path_after(&self, former: &Self) -> DataPath {
        DataPath { relays: BOTH.map(|address| (address, former.own(address))).into(), ..self.path() }
    }

    pub fn converge(&self, path: DataPath) -> Result<Vec<Change>, DataPathError> {
        let kernel = self.kernel.clone();
        self.namespace.run(move || {
            let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
            let kernel = match &mut *kernel {
                Some(kernel) => kernel,
                none => none.insert(Kernel::open()?),
            };
            kernel.converge(&path)
        })
    }

    pub fn set(&self, setting: &'static str, value: &'static str) {
        let path = format!("/proc/sys/net/{setting}");
        self.namespace.run(move || std::fs::write(path, value)).unwrap_or_else(|error| panic!("{setting}: {error}"));
    }

    /// All frames that it has seen since it was asked last.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        let asked = self.frames.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let begin = Instant::now();
        while self.frames.complete.load(Ordering::SeqCst) < asked {
            assert!(begin.elapsed() < PATIENCE, "frames come faster than they are read");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        std::mem::take(&mut *self.frames.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves the virtual IPs: see [`serve_one`].
    pub fn serve(&self, name: u8) {
        for address in BOTH {
            self.serve_at((address, PORT).into(), name);
        }
    }

    pub fn serve_at(&self, at: SocketAddr, name: u8) {
        let listener = self.namespace.run(move || listener(at));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                std::thread::spawn(move || serve_one(stream, name));
            }
        });
    }

    pub fn connect(&self, to: IpAddr) -> std::io::Result<TcpStream> {
        self.connect_within(to, PATIENCE)
    }

    /// The same from this port.
    pub fn connect_from(&self, port: u16, to: IpAddr) -> std::io::Result<TcpStream> {
        let (own, family) = (self.own(to), if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 });
        let stream = self.namespace.run(move || -> std::io::Result<TcpStream> {
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &SocketAddr::new(own, port))?;
            rustix::net::connect(&socket, &SocketAddr::new(to, PORT))?;
            Ok(socket.into())
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub fn connect_within(&self, to: IpAddr, patience: Duration) -> std::io::Result<TcpStream> {
        let stream = self.namespace.run(move || TcpStream::connect_timeout(&(to, PORT).into(), patience))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

pub fn net(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new(address, bits).expect("a prefix")
}

fn listener(at: SocketAddr) -> TcpListener {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    match at {
        SocketAddr::V4(_) => set_ip_freebind(&socket, true).expect("free"),
        SocketAddr::V6(_) => {
            set_ipv6_v6only(&socket, true).expect("IPv6");
            set_ipv6_freebind(&socket, true).expect("free");
        }
    }
    rustix::net::bind(&socket, &at).expect("an address");
    rustix::net::listen(&socket, 64).expect("a listener");
    socket.into()
}

pub const ECHO: u8 = b'E';
pub const DOWNLOAD: u8 = b'D';
pub const UPLOAD: u8 = b'U';
pub const END: u8 = b'.';
/// How many octets are loaded down.
pub const SIZE: usize = 24 << 20;
/// How many of them at a time, with a pause after each, so that a download takes a while.
const PIECE: usize = 64 << 10;

/// What the first octet asks for. [`ECHO`]: each further octet comes back with the server's name before it, and an end
/// with an end. [`DOWNLOAD`]: [`SIZE`] octets. [`UPLOAD`]: how many octets came until the end. [`END`]: the server ends it.
fn serve_one(mut stream: TcpStream, name: u8) {
    let mut octet = [0];
    if stream.read_exact(&mut octet).is_err() {
        return;
    }
    match octet[0] {
        ECHO => while stream.read_exact(&mut octet).is_ok() && stream.write_all(&[name, octet[0]]).is_ok() {},
        DOWNLOAD => {
            for piece in 0..SIZE / PIECE {
                let octets = vec![u8::try_from(piece % 251).unwrap_or_default(); PIECE];
                if stream.write_all(&octets).is_err() {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(3));
            }
        }
        UPLOAD => {
            let count = std::io::copy(&mut stream, &mut std::io::sink());
            let count = count.map_or(u64::MAX, |count| count);
            // A client that is gone is seen by the client.
            let _ = stream.write_all(&count.to_be_bytes());
        }
        END => {}
        other => panic!("asked for {other}"),
    }
}

/// A connection that says who serves it.
pub struct Echo(TcpStream);

impl Echo {
    pub fn new(mut stream: TcpStream) -> Self {
        stream.write_all(&[ECHO]).expect("ask");
        Self(stream)
    }

    /// Who answers.
    pub fn ask(&mut self) -> std::io::Result<u8> {
        self.0.write_all(b"?")?;
        let mut answer = [0; 2];
        self.0.read_exact(&mut answer)?;
        assert_eq!(answer[1], b'?');
        Ok(answer[0])
    }

    /// Ends it, and sees the other end do so.
    pub fn end(mut self) {
        self.0.shutdown(Shutdown::Write).expect("an end");
        assert_eq!(self.0.read(&mut [0]).expect("the other end"), 0);
    }
}

/// Loads down on a thread of its own; how many octets came, each of which was right.
pub fn download(mut stream: TcpStream) -> std::thread::JoinHandle<std::io::Result<usize>> {
    stream.write_all(&[DOWNLOAD]).expect("ask");
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        let mut count = 0;
        loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Ok(count);
            }
            for (at, octet) in buffer[..length].iter().enumerate() {
                assert_eq!(usize::from(*octet), (count + at) / PIECE % 251);
            }
            count += length;
        }
    })
}

/// Loads up for this long; how many octets went, and how many the server counted.
pub fn upload(mut stream: TcpStream, pieces: usize) -> std::thread::JoinHandle<std::io::Result<(u64, u64)>> {
    stream.write_all(&[UPLOAD]).expect("ask");
    std::thread::spawn(move || {
        for _ in 0..pieces {
            stream.write_all(&[7; PIECE])?;
            std::thread::park_timeout(Duration::from_millis(3));
        }
        stream.shutdown(Shutdown::Write)?;
        let mut count = [0; 8];
        stream.read_exact(&mut count)?;
        Ok(((pieces * PIECE) as u64, u64::from_be_bytes(count)))
    })
}

pub fn is_reset(outcome: std::io::Result<u8>) -> bool {
    outcome.is_err_and(|error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// Every frame of the host, in and out, but those of `speaker`.
fn frames() -> OwnedFd {
    let all = rustix::net::Protocol::from_raw(u32::from(3_u16.to_be()).try_into().expect("not zero"));
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(all)).expect("a packet socket")
}

/// Says what it is told to on the LAN. What it hears is nothing to it.
fn speaker() -> PacketSocket {
    let index = Network::open().and_then(|mut network| network.interface(LAN)).expect("the interface").index;
    let nothing = Instruction { code: 6, jt: 0, jf: 0, k: 0 };
    PacketSocket::open(index, Protocol::Arp, &[nothing]).expect("a packet socket")
}

fn next(socket: &OwnedFd) -> Option<Vec<u8>> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)).ok()?;
    // Heads are enough.
    let mut frame = vec![0; 256];
    let (length, _) = recv(socket, &mut *frame, RecvFlags::empty()).ok()?;
    frame.truncate(length);
    Some(frame)
}

fn transmit(socket: &PacketSocket, frame: &[u8]) {
    match socket.send(frame) {
        Ok(()) => {}
        // A host whose cable is unplugged says nothing.
        Err(error) if error.kind() == ErrorKind::NetworkDown => {}
        Err(error) => panic!("a frame does not go out: {error}"),
    }
}

fn answer(frame: &[u8], mac: Mac) -> Option<Vec<u8>> {
    let (header, body) = Header::parse(frame).ok()?;
    if header.source == mac {
        return None;
    }
    match header.ether_type {
        EtherType::Arp => {
            let asked = arp::Packet::parse(body).ok()?;
            (asked.operation == Operation::Request && asked.target == V4).then(|| {
                let (operation, target_mac, target) = (Operation::Reply, asked.sender_mac, asked.sender);
                let reply = arp::Packet { operation, sender_mac: mac, sender: V4, target_mac, target };
                of_arp(header.source, mac, reply)
            })
        }
        EtherType::Ipv6 => {
            let packet = ndp::Packet::parse(body).ok()?;
            let Message::Solicitation(asked) = packet.message else { return None };
            (asked.target == V6).then(|| of_ndp(header.source, mac, packet.source, true))
        }
        _ => None,
    }
}

fn claims(mac: Mac) -> [Vec<u8>; 2] {
    let (operation, sender, target) = (Operation::Request, V4, V4);
    let claim = arp::Packet { operation, sender_mac: mac, sender, target_mac: Mac::ZERO, target };
    [of_arp(Mac::BROADCAST, mac, claim), of_ndp(Mac::of_group(ndp::ALL_NODES), mac, ndp::ALL_NODES, false)]
}

fn of_arp(destination: Mac, source: Mac, packet: arp::Packet) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination, source, ether_type: EtherType::Arp }.emit(&mut frame);
    packet.emit(&mut frame);
    frame
}

fn of_ndp(destination: Mac, source: Mac, to: Ipv6Addr, solicited: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    Header { destination, source, ether_type: EtherType::Ipv6 }.emit(&mut frame);
    let flags = Flags { router: false, solicited, overriding: true };
    let message = Message::Advertisement(Advertisement { target: V6, flags, target_link: Some(source) });
    ndp::Packet { source: V6, destination: to, message }.emit(&mut frame);
    frame
}
