//! Data sets that are trees of picture files: TinyImageNet, class folders, ImageNet.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use datasets::{Dataset, Folder, Picture, Sample, TinyImagenet};
use expect_test::expect;

use super::{check_error, summary, unpacked, write};

fn bytes(sample: Sample) -> Vec<u8> {
    match sample.picture {
        Picture::Encoded(bytes) => bytes,
        Picture::Raw(_) => panic!("pixels"),
    }
}

/// A folder with these files; a picture's bytes are its name.
pub(super) fn tree(files: &[(&str, &str)], pictures: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| write(folder.path().join(name), text));
    pictures.iter().for_each(|name| write(folder.path().join(name), name));
    folder
}

/// The same as a zip, below a folder called `inside`.
fn zipped(folder: &Path, inside: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let name = format!("{inside}{}", path.strip_prefix(folder).unwrap().display());
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            zip.add_directory(name, zip::write::SimpleFileOptions::default()).unwrap();
        } else {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&fs::read(path).unwrap()).unwrap();
        }
    }
    zip.finish().unwrap();
    file
}

/// Split, label, name and bytes of every sample.
pub(super) fn samples(dataset: &dyn Dataset) -> String {
    let mut text = format!("{}: {}\n", dataset.info().name, dataset.info().classes.join(", "));
    for (split, part) in dataset.info().splits.iter().enumerate() {
        for index in 0..part.len {
            let sample = dataset.get(split, index).unwrap();
            text += &format!("{} {} {}\n", part.name, sample.label, sample.name);
            assert_eq!(bytes(sample.clone()), sample.name.as_bytes());
        }
    }
    text
}

const TINY: [&str; 6] = [
    "train/n02/images/n02_0.JPEG",
    "train/n01/images/n01_10.JPEG",
    "train/n01/images/n01_2.JPEG",
    "train/n01/images/._n01_2.JPEG",
    "val/images/val_0.JPEG",
    "val/images/val_1.JPEG",
];

const TINY_TEXTS: [(&str, &str); 4] = [
    ("train/n01/n01_boxes.txt", "n01_2.JPEG 0 0 1 1"),
    ("val/val_annotations.txt", "val_1.JPEG\tn01\t0\t32\t44\t62\nval_0.JPEG\tn02\t0\t0\t9\t9\n"),
    ("wnids.txt", "n02\nn01\n"),
    ("words.txt", "n01\tgoldfish, Carassius auratus\nn02\ttench\nn03\tcoot\n"),
];

#[test]
fn tiny_imagenet_is_the_same_in_a_folder_and_in_a_zip() {
    let folder = tree(&TINY_TEXTS, &TINY);
    let from_folder = samples(&*datasets::open(folder.path()).unwrap());
    expect![[r#"
        tiny-imagenet: n01 goldfish, n02 tench
        train 0 train/n01/images/n01_10.JPEG
        train 0 train/n01/images/n01_2.JPEG
        train 1 train/n02/images/n02_0.JPEG
        val 0 val/images/val_1.JPEG
        val 1 val/images/val_0.JPEG
    "#]]
    .assert_eq(&from_folder);
    for inside in ["", "tiny-imagenet-200/"] {
        let zip = zipped(folder.path(), inside);
        assert_eq!(samples(&*datasets::open(zip.path()).unwrap()), from_folder, "a zip with `{inside}`");
    }
}

#[test]
fn a_broken_tiny_imagenet_says_what_is_wrong() {
    let check = |name: &str, text: Option<&str>, want| {
        let folder = tree(&TINY_TEXTS, &TINY);
        match text {
            Some(text) => write(folder.path().join(name), text),
            None => fs::remove_file(folder.path().join(name)).unwrap(),
        }
        check_error(folder.path(), TinyImagenet::open(folder.path()), want);
    };
    check(
        "val/val_annotations.txt",
        None,
        expect!["<folder>/val: contents: wanted val_annotations.txt, the classes of the validation pictures, found no such file"],
    );
    check(
        "val/val_annotations.txt",
        Some("val_1.JPEG n01\nval_0.JPEG n09\n"),
        expect!["<folder>/val/val_annotations.txt: line 2: wanted one of the 2 training classes, found n09"],
    );
    check(
        "val/val_annotations.txt",
        Some("val_1.JPEG n01\nval_1.JPEG n01\n"),
        expect!["<folder>/val/val_annotations.txt: line 2: wanted picture val_1.JPEG, once, found no such file, or a second line for it"],
    );
    check(
        "val/val_annotations.txt",
        Some("val_1.JPEG n01\nval_0.JPEG\n"),
        expect!["<folder>/val/val_annotations.txt: line 2: wanted a file name and a class, found val_0.JPEG"],
    );
    check(
        "val/val_annotations.txt",
        Some("val_1.JPEG n01\n"),
        expect!["<folder>/val/val_annotations.txt: lines: wanted one for picture val_0.JPEG, found none"],
    );
    check(
        "val/images/val_0.JPEG",
        None,
        expect!["<folder>/val/val_annotations.txt: line 2: wanted picture val_0.JPEG, once, found no such file, or a second line for it"],
    );
    check(
        "train/n02/images/n02_0.JPEG",
        None,
        expect!["<folder>/train/n02: contents: wanted at least one picture (.jpg, .jpeg, .png), found none"],
    );
    check(
        "train/stray.JPEG",
        Some(""),
        expect!["<folder>/train/stray.JPEG: place: wanted a picture in the folder of its class, found a picture beside the folders"],
    );
    let empty = tempfile::tempdir().unwrap();
    check_error(
        empty.path(),
        TinyImagenet::open(empty.path()),
        expect!["<folder>/train: cannot list: No such file or directory (os error 2)"],
    );
}

#[test]
fn a_picture_that_goes_away_is_named() {
    let folder = tree(&TINY_TEXTS, &TINY);
    let tiny = TinyImagenet::open(folder.path()).unwrap();
    fs::remove_file(folder.path().join("train/n01/images/n01_2.JPEG")).unwrap();
    check_error(
        folder.path(),
        tiny.get(0, 1),
        expect!["<folder>/train/n01/images/n01_2.JPEG: cannot read: No such file or directory (os error 2)"],
    );
}

#[test]
fn a_zip_checks_its_pictures_and_serves_many_threads() {
    let folder = tree(&TINY_TEXTS, &TINY);
    let zip = zipped(folder.path(), "");
    let tiny = TinyImagenet::open(zip.path()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..300).for_each(|k| assert_eq!(bytes(tiny.get(0, k % 3).unwrap()), tiny.get(0, k % 3).unwrap().name.as_bytes()))
            });
        }
    });
    // One byte of a picture is damaged, under the archive that is open.
    let mut raw = fs::read(zip.path()).unwrap();
    let mut archive = zip::ZipArchive::new(File::open(zip.path()).unwrap()).unwrap();
    let start = archive.by_name("train/n01/images/n01_10.JPEG").unwrap().data_start().unwrap();
    raw[start as usize + 6] ^= 0xff;
    fs::write(zip.path(), raw).unwrap();
    let error = tiny.get(0, 0).unwrap_err();
    assert!(error.to_string().ends_with("train/n01/images/n01_10.JPEG: cannot read"), "{error}");
}

#[test]
fn class_folders_become_splits() {
    let folder = tree(
        &[("train/cat/notes.txt", ""), ("README", "")],
        &["train/dog/b.png", "train/dog/A.JPG", "train/cat/deep/er/x.jpeg", "train/cat/.hidden.png", "valid/dog/v.png", "test/flat.png"],
    );
    expect![[r#"
        pets: cat, dog
        train 0 train/cat/deep/er/x.jpeg
        train 1 train/dog/A.JPG
        train 1 train/dog/b.png
        val 1 valid/dog/v.png
    "#]]
    .assert_eq(&samples(&Folder::open(folder.path(), "pets").unwrap()));
    let zip = zipped(folder.path(), "pets/");
    assert_eq!(samples(&Folder::open(folder.path(), "pets").unwrap()), samples(&Folder::open(zip.path(), "pets").unwrap()));

    let single = tree(&[], &["dog/b.png", "cat/a.png", "cat-big/c.png"]);
    expect![[r#"
        pets: cat, cat-big, dog
        train 0 cat/a.png
        train 1 cat-big/c.png
        train 2 dog/b.png
    "#]]
    .assert_eq(&samples(&Folder::open(single.path(), "pets").unwrap()));
}

#[test]
fn broken_class_folders_say_what_is_wrong() {
    let check = |pictures: &[&str], want| {
        let folder = tree(&[("train/empty/readme.txt", "")], pictures);
        if !pictures.is_empty() {
            fs::remove_dir_all(folder.path().join("train/empty")).unwrap();
        }
        check_error(folder.path(), Folder::open(folder.path(), "pets"), want);
    };
    check(&[], expect!["<folder>/train/empty: contents: wanted at least one picture (.jpg, .jpeg, .png), found none"]);
    check(&["train/cat/a.png", "val/cow/b.png"], expect!["<folder>/val: folder: wanted one of the 1 training classes, found cow"]);
    check(
        &["train/cat/a.png", "val/b.png"],
        expect![
            "<folder>/val: labels: wanted the classes of its pictures in one of val_annotations.txt, imagenet_2012_validation_synset_labels.txt, LOC_val_solution.csv, ILSVRC2012_validation_ground_truth.txt, ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt, or in *labels.csv, found none of these files"
        ],
    );
    check(&["train/a.png"], expect!["<folder>/train: contents: wanted a folder of pictures for each class, found no folder"]);
}

const IMAGENET: [&str; 5] = [
    "train/n02/n02_1.JPEG",
    "train/n01/n01_7.JPEG",
    "val/ILSVRC2012_val_00000001.JPEG",
    "val/ILSVRC2012_val_00000002.JPEG",
    "val/ILSVRC2012_val_00000003.JPEG",
];

#[test]
fn ilsvrc2012_validation_labels_come_in_four_forms() {
    let mut found: Vec<String> = Vec::new();
    let mut read = |files: &[(&str, &str)]| found.push(samples(&*datasets::open(tree(files, &IMAGENET).path()).unwrap()));
    read(&[("imagenet_2012_validation_synset_labels.txt", "n02\nn01\nn01\n")]);
    let truth = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt";
    read(&[(truth, "1\n2\n2\n"), ("ILSVRC2012_devkit_t12/data/synsets.txt", "n02\nn01\n")]);
    read(&[(
        "LOC_val_solution.csv",
        "ImageId,PredictionString\nILSVRC2012_val_00000001,n02 1 2 3 4 \nILSVRC2012_val_00000002,n01 9 9 9 9 n01 1 1 1 1 \nILSVRC2012_val_00000003,n01 0 0 9 9 \n",
    )]);
    read(&[(
        "val/val_annotations.txt",
        "ILSVRC2012_val_00000001.JPEG n02\nILSVRC2012_val_00000002.JPEG n01\nILSVRC2012_val_00000003.JPEG n01\n",
    )]);
    expect![[r#"
        imagenet: n01, n02
        train 0 train/n01/n01_7.JPEG
        train 1 train/n02/n02_1.JPEG
        val 1 val/ILSVRC2012_val_00000001.JPEG
        val 0 val/ILSVRC2012_val_00000002.JPEG
        val 0 val/ILSVRC2012_val_00000003.JPEG
    "#]]
    .assert_eq(&found[0]);
    assert!(found.iter().all(|form| *form == found[0]), "{found:?}");

    let folder = tree(&[("elsewhere/truth.txt", "2\n1\n1\n"), ("elsewhere/ids.txt", "n01 a\nn02 b\n")], &IMAGENET);
    let [truth, ids] = ["elsewhere/truth.txt", "elsewhere/ids.txt"].map(|name| folder.path().join(name));
    assert_eq!(samples(&Folder::ilsvrc2012(folder.path(), &truth, Some(&ids)).unwrap()), found[0]);
}

#[test]
fn a_list_of_classes_keeps_the_indices_of_all_imagenet() {
    let lists = [
        ("imagenet_synsets.txt", "n00\nn01\nn02\nn05\n"),
        ("LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\n"),
        ("imagenet_2012_validation_synset_labels.txt", "n05\nn01\nn01\n"),
    ];
    expect![[r#"
        imagenet: n00, n01 tench, n02 goldfish, n05
        train 1 train/n01/n01_7.JPEG
        train 2 train/n02/n02_1.JPEG
        val 3 val/ILSVRC2012_val_00000001.JPEG
        val 1 val/ILSVRC2012_val_00000002.JPEG
        val 1 val/ILSVRC2012_val_00000003.JPEG
    "#]]
    .assert_eq(&samples(&*datasets::open(tree(&lists, &IMAGENET).path()).unwrap()));
}

#[test]
fn broken_ilsvrc2012_labels_say_what_is_wrong() {
    let check = |files: &[(&str, &str)], pictures: &[&str], want| {
        let folder = tree(files, pictures);
        check_error(folder.path(), datasets::open(folder.path()), want);
    };
    let (labels, truth) = ("imagenet_2012_validation_synset_labels.txt", "ILSVRC2012_validation_ground_truth.txt");
    check(
        &[],
        &IMAGENET,
        expect![
            "<folder>/val: labels: wanted the classes of its pictures in one of val_annotations.txt, imagenet_2012_validation_synset_labels.txt, LOC_val_solution.csv, ILSVRC2012_validation_ground_truth.txt, ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt, or in *labels.csv, found none of these files"
        ],
    );
    check(
        &[(labels, "n02\nn01\n")],
        &IMAGENET,
        expect!["<folder>/imagenet_2012_validation_synset_labels.txt: number of lines: wanted 3, one a picture, found 2"],
    );
    check(
        &[(labels, "n02\nn01\nn07\n")],
        &IMAGENET,
        expect!["<folder>/imagenet_2012_validation_synset_labels.txt: line 3: wanted one of the 2 training classes, found n07"],
    );
    check(
        &[(labels, "n02\nn01\n")],
        &[IMAGENET[0], IMAGENET[1], IMAGENET[2], IMAGENET[4]],
        expect!["<folder>/imagenet_2012_validation_synset_labels.txt: line 2: wanted picture number 2, found ILSVRC2012_val_00000003.JPEG"],
    );
    check(
        &[(truth, "1\n2\n2\n")],
        &IMAGENET,
        expect![
            "<folder>/ILSVRC2012_validation_ground_truth.txt: line 1: wanted a class identifier, or a list of synsets that the number refers to, found 1"
        ],
    );
    check(
        &[(truth, "1\n2\n3\n"), ("synsets.txt", "n02\nn01\n")],
        &IMAGENET,
        expect!["<folder>/ILSVRC2012_validation_ground_truth.txt: line 3: wanted 1 to 2, a line of <folder>/synsets.txt, found 3"],
    );
    let alphabetical: String = (0..1000).map(|k| format!("n{k:04}\n")).collect();
    check(
        &[(truth, "1\n2\n2\n"), ("synsets.txt", &alphabetical)],
        &IMAGENET,
        expect!["<folder>/synsets.txt: order: wanted that of ILSVRC2012_ID in the devkit, found alphabetical"],
    );
    check(
        &[("imagenet_synsets.txt", "n01\n"), (labels, "n01\nn01\nn01\n")],
        &IMAGENET,
        expect!["<folder>/train: folder: wanted one of the 1 training classes, found n02"],
    );
    check(
        &[("class_index.json", "[]")],
        &IMAGENET,
        expect![[
            r#"<folder>/class_index.json: contents: wanted {"0": [identifier, words], ..}, found invalid type: sequence, expected a map at line 1 column 0"#
        ]],
    );
}

#[test]
fn the_real_tiny_imagenet_is_read() {
    let Some(folder) = unpacked("tiny-imagenet-200-train20-val10.tar.zst") else { return };
    let tiny = datasets::open(folder.path()).unwrap();
    expect![[r#"
        tiny-imagenet: 200 classes, n01443537 goldfish, n01629819 European fire salamander, n01641577 bullfrog, n01644900 tailed frog, n01698640 American alligator, n01742172 boa constrictor, n01768244 trilobite, n01770393 scorpion, n01774384 black widow, n01774750 tarantula
        train: 4000 samples train/n01443537/images/n01443537_0.JPEG train/n12267677/images/n12267677_9.JPEG, by class [20, 20, 20, 20, 20, 20, 20, 20, 20, 20]
        val: 2000 samples val/images/val_0.JPEG val/images/val_3864.JPEG, by class [10, 10, 10, 10, 10, 10, 10, 10, 10, 10]
    "#]].assert_eq(&summary(&*tiny));
    let zip = zipped(folder.path(), "");
    let from_zip = datasets::open(zip.path()).unwrap();
    assert_eq!(from_zip.info(), tiny.info());
    for (split, part) in tiny.info().splits.iter().enumerate() {
        for index in 0..part.len {
            assert_eq!(from_zip.get(split, index).unwrap(), tiny.get(split, index).unwrap());
        }
    }
}

#[test]
fn the_real_sample_of_imagenet_is_read() {
    let Some(folder) = unpacked("imagenet-sample-every10th.tar.zst") else { return };
    let sample = datasets::open(folder.path()).unwrap();
    expect![[r#"
        imagenet: 1000 classes, n01440764 tench, n01443537 goldfish, n01484850 great white shark, n01491361 tiger shark, n01494475 hammerhead, n01496331 electric ray, n01498041 stingray, n01514668 cock, n01514859 hen, n01518878 ostrich
        train: 105 samples train/n01440764/n01440764_tench.JPEG train/n12768682/n12768682_buckeye.JPEG, by class [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        val: 30 samples val/ILSVRC2012_val_00001739.JPEG val/ILSVRC2012_val_00046634.JPEG, by class [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    "#]].assert_eq(&summary(&*sample));
    // The file with the labels has, in its third column, what the labels ought to be.
    let table = fs::read_to_string(folder.path().join("imagenet-sample/val30_labels.csv")).unwrap();
    for (index, line) in table.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let sample = sample.get(1, index).unwrap();
        assert_eq!((sample.name, sample.label), (format!("val/{}", fields[0]), fields[2].parse().unwrap()));
    }
}
