//! The metadata of a message that a server sends gives a schema, a record batch, or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| pipeline::fuzzing::flight(message));
