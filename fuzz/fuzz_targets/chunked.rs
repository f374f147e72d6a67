//! Chunked bodies: the properties of `dualgate-http/tests/oracle/chunked.rs`.
#![no_main]

#[path = "../../crates/dualgate-http/tests/oracle/chunked.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::check(input));
