//! What the gate itself answers: the one place where a failure becomes a status.

use dualgate_http::{BodyError, BodyLength, HeadError, PathError};

use crate::transaction::{BodyFailure, Reply, ReplyHead};

/// Why the gate answers instead of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head of the request is not acceptable.
    Head(HeadError),
    /// Its path is not.
    Path(PathError),
    /// Its body is not.
    Body(BodyError),
    /// It came without TLS where TLS is spoken.
    WithoutTls,
    /// A field's name has an underscore.
    Underscore,
    /// More fields than allowed.
    TooManyFields,
    /// The body is larger than allowed.
    TooLarge,
    /// The head or the body did not arrive in time.
    SlowClient,
    /// No route serves this host and path.
    NoRoute,
    /// The route leads nowhere: the Ingress names what does not exist.
    Unavailable,
    /// The backend has no endpoint.
    NoEndpoints,
    /// No server could be reached.
    Unreachable,
    /// The server's answer was broken, or it ended before its answer.
    BadAnswer,
    /// The server did not answer in time.
    SlowServer,
}

impl Refusal {
    /// The status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Head(error) => error.status(),
            Self::Body(error) => error.status(),
            Self::Path(_) | Self::Underscore | Self::WithoutTls => 400,
            Self::TooManyFields => 431,
            Self::TooLarge => 413,
            Self::SlowClient => 408,
            Self::NoRoute => 404,
            Self::Unreachable | Self::BadAnswer => 502,
            Self::Unavailable | Self::NoEndpoints => 503,
            Self::SlowServer => 504,
        }
    }

    /// What people read. It tells nothing about the inside: `explain` and the log do.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Head(_) | Self::Path(_) | Self::Body(_) | Self::Underscore => "The request is malformed.",
            Self::WithoutTls => "This is an HTTPS port, and the request came without TLS.",
            Self::TooManyFields => "The request has too many header fields.",
            Self::TooLarge => "The request is too large.",
            Self::SlowClient => "The request did not arrive in time.",
            Self::NoRoute => "No site is configured for this address.",
            Self::Unavailable | Self::NoEndpoints => "The application is not running at the moment.",
            Self::Unreachable => "The application could not be reached.",
            Self::BadAnswer => "The application gave no valid answer.",
            Self::SlowServer => "The application did not answer in time.",
        }
    }

    /// A word for log and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Head(_) => "bad-head",
            Self::Path(_) => "bad-path",
            Self::Body(_) => "bad-body",
            Self::Underscore => "underscore",
            Self::WithoutTls => "without-tls",
            Self::TooManyFields => "too-many-fields",
            Self::TooLarge => "too-large",
            Self::SlowClient => "slow-client",
            Self::NoRoute => "no-route",
            Self::Unavailable => "unavailable",
            Self::NoEndpoints => "no-endpoints",
            Self::Unreachable => "unreachable",
            Self::BadAnswer => "bad-answer",
            Self::SlowServer => "slow-server",
        }
    }

    /// Gives this answer. A `HEAD` request gets no body.
    pub async fn give(&self, head_only: bool, reply: &mut impl Reply) -> std::io::Result<()> {
        let body = format!("{} {}\n", self.status(), self.text());
        reply.head(&OwnHead { status: self.status(), length: body.len(), head_only })?;
        if !head_only {
            reply.data(body.as_bytes()).await?;
        }
        reply.end(&[]).await
    }
}

impl From<BodyFailure> for Option<Refusal> {
    /// `None` where the client is gone and no answer makes sense.
    fn from(failure: BodyFailure) -> Self {
        match failure {
            BodyFailure::Framing(error) => Some(Refusal::Body(error)),
            BodyFailure::TooLarge => Some(Refusal::TooLarge),
            BodyFailure::Io(_) | BodyFailure::Stream(_) => None,
        }
    }
}

struct OwnHead {
    status: u16,
    length: usize,
    head_only: bool,
}

impl ReplyHead for OwnHead {
    fn status(&self) -> u16 {
        self.status
    }

    fn for_each_field(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        visit(b"Content-Type", b"text/plain; charset=utf-8");
        visit(b"Content-Length", self.length.to_string().as_bytes());
        visit(b"Cache-Control", b"no-store");
        visit(b"X-Content-Type-Options", b"nosniff");
    }

    fn length(&self) -> BodyLength {
        if self.head_only { BodyLength::Empty } else { BodyLength::Length(self.length as u64) }
    }
}
