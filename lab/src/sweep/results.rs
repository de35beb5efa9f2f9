//! The files of a sweep.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Run;
use crate::{Error, Result};

/// One line of the results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row<R, U = Run> {
    /// [`Run::id`].
    pub id: String,
    /// What was run.
    pub run: U,
    /// What came out.
    pub result: R,
}

/// One line of the file of failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure<U = Run> {
    /// [`Run::id`].
    pub id: String,
    /// What was run.
    pub run: U,
    /// The error with its causes, or the panic.
    pub reason: String,
}

/// Results and failures, open for one sweep alone.
pub(super) struct Results {
    done: Lines,
    failures: Lines,
    /// Of the runs in the results.
    pub(super) ids: BTreeSet<String>,
    /// Of those that failed at some time.
    pub(super) failed: BTreeSet<String>,
}

impl Results {
    pub(super) fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, "make the folder", source))?;
        }
        let (done, ids) = Lines::open(path, "a finished run", true)?;
        let (failures, failed) = Lines::open(&path.with_extension("failed.jsonl"), "a failed run", false)?;
        Ok(Self { done, failures, ids, failed })
    }

    pub(super) fn append<R: Serialize, U: Serialize>(&mut self, row: &Row<R, U>) -> Result<()> {
        self.done.append(row)
    }

    pub(super) fn append_failure<U: Serialize>(&mut self, failure: &Failure<U>) -> Result<()> {
        self.failures.append(failure)
    }
}

/// A file of JSON lines that only grows.
struct Lines {
    path: PathBuf,
    /// `None` until its first line, where nobody wants an empty one.
    file: Option<File>,
}

/// All that is asked of a line.
#[derive(Deserialize)]
struct Line {
    id: String,
    #[expect(dead_code, reason = "that it is there shows what kind of file this is")]
    run: serde::de::IgnoredAny,
}

impl Lines {
    fn open(path: &Path, wanted: &str, make: bool) -> Result<(Self, BTreeSet<String>)> {
        if !make && !path.exists() {
            return Ok((Self { path: path.to_owned(), file: None }, BTreeSet::new()));
        }
        let mut file = locked(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|source| Error::io(path, "read the results", source))?;
        // A line without its end was cut by a kill; the run it stood for counts as not done.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|source| Error::io(path, "cut a half-written line", source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| Error::io(path, "seek", source))?;
        let id = |(at, line): (usize, &str)| match serde_json::from_str::<Line>(line) {
            Ok(line) => Ok(line.id),
            Err(error) => Err(Error::mismatch(format!("{}: line {}", path.display(), at + 1), wanted, error)),
        };
        let ids = text[..whole].lines().enumerate().map(id).collect::<Result<_>>()?;
        Ok((Self { path: path.to_owned(), file: Some(file) }, ids))
    }

    fn append(&mut self, row: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(row).map_err(|error| Error::mismatch("sweep: result", "values that JSON can hold", error))?;
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(locked(&self.path)?),
        };
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        written.map_err(|source| Error::io(&self.path, "append a result", source))
    }
}

fn locked(path: &Path) -> Result<File> {
    let options = OpenOptions::new().read(true).append(true).create(true).open(path);
    let file = options.map_err(|source| Error::io(path, "open the results", source))?;
    crate::lock::try_lock(&file).map_err(|error| match error {
        TryLockError::WouldBlock => Error::mismatch(path.display().to_string(), "one sweep at a time", "another that writes it"),
        TryLockError::Error(source) => Error::io(path, "lock the results", source),
    })?;
    Ok(file)
}
