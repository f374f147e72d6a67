//! One netlink socket: a message, and what the kernel answers (netlink(7)).

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

/// A socket of the network of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Of a protocol; `None` is rtnetlink.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        // The kernel answers while it is asked, so whatever is to come is there when it is read.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one message and waits until the kernel has done it; what it answered.
    pub fn ask<M>(&mut self, message: impl Into<NetlinkMessage<M>>, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + fmt::Debug,
    {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = message.into();
        // A listing ends with a word of its own. NLM_F_DUMP has two bits, one of which means something else in a change.
        let is_listing = flags & NLM_F_DUMP == NLM_F_DUMP;
        packet.header.flags = NLM_F_REQUEST | flags | if is_listing { 0 } else { NLM_F_ACK };
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut octets = vec![0; packet.buffer_len()];
        packet.serialize(&mut octets);
        sendto(&self.socket, &octets, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answers = Vec::new();
        let mut space = vec![0; 64 * 1024];
        loop {
            let (length, _) = recv(self.socket.as_fd(), &mut space[..], RecvFlags::empty()).map_err(missing)?;
            if self.read(&space[..length], &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads one datagram; whether it was the last.
    fn read<M: NetlinkDeserializable + fmt::Debug>(
        &self,
        mut datagram: &[u8],
        answers: &mut Vec<M>,
    ) -> io::Result<bool> {
        let broken = |error: netlink_packet_core::DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
        while !datagram.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(datagram).map_err(broken)?;
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                _ => {}
            }
        }
        Ok(false)
    }
}

fn missing(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer is incomplete"),
        error => error.into(),
    }
}
