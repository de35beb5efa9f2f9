//! The hub's loaders, fed by a server on this machine that has parquet files as the hub has them, made from the real data.
//!
//! The hub's client takes its address and its cache from the environment, so each loader runs in a process of its own: this test binary
//! again, with one test picked out and told by a variable what to do.

use std::{collections::BTreeMap, env, io::Read, process::Command, sync::Arc};

use candle::{DType, Device, Tensor};

use candle_datasets::vision;
use datasets::{
    Dataset, Idx,
    hub::{self, Axes, from_candle},
};
use expect_test::expect;
use flate2::read::GzDecoder;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use parquet::{
    data_type::{ByteArray, ByteArrayType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::{Answer, serve, sha256};
use crate::golden::real;
use crate::reading::{check_error, image, real_cifar10};

/// Set in the child process: which loader to run, and the digest that its pictures should have.
const LOADER: &str = "TOPOLAB_TEST_HUB_LOADER";
const DIGEST: &str = "TOPOLAB_TEST_HUB_DIGEST";

/// How many pictures of each split are served. All of them would take minutes to pack.
const SOME: usize = 1500;

/// A parquet file as the hub's converter makes them: a picture as a group of PNG bytes and a path, a label as an integer.
fn parquet(column: &str, dataset: &dyn Dataset, split: usize) -> Vec<u8> {
    let schema = format!(
        "message schema {{ optional group {column} {{ optional binary bytes; optional binary path (UTF8); }} optional int64 label; }}"
    );
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let (mut pictures, mut paths, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..SOME {
        let picture = image(dataset, split, index);
        let colour = if picture.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let mut png = Vec::new();
        PngEncoder::new(&mut png).write_image(&picture.pixels, picture.width as u32, picture.height as u32, colour).unwrap();
        pictures.push(ByteArray::from(png));
        paths.push(ByteArray::from(format!("{index}.png").into_bytes()));
        labels.push(i64::from(dataset.get(split, index).unwrap().label));
    }
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let deep = vec![2; SOME];
    for values in [pictures, paths] {
        let mut writer = group.next_column().unwrap().unwrap();
        writer.typed::<ByteArrayType>().write_batch(&values, Some(&deep), None).unwrap();
        writer.close().unwrap();
    }
    let mut labels_writer = group.next_column().unwrap().unwrap();
    labels_writer.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; SOME]), None).unwrap();
    labels_writer.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

/// A digest of the sizes, pixels and labels of the first samples of both splits.
fn digest(dataset: &dyn Dataset) -> String {
    let mut bytes = Vec::new();
    for (split, index) in (0..2).flat_map(|split| (0..SOME).map(move |index| (split, index))) {
        let picture = image(dataset, split, index);
        bytes.extend([picture.height, picture.width, picture.channels].map(|size| size as u8));
        bytes.extend(picture.pixels);
        bytes.push(dataset.get(split, index).unwrap().label as u8);
    }
    sha256(&bytes)
}

/// The hub's loader gives, from files made of what our reader gives, the same.
#[track_caller]
fn check_loader(loader: &str, dataset: &dyn Dataset, repository: &str, config: &str, column: &str) {
    let place = |split: &str| format!("/datasets/{repository}/resolve/refs%2Fconvert%2Fparquet/{config}/{split}/0000.parquet");
    let files = BTreeMap::from([(place("train"), parquet(column, dataset, 0)), (place("test"), parquet(column, dataset, 1))]);
    let server = serve(move |_, request| match files.get(&request.path) {
        None => Answer { status: "404 Not Found", headers: vec![], body: vec![] },
        Some(file) => {
            let etag = format!("\"{}\"", sha256(file));
            let headers = vec![("Content-Length", file.len().to_string()), ("ETag", etag), ("X-Repo-Commit", "0123456789".repeat(4))];
            let body = if request.method == "HEAD" { Vec::new() } else { file.clone() };
            Answer { status: "200 OK", headers, body }
        }
    });
    let cache = tempfile::tempdir().unwrap();
    for (run, requests) in [("first", 4), ("second", 0)] {
        let before = server.asked.lock().unwrap().len();
        let output = Command::new(env::current_exe().unwrap())
            .args(["downloading::hub::a_loader_in_a_process_of_its_own", "--exact", "--nocapture"])
            .envs([(LOADER, loader), (DIGEST, &digest(dataset)), ("HF_ENDPOINT", &server.address), ("NO_PROXY", "127.0.0.1")])
            .env("HF_HOME", cache.path())
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("1 passed"), "{run} run: {said}");
        let asked = server.asked.lock().unwrap()[before..].to_vec();
        assert_eq!(asked.len(), requests, "{run} run: a HEAD and a GET for each file, then the cache: {asked:?}");
    }
}

/// Does nothing unless a test below has started this process.
#[test]
fn a_loader_in_a_process_of_its_own() {
    let Ok(loader) = env::var(LOADER) else { return };
    let dataset = match loader.as_str() {
        "mnist" => hub::mnist(),
        "fashion-mnist" => hub::fashion_mnist(),
        _ => hub::cifar10(),
    };
    let dataset = dataset.unwrap();
    assert_eq!(dataset.info().name, loader);
    assert_eq!(dataset.info().splits.iter().map(|split| split.len).collect::<Vec<_>>(), [SOME, SOME]);
    assert_eq!(digest(&dataset), env::var(DIGEST).unwrap(), "other pictures or labels than the files");
}

#[test]
fn the_hubs_mnist_is_the_files_mnist() {
    let Some(folder) = real("mnist") else { return };
    check_loader("mnist", &*datasets::open(folder).unwrap(), "ylecun/mnist", "mnist", "image");
}

#[test]
fn the_hubs_fashion_mnist_is_the_files_fashion_mnist() {
    let Some(folder) = real("fashion-mnist") else { return };
    check_loader("fashion-mnist", &*datasets::open(folder).unwrap(), "zalando-datasets/fashion_mnist", "fashion_mnist", "image");
}

#[test]
fn the_hubs_cifar10_is_the_files_cifar10() {
    let Some(cifar) = real_cifar10() else { return };
    check_loader("cifar10", cifar, "cifar10", "plain_text", "img");
}

fn vision(images: &Tensor, labels: &[u8]) -> vision::Dataset {
    let labels = Tensor::new(labels, &Device::Cpu).unwrap();
    let (train_images, train_labels) = (images.clone(), labels.clone());
    vision::Dataset { train_images, train_labels, test_images: images.clone(), test_labels: labels, labels: 10 }
}

fn classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

#[test]
fn an_asymmetric_picture_is_turned_back() {
    // Two pictures of three channels, two rows, four columns, all bytes different.
    let upright = Tensor::arange(0u8, 48, &Device::Cpu).unwrap().reshape((2, 3, 2, 4)).unwrap();
    let levels = (upright.to_dtype(DType::F32).unwrap() / 255.0).unwrap();
    let swapped = levels.transpose(2, 3).unwrap();
    for (images, axes) in [(levels, Axes::Upright), (swapped, Axes::Swapped)] {
        let memory = from_candle("x", classes(3), &vision(&images, &[2, 0]), axes).unwrap();
        let second = image(&memory, 1, 1);
        assert_eq!((second.height, second.width, second.channels), (2, 4, 3));
        assert_eq!(second.to_planes(), (24..48).collect::<Vec<u8>>(), "{axes:?}");
        assert_eq!(memory.get(0, 0).unwrap().label, 2);
    }
}

#[test]
fn every_byte_survives_candles_division() {
    let all = Tensor::from_vec((0..=255u8).cycle().take(256 * 4).collect(), (4, 256), &Device::Cpu).unwrap();
    let levels = (all.to_dtype(DType::F32).unwrap() / 255.0).unwrap();
    let memory = from_candle("x", classes(1), &vision(&levels, &[0; 4]), Axes::Upright).unwrap();
    assert_eq!(image(&memory, 0, 3).pixels, (0..=255).collect::<Vec<u8>>());
}

#[test]
fn tensors_of_another_shape_are_refused() {
    let here = std::path::Path::new("nowhere");
    let images = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    check_error(
        here,
        from_candle("x", classes(3), &vision(&images(&[3, 4]), &[2, 0]), Axes::Upright),
        expect!["x: images of train: wanted 2 pictures, found [3, 4]"],
    );
    check_error(
        here,
        from_candle("x", classes(3), &vision(&images(&[2, 5]), &[2, 0]), Axes::Upright),
        expect!["x: images of train: wanted 2 pictures, found [2, 5]"],
    );
    check_error(
        here,
        from_candle("x", classes(2), &vision(&images(&[2, 4]), &[2, 0]), Axes::Upright),
        expect!["x: label of record 0: wanted 0 to 1, found 2"],
    );
}

/// candle has a reader of idx files of its own: a second implementation.
#[test]
fn candle_reads_the_same_idx_files() {
    let Some(real) = real("mnist") else { return };
    let folder = tempfile::tempdir().unwrap();
    // The test pair, also under the names of the training pair: candle wants both.
    for (from, to) in [("t10k", "t10k"), ("t10k", "train")] {
        for kind in ["images-idx3", "labels-idx1"] {
            let mut bytes = Vec::new();
            GzDecoder::new(std::fs::File::open(real.join(format!("{from}-{kind}-ubyte.gz"))).unwrap()).read_to_end(&mut bytes).unwrap();
            std::fs::write(folder.path().join(format!("{to}-{kind}-ubyte")), bytes).unwrap();
        }
    }
    let theirs = vision::mnist::load_dir(folder.path()).unwrap();
    let theirs = from_candle("mnist", classes(10), &theirs, Axes::Upright).unwrap();
    let ours = Idx::open(folder.path(), "mnist").unwrap();
    assert_eq!(ours.info(), theirs.info());
    for (split, index) in (0..2).flat_map(|split| (0..10_000).map(move |index| (split, index))) {
        assert_eq!(image(&ours, split, index), image(&theirs, split, index));
        assert_eq!(ours.get(split, index).unwrap().label, theirs.get(split, index).unwrap().label);
    }
}
