//! How far a conversion has come; written down with every commit.

use std::path::Path;

use datasets::Info;
use serde::{Deserialize, Serialize};

use super::Progress;
use super::check::Moments;
use crate::store::meta::Census;
use crate::store::{FORMAT, Meta, Skipped};
use crate::{Error, Result};

/// All that a conversion must know to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    pub(super) info: Info,
    pub(super) source: String,
    /// The split whose pixels are measured.
    pub(super) train: usize,
    pub(super) splits: Vec<Part>,
    pub(super) moments: Moments,
    pub(super) skipped: Vec<Skipped>,
}

/// How far one split has come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// Samples of the source dealt with.
    pub(super) done: usize,
    /// The chain of the digests of its records.
    pub(super) digest: [u8; 32],
    /// Its records, counted.
    pub(super) census: Census,
}

impl State {
    pub(super) fn new(info: &Info, source: &str) -> Self {
        let part = || Part { done: 0, digest: [0; 32], census: Census::new(info.classes.len()) };
        Self {
            format: FORMAT,
            info: info.clone(),
            source: source.to_owned(),
            train: info.splits.iter().position(|split| split.name == "train").unwrap_or(0),
            splits: info.splits.iter().map(|_| part()).collect(),
            moments: Moments::default(),
            skipped: Vec::new(),
        }
    }

    /// The state found at `path`, if it is that of a conversion of this data set.
    pub(super) fn read(path: &Path, bytes: &[u8], info: &Info, source: &str) -> Result<Self> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| changed(path, "state", "one of this program", error))?;
        if state.format != FORMAT {
            return Err(changed(path, "format version", FORMAT, state.format));
        }
        same(path, (&state.info, &state.source), (info, source))?;
        Ok(state)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a state is plain data")
    }

    /// Samples of the source dealt with.
    pub(super) fn done(&self) -> usize {
        self.splits.iter().map(|part| part.done).sum()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            done: self.done(),
            total: self.info.splits.iter().map(|split| split.len).sum(),
            bytes: self.splits.iter().map(|part| part.census.bytes()).sum(),
            bad: self.skipped.len(),
        }
    }
}

/// The meta record found at `path`, where all but the final name is there, if it is that of a conversion of this data set.
pub(super) fn finished(path: &Path, bytes: &[u8], info: &Info, source: &str) -> Result<Meta> {
    let meta: Meta = serde_json::from_slice(bytes).map_err(|error| changed(path, "meta record", "one of this program", error))?;
    let mut splits = meta.splits.clone();
    for split in &mut splits {
        split.len += meta.skipped.iter().filter(|skipped| skipped.split == split.name).count();
    }
    let found = Info { name: meta.name.clone(), classes: meta.classes.clone(), splits };
    same(path, (&found, &meta.source), (info, source))?;
    Ok(meta)
}

fn same(path: &Path, (found, found_source): (&Info, &str), (wanted, wanted_source): (&Info, &str)) -> Result<()> {
    if found_source != wanted_source {
        return Err(changed(path, "source", wanted_source, found_source));
    }
    if found.name != wanted.name {
        return Err(changed(path, "name", &wanted.name, &found.name));
    }
    if found.classes != wanted.classes {
        return Err(changed(path, "list of classes", wanted.classes.len(), found.classes.len()));
    }
    let render = |info: &Info| info.splits.iter().map(|split| format!("{} {}", split.name, split.len)).collect::<Vec<_>>().join(", ");
    if found.splits != wanted.splits {
        return Err(changed(path, "list of splits", render(wanted), render(found)));
    }
    Ok(())
}

fn changed(path: &Path, field: &'static str, wanted: impl ToString, found: impl ToString) -> Error {
    Error::Changed { path: path.to_owned(), field, wanted: wanted.to_string(), found: found.to_string() }
}
