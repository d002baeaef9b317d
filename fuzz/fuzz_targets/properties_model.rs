//! Fuzzes blocks of properties, from a tree of values.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: firsthop_fuzz::Map| firsthop_fuzz::properties_model(&input));
