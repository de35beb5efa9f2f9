//! A value of a store of `folder2lmdb.py` gives a sample or nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|value: &[u8]| pipeline::fuzzing::arrow(value));
