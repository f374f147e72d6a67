//! An answer that leaves over HTTP/1.x.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use dualgate_http::{BodyLength, Trailer, Version};

use super::outlet::Outlet;
use crate::headers::{AfterReply, Framing, write_reply};
use crate::transaction::{BodySink, Reply, ReplyHead};

/// Whether the client's connection may carry another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It may.
    Keep,
    /// It may, if the client is asked for the body that it holds back: otherwise nobody knows whether the body comes.
    KeepOnceContinued,
    /// It will be closed after the answer.
    Close,
    /// It is reset: the answer broke off, and its end would be that of the connection.
    Reset,
}

/// One answer.
#[derive(Debug)]
pub struct H1Reply<'c> {
    outlet: Outlet<'c>,
    version: Version,
    persistence: Persistence,
    framing: Framing,
    stage: Stage,
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Body,
    Ended,
}

impl<'c> H1Reply<'c> {
    /// To a request of this version.
    pub fn new(outlet: Outlet<'c>, version: Version, persistence: Persistence) -> Self {
        Self { outlet, version, persistence, framing: Framing::Plain, stage: Stage::Waiting, body_bytes: 0 }
    }

    /// What the connection may do after the answer.
    pub fn finish(self) -> Persistence {
        match (self.stage, self.framing) {
            (Stage::Ended, _) => self.persistence,
            (Stage::Body, Framing::UntilClose) => Persistence::Reset,
            (Stage::Waiting | Stage::Body, _) => Persistence::Close,
        }
    }

    fn after(&self, status: u16) -> AfterReply {
        match (self.persistence, self.version) {
            _ if status == 101 => AfterReply::Changes,
            (Persistence::KeepOnceContinued | Persistence::Close | Persistence::Reset, _) => AfterReply::Closes,
            (Persistence::Keep, Version::Http10) => AfterReply::StaysAsAsked,
            (Persistence::Keep, Version::Http11) => AfterReply::Stays,
        }
    }
}

impl Reply for H1Reply<'_> {
    fn started(&self) -> bool {
        self.stage != Stage::Waiting
    }

    fn interim(&mut self, head: &dyn ReplyHead) -> io::Result<()> {
        // HTTP/1.0 has no interim answers (RFC 9110 15.2).
        if self.version == Version::Http11 {
            if head.status() == 100 && self.persistence == Persistence::KeepOnceContinued {
                self.persistence = Persistence::Keep;
            }
            write_reply(head, Framing::Plain, AfterReply::Stays, 0, self.outlet.out());
        }
        Ok(())
    }

    fn head(&mut self, head: &dyn ReplyHead) -> io::Result<()> {
        let framing = match (head.length(), self.version) {
            (BodyLength::Empty | BodyLength::Length(_), _) => Framing::Plain,
            (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => Framing::Chunked,
            (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => {
                self.persistence = Persistence::Close;
                Framing::UntilClose
            }
        };
        if self.persistence == Persistence::KeepOnceContinued {
            self.persistence = Persistence::Close;
        }
        let after = self.after(head.status());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        write_reply(head, framing, after, now, self.outlet.out());
        self.outlet.frame(framing);
        self.framing = framing;
        self.stage = Stage::Body;
        Ok(())
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

impl BodySink for H1Reply<'_> {
    async fn data(&mut self, data: &[u8]) -> io::Result<()> {
        self.body_bytes += data.len() as u64;
        self.outlet.data(data).await
    }

    async fn end(&mut self, trailers: &[Trailer]) -> io::Result<()> {
        self.stage = Stage::Ended;
        self.outlet.end(trailers).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.outlet.flush().await
    }
}
