//! Request heads: the properties of `dualgate-http/tests/oracle/request_head.rs`.
#![no_main]

#[path = "../../crates/dualgate-http/tests/oracle/request_head.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::check(input));
