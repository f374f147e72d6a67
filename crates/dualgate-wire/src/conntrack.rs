//! Flows of TCP that connection tracking knows: those that have ended can be listed and forgotten (ctnetlink,
//! `linux/netfilter/nfnetlink_conntrack.h`).
//!
//! What is needed of a flow is where its first packet went and whether it is over. All else that names it goes back to the
//! kernel as it came.

use std::net::IpAddr;

use crate::netlink::{Header, Message, Writer, array, attributes, messages};

const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: also what a listing is made of.
const FLOW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `CTA_TUPLE_ORIG`, and within it `CTA_TUPLE_IP` with both `CTA_IP_*_DST`.
const ORIGINAL: u16 = 1;
const ADDRESSES: u16 = 1;
const DESTINATION_V4: u16 = 2;
const DESTINATION_V6: u16 = 4;
/// `CTA_PROTOINFO`, within it `CTA_PROTOINFO_TCP`, within it its state.
const PROTOCOL: u16 = 4;
const TCP: u16 = 1;
const STATE: u16 = 1;
/// `CTA_ID` and `CTA_ZONE`: which of the flows that ever had these ends.
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `TCP_CONNTRACK_TIME_WAIT` and `TCP_CONNTRACK_CLOSE`: nothing more is expected of it.
const ENDED: [u8; 2] = [7, 8];
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Flows of which family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }
}

/// A flow of TCP that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Where its first packet was sent, before any translation.
    pub to: IpAddr,
    /// The attributes that name it, as the kernel wrote them.
    names: Vec<(u16, Vec<u8>)>,
}

/// A part of the kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A flow that is over.
    Ended(Ended),
    /// No more comes.
    Done,
    /// It does not do it.
    Refused {
        /// Why.
        errno: i32,
    },
}

/// Asks for all flows of a family.
#[must_use]
pub fn list(family: Family) -> Vec<u8> {
    message(GET, REQUEST | DUMP, family, |_| {})
}

/// Has the kernel forget one.
#[must_use]
pub fn forget(family: Family, flow: &Ended) -> Vec<u8> {
    message(DELETE, REQUEST | ACKNOWLEDGE, family, |writer| {
        for (kind, value) in &flow.names {
            match *kind {
                ORIGINAL => writer.nested_as_it_is(ORIGINAL, value),
                kind => writer.attribute(kind, value),
            }
        }
    })
}

/// What a datagram of the kernel says; flows that go on are left out, and what cannot be read.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer> {
    messages(datagram).filter_map(|message| match message.kind {
        FLOW => ended(&message).map(Answer::Ended),
        DONE => Some(Answer::Done),
        ERROR => match i32::from_ne_bytes(array(message.body, 0)?) {
            0 => Some(Answer::Done),
            errno => Some(Answer::Refused { errno: errno.saturating_neg() }),
        },
        _ => None,
    })
}

fn message(kind: u16, flags: u16, family: Family, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(Header { kind, flags, sequence: 1, family: family.number(), resource: 0 }, body);
    // What the kernel wrote is short enough to be written again.
    writer.finish().unwrap_or_default()
}

fn ended(message: &Message<'_>) -> Option<Ended> {
    let find = |wanted: u16| message.attributes().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let within = |value: &'static [u16], start: &[u8]| -> Option<Vec<u8>> {
        value.iter().try_fold(start.to_vec(), |value, wanted| {
            attributes(&value).find(|(kind, _)| kind == wanted).map(|(_, value)| value.to_vec())
        })
    };
    let state = within(&[TCP, STATE], find(PROTOCOL)?)?;
    ENDED.contains(state.first()?).then_some(())?;
    let original = find(ORIGINAL)?;
    let to = match (within(&[ADDRESSES, DESTINATION_V4], original), within(&[ADDRESSES, DESTINATION_V6], original)) {
        (Some(v4), _) => IpAddr::from(array::<4>(&v4, 0)?),
        (None, v6) => IpAddr::from(array::<16>(&v6?, 0)?),
    };
    let named = message.attributes().filter(|(kind, _)| [ORIGINAL, ID, ZONE].contains(kind));
    Some(Ended { to, names: named.map(|(kind, value)| (kind, value.to_vec())).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel lists a flow from 192.168.178.50 port 41180 to 192.168.178.10 port 80.
    fn flow(state: u8) -> Vec<u8> {
        message(FLOW, 2, Family::V4, |writer| {
            writer.nested(ORIGINAL, |writer| {
                writer.nested(ADDRESSES, |writer| {
                    writer.attribute(1, &[192, 168, 178, 50]);
                    writer.attribute(DESTINATION_V4, &[192, 168, 178, 10]);
                });
                writer.nested(2, |writer| {
                    writer.u8(1, 6);
                    writer.attribute(2, &41180_u16.to_be_bytes());
                    writer.attribute(3, &80_u16.to_be_bytes());
                });
            });
            writer.nested(PROTOCOL, |writer| writer.nested(TCP, |writer| writer.u8(STATE, state)));
            writer.u32(7, 119);
            writer.u32(ID, 4711);
        })
    }

    #[test]
    fn flows_that_are_over_are_told_from_those_that_go_on() {
        let states: Vec<bool> = (0..10).map(|state| answers(&flow(state)).next().is_some()).collect();
        assert_eq!(states, [false, false, false, false, false, false, false, true, true, false]);
    }

    #[test]
    fn a_flow_is_named_to_the_kernel_as_it_named_it() {
        let Some(Answer::Ended(ended)) = answers(&flow(7)).next() else { panic!("no flow") };
        assert_eq!(ended.to, IpAddr::from([192, 168, 178, 10]));
        let request = forget(Family::V4, &ended);
        let (asked, listed) = (messages(&request).next().unwrap(), flow(7));
        let listed = messages(&listed).next().unwrap();
        assert_eq!((asked.kind, asked.family()), (DELETE, Some(AF_INET)));
        let named: Vec<_> = listed.attributes().filter(|(kind, _)| [ORIGINAL, ID].contains(kind)).collect();
        assert_eq!(asked.attributes().collect::<Vec<_>>(), named);
    }

    #[test]
    fn what_is_cut_off_is_no_flow_and_no_panic() {
        let whole = flow(7);
        for length in 0..whole.len() {
            assert_eq!(answers(&whole[..length]).count(), 0, "{length} octets");
        }
    }

    #[test]
    fn a_refusal_and_an_end_are_told() {
        let answer = |kind, errno: i32| {
            let mut bytes = message(kind, 0, Family::V4, |_| {});
            bytes[16..20].copy_from_slice(&errno.to_ne_bytes());
            answers(&bytes).collect::<Vec<_>>()
        };
        assert_eq!(answer(ERROR, -2), [Answer::Refused { errno: 2 }]);
        assert_eq!(answer(ERROR, 0), [Answer::Done]);
        assert_eq!(answer(DONE, 0), [Answer::Done]);
    }
}
