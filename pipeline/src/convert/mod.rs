//! Copies a data set into a store, in parallel, and leaves either a whole store or none.
//!
//! Threads read, check and hash samples, block by block; one writer takes the blocks in order and appends. So the store depends
//! on the data set alone: not on the number of threads, nor on how often the conversion was killed and continued. It grows beside
//! its target under the name `TARGET.partial`, and what is committed there carries the state that led to it; calling [`convert`]
//! again with the same arguments goes on from that state.

pub(crate) mod check;
pub(crate) mod header;
pub(crate) mod moments;
mod prepare;
mod state;
mod summary;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use datasets::{Dataset, Picture, Seed};

pub use check::Check;

use crate::decode::Decoder;
use crate::store::codec::{self, Packer};
use crate::store::meta;
use crate::store::{FORMAT, Form, Found, INDEXED, Meta, Skipped, Store, Writer};
use crate::{Error, Result};
use prepare::{Prepared, prepare};
use state::{Stamps, State};

/// How a data set is copied. A half-made store is continued only from the same source, in the same form, with the same check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the data set came from, for the store's own record.
    pub source: String,
    /// What becomes of the pictures. Default: they stay as they are.
    pub form: Form,
    /// How closely files are looked at. Default: headers and markers.
    pub check: Check,
    /// A picture that cannot be used ends the conversion. Default: it is left out and reported.
    pub strict: bool,
    /// Threads that read and check. Default: one a core. The store does not depend on it.
    pub threads: NonZeroUsize,
}

impl Options {
    /// The defaults, for a data set from there.
    pub fn new(source: impl Into<String>) -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { source: source.into(), form: Form::default(), check: Check::default(), strict: false, threads }
    }
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

/// Copies `dataset` into a new store at `target`. Pictures stay as they are (JPEG and PNG files byte for byte, pixels as pixels),
/// except that those in a printer's inks become RGB, and where [`Options::form`] asks for more. Mean and deviation are measured on all
/// pixels that are there without decoding a file, or else on [some](Meta::measured).
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
        Found::New => State::new(dataset, options),
        Found::State(bytes) => State::read(&partial, &bytes, dataset, options)?,
        Found::Meta(bytes) => {
            let meta = state::finished(&partial, &bytes, dataset, options)?;
            refuse_skipped(&meta.skipped, options)?;
            writer.rename(target)?;
            let continued = dataset.info().splits.iter().map(|split| split.len).sum();
            return Ok(Report { path: target.to_owned(), meta, continued });
        }
    };
    refuse_skipped(&state.skipped, options)?;
    refuse_changed(dataset, &partial, &state, options)?;
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
        convert(dataset, target, &Options::new(source), &mut |_| {})?;
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

/// The store of a public data set, `stores/NAME.lmdb`: opened where it is there; where it is not, the data set is downloaded to
/// `downloads/NAME`, as far as it is not there, and converted. `progress` is told the name of each file that is downloaded, the bytes that
/// are there and the bytes there will be.
///
/// ```no_run
/// let store = pipeline::convert::ensure_public("cifar10", "stores", "downloads", |_, _, _| {})?;
/// # Ok::<(), pipeline::Error>(())
/// ```
///
/// # Errors
/// When there is no public data set of this name, and otherwise as [`datasets::download::named`]; as [`ensure`].
///
/// # Panics
/// As [`convert`].
#[cfg(feature = "download")]
pub fn ensure_public(
    name: &str,
    stores: impl AsRef<Path>,
    downloads: impl AsRef<Path>,
    progress: impl FnMut(&str, u64, u64),
) -> Result<Store> {
    let target = stores.as_ref().join(format!("{name}.lmdb"));
    // A store that is there needs neither network nor downloads. Others of that name are refused by `ensure`.
    if datasets::download::names().contains(&name)
        && let Ok(store) = Store::open(&target)
        && (&*store.meta().name, &*store.meta().source) == (name, name)
    {
        return Ok(store);
    }
    let dataset = datasets::download::named(name, downloads, progress).map_err(Error::Dataset)?;
    ensure(dataset.as_ref(), target, name)
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

/// One sample, read and prepared.
enum Outcome {
    Record { label: u32, picture: Prepared },
    Skipped { name: String, reason: String },
}

/// Samples with their stamps, and the digests of those that became records.
struct Block {
    samples: Vec<(Option<[u64; 2]>, Outcome)>,
    digests: Vec<[u8; 32]>,
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
    let train = split == state.train;
    let threads = options.threads.get().min(blocks);
    let mut packer = Packer::default();
    std::thread::scope(|scope| {
        // Block `k` is the work of thread `k % threads`, which has a channel of its own: the writer takes blocks in order without
        // sorting them, and no thread runs further ahead than its channel is long.
        let channels: Vec<_> = (0..threads)
            .map(|thread| {
                let (sender, receiver) = mpsc::sync_channel(AHEAD);
                scope.spawn(move || {
                    let mut decoder = Decoder::default();
                    for block in (thread..blocks).step_by(threads) {
                        let start = first + block * BLOCK;
                        let samples = read_block(dataset, split, start..len.min(start + BLOCK), options, train, &mut decoder);
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
            let block = channels[block % threads].recv().expect("a thread hangs up early only when it panics, as this one does then");
            let Block { samples, digests } = block?;
            let mut digests = digests.into_iter();
            for (stamp, sample) in samples {
                add((sample, &mut digests), split, options, state, (&mut packer, writer))?;
                state.splits[split].pass(stamp);
            }
            progress(state.progress());
        }
        Ok(())
    })?;
    flush(&mut packer, split, state, writer);
    writer.commit(&state.to_bytes())
}

/// Appends one sample: to the value that is being packed, and to what the state counts. A record's digest is the next of `digests`.
fn add(
    (sample, digests): (Outcome, &mut impl Iterator<Item = [u8; 32]>),
    split: usize,
    options: &Options,
    state: &mut State,
    (packer, writer): (&mut Packer, &mut Writer),
) -> Result<()> {
    match sample {
        Outcome::Skipped { name, reason } => {
            let skipped = Skipped { split: state.info.splits[split].name.clone(), name, reason };
            refuse_skipped(std::slice::from_ref(&skipped), options)?;
            state.skipped.push(skipped);
        }
        Outcome::Record { label, picture: Prepared { stored, size, traits, moments, rewritten } } => {
            let digest = digests.next().expect("one for each record");
            if !packer.has_room(&stored) {
                flush(packer, split, state, writer);
                // Only here is the state that of the values appended, with no record between.
                if writer.is_full() {
                    writer.commit(&state.to_bytes())?;
                }
            }
            let part = &mut state.splits[split];
            part.witness(digest, state.info.splits[split].len);
            part.census.add(label, stored.encoding, size, traits, stored.bytes.len());
            part.digest = codec::chain(part.digest, digest);
            packer.push(label, stored);
            if let Some(moments) = moments {
                state.moments.add(&moments);
            }
            if let Some(reason) = rewritten {
                *state.rewritten.entry(reason.to_owned()).or_default() += 1;
            }
        }
    }
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

/// Refuses to go on where pictures that were dealt with are others by now: where the system says of a file that it was written since, or
/// where a witness has changed. Not all are read again, which would cost as much as to start anew.
fn refuse_changed(dataset: &dyn Dataset, partial: &Path, state: &State, options: &Options) -> Result<()> {
    let mut decoder = Decoder::default();
    for (split, part) in state.splits.iter().enumerate() {
        let stamps = (0..part.done).fold(Stamps::default(), |stamps, index| stamps.and(dataset.stamp(split, index)));
        if stamps != part.stamps {
            let (path, split) = (partial.to_owned(), &state.info.splits[split].name);
            let wanted = format!("the first {} files of split {split:?} as long and as old as they are now", part.done);
            return Err(Error::Changed { path, field: "content", wanted, found: "others".to_owned() });
        }
        for (index, wanted) in &part.witnesses {
            let found = match read(dataset, (split, *index), options, false, &mut decoder)? {
                Outcome::Record { label, picture: Prepared { stored, .. } } => {
                    state::witness(codec::digest(label, stored.encoding, &stored.bytes))
                }
                Outcome::Skipped { reason, .. } => reason,
            };
            if found != *wanted {
                let (path, split) = (partial.to_owned(), &state.info.splits[split].name);
                let now = format!("{found} as sample {index} of split {split:?}");
                return Err(Error::Changed { path, field: "content", wanted: now, found: wanted.clone() });
            }
        }
    }
    Ok(())
}

fn read_block(
    dataset: &dyn Dataset,
    split: usize,
    range: Range<usize>,
    options: &Options,
    train: bool,
    decoder: &mut Decoder,
) -> Result<Block> {
    let samples = range.map(|index| {
        // Before it is read: what is written meanwhile is to be noticed.
        let stamp = dataset.stamp(split, index);
        Ok((stamp, read(dataset, (split, index), options, train, decoder)?))
    });
    let samples = samples.collect::<Result<Vec<_>>>()?;
    let records = samples.iter().filter_map(|(_, sample)| match sample {
        Outcome::Record { label, picture: Prepared { stored, .. } } => Some((*label, stored.encoding, &*stored.bytes)),
        Outcome::Skipped { .. } => None,
    });
    let digests = codec::digests(&records.collect::<Vec<_>>());
    Ok(Block { samples, digests })
}

fn read(dataset: &dyn Dataset, (split, index): (usize, usize), options: &Options, train: bool, decoder: &mut Decoder) -> Result<Outcome> {
    let info = dataset.info();
    let sample = dataset.get(split, index).map_err(Error::Dataset)?;
    let (label, classes) = (sample.label, info.classes.len());
    assert!((label as usize) < classes, "{}: label {label} of {classes} classes", sample.name);
    let measure = train && (is_decoded(&sample.picture, options) || is_measured(index, info.splits[split].len));
    Ok(match prepare(sample.picture, &options.form, options.check, measure, decoder) {
        Err(reason) => Outcome::Skipped { name: sample.name, reason },
        Ok(picture) => Outcome::Record { label, picture },
    })
}

/// Whether the pixels of all such pictures are at hand.
fn is_decoded(picture: &Picture, options: &Options) -> bool {
    let Form { resize, raw, .. } = options.form;
    matches!(picture, Picture::Raw(_)) || options.check == Check::Decode || resize.is_some() || raw
}

/// Whether the picture of this index is one of those that stand for `len`: one in 64, but at least 32 and at most 1024 of them, one from each of
/// as many stretches, and not at equal distances, which might be those at which a data set repeats itself. The mean of a photograph is
/// off that of all by a sixth of the scale, hence the mean of 1024 by half a percent.
fn is_measured(index: usize, len: usize) -> bool {
    let measured = (len / 64).clamp(32, 1024).min(len);
    let stretch = (index as u128 * measured as u128 / len as u128) as usize;
    let first = |stretch: usize| (stretch as u128 * len as u128).div_ceil(measured as u128) as usize;
    let (first, end) = (first(stretch), first(stretch + 1));
    index == first + Seed(0).at(stretch as u64).rng().below(end - first)
}

fn meta(state: &State) -> Meta {
    let splits = state.info.splits.iter().zip(&state.splits);
    let splits: Vec<_> = splits.map(|(split, part)| datasets::Split { len: part.census.len() as usize, ..split.clone() }).collect();
    let digests: Vec<_> = state.splits.iter().map(|part| part.digest).collect();
    Meta {
        format: if state.form.indexed { INDEXED } else { FORMAT },
        name: state.info.name.clone(),
        content: meta::content(&state.info.classes, &splits, &digests),
        classes: state.info.classes.clone(),
        pictures: state.splits.iter().map(|part| part.census.pictures()).collect(),
        splits,
        normalize: state.moments.normalize(),
        measured: state.moments.pictures,
        form: state.form,
        rewritten: state.rewritten.clone(),
        skipped: state.skipped.clone(),
        ignored: state.ignored.clone(),
        source: state.source.clone(),
    }
}
