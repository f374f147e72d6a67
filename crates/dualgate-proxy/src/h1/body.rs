//! A body that arrives over HTTP/1.1, from a client or from a server.

use std::io;

use dualgate_http::{BodyDecoder, BodyLength, TrailerLimits};

use crate::buffer::{Buffer, SMALL};
use crate::io::Io;
use crate::timer::Timer;
use crate::transaction::{BodyFailure, BodySource, Piece};

/// Reads one body. What follows it in the buffer is the next message.
#[derive(Debug)]
pub struct Body<'c> {
    io: &'c Io,
    timer: &'c Timer,
    buffer: &'c mut Buffer,
    decoder: BodyDecoder,
    /// Bytes of the piece that is lent out.
    lent: usize,
    left: u64,
}

impl<'c> Body<'c> {
    /// Of this length, starting with what is in `buffer`; longer than `limit` octets is too large.
    pub fn new(io: &'c Io, timer: &'c Timer, buffer: &'c mut Buffer, length: BodyLength, limit: Option<u64>) -> Self {
        let decoder = BodyDecoder::new(length, &TrailerLimits::default());
        Self { io, timer, buffer, decoder, lent: 0, left: limit.unwrap_or(u64::MAX) }
    }

    /// Whether all of it was read, so that the connection can carry another message.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Gives back what was lent and says whether all was read.
    pub fn finish(self) -> bool {
        self.buffer.consume(self.lent);
        self.decoder.is_done()
    }

    /// Throws away what is left, up to `budget` octets; whether that was all.
    pub async fn discard(&mut self, mut budget: usize) -> bool {
        while !self.is_done() {
            match self.next().await {
                Ok(Piece::Data(data)) => match budget.checked_sub(data.len()) {
                    Some(rest) => budget = rest,
                    None => return false,
                },
                Ok(Piece::End(_)) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// The connection and its buffer, when it stops being HTTP.
    pub fn tunnel(&mut self) -> (&Io, &mut Buffer) {
        (self.io, self.buffer)
    }
}

impl BodySource for Body<'_> {
    async fn next(&mut self) -> Result<Piece<'_>, BodyFailure> {
        self.buffer.consume(std::mem::take(&mut self.lent));
        let data = loop {
            if self.decoder.is_done() {
                return Ok(Piece::End(self.decoder.trailers()));
            }
            let step = self.decoder.decode(self.buffer.filled())?;
            if !step.data.is_empty() {
                // Also what is refused was consumed: left in the buffer, it would be read as the next request.
                self.lent = step.consumed;
                self.left = self.left.checked_sub(step.data.len() as u64).ok_or(BodyFailure::TooLarge)?;
                break step.data;
            }
            self.buffer.consume(step.consumed);
            if step.consumed > 0 || step.done {
                continue;
            }
            if self.io.read(self.buffer).await? == 0 {
                self.decoder.end_of_input().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            }
            self.timer.progress();
        };
        Ok(Piece::Data(&self.buffer.filled()[data]))
    }

    async fn gone(&mut self) {
        self.buffer.consume(std::mem::take(&mut self.lent));
        // Bytes that arrive meanwhile are the next request: as many as one buffer holds.
        while self.buffer.len() < SMALL {
            if !matches!(self.io.read(self.buffer).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending().await
    }
}
