//! Netlink's form: messages, and attributes within attributes.
//!
//! Headers are in the host's byte order, the numbers of netfilter's attributes in the network's.

/// Length of a message's header.
pub(crate) const HEADER: usize = 16;
/// Length of the header of netfilter's messages.
pub(crate) const NETFILTER_HEADER: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Writes messages one after another.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

/// The header of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) family: u8,
    pub(crate) resource: u16,
}

impl Writer {
    /// The messages; nothing if an attribute was longer than netlink can say.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (!self.too_long).then_some(self.bytes)
    }

    /// Writes one, and says where it starts.
    pub(crate) fn message(&mut self, header: Header, body: impl FnOnce(&mut Self)) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(header.kind.to_ne_bytes());
        self.bytes.extend(header.flags.to_ne_bytes());
        self.bytes.extend(header.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([header.family, 0]);
        self.bytes.extend(header.resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.too_long = true;
            0
        });
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        start
    }

    /// Adds flags to the message that starts here.
    pub(crate) fn add_flags(&mut self, start: usize, flags: u16) {
        if let Some(field) = self.bytes.get_mut(start + 6..start + 8) {
            let flags = flags.to_ne_bytes();
            field.iter_mut().zip(flags).for_each(|(octet, flag)| *octet |= flag);
        }
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.start(kind, |writer| writer.bytes.extend(value));
    }

    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.start(kind | NESTED, body);
    }

    /// Attributes within one, written by somebody else.
    pub(crate) fn nested_as_it_is(&mut self, kind: u16, attributes: &[u8]) {
        self.attribute(kind | NESTED, attributes);
    }

    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.start(kind, |writer| {
            writer.bytes.extend(text.as_bytes());
            writer.bytes.push(0);
        });
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// The length does not count the padding to four octets that follows.
    fn start(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or_else(|_| {
            self.too_long = true;
            0
        });
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// All that follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The family, if this is a message of netfilter.
    pub(crate) fn family(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// The attributes, if this is a message of netfilter.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(NETFILTER_HEADER..).unwrap_or_default())
    }
}

/// The messages of a datagram, up to the first that is cut off.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(array(bytes, 0)?) as usize;
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes(array(bytes, 4)?),
            flags: u16::from_ne_bytes(array(bytes, 6)?),
            sequence: u32::from_ne_bytes(array(bytes, 8)?),
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes, each its kind and its value, up to the first that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(array(bytes, 0)?));
        let kind = u16::from_ne_bytes(array(bytes, 2)?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// So many octets from here, if there are.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn read_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(array(value, 0)?))
}

pub(crate) fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(array(value, 0)?))
}

/// Text, which ends before its first zero. What is not UTF-8 is replaced.
pub(crate) fn read_text(value: &[u8]) -> String {
    let end = value.iter().position(|&octet| octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}
