//! Fuzzes JSON as properties, and back.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::json(bytes));
