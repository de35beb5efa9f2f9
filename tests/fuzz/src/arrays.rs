//! Files of the MNIST and CIFAR families give samples or errors.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use datasets::{Cifar, Dataset, Idx};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

libfuzzer_sys::fuzz_target!(|input: (bool, &[u8], &[u8])| {
    let (is_idx, first, second) = input;
    let write = |name: &str, bytes: &[u8]| fs::write(FOLDER.path().join(name), bytes).expect("room");
    if is_idx {
        for prefix in ["train", "t10k"] {
            write(&format!("{prefix}-images-idx3-ubyte"), first);
            write(&format!("{prefix}-labels-idx1-ubyte"), second);
        }
        Idx::open(FOLDER.path(), "mnist").iter().for_each(read);
    } else {
        let folder = FOLDER.path().join("cifar");
        let _ = fs::create_dir(&folder);
        let names = ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
        names.iter().for_each(|name| write(&format!("cifar/{name}"), first));
        write("cifar/test_batch.bin", first);
        write("cifar/batches.meta.txt", second);
        open(&folder);
    }
});

fn open(folder: &Path) {
    Cifar::open(folder).iter().for_each(read);
}

/// The first and the last of each split.
fn read(dataset: &impl Dataset) {
    for (split, part) in dataset.info().splits.iter().enumerate().filter(|(_, part)| part.len > 0) {
        for index in [0, part.len - 1] {
            let _ = dataset.get(split, index);
        }
    }
}
