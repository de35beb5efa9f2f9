//! Any index of rows leads to a picture or to none.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // Last the rectangle, before it how long the index is, and before that the index; so a file comes first, as it is.
    let Some((rest, part)) = input.split_last_chunk() else { return };
    let Some((&len, rest)) = rest.split_last() else { return };
    let Some(at) = rest.len().checked_sub(len.into()) else { return };
    let (file, index) = rest.split_at(at);
    pipeline::fuzzing::rows(file, index, *part);
});
