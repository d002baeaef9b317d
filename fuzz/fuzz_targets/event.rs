//! Fuzzes events and contexts, by hand and by serde.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::event(bytes));
