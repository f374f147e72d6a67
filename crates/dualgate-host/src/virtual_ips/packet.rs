//! Whole frames of one interface: ARP, and what an IPv6 filter lets through.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dualgate_wire::bpf::Instruction;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

/// What is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ARP (RFC 826).
    Arp,
    /// IPv6 (RFC 2464).
    Ipv6,
}

impl Protocol {
    const fn number(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86dd,
        }
    }
}

/// A packet socket (packet(7)). It sees nothing that this host sends, as it is bound to one protocol.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Receives what of `protocol` comes in at the interface with this index and passes the filter.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or if there is no such interface.
    pub fn open(index: u32, protocol: Protocol, filter: &[Instruction]) -> io::Result<Self> {
        // Of no protocol: nothing comes before it is bound, and so nothing unfiltered.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        let of = |one: &Instruction| SockFilter::new(one.code, one.jt, one.jf, one.k);
        socket.attach_filter(&filter.iter().map(of).collect::<Vec<_>>())?;
        socket.bind(&address(index, protocol)?)?;
        Ok(Self(socket))
    }

    /// The next frame that waits. An interface that is switched off is no error: it may come back.
    pub fn receive<'a>(&self, space: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match recv(&self.0, &mut *space, RecvFlags::empty()) {
            Ok((length, _)) => Ok(Some(&space[..length])),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NETDOWN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(send(&self.0, frame, SendFlags::empty()).map(drop)?)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[expect(unsafe_code, reason = "no library makes the address of a packet socket")]
fn address(index: u32, protocol: Protocol) -> io::Result<SockAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.number().to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: a `sockaddr_ll` fits into a `sockaddr_storage`, and the length says how much of it is written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}
