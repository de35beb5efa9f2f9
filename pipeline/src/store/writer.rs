//! Appends values to a half-made store; what is committed survives the death of the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lmdb::{Cursor, Database, DatabaseFlags, Environment, EnvironmentFlags, Transaction, WriteFlags};

use super::codec::Value;
use super::{MAX_SPLITS, META, STATE, database, split_database};
use crate::{Error, Result};

/// Bytes of values between two commits: as much work as a kill may cost, and memory as a conversion may hold.
const COMMIT: usize = 16 << 20;

/// A half-made store.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    environment: Environment,
    main: Database,
    splits: Vec<Database>,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Held for its lock, which the system lets go when the process dies.
    lock: File,
}

#[derive(Debug)]
struct Pending {
    split: usize,
    last: u64,
    value: Value,
}

/// What a half-made store was when it was opened.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing yet.
    New,
    /// Half-made, at this state.
    State(Vec<u8>),
    /// All there, with this meta record; only the final name is missing.
    Meta(Vec<u8>),
}

impl Writer {
    /// Opens the half-made store at `path`, or begins it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Found)> {
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let lock = lock.map_err(|source| Error::io(path, "create the store", source))?;
        try_lock(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => Error::Busy { path: path.to_owned() },
            TryLockError::Error(source) => Error::io(path, "lock the store", source),
        })?;
        if is_begun(&lock).map_err(|source| Error::io(path, "read the half-made store", source))? {
            lock.set_len(0).map_err(|source| Error::io(path, "create the store", source))?;
        }
        let (environment, main) = open(path)?;
        let found = found(path, &environment, main)?;
        let (environment, main) = if matches!(found, Found::New) {
            // Killed before its first commit: whatever is in the file, nobody refers to it.
            drop(environment);
            lock.set_len(0).map_err(|source| Error::io(path, "create the store", source))?;
            open(path)?
        } else {
            (environment, main)
        };
        Ok((Self { path: path.to_owned(), environment, main, splits: Vec::new(), pending: Vec::new(), pending_bytes: 0, lock }, found))
    }

    /// Makes room for these splits, and writes down the state the conversion begins or goes on with.
    pub(crate) fn begin(&mut self, names: &[&str], state: &[u8]) -> Result<()> {
        for name in names {
            let split = self.environment.create_db(Some(&split_database(name)), DatabaseFlags::empty());
            self.splits.push(split.map_err(|error| self.failed(error))?);
        }
        self.commit(state)
    }

    /// Appends a value whose last record is `last`. It is kept in memory until the next commit.
    pub(crate) fn append(&mut self, split: usize, last: u64, value: Value) {
        self.pending_bytes += value.len();
        self.pending.push(Pending { split, last, value });
    }

    /// Whether enough is waiting.
    pub(crate) fn is_full(&self) -> bool {
        self.pending_bytes >= COMMIT
    }

    /// Writes what was appended, together with the state that it leads to: after a kill there are both, or neither.
    pub(crate) fn commit(&mut self, state: &[u8]) -> Result<()> {
        self.make_room(state.len())?;
        self.write(state).map_err(|error| self.failed(error))?;
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }

    fn write(&self, state: &[u8]) -> lmdb::Result<()> {
        let mut transaction = self.environment.begin_rw_txn()?;
        for Pending { split, last, value } in &self.pending {
            value.write(transaction.reserve(self.splits[*split], &last.to_be_bytes(), value.len(), WriteFlags::APPEND)?);
        }
        transaction.put(self.main, &STATE, &state, WriteFlags::empty())?;
        transaction.commit()
    }

    /// Turns the half-made store into a whole one, and gives it its name.
    pub(crate) fn finish(mut self, meta: &[u8], target: &Path) -> Result<()> {
        self.make_room(meta.len())?;
        let write = || {
            let mut transaction = self.environment.begin_rw_txn()?;
            transaction.put(self.main, &META, &meta, WriteFlags::empty())?;
            transaction.del(self.main, &STATE, None)?;
            transaction.commit()
        };
        write().map_err(|error| self.failed(error))?;
        self.rename(target)
    }

    /// Gives a store that is all there its name: on disk before it is visible, and visible for good.
    pub(crate) fn rename(self, target: &Path) -> Result<()> {
        self.environment.sync(true).map_err(|error| self.failed(error))?;
        if target.exists() {
            return Err(Error::Exists { path: target.to_owned() });
        }
        std::fs::rename(&self.path, target).map_err(|source| Error::io(target, "give the finished store its name", source))?;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| Error::io(folder, "write the folder to disk", source))
    }

    /// Enlarges the map so that the next transaction cannot fill it; no transaction is open here, as LMDB demands.
    fn make_room(&mut self, other: usize) -> Result<()> {
        let sizes = || Ok((self.environment.info()?, self.environment.stat()?.page_size() as usize));
        let (info, page) = sizes().map_err(|error| self.failed(error))?;
        // A value takes whole pages and a key; 64 pages are for the branches of the trees.
        let values: usize = self.pending.iter().map(|pending| pending.value.len() + 2 * page).sum();
        let wanted = (info.last_pgno() + 64) * page + values + 2 * other;
        if wanted > info.map_size() {
            let size = wanted.max(2 * info.map_size()).next_multiple_of(1 << 20);
            self.environment.set_map_size(size).map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// What a failed write means. LMDB calls a write that was cut short an input/output error, and it is cut short where the disk
    /// is full; so the same file is tried again to hear the system's own word.
    fn failed(&self, error: lmdb::Error) -> Error {
        const ACTION: &str = "write the store; what was committed stays, and the same command continues it";
        if error != lmdb::Error::Other(libc::EIO) {
            return database(&self.path, ACTION, error);
        }
        match probe(&self.lock) {
            Err(source) => Error::io(&self.path, ACTION, source),
            Ok(()) => database(&self.path, ACTION, error),
        }
    }
}

/// What is in the half-made store. An LMDB file of someone else's is not touched, whatever its name.
fn found(path: &Path, environment: &Environment, main: Database) -> Result<Found> {
    let failed = |error| database(path, "read the half-made store", error);
    let transaction = environment.begin_ro_txn().map_err(failed)?;
    match (transaction.get(main, &STATE), transaction.get(main, &META)) {
        (Ok(state), _) => return Ok(Found::State(state.to_vec())),
        (_, Ok(meta)) => return Ok(Found::Meta(meta.to_vec())),
        _ => {}
    }
    // Splits are made before the first state is written down.
    for entry in transaction.open_ro_cursor(main).map_err(failed)?.iter() {
        let (key, _) = entry.map_err(failed)?;
        if !key.starts_with(split_database("").as_bytes()) {
            return Err(foreign(path));
        }
    }
    Ok(Found::New)
}

/// Whether a file is the beginning of LMDB's first two pages: it was killed, or out of disk, before there was a database.
fn is_begun(mut file: &File) -> std::io::Result<bool> {
    const PAGES: u64 = 2 * 4096;
    if file.metadata()?.len() >= PAGES {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(PAGES).read_to_end(&mut bytes)?;
    // The number of the page, which is zero, and eight bytes on LMDB's magic number.
    let (number, magic) = (bytes.len().min(8), 0xbeef_c0de_u32.to_ne_bytes());
    Ok(bytes[..number].iter().all(|&byte| byte == 0) && bytes.get(16..20).is_none_or(|found| found == magic))
}

fn foreign(path: &Path) -> Error {
    Error::Foreign { path: path.to_owned(), wanted: "a half-made store", found: "something else; delete it to start anew".to_owned() }
}

/// Whether a file can grow by a megabyte; it is left as long as it was.
fn probe(mut file: &File) -> std::io::Result<()> {
    let len = file.seek(SeekFrom::End(0))?;
    let outcome = file.write_all(&[0; 1 << 20]);
    file.set_len(len)?;
    outcome
}

fn open(path: &Path) -> Result<(Environment, Database)> {
    // Without the metadata's own flush a power cut may lose the last commit, never more; our own lock stands in for LMDB's.
    let flags = EnvironmentFlags::NO_SUB_DIR | EnvironmentFlags::NO_LOCK | EnvironmentFlags::NO_TLS | EnvironmentFlags::NO_META_SYNC;
    let environment = Environment::new().set_flags(flags).set_max_dbs(MAX_SPLITS).open(path);
    let environment = environment.map_err(|error| match error {
        lmdb::Error::Invalid | lmdb::Error::VersionMismatch | lmdb::Error::Corrupted => foreign(path),
        error => database(path, "open the half-made store", error),
    })?;
    let main = environment.open_db(None).map_err(|error| database(path, "open the half-made store", error))?;
    Ok((environment, main))
}

/// Locks a file unless another process has it locked.
///
/// Asked again for a tenth of a second: a process that another thread of this program is just starting has this program's open files, and so
/// their locks, until it has become its own program.
///
/// # Errors
/// When another process has it locked, or the file system knows no locks.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
    file.try_lock()
}
