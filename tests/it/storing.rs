//! A store gives back what was put in, or an error, whatever its bytes.

use std::path::Path;

use datasets::{Image, Picture, Sample};
use expect_test::{Expect, expect};
use lmdb::{DatabaseFlags, Environment, EnvironmentFlags, Transaction, WriteFlags};
use pipeline::{Encoding, Store, inspect, verify};
use proptest::prelude::*;

use crate::converting::{Memory, convert, dump, encoded, noise, text};

/// Every encoding, from tiny to larger than a packed value may be.
fn mixed() -> Memory {
    let jpeg = encoded(noise(40, 24, 32, 3, 1), image::ImageFormat::Jpeg);
    let png = encoded(noise(20, 16, 16, 1, 2), image::ImageFormat::Png);
    let train = [jpeg, noise(3, 300, 200, 3, 3), png, noise(500, 28, 28, 1, 4)].concat();
    Memory::new(vec![("train", train), ("test", noise(7, 1, 1, 3, 5))])
}

#[test]
fn what_goes_in_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.lmdb");
    let data = mixed();
    convert(&data, &path);
    let store = Store::open(&path).unwrap();
    let reader = store.reader().unwrap();
    assert_eq!((store.len(0), store.len(1), store.split("test").unwrap()), (563, 7, 1));
    for (split, index) in (0..563).map(|index| (0, index)).chain((0..7).map(|index| (1, index))) {
        let record = reader.record(split, index).unwrap();
        let sample = data.sample(split, index);
        assert_eq!(record.label, sample.label);
        match (&sample.picture, record.encoding) {
            (Picture::Raw(image), Encoding::Raw { height, width, channels }) => {
                assert_eq!((image.height, image.width, image.channels), (height as usize, width as usize, channels as usize));
                assert_eq!(record.bytes, image.pixels);
            }
            (Picture::Encoded(file), Encoding::Jpeg | Encoding::Png) => assert_eq!(record.bytes, file),
            (_, encoding) => panic!("{encoding:?}"),
        }
    }
    assert!(verify::verify(&store, &mut |_| {}).unwrap().is_good());
}

#[test]
fn a_store_may_be_open_twice_and_read_by_many() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    convert(&Memory::new(vec![("train", noise(2000, 8, 8, 3, 1))]), &path);
    let stores = [Store::open(&path).unwrap(), Store::open(&path).unwrap()];
    let expected = dump(&path).1;
    std::thread::scope(|scope| {
        for thread in 0..200 {
            let (stores, expected) = (&stores, &expected);
            scope.spawn(move || {
                let reader = stores[thread % 2].reader().unwrap();
                let indices: Vec<u64> = (0..2000).skip(thread).step_by(97).collect();
                reader.prefetch(0, &indices);
                for index in indices {
                    assert_eq!(reader.record(0, index as usize).unwrap().bytes, expected[index as usize].2);
                }
            });
        }
    });
    let [first, second] = stores;
    drop(first);
    assert_eq!(second.reader().unwrap().record(0, 1999).unwrap().bytes, expected[1999].2);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.lmdb"], "no lock file");
}

#[test]
fn a_store_is_hardly_larger_than_its_pictures() {
    let folder = tempfile::tempdir().unwrap();
    // The sizes of TinyImageNet's files and of MNIST's pictures, and from 64 to 158 KB as ImageNet's files.
    let large = (0..300).flat_map(|size| noise(1, 1, 64_000 + 311 * size, 1, size as u64)).collect();
    for (samples, most) in [(noise(6000, 1, 1950, 1, 1), 1.03), (noise(20_000, 28, 28, 1, 2), 1.03), (large, 1.025)] {
        let path = folder.path().join(format!("{}.lmdb", samples.len()));
        convert(&Memory::new(vec![("train", samples)]), &path);
        let ratio = inspect::inspect(&Store::open(&path).unwrap()).ratio();
        assert!((1.0..=most).contains(&ratio), "{ratio} of {most}");
    }
}

#[test]
fn content_is_named_by_classes_labels_and_pictures_alone() {
    let folder = tempfile::tempdir().unwrap();
    let content = |name: &str, samples| convert(&Memory::new(vec![(name, samples)]), &folder.path().join(tempname())).meta.content;
    let samples = noise(50, 8, 8, 1, 1);
    let first = content("train", samples.clone());
    assert_eq!(first, content("train", samples.clone()));
    let mut relabelled = samples.clone();
    relabelled[49].label = (relabelled[49].label + 1) % 10;
    let mut swapped = samples.clone();
    swapped.swap(0, 49);
    let others = [
        content("test", samples.clone()),
        content("train", relabelled),
        content("train", swapped),
        content("train", samples[..49].to_vec()),
    ];
    assert!(others.iter().all(|other| *other != first));
}

fn tempname() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{}.lmdb", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn a_grid_shows_pictures_at_equal_distances() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let ramp = |index: u8| Sample { picture: Picture::Raw(Image::new(2, 32, 1, vec![index; 64])), label: 0, name: index.to_string() };
    convert(&Memory::new(vec![("train", (0..100).map(ramp).collect())]), &path);
    let sheet = inspect::grid(&Store::open(&path).unwrap(), 0, 2, 5).unwrap();
    // Cells are 64 pixels and a gap of 2; a picture of 2 by 32 pixels fills 4 by 64 in the middle of its cell.
    assert_eq!((sheet.height, sheet.width, sheet.channels), (2 * 66 + 2, 5 * 66 + 2, 3));
    let pixel = |y: usize, x: usize| sheet.pixels[(y * sheet.width + x) * 3];
    let centres = (0..10).map(|cell| pixel(2 + cell / 5 * 66 + 32, 2 + cell % 5 * 66 + 32));
    assert_eq!(centres.collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
    assert_eq!((pixel(2 + 29, 2), pixel(2 + 30, 2), pixel(2 + 33, 65), pixel(2 + 34, 65)), (255, 0, 0, 255));
}

#[test]
fn a_store_shows_itself_in_a_notebook() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let data = Memory::new(vec![("train", noise(5, 2, 2, 1, 1)), ("<test>", noise(3, 2, 2, 1, 1))]);
    convert(&data, &path);
    let store = Store::open(&path).unwrap();
    expect![[r#"
        <table>
        <tr><th>name</th><td>memory</td></tr>
        <tr><th>source</th><td>memory</td></tr>
        <tr><th>classes</th><td>10: class 0, class 1, class 2, class 3, class 4, class 5, class 6, class 7, class 8, class 9</td></tr>
        <tr><th>file</th><td>41.0 kB, 1280.000 of the pictures' 32 B</td></tr>
        <tr><th>content</th><td>50a317c9a5b72cb30a175186c28bf59ea4651164b6d830c72a4a45cac77a317e</td></tr>
        <tr><th>mean</th><td>0.5480</td></tr>
        <tr><th>std</th><td>0.2488</td></tr></table><table>
        <tr><th>split</th><td>train: 5 pictures</td><td>&lt;test&gt;: 3 pictures</td></tr>
        <tr><th>encoding</th><td>5 raw, 5 of them grey</td><td>3 raw, 3 of them grey</td></tr>
        <tr><th>height</th><td>2 px</td><td>2 px</td></tr>
        <tr><th>width</th><td>2 px</td><td>2 px</td></tr>
        <tr><th>labels</th><td>1 1 0 0 0 2 0 0 1 0</td><td>0 0 0 0 0 2 0 0 1 0</td></tr>
        <tr><th>size</th><td>20 B</td><td>12 B</td></tr></table>"#]]
    .assert_eq(&inspect::inspect(&store).html().replace("<tr>", "\n<tr>"));
    assert!(store.html().unwrap().contains("<img alt=\"pictures of split train\" src=\"data:image/png;base64,iVBORw0KGgo"));
}

#[track_caller]
fn check_open(prepare: impl FnOnce(&Path), want: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    prepare(&path);
    want.assert_eq(&text(&Store::open(&path).unwrap_err(), folder.path()));
}

/// Changes a finished store behind its back.
fn forge(path: &Path, change: impl FnOnce(&Environment)) {
    let environment =
        Environment::new().set_flags(EnvironmentFlags::NO_SUB_DIR | EnvironmentFlags::NO_LOCK).set_max_dbs(8).open(path).unwrap();
    change(&environment);
}

fn put(environment: &Environment, database: Option<&str>, key: &[u8], value: &[u8]) {
    let database = environment.create_db(database, DatabaseFlags::empty()).unwrap();
    let mut transaction = environment.begin_rw_txn().unwrap();
    transaction.put(database, &key, &value, WriteFlags::empty()).unwrap();
    transaction.commit().unwrap();
}

fn small(path: &Path) {
    convert(&Memory::new(vec![("train", noise(5, 2, 2, 1, 1)), ("test", noise(3, 2, 2, 1, 1))]), path);
}

#[test]
fn what_is_not_a_store_is_refused() {
    check_open(
        |_| {},
        expect![[r#"
        DIR/a.lmdb: cannot open the store
          caused by: No such file or directory (os error 2)"#]],
    );
    check_open(|path| std::fs::create_dir(path).unwrap(), expect!["DIR/a.lmdb: not a store: wanted an LMDB file, found a folder"]);
    check_open(|path| std::fs::write(path, "").unwrap(), expect!["DIR/a.lmdb: not a store: wanted an LMDB file, found an empty file"]);
    check_open(
        |path| std::fs::write(path, [7; 10_000]).unwrap(),
        expect!["DIR/a.lmdb: not a store: wanted an LMDB file, found something else"],
    );
    check_open(
        |path| forge(path, |environment| put(environment, None, b"__len__", b"12")),
        expect![[r#"DIR/a.lmdb: not a store: wanted a record "meta" with a format version, found an LMDB file without one"#]],
    );
    check_open(
        |path| forge(path, |environment| put(environment, None, b"meta", b"12")),
        expect![[r#"DIR/a.lmdb: not a store: wanted a record "meta" with a format version, found one without a version"#]],
    );
    check_open(
        |path| forge(path, |environment| put(environment, None, b"state", b"{}")),
        expect![[
            r#"DIR/a.lmdb: not a store: wanted a record "meta" with a format version, found a conversion that did not end; repeat its command to continue it"#
        ]],
    );
}

#[test]
fn another_version_is_refused() {
    let forged = |path: &Path| {
        small(path);
        forge(path, |environment| put(environment, None, b"meta", br#"{"format":7,"novelty":true}"#));
    };
    check_open(
        forged,
        expect!["DIR/a.lmdb: the store has format version 7, this program reads versions 2 and 3; convert the data set again"],
    );
}

#[test]
fn a_store_cut_short_is_refused() {
    let cut = |path: &Path| {
        small(path);
        let len = std::fs::metadata(path).unwrap().len();
        std::fs::File::options().write(true).open(path).unwrap().set_len(len - 4096).unwrap();
    };
    check_open(cut, expect!["DIR/a.lmdb: file: length: wanted 40960 bytes, found 36864 bytes"]);
}

#[test]
fn a_store_that_lost_records_is_refused() {
    let lost = |path: &Path| {
        small(path);
        forge(path, |environment| put(environment, Some("split/train"), &8u64.to_be_bytes(), b""));
    };
    check_open(lost, expect![[r#"DIR/a.lmdb: split "train": records: wanted 5, found 9"#]]);
    let odd = |path: &Path| {
        small(path);
        forge(path, |environment| put(environment, Some("split/train"), b"~~~~~~~~~~~~", b""));
    };
    check_open(odd, expect![[r#"DIR/a.lmdb: split "train": key: wanted 8 bytes, found 12 bytes"#]]);
}

#[test]
fn an_unknown_split_is_answered_with_those_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    small(&path);
    let error = Store::open(&path).unwrap().split("val").unwrap_err();
    expect![[r#"DIR/a.lmdb: no split "val"; there is "train", "test""#]].assert_eq(&text(&error, folder.path()));
}

/// The value of five records of 2×2 grey pixels, and what the records of a store say once it is replaced by this one.
fn read_all(path: &Path, value: &[u8]) -> Vec<String> {
    forge(path, |environment| put(environment, Some("split/train"), &4u64.to_be_bytes(), value));
    let store = Store::open(path).unwrap();
    let reader = store.reader().unwrap();
    let read = |index| match reader.record(0, index) {
        Ok(record) => format!("{record:?}"),
        Err(error) => text(&error, path.parent().unwrap()),
    };
    (0..5).map(read).collect()
}

fn value() -> Vec<u8> {
    let mut value = 5u32.to_le_bytes().to_vec();
    (1..=5u32).for_each(|record| value.extend_from_slice(&(18 * record).to_le_bytes()));
    for label in 0..5u8 {
        value.extend_from_slice(&[label, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, 0, 0, 0, 11, 12, 13, 14]);
    }
    value
}

#[test]
fn a_damaged_record_says_which_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    small(&path);
    assert!(
        read_all(&path, &value())[4]
            .starts_with("Record { label: 4, encoding: Raw { height: 2, width: 2, channels: 1 }, index: [], bytes: [11, 12, 13, 14] }")
    );
    // Byte 24 is the first record's first.
    let damages: [(usize, u8); 7] = [(0, 2), (8, 99), (20, 7), (24, 200), (28, 9), (29, 2), (30, 5)];
    let mut lines = String::new();
    for (at, byte) in damages {
        let mut value = value();
        value[at] = byte;
        lines +=
            &read_all(&path, &value).iter().filter(|line| !line.starts_with("Record")).cloned().map(|line| line + "\n").collect::<String>();
    }
    lines += &read_all(&path, b"abc")[0];
    expect![[r#"
        DIR/a.lmdb: split "train", record 0: number of records: wanted at least 5, found 2
        DIR/a.lmdb: split "train", record 1: number of records: wanted at least 4, found 2
        DIR/a.lmdb: split "train", record 2: number of records: wanted at least 3, found 2
        DIR/a.lmdb: split "train", record 3: encoding: wanted 0 (raw), 1 (JPEG), 2 (PNG) or 3 (JPEG with index), found 72
        DIR/a.lmdb: split "train", record 4: end of the last record: wanted 102, found 36
        DIR/a.lmdb: split "train", record 1: extent of the record: wanted within 90 bytes, found 18..99
        DIR/a.lmdb: split "train", record 2: extent of the record: wanted within 90 bytes, found 99..54
        DIR/a.lmdb: split "train", record 4: end of the last record: wanted 90, found 7
        DIR/a.lmdb: split "train", record 0: label: wanted below 10, found 200
        DIR/a.lmdb: split "train", record 0: encoding: wanted 0 (raw), 1 (JPEG), 2 (PNG) or 3 (JPEG with index), found 9
        DIR/a.lmdb: split "train", record 0: channels: wanted 1 or 3, found 2
        DIR/a.lmdb: split "train", record 0: pixels: wanted 5 x 2 x 1 = 10 bytes, found 4
        DIR/a.lmdb: split "train", record 0: value: wanted at least 4 bytes, found 3"#]]
    .assert_eq(&lines);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_a_record_or_an_error(
        cut in 0usize..140,
        flips in prop::collection::vec((0usize..114, 0u8..8), 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        replace in prop::bool::weighted(0.2),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lmdb");
        small(&path);
        let mut value = value();
        flips.iter().for_each(|&(at, bit)| value[at] ^= 1 << bit);
        value.truncate(cut);
        let value = if replace { bytes } else { value };
        for line in read_all(&path, &value) {
            prop_assert!(line.starts_with("Record") || line.starts_with("DIR/a.lmdb: split \"train\", record "), "{line}");
        }
        let verification = verify::verify(&Store::open(&path).unwrap(), &mut |_| {}).unwrap();
        prop_assert!(!verification.is_good(), "no damage passes the verification");
    }
}
