//! Bodies of answers: a document, filler of a given size, or chunks that come one after the other.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// Between two chunks of a stream.
const PACE: Duration = Duration::from_millis(200);
const FILLER: &[u8] = &[b'.'; 64 * 1024];

/// The body of an answer.
pub enum Body {
    /// One document; `None` once it is sent.
    Whole(Option<Bytes>),
    /// So many octets of filler.
    Filler(u64),
    /// Lines, one each [`PACE`].
    Chunks {
        /// How many have been sent.
        sent: u32,
        /// How many there are.
        of: u32,
        /// When the next one is sent.
        next: Pin<Box<Sleep>>,
    },
}

impl Body {
    /// One document.
    pub fn whole(document: Bytes) -> Self {
        Self::Whole((!document.is_empty()).then_some(document))
    }

    /// So many octets of filler, made as they are sent.
    pub fn filler(octets: u64) -> Self {
        Self::Filler(octets)
    }

    /// So many lines, the first at once.
    pub fn chunks(of: u32) -> Self {
        Self::Chunks { sent: 0, of, next: Box::pin(sleep_until(Instant::now())) }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(document) => document.take(),
            Self::Filler(0) => None,
            Self::Filler(left) => {
                let size = usize::try_from(*left).unwrap_or(usize::MAX).min(FILLER.len());
                *left -= size as u64;
                Some(Bytes::from_static(&FILLER[..size]))
            }
            Self::Chunks { sent, of, .. } if sent == of => None,
            Self::Chunks { sent, of, next } => {
                ready!(next.as_mut().poll(context));
                let due = next.deadline() + PACE;
                next.as_mut().reset(due);
                *sent += 1;
                Some(format!("chunk {sent} of {of}\n").into())
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(document) => document.is_none(),
            Self::Filler(left) => *left == 0,
            Self::Chunks { sent, of, .. } => sent == of,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(document) => {
                SizeHint::with_exact(document.as_ref().map_or(0, |document| document.len() as u64))
            }
            Self::Filler(left) => SizeHint::with_exact(*left),
            Self::Chunks { .. } => SizeHint::default(),
        }
    }
}
