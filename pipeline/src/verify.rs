//! Re-reads every record of a store.

use datasets::Image;
use rayon::prelude::*;

use crate::convert::Progress;
use crate::convert::check::{chain, size};
use crate::convert::header::traits;
use crate::decode::Decoder;
use crate::store::codec;
use crate::store::meta::{self, Census, Size, Traits};
use crate::{Encoding, Error, Result, Store};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Records read.
    pub records: usize,
    /// Records that cannot be read or decoded.
    pub bad: Vec<Bad>,
    /// Where the records, all of them good, do not add up to what the store says of itself.
    pub differences: Vec<String>,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// The split.
    pub split: String,
    /// The record's number in it.
    pub index: usize,
    /// What is wrong.
    pub reason: String,
}

impl Verification {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.bad.is_empty() && self.differences.is_empty()
    }
}

/// Reads and decodes every record, on all of rayon's threads, and compares counts, sizes and content hash with the store's own
/// account of itself. A bad record is no error here: it is in the result.
///
/// # Errors
/// When the store cannot be read at all.
pub fn verify(store: &Store, progress: &mut dyn FnMut(Progress)) -> Result<Verification> {
    let meta = store.meta();
    let mut found = Verification { records: 0, bad: Vec::new(), differences: Vec::new() };
    let mut state = Progress { done: 0, total: meta.splits.iter().map(|split| split.len).sum(), bytes: 0, bad: 0 };
    let mut digests = Vec::new();
    for (number, split) in meta.splits.iter().enumerate() {
        let mut census = Census::new(meta.classes.len());
        let mut digest = [0; 32];
        for start in (0..split.len).step_by(WINDOW) {
            let window = start..split.len.min(start + WINDOW);
            let read = |(decoder, image): &mut (Decoder, Image), index| read(store, (number, index), decoder, image);
            let desk = || (Decoder::default(), Image { height: 0, width: 0, channels: 0, pixels: Vec::new() });
            let records: Vec<_> = window.clone().into_par_iter().with_min_len(16).map_init(desk, read).collect();
            for (index, record) in window.zip(records) {
                state.done += 1;
                match record {
                    Ok(Read { label, encoding, size, traits, bytes, digest: record }) => {
                        state.bytes += bytes as u64;
                        census.add(label, encoding, size, traits, bytes);
                        digest = codec::chain(digest, record);
                    }
                    Err(reason) => found.bad.push(Bad { split: split.name.clone(), index, reason }),
                }
            }
            state.bad = found.bad.len();
            progress(state);
        }
        digests.push(digest);
        if found.bad.is_empty() && census.pictures() != meta.pictures[number] {
            found.differences.push(format!("split {:?}: counts or sizes are not those of the meta record", split.name));
        }
    }
    found.records = state.done;
    let content = meta::content(&meta.classes, &meta.splits, &digests);
    if found.bad.is_empty() && content != meta.content {
        found.differences.push(format!("content hash: wanted {}, found {content}", meta.content));
    }
    Ok(found)
}

/// Records that are worked on at once.
const WINDOW: usize = 4096;

struct Read {
    label: u32,
    encoding: Encoding,
    size: Size,
    traits: Traits,
    bytes: usize,
    digest: [u8; 32],
}

fn read(store: &Store, (split, index): (usize, usize), decoder: &mut Decoder, image: &mut Image) -> Result<Read, String> {
    let reader = store.reader().map_err(|error| chain(&error))?;
    let record = reader.record(split, index).map_err(|error| match error {
        // The report says where by itself.
        Error::Corrupt { field, wanted, found, .. } => format!("{field}: wanted {wanted}, found {found}"),
        error => chain(&error),
    })?;
    decoder.decode(record.encoding, record.bytes, image).map_err(|error| chain(&error))?;
    if !record.index.is_empty() && decoder.index(record.bytes) != record.index {
        return Err("index: not that of the file's rows".to_owned());
    }
    Ok(Read {
        label: record.label,
        encoding: record.encoding,
        size: size(image)?,
        traits: traits(record.encoding, record.bytes),
        bytes: record.bytes.len(),
        digest: codec::digest(record.label, record.encoding, record.bytes),
    })
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Bad { split, index, reason } in &self.bad {
            writeln!(f, "split {split:?}, record {index}: {reason}")?;
        }
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        match self.is_good() {
            true => write!(f, "{} records, all good", self.records),
            false => write!(f, "{} records, {} bad, {} differences", self.records, self.bad.len(), self.differences.len()),
        }
    }
}
