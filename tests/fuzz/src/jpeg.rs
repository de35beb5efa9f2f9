//! A JPEG file decodes or does not, and a part of it is that part of the whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // The rectangle stands last, so that files are seeds as they are.
    let Some((file, part)) = input.split_last_chunk() else { return };
    pipeline::fuzzing::jpeg(file, *part);
});
