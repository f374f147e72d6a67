//! How much of a message this crate is willing to read before it has a meaning.

/// The most fields a head can have, whatever [`HeadLimits::max_fields`] says: the tokens live on the stack.
pub const MAX_FIELDS: usize = 256;

/// The limits of a request head or a response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the start line to the empty line, both included.
    pub max_bytes: usize,
    /// Fields, hop-by-hop ones included; more than [`MAX_FIELDS`] has no effect.
    pub max_fields: usize,
    /// Bytes of the request target.
    pub max_target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_bytes: 32 * 1024, max_fields: 100, max_target: 8 * 1024 }
    }
}

/// The limits of what surrounds the data of a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailerLimits {
    /// Bytes of the trailer section, line ends included.
    pub max_bytes: usize,
    /// Trailer fields, dropped ones included.
    pub max_fields: usize,
    /// Bytes of the extensions of one chunk.
    pub max_chunk_extension: usize,
    /// Bytes of all chunk extensions of one body.
    pub max_chunk_extensions: usize,
}

impl Default for TrailerLimits {
    fn default() -> Self {
        Self { max_bytes: 8 * 1024, max_fields: 32, max_chunk_extension: 256, max_chunk_extensions: 4 * 1024 }
    }
}
