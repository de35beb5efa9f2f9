//! How often a loader that runs asks for memory.

use std::sync::atomic::Ordering::Relaxed;

use datasets::Seed;
use pipeline::augment::{self, normalize::Constants};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

use crate::alone;
use crate::converting::{Memory, convert, encoded, noise};
use crate::fitting::CALLS;

/// What is left, some 75 times an epoch, belongs to its threads and its batches: their memory for one picture, lists of numbers, channels.
#[test]
fn a_picture_takes_no_memory_of_its_own() {
    let [thumbnails, photographs] = ["thumbnails", "photographs"].map(measured);
    assert!(thumbnails < 0.1, "{thumbnails} times a thumbnail");
    assert!(photographs < 1.0, "{photographs} times a photograph, of which there are 96");
}

/// How often a picture made a loader ask for memory, in a program where nothing else does.
fn measured(case: &str) -> f64 {
    alone::find("recycling::the_loader_that_is_measured", case).parse().unwrap()
}

/// Not a test by itself: what [`alone::find`] starts.
#[test]
fn the_loader_that_is_measured() {
    let Some((case, tell)) = alone::asked() else { return };
    let (pictures, batch, transforms) = match case.as_str() {
        "thumbnails" => (noise(1024, 64, 64, 3, 1), 128, augment::tiny_train()),
        _ => (noise(96, 250, 300, 3, 1), 32, augment::imagenet_train(224)),
    };
    let count = pictures.len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    convert(&Memory::new(vec![("train", encoded(pictures, image::ImageFormat::Jpeg))]), &path);
    let config = Config { threads: 1, normalize: Constants::None, ..Config::train(batch, transforms, Seed(0)) };
    let loader = Loader::new(Store::open(path).unwrap(), config).unwrap();
    let mut calls = 0;
    for epoch in 0..4 {
        let before = CALLS.load(Relaxed);
        for batch in loader.stream(epoch, 0) {
            loader.recycle(batch.unwrap());
        }
        // The first fills the memory that the others use again.
        calls = CALLS.load(Relaxed) - before;
    }
    tell(&(calls as f64 / count as f64).to_string());
}
