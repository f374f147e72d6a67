//! Has connection tracking forget flows that are over, so that what comes with their ends is judged anew.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use dualgate_wire::conntrack::{Answer, Ended, Family, answers, forget, list};
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

/// Longer than any datagram of a listing.
const DATAGRAM: usize = 64 << 10;

/// Forgets the ended flows to these addresses, in the network of the calling thread.
///
/// # Errors
///
/// If the kernel does not list flows, or refuses to forget one that is there.
pub(super) fn forget_ended(addresses: &BTreeSet<IpAddr>) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    for (family, is_v4) in [(Family::V4, true), (Family::V6, false)] {
        if !addresses.iter().any(|address| address.is_ipv4() == is_v4) {
            continue;
        }
        for flow in ended(&socket, family)?.iter().filter(|flow| addresses.contains(&flow.to)) {
            ask(&socket, &forget(family, flow), |_| {}).or_else(|error| match Errno::from_io_error(&error) {
                // Its time was over meanwhile.
                Some(Errno::NOENT) => Ok(()),
                Some(_) | None => Err(error),
            })?;
        }
    }
    Ok(())
}

fn ended(socket: &OwnedFd, family: Family) -> io::Result<Vec<Ended>> {
    let mut ended = Vec::new();
    ask(socket, &list(family), |flow| ended.push(flow))?;
    Ok(ended)
}

/// Sends a request and takes all of its answer, which is there once the request has been sent: the kernel goes on with a
/// listing whenever a part of it is taken.
fn ask(socket: &OwnedFd, request: &[u8], mut take: impl FnMut(Ended)) -> io::Result<()> {
    sendto(socket, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (length, _) = match recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for answer in answers(buffer.get(..length).unwrap_or_default()) {
            match answer {
                Answer::Ended(flow) => take(flow),
                Answer::Done => return Ok(()),
                Answer::Refused { errno } => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}
