//! Maps an index to a record and back; alone knows LMDB.
//!
//! A store is one file, written once by [`convert`](crate::convert::convert) and only read ever after. Reading is zero-copy: a
//! [`Record`] borrows its bytes from the memory map. `FORMAT.md`, beside this crate's manifest, has the layout byte by byte.
//!
//! # Why no locks
//! LMDB's lock file lets readers run beside a writer. A finished store has no writer: conversion works on a file of another name,
//! never overwrites, and a new store under an old name is a new file. So every environment here is opened with `NO_LOCK`, which
//! has four further merits: read-only media and other people's folders work, readers are unlimited in number, a killed process
//! leaves nothing behind, and the same store may be opened twice in one process (a notebook cell run again), which LMDB forbids
//! only because closing one of the two would drop the other's locks.

pub(crate) mod codec;
mod digest;
pub(crate) mod folder2lmdb;
mod labels;
mod memory;
pub(crate) mod meta;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use lmdb::{Cursor, Database, Environment, EnvironmentFlags, RoTransaction, Transaction};

pub use folder2lmdb::Folder2Lmdb;
use labels::Labels;
pub use memory::keep_freed_memory;
pub use meta::{Extent, FORMAT, Form, INDEXED, Meta, Pictures, Resize, Skipped};
pub(crate) use writer::{Found, Writer};

use crate::{Error, Result};

/// A store that is open for reading; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Store {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    meta: Meta,
    splits: Vec<Database>,
    environment: Environment,
    file_bytes: u64,
    asked: Asked,
    labels: Labels,
}

/// One picture and its label, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Index into [`Meta::classes`].
    pub label: u32,
    /// How the picture is written.
    pub encoding: Encoding,
    /// Where the rows of a JPEG file begin, for [`Decoder::record`](crate::decode::Decoder::record); mostly empty.
    pub index: &'a [u8],
    /// The picture: pixels (HWC), or the bytes of a file.
    pub bytes: &'a [u8],
}

/// How a picture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `height * width * channels` pixels, row after row, channels last.
    Raw {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// 1 or 3.
        channels: u8,
    },
    /// The bytes of a JPEG file.
    Jpeg,
    /// The bytes of a PNG file.
    Png,
}

impl Store {
    /// The store at `path`. Takes a millisecond, whatever its size; the same store may be open many times.
    ///
    /// # Errors
    /// When there is no such file, it is no finished store, it is cut short, or it has another format version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = std::fs::metadata(path).map_err(|source| Error::io(path, "open the store", source))?;
        if !file.is_file() || file.len() == 0 {
            let found = if file.is_file() { "an empty file" } else { "a folder" };
            return Err(Error::Foreign { path: path.to_owned(), wanted: "an LMDB file", found: found.to_owned() });
        }
        let environment = Environment::new()
            .set_flags(EnvironmentFlags::NO_SUB_DIR | EnvironmentFlags::READ_ONLY | EnvironmentFlags::NO_LOCK | EnvironmentFlags::NO_TLS)
            .set_max_dbs(MAX_SPLITS)
            .open(path)
            .map_err(|error| match error {
                lmdb::Error::Invalid | lmdb::Error::VersionMismatch | lmdb::Error::Corrupted => {
                    Error::Foreign { path: path.to_owned(), wanted: "an LMDB file", found: "something else".to_owned() }
                }
                error => database(path, "open the store", error),
            })?;
        check_length(path, &environment, file.len())?;
        let meta = read_meta(path, &environment)?;
        let splits = meta
            .splits
            .iter()
            .map(|split| environment.open_db(Some(&split_database(&split.name))).map_err(|error| database(path, "open a split", error)));
        let splits = splits.collect::<Result<Vec<_>>>()?;
        let asked = Asked::new(file.len(), meta.splits.iter().map(|split| split.len).sum());
        let (path, file_bytes, labels) = (path.to_owned(), file.len(), Labels::new(splits.len()));
        let store = Self { open: Arc::new(Open { path, meta, splits, environment, file_bytes, asked, labels }) };
        store.check_splits()?;
        Ok(store)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.open.path
    }

    /// What it says about itself.
    pub fn meta(&self) -> &Meta {
        &self.open.meta
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> u64 {
        self.open.file_bytes
    }

    /// The place of the split called `name` in [`Meta::splits`].
    ///
    /// # Errors
    /// When there is none; the message lists those there are.
    pub fn split(&self, name: &str) -> Result<usize> {
        let splits = &self.open.meta.splits;
        splits.iter().position(|split| split.name == name).ok_or_else(|| Error::Split {
            path: self.open.path.clone(),
            wanted: name.to_owned(),
            found: splits.iter().map(|split| format!("{:?}", split.name)).collect::<Vec<_>>().join(", "),
        })
    }

    /// Number of records of a split.
    ///
    /// # Panics
    /// When there is no split of this number.
    pub fn len(&self, split: usize) -> usize {
        self.open.meta.splits[split].len
    }

    /// A view of the store from which records are read. Cheap: a loader's thread takes one for each batch.
    ///
    /// # Errors
    /// When LMDB has no memory for it.
    pub fn reader(&self) -> Result<Reader<'_>> {
        let transaction = self.open.environment.begin_ro_txn().map_err(|error| database(&self.open.path, "begin to read", error))?;
        Ok(Reader { store: self, transaction })
    }

    /// The keys end where the counts of `Meta` say.
    fn check_splits(&self) -> Result<()> {
        let reader = self.reader()?;
        for (split, counts) in self.open.meta.splits.iter().enumerate() {
            let past_last = match reader.seek(split, None)? {
                Some((last, _)) => last.checked_add(1),
                None => Some(0),
            };
            if past_last != Some(counts.len as u64) {
                let place = format!("split {:?}", counts.name);
                let found = past_last.map_or("more".to_owned(), |len| len.to_string());
                return Err(Error::Corrupt {
                    path: self.open.path.clone(),
                    place,
                    field: "records",
                    wanted: counts.len.to_string(),
                    found,
                });
            }
        }
        Ok(())
    }
}

/// A view of a [`Store`]; stays on its thread.
#[derive(Debug)]
pub struct Reader<'s> {
    store: &'s Store,
    transaction: RoTransaction<'s>,
}

impl Reader<'_> {
    /// Record `index` of a split, borrowed from the memory map.
    ///
    /// # Errors
    /// When its bytes are not a record; the message names store, split, record and field.
    ///
    /// # Panics
    /// When `split` or `index` is past the end.
    pub fn record(&self, split: usize, index: usize) -> Result<Record<'_>> {
        let len = self.store.len(split);
        assert!(index < len, "record {index} of a split of {len}");
        let corrupt = |field, wanted: String, found: String| {
            let place = format!("split {:?}, record {index}", self.store.meta().splits[split].name);
            Error::Corrupt { path: self.store.path().to_owned(), place, field, wanted, found }
        };
        let Some((last, value)) = self.seek(split, Some(index as u64))? else {
            return Err(corrupt("key", format!("one of at least {index}"), "none".to_owned()));
        };
        let record = codec::record(value, last - index as u64).map_err(|flaw| corrupt(flaw.field, flaw.wanted, flaw.found))?;
        let classes = self.store.meta().classes.len();
        if record.label as usize >= classes {
            return Err(corrupt("label", format!("below {classes}"), record.label.to_string()));
        }
        Ok(record)
    }

    /// Asks the system to read the values of these records from the disk, without waiting: a cold random read is ten times slower
    /// one page fault at a time. Best effort: what cannot be found or asked for is left to [`Reader::record`] to report.
    pub fn prefetch(&self, split: usize, indices: &[u64]) {
        for &index in indices {
            if let Ok(Some((_, value))) = self.seek(split, Some(index))
                && self.store.open.asked.is_first(value)
            {
                will_need(value);
            }
        }
    }

    /// The value that holds record `index`, or the last value of the split, with the index of its last record.
    ///
    /// A key is the index of its value's *last* record, so that the holder of any record is the first key that is not smaller:
    /// one descent of the tree, no table. No page of the value itself is touched.
    fn seek(&self, split: usize, index: Option<u64>) -> Result<Option<(u64, &[u8])>> {
        let path = self.store.path();
        let cursor = self.transaction.open_ro_cursor(self.store.open.splits[split]).map_err(|error| database(path, "read", error))?;
        let key = index.map(u64::to_be_bytes);
        let operation = if key.is_some() { SET_RANGE } else { LAST };
        let (key, value) = match cursor.get(key.as_ref().map(|key| &key[..]), None, operation) {
            Ok(found) => found,
            Err(lmdb::Error::NotFound) => return Ok(None),
            Err(error) => return Err(database(path, "read", error)),
        };
        let key = key.unwrap_or_default();
        let last = <[u8; 8]>::try_from(key).map(u64::from_be_bytes).map_err(|_| Error::Corrupt {
            path: path.to_owned(),
            place: format!("split {:?}", self.store.meta().splits[split].name),
            field: "key",
            wanted: "8 bytes".to_owned(),
            found: format!("{} bytes", key.len()),
        })?;
        Ok(Some((last, value)))
    }
}

/// Which values the system was asked for of late. Asking costs 8 µs even where everything is in memory, as much as a third of
/// decoding a TinyImageNet picture, and its value holds 60 others; so a value is asked for about once an epoch. (`mincore` would
/// tell what is in memory, but only to those who may write the file.) What two threads do at once may be asked twice or not at all.
#[derive(Debug)]
struct Asked {
    /// A bit for each page of the file: values that are worth asking for begin on pages of their own.
    pages: Vec<AtomicU64>,
    /// Records until all is forgotten.
    left: AtomicUsize,
    records: usize,
}

impl Asked {
    const PAGE: usize = 4096;

    fn new(file_bytes: u64, records: usize) -> Self {
        let pages = file_bytes as usize / Self::PAGE + 1;
        Self { pages: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(), left: AtomicUsize::new(records), records }
    }

    fn is_first(&self, value: &[u8]) -> bool {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.left.store(self.records, Ordering::Relaxed);
            self.pages.iter().for_each(|pages| pages.store(0, Ordering::Relaxed));
        }
        // Addresses of one map follow one another, so the remainder tells its pages apart.
        let page = value.as_ptr() as usize / Self::PAGE % (64 * self.pages.len());
        let bit = 1 << (page % 64);
        self.pages[page / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// LMDB's `MDB_SET_RANGE` and `MDB_LAST`, which `lmdb-rkv` takes but does not export.
const SET_RANGE: u32 = 17;
const LAST: u32 = 6;

/// Named databases in one environment; no data set has this many splits.
const MAX_SPLITS: u32 = 64;

/// Keys of the unnamed database: what a finished store says, and what a half-made one has come to.
const META: &str = "meta";
const STATE: &str = "state";

/// The named database that holds a split.
fn split_database(name: &str) -> String {
    format!("split/{name}")
}

/// LMDB trusts its file to be as long as it says, and a read beyond the end would kill the process.
fn check_length(path: &Path, environment: &Environment, len: u64) -> Result<()> {
    let info = environment.info().map_err(|error| database(path, "open the store", error))?;
    let stat = environment.stat().map_err(|error| database(path, "open the store", error))?;
    let wanted = (info.last_pgno() as u64 + 1) * u64::from(stat.page_size());
    if len < wanted {
        return Err(Error::Corrupt {
            path: path.to_owned(),
            place: "file".to_owned(),
            field: "length",
            wanted: format!("{wanted} bytes"),
            found: format!("{len} bytes"),
        });
    }
    Ok(())
}

fn read_meta(path: &Path, environment: &Environment) -> Result<Meta> {
    let foreign = |found: String| Error::Foreign { path: path.to_owned(), wanted: "a record \"meta\" with a format version", found };
    let main = environment.open_db(None).map_err(|error| database(path, "open the store", error))?;
    let transaction = environment.begin_ro_txn().map_err(|error| database(path, "open the store", error))?;
    let bytes = match transaction.get(main, &META) {
        Ok(bytes) => bytes,
        Err(lmdb::Error::NotFound) if transaction.get(main, &STATE).is_ok() => {
            return Err(foreign("a conversion that did not end; repeat its command to continue it".to_owned()));
        }
        Err(lmdb::Error::NotFound) if transaction.get(main, &"__keys__").is_ok() => {
            return Err(foreign("a store of folder2lmdb, which `topolab data convert` makes one of".to_owned()));
        }
        Err(lmdb::Error::NotFound | lmdb::Error::Incompatible) => return Err(foreign("an LMDB file without one".to_owned())),
        Err(error) => return Err(database(path, "read the meta record", error)),
    };
    // The version first: what the other fields are is the version's to say.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| foreign("one that is not JSON".to_owned()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        None => Err(foreign("one without a version".to_owned())),
        Some(found) if ![FORMAT, INDEXED].map(u64::from).contains(&found) => {
            Err(Error::Version { path: path.to_owned(), wanted: [FORMAT, INDEXED], found })
        }
        Some(_) => serde_json::from_value(value).map_err(|error| Error::Corrupt {
            path: path.to_owned(),
            place: "meta record".to_owned(),
            field: "JSON",
            wanted: "the fields of version 1".to_owned(),
            found: error.to_string(),
        }),
    }
}

/// LMDB passes the system's errors through by number; those are `Io` here, so that callers need not know LMDB.
fn database(path: &Path, action: &'static str, error: lmdb::Error) -> Error {
    match error {
        lmdb::Error::Other(code) => Error::io(path, action, std::io::Error::from_raw_os_error(code)),
        error => Error::Database { path: path.to_owned(), action, source: Box::new(error) },
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "the kernel's read-ahead for a memory map has no safe wrapper")]
fn will_need(value: &[u8]) {
    // SAFETY: `sysconf` takes a number and gives one; it touches no memory of this process.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let start = value.as_ptr() as usize & !(page - 1);
    let len = value.as_ptr() as usize + value.len() - start;
    // SAFETY: `MADV_WILLNEED` changes no memory, whatever the range: where nothing is mapped it fails. This range is that of the pages of `value`, which
    // is borrowed.
    unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_WILLNEED) };
}

#[cfg(not(unix))]
fn will_need(_value: &[u8]) {}
