//! Counts the frames that a client of HTTP/2 can send for next to nothing.
//!
//! PING, SETTINGS, WINDOW_UPDATE and frames of unknown types cost their receiver more than their sender, and the `h2`
//! crate takes any number of them (CVE-2019-9512, CVE-2019-9515). Requests, resets, empty DATA and CONTINUATION are not
//! counted here: `h2` limits them itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read before the first frame (RFC 9113 3.4).
const PREFACE: usize = 24;
/// The head of a frame (RFC 9113 4.1).
const HEAD: usize = 9;
/// How many may come at once.
const BURST: f64 = 2000.0;
/// How many a second may come besides.
const RATE: f64 = 100.0;
/// For so many octets that it was sent, a client may send one more: it has to open its windows.
const OCTETS: f64 = 256.0;

/// A connection whose frames are counted; it fails when they are too many.
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    /// Around a connection of which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, meter: Meter::new(Instant::now()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = target.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, target))?;
        match self.meter.read(&target.filled()[start..], Instant::now) {
            Verdict::Fine => Poll::Ready(Ok(())),
            Verdict::Flood => Poll::Ready(Err(io::Error::other("a flood of control frames"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.meter.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Flood,
}

/// Follows the frames through whatever pieces they arrive in.
#[derive(Debug)]
struct Meter {
    /// Octets until the next head begins.
    skip: usize,
    head: [u8; HEAD],
    /// How much of it has arrived.
    filled: usize,
    /// How many frames may still come.
    left: f64,
    /// When that was counted last.
    since: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], filled: 0, left: BURST, since: now }
    }

    /// Looks at what arrived. The clock is only asked for frames that count.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Verdict {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if counts(kind) && self.spend(&now) == Verdict::Flood {
                    return Verdict::Flood;
                }
            }
        }
        Verdict::Fine
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> Verdict {
        if self.left < 1.0 {
            let now = now();
            self.left += now.saturating_duration_since(self.since).as_secs_f64() * RATE;
            self.left = self.left.min(BURST);
            self.since = now;
        }
        self.left -= 1.0;
        if self.left < 0.0 { Verdict::Flood } else { Verdict::Fine }
    }

    fn wrote(&mut self, octets: usize) {
        self.left = (self.left + octets as f64 / OCTETS).min(BURST);
    }
}

/// RFC 9113 6: all but DATA, HEADERS, RST_STREAM and CONTINUATION.
fn counts(kind: u8) -> bool {
    !matches!(kind, 0 | 1 | 3 | 9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(HEAD + usize::from(length), 0xff);
        frame
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat()
    }

    #[test]
    fn a_burst_passes_and_one_more_does_not_in_whatever_pieces_they_come() {
        let burst = vec![frame(6, 8); 2000];
        for piece in [1, 7, 9, 24, 4096, usize::MAX] {
            let start = Instant::now();
            let mut meter = Meter::new(start);
            for bytes in connection(&burst).chunks(piece) {
                assert_eq!(meter.read(bytes, || start), Verdict::Fine, "in pieces of {piece}");
            }
            assert_eq!(meter.read(&frame(6, 8), || start), Verdict::Flood, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_comes_steadily_passes() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert_eq!(meter.read(&connection(&vec![frame(4, 0); 2000]), || start), Verdict::Fine);
        for second in 1..=60 {
            let now = || start + Duration::from_secs(second);
            assert_eq!(meter.read(&vec![frame(4, 0); 100].concat(), now), Verdict::Fine, "second {second}");
        }
        let last = || start + Duration::from_secs(60);
        assert_eq!(meter.read(&frame(4, 0), last), Verdict::Flood);
    }

    #[test]
    fn windows_may_be_opened_for_what_was_sent_through_them() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        assert_eq!(meter.read(&connection(&vec![frame(8, 4); 2000]), || start), Verdict::Fine);
        for _ in 0..10_000 {
            meter.wrote(1024);
            assert_eq!(meter.read(&frame(8, 4), || start), Verdict::Fine);
        }
    }

    #[test]
    fn requests_and_bodies_are_not_counted() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let frames: Vec<_> = [frame(1, 40), frame(9, 5), frame(0, 200), frame(3, 4)].concat().repeat(5000);
        assert_eq!(meter.read(&connection(&[frames]), || start), Verdict::Fine);
    }
}
