//! Fuzzes the deduplicating structures, against plain ones.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: Vec<firsthop_fuzz::Step>| firsthop_fuzz::windows(&input));
