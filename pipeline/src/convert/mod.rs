//! Copies a data set into a store, in parallel, and leaves either a whole store or none.
//!
//! Threads read, check and hash samples, block by block; one writer takes the blocks in order and appends. So the store depends
//! on the data set alone: not on the number of threads, nor on how often the conversion was killed and continued. It grows beside
//! its target under the name `TARGET.partial`, and what is committed there carries the state that led to it; calling [`convert`]
//! again with the same arguments goes on from that state.

pub(crate) mod check;
mod state;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use datasets::{Dataset, Picture};

use crate::store::codec::{self, Packer};
use crate::store::meta::{self, Size};
use crate::store::{Encoding, FORMAT, Found, Meta, Skipped, Store, Writer};
use crate::{Error, Result};
use check::Moments;
use state::State;

/// How a data set is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the data set came from, for the store's own record. A half-made store is continued only from the same source.
    pub source: String,
    /// A picture that cannot be used ends the conversion; otherwise it is left out and reported.
    pub strict: bool,
    /// Threads that read and check. The store does not depend on it.
    pub threads: NonZeroUsize,
}

/// How far a conversion or a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Samples dealt with, of all splits, those of earlier runs included.
    pub done: usize,
    /// Samples of all splits.
    pub total: usize,
    /// Bytes of the pictures dealt with.
    pub bytes: u64,
    /// Pictures found wanting.
    pub bad: usize,
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The store.
    pub path: PathBuf,
    /// What it says about itself; [`Meta::skipped`] lists what was left out.
    pub meta: Meta,
    /// Samples that an earlier, interrupted conversion had dealt with.
    pub continued: usize,
}

/// Copies `dataset` into a new store at `target`. Pictures stay as they are (JPEG and PNG files byte for byte, pixels as pixels);
/// each is decoded once, to see that it can be, and to measure mean and deviation.
///
/// Killed at any moment, it leaves nothing at `target`, and the next call with the same arguments goes on where it stopped.
///
/// # Errors
/// When `target` exists, the data set cannot be read, the disk is full, another process converts to the same target, a half-made
/// store there has another origin, or, if strict, a picture cannot be used.
///
/// # Panics
/// When a label is not below the number of classes, or the data set panics.
pub fn convert(dataset: &dyn Dataset, target: &Path, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report> {
    if target.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: target.to_owned() });
    }
    let partial = partial(target);
    let (mut writer, found) = Writer::open(&partial)?;
    let mut state = match found {
        Found::New => State::new(dataset.info(), &options.source),
        Found::State(bytes) => State::read(&partial, &bytes, dataset.info(), &options.source)?,
        Found::Meta(bytes) => {
            let meta = state::finished(&partial, &bytes, dataset.info(), &options.source)?;
            refuse_skipped(&meta.skipped, options)?;
            writer.rename(target)?;
            let continued = dataset.info().splits.iter().map(|split| split.len).sum();
            return Ok(Report { path: target.to_owned(), meta, continued });
        }
    };
    refuse_skipped(&state.skipped, options)?;
    let names: Vec<&str> = dataset.info().splits.iter().map(|split| split.name.as_str()).collect();
    writer.begin(&names, &state.to_bytes())?;
    let continued = state.done();
    for split in 0..names.len() {
        copy(dataset, split, options, &mut state, &mut writer, progress)?;
    }
    let meta = meta(&state);
    let bytes = serde_json::to_vec(&meta).expect("a meta record is plain data");
    writer.finish(&bytes, target)?;
    Ok(Report { path: target.to_owned(), meta, continued })
}

/// The store at `target`: opened where it is there, made from `dataset` where it is not. What a notebook calls, since a cell that is
/// run again finds its store. `source` says what the data set is made of; a store with another source is not taken for this one.
///
/// # Errors
/// As [`convert`], and when there is a store of something else.
///
/// # Panics
/// As [`convert`].
pub fn ensure(dataset: &dyn Dataset, target: impl AsRef<Path>, source: &str) -> Result<Store> {
    let target = target.as_ref();
    if target.symlink_metadata().is_err() {
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make the folder", error))?;
        }
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        convert(dataset, target, &Options { source: source.to_owned(), strict: false, threads }, &mut |_| {})?;
    }
    let store = Store::open(target)?;
    let (found, wanted) = (store.meta(), dataset.info());
    for (field, found, wanted) in [("name", &*found.name, &*wanted.name), ("source", &*found.source, source)] {
        if found != wanted {
            return Err(Error::Changed { path: target.to_owned(), field, wanted: wanted.to_owned(), found: found.to_owned() });
        }
    }
    Ok(store)
}

/// Where the store of `target` grows.
pub fn partial(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// Samples that a thread hands over at once: few enough that large pictures stay within some megabytes a thread, and enough that
/// handing over costs little for small ones.
const BLOCK: usize = 16;

/// Finished blocks that may wait, for each thread.
const AHEAD: usize = 2;

/// One sample, read and checked.
enum Outcome {
    Record { label: u32, encoding: Encoding, bytes: Vec<u8>, digest: [u8; 32], size: Size, moments: Moments },
    Skipped { name: String, reason: String },
}

/// Copies the rest of one split.
fn copy(
    dataset: &dyn Dataset,
    split: usize,
    options: &Options,
    state: &mut State,
    writer: &mut Writer,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let first = state.splits[split].done;
    let len = dataset.info().splits[split].len;
    let blocks = (len - first).div_ceil(BLOCK);
    let threads = options.threads.get().min(blocks);
    let mut packer = Packer::default();
    std::thread::scope(|scope| {
        // Block `k` is the work of thread `k % threads`, which has a channel of its own: the writer takes blocks in order without
        // sorting them, and no thread runs further ahead than its channel is long.
        let channels: Vec<_> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::sync_channel(AHEAD);
                scope.spawn(move || {
                    for block in (thread..blocks).step_by(threads) {
                        let start = first + block * BLOCK;
                        let samples = (start..len.min(start + BLOCK)).map(|index| read(dataset, split, index));
                        let samples: Result<Vec<Outcome>> = samples.collect();
                        let failed = samples.is_err();
                        // The writer hangs up when it fails.
                        if sender.send(samples).is_err() || failed {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for block in 0..blocks {
            let samples = channels[block % threads].recv().expect("a thread hangs up early only when it panics, as this one does then");
            for sample in samples? {
                add(sample, split, options, state, (&mut packer, writer))?;
            }
            progress(state.progress());
        }
        Ok(())
    })?;
    flush(&mut packer, split, state, writer);
    writer.commit(&state.to_bytes())
}

/// Appends one sample: to the value that is being packed, and to what the state counts.
fn add(sample: Outcome, split: usize, options: &Options, state: &mut State, (packer, writer): (&mut Packer, &mut Writer)) -> Result<()> {
    match sample {
        Outcome::Skipped { name, reason } => {
            let skipped = Skipped { split: state.info.splits[split].name.clone(), name, reason };
            refuse_skipped(std::slice::from_ref(&skipped), options)?;
            state.skipped.push(skipped);
        }
        Outcome::Record { label, encoding, bytes, digest, size, moments } => {
            if !packer.has_room(encoding, bytes.len()) {
                flush(packer, split, state, writer);
                // Only here is the state that of the values appended, with no record between.
                if writer.is_full() {
                    writer.commit(&state.to_bytes())?;
                }
            }
            packer.push(label, encoding, &bytes);
            if split == state.train {
                state.moments.add(&moments);
            }
            let part = &mut state.splits[split];
            part.census.add(label, encoding, size, bytes.len());
            part.digest = codec::chain(part.digest, digest);
        }
    }
    state.splits[split].done += 1;
    Ok(())
}

/// Ends the value that is being packed.
fn flush(packer: &mut Packer, split: usize, state: &State, writer: &mut Writer) {
    if !packer.is_empty() {
        writer.append(split, state.splits[split].census.len() - 1, packer.finish());
    }
}

fn refuse_skipped(skipped: &[Skipped], options: &Options) -> Result<()> {
    match skipped.first() {
        Some(first) if options.strict => Err(Error::Picture { name: first.name.clone(), reason: first.reason.clone() }),
        _ => Ok(()),
    }
}

fn read(dataset: &dyn Dataset, split: usize, index: usize) -> Result<Outcome> {
    let sample = dataset.get(split, index).map_err(Error::Dataset)?;
    let classes = dataset.info().classes.len();
    assert!((sample.label as usize) < classes, "{}: label {} of {classes} classes", sample.name, sample.label);
    let checked = match &sample.picture {
        Picture::Raw(image) => check::raw(image),
        Picture::Encoded(bytes) => check::encoded(bytes),
    };
    let (encoding, size, moments) = match checked {
        Ok(checked) => checked,
        Err(reason) => return Ok(Outcome::Skipped { name: sample.name, reason }),
    };
    let bytes = match sample.picture {
        Picture::Raw(image) => image.pixels,
        Picture::Encoded(bytes) => bytes,
    };
    Ok(Outcome::Record { label: sample.label, encoding, digest: codec::digest(sample.label, encoding, &bytes), bytes, size, moments })
}

fn meta(state: &State) -> Meta {
    let splits = state.info.splits.iter().zip(&state.splits);
    let splits: Vec<_> = splits.map(|(split, part)| datasets::Split { len: part.census.len() as usize, ..split.clone() }).collect();
    let digests: Vec<_> = state.splits.iter().map(|part| part.digest).collect();
    Meta {
        format: FORMAT,
        name: state.info.name.clone(),
        content: meta::content(&state.info.classes, &splits, &digests),
        classes: state.info.classes.clone(),
        pictures: state.splits.iter().map(|part| part.census.pictures()).collect(),
        splits,
        normalize: state.moments.normalize(),
        skipped: state.skipped.clone(),
        source: state.source.clone(),
    }
}
