//! A connection to a server that speaks HTTP/1.1.

use std::io;
use std::time::Duration;

use dualgate_http::{BodyLength, HeadError, HeadLimits, Progress, ResponseHead, ResponseView};

use crate::buffer::Buffer;
use crate::io::Io;
use crate::transaction::ReplyHead;

/// A connection, and what was read from it beyond the last answer.
#[derive(Debug)]
pub struct H1Server {
    /// The connection.
    pub io: Io,
    /// What was read.
    pub buffer: Buffer,
    history: History,
    persistent: bool,
    /// See [`Self::give_up_after`].
    pub patience: Option<Duration>,
}

/// Whether a connection has carried a request before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    Fresh,
    Reused,
}

/// Why no head came.
#[derive(Debug, thiserror::Error)]
pub enum AnswerFailure {
    /// The connection ended or broke before the first octet.
    #[error("the server closed the connection without an answer")]
    Nothing,
    /// It broke within the head.
    #[error("read the head of the answer: {0}")]
    Io(#[from] io::Error),
    /// The head is not acceptable.
    #[error("read the head of the answer: {0}")]
    Head(#[from] HeadError),
}

impl H1Server {
    /// Over a connection just opened.
    pub fn new(io: Io) -> Self {
        Self { io, buffer: Buffer::default(), history: History::Fresh, persistent: false, patience: None }
    }

    /// How long the server's kernel may be silent to what is sent. A request that another server could answer as well
    /// does not wait for a machine that is gone; an upload or a tunnel waits, as the machine may come back.
    pub fn give_up_after(&mut self, limit: Option<Duration>) {
        if self.patience != limit {
            self.patience = limit;
            self.io.give_up_after(limit);
        }
    }

    /// It is taken from the pool.
    pub fn reuse(&mut self) {
        self.history = History::Reused;
    }

    /// Whether it was taken from the pool.
    pub fn was_reused(&self) -> bool {
        self.history == History::Reused
    }

    /// Whether nothing has arrived since it was put aside.
    pub fn is_quiet(&self) -> bool {
        self.io.is_quiet()
    }

    /// Says, from the head of an answer, whether the connection can carry another request after it.
    pub fn set_persistent(&mut self, persistent: bool) {
        self.persistent = persistent;
    }

    /// Puts it to rest; whether it can be used again.
    pub fn rest(&mut self) -> bool {
        let clean = self.persistent && self.buffer.is_empty();
        self.buffer.release(self.io.pool());
        clean
    }
}

/// Reads until `buffer` starts with a whole head, and says how long that is. The deadline is one for all of it.
pub async fn read_head(io: &Io, buffer: &mut Buffer, head: &mut ResponseHead) -> Result<usize, AnswerFailure> {
    loop {
        if !buffer.is_empty()
            && let Progress::Complete { len } = head.parse(buffer.filled(), &HeadLimits::default())?
        {
            return Ok(len);
        }
        let nothing = buffer.is_empty();
        match io.read(buffer).await {
            Ok(0) if nothing => return Err(AnswerFailure::Nothing),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => {}
            Err(_) if nothing => return Err(AnswerFailure::Nothing),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A parsed head as what the client's side takes.
#[derive(Debug)]
pub struct ServerHead<'a> {
    /// The head.
    pub view: ResponseView<'a>,
    /// How its body ends.
    pub length: BodyLength,
}

impl ReplyHead for ServerHead<'_> {
    fn status(&self) -> u16 {
        self.view.status()
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for field in self.view.fields().filter(|field| !field.is_hop_by_hop()) {
            visit(field.name, field.value);
        }
        if let Some(protocol) = self.view.upgrade() {
            visit(b"Connection", b"Upgrade");
            visit(b"Upgrade", protocol);
        }
    }

    fn length(&self) -> BodyLength {
        self.length
    }
}
