//! Fuzzes native frames at the first hop.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| firsthop_fuzz::native(bytes));
