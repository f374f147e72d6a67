//! What follows a head: how a body ends, taking it apart, and framing it anew.
//!
//! A chunked body is never passed through. It is decoded here by a scanner that knows one spelling of everything, and
//! encoded again: extensions end at this hop, and so does every disagreement about them.

use std::ops::Range;

use crate::limits::TrailerLimits;
use crate::syntax::{hex, is_field_value_byte};
use crate::trailer::{Trailer, is_forbidden_trailer, parse_trailer};
use crate::write::{try_write_field, write_hexadecimal};

/// How the end of a body is known (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last of them empty, then trailers.
    Chunked,
    /// Everything until the connection ends. Responses only.
    UntilClose,
}

impl BodyLength {
    /// No byte follows the head.
    pub fn is_empty(self) -> bool {
        match self {
            Self::Empty | Self::Length(0) => true,
            Self::Length(_) | Self::Chunked | Self::UntilClose => false,
        }
    }
}

/// A body that cannot be taken apart. The connection ends: where the next message begins is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not a plain hexadecimal number, or one that nothing valid follows.
    #[error("malformed chunk size")]
    ChunkSize,
    /// More than 16 digits.
    #[error("chunk size has too many digits")]
    ChunkSizeDigits,
    /// A control byte, or nothing at all, behind the semicolon.
    #[error("malformed chunk extension")]
    ChunkExtension,
    /// More than the limits allow, in one chunk or in all.
    #[error("chunk extensions too large")]
    ChunkExtensionTooLarge,
    /// A line of the framing that does not end in CRLF.
    #[error("chunk line does not end in CRLF")]
    ChunkLineEnd,
    /// The data of a chunk is longer than its size said.
    #[error("chunk data is not followed by CRLF")]
    ChunkDataEnd,
    /// A trailer line that is no field line.
    #[error("malformed trailer field")]
    Trailer,
    /// The trailer section is longer than the limit.
    #[error("trailer section too large")]
    TrailersTooLarge,
    /// More trailer fields than the limit.
    #[error("too many trailer fields")]
    TooManyTrailers,
    /// The connection ended before the body did.
    #[error("body ended early")]
    UnexpectedEnd,
}

impl BodyError {
    /// The status that answers a request with this fault. The same fault in a response is always a 502.
    pub fn status(self) -> u16 {
        match self {
            Self::TrailersTooLarge | Self::TooManyTrailers => 431,
            Self::ChunkSize
            | Self::ChunkSizeDigits
            | Self::ChunkExtension
            | Self::ChunkExtensionTooLarge
            | Self::ChunkLineEnd
            | Self::ChunkDataEnd
            | Self::Trailer
            | Self::UnexpectedEnd => 400,
        }
    }
}

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with, framing and data.
    pub consumed: usize,
    /// The part of the input that is data; often all of it, sometimes nothing.
    pub data: Range<usize>,
    /// The body has ended; what is behind `consumed` is the next message.
    pub done: bool,
}

/// Takes one body apart. It copies no data and allocates for trailers only.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: TrailerLimits,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
    line: Vec<u8>,
    trailers: Vec<Trailer>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Length { left: u64 },
    UntilClose,
    ChunkSize { size: u64, digits: u8 },
    ChunkExtension { size: u64, len: usize },
    ChunkSizeLf { size: u64 },
    ChunkData { left: u64 },
    ChunkDataCr,
    ChunkDataLf,
    Trailer,
    TrailerLf,
    Done,
    Failed(BodyError),
}

const NEXT_CHUNK: State = State::ChunkSize { size: 0, digits: 0 };
const MAX_SIZE_DIGITS: u8 = 16;

impl BodyDecoder {
    /// A decoder at the first byte behind the head.
    pub fn new(length: BodyLength, limits: &TrailerLimits) -> Self {
        let state = match length {
            BodyLength::Empty | BodyLength::Length(0) => State::Done,
            BodyLength::Length(left) => State::Length { left },
            BodyLength::Chunked => NEXT_CHUNK,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self {
            state,
            limits: *limits,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            line: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// Reads as much of `input` as holds at most one run of data, and the framing around it.
    ///
    /// Call it until the input is consumed or the body done; a call that consumes nothing wants more input. After an
    /// error it returns that error for ever.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match self.state {
            State::Done => Ok(Step { done: true, ..Step::default() }),
            State::Failed(error) => Err(error),
            State::UntilClose => Ok(Step { consumed: input.len(), data: 0..input.len(), done: false }),
            State::Length { left } => {
                let len = at_most(left, input.len());
                self.state = match left - len as u64 {
                    0 => State::Done,
                    left => State::Length { left },
                };
                Ok(Step { consumed: len, data: 0..len, done: self.is_done() })
            }
            State::ChunkSize { .. }
            | State::ChunkExtension { .. }
            | State::ChunkSizeLf { .. }
            | State::ChunkData { .. }
            | State::ChunkDataCr
            | State::ChunkDataLf
            | State::Trailer
            | State::TrailerLf => self.decode_chunked(input).inspect_err(|error| self.state = State::Failed(*error)),
        }
    }

    /// Says that no more input comes. Fine if the body is done or ends here by definition.
    pub fn end_of_input(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::Length { .. }
            | State::ChunkSize { .. }
            | State::ChunkExtension { .. }
            | State::ChunkSizeLf { .. }
            | State::ChunkData { .. }
            | State::ChunkDataCr
            | State::ChunkDataLf
            | State::Trailer
            | State::TrailerLf => {
                self.state = State::Failed(BodyError::UnexpectedEnd);
                Err(BodyError::UnexpectedEnd)
            }
        }
    }

    /// The whole body has been read.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The trailer fields that may be forwarded, complete once the body is done.
    pub fn trailers(&self) -> &[Trailer] {
        &self.trailers
    }

    fn decode_chunked(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut consumed = 0;
        let mut data = 0..0;
        while let Some(byte) = input.get(consumed) {
            if let State::ChunkData { left } = self.state {
                if !data.is_empty() {
                    break;
                }
                let len = at_most(left, input.len() - consumed);
                data = consumed..consumed + len;
                consumed += len;
                self.state = match left - len as u64 {
                    0 => State::ChunkDataCr,
                    left => State::ChunkData { left },
                };
                continue;
            }
            self.state = self.framing_byte(*byte)?;
            consumed += 1;
            if self.is_done() {
                break;
            }
        }
        Ok(Step { consumed, data, done: self.is_done() })
    }

    /// The state after one byte that is not data.
    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        match (self.state, byte) {
            (State::ChunkSize { digits: 1.., size }, b'\r') => Ok(State::ChunkSizeLf { size }),
            (State::ChunkSize { digits: 1.., size }, b';') => Ok(State::ChunkExtension { size, len: 0 }),
            (State::ChunkSize { size, digits }, _) => {
                let digit = hex(byte).ok_or(chunk_size_fault(byte))?;
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyError::ChunkSizeDigits);
                }
                Ok(State::ChunkSize { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::ChunkExtension { size, len: 1.. }, b'\r') => Ok(State::ChunkSizeLf { size }),
            (State::ChunkExtension { size, len }, _) => self.extension_byte(size, len, byte),
            (State::ChunkSizeLf { size: 0 }, b'\n') => Ok(State::Trailer),
            (State::ChunkSizeLf { size }, b'\n') => Ok(State::ChunkData { left: size }),
            (State::ChunkSizeLf { .. }, _) => Err(BodyError::ChunkLineEnd),
            (State::ChunkDataCr, b'\r') => Ok(State::ChunkDataLf),
            (State::ChunkDataLf, b'\n') => Ok(NEXT_CHUNK),
            (State::ChunkDataCr | State::ChunkDataLf, _) => Err(BodyError::ChunkDataEnd),
            (State::Trailer, _) => self.trailer_byte(byte),
            (State::TrailerLf, b'\n') => self.trailer_line(),
            (State::TrailerLf, _) => Err(BodyError::ChunkLineEnd),
            (State::Failed(error), _) => Err(error),
            (State::Length { .. } | State::UntilClose | State::ChunkData { .. } | State::Done, _) => Ok(self.state),
        }
    }

    fn extension_byte(&mut self, size: u64, len: usize, byte: u8) -> Result<State, BodyError> {
        if byte == b'\n' {
            return Err(BodyError::ChunkLineEnd);
        }
        if !is_field_value_byte(byte) {
            return Err(BodyError::ChunkExtension);
        }
        self.extension_bytes += 1;
        if len == self.limits.max_chunk_extension || self.extension_bytes > self.limits.max_chunk_extensions {
            return Err(BodyError::ChunkExtensionTooLarge);
        }
        Ok(State::ChunkExtension { size, len: len + 1 })
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > self.limits.max_bytes {
            return Err(BodyError::TrailersTooLarge);
        }
        match byte {
            b'\r' => Ok(State::TrailerLf),
            b'\n' => Err(BodyError::ChunkLineEnd),
            _ => {
                self.line.push(byte);
                Ok(State::Trailer)
            }
        }
    }

    fn trailer_line(&mut self) -> Result<State, BodyError> {
        if self.line.is_empty() {
            return Ok(State::Done);
        }
        self.trailer_fields += 1;
        if self.trailer_fields > self.limits.max_fields {
            return Err(BodyError::TooManyTrailers);
        }
        let (name, value) = parse_trailer(&self.line).ok_or(BodyError::Trailer)?;
        if !is_forbidden_trailer(name) {
            self.trailers.push((name.to_vec(), value.to_vec()));
        }
        self.line.clear();
        Ok(State::Trailer)
    }
}

/// The end of every chunk's data.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the line in front of `len` bytes of data; [`CHUNK_END`] goes behind them. `len` is not 0: that is the end of
/// the body, see [`encode_last_chunk`].
pub fn encode_chunk_header(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    write_hexadecimal(len as u64, out);
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body. Trailers that may not be trailers, or not be written, are left out.
pub fn encode_last_chunk(trailers: &[Trailer], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if !is_forbidden_trailer(name) {
            // A refused field writes nothing, and a body without it is still whole.
            let _ = try_write_field(name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn at_most(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

fn chunk_size_fault(byte: u8) -> BodyError {
    match byte {
        b'\n' => BodyError::ChunkLineEnd,
        _ => BodyError::ChunkSize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_and_the_framing_around_it_come_in_one_step() {
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, &TrailerLimits::default());
        let step = decoder.decode(b"5\r\nhello\r\n0\r\n\r\nGET /").unwrap();
        assert_eq!(step, Step { consumed: 15, data: 3..8, done: true });
    }

    #[test]
    fn two_chunks_are_two_steps_because_their_data_is_not_contiguous() {
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, &TrailerLimits::default());
        let input = b"1\r\na\r\n1\r\nb\r\n";
        let first = decoder.decode(input).unwrap();
        assert_eq!(first, Step { consumed: 9, data: 3..4, done: false });
        let second = decoder.decode(&input[first.consumed..]).unwrap();
        assert_eq!(second, Step { consumed: 3, data: 0..1, done: false });
    }

    #[test]
    fn a_body_of_known_length_ends_where_the_next_message_begins() {
        let mut decoder = BodyDecoder::new(BodyLength::Length(5), &TrailerLimits::default());
        assert_eq!(decoder.decode(b"hel").unwrap(), Step { consumed: 3, data: 0..3, done: false });
        assert_eq!(decoder.decode(b"loGET").unwrap(), Step { consumed: 2, data: 0..2, done: true });
        assert_eq!(decoder.end_of_input(), Ok(()));
    }

    #[test]
    fn the_end_of_input_ends_only_what_has_no_other_end() {
        let limits = TrailerLimits::default();
        assert_eq!(BodyDecoder::new(BodyLength::Empty, &limits).end_of_input(), Ok(()));
        assert_eq!(BodyDecoder::new(BodyLength::UntilClose, &limits).end_of_input(), Ok(()));
        for length in [BodyLength::Length(1), BodyLength::Chunked] {
            assert_eq!(BodyDecoder::new(length, &limits).end_of_input(), Err(BodyError::UnexpectedEnd));
        }
    }

    #[test]
    fn a_failed_body_stays_failed() {
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, &TrailerLimits::default());
        assert_eq!(decoder.decode(b"x"), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError::ChunkSize));
        assert_eq!(decoder.end_of_input(), Err(BodyError::ChunkSize));
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let mut wire = Vec::new();
        encode_chunk_header(26, &mut wire);
        wire.extend_from_slice(b"abcdefghijklmnopqrstuvwxyz");
        wire.extend_from_slice(CHUNK_END);
        let sent = [(b"grpc-status".to_vec(), b"0".to_vec()), (b"host".to_vec(), b"evil".to_vec())];
        encode_last_chunk(&sent, &mut wire);
        assert_eq!(wire, b"1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\ngrpc-status: 0\r\n\r\n");

        let mut decoder = BodyDecoder::new(BodyLength::Chunked, &TrailerLimits::default());
        assert_eq!(decoder.decode(&wire).unwrap(), Step { consumed: wire.len(), data: 4..30, done: true });
        assert_eq!(decoder.trailers(), &sent[..1]);
    }
}
