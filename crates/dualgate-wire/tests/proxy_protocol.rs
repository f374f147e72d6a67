//! The PROXY protocol: tables of good and bad headers, every split, and arbitrary bytes.

use dualgate_wire::proxy_protocol::*;
use proptest::prelude::*;

fn tcp(source: &str, destination: &str) -> Header {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Header::Proxied { transport: Transport::Stream, source, destination }
}

fn udp(source: &str, destination: &str) -> Header {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Header::Proxied { transport: Transport::Datagram, source, destination }
}

/// A header of version 2.
fn v2(version_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([version_command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 203, 0, 113, 10, 0x30, 0x39, 0x01, 0xbb];

fn v6() -> Vec<u8> {
    let mut block = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec();
    block.extend("fd00::10".parse::<std::net::Ipv6Addr>().unwrap().octets());
    block.extend([0x30, 0x39, 0x01, 0xbb]);
    block
}

fn good() -> Vec<(Vec<u8>, Header)> {
    let four = tcp("192.0.2.1:12345", "203.0.113.10:443");
    let six = tcp("[2001:db8::1]:12345", "[fd00::10]:443");
    let longest = format!("PROXY UNKNOWN {} {} 65535 65535\r\n", "f".repeat(39), "f".repeat(39));
    assert_eq!(longest.len(), V1_MAX);
    let with_tlv = [V4.as_slice(), &[0x02, 0, 3, b'a', b'.', b'b', 0x04, 0, 1, 0]].concat();
    let long_tlv = [v6(), vec![0xff; V2_MAX - 16 - 36]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 203.0.113.10 12345 443\r\n".to_vec(), four),
        (b"PROXY TCP6 2001:db8::1 fd00::10 12345 443\r\n".to_vec(), six),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:203.0.113.10 12345 443\r\n".to_vec(), four),
        (b"PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n".to_vec(), tcp("255.255.255.255:65535", "0.0.0.0:0")),
        (b"PROXY UNKNOWN\r\n".to_vec(), Header::Unknown),
        (b"PROXY UNKNOWN whatever it \xc3\xa4 says\r\n".to_vec(), Header::Unknown),
        (longest.into_bytes(), Header::Unknown),
        (v2(0x21, 0x11, &V4), four),
        (v2(0x21, 0x12, &V4), udp("192.0.2.1:12345", "203.0.113.10:443")),
        (v2(0x21, 0x21, &v6()), six),
        (v2(0x21, 0x22, &v6()), udp("[2001:db8::1]:12345", "[fd00::10]:443")),
        (v2(0x21, 0x11, &with_tlv), four),
        (v2(0x21, 0x21, &long_tlv), six),
        (v2(0x20, 0x00, &[]), Header::Local),
        (v2(0x20, 0x11, &V4), Header::Local),
        (v2(0x20, 0xff, &[1, 2, 3]), Header::Local),
        (v2(0x21, 0x00, &[]), Header::Unknown),
        (v2(0x21, 0x00, &[1, 2, 3]), Header::Unknown),
        (v2(0x21, 0x10, &V4), Header::Unknown),
        (v2(0x21, 0x01, &V4), Header::Unknown),
        (v2(0x21, 0x31, &[0; 216]), Header::Unknown),
        (v2(0x21, 0x32, &[0; 216]), Header::Unknown),
    ]
}

#[test]
fn headers_of_both_versions_and_families_are_read() {
    for (bytes, header) in good() {
        let complete = Ok(Progress::Complete { value: header, length: bytes.len() });
        assert_eq!(parse(&bytes), complete, "{}", bytes.escape_ascii());
        let followed = [bytes.as_slice(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(parse(&followed), complete, "what follows is the connection's own");
    }
}

#[test]
fn every_beginning_of_a_header_is_incomplete() {
    for (bytes, _) in good() {
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Ok(Progress::Incomplete), "{}", bytes[..end].escape_ascii());
        }
    }
}

#[test]
fn what_is_wrong_has_a_name() {
    let line = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    let (short, many) = ("it ends too early", "it has too many words");
    let (family, address) = ("its family is none of `TCP4`, `TCP6`, `UNKNOWN`", "an address is not of its family");
    let number = "a port is not a number from 0 to 65535";
    let table: Vec<(Vec<u8>, ProxyError)> = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), ProxyError::NotAHeader),
        (b"proxy TCP4".to_vec(), ProxyError::NotAHeader),
        (b"PROXYTCP4".to_vec(), ProxyError::NotAHeader),
        (b"\r\n\r\nGET /".to_vec(), ProxyError::NotAHeader),
        (b"\x16\x03\x01".to_vec(), ProxyError::NotAHeader),
        ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat(), ProxyError::TooLong),
        ([b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92], b"\r\n"].concat(), ProxyError::TooLong),
        (b"PROXY TCP4 \xff\r\n".to_vec(), ProxyError::Line("it is not text")),
        (line(""), ProxyError::Line(short)),
        (line("TCP4"), ProxyError::Line(short)),
        (line("TCP4 192.0.2.1 192.0.2.2 1"), ProxyError::Line(short)),
        (line("TCP4 192.0.2.1 192.0.2.2 1 2 3"), ProxyError::Line(many)),
        (line("TCP4 192.0.2.1 192.0.2.2 1 2 "), ProxyError::Line(many)),
        (line("UNKNOWNX 192.0.2.1 192.0.2.2 1 2"), ProxyError::Line(family)),
        (line("tcp4 192.0.2.1 192.0.2.2 1 2"), ProxyError::Line(family)),
        (line("UDP4 192.0.2.1 192.0.2.2 1 2"), ProxyError::Line(family)),
        (line(" TCP4 192.0.2.1 192.0.2.2 1 2"), ProxyError::Line(many)),
        (line("TCP4  192.0.2.1 192.0.2.2 1 2"), ProxyError::Line(many)),
        (line("TCP4 2001:db8::1 192.0.2.2 1 2"), ProxyError::Line(address)),
        (line("TCP6 192.0.2.1 ::1 1 2"), ProxyError::Line(address)),
        (line("TCP4 192.0.2.01 192.0.2.2 1 2"), ProxyError::Line(address)),
        (line("TCP4 192.0.2 192.0.2.2 1 2"), ProxyError::Line(address)),
        (line("TCP6 fe80::1%eth0 ::1 1 2"), ProxyError::Line(address)),
        (line("TCP4 192.0.2.1 192.0.2.2 +1 2"), ProxyError::Line(number)),
        (line("TCP4 192.0.2.1 192.0.2.2 01 2"), ProxyError::Line(number)),
        (line("TCP4 192.0.2.1 192.0.2.2 1 65536"), ProxyError::Line(number)),
        (line("TCP4 192.0.2.1 192.0.2.2 1 -2"), ProxyError::Line(number)),
        (line("TCP4 192.0.2.1 192.0.2.2 1 "), ProxyError::Line(number)),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n".to_vec(), ProxyError::Line(number)),
        (v2(0x11, 0x11, &V4), ProxyError::Version(1)),
        (v2(0x31, 0x11, &V4), ProxyError::Version(3)),
        (v2(0x22, 0x11, &V4), ProxyError::Command(2)),
        (v2(0x21, 0x13, &V4), ProxyError::Family(0x13)),
        (v2(0x21, 0x41, &V4), ProxyError::Family(0x41)),
        (v2(0x21, 0x11, &V4[..11]), ProxyError::Truncated),
        (v2(0x21, 0x11, &[]), ProxyError::Truncated),
        (v2(0x21, 0x21, &V4), ProxyError::Truncated),
        (v2(0x21, 0x00, &[0; V2_MAX - 15]), ProxyError::TooLong),
        (v2(0x20, 0x00, &[0; 1000]), ProxyError::TooLong),
    ];
    for (bytes, error) in table {
        assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_header_that_is_too_long_is_refused_before_it_has_arrived() {
    assert_eq!(parse(&v2(0x21, 0x00, &[0; 60_000])[..16]), Err(ProxyError::TooLong));
    assert_eq!(parse(&v2(0x21, 0x21, &V4)[..16]), Err(ProxyError::Truncated));
}

#[test]
fn headers_are_written_as_others_write_them() {
    let bytes = |header: Header, version| {
        let mut out = b"before".to_vec();
        emit(&header, version, &mut out);
        out.split_off(6)
    };
    let four = tcp("192.0.2.1:12345", "203.0.113.10:443");
    let six = tcp("[2001:db8::1]:12345", "[fd00::10]:443");
    let mixed = tcp("192.0.2.1:12345", "[fd00::10]:443");
    assert_eq!(bytes(four, Version::V1), b"PROXY TCP4 192.0.2.1 203.0.113.10 12345 443\r\n");
    assert_eq!(bytes(six, Version::V1), b"PROXY TCP6 2001:db8::1 fd00::10 12345 443\r\n");
    assert_eq!(bytes(mixed, Version::V1), b"PROXY TCP6 ::ffff:192.0.2.1 fd00::10 12345 443\r\n");
    for unknown in [Header::Local, Header::Unknown, udp("192.0.2.1:1", "192.0.2.2:2")] {
        assert_eq!(bytes(unknown, Version::V1), b"PROXY UNKNOWN\r\n");
    }
    assert_eq!(bytes(four, Version::V2), v2(0x21, 0x11, &V4));
    assert_eq!(bytes(six, Version::V2), v2(0x21, 0x21, &v6()));
    assert_eq!(bytes(Header::Local, Version::V2), v2(0x20, 0x00, &[]));
    assert_eq!(bytes(Header::Unknown, Version::V2), v2(0x21, 0x00, &[]));
}

fn header() -> impl Strategy<Value = Header> {
    let address =
        || any::<std::net::SocketAddr>().prop_map(|a| std::net::SocketAddr::new(a.ip().to_canonical(), a.port()));
    let transport = prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)];
    prop_oneof![
        1 => Just(Header::Local),
        1 => Just(Header::Unknown),
        8 => (transport, address(), address())
            .prop_map(|(transport, source, destination)| Header::Proxied { transport, source, destination }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in header(), rest in prop::collection::vec(any::<u8>(), 0..20)) {
        for version in [Version::V1, Version::V2] {
            let mut bytes = Vec::new();
            emit(&header, version, &mut bytes);
            let length = bytes.len();
            let budget = match version {
                Version::V1 => V1_MAX,
                Version::V2 => V2_MAX,
            };
            prop_assert!(length <= budget);
            bytes.extend(&rest);
            let value = match (version, header) {
                (Version::V1, Header::Local | Header::Proxied { transport: Transport::Datagram, .. }) => Header::Unknown,
                (Version::V1, Header::Unknown | Header::Proxied { .. }) | (Version::V2, _) => header,
            };
            prop_assert_eq!(parse(&bytes), Ok(Progress::Complete { value, length }));
            for end in 0..length {
                prop_assert_eq!(parse(&bytes[..end]), Ok(Progress::Incomplete));
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_more_bytes_never_change_a_verdict(
        start in prop::sample::select(vec![b"".to_vec(), b"PROXY ".to_vec(), b"PROXY TCP4 ".to_vec(), v2(0x21, 0x11, &[])[..12].to_vec()]),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(0x21)], 0..600),
    ) {
        let bytes = [start, bytes].concat();
        let mut verdict = None;
        for end in 0..=bytes.len() {
            let read = parse(&bytes[..end]);
            match verdict {
                None if read == Ok(Progress::Incomplete) => prop_assert!(end < V2_MAX, "waits beyond its budget"),
                None => verdict = Some(read),
                Some(verdict) => prop_assert_eq!(read, verdict),
            }
            if let Ok(Progress::Complete { length, .. }) = read {
                prop_assert!(length <= end);
            }
        }
    }
}
