//! How many pictures a second does a loader hand over, by kind of picture and by threads?
//!
//! Each group runs whole epochs of a store in the page cache, and gives the memory of each batch back. Throughput is pictures; divide by the
//! cores that were really free.

#![allow(missing_docs, reason = "criterion's macros write public functions")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datasets::{Batches, Dataset, Image, Info, Picture, Sample, Seed, Split};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pipeline::augment::{self, normalize::Constants};
use pipeline::loader::Config;
use pipeline::{Loader, Store, convert};

/// `len` samples, which go through a few pictures again and again.
struct Pictures {
    info: Info,
    pictures: Vec<Picture>,
}

impl Dataset for Pictures {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, _: usize, index: usize) -> datasets::Result<Sample> {
        let picture = self.pictures[index % self.pictures.len()].clone();
        Ok(Sample { picture, label: 0, name: index.to_string() })
    }
}

fn store(folder: &Path, name: &str, len: usize, pictures: Vec<Picture>) -> Store {
    let info = Info { name: name.to_owned(), classes: vec!["one".to_owned()], splits: vec![Split { name: "train".to_owned(), len }] };
    let path = folder.join(name);
    let options = convert::Options { strict: true, threads: NonZeroUsize::MIN, ..convert::Options::new("bench") };
    convert::convert(&Pictures { info, pictures }, &path, &options, &mut |_| ()).expect("the folder is new");
    Store::open(path).expect("converted just now")
}

/// Soft colours with edges and a grain, which a JPEG spends about as many bits on as on a photograph.
fn picture(seed: u64, height: usize, width: usize, channels: usize) -> Image {
    let mut rng = Seed(seed).rng();
    let stripe = 8 + rng.below(40);
    let mut pixel = |y: usize, x: usize, c: usize| {
        let edge = if ((x + 2 * y) / stripe).is_multiple_of(2) { 60 } else { 0 };
        (y * 100 / height + x * 60 / width + c * 12 + edge + rng.below(14)) as u8
    };
    let mut pixels = Vec::with_capacity(height * width * channels);
    for at in 0..height * width * channels {
        pixels.push(pixel(at / channels / width, at / channels % width, at % channels));
    }
    Image::new(height, width, channels, pixels)
}

fn jpeg(image: &Image) -> Picture {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .write_image(&image.pixels, image.width as u32, image.height as u32, ExtendedColorType::Rgb8)
        .expect("a sound picture");
    Picture::Encoded(bytes)
}

fn loading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for the stores");
    let few = |height, width, channels| (0..32).map(move |seed| picture(seed, height, width, channels));
    let constants = |config| Config { normalize: Constants::None, ..config };
    let train = |batch, transforms| constants(Config::train(batch, transforms, Seed(0)));
    let tiny = store(folder.path(), "jpeg64", 4_000, few(64, 64, 3).map(|p| jpeg(&p)).collect());
    let kinds = [
        ("raw 28×28", store(folder.path(), "raw28", 60_000, few(28, 28, 1).map(Picture::Raw).collect()), train(128, Vec::new())),
        (
            "raw 32×32, cifar",
            store(folder.path(), "raw32", 20_000, few(32, 32, 3).map(Picture::Raw).collect()),
            train(128, augment::cifar_train()),
        ),
        (
            "raw 64×64, tiny",
            store(folder.path(), "raw64", 4_000, few(64, 64, 3).map(Picture::Raw).collect()),
            train(256, augment::tiny_train()),
        ),
        (
            "raw 256×341, imagenet",
            store(folder.path(), "raw256", 192, few(256, 341, 3).map(Picture::Raw).collect()),
            train(64, augment::imagenet_train(224)),
        ),
        ("jpeg 64×64, tiny", tiny.clone(), train(256, augment::tiny_train())),
        ("jpeg 64×64, tiny, kept decoded", tiny, Config { cache: 1 << 30, ..train(256, augment::tiny_train()) }),
        (
            "jpeg 375×500, imagenet",
            store(folder.path(), "jpeg500", 192, few(375, 500, 3).map(|p| jpeg(&p)).collect()),
            train(64, augment::imagenet_train(224)),
        ),
    ];
    for (name, store, config) in kinds {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        for threads in [1, 2] {
            let loader = Loader::new(store.clone(), Config { threads, ..config.clone() }).expect("a sound store");
            group.throughput(Throughput::Elements(loader.samples() as u64));
            let mut epoch = 0;
            group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
                bencher.iter(|| {
                    epoch += 1;
                    for batch in loader.stream(epoch, 0) {
                        loader.recycle(black_box(batch.expect("a sound store")));
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, loading);
criterion_main!(benches);
