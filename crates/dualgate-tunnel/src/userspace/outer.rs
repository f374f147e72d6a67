//! The UDP sockets of the tunnel, one for each family: many datagrams in one system call, both ways (udp(7), UDP_SEGMENT and
//! UDP_GRO), and answers leave from the address that was spoken to.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, MaybeUninitSlice, MsgHdr, MsgHdrMut, Protocol, SockAddr, Socket, Type};

use super::control::{Control, Note};
use super::option;

/// The kernel takes so many datagrams at once.
const MOST: usize = 64;
/// Octets of all datagrams of one call.
const LARGEST: usize = 65_000;
/// One receive call brings at most so much.
const RECEIVE: usize = 65_536;
/// Buffers in the kernel; it gives what it allows.
const BUFFER: usize = 4 << 20;
/// How long a full send buffer may stay full before datagrams are dropped.
const FULL: Duration = Duration::from_millis(20);
/// With port 0, both families are to get the same.
const ATTEMPTS: usize = 16;

/// Where a peer is, and which of our addresses it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Our address that it spoke to; `None` leaves it to the routes.
    pub source: Option<IpAddr>,
}

/// What one call brought: datagrams of `segment` octets, of which the last may be shorter.
#[derive(Debug)]
pub struct Received {
    /// From whom.
    pub from: Endpoint,
    /// The datagrams, one behind the other.
    pub octets: BytesMut,
    /// Octets of each.
    pub segment: usize,
}

/// The sockets.
#[derive(Debug)]
pub struct Outer {
    sockets: Vec<Family>,
    port: u16,
}

#[derive(Debug)]
struct Family {
    socket: Socket,
    is_v4: bool,
    /// Whether the kernel cuts for us on the way that datagrams take.
    segments: bool,
    space: BytesMut,
}

impl Outer {
    /// Binds to a port of all addresses, or to any port. A host without IPv6 gets IPv4 alone, and the other way round.
    pub fn bind(port: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            match Self::try_bind(port) {
                Ok(outer) => return Ok(outer),
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn try_bind(port: u16) -> io::Result<Self> {
        let v6 = match Family::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(v6) => Some(v6),
            Err(error) if absent(&error) => None,
            Err(error) => return Err(error),
        };
        let port = v6.as_ref().map_or(Ok(port), Family::port)?;
        let v4 = match Family::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
            Err(error) if absent(&error) && v6.is_some() => None,
            bound => Some(bound?),
        };
        let port = v4.as_ref().map_or(Ok(port), Family::port)?;
        Ok(Self { sockets: v6.into_iter().chain(v4).collect(), port })
    }

    /// The port of both.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The sockets, to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|family| family.socket.as_fd())
    }

    /// How many sockets there are.
    pub fn count(&self) -> usize {
        self.sockets.len()
    }

    /// Receives from one of the sockets; `None` if nothing waits there.
    pub fn receive(&mut self, socket: usize) -> io::Result<Option<Received>> {
        self.sockets[socket].receive()
    }

    /// Sends datagrams to one endpoint, in order. A source address that is no longer ours is forgotten.
    pub fn send(&mut self, to: &mut Endpoint, datagrams: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let family = self.sockets.iter_mut().find(|family| family.is_v4 == to.address.is_ipv4());
        let family = family.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let mut rest = datagrams;
        while !rest.is_empty() {
            let (run, behind) = rest.split_at(run(rest));
            family.send_run(to, run)?;
            rest = behind;
        }
        Ok(())
    }
}

/// How many datagrams from the first on may go in one call: as long as the first, and one shorter.
fn run(datagrams: &[impl AsRef<[u8]>]) -> usize {
    let size = datagrams[0].as_ref().len();
    let (mut count, mut octets) = (0, 0);
    for datagram in datagrams.iter().take(MOST) {
        let length = datagram.as_ref().len();
        octets += length;
        if length > size || (octets > LARGEST && count > 0) {
            break;
        }
        count += 1;
        if length < size {
            break;
        }
    }
    count
}

fn absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

impl Family {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let is_v4 = address.is_ipv4();
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if !is_v4 {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        option::buffers(socket.as_fd(), BUFFER);
        let (level, pktinfo, discover, never) = if is_v4 {
            (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
        };
        option::set(socket.as_fd(), level, pktinfo, 1)?;
        // As the kernel's WireGuard: nobody's ICMP makes the tunnel narrower, the interface's MTU is what counts.
        option::set(socket.as_fd(), level, discover, never)?;
        // Linux 5.0; without it, each datagram comes alone.
        let _ = option::set(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        Ok(Self { socket, is_v4, segments: true, space: BytesMut::new() })
    }

    fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.as_socket().map_or(0, |address| address.port()))
    }

    fn receive(&mut self) -> io::Result<Option<Received>> {
        // The allocation comes back when all that was received before has gone. It is large, so that many small datagrams
        // find room in one.
        if self.space.capacity() < RECEIVE {
            self.space.reserve(4 * RECEIVE);
        }
        let mut control = [MaybeUninit::new(0_u8); Control::SIZE];
        let mut from = SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let (length, notes) = {
            let mut buffers = [MaybeUninitSlice::new(&mut self.space.spare_capacity_mut()[..RECEIVE])];
            let mut message =
                MsgHdrMut::new().with_addr(&mut from).with_buffers(&mut buffers).with_control(&mut control);
            let length = match self.socket.recvmsg(&mut message, 0) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            };
            (length, message.control_len())
        };
        let octets = self.take(length);
        let mut received = Received {
            from: Endpoint { address: from.as_socket().ok_or(io::ErrorKind::InvalidData)?, source: None },
            segment: length.max(1),
            octets,
        };
        for note in Control::read(&control[..notes]) {
            match note {
                Note::Segment(size) => received.segment = size.max(1),
                Note::Local(address) => received.from.source = Some(address),
            }
        }
        Ok(Some(received))
    }

    #[expect(unsafe_code, reason = "the kernel wrote into spare capacity")]
    fn take(&mut self, length: usize) -> BytesMut {
        debug_assert!(self.space.is_empty() && length <= self.space.capacity());
        // SAFETY: `recvmsg` has written the first `length` octets of the spare capacity, and never says more than it was
        // given.
        unsafe { self.space.set_len(length) };
        self.space.split()
    }

    fn send_run(&mut self, to: &mut Endpoint, run: &[impl AsRef<[u8]>]) -> io::Result<()> {
        if run.len() > 1 && self.segments {
            match self.send_call(to, run) {
                Err(error) if refuses_segments(&error) => {
                    tracing::info!(%error, to = %to.address, "datagrams go one by one: the kernel does not cut them here");
                    self.segments = error.raw_os_error() != Some(libc::EIO);
                }
                sent => return sent,
            }
        }
        run.iter().try_for_each(|datagram| self.send_call(to, std::slice::from_ref(datagram)))
    }

    /// One call, repeated without the source address if that is no longer ours, and when there is room again.
    fn send_call(&self, to: &mut Endpoint, run: &[impl AsRef<[u8]>]) -> io::Result<()> {
        loop {
            match self.send_once(to, run) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room()?,
                Err(error) if to.source.is_some() && not_ours(&error) => to.source = None,
                outcome => return outcome,
            }
        }
    }

    fn send_once(&self, to: &Endpoint, run: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut control = Control::default();
        if let Some(source) = to.source {
            control.push_source(source);
        }
        if run.len() > 1 {
            control.push_segment(run[0].as_ref().len() as u16);
        }
        let mut parts = [IoSlice::new(&[]); MOST];
        for (part, datagram) in parts.iter_mut().zip(run) {
            *part = IoSlice::new(datagram.as_ref());
        }
        let address = SockAddr::from(to.address);
        let message = MsgHdr::new().with_addr(&address).with_buffers(&parts[..run.len()]);
        let message = if control.is_empty() { message } else { message.with_control(control.octets()) };
        self.socket.sendmsg(&message, 0).map(drop)
    }

    fn wait_for_room(&self) -> io::Result<()> {
        let patience = Timespec::try_from(FULL).map_err(io::Error::other)?;
        let ready = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&patience))?;
        if ready == 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

/// EIO: the interface cannot make checksums. EINVAL, EMSGSIZE: one datagram is larger than the path.
fn refuses_segments(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE))
}

fn not_ours(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EHOSTUNREACH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(lengths: &[usize]) -> Vec<Vec<u8>> {
        lengths.iter().map(|length| vec![0; *length]).collect()
    }

    #[test]
    fn a_run_is_of_one_length_and_may_end_with_a_shorter_one() {
        assert_eq!(run(&lengths(&[96])), 1);
        assert_eq!(run(&lengths(&[1424, 1424, 90, 1424])), 3);
        assert_eq!(run(&lengths(&[90, 1424, 1424])), 1);
        assert_eq!(run(&lengths(&[96; 200])), MOST);
        assert_eq!(run(&lengths(&[1424; 60])), 45);
        assert_eq!(run(&lengths(&[65_100, 65_100])), 1);
    }

    fn pair() -> (Outer, Outer) {
        (Outer::bind(0).unwrap(), Outer::bind(0).unwrap())
    }

    fn drain(outer: &mut Outer) -> Vec<(SocketAddr, Option<IpAddr>, Vec<Vec<u8>>)> {
        let mut all = Vec::new();
        for socket in 0..outer.count() {
            while let Some(received) = outer.receive(socket).unwrap() {
                let datagrams = received.octets.chunks(received.segment).map(<[u8]>::to_vec).collect();
                all.push((received.from.address, received.from.source, datagrams));
            }
        }
        all
    }

    #[test]
    fn datagrams_arrive_as_they_were_sent_in_both_families() {
        let (mut one, mut other) = pair();
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let mut to = Endpoint { address: SocketAddr::new(address, other.port()), source: Some(address) };
            let sent: Vec<Vec<u8>> = (0..50_u8).map(|n| vec![n; if n == 49 { 33 } else { 1424 }]).collect();
            one.send(&mut to, &sent).unwrap();
            let received = drain(&mut other);
            let datagrams: Vec<Vec<u8>> = received.iter().flat_map(|(_, _, datagrams)| datagrams.clone()).collect();
            assert_eq!(datagrams, sent, "{address}");
            assert!(received.iter().all(|(from, _, _)| *from == SocketAddr::new(address, one.port())));
            assert!(received.iter().all(|(_, local, _)| *local == Some(address)));
            // Loopback hands a run over whole.
            assert!(received.len() < 5, "{} calls", received.len());
        }
    }

    #[test]
    fn a_source_address_that_is_not_ours_is_forgotten() {
        let (mut one, mut other) = pair();
        for (address, foreign) in [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")] {
            let address = SocketAddr::new(address.parse().unwrap(), other.port());
            let mut to = Endpoint { address, source: Some(foreign.parse().unwrap()) };
            one.send(&mut to, &lengths(&[20, 20])).unwrap();
            assert_eq!(to.source, None);
            assert_eq!(drain(&mut other).iter().map(|(_, _, datagrams)| datagrams.len()).sum::<usize>(), 2);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let one = Outer::bind(0).unwrap();
        assert_eq!(Outer::bind(one.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
