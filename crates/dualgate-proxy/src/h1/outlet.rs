//! A body that leaves over HTTP/1.x, to a client or to a server.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use dualgate_http::{CHUNK_END, Trailer, encode_chunk_header, encode_last_chunk};

use crate::headers::Framing;
use crate::io::Io;
use crate::timer::Timer;
use crate::transaction::BodySink;

/// Up to this much is gathered with what precedes it, so that it leaves in one write.
const GATHER: usize = 16 * 1024;

/// Writes heads and one body.
#[derive(Debug)]
pub struct Outlet<'c> {
    io: &'c Io,
    timer: &'c Timer,
    /// Not yet written.
    out: &'c mut Vec<u8>,
    /// How much of `out` was written nevertheless, by a flush that was not completed.
    written: usize,
    framing: Framing,
}

impl<'c> Outlet<'c> {
    /// Starting with what is in `out`, usually a head.
    pub fn new(io: &'c Io, timer: &'c Timer, out: &'c mut Vec<u8>, framing: Framing) -> Self {
        Self { io, timer, out, written: 0, framing }
    }

    /// Where a head is written.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// How the body that follows is framed.
    pub fn frame(&mut self, framing: Framing) {
        self.framing = framing;
    }
}

impl BodySink for Outlet<'_> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let chunked = self.framing == Framing::Chunked;
        if !chunked && self.out.len() + data.len() > GATHER {
            self.flush().await?;
            return write(self.io, self.timer, data, &mut 0).await;
        }
        if chunked {
            encode_chunk_header(data.len(), self.out);
        }
        self.out.extend_from_slice(data);
        if chunked {
            self.out.extend_from_slice(CHUNK_END);
        }
        if self.out.len() < GATHER { Ok(()) } else { self.flush().await }
    }

    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            encode_last_chunk(trailers, self.out);
        }
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            write(self.io, self.timer, self.out, &mut self.written).await?;
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }
}

/// Writes the bytes behind the first `written`, and keeps that up to date. Whoever reads slowly makes progress, too.
async fn write(io: &Io, timer: &Timer, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    poll_fn(|cx| {
        let before = io.sent();
        let outcome = loop {
            let rest = &bytes[*written..];
            if rest.is_empty() {
                break io.poll_flush(cx);
            }
            match io.poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => *written += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if io.sent() != before {
            timer.progress();
        }
        outcome
    })
    .await
}
