//! A value of a store gives a record or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| pipeline::fuzzing::record(input.1, input.0.into()));
