//! Pure HTTP/1.1: heads, bodies, canonical paths, authorities, forwarding fields, header patches.
//!
//! A sans-IO codec for both sides of a gateway: requests of clients, responses of pods. It owns no socket, no clock and,
//! between two requests, no memory that grows: the caller keeps the buffers, the codec keeps ranges into them.
//!
//! | bytes | meaning |
//! |---|---|
//! | request line and fields | [`RequestHead`] -> [`RequestView`] |
//! | status line and fields | [`ResponseHead`] -> [`ResponseView`] |
//! | what follows a head | [`BodyDecoder`], [`encode_chunk_header`], [`encode_last_chunk`] |
//! | path of the target | [`CanonicalPath`]: routed, checked and forwarded in this one form |
//! | `Host`, authority | [`parse_authority`] |
//! | `Forwarded`, `X-Forwarded-*` | [`is_forwarding_header`], [`write_forwarded`] |
//! | what is sent | [`write_request_line`], [`write_status_line`], [`write_field`], [`HeaderPatch`] |
//!
//! One rule stands above the others: **a message that two parsers could read differently is refused**. Each refusal is a
//! variant of [`HeadError`], [`BodyError`], [`PathError`] or [`AuthorityError`].
//!
//! No function of this crate panics, whatever bytes a peer sends (fuzzed; `tests/properties.rs`).

mod authority;
mod body;
mod error;
mod field;
mod forwarded;
mod index;
mod limits;
mod patch;
mod path;
mod request;
mod response;
mod syntax;
mod target;
mod trailer;
mod view;
mod write;

pub use authority::{Authority, AuthorityError, Host, parse_authority};
pub use body::{BodyDecoder, BodyError, BodyLength, CHUNK_END, Step, encode_chunk_header, encode_last_chunk};
pub use error::HeadError;
pub use field::{Field, FieldKind, Underscore};
pub use forwarded::{Forwarded, is_forwarding_header, write_forwarded, write_ip};
pub use index::{Progress, Version};
pub use limits::{HeadLimits, MAX_FIELDS, TrailerLimits};
pub use patch::{HeaderPatch, HeaderPatchBuilder, PatchError};
pub use path::{CanonicalPath, PathError, check_query, split_query};
pub use request::{RequestHead, RequestView};
pub use response::{ResponseHead, ResponseView};
pub use target::{Scheme, Target};
pub use trailer::{Trailer, is_forbidden_trailer};
pub use view::HeadView;
pub use write::{
    WriteError, try_write_field, write_date, write_decimal, write_field, write_request_line, write_status_line,
};
