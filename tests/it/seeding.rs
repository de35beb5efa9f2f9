//! Stores that `folder2lmdb.py` wrote, read and converted.

use std::path::{Path, PathBuf};

use datasets::{Dataset, Picture};
use expect_test::{Expect, expect};
use pipeline::Store;
use pipeline::store::Folder2Lmdb;
use proptest::prelude::*;

use crate::converting::{convert, dump, text};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/converting").join(name)
}

fn bytes(picture: Picture) -> Vec<u8> {
    let Picture::Encoded(bytes) = picture else { panic!("a file") };
    bytes
}

#[test]
fn the_store_of_the_study_is_read_as_it_was_written() {
    let seed = Folder2Lmdb::open(golden("sample12.mdb")).unwrap();
    expect![[r#"Info { name: "sample12", classes: ["0", "1", "2", "3"], splits: [Split { name: "train", len: 12 }] }"#]]
        .assert_eq(&format!("{:?}", seed.info()));
    for index in 0..12 {
        let sample = seed.get(0, index).unwrap();
        assert_eq!((sample.name, sample.label), (index.to_string(), index as u32 % 4));
        assert_eq!(bytes(sample.picture), (0..10 + index).map(|k| (7 * k + 3 + index) as u8).collect::<Vec<_>>());
    }
}

#[test]
fn it_becomes_a_store_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    // Not only is nothing written to it: it may be where nothing can be.
    let seed = Folder2Lmdb::open(golden("seed.lmdb")).unwrap();
    let path = folder.path().join("a.lmdb");
    convert(&seed, &path);
    let (meta, records) = dump(&path);
    assert_eq!((meta.splits[0].len, meta.pictures[0].per_class.as_slice()), (8, &[3, 3, 2][..]));
    for (index, (label, encoding, file)) in records.into_iter().enumerate() {
        assert_eq!((label, encoding), (index as u32 % 3, pipeline::Encoding::Jpeg));
        assert_eq!(file, bytes(seed.get(0, index).unwrap().picture));
    }
    assert_eq!(std::fs::read_dir(golden("")).unwrap().count(), 5, "no lock file");
}

#[test]
fn a_folder_of_such_stores_has_splits() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("seed.lmdb"), folder.path().join("train.lmdb")).unwrap();
    // The script makes a folder of its own where one is there already.
    std::fs::create_dir(folder.path().join("val.lmdb")).unwrap();
    std::fs::copy(golden("sample12.mdb"), folder.path().join("val.lmdb/data.mdb")).unwrap();
    assert!(Folder2Lmdb::is_at(folder.path()) && Folder2Lmdb::is_at(&folder.path().join("val.lmdb")));
    assert!(!Folder2Lmdb::is_at(Path::new(env!("CARGO_MANIFEST_DIR"))));
    let seed = Folder2Lmdb::open(folder.path()).unwrap();
    let splits: Vec<_> = seed.info().splits.iter().map(|split| (split.name.as_str(), split.len)).collect();
    assert_eq!((splits, seed.info().classes.len()), (vec![("train", 8), ("val", 12)], 4));
    assert_eq!(seed.get(1, 11).unwrap().label, 3);
}

#[track_caller]
fn check(prepare: impl FnOnce(&Path), want: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    std::fs::copy(golden("seed.lmdb"), &path).unwrap();
    prepare(&path);
    want.assert_eq(&text(&Folder2Lmdb::open(&path).unwrap_err(), folder.path()));
}

/// Writes one more record, as somebody who uses LMDB himself would.
fn put(path: &Path, key: &[u8], value: &[u8]) {
    use lmdb::Transaction;
    let flags = lmdb::EnvironmentFlags::NO_SUB_DIR | lmdb::EnvironmentFlags::NO_LOCK | lmdb::EnvironmentFlags::NO_SYNC;
    let environment = lmdb::Environment::new().set_flags(flags).open(path).unwrap();
    let mut transaction = environment.begin_rw_txn().unwrap();
    transaction.put(environment.open_db(None).unwrap(), &key, &value, lmdb::WriteFlags::empty()).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_broken_one_says_what_is_wrong() {
    check(
        |path| put(path, b"5", b"(b'..', 3)"),
        expect![[r#"DIR/a.lmdb: record "5": wanted what folder2lmdb writes there, serialised by pyarrow, found 10 other bytes"#]],
    );
    check(
        |path| std::fs::write(path, vec![0; 8192]).unwrap(),
        expect!["DIR/a.lmdb: contents: wanted an LMDB file, found MDB_INVALID: File is not an LMDB file"],
    );
    check(
        |path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(20_000).unwrap(),
        expect!["DIR/a.lmdb: length: wanted a whole LMDB file, found DIR/a.lmdb: file: length: wanted 45056 bytes, found 20000 bytes"],
    );
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.lmdb");
    convert(&Folder2Lmdb::open(golden("seed.lmdb")).unwrap(), &ours);
    let error = Folder2Lmdb::open(&ours).unwrap_err();
    expect![[r#"DIR/ours.lmdb: record "__len__": wanted a store of folder2lmdb, found no such record"#]]
        .assert_eq(&text(&error, folder.path()));
    let theirs = folder.path().join("theirs.lmdb");
    std::fs::copy(golden("seed.lmdb"), &theirs).unwrap();
    let error = Store::open(&theirs).unwrap_err();
    expect![[r#"DIR/theirs.lmdb: not a store: wanted a record "meta" with a format version, found a store of folder2lmdb, which `topolab data convert` makes one of"#]]
        .assert_eq(&text(&error, folder.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A value of any bytes is a sample or an error, never a panic.
    #[test]
    fn any_bytes_are_a_sample_or_an_error(flips in proptest::collection::vec((0usize..1200, any::<u8>()), 1..6), cut in 0usize..1300) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lmdb");
        std::fs::copy(golden("seed.lmdb"), &path).unwrap();
        let mut value = raw(&path, b"3");
        for (at, byte) in flips {
            let at = at % value.len();
            value[at] ^= byte;
        }
        value.truncate(cut.max(1));
        put(&path, b"3", &value);
        if let Ok(seed) = Folder2Lmdb::open(&path) {
            let _ = seed.get(0, 3);
        }
    }
}

fn raw(path: &Path, key: &[u8]) -> Vec<u8> {
    use lmdb::Transaction;
    let flags = lmdb::EnvironmentFlags::NO_SUB_DIR | lmdb::EnvironmentFlags::NO_LOCK | lmdb::EnvironmentFlags::READ_ONLY;
    let environment = lmdb::Environment::new().set_flags(flags).open(path).unwrap();
    let transaction = environment.begin_ro_txn().unwrap();
    transaction.get(environment.open_db(None).unwrap(), &key).unwrap().to_vec()
}
