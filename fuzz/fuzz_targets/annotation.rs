//! Fuzzes annotations, alone and in an envelope.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::annotation(bytes));
