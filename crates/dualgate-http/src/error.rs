//! Why a head is refused: one name for each rule, and the status that answers it.

/// A head that must not be acted upon. The connection ends after the answer: where the message ends is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head is longer than `max_bytes`.
    #[error("head too large")]
    TooLarge,
    /// More fields than `max_fields`.
    #[error("too many fields")]
    TooManyFields,
    /// The request target is longer than `max_target`.
    #[error("request target too long")]
    TargetTooLong,
    /// Not `method SP target SP version CRLF` (RFC 9112 3).
    #[error("malformed request line")]
    RequestLine,
    /// Not `version SP 3DIGIT SP [reason] CRLF` (RFC 9112 4), or a status below 100.
    #[error("malformed status line")]
    StatusLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("unsupported protocol version")]
    Version,
    /// CONNECT: a gateway is not a forward proxy.
    #[error("CONNECT is not offered")]
    Connect,
    /// A line that ends without a carriage return.
    #[error("bare line feed")]
    BareLineFeed,
    /// A carriage return that no line feed follows.
    #[error("bare carriage return")]
    BareCarriageReturn,
    /// A field line that begins with white space (RFC 9112 5.2).
    #[error("obsolete line folding")]
    ObsoleteFold,
    /// White space between field name and colon (RFC 9112 5.1).
    #[error("white space before the colon of a field")]
    SpaceBeforeColon,
    /// A field line that begins with a colon.
    #[error("empty field name")]
    EmptyFieldName,
    /// A field name that is no token, or a line without a colon.
    #[error("malformed field name")]
    FieldName,
    /// A NUL or another control byte in a field value.
    #[error("control byte in a field value")]
    FieldValue,
    /// A target in none of the forms of RFC 9112 3.2, or in one that does not go with the method.
    #[error("malformed request target")]
    Target,
    /// A byte outside of visible ASCII in the target.
    #[error("non-ASCII byte in the request target")]
    TargetByte,
    /// A `#` in the target.
    #[error("fragment in the request target")]
    Fragment,
    /// `user@` in front of a host.
    #[error("user information in the authority")]
    UserInfo,
    /// No `Host` in an HTTP/1.1 request.
    #[error("host is missing")]
    HostMissing,
    /// More than one `Host`.
    #[error("host is given twice")]
    HostDuplicate,
    /// A `Host` or authority that names no host.
    #[error("malformed host")]
    HostInvalid,
    /// The absolute form names another authority than `Host`.
    #[error("target and host disagree")]
    HostMismatch,
    /// `Content-Length` is not a plain decimal number below 2^64.
    #[error("malformed content-length")]
    ContentLength,
    /// `Content-Length` is there twice, be the values equal or not.
    #[error("content-length is given twice")]
    ContentLengthDuplicate,
    /// `Transfer-Encoding` is anything other than one `chunked`.
    #[error("unsupported transfer-encoding")]
    TransferEncoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    #[error("transfer-encoding in HTTP/1.0")]
    TransferEncodingHttp10,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both content-length and transfer-encoding")]
    LengthConflict,
    /// `Connection` names a field that is not its own to remove, such as `Host` or `X-Forwarded-For`.
    #[error("connection names a protected field")]
    ConnectionOption,
    /// `Connection` names more fields than any honest sender does.
    #[error("too many connection options")]
    TooManyConnectionOptions,
}

impl HeadError {
    /// The status that answers a request with this fault. The same fault in a response is always a 502.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields | Self::TooManyConnectionOptions => 431,
            Self::TargetTooLong => 414,
            Self::Connect => 501,
            Self::Version => 505,
            Self::RequestLine
            | Self::StatusLine
            | Self::BareLineFeed
            | Self::BareCarriageReturn
            | Self::ObsoleteFold
            | Self::SpaceBeforeColon
            | Self::EmptyFieldName
            | Self::FieldName
            | Self::FieldValue
            | Self::Target
            | Self::TargetByte
            | Self::Fragment
            | Self::UserInfo
            | Self::HostMissing
            | Self::HostDuplicate
            | Self::HostInvalid
            | Self::HostMismatch
            | Self::ContentLength
            | Self::ContentLengthDuplicate
            | Self::TransferEncoding
            | Self::TransferEncodingHttp10
            | Self::LengthConflict
            | Self::ConnectionOption => 400,
        }
    }
}
