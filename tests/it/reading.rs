//! Reading public data sets: what is in the files comes out, and what is wrong with them is said.

mod archives;
mod arrays;
mod trees;

use std::{
    error::Error as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use datasets::{Dataset, Error, Image, Picture, Seed, Shapes, Source, Subset, synthetic::shapes};
use expect_test::{Expect, expect};

use crate::golden::real;
use crate::skips::{Lacks, skip};

/// The real CIFAR-10, unpacked once for all tests: it takes seconds.
pub(crate) fn real_cifar10() -> Option<&'static dyn Dataset> {
    static CIFAR: OnceLock<Box<dyn Dataset>> = OnceLock::new();
    // Asked by each test, so that each is counted that skips.
    let folder = real("cifar10")?;
    Some(&**CIFAR.get_or_init(|| datasets::open(folder).unwrap()))
}

/// An archive of the real data, unpacked by the `zstd` and `tar` of this machine, where it has them.
pub(crate) fn unpacked(name: &str) -> Option<tempfile::TempDir> {
    let archive = real(name)?;
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new("tar").args(["--use-compress-program=zstd", "-xf"]).arg(archive).arg("-C").arg(folder.path()).status();
    if !done.is_ok_and(|status| status.success()) {
        skip(Lacks::Zstd, format!("`tar` and `zstd` cannot unpack {name}"));
        return None;
    }
    Some(folder)
}

/// The pixels of sample `index`.
pub(crate) fn image(dataset: &dyn Dataset, split: usize, index: usize) -> Image {
    match dataset.get(split, index).unwrap().picture {
        Picture::Raw(image) => image,
        Picture::Encoded(_) => panic!("a picture file"),
    }
}

/// Name, splits and classes, and the number of samples of the first classes.
fn summary(dataset: &dyn Dataset) -> String {
    let info = dataset.info();
    let mut text = format!("{}: {} classes, {}", info.name, info.classes.len(), info.classes[..info.classes.len().min(10)].join(", "));
    for (split, part) in info.splits.iter().enumerate() {
        let mut counts = vec![0; info.classes.len()];
        let mut names = String::new();
        for index in 0..part.len {
            let sample = dataset.get(split, index).unwrap();
            counts[sample.label as usize] += 1;
            if index == 0 || index + 1 == part.len {
                names += &format!(" {}", sample.name);
            }
        }
        counts.truncate(10);
        text += &format!("\n{}: {} samples{names}, by class {counts:?}", part.name, part.len);
    }
    text + "\n"
}

/// The message, with its causes, where `folder` is written `<folder>`.
#[track_caller]
pub(crate) fn check_error<T>(folder: &Path, result: Result<T, Error>, want: Expect) {
    let error = result.err().expect("an error");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    want.assert_eq(&text.replace(&*folder.to_string_lossy(), "<folder>"));
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[track_caller]
fn check_guess(files: &[&str], want: Source) {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        write(folder.path().join(file), "");
    }
    let root = folder.path().join(files[0].split('/').next().unwrap());
    assert_eq!(datasets::guess(root).unwrap(), want, "{files:?}");
}

#[test]
fn a_folder_tells_by_its_names_what_it_is() {
    check_guess(&["mnist/train-images-idx3-ubyte.gz"], Source::Mnist);
    check_guess(&["MNIST/raw/train-images-idx3-ubyte"], Source::Mnist);
    check_guess(&["fashion-mnist/train-images-idx3-ubyte.gz"], Source::FashionMnist);
    check_guess(&["kmnist/train7011-images-idx3-ubyte.gz", "kmnist/kmnist_classmap.csv"], Source::Kmnist);
    check_guess(&["digits/t10k-images.idx3-ubyte"], Source::Idx);
    check_guess(&["data/data_batch_1.bin.xz"], Source::Cifar10);
    check_guess(&["data/cifar-10-batches-bin/test_batch.bin"], Source::Cifar10);
    check_guess(&["data/cifar-100-binary/train.bin"], Source::Cifar100);
    check_guess(&["data/tiny-imagenet-200/train/n01/images/n01_0.JPEG", "data/tiny-imagenet-200/wnids.txt"], Source::TinyImagenet);
    check_guess(&["data/train/n01/a.JPEG", "data/val/ILSVRC2012_val_00000001.JPEG"], Source::Imagenet);
    check_guess(&["data/train/cats/a.JPEG", "data/val/cats/b.JPEG"], Source::Folder);
    check_guess(&["pets/cats/a.png", "pets/dogs/b.jpg"], Source::Folder);
    check_guess(&["data/pets/cats/a.png", "data/pets/dogs/b.jpg"], Source::Folder);
}

#[test]
fn what_cannot_be_read_says_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    check_error(
        path,
        datasets::open(path),
        expect![
            "<folder>: contents: wanted a folder with idx files (train-images-idx3-ubyte[.gz]), CIFAR's .bin files or its .tar.gz, a TinyImageNet folder or archive, or class folders of .jpg, .jpeg or .png files (<class>/.. or train/<class>/..), also in a .zip or .tar[.gz], found an empty folder"
        ],
    );
    check_error(path, datasets::open(path.join("gone")), expect!["<folder>/gone: cannot open: No such file or directory (os error 2)"]);
    write(path.join("notes.txt"), "nothing");
    check_error(
        path,
        datasets::open(path),
        expect![
            "<folder>: contents: wanted a folder with idx files (train-images-idx3-ubyte[.gz]), CIFAR's .bin files or its .tar.gz, a TinyImageNet folder or archive, or class folders of .jpg, .jpeg or .png files (<class>/.. or train/<class>/..), also in a .zip or .tar[.gz], found notes.txt"
        ],
    );
    check_error(
        path,
        datasets::open(path.join("notes.txt")),
        expect![
            "<folder>/notes.txt: contents: wanted a folder with idx files (train-images-idx3-ubyte[.gz]), CIFAR's .bin files or its .tar.gz, a TinyImageNet folder or archive, or class folders of .jpg, .jpeg or .png files (<class>/.. or train/<class>/..), also in a .zip or .tar[.gz], found a file of another kind"
        ],
    );
    write(path.join("a.zip"), "no zip");
    check_error(
        path,
        datasets::open(path.join("a.zip")),
        expect!["<folder>/a.zip: cannot read as a zip: invalid Zip archive: Could not find EOCD"],
    );
    check_error(
        path,
        "cifar".parse::<Source>(),
        expect!["source: name: wanted mnist, fashion-mnist, kmnist, idx, cifar10, cifar100, tiny-imagenet, imagenet, folder, found cifar"],
    );
}

#[test]
fn a_source_has_one_name_everywhere() {
    for source in Source::ALL {
        assert_eq!(source.name().parse::<Source>().unwrap(), source);
        assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{source}\""));
    }
}

/// The first of each class, in the order of the whole; splits that no count is given for stay as they are.
#[test]
fn a_subset_takes_the_first_of_each_class() {
    let whole = Shapes::new(shapes::Config { size: 8, train_per_class: 5, test_per_class: 2 }, Seed(0)).unwrap();
    let few = Subset::per_class(whole.clone(), &[2]).unwrap();
    assert_eq!(few.info().splits.iter().map(|split| split.len).collect::<Vec<_>>(), [16, 16]);
    assert_eq!((&few.info().name, &few.info().classes), (&whole.info().name, &whole.info().classes));
    // Classes of drawn shapes take turns.
    assert!((0..16).all(|index| few.get(0, index).unwrap() == whole.get(0, index).unwrap()));
    let most = Subset::per_class(few, &[9, 0]).unwrap();
    assert_eq!(most.info().splits.iter().map(|split| split.len).collect::<Vec<_>>(), [16, 0]);
}

#[test]
fn a_subset_of_the_real_cifar10_has_the_first_of_each_class() {
    let Some(cifar) = real("cifar10") else { return };
    let few = Subset::per_class(datasets::Cifar::open(cifar).unwrap(), &[3, 1]).unwrap();
    let count =
        |split: usize, class: u32| (0..few.info().splits[split].len).filter(|&at| few.get(split, at).unwrap().label == class).count();
    assert!((0..10).all(|class| (count(0, class), count(1, class)) == (3, 1)));
}
