//! One request and its answer, whichever version of HTTP carries them.
//!
//! The forwarding path is written once against these traits; `h1` and `h2` implement them for the client's side.
//! [`BodySource`] and [`ReplyHead`] are also what a server's answer looks like.

#![expect(async_fn_in_trait, reason = "these futures stay on their worker's thread and need no bounds")]

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use dualgate_http::{BodyError, BodyLength, HeadView, Trailer};

use crate::buffer::Buffer;
use crate::io::Io;

/// A piece of a body.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Some of it; never empty.
    Data(&'a [u8]),
    /// Its end.
    End(&'a [Trailer]),
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyFailure {
    /// The connection broke.
    #[error("read the body: {0}")]
    Io(#[from] io::Error),
    /// The framing was broken.
    #[error("read the body: {0}")]
    Framing(#[from] BodyError),
    /// HTTP/2 reset the stream.
    #[error("read the body: {0}")]
    Stream(#[from] h2::Error),
    /// It is larger than the site allows.
    #[error("the body is larger than allowed")]
    TooLarge,
}

/// Where a body comes from.
pub trait BodySource {
    /// The next piece. It stays valid until the next call; after the end, do not call again.
    async fn next(&mut self) -> Result<Piece<'_>, BodyFailure>;

    /// Returns when whoever sent it has gone away: for after the end, while something else is waited for.
    async fn gone(&mut self);
}

/// Where a body goes to.
pub trait BodySink {
    /// Some of it. It may be held back, to leave together with more.
    async fn data(&mut self, data: &[u8]) -> io::Result<()>;
    /// Its end; nothing is held back any more.
    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()>;
    /// Sends what is held back.
    async fn flush(&mut self) -> io::Result<()>;
}

/// The head of an answer.
pub trait ReplyHead {
    /// 100 to 999.
    fn status(&self) -> u16;
    /// Visits the end-to-end fields in the order sent.
    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// How its body ends.
    fn length(&self) -> BodyLength;
    /// Whether trailers may follow a body of a length that was said.
    fn may_have_trailers(&self) -> bool {
        false
    }
}

/// Where an answer goes to; its body goes into it.
pub trait Reply: BodySink {
    /// Whether the final head has been given: from then on no other answer is possible.
    fn started(&self) -> bool;
    /// A 1xx answer, to be followed by another.
    fn interim(&mut self, head: &dyn ReplyHead) -> io::Result<()>;
    /// The final head.
    fn head(&mut self, head: &dyn ReplyHead) -> io::Result<()>;
    /// Octets of the body so far.
    fn body_bytes(&self) -> u64;
}

/// One request and its answer.
pub trait Transaction {
    /// What was asked.
    type Head: HeadView;
    /// The request's body.
    type Body: BodySource;
    /// Its answer.
    type Reply: Reply;

    /// All three, to be used side by side.
    fn parts(&mut self) -> (&Self::Head, &mut Self::Body, &mut Self::Reply);

    /// The protocol that the client wants to change to.
    fn upgrade(&self) -> Option<&[u8]>;

    /// The connection itself, once the answer 101 was sent.
    fn tunnel(&mut self) -> Option<(&Io, &mut Buffer)>;
}

/// Which side of a relay failed.
#[derive(Debug)]
pub enum RelayFailure {
    /// The source.
    Source(BodyFailure),
    /// The sink: whoever should take it has gone, and only that matters.
    Sink,
}

/// Moves a whole body. What the sink holds back is sent before waiting for more.
pub async fn relay(source: &mut impl BodySource, sink: &mut impl BodySink) -> Result<u64, RelayFailure> {
    let mut total = 0;
    loop {
        let piece = {
            let mut next = pin!(source.next());
            match poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
                Poll::Ready(piece) => piece,
                Poll::Pending => {
                    sink.flush().await.map_err(|_| RelayFailure::Sink)?;
                    next.await
                }
            }
        };
        match piece.map_err(RelayFailure::Source)? {
            Piece::Data(data) => {
                total += data.len() as u64;
                sink.data(data).await.map_err(|_| RelayFailure::Sink)?;
            }
            Piece::End(trailers) => {
                sink.end(trailers).await.map_err(|_| RelayFailure::Sink)?;
                return Ok(total);
            }
        }
    }
}
