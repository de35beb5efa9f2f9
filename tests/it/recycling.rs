//! How often a loader that runs asks for memory.

use std::sync::atomic::Ordering::Relaxed;

use datasets::Seed;
use pipeline::augment::{self, normalize::Constants};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

use crate::alone;
use crate::converting::{Memory, convert, encoded, noise};
use crate::fitting::CALLS;

/// What is left belongs to threads, batches and their lists: with three times the images in as many batches, it is as much.
#[test]
fn an_image_takes_no_memory_of_its_own() {
    for (images, batch) in [("thumbnails", 64), ("photographs", 16)] {
        let [few, many] = [batch, 3 * batch].map(|batch| measured(images, batch));
        let each = (many - few) / (BATCHES * 2 * batch) as f64;
        assert!(few > 0.0 && each < 0.05, "{images}: {few} calls an epoch, and {each} for each further image");
    }
}

const BATCHES: usize = 3;

/// How often an epoch of a loader asks for memory, in a program where nothing else does.
fn measured(images: &str, batch: usize) -> f64 {
    alone::find("recycling::the_loader_that_is_measured", &format!("{images} {batch}")).parse().unwrap()
}

/// Not a test by itself: what [`alone::find`] starts.
#[test]
fn the_loader_that_is_measured() {
    let Some((case, tell)) = alone::asked() else { return };
    let (images, batch) = case.split_once(' ').unwrap();
    let batch: usize = batch.parse().unwrap();
    let (pictures, transforms) = match images {
        "thumbnails" => (noise(BATCHES * batch, 64, 64, 3, 1), augment::tiny_train()),
        _ => (noise(BATCHES * batch, 250, 300, 3, 1), augment::imagenet_train(224)),
    };
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
    tell(&calls.to_string());
}
