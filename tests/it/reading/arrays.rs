//! Data sets that are arrays in files: idx pairs and CIFAR's records.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use datasets::{Cifar, Dataset, Idx, Source};
use expect_test::expect;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::{check_error, image, real_cifar10, summary, write};
use crate::golden::real;

fn idx(magic: u32, dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let header = [&[magic], dims].concat();
    header.into_iter().flat_map(u32::to_be_bytes).chain(bytes.iter().copied()).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Three training and two test pictures of 2×3.
fn small_mnist() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..18).collect();
    write(folder.path().join("train-images-idx3-ubyte"), idx(0x803, &[3, 2, 3], &pixels));
    write(folder.path().join("train-labels-idx1-ubyte"), idx(0x801, &[3], &[4, 0, 9]));
    write(folder.path().join("t10k-images-idx3-ubyte.gz"), gz(&idx(0x803, &[2, 2, 3], &pixels[..12])));
    write(folder.path().join("t10k-labels-idx1-ubyte.gz"), gz(&idx(0x801, &[2], &[1, 2])));
    folder
}

#[test]
fn idx_pairs_become_splits() {
    let folder = small_mnist();
    let mnist = Idx::open(folder.path(), "mnist").unwrap();
    expect![[r#"
        mnist: 10 classes, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
        train: 3 samples train-images-idx3-ubyte#0 train-images-idx3-ubyte#2, by class [1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
        test: 2 samples t10k-images-idx3-ubyte.gz#0 t10k-images-idx3-ubyte.gz#1, by class [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    "#]]
    .assert_eq(&summary(&mnist));
    let last = image(&mnist, 0, 2);
    assert_eq!((last.height, last.width, last.channels), (2, 3, 1));
    assert_eq!(last.pixels, [12, 13, 14, 15, 16, 17]);
    assert_eq!(Idx::open(folder.path(), "fashion-mnist").unwrap().info().classes[9], "ankle boot");
    assert_eq!(Idx::open(folder.path(), "letters").unwrap().info().classes.len(), 10);
}

#[test]
fn a_broken_idx_pair_says_what_is_wrong() {
    let check = |name: &str, bytes: &[u8], want| {
        let folder = small_mnist();
        write(folder.path().join(name), bytes);
        check_error(folder.path(), Idx::open(folder.path(), "mnist"), want);
    };
    let images = "train-images-idx3-ubyte";
    let packed = gz(&idx(0x803, &[2, 2, 3], &[0; 12]));
    check(
        images,
        &idx(0x803, &[3, 2, 3], &[0; 17]),
        expect!["<folder>/train-images-idx3-ubyte: picture 2 of 3: wanted 6 bytes, found 5 bytes, then the end of the file"],
    );
    check(
        images,
        &idx(0x803, &[3, 2, 3], &[0; 19]),
        expect!["<folder>/train-images-idx3-ubyte: end of the file, after 3 records: wanted no more bytes, found more bytes"],
    );
    check(
        images,
        &idx(0x803, &[u32::MAX, 28, 28], &[0; 18]),
        expect!["<folder>/train-images-idx3-ubyte: picture 0 of 4294967295: wanted 784 bytes, found 18 bytes, then the end of the file"],
    );
    check(
        images,
        &idx(0x803, &[3, u32::MAX, u32::MAX], &[0; 18]),
        expect!["<folder>/train-images-idx3-ubyte: size of a picture: wanted 1 byte to 16 MiB, found [4294967295, 4294967295]"],
    );
    check(
        images,
        &idx(0x801, &[3, 2, 3], &[0; 18]),
        expect!["<folder>/train-images-idx3-ubyte: magic number: wanted 0x00000803, found 0x00000801"],
    );
    check(images, &gz(&[0; 40]), expect!["<folder>/train-images-idx3-ubyte: magic number: wanted 0x00000803, found 0x1f8b0800"]);
    check(images, &[0, 0, 8], expect!["<folder>/train-images-idx3-ubyte: header: wanted 16 bytes, found 3 bytes"]);
    check(
        images,
        &idx(0x803, &[2, 2, 3], &[0; 12]),
        expect!["<folder>/train-labels-idx1-ubyte: number of labels: wanted 2, one for each picture of train-images-idx3-ubyte, found 3"],
    );
    check(
        images,
        &idx(0x803, &[3, 1, 3], &[0; 9]),
        expect!["<folder>/t10k-images-idx3-ubyte.gz: size of a picture: wanted 1×3, found 2×3"],
    );
    check(
        "train-labels-idx1-ubyte",
        &idx(0x801, &[3], &[4, 10, 0]),
        expect!["<folder>/train-labels-idx1-ubyte: label of record 1: wanted 0 to 9, found 10"],
    );
    check(
        "t10k-images-idx3-ubyte.gz",
        &packed[..packed.len() - 4],
        expect!["<folder>/t10k-images-idx3-ubyte.gz: end of the file: wanted a checksum, found nothing"],
    );
    check(
        "t10k-images-idx3-ubyte.gz",
        b"this is no gzip at all",
        expect!["<folder>/t10k-images-idx3-ubyte.gz: cannot read: invalid gzip header"],
    );
    check(
        "train2-images-idx3-ubyte",
        &[],
        expect!["<folder>: contents: wanted train2-labels-idx1-ubyte[.gz] beside its pictures, found no such file"],
    );
}

#[test]
fn a_missing_idx_file_is_missed() {
    let check = |gone: &str, want| {
        let folder = small_mnist();
        fs::remove_file(folder.path().join(gone)).unwrap();
        check_error(folder.path(), Idx::open(folder.path(), "mnist"), want);
    };
    check(
        "train-labels-idx1-ubyte",
        expect!["<folder>: contents: wanted train-labels-idx1-ubyte[.gz] beside its pictures, found no such file"],
    );
    check(
        "t10k-images-idx3-ubyte.gz",
        expect!["<folder>: contents: wanted t10k-images-idx3-ubyte[.gz] beside t10k-labels-idx1-ubyte.gz, found no such file"],
    );
    let folder = tempfile::tempdir().unwrap();
    check_error(
        folder.path(),
        Idx::open(folder.path(), "mnist"),
        expect!["<folder>: contents: wanted idx pairs such as train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], found none"],
    );
}

/// The bytes behind the header of a real file, unpacked here.
fn real_bytes(path: &Path, header: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes.split_off(header)
}

#[test]
fn the_real_mnist_is_read_whole() {
    let Some(folder) = real("mnist") else { return };
    let mnist = datasets::open(&folder).unwrap();
    expect![[r#"
        mnist: 10 classes, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
        train: 60000 samples train-images-idx3-ubyte.gz#0 train-images-idx3-ubyte.gz#59999, by class [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        test: 10000 samples t10k-images-idx3-ubyte.gz#0 t10k-images-idx3-ubyte.gz#9999, by class [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    "#]].assert_eq(&summary(&*mnist));
    let pixels = real_bytes(&folder.join("t10k-images-idx3-ubyte.gz"), 16);
    let labels = real_bytes(&folder.join("t10k-labels-idx1-ubyte.gz"), 8);
    for (index, (pixels, label)) in pixels.chunks(784).zip(labels).enumerate() {
        assert_eq!(image(&*mnist, 1, index).pixels, pixels);
        assert_eq!(mnist.get(1, index).unwrap().label, u32::from(label));
    }
}

#[test]
fn the_real_relatives_of_mnist_have_their_classes() {
    let (Some(fashion), Some(kmnist)) = (real("fashion-mnist"), real("kmnist")) else { return };
    expect![[r#"
        fashion-mnist: 10 classes, t-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot
        train: 60000 samples train-images-idx3-ubyte.gz#0 train-images-idx3-ubyte.gz#59999, by class [6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000, 6000]
        test: 10000 samples t10k-images-idx3-ubyte.gz#0 t10k-images-idx3-ubyte.gz#9999, by class [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000]
    "#]].assert_eq(&summary(&*datasets::open(fashion).unwrap()));
    expect![[r#"
        kmnist: 10 classes, o, ki, su, tsu, na, ha, ma, ya, re, wo
        train: 7011 samples train7011-images-idx3-ubyte.gz#0 train7011-images-idx3-ubyte.gz#7010, by class [690, 690, 695, 702, 757, 708, 688, 708, 672, 701]
        test: 10000 samples t10k-images-idx3-ubyte.gz#0 t10k-images-idx3-ubyte.gz#9999, by class [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000]
    "#]].assert_eq(&summary(&*datasets::open(kmnist).unwrap()));
}

/// A record whose picture has its red plane set to 10 in the first row, its green plane to 20 in the first column, its blue plane to 30 in
/// the last pixel: turned round in any way, it is another picture.
fn record(header: &[u8]) -> Vec<u8> {
    let mut bytes = [header, &[0; 3072]].concat();
    let planes = &mut bytes[header.len()..];
    planes[..32].fill(10);
    planes[1024..2048].iter_mut().step_by(32).for_each(|pixel| *pixel = 20);
    planes[3071] = 30;
    bytes
}

/// By name, the files of a CIFAR-10 with two pictures a batch.
fn small_cifar10() -> Vec<(String, Vec<u8>)> {
    let batch = |k: u8| (format!("data_batch_{k}.bin"), [record(&[k]), record(&[9 - k])].concat());
    (1..=5).map(batch).chain([("test_batch.bin".to_owned(), record(&[0]))]).collect()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).unwrap();
    packed
}

#[test]
fn cifar_pictures_stand_upright() {
    let folder = tempfile::tempdir().unwrap();
    for (k, (name, bytes)) in small_cifar10().into_iter().enumerate() {
        let (ending, bytes) = [("", bytes.clone()), (".gz", gz(&bytes)), (".xz", xz(&bytes))].into_iter().nth(k % 3).unwrap();
        write(folder.path().join(name + ending), bytes);
    }
    let cifar = Cifar::open(folder.path()).unwrap();
    expect![[r#"
        cifar10: 10 classes, airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck
        train: 10 samples data_batch_1.bin#0 data_batch_5.bin.gz#1, by class [0, 1, 1, 1, 2, 2, 1, 1, 1, 0]
        test: 1 samples test_batch.bin.xz#0, by class [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    "#]]
    .assert_eq(&summary(&cifar));
    for (split, index) in [(0, 0), (0, 9), (1, 0)] {
        let picture = image(&cifar, split, index);
        for (at, pixel) in picture.pixels.chunks(3).enumerate() {
            let (row, column) = (at / 32, at % 32);
            let want = [if row == 0 { 10 } else { 0 }, if column == 0 { 20 } else { 0 }, if at == 1023 { 30 } else { 0 }];
            assert_eq!(pixel, want, "row {row}, column {column}");
        }
    }
}

#[test]
fn a_cifar_archive_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cifar-10-binary.tar.gz");
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
    let names = ("batches.meta.txt".to_owned(), b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n".to_vec());
    for (name, bytes) in small_cifar10().into_iter().chain([names]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    expect![[r#"
        cifar10: 10 classes, a, b, c, d, e, f, g, h, i, j
        train: 10 samples data_batch_1.bin#0 data_batch_5.bin#1, by class [0, 1, 1, 1, 2, 2, 1, 1, 1, 0]
        test: 1 samples test_batch.bin#0, by class [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    "#]]
    .assert_eq(&summary(&*datasets::open(&path).unwrap()));
    check_error(
        folder.path(),
        datasets::open_as(Source::Cifar100, &path),
        expect!["<folder>/cifar-10-binary.tar.gz: contents: wanted cifar100, found cifar10"],
    );
    let bytes = fs::read(&path).unwrap();
    write(folder.path().join("cut.tar.gz"), &bytes[..bytes.len() / 2]);
    check_error(
        folder.path(),
        datasets::open(folder.path().join("cut.tar.gz")),
        expect!["<folder>/cut.tar.gz/cifar-10-batches-bin/data_batch_3.bin: end of the file: wanted the rest of the archive, found a cut"],
    );
}

#[test]
fn cifar100_has_fine_labels() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("train.bin"), [record(&[19, 99]), record(&[3, 0])].concat());
    write(folder.path().join("test.bin"), record(&[0, 42]));
    let cifar = Cifar::open(folder.path()).unwrap();
    let class = |split, index| &cifar.info().classes[cifar.get(split, index).unwrap().label as usize];
    assert_eq!([class(0, 0), class(0, 1), class(1, 0)], ["worm", "apple", "leopard"]);
    assert_eq!((cifar.info().classes.len(), image(&cifar, 1, 0)), (100, image(&cifar, 0, 0)));
    write(folder.path().join("test.bin"), record(&[0, 100]));
    check_error(folder.path(), Cifar::open(folder.path()), expect!["<folder>/test.bin: label of record 0: wanted 0 to 99, found 100"]);
}

#[test]
fn a_broken_cifar_says_what_is_wrong() {
    let check = |name: &str, bytes: Option<&[u8]>, want| {
        let folder = tempfile::tempdir().unwrap();
        small_cifar10().into_iter().for_each(|(name, bytes)| write(folder.path().join(name), bytes));
        match bytes {
            Some(bytes) => write(folder.path().join(name), bytes),
            None => fs::remove_file(folder.path().join(name)).unwrap(),
        }
        check_error(folder.path(), Cifar::open(folder.path()), want);
    };
    check("data_batch_3.bin", None, expect!["<folder>: contents: wanted data_batch_3.bin[.gz|.xz], found no such file"]);
    check("test_batch.bin", None, expect!["<folder>: contents: wanted test_batch.bin[.gz|.xz], found no such file"]);
    check(
        "data_batch_2.bin",
        Some(&record(&[1])[..3000]),
        expect!["<folder>/data_batch_2.bin: record 0: wanted 3073 bytes, found 3000 bytes, then the end of the file"],
    );
    check(
        "data_batch_2.bin",
        Some(&[record(&[1]), record(&[10])].concat()),
        expect!["<folder>/data_batch_2.bin: label of record 1: wanted 0 to 9, found 10"],
    );
    check(
        "data_batch_2.bin",
        Some(&[]),
        expect!["<folder>/data_batch_2.bin: record 0: wanted 3073 bytes, found 0 bytes, then the end of the file"],
    );
    check("batches.meta.txt", Some(b"airplane\n"), expect!["<folder>/batches.meta.txt: number of lines: wanted 10, one a class, found 1"]);
    check(
        "train.bin",
        Some(&[]),
        expect![
            "<folder>: contents: wanted data_batch_1.bin to data_batch_5.bin and test_batch.bin, or train.bin and test.bin, each plain, .gz or .xz, found some of both"
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    write(folder.path().join("data_batch_1.bin.xz"), &xz(&record(&[0]))[..60]);
    check_error(
        folder.path(),
        Cifar::open(folder.path()),
        expect!["<folder>/data_batch_1.bin.xz: end of the file: wanted more records, found a cut after 2595 bytes"],
    );
}

#[test]
fn the_real_cifar10_is_read_whole() {
    let Some(cifar) = real_cifar10() else { return };
    expect![[r#"
        cifar10: 10 classes, airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck
        train: 50000 samples data_batch_1.bin.xz#0 data_batch_5.bin.xz#9999, by class [5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000, 5000]
        test: 10000 samples test_batch.bin.xz#0 test_batch.bin.xz#9999, by class [1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000]
    "#]].assert_eq(&summary(cifar));
    let labels: Vec<u32> = (0..10).map(|index| cifar.get(0, index).unwrap().label).collect();
    assert_eq!(labels, [6, 9, 9, 4, 1, 1, 2, 7, 8, 3], "the first labels of data_batch_1, as every tutorial prints them");
    let frog = image(cifar, 0, 0);
    assert_eq!(frog.pixels[..6], [59, 62, 63, 43, 46, 45], "its first two pixels");
}
