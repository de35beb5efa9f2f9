//! Runs order, read, decode, augment and collate ahead of the reader, on threads, and hands batches over bounded async channels.
//!
//! Batch `k` of epoch `e` is a function of the store, the [`Config`], `e` and `k`: the number of threads is not among its arguments.

mod ahead;
mod assemble;
mod cache;
mod config;
mod pool;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use datasets::{Batch, BatchError, BatchIter, Batches, Image, Normalize, Values};

use crate::augment::normalize::Constants;
use crate::augment::{Augment, Scratch};
use crate::collate::{Lookup, View};
use crate::error::RecordError;
use crate::order::{Plans, Rules};
use crate::store::Store;
use crate::{Error, Result, decode};

use ahead::Ahead;
use cache::Cache;
use pool::Pool;

#[cfg(feature = "flight")]
pub(crate) use assemble::Desk;
pub(crate) use assemble::Task;
pub use cache::Cached;
pub use config::{Config, Output};
pub(crate) use pool::Loan;

/// Epochs of batches from one split of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

/// What all epochs share.
#[derive(Debug)]
struct Inner {
    store: Store,
    config: Config,
    split: usize,
    threads: usize,
    /// Batches that a thread may have that nobody has taken: the one it fills, and perhaps one that is ready.
    room: usize,
    rules: Rules,
    /// `[c, h, w]` of each picture of each batch.
    shape: [usize; 3],
    /// Pictures of each sample.
    views: usize,
    augment: Augment,
    normalize: Option<Arc<Normalize>>,
    lookup: Lookup,
    cache: Cache,
    bytes: Pool<u8>,
    floats: Pool<f32>,
}

impl Inner {
    /// `[c, h, w]`, or `[v, c, h, w]` of `v` views.
    fn sample_shape(&self) -> Vec<usize> {
        let views = if self.views == 1 { None } else { Some(self.views) };
        views.into_iter().chain(self.shape).collect()
    }
}

impl Loader {
    /// A loader of this store. The split's first picture is decoded and augmented, to learn the shape that all must have.
    ///
    /// # Errors
    /// When a field of the config does not fit the store, the split would make no batch, or its first picture cannot be decoded.
    pub fn new(store: Store, config: Config) -> Result<Self> {
        config.check()?;
        let split = store.split(&config.split)?;
        let samples = store.len(split);
        let rules = config.rules(&store, split)?;
        rules.check(samples)?;
        if rules.batches(samples) == 0 {
            return Err(Error::config("split", format!("enough samples for one batch of {}", config.batch), samples));
        }

        let (mut image, first) = {
            let reader = store.reader()?;
            let record = reader.record(split, 0)?;
            let image = decode::decode(&record).map_err(|source| broken(&store, &config, 0, source.into()))?;
            (image, record.encoding)
        };
        let channels = config.channels.count(first);
        let normalize = config.normalize.resolve(store.meta().normalize.as_ref(), channels)?;
        let augment = Augment::new(config.transforms.clone(), normalize.as_ref())?;
        let mut scratch = Scratch::default();
        decode::convert(&mut image, channels, &mut scratch.spare);
        augment.apply(&mut image, &mut config.seed.rng(), &mut scratch).map_err(|source| broken(&store, &config, 0, source.into()))?;
        let views = augment.views();
        let [channels, rows, width] = View::from(&image).shape;
        let shape = [channels, rows / views, width];

        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let lookup = match config.normalize {
            Constants::Contrast(contrast) => Lookup::Contrast(contrast),
            _ => Lookup::new(normalize.as_ref(), channels),
        };
        let room = if config.batch * views * shape.iter().product::<usize>() * config.output.bytes() < LARGE { 2 } else { 1 };
        // What all threads fill and hold ready, and a few that the reader has in hand.
        let kept = threads * room + 2;
        let inner = Inner {
            split,
            threads,
            room,
            rules,
            shape,
            views,
            augment,
            normalize: normalize.map(Arc::new),
            lookup,
            cache: Cache::new(samples, config.cache),
            bytes: Pool::new(kept),
            floats: Pool::new(kept),
            store,
            config,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The batches of epoch `epoch` from number `first` on: to be awaited, or to be iterated over. Work begins at once.
    pub fn stream(&self, epoch: u64, first: usize) -> Stream {
        let inner = &self.inner;
        let task = self.task(epoch, inner.threads);
        let jobs = first.min(task.batches())..task.batches();
        let work = move |desk: &mut _, number, stopped: &dyn Fn() -> bool| task.assemble(desk, number, None, stopped).transpose();
        Stream { ahead: Ahead::start(jobs, inner.threads, inner.room, work) }
    }

    /// The batches of epoch `epoch`, each on request, for whoever has threads of their own and asks for every `stride`-th next.
    pub(crate) fn task(&self, epoch: u64, stride: usize) -> Task {
        let plans = Plans::new(self.inner.store.len(self.inner.split), &self.inner.rules, epoch);
        Task { inner: Arc::clone(&self.inner), plans, stride, begun: AtomicUsize::new(0) }
    }

    /// What is kept of decoded pictures now, by this loader and its clones.
    pub fn cached(&self) -> Cached {
        self.inner.cache.cached()
    }

    /// What batches say about their normalisation.
    #[cfg(feature = "flight")]
    pub(crate) fn normalize(&self) -> Option<Normalize> {
        self.inner.normalize.as_deref().filter(|_| self.inner.config.output == Output::U8).cloned()
    }

    /// Takes a batch's memory back for batches to come. Optional; it saves the system from clearing fresh pages for each batch.
    pub fn recycle(&self, batch: Batch) {
        match batch.values {
            Values::U8(values) => self.inner.bytes.put(values),
            Values::F32(values) => self.inner.floats.put(values),
        }
    }
}

/// Bytes of a batch from which on no thread has a finished one beside the one it fills. The memory is worth more than the time: waiting for
/// the reader costs two threads a fifth of a percent of theirs, and eight one percent (BENCHMARKS.md).
const LARGE: usize = 16 << 20;

const EMPTY: Image = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };

/// What is wrong with record `index`, and where it is.
fn broken(store: &Store, config: &Config, index: u64, source: RecordError) -> Error {
    Error::Record { path: store.path().to_owned(), split: config.split.clone(), index, source }
}

/// The batches of one epoch, in order. Dropping it stops its threads, each after the picture in hand, and waits for them.
///
/// A batch that cannot be made is an `Err` at its place, and those after it still come.
#[derive(Debug)]
pub struct Stream {
    ahead: Ahead<Batch>,
}

impl Stream {
    /// The next batch, or `None` after the last; for async code.
    ///
    /// # Errors
    /// When a record of the batch cannot be read, decoded, augmented or fitted in; the message names store, split and index.
    pub async fn next_batch(&mut self) -> Option<Result<Batch>> {
        self.ahead.next().await
    }
}

/// Blocks until the next batch is there.
///
/// # Panics
/// Within an async runtime, where blocking is not allowed: use [`Stream::next_batch`] there.
impl Iterator for Stream {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.ahead.blocking_next()
    }
}

impl Batches for Loader {
    fn samples(&self) -> usize {
        self.inner.rules.samples(self.inner.store.len(self.inner.split))
    }

    fn batches(&self) -> usize {
        self.inner.rules.batches(self.inner.store.len(self.inner.split))
    }

    fn sample_shape(&self) -> Vec<usize> {
        self.inner.sample_shape()
    }

    fn classes(&self) -> usize {
        self.inner.store.meta().classes.len()
    }

    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        Box::new(self.stream(epoch, first).map(|batch| batch.map_err(BatchError::from)))
    }
}
