//! Fuzzes frames, raw and with lengths, CRC and tag put right.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::frame(bytes));
