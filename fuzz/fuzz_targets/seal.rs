//! Fuzzes sealed frames, raw, with lengths, CRC and tag put right, and changed.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::seal(bytes));
