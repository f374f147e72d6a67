//! Messages to and from name servers that take changes: nothing that a server sends can do harm.

use dualgate_wire::dns::tsig::{Algorithm, Key, Verifier, sign};
use dualgate_wire::dns::update::{Update, Verdict, transfer};
use dualgate_wire::dns::{Name, Rdata, RecordType, records};
use proptest::prelude::*;

fn key() -> Key<impl Fn(&[u8]) -> Vec<u8>> {
    // No digest that anybody should use; this one is the same for everything, so that what is behind it is reached.
    Key { name: "key.example".parse().unwrap(), algorithm: Algorithm::HmacSha256, digest: |_: &[u8]| vec![7; 32] }
}

/// A message with a record of every typed kind, signed.
fn message() -> Vec<u8> {
    let mut update = Update::new("example.org".parse().unwrap());
    for (rtype, text) in [
        ("A", "192.0.2.1"),
        ("MX", "10 mail.example.net"),
        ("TXT", r#""one" "two""#),
        ("SRV", "1 2 443 host.example.net"),
        ("CAA", r#"0 issue "ca.example""#),
        ("HTTPS", "1 . alpn=h2 ipv4hint=192.0.2.1"),
    ] {
        let rtype: RecordType = rtype.parse().unwrap();
        update.add(&"a.example.org".parse().unwrap(), 60, &Rdata::parse(rtype, text).unwrap());
    }
    let mut message = update.finish(7);
    sign(&mut message, &key(), 1000);
    message
}

fn read(message: &[u8]) {
    let Ok(found) = records(message) else { return };
    for record in found.map_while(Result::ok) {
        if let Ok(data) = Rdata::decode(&record) {
            let mut again = Vec::new();
            data.encode(&mut again);
            assert!(!data.to_string().is_empty() || again.is_empty());
        }
    }
}

proptest! {
    #[test]
    fn no_message_is_too_strange_to_be_read(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        read(&octets);
        let _ = Verifier::new(&key(), &[7; 32]).message(&octets, 1000);
        let _ = Verdict::of(&transfer(7, &Name::root()), &octets);
    }

    #[test]
    fn no_change_of_a_message_makes_it_one_that_cannot_be_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        length in any::<prop::sample::Index>(),
    ) {
        let mut message = message();
        for (at, octet) in changes {
            let at = at.index(message.len());
            message[at] = octet;
        }
        read(&message);
        let _ = Verifier::new(&key(), &[7; 32]).message(&message, 1000);
        message.truncate(length.index(message.len()));
        read(&message);
        let _ = Verifier::new(&key(), &[7; 32]).message(&message, 1000);
    }
}
