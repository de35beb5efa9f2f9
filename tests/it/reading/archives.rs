//! Trees of pictures that are still in an archive.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use expect_test::{Expect, expect};
use flate2::{Compression, write::GzEncoder};

use super::{
    check_error,
    trees::{samples, tree},
};

/// An entry of a tar: a file whose bytes are its name, or a link to one.
enum Entry<'a> {
    File(&'a str),
    Link(&'a str),
    Bytes(&'a str, Vec<u8>),
}

fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let (name, bytes) = match entry {
            Entry::File(name) => (*name, name.trim_start_matches("./").as_bytes()),
            Entry::Link(name) => (*name, &b""[..]),
            Entry::Bytes(name, bytes) => (*name, bytes.as_slice()),
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if matches!(entry, Entry::Link(_)) {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name("/etc/passwd").unwrap();
        }
        // The crate refuses to write the names that we refuse to read.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Not in the order of their names.
const PICTURES: [&str; 7] = [
    "train/n02/b.JPEG",
    "train/n01/c.png",
    "train/n01/a.jpg",
    "val/n02/e.jpg",
    "train/n02/a.JPEG",
    "val/n01/d.jpg",
    "train/n01/.hidden/x.jpg",
];

#[test]
fn class_folders_are_the_same_in_a_folder_and_in_archives() {
    let folder = tree(&[("words.txt", "n01 tench\nn02 coot\n")], &PICTURES);
    let from_folder = samples(&*datasets::open(folder.path()).unwrap());
    let (name, from_folder) = from_folder.split_once('\n').unwrap();
    assert!(name.ends_with("n01 tench, n02 coot"), "{name}");
    expect![[r#"
        train 0 train/n01/a.jpg
        train 0 train/n01/c.png
        train 1 train/n02/a.JPEG
        train 1 train/n02/b.JPEG
        val 0 val/n01/d.jpg
        val 1 val/n02/e.jpg
    "#]]
    .assert_eq(from_folder);
    for inside in ["", "./", "data set/"] {
        let names: Vec<_> = PICTURES.iter().map(|name| format!("{inside}{name}")).collect();
        let mut entries: Vec<_> = names.iter().zip(PICTURES).map(|(name, bytes)| Entry::Bytes(name, bytes.into())).collect();
        let words = format!("{inside}words.txt");
        entries.push(Entry::Bytes(&words, b"n01 tench\nn02 coot\n".to_vec()));
        let path = write(folder.path(), "Birds and Fish.tar", &tar(&entries));
        assert_eq!(
            samples(&*datasets::open(&path).unwrap()),
            format!("birds-and-fish: n01 tench, n02 coot\n{from_folder}"),
            "a tar with `{inside}`"
        );
        let path = write(folder.path(), "birds.tar.gz", &gzip(&tar(&entries)));
        let data = datasets::open(&path).unwrap();
        expect![[r#"
            birds: n01 tench, n02 coot
            train 1 train/n02/b.JPEG
            train 0 train/n01/c.png
            train 0 train/n01/a.jpg
            train 1 train/n02/a.JPEG
            val 1 val/n02/e.jpg
            val 0 val/n01/d.jpg
        "#]]
        .assert_eq(&samples(&*data));
        // What has gone by can be had again.
        assert_eq!(data.get(0, 1).unwrap().name, "train/n01/c.png");
        assert_eq!(format!("{:?}", data.ignored()), r#"{"hidden": 1}"#);
    }
}

#[test]
fn a_tar_of_tars_has_a_class_in_each() {
    let folder = tempfile::tempdir().unwrap();
    // As ImageNet's training pictures are published.
    let class = |names: &[&str]| tar(&names.iter().map(|name| Entry::Bytes(name, b"?".to_vec())).collect::<Vec<_>>());
    let outer = [Entry::Bytes("n02.tar", class(&["n02_1.JPEG"])), Entry::Bytes("n01.tar", class(&["n01_2.JPEG", "n01_10.JPEG"]))];
    let check = |path: &Path, want: Expect| {
        let data = datasets::open_as(datasets::Source::Imagenet, path).unwrap();
        let samples: Vec<_> = (0..3).map(|index| data.get(0, index).unwrap()).collect();
        assert!(samples.iter().all(|sample| sample.picture == datasets::Picture::Encoded(b"?".to_vec())));
        want.assert_eq(&format!("{:?}", samples.iter().map(|sample| (sample.label, &sample.name)).collect::<Vec<_>>()));
    };
    check(
        &write(folder.path(), "ILSVRC2012_img_train.tar", &tar(&outer)),
        expect![[r#"[(0, "n01/n01_10.JPEG"), (0, "n01/n01_2.JPEG"), (1, "n02/n02_1.JPEG")]"#]],
    );
    // Compressed, in the order of the archive.
    check(
        &write(folder.path(), "ILSVRC2012_img_train.tar.gz", &gzip(&tar(&outer))),
        expect![[r#"[(1, "n02/n02_1.JPEG"), (0, "n01/n01_2.JPEG"), (0, "n01/n01_10.JPEG")]"#]],
    );
}

#[test]
fn many_threads_read_an_archive_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..400).map(|index| format!("c{}/{index:03}.jpg", index % 3)).collect();
    let bytes = tar(&names.iter().map(|name| Entry::File(name)).collect::<Vec<_>>());
    for path in [write(folder.path(), "a.tar", &bytes), write(folder.path(), "a.tar.gz", &gzip(&bytes))] {
        let data = datasets::open(&path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let data = &data;
                scope.spawn(move || {
                    for index in (0..400).map(|index| (index * 7 + thread * 91) % 400) {
                        let sample = data.get(0, index).unwrap();
                        assert_eq!(sample.picture, datasets::Picture::Encoded(sample.name.clone().into_bytes()));
                    }
                });
            }
        });
    }
}

#[track_caller]
fn check(name: &str, bytes: &[u8], want: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), name, bytes);
    check_error(folder.path(), datasets::open(&path), want);
}

#[test]
fn an_archive_that_is_not_what_it_seems_is_refused() {
    let with = |entry| tar(&[Entry::File("a/1.jpg"), Entry::File("b/2.jpg"), entry]);
    check("a.tar", &with(Entry::Link("b/3.jpg")), expect!["<folder>/a.tar: b/3.jpg: wanted a file, found a link"]);
    check(
        "a.tar",
        &with(Entry::File("../3.jpg")),
        expect![[r#"<folder>/a.tar: name of a file: wanted one within the archive, found "../3.jpg""#]],
    );
    check(
        "a.tgz",
        &gzip(&with(Entry::File("b/../../3.jpg"))),
        expect![[r#"<folder>/a.tgz: name of a file: wanted one within the archive, found "b/../../3.jpg""#]],
    );
    check(
        "a.tgz",
        &gzip(&with(Entry::File("/etc/3.jpg"))),
        expect![[r#"<folder>/a.tgz: name of a file: wanted one within the archive, found "/etc/3.jpg""#]],
    );
    let whole = with(Entry::File("b/3.jpg"));
    check("a.tar", &whole[..512 * 5 + 3], expect!["<folder>/a.tar: length: wanted at least 3584 bytes, found 2563"]);
    check("a.tar", &whole[..512 * 6], expect!["<folder>/a.tar: length: wanted at least 3584 bytes, found 3072"]);
    let packed = gzip(&whole);
    check(
        "a.tgz",
        &packed[..packed.len() / 2],
        expect!["<folder>/a.tgz/a/1.jpg: end of the file: wanted the rest of the archive, found a cut"],
    );

    let folder = tempfile::tempdir().unwrap();
    for (name, link) in [("../3.jpg", false), ("b/3.jpg", true)] {
        let path = folder.path().join("a.zip");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        for name in ["a/1.jpg", "b/2.jpg"] {
            zip.start_file(name, options).unwrap();
        }
        match link {
            true => zip.add_symlink(name, "/etc/passwd", options).unwrap(),
            false => zip.start_file(name, options).unwrap(),
        }
        zip.finish().unwrap();
        let want = if link {
            expect!["<folder>/a.zip: b/3.jpg: wanted a file, found a link"]
        } else {
            expect![[r#"<folder>/a.zip: name of a file: wanted one within the archive, found "../3.jpg""#]]
        };
        check_error(folder.path(), datasets::open(&path), want);
    }
}
