//! The properties of `dualgate-core/tests/oracle/dns.rs`.
#![no_main]

#[path = "../../crates/dualgate-core/tests/oracle/dns.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::check(input));
