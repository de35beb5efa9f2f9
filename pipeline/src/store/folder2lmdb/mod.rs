//! Stores of `folder2lmdb.py`, the script that research code passes on: read as they are, to be trained on or converted.
//!
//! Each is an LMDB file of one split. The key of a sample is its number in decimal, its value a pair of the bytes of a file and the number of its
//! class, as pyarrow serialised it; beside them are `__keys__`, the list of all keys, and `__len__`. Names of classes are lost. Nothing is
//! written, no lock is taken, and a file that changes while it is read is none of ours to guard.

mod arrow;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use datasets::{Dataset, Error, Info, Picture, Result, Sample, Split};
use lmdb::{Database, Environment, EnvironmentFlags, Transaction};
use rayon::prelude::*;

use self::arrow::Value;

/// One such store, or several as the splits of one data set.
#[derive(Debug)]
pub struct Folder2Lmdb {
    info: Info,
    parts: Vec<Part>,
}

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    environment: Environment,
    database: Database,
    len: usize,
    /// Where they are not the numbers from 0 on.
    keys: Option<Vec<Vec<u8>>>,
}

/// The files of a folder that are its splits.
const SPLITS: [(&str, &str); 3] = [("train", "train.lmdb"), ("val", "val.lmdb"), ("test", "test.lmdb")];

impl Folder2Lmdb {
    /// Whether there is an LMDB file at `path`, or a folder of such files as [`Folder2Lmdb::open`] takes.
    pub fn is_at(path: &Path) -> bool {
        is_lmdb(path) || path.is_dir() && (is_lmdb(&path.join("data.mdb")) || path.join(SPLITS[0].1).exists())
    }

    /// The store at `path`, which becomes the split `train`; or a folder of `train.lmdb`, `val.lmdb` and `test.lmdb`, of those that are there.
    /// There are as many classes as the largest label says, each named by its number: so every sample's label is read, on all of rayon's threads.
    ///
    /// # Errors
    /// When a file is no such store, or has a sample that is not a picture's bytes and a number.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let found = SPLITS.map(|(split, file)| (split, path.join(file)));
        let mut files: Vec<_> = found.into_iter().filter(|(_, file)| file.exists()).collect();
        if files.is_empty() {
            files.push((SPLITS[0].0, path.to_owned()));
        }
        let parts = files.iter().map(|(_, file)| Part::open(file)).collect::<Result<Vec<_>>>()?;
        let mut classes = 0;
        for part in &parts {
            let labels = (0..part.len).into_par_iter().map(|index| part.with(index, |_, label| label as usize + 1));
            classes = classes.max(labels.try_reduce(|| 0, |a, b| Ok(a.max(b)))?);
        }
        let splits = files.iter().zip(&parts).map(|((split, _), part)| Split { name: (*split).to_owned(), len: part.len });
        let name = path.file_stem().map_or_else(|| "folder2lmdb".to_owned(), |name| name.to_string_lossy().to_lowercase());
        let info = Info { name, classes: (0..classes).map(|class| class.to_string()).collect(), splits: splits.collect() };
        Ok(Self { info, parts })
    }
}

impl Dataset for Folder2Lmdb {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        let part = &self.parts[split];
        assert!(index < part.len, "sample {index} of a split of {}", part.len);
        let name = String::from_utf8_lossy(&part.key(index)).into_owned();
        part.with(index, |bytes, label| Sample { picture: Picture::Encoded(bytes.to_vec()), label, name })
    }
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("data.mdb") } else { path.to_owned() };
        let len = file.metadata().map_err(|error| io(&file, error))?.len();
        let flags = EnvironmentFlags::NO_SUB_DIR | EnvironmentFlags::READ_ONLY | EnvironmentFlags::NO_LOCK | EnvironmentFlags::NO_TLS;
        let environment = Environment::new().set_flags(flags).open(&file).map_err(|error| failed(&file, error))?;
        super::check_length(&file, &environment, len).map_err(|error| format(&file, "length", "a whole LMDB file", error))?;
        let database = environment.open_db(None).map_err(|error| failed(&file, error))?;
        let mut part = Self { path: file, environment, database, len: 0, keys: None };
        part.len = part.value(b"__len__", |value| match value {
            Value::Int(len) => usize::try_from(len).ok(),
            _ => None,
        })?;
        let keys: Vec<Vec<u8>> = part.value(b"__keys__", |value| {
            let Value::Sequence(keys) = value else { return None };
            let key = |key| if let Value::Bytes(key) = key { Some(key.to_vec()) } else { None };
            keys.into_iter().map(key).collect()
        })?;
        if keys.len() != part.len {
            return Err(format(&part.path, "__keys__", format!("{} keys, as __len__ says", part.len), keys.len()));
        }
        part.keys = keys.iter().enumerate().any(|(index, key)| *key != number(index)).then_some(keys);
        Ok(part)
    }

    fn key(&self, index: usize) -> Vec<u8> {
        self.keys.as_ref().map_or_else(|| number(index), |keys| keys[index].clone())
    }

    /// What `with` makes of a sample's bytes and label.
    fn with<T>(&self, index: usize, with: impl FnOnce(&[u8], u32) -> T) -> Result<T> {
        self.value(&self.key(index), |value| match value {
            Value::Sequence(pair) => match pair.as_slice() {
                [Value::Bytes(bytes), Value::Int(label @ 0..CLASSES)] => Some(with(bytes, *label as u32)),
                _ => None,
            },
            _ => None,
        })
    }

    /// What `with` makes of a value, if it can.
    fn value<T>(&self, key: &[u8], with: impl FnOnce(Value<'_>) -> Option<T>) -> Result<T> {
        let transaction = self.environment.begin_ro_txn().map_err(|error| failed(&self.path, error))?;
        let field = || format!("record {:?}", String::from_utf8_lossy(key));
        let bytes = match transaction.get(self.database, &key) {
            Ok(bytes) => bytes,
            Err(lmdb::Error::NotFound) => return Err(format(&self.path, field(), "a store of folder2lmdb", "no such record")),
            Err(error) => return Err(failed(&self.path, error)),
        };
        let value = arrow::value(bytes).and_then(with);
        value.ok_or_else(|| {
            format(&self.path, field(), "what folder2lmdb writes there, serialised by pyarrow", format!("{} other bytes", bytes.len()))
        })
    }
}

/// More classes than there can be: a label beyond is damage.
const CLASSES: i64 = 1 << 24;

fn number(index: usize) -> Vec<u8> {
    index.to_string().into_bytes()
}

/// Whether a file begins as LMDB's do: its magic number is in the first page, behind the page's header.
fn is_lmdb(path: &Path) -> bool {
    let magic = || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(16))?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map(|()| u32::from_ne_bytes(magic))
    };
    path.is_file() && magic().is_ok_and(|magic| magic == 0xbeef_c0de)
}

fn failed(path: &Path, error: lmdb::Error) -> Error {
    match error {
        lmdb::Error::Other(code) => io(path, std::io::Error::from_raw_os_error(code)),
        error => format(path, "contents", "an LMDB file", error),
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), action: "read", source }
}

fn format(path: &Path, field: impl Into<String>, wanted: impl ToString, found: impl ToString) -> Error {
    Error::Format { path: path.to_owned(), field: field.into(), wanted: wanted.to_string(), found: found.to_string() }
}

/// Reads any bytes as a value.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = arrow::value(bytes);
}
