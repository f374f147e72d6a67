//! nftables as text, as expressions and as bytes.

mod batch;
mod dump;
mod examples;
mod refusals;
mod words;
