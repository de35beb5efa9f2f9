//! How many pictures a second does a loader hand over, by kind of picture and by threads?
//!
//! Each group runs whole epochs of a store in the page cache, and gives the memory of each batch back. Throughput is pictures; divide by the
//! cores that were really free.

#![allow(missing_docs, reason = "criterion's macros write public functions")]

mod pictures;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use datasets::{Batches, Picture, Seed};
use pipeline::Loader;
use pipeline::augment::{self, normalize::Constants};
use pipeline::loader::Config;

use pictures::{jpeg, picture, store};

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
