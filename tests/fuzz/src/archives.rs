//! An archive of pictures gives samples or errors.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use datasets::Source;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

const KINDS: [&str; 4] = ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"];
const SOURCES: [Source; 3] = [Source::Folder, Source::TinyImagenet, Source::Cifar10];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // What it is stands last, so that archives are seeds as they are.
    let Some((&what, archive)) = input.split_last() else { return };
    let path = FOLDER.path().join(KINDS[usize::from(what) % 4]);
    fs::write(&path, archive).expect("room");
    let Ok(dataset) = datasets::open_as(SOURCES[usize::from(what) / 4 % 3], &path) else { return };
    for (split, part) in dataset.info().splits.iter().enumerate() {
        for index in 0..part.len.min(20) {
            let _ = dataset.get(split, index);
        }
    }
});
