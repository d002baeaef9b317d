//! Fuzzes ids and keys as text.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::ids(bytes));
