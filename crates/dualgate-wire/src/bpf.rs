//! The filter of a packet socket that hears only what concerns some addresses, as a program of classic BPF.
//!
//! It runs in the kernel for every frame of the interface, so that a busy LAN wakes nobody. Sources: the kernel's
//! `include/uapi/linux/filter.h` and `bpf_common.h`.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// One instruction, as `struct sock_filter` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// How many instructions are skipped if a comparison holds.
    pub jt: u8,
    /// How many if it does not.
    pub jf: u8,
    /// What it is done with.
    pub k: u32,
}

/// The most instructions of a program. The kernel takes 4,096, but what a socket may have for them (`net.core.optmem_max`,
/// 20 KiB on many kernels) ends earlier: one instruction here can be two of 8 octets there.
pub const LONGEST: usize = 1024;

/// Loads a word, half a word, or an octet at `k`.
pub const LOAD_WORD: u16 = 0x20;
/// See [`LOAD_WORD`].
pub const LOAD_HALF: u16 = 0x28;
/// See [`LOAD_WORD`].
pub const LOAD_OCTET: u16 = 0x30;
/// Whether what was loaded equals `k`.
pub const EQUALS: u16 = 0x15;
/// Whether what was loaded has a bit of `k`.
pub const HAS_BIT: u16 = 0x45;
/// Jumps over `k` instructions.
pub const JUMP: u16 = 0x05;
/// Ends the program; `k` octets of the frame pass.
pub const RETURN: u16 = 0x06;

/// What the kernel knows of a frame besides its octets lies from here on (SKF_AD_OFF).
pub const AUXILIARY: u32 = 0xffff_f000;
/// The IP header lies from here on (SKF_NET_OFF), also where a program's frame begins behind it.
pub const NETWORK_HEADER: u32 = 0xfff0_0000;
/// To whom it went (SKF_AD_PKTTYPE).
pub const PACKET_TYPE: u32 = AUXILIARY + 4;
/// The tag of its VLAN, 0 without one (SKF_AD_VLAN_TAG).
pub const VLAN_TAG: u32 = AUXILIARY + 44;

/// A frame that this machine sent (PACKET_OUTGOING).
const OUTGOING: u32 = 4;
/// The number of a VLAN within its tag. A tag of VLAN 0 has only a priority.
const VLAN_NUMBER: u32 = 0x0fff;
/// More than any frame that matters.
const EVERYTHING: u32 = 0xffff;

const PASS: Instruction = end(EVERYTHING);
const DROP: Instruction = end(0);

/// A program that passes ARP, Neighbour Solicitations and Advertisements which are about one of `addresses` or come from
/// one, and nothing else: no frame of this machine, no frame of another VLAN, no IPv6 extension header.
///
/// Of an IPv6 address the last four octets are compared, of which a frame too many may pass. With more addresses than
/// fit into a program, which is about 250, all ARP and all of the two messages pass.
pub fn filter(addresses: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.insert(u32::from(*address)),
            IpAddr::V6(address) => v6.insert(u128::from(*address) as u32),
        };
    }
    // Sender and target of ARP; source of IPv6, and target of either message.
    let program = whole(&either(&v4, [28, 38]), &either(&v6, [34, 74]));
    if program.len() <= LONGEST { program } else { whole(&[PASS], &[PASS]) }
}

/// A program for a UDP socket of one family: passes what comes from one of these addresses, which are all of it.
pub fn senders(addresses: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    let mut program = Vec::new();
    for address in addresses {
        let (start, octets) = match address {
            IpAddr::V4(address) => (12, address.octets().to_vec()),
            IpAddr::V6(address) => (8, address.octets().to_vec()),
        };
        let (words, _) = octets.as_chunks::<4>();
        for ((word, place), left) in words.iter().zip((start..).step_by(4)).zip((0..words.len()).rev()) {
            // Where one word differs, what is left of this address is skipped, and its end.
            let skipped = u8::try_from(left * 2 + 1).unwrap_or(u8::MAX);
            program.push(load(LOAD_WORD, NETWORK_HEADER + place));
            program.push(when(EQUALS, u32::from_be_bytes(*word), 0, skipped));
        }
        program.push(PASS);
    }
    program.push(DROP);
    program
}

fn whole(arp: &[Instruction], messages: &[Instruction]) -> Vec<Instruction> {
    let mut program = vec![
        load(LOAD_OCTET, PACKET_TYPE),
        when(EQUALS, OUTGOING, 0, 1),
        DROP,
        load(LOAD_HALF, VLAN_TAG),
        when(HAS_BIT, VLAN_NUMBER, 0, 1),
        DROP,
        load(LOAD_HALF, 12),
        // ARP skips the jump; anything else takes it, because a comparison reaches no further than 255 instructions.
        when(EQUALS, 0x0806, 1, 0),
        Instruction { code: JUMP, jt: 0, jf: 0, k: u32::try_from(arp.len()).unwrap_or(0) },
    ];
    program.extend_from_slice(arp);
    program.extend_from_slice(&[
        when(EQUALS, 0x86dd, 1, 0),
        DROP,
        load(LOAD_OCTET, 20),
        when(EQUALS, 58, 1, 0),
        DROP,
        load(LOAD_OCTET, 54),
        when(EQUALS, 135, 2, 0),
        when(EQUALS, 136, 1, 0),
        DROP,
    ]);
    program.extend_from_slice(messages);
    program
}

/// Passes what has one of `values` at one of the places.
fn either(values: &BTreeSet<u32>, places: [u32; 2]) -> Vec<Instruction> {
    let mut program = Vec::new();
    for place in places {
        program.push(load(LOAD_WORD, place));
        for value in values {
            program.extend_from_slice(&[when(EQUALS, *value, 0, 1), PASS]);
        }
    }
    program.push(DROP);
    program
}

const fn load(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn when(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn end(k: u32) -> Instruction {
    Instruction { code: RETURN, jt: 0, jf: 0, k }
}
