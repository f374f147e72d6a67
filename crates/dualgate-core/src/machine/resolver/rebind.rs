//! Addresses that no name of the Internet should have: a web page could reach the home network through its visitor.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_wire::dns::RecordType;

use super::message::Kept;

/// Whether an answer tells an address of a private network or of the asker itself.
pub fn points_home(answer: &Kept) -> bool {
    let types = [RecordType::A, RecordType::AAAA, RecordType::SVCB, RecordType::HTTPS];
    answer.data(&types).any(|(rtype, data)| match rtype {
        RecordType::A => data.as_array().is_some_and(|octets: &[u8; 4]| is_home((*octets).into())),
        RecordType::AAAA => data.as_array().is_some_and(|octets: &[u8; 16]| is_home((*octets).into())),
        _ => hints(data).any(is_home),
    })
}

/// The addresses of an HTTPS or SVCB record (RFC 9460 2.2, 7.3).
fn hints(data: &[u8]) -> impl Iterator<Item = IpAddr> {
    let mut rest = data.get(2..).and_then(target_end).unwrap_or_default();
    let parameters = std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<4>()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        rest = after;
        Some((u16::from_be_bytes([head[0], head[1]]), value))
    });
    parameters.flat_map(|(key, value)| {
        let (v4, v6) = (if key == 4 { value } else { &[] }, if key == 6 { value } else { &[] });
        let v4 = v4.as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets));
        v4.chain(v6.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets)))
    })
}

/// What follows the target's name, which is never compressed.
fn target_end(mut data: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = data.split_first()?;
        if *length == 0 {
            return Some(rest);
        }
        data = rest.get(usize::from(*length)..)?;
    }
}

fn is_home(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_home_v4(address),
        IpAddr::V6(address) => is_home_v6(address),
    }
}

fn is_home_v4(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_loopback() || address.is_link_local() || address.octets()[0] == 0
}

fn is_home_v6(address: Ipv6Addr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_unique_local() || address.is_unicast_link_local()
}
