//! How far a conversion has come; written down with every commit.

use std::collections::BTreeMap;
use std::path::Path;

use datasets::{Dataset, Info};
use serde::{Deserialize, Serialize};

use super::moments::Moments;
use super::{Check, Options, Progress};
use crate::store::meta::Census;
use crate::store::{FORMAT, Form, Meta, Skipped};
use crate::{Error, Result};

/// All that a conversion must know to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    pub(super) info: Info,
    pub(super) source: String,
    pub(super) form: Form,
    check: Check,
    /// The split whose pixels are measured.
    pub(super) train: usize,
    pub(super) splits: Vec<Part>,
    pub(super) moments: Moments,
    pub(super) rewritten: BTreeMap<String, u64>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) ignored: BTreeMap<String, u64>,
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
    /// Samples at equal distances with what [`witness`] says of them: whether the data set has changed is asked of these.
    pub(super) witnesses: Vec<(usize, String)>,
    /// Lengths and times of the files dealt with.
    pub(super) stamps: Stamps,
}

/// What [`Dataset::stamp`] says of some samples, one after the other: FNV-1a.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamps(u64);

impl Default for Stamps {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Stamps {
    /// These, and that of the next sample.
    pub(super) fn and(self, stamp: Option<[u64; 2]>) -> Self {
        let bytes = stamp.into_iter().flatten().flat_map(u64::to_le_bytes);
        Self(bytes.fold(self.0, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)))
    }
}

/// The beginning of a record's digest, in hex.
pub(super) fn witness(digest: [u8; 32]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Part {
    /// One more sample was dealt with.
    pub(super) fn pass(&mut self, stamp: Option<[u64; 2]>) {
        self.done += 1;
        self.stamps = self.stamps.and(stamp);
    }

    /// Remembers the sample that is being dealt with if it is one of 256 at equal distances.
    pub(super) fn witness(&mut self, digest: [u8; 32], len: usize) {
        if self.done.is_multiple_of(len.div_ceil(256)) {
            self.witnesses.push((self.done, witness(digest)));
        }
    }
}

impl State {
    pub(super) fn new(dataset: &dyn Dataset, options: &Options) -> Self {
        let info = dataset.info();
        let part =
            || Part { done: 0, digest: [0; 32], census: Census::new(info.classes.len()), witnesses: Vec::new(), stamps: Stamps::default() };
        Self {
            format: FORMAT,
            info: info.clone(),
            source: options.source.clone(),
            form: options.form,
            check: options.check,
            train: info.splits.iter().position(|split| split.name == "train").unwrap_or(0),
            splits: info.splits.iter().map(|_| part()).collect(),
            moments: Moments::default(),
            rewritten: BTreeMap::new(),
            skipped: Vec::new(),
            ignored: dataset.ignored(),
        }
    }

    /// The state found at `path`, if it is that of such a conversion of this data set.
    pub(super) fn read(path: &Path, bytes: &[u8], dataset: &dyn Dataset, options: &Options) -> Result<Self> {
        let state: Self = serde_json::from_slice(bytes).map_err(|error| changed(path, "state", "one of this program", error))?;
        if state.format != FORMAT {
            return Err(changed(path, "format version", FORMAT, state.format));
        }
        same(path, (&state.info, &state.source, &state.form), dataset.info(), options)?;
        if state.check != options.check {
            return Err(changed(path, "check", json(&options.check), json(&state.check)));
        }
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
pub(super) fn finished(path: &Path, bytes: &[u8], dataset: &dyn Dataset, options: &Options) -> Result<Meta> {
    let meta: Meta = serde_json::from_slice(bytes).map_err(|error| changed(path, "meta record", "one of this program", error))?;
    let mut splits = meta.splits.clone();
    for split in &mut splits {
        split.len += meta.skipped.iter().filter(|skipped| skipped.split == split.name).count();
    }
    let found = Info { name: meta.name.clone(), classes: meta.classes.clone(), splits };
    same(path, (&found, &meta.source, &meta.form), dataset.info(), options)?;
    Ok(meta)
}

fn same(path: &Path, (found, source, form): (&Info, &str, &Form), wanted: &Info, options: &Options) -> Result<()> {
    if *source != options.source {
        return Err(changed(path, "source", &options.source, source));
    }
    if *form != options.form {
        return Err(changed(path, "form", json(&options.form), json(form)));
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

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}
