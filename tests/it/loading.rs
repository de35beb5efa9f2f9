//! A store's pictures as batches: the same on any number of threads, from any batch on, in any number of processes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datasets::{Batch, Batches, Dataset, Image, Info, Picture, Sample, Seed, Split, Values};
use expect_test::{Expect, expect};
use pipeline::augment::{self, Augment, Scratch, Transform, normalize::Constants};
use pipeline::decode::{self, Channels};
use pipeline::loader::{Config, Output};
use pipeline::order::{Last, Order, Rules, Shard, plan};
use pipeline::{Loader, Store, convert};
use tempfile::TempDir;

use crate::decoding::{gradient, jpeg};

mod caching;
mod mixing;

/// Pictures in memory, as a data set: one split, `train`.
struct Pictures {
    info: Info,
    pictures: Vec<Picture>,
}

impl Dataset for Pictures {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, _: usize, index: usize) -> datasets::Result<Sample> {
        Ok(Sample { picture: self.pictures[index].clone(), label: index as u32 % 3, name: format!("picture {index}") })
    }
}

/// A store in a folder of its own, which goes with it.
struct Kept {
    store: Store,
    folder: TempDir,
}

impl Kept {
    fn loader(&self, config: Config) -> Loader {
        Loader::new(self.store.clone(), config).unwrap()
    }

    /// An error and its causes, a line each.
    fn render(&self, error: &(dyn std::error::Error + 'static)) -> String {
        let lines: Vec<String> = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
        lines.join("\n  because ").replace(&self.folder.path().display().to_string(), "FOLDER")
    }
}

fn store(pictures: Vec<Picture>) -> Kept {
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    let splits = vec![Split { name: "train".to_owned(), len: pictures.len() }];
    let data = Pictures { info: Info { name: "pictures".to_owned(), classes, splits }, pictures };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pictures.lmdb");
    let options = convert::Options { strict: true, threads: NonZeroUsize::MIN, ..convert::Options::new("memory") };
    convert::convert(&data, &path, &options, &mut |_| ()).unwrap();
    Kept { store: Store::open(path).unwrap(), folder }
}

/// Raw pictures of `height × width`, each another.
fn raw(count: usize, height: usize, width: usize, channels: usize) -> Vec<Picture> {
    let picture = |at: usize| {
        let mut rng = Seed(9).at(at as u64).rng();
        Image::new(height, width, channels, (0..height * width * channels).map(|_| rng.bits() as u8).collect())
    };
    (0..count).map(|at| Picture::Raw(picture(at))).collect()
}

fn image(picture: &Picture) -> &Image {
    match picture {
        Picture::Raw(image) => image,
        Picture::Encoded(_) => panic!("made raw"),
    }
}

fn epoch(loader: &Loader, epoch: u64, first: usize) -> Vec<Batch> {
    loader.epoch(epoch, first).map(Result::unwrap).collect()
}

fn pixels(batch: &Batch) -> &[u8] {
    match &batch.values {
        Values::U8(pixels) => pixels,
        Values::F32(_) => panic!("asked for pixels"),
    }
}

#[test]
fn pixels_arrive_as_stored_channels_first() {
    let pictures = raw(10, 2, 3, 3);
    let store = store(pictures.clone());
    let loader = store.loader(Config::eval("train", 4, Vec::new()));
    assert_eq!((loader.samples(), loader.batches(), loader.sample_shape(), loader.classes()), (10, 3, vec![3, 2, 3], 3));
    let batches = epoch(&loader, 0, 0);
    assert_eq!(batches.iter().map(|batch| batch.shape.clone()).collect::<Vec<_>>(), [[4, 3, 2, 3], [4, 3, 2, 3], [2, 3, 2, 3]]);
    for batch in &batches {
        for (slot, &index) in pixels(batch).chunks(18).zip(&batch.indices) {
            assert_eq!(slot, image(&pictures[index as usize]).to_planes());
        }
        assert_eq!(batch.labels, batch.indices.iter().map(|index| (index % 3) as u32).collect::<Vec<_>>());
        assert_eq!(batch.normalize.as_deref(), store.store.meta().normalize.as_ref(), "for the device to do");
    }
    assert_eq!(batches.iter().flat_map(|batch| batch.indices.clone()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

fn augmented(batch: usize) -> Config {
    let transforms = vec![Transform::PadCrop { size: 8, pad: 2 }, Transform::Flip { p: 0.5 }, Transform::Cutout { length: 4 }];
    Config::train(batch, transforms, Seed(42))
}

#[test]
fn threads_do_not_change_a_batch() {
    let store = store(raw(50, 8, 8, 3));
    let on = |threads| epoch(&store.loader(Config { threads, ..augmented(6) }), 2, 0);
    let want = on(1);
    assert_eq!(want.len(), 9);
    for threads in [2, 3, 8, 20, 0] {
        assert_eq!(on(threads), want, "{threads} threads");
    }
}

#[test]
fn any_epoch_goes_on_from_any_batch() {
    let store = store(raw(50, 8, 8, 1));
    let loader = store.loader(Config { threads: 3, ..augmented(6) });
    let whole = epoch(&loader, 5, 0);
    for first in 0..=whole.len() + 2 {
        assert_eq!(epoch(&loader, 5, first), whole[first.min(whole.len())..], "from batch {first}");
    }
    assert_ne!(epoch(&loader, 6, 0), whole, "another epoch, other batches");
}

#[test]
fn processes_share_an_epoch() {
    let store = store(raw(50, 8, 8, 1));
    let of = |rank, world, batch| epoch(&store.loader(Config { shard: Shard { rank, world }, ..augmented(batch) }), 1, 0);
    let (left, right, alone) = (of(0, 2, 5), of(1, 2, 5), of(0, 1, 10));
    assert_eq!((left.len(), right.len()), (5, 5));
    for ((left, right), alone) in left.iter().zip(&right).zip(&alone) {
        assert_eq!([pixels(left), pixels(right)].concat(), pixels(alone), "two half steps are the whole one, augmentation included");
        assert_eq!([&left.indices[..], &right.indices].concat(), alone.indices);
    }
}

#[test]
fn a_picture_is_augmented_by_its_own_seed() {
    let store = store(raw(12, 8, 8, 3));
    let by_index = |config: Config| {
        let batches = epoch(&store.loader(config), 3, 0);
        let mut all: Vec<(u64, Vec<u8>)> =
            batches.iter().flat_map(|b| b.indices.iter().copied().zip(pixels(b).chunks(192).map(<[u8]>::to_vec))).collect();
        all.sort();
        all
    };
    let shuffled = by_index(augmented(5));
    assert_eq!(shuffled, by_index(Config { order: Order::Sequential, ..augmented(12) }), "whoever else is in the batch");
    assert_ne!(shuffled, by_index(Config { seed: Seed(43), ..augmented(5) }));
}

#[test]
fn floats_are_normalised_pixels() {
    for (channels, normalize) in [(3, Constants::ImageNet), (3, Constants::None), (1, Constants::Store)] {
        let store = store(raw(7, 5, 4, channels));
        let config = Config { normalize, ..Config::eval("train", 3, vec![Transform::Flip { p: 0.5 }]) };
        let plain = epoch(&store.loader(config.clone()), 0, 0);
        let floats = epoch(&store.loader(Config { output: Output::F32, ..config }), 0, 0);
        for (plain, floats) in plain.iter().zip(&floats) {
            let Values::F32(values) = &floats.values else { panic!("asked for floats") };
            assert_eq!(floats.normalize, None, "nothing is left to do");
            for (at, (&value, &pixel)) in values.iter().zip(pixels(plain)).enumerate() {
                let channel = at / 20 % channels;
                let (mean, std) = plain.normalize.as_ref().map_or((0.0, 1.0), |n| (n.mean[channel], n.std[channel]));
                assert_eq!(value, (f32::from(pixel) / 255.0 - mean) / std);
            }
        }
    }
}

#[test]
fn grey_and_colour_become_what_is_asked_for() {
    let colour = Image::new(1, 4, 3, vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]);
    let grey = Image::new(1, 4, 1, vec![1, 2, 3, 4]);
    let first = |pictures: [&Image; 2], channels| {
        let store = store(pictures.map(|image| Picture::Raw(image.clone())).to_vec());
        let loader = store.loader(Config { channels, normalize: Constants::None, ..Config::eval("train", 2, Vec::new()) });
        pixels(&epoch(&loader, 0, 0)[0]).to_vec()
    };
    // ITU-R 601 weighs red, green and blue by 0.299, 0.587 and 0.114.
    assert_eq!(first([&colour, &grey], Channels::Grey), [76, 150, 29, 9, 1, 2, 3, 4]);
    assert_eq!(first([&grey, &grey], Channels::Rgb)[..12], [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]);
    assert_eq!(first([&grey, &colour], Channels::Stored), [1, 2, 3, 4, 76, 150, 29, 9], "as the first picture");
}

#[test]
fn jpegs_of_any_size_make_a_batch() {
    let files = (0..20).map(|at| Picture::Encoded(jpeg(&gradient(30 + at, 50 - at, if at == 7 { 1 } else { 3 })))).collect();
    let store = store(files);
    let train = Config { normalize: Constants::ImageNet, ..Config::train(6, augment::imagenet_train(16), Seed(1)) };
    let loader = store.loader(train);
    assert_eq!(loader.sample_shape(), [3, 16, 16]);
    assert_eq!(epoch(&loader, 0, 0).iter().map(Batch::len).sum::<usize>(), 20);
}

#[test]
fn what_is_decoded_for_a_crop_is_as_cut_from_the_whole() {
    let mut pictures: Vec<Picture> = (0..24).map(|at| Picture::Encoded(jpeg(&gradient(40 + 3 * at, 90 - at, 3)))).collect();
    // Kinds that are decoded whole, too.
    pictures.push(Picture::Encoded(include_bytes!("../golden/decoding/progressive.jpg").to_vec()));
    pictures.extend(raw(3, 50, 40, 3));
    let whole = decode::pictures(&samples(&pictures)).unwrap();
    let store = store(pictures);
    for transforms in [augment::imagenet_train(24), augment::imagenet_eval(24)] {
        let config = Config { normalize: Constants::None, ..Config::train(7, transforms, Seed(4)) };
        let rules =
            Rules { batch: 7, order: Order::Shuffled, last: Last::Keep, shard: Shard::default(), seed: config.seed, labels: [].into() };
        let (augment, plans) = (Augment::new(config.transforms.clone(), None).unwrap(), plan(whole.len(), &rules, 2).unwrap());
        for (number, batch) in epoch(&store.loader(config), 2, 0).iter().enumerate() {
            for (k, (&index, found)) in batch.indices.iter().zip(pixels(batch).chunks(3 * 24 * 24)).enumerate() {
                let mut image = whole[index as usize].clone();
                augment.apply(&mut image, &mut plans.plan(number).seed(k).rng(), &mut Scratch::default()).unwrap();
                assert!(found == image.to_planes(), "picture {index}");
            }
        }
    }
}

fn samples(pictures: &[Picture]) -> Vec<Sample> {
    pictures.iter().map(|picture| Sample { picture: picture.clone(), label: 0, name: String::new() }).collect()
}

#[test]
fn a_short_last_batch_is_kept_or_dropped() {
    let store = store(raw(10, 2, 2, 1));
    let lens = |last| {
        epoch(&store.loader(Config { last, ..Config::train(4, Vec::new(), Seed(0)) }), 0, 0).iter().map(Batch::len).collect::<Vec<_>>()
    };
    assert_eq!(lens(Last::Keep), [4, 4, 2]);
    assert_eq!(lens(Last::Drop), [4, 4]);
}

#[test]
fn given_back_memory_is_used_again_and_seen_by_nobody() {
    let store = store(raw(40, 6, 6, 3));
    let loader = store.loader(Config { threads: 2, ..augmented(7) });
    let want = epoch(&loader, 0, 0);
    for _ in 0..2 {
        let mut got = Vec::new();
        for batch in loader.stream(0, 0) {
            let batch = batch.unwrap();
            got.push(batch.clone());
            loader.recycle(batch);
        }
        assert_eq!(got, want);
    }
}

#[test]
fn batches_can_be_awaited_and_given_up() {
    let store = store(raw(40, 6, 6, 3));
    let loader = store.loader(augmented(4));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let got = runtime.block_on(async {
        let mut stream = loader.stream(1, 0);
        let mut got = Vec::new();
        while got.len() < 5 {
            got.push(stream.next_batch().await.unwrap().unwrap());
        }
        got
    });
    assert_eq!(got, epoch(&loader, 1, 0)[..5]);
}

/// The disk has turned the `from` in the store's file to `to`.
fn rot(store: &Kept, from: &[u8], to: &[u8]) {
    let path = store.store.path();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_broken_record_is_an_error_at_its_place() {
    let mut files: Vec<Vec<u8>> = (0..12).map(|at| jpeg(&gradient(16, 16 + (at == 5) as usize, 3))).collect();
    files[9] = jpeg(&gradient(20, 16, 3));
    let store = store(files.iter().cloned().map(Picture::Encoded).collect());
    rot(&store, &files[5], b"no picture at all");
    let on = |threads| {
        let loader = store.loader(Config { threads, ..Config::eval("train", 3, Vec::new()) });
        let outcome =
            |batch: pipeline::Result<Batch>| batch.map_or_else(|error| store.render(&error), |batch| format!("{:?}", batch.indices));
        loader.stream(0, 0).map(outcome).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(on(1), on(3));
    expect![[r#"
        [0, 1, 2]
        FOLDER/pictures.lmdb: split "train", record 5
          because not a picture that can be decoded
          because JPEG: Error parsing image. Illegal start bytes:6E6F
        [6, 7, 8]
        FOLDER/pictures.lmdb: split "train", record 9
          because cannot be put into the batch
          because wanted 3×16×16 like the split's first picture, found 3×20×16: add a resize or a crop"#]]
    .assert_eq(&on(2));
}

#[test]
fn what_does_not_fit_the_store_is_refused() {
    let store = store(raw(10, 8, 8, 3));
    let check = |config: Config, want: Expect| want.assert_eq(&store.render(&Loader::new(store.store.clone(), config).unwrap_err()));
    check(
        Config { split: "test".to_owned(), ..Config::default() },
        expect![[r#"FOLDER/pictures.lmdb: no split "test"; there is "train""#]],
    );
    check(Config { batch: 0, ..Config::default() }, expect!["batch: wanted at least 1, found 0"]);
    check(Config { last: Last::Drop, ..Config::default() }, expect!["split: wanted enough samples for one batch of 128, found 10"]);
    check(
        Config { transforms: vec![Transform::CentreCrop { size: 9 }], ..Config::default() },
        expect![[r#"
        FOLDER/pictures.lmdb: split "train", record 0
          because cannot be augmented
          because centre_crop: wanted a picture of at least 9×9 pixels, found 8×8"#]],
    );
    check(
        Config { channels: Channels::Grey, normalize: Constants::ImageNet, ..Config::default() },
        expect!["normalize.mean: wanted a number a channel (1), found 3 numbers"],
    );
}

#[test]
fn a_config_is_data() {
    let config: Config =
        serde_json::from_str(r#"{"batch": 64, "transforms": [{"flip": {"p": 0.5}}], "normalize": "imagenet", "seed": 3}"#).unwrap();
    let want = Config {
        batch: 64,
        transforms: vec![Transform::Flip { p: 0.5 }],
        normalize: Constants::ImageNet,
        seed: Seed(3),
        ..Config::default()
    };
    assert_eq!(config, want);
    assert_eq!(serde_json::from_value::<Config>(serde_json::to_value(&config).unwrap()).unwrap(), config);
    let error = serde_json::from_str::<Config>(r#"{"bach": 64}"#).unwrap_err();
    expect!["unknown field `bach`, expected one of `split`, `batch`, `order`, `last`, `shard`, `seed`, `channels`, `transforms`, `mix_up`, `normalize`, `output`, `threads`, `cache` at line 1 column 7"].assert_eq(&error.to_string());
}

#[test]
fn a_loader_is_shared_between_threads() {
    let store = store(raw(30, 4, 4, 1));
    let loader: Arc<dyn Batches> = Arc::new(store.loader(augmented_at(4)));
    let handles: Vec<_> = (0..4)
        .map(|_| Arc::clone(&loader))
        .map(|loader| std::thread::spawn(move || loader.epoch(0, 0).map(|b| b.unwrap().indices).collect::<Vec<_>>()))
        .collect();
    let orders: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
}

fn augmented_at(size: usize) -> Config {
    Config::train(7, vec![Transform::PadCrop { size, pad: 1 }], Seed(0))
}
