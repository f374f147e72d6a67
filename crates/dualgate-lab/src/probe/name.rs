//! Questions for the addresses of a name, by UDP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dualgate_core::model::Family;
use dualgate_host::namespace::Namespace;
use dualgate_wire::dns::{Name, RecordType, records};
use socket2::{Domain, Protocol, Socket, Type};

use super::Trouble;
use super::tcp::left;

/// What a server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The response code; 3 says that there is no such name.
    pub code: u8,
    /// Its addresses of the family that was asked for.
    pub addresses: Vec<IpAddr>,
}

/// Asks a server once for the addresses of a name.
pub fn resolve(
    from: &Namespace,
    server: SocketAddr,
    name: &str,
    of: Family,
    patience: Duration,
) -> Result<Resolved, Trouble> {
    let wire: Name = name.parse().map_err(|error| Trouble::Failed(format!("`{name}` is no name: {error}")))?;
    let until = Instant::now() + patience;
    let failed = |error: io::Error| Trouble::Failed(format!("{} cannot make a socket: {error}", from.name()));
    let domain = Domain::for_address(server);
    let socket = from.run(move || Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))).map_err(failed)?;
    // Connected to its server, the socket hears nobody else: any number will do.
    let question = question(0x4c41, &wire, of);
    exchange(&socket.into(), server, &question, until).map_err(|error| Trouble::of(&error, patience)).and_then(
        |answer| read(&answer, of).ok_or_else(|| Trouble::Broken(format!("{server} answers what cannot be read"))),
    )
}

fn rtype(of: Family) -> RecordType {
    match of {
        Family::V4 => RecordType::A,
        Family::V6 => RecordType::AAAA,
    }
}

/// With recursion desired, as a client's stub resolver asks.
fn question(id: u16, name: &Name, of: Family) -> Vec<u8> {
    let mut question = id.to_be_bytes().to_vec();
    question.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    question.extend_from_slice(name.as_wire());
    question.extend_from_slice(&rtype(of).0.to_be_bytes());
    question.extend_from_slice(&[0, 1]);
    question
}

/// What answers another question is not looked at.
fn exchange(socket: &UdpSocket, server: SocketAddr, question: &[u8], until: Instant) -> io::Result<Vec<u8>> {
    socket.connect(server)?;
    socket.send(question)?;
    let mut answer = [0; 2048];
    loop {
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left(until)))?;
        match socket.recv(&mut answer) {
            Ok(length) if length >= question.len() && answer[..2] == question[..2] => {
                if answer[12..question.len()] == question[12..] {
                    return Ok(answer[..length].to_vec());
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read(answer: &[u8], of: Family) -> Option<Resolved> {
    let mut addresses = Vec::new();
    for record in records(answer).ok()? {
        let record = record.ok()?;
        if record.section != 1 || record.rtype != rtype(of) {
            continue;
        }
        addresses.push(match of {
            Family::V4 => Ipv4Addr::from(*record.data.first_chunk::<4>()?).into(),
            Family::V6 => IpAddr::from(Ipv6Addr::from(*record.data.first_chunk::<16>()?)),
        });
    }
    addresses.sort_unstable();
    Some(Resolved { code: answer[3] & 15, addresses })
}
