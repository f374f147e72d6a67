//! Ethernet, ARP, Neighbour Discovery and the filter for them: known octets, what is refused, and arbitrary octets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dualgate_wire::arp::{self, ArpError, Operation};
use dualgate_wire::bpf::{self, Instruction, filter};
use dualgate_wire::ethernet::{EtherType, Header, Mac, Truncated};
use dualgate_wire::ndp::{self, Advertisement, Flags, Message, NdpError, Solicitation, solicited_node};
use proptest::prelude::*;

const ONE: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TWO: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A Neighbour Solicitation from fe80::2 for fd00::10, with where its source is. Its checksum was reckoned apart
/// from this crate.
const SOLICITATION: [u8; 72] = [
    0x60, 0, 0, 0, 0, 32, 58, 255, // version, 32 octets, ICMPv6, hop limit
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // source
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0x10, // destination
    135, 0, 0x7b, 0xf9, 0, 0, 0, 0, // type, code, checksum, reserved
    0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, // target
    1, 1, 2, 0, 0, 0, 0, 2, // source link-layer address
];

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn solicitation() -> ndp::Packet {
    let question = Solicitation { target: v6("fd00::10"), source_link: Some(TWO), nonce: None };
    let (source, destination) = (v6("fe80::2"), v6("ff02::1:ff00:10"));
    ndp::Packet { source, destination, message: Message::Solicitation(question) }
}

fn advertisement() -> ndp::Packet {
    let flags = Flags { router: false, solicited: true, overriding: true };
    let claim = Advertisement { target: v6("fd00::10"), flags, target_link: Some(ONE) };
    ndp::Packet { source: v6("fd00::10"), destination: v6("fe80::2"), message: Message::Advertisement(claim) }
}

fn question() -> arp::Packet {
    let (sender, target) = (Ipv4Addr::new(192, 168, 178, 20), Ipv4Addr::new(192, 168, 178, 10));
    arp::Packet { operation: Operation::Request, sender_mac: TWO, sender, target_mac: Mac::ZERO, target }
}

fn octets(emit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    emit(&mut out);
    out
}

fn frame(destination: Mac, ether_type: EtherType, emit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    octets(|out| {
        Header { destination, source: TWO, ether_type }.emit(out);
        emit(out);
    })
}

#[test]
fn a_solicitation_is_read_and_written_as_it_stands() {
    assert_eq!(ndp::Packet::parse(&SOLICITATION), Ok(solicitation()));
    assert_eq!(octets(|out| solicitation().emit(out)), SOLICITATION);
}

#[test]
fn every_octet_of_a_message_is_covered_by_its_checksum() {
    for at in 8..SOLICITATION.len() {
        let mut changed = SOLICITATION;
        changed[at] ^= 0x04;
        assert_ne!(ndp::Packet::parse(&changed), Ok(solicitation()), "octet {at}");
        if at >= 41 || (8..40).contains(&at) {
            assert_eq!(ndp::Packet::parse(&changed), Err(NdpError::Checksum), "octet {at}");
        }
    }
}

#[test]
fn every_beginning_of_a_packet_is_cut_off() {
    for length in 0..SOLICITATION.len() {
        assert_eq!(ndp::Packet::parse(&SOLICITATION[..length]), Err(NdpError::Truncated), "{length}");
    }
    let packet = octets(|out| question().emit(out));
    for length in 0..packet.len() {
        assert_eq!(arp::Packet::parse(&packet[..length]), Err(ArpError::Truncated), "{length}");
    }
    for length in 0..14 {
        assert_eq!(Header::parse(&[0; 14][..length]), Err(Truncated), "{length}");
    }
}

#[test]
fn the_solicited_node_group_has_the_last_three_octets() {
    assert_eq!(solicited_node(v6("2001:db8::ab12:3456")), v6("ff02::1:ff12:3456"));
    assert_eq!(solicited_node(v6("fd00::10")), v6("ff02::1:ff00:10"));
}

fn macs() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

fn messages() -> impl Strategy<Value = ndp::Packet> {
    let link = || prop::option::of(macs());
    let question =
        (any::<u128>(), link(), prop::option::of(any::<[u8; 6]>())).prop_map(|(target, source_link, nonce)| {
            Message::Solicitation(Solicitation { target: target.into(), source_link, nonce })
        });
    let claim = (any::<u128>(), any::<[bool; 3]>(), link()).prop_map(|(target, flags, target_link)| {
        let [router, solicited, overriding] = flags;
        let flags = Flags { router, solicited, overriding };
        Message::Advertisement(Advertisement { target: target.into(), flags, target_link })
    });
    let message = prop_oneof![question, claim];
    (any::<u128>(), any::<u128>(), message).prop_map(|(source, destination, message)| ndp::Packet {
        source: source.into(),
        destination: destination.into(),
        message,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again_or_refused_for_a_named_address(packet in messages(), padding in 0..20usize) {
        let mut written = octets(|out| packet.emit(out));
        written.resize(written.len() + padding, 0xaa);
        match ndp::Packet::parse(&written) {
            Ok(read) => prop_assert_eq!(read, packet),
            Err(NdpError::Target(target)) => prop_assert!(target.is_multicast() || target.is_unspecified()),
            Err(NdpError::Source(source)) => prop_assert!(source.is_multicast() || source.is_unspecified()),
            Err(NdpError::Solicited) => prop_assert!(packet.destination.is_multicast()),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn arp_is_read_again(sender_mac in macs(), target_mac in macs(), addresses in any::<[u32; 2]>(), reply in any::<bool>()) {
        let operation = if reply { Operation::Reply } else { Operation::Request };
        let [sender, target] = addresses.map(Ipv4Addr::from);
        let packet = arp::Packet { operation, sender_mac, sender, target_mac, target };
        prop_assert_eq!(arp::Packet::parse(&octets(|out| packet.emit(out))), Ok(packet));
    }

    #[test]
    fn arbitrary_octets_are_read_as_they_would_be_written_or_refused(input in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok((header, payload)) = Header::parse(&input) {
            prop_assert_eq!(octets(|out| header.emit(out)), &input[..input.len() - payload.len()]);
        }
        if let Ok(packet) = arp::Packet::parse(&input) {
            prop_assert_eq!(octets(|out| packet.emit(out)), &input[..arp::LENGTH]);
        }
        _ = ndp::Packet::parse(&input);
    }

    #[test]
    fn arbitrary_options_are_read_or_refused(options in prop::collection::vec(any::<u8>(), 0..64), kind in 135..=136u8) {
        let mut packet = SOLICITATION[..64].to_vec();
        packet[40] = kind;
        packet.extend_from_slice(&options);
        packet[5] = 24 + u8::try_from(options.len()).unwrap();
        packet[42..44].copy_from_slice(&[0, 0]);
        let sum = sum(&packet);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        if let Ok(read) = ndp::Packet::parse(&packet) {
            prop_assert_eq!(ndp::Packet::parse(&octets(|out| read.emit(out))), Ok(read));
        }
    }

    #[test]
    fn the_filter_ends_on_any_frame(input in prop::collection::vec(any::<u8>(), 0..100), last in 0..200u8) {
        let program = filter(&(0..last).map(|last| IpAddr::from([10, 0, 0, last])).collect());
        run(&program, &input, 0, 0);
    }
}

/// The checksum of a packet whose own is 0, in the plainest way.
fn sum(packet: &[u8]) -> u16 {
    let mut octets = packet[8..40].to_vec();
    octets.extend([0, 0, packet[4], packet[5], 0, 0, 0, 58]);
    octets.extend(&packet[40..]);
    octets.resize(octets.len().next_multiple_of(2), 0);
    let mut sum = 0u64;
    for pair in octets.chunks(2) {
        sum += u64::from(pair[0]) * 256 + u64::from(pair[1]);
    }
    !u16::try_from(sum % 0xffff).unwrap()
}

/// Runs a program as the kernel does: how many octets pass. What lies beyond the frame ends it.
fn run(program: &[Instruction], frame: &[u8], packet_type: u32, vlan_tag: u32) -> u32 {
    let octets = |at: u32, count: usize| -> Option<u32> {
        let at = at as usize;
        Some(frame.get(at..at + count)?.iter().fold(0, |value, octet| value << 8 | u32::from(*octet)))
    };
    let load = |at, count| match at {
        bpf::PACKET_TYPE => Some(packet_type),
        bpf::VLAN_TAG => Some(vlan_tag),
        at if at >= bpf::AUXILIARY => panic!("{at:x} is not known"),
        at => octets(at, count),
    };
    let (mut value, mut at) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |holds: bool| usize::from(if holds { jt } else { jf });
        let loaded = match code {
            bpf::LOAD_WORD => load(k, 4),
            bpf::LOAD_HALF => load(k, 2),
            bpf::LOAD_OCTET => load(k, 1),
            bpf::EQUALS => {
                at += jump(value == k);
                continue;
            }
            bpf::HAS_BIT => {
                at += jump(value & k != 0);
                continue;
            }
            bpf::JUMP => {
                at += k as usize;
                continue;
            }
            bpf::RETURN => return k,
            other => panic!("{other:x} is no instruction of ours"),
        };
        let Some(loaded) = loaded else { return 0 };
        value = loaded;
    }
}

fn addresses() -> BTreeSet<IpAddr> {
    ["192.168.178.10", "192.168.178.11", "fd00::10", "fd00::11"].map(|address| address.parse().unwrap()).into()
}

/// Frames about an address of [`addresses`].
fn concerning() -> Vec<(&'static str, Vec<u8>)> {
    let arp = |packet: arp::Packet| frame(Mac::BROADCAST, EtherType::Arp, |out| packet.emit(out));
    let ndp = |packet: ndp::Packet| frame(ONE, EtherType::Ipv6, |out| packet.emit(out));
    let from_it = ndp::Packet {
        source: v6("fd00::11"),
        message: Message::Solicitation(Solicitation { target: v6("fd00::99"), source_link: None, nonce: None }),
        ..solicitation()
    };
    vec![
        ("a question", arp(question())),
        (
            "a question from it",
            arp(arp::Packet { sender: [192, 168, 178, 11].into(), target: [1, 2, 3, 4].into(), ..question() }),
        ),
        (
            "an answer",
            arp(arp::Packet { operation: Operation::Reply, sender: [192, 168, 178, 10].into(), ..question() }),
        ),
        ("a solicitation", ndp(solicitation())),
        ("an advertisement", ndp(advertisement())),
        ("a solicitation from it", ndp(from_it)),
    ]
}

#[test]
fn the_filter_passes_whole_what_concerns_an_address() {
    let program = filter(&addresses());
    for (what, frame) in concerning() {
        assert!(run(&program, &frame, 0, 0) as usize >= frame.len(), "{what}");
        assert!(run(&program, &frame, 1, 0) > 0, "{what} to everybody");
    }
}

#[test]
fn the_filter_drops_what_this_machine_sends_and_what_another_vlan_carries() {
    let program = filter(&addresses());
    for (what, frame) in concerning() {
        assert_eq!(run(&program, &frame, 4, 0), 0, "{what}, outgoing");
        assert_eq!(run(&program, &frame, 0, 10), 0, "{what}, in VLAN 10");
        assert!(run(&program, &frame, 0, 0xe000) > 0, "{what}, with a priority only");
        let mut tagged = frame;
        tagged.splice(12..12, [0x81, 0, 0, 10]);
        assert_eq!(run(&program, &tagged, 0, 0), 0, "{what}, with a tag inside");
    }
}

#[test]
fn the_filter_drops_what_concerns_nobody_here() {
    let program = filter(&addresses());
    let arp = |packet: arp::Packet| frame(Mac::BROADCAST, EtherType::Arp, |out| packet.emit(out));
    let v6_octets = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame(ONE, EtherType::Ipv6, |out| out.extend_from_slice(&SOLICITATION));
        change(&mut frame);
        frame
    };
    let other = arp(arp::Packet { target: [192, 168, 178, 12].into(), ..question() });
    let other_target = v6_octets(&|frame| frame[77] = 0x12);
    let echo = v6_octets(&|frame| frame[54] = 128);
    let router = v6_octets(&|frame| frame[54] = 134);
    let tcp = v6_octets(&|frame| frame[20] = 6);
    let hop_by_hop = v6_octets(&|frame| frame[20] = 0);
    let v4 = v6_octets(&|frame| frame[12..14].copy_from_slice(&[8, 0]));
    let cut = v6_octets(&|frame| frame.truncate(60));
    for frame in [other, other_target, echo, router, tcp, hop_by_hop, v4, cut, Vec::new()] {
        assert_eq!(run(&program, &frame, 0, 0), 0, "{frame:02x?}");
    }
    for (what, frame) in concerning() {
        assert_eq!(run(&filter(&BTreeSet::new()), &frame, 0, 0), 0, "{what}, where nothing is of interest");
    }
}

#[test]
fn the_filter_fits_into_the_kernel_with_any_number_of_addresses() {
    for count in [0, 1, 100, 125, 130, 250, 260, 5000] {
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = (0..count).map(|number| (v4_of(number), v6_of(number))).unzip();
        let both: BTreeSet<IpAddr> = v4.iter().chain(&v6).copied().collect();
        for addresses in [v4.into_iter().collect(), v6.into_iter().collect(), both] {
            let program = filter(&addresses);
            assert!(program.len() <= bpf::LONGEST);
            for last in addresses.iter().rev().take(2) {
                let frame = match last {
                    IpAddr::V4(last) => {
                        frame(ONE, EtherType::Arp, |out| arp::Packet { target: *last, ..question() }.emit(out))
                    }
                    IpAddr::V6(last) => frame(ONE, EtherType::Ipv6, |out| {
                        let question = Solicitation { target: *last, source_link: None, nonce: None };
                        ndp::Packet { message: Message::Solicitation(question), ..solicitation() }.emit(out);
                    }),
                };
                assert!(run(&program, &frame, 0, 0) > 0, "{last} of {count}");
            }
        }
    }
}

fn v4_of(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

fn v6_of(number: u32) -> IpAddr {
    Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number)).into()
}
