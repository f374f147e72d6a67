//! The properties of `dualgate-core/tests/oracle/objects.rs`.
#![no_main]

#[path = "../../crates/dualgate-core/tests/oracle/objects.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::check_annotation(input));
