//! What the stations of a switch say of addresses: every frame of ARP and of Neighbour Discovery's two messages, in the order
//! in which the kernel saw them.
//!
//! A frame is taken where it enters the switch: what a host sends is seen once, whoever it is for, and what a host does not
//! send is not seen. So "nobody answered" and "two answered" can be told from a capture; from a client's view they cannot.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dualgate_host::namespace::Namespace;
use dualgate_host::network::Network;
use dualgate_wire::arp::{self, Operation};
use dualgate_wire::bpf::{AUXILIARY, EQUALS, LOAD_HALF, LOAD_OCTET, LOAD_WORD, PACKET_TYPE, RETURN};
pub use dualgate_wire::ethernet::Mac;
use dualgate_wire::ethernet::{EtherType, Header};
use dualgate_wire::ndp::{self, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// The bridge of a host that is a switch.
const BRIDGE: &str = "br0";
/// Every protocol (ETH_P_ALL).
const ALL: u16 = 0x0003;
/// A frame that this host sends (PACKET_OUTGOING).
const OUTGOING: u32 = 4;
/// Where it came in (SKF_AD_IFINDEX).
const INTERFACE: u32 = AUXILIARY + 8;
/// More than any frame that is kept.
const SPACE: usize = 2048;
/// The most that is kept; older ones go.
const MOST: usize = 200_000;
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// A frame that a station sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When it was read: on a busy machine a little later than it was sent.
    pub at: Instant,
    /// Who sent it, and to whom.
    pub header: Header,
    /// What it says.
    pub body: Said,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// ARP.
    Arp(arp::Packet),
    /// Neighbour Discovery.
    Ndp(ndp::Packet),
}

/// In which way a station says that an address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// It answers a question.
    Answer,
    /// It tells all, unasked: ARP's request form, sender and target alike.
    Request,
    /// It tells all, unasked: ARP's reply form.
    Reply,
    /// It tells all nodes (ff02::1), overriding what they know.
    AllNodes,
    /// It tells all routers (ff02::2), overriding what they know.
    AllRouters,
    /// It tells a group without overriding, or in another way that no announcement should have.
    Weak,
}

impl Frame {
    fn parse(octets: &[u8], at: Instant) -> Option<Self> {
        let (header, body) = Header::parse(octets).ok()?;
        let body = match header.ether_type {
            EtherType::Arp => Said::Arp(arp::Packet::parse(body).ok()?),
            EtherType::Ipv6 => Said::Ndp(ndp::Packet::parse(body).ok()?),
            EtherType::Other(_) => return None,
        };
        Some(Self { at, header, body })
    }

    /// Whose station says that it has which address, and how.
    pub fn claim(&self) -> Option<(IpAddr, Mac, Claim)> {
        match &self.body {
            Said::Arp(packet) if packet.sender.is_unspecified() => None,
            Said::Arp(packet) => {
                let how = match (packet.operation, packet.sender == packet.target) {
                    (Operation::Request, true) => Claim::Request,
                    (Operation::Reply, true) => Claim::Reply,
                    (Operation::Reply, false) => Claim::Answer,
                    // Who asks for another address says where it is itself, too.
                    (Operation::Request, false) => Claim::Weak,
                };
                Some((packet.sender.into(), packet.sender_mac, how))
            }
            Said::Ndp(packet) => {
                let Message::Advertisement(said) = packet.message else { return None };
                let how = match (packet.destination, said.flags.overriding) {
                    (ndp::ALL_NODES, true) => Claim::AllNodes,
                    (ndp::ALL_ROUTERS, true) => Claim::AllRouters,
                    (to, _) if !to.is_multicast() && said.flags.solicited => Claim::Answer,
                    _ => Claim::Weak,
                };
                Some((said.target.into(), said.target_link.unwrap_or(self.header.source), how))
            }
        }
    }

    /// The address that is asked for.
    pub fn question(&self) -> Option<IpAddr> {
        match &self.body {
            Said::Arp(packet) => {
                let asks = packet.operation == Operation::Request && packet.sender != packet.target;
                asks.then(|| packet.target.into())
            }
            Said::Ndp(packet) => match packet.message {
                Message::Solicitation(asked) => Some(asked.target.into()),
                Message::Advertisement(_) => None,
            },
        }
    }
}

/// The stations that claimed an address, in the order in which they came to it: one that comes twice had lost it between.
pub fn owners(frames: &[Frame], address: IpAddr) -> Vec<Mac> {
    let claims = frames.iter().filter_map(Frame::claim).filter(|(claimed, ..)| *claimed == address);
    let mut owners: Vec<Mac> = claims.map(|(_, mac, _)| mac).collect();
    owners.dedup();
    owners
}

/// A capture at work. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    frames: Arc<Mutex<VecDeque<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Begins at every port of a host that is a switch.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW there, or if it has no bridge.
    pub fn start(switch: &Namespace) -> io::Result<Self> {
        let socket = switch.run(open)?;
        let (frames, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let (kept, ended) = (frames.clone(), stop.clone());
        let take = move || {
            while !ended.load(Ordering::Relaxed) {
                let ready = poll(&mut [PollFd::new(&socket.as_fd(), PollFlags::IN)], Some(&LOOK));
                if ready.is_ok_and(|ready| ready > 0) {
                    receive(&socket, &kept);
                }
            }
            receive(&socket, &kept);
        };
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(take)?;
        Ok(Self { frames, stop, thread: Some(thread) })
    }

    /// What was seen since the start, or since frames were taken last.
    pub fn take(&self) -> Vec<Frame> {
        std::mem::take(&mut *lock(&self.frames)).into()
    }

    /// The same, which stays.
    pub fn so_far(&self) -> Vec<Frame> {
        lock(&self.frames).iter().copied().collect()
    }

    /// Waits until a frame is as it should be, and says which one; `None` if there is none within the time.
    pub fn wait(&self, limit: Duration, is_it: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let deadline = Instant::now() + limit;
        loop {
            let found = lock(&self.frames).iter().find(|frame| is_it(frame)).copied();
            if found.is_some() || Instant::now() >= deadline {
                return found;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic: nothing in it can.
            let _ = thread.join();
        }
    }
}

fn lock(frames: &Mutex<VecDeque<Frame>>) -> MutexGuard<'_, VecDeque<Frame>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket for all interfaces of a host that keeps what comes in at its bridge's ports.
fn open() -> io::Result<Socket> {
    let bridge = Network::open().and_then(|mut network| network.interface(BRIDGE));
    let bridge = bridge.map_err(|error| io::Error::new(error.source.kind(), error.to_string()))?;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ALL.to_be()))))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.attach_filter(&filter(bridge.index))?;
    // What came before the filter was there.
    let mut space = [0; SPACE];
    while recv(&socket, &mut space[..], RecvFlags::empty()).is_ok() {}
    Ok(socket)
}

/// Passes ARP, Neighbour Solicitations and Advertisements: no frame that is sent here, and none a second time as the
/// bridge's own.
fn filter(bridge: u32) -> Vec<SockFilter> {
    let load = |code: u16, k: u32| SockFilter::new(code, 0, 0, k);
    let when = |value: u32, jt: u8, jf: u8| SockFilter::new(EQUALS, jt, jf, value);
    vec![
        load(LOAD_OCTET, PACKET_TYPE),
        when(OUTGOING, 11, 0),
        load(LOAD_WORD, INTERFACE),
        when(bridge, 9, 0),
        load(LOAD_HALF, 12),
        when(0x0806, 6, 0),
        when(0x86dd, 0, 6),
        load(LOAD_OCTET, 20),
        when(58, 0, 4),
        load(LOAD_OCTET, 54),
        when(135, 1, 0),
        when(136, 0, 1),
        SockFilter::new(RETURN, 0, 0, 0xffff),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn receive(socket: &Socket, kept: &Mutex<VecDeque<Frame>>) {
    let mut space = [0; SPACE];
    while let Ok((length, _)) = recv(socket, &mut space[..], RecvFlags::empty()) {
        let Some(frame) = Frame::parse(&space[..length], Instant::now()) else { continue };
        let mut frames = lock(kept);
        if frames.len() == MOST {
            frames.pop_front();
        }
        frames.push_back(frame);
    }
}
