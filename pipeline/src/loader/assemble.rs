//! One batch from start to end: read, decode, augment, collate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datasets::{Batch, Buffer, Image, Mixed, Seed, Values};

use crate::Result;
use crate::augment::Scratch;
use crate::collate::{self, Value, View};
use crate::decode::{self, Decoder, Window};
use crate::error::RecordError;
use crate::order::{Plan, Plans};
use crate::store::{Encoding, Record};

use super::config::Output;
use super::pool::{Loan, Pool, Space};
use super::{EMPTY, Inner, broken};

/// An epoch, as the threads see it.
pub(crate) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) plans: Plans,
    /// How many batches further on a thread's next one is.
    pub(super) stride: usize,
    /// Batches begun so far.
    pub(super) begun: AtomicUsize,
}

/// A thread's memory for one picture.
pub(crate) struct Desk {
    decoder: Decoder,
    image: Image,
    scratch: Scratch,
}

impl Default for Desk {
    fn default() -> Self {
        Self { decoder: Decoder::default(), image: EMPTY, scratch: Scratch::default() }
    }
}

impl Task {
    /// Number of batches.
    pub(super) fn batches(&self) -> usize {
        self.plans.batches()
    }

    /// Batch `number`, in memory that is lent for it or in the loader's own, or `None` once `stopped` says that nobody wants it.
    pub(crate) fn assemble(
        &self,
        desk: &mut Desk,
        number: usize,
        loan: Option<Box<dyn Loan>>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Batch>> {
        let inner = &*self.inner;
        let plan = self.plans.plan(number);
        let mut labels = Vec::with_capacity(plan.indices.len());
        let (values, normalize) = match inner.config.output {
            Output::U8 => {
                let values = self.fill(desk, &plan, (&inner.bytes, loan, &()), &mut labels, stopped)?;
                (values.map(|(values, mixed)| (Values::U8(values), mixed)), inner.normalize.clone())
            }
            Output::F32 => {
                let values = self.fill(desk, &plan, (&inner.floats, loan, &inner.lookup), &mut labels, stopped)?;
                (values.map(|(values, mixed)| (Values::F32(values), mixed)), None)
            }
        };
        let shape = [&[labels.len()], &inner.sample_shape()[..]].concat();
        Ok(values.map(|(values, mixed)| Batch { values, shape, labels, indices: plan.indices, normalize, mixed }))
    }

    fn fill<T: Value>(
        &self,
        desk: &mut Desk,
        plan: &Plan,
        (pool, loan, table): (&Pool<T>, Option<Box<dyn Loan>>, &T::Table),
        labels: &mut Vec<u32>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<(Buffer<T>, Option<Mixed>)>> {
        let size = self.inner.views * self.inner.shape.iter().product::<usize>();
        let mut values = Space::new(pool, loan, size * plan.indices.len());
        let Some(alpha) = self.inner.config.mix_up else {
            return Ok(self.place(desk, plan, (table, size), (&mut values, labels), stopped)?.then(|| (values.into(), None)));
        };
        let mut alone = pool.take(values.len());
        if !self.place(desk, plan, (table, size), (&mut alone, labels), stopped)? {
            return Ok(None);
        }
        let how = collate::mix_up(plan, alpha, labels, &alone, &mut values);
        pool.put(alone.into());
        Ok(Some((values.into(), Some(how))))
    }

    /// Writes the pictures of a batch, `size` numbers each, one after the other; `false` once `stopped`.
    fn place<T: Value>(
        &self,
        desk: &mut Desk,
        plan: &Plan,
        (table, size): (&T::Table, usize),
        (values, labels): (&mut [T], &mut Vec<u32>),
        stopped: &dyn Fn() -> bool,
    ) -> Result<bool> {
        let Inner { store, config, split, shape, cache, .. } = &*self.inner;
        let reader = store.reader()?;
        let prefetch = |number: usize| {
            if number < self.plans.batches() {
                let mut coming = self.plans.plan(number).indices;
                coming.retain(|&index| cache.get(index).is_none());
                reader.prefetch(*split, &coming);
            }
        };
        // The first of each thread is nobody's next.
        if self.begun.fetch_add(1, Ordering::Relaxed) < self.stride {
            prefetch(plan.number);
        }
        prefetch(plan.number + self.stride);

        for (k, (slot, &index)) in values.chunks_exact_mut(size).zip(&plan.indices).enumerate() {
            if stopped() {
                return Ok(false);
            }
            let record = match cache.get(index) {
                Some(record) => record,
                None => reader.record(*split, index as usize)?,
            };
            labels.push(record.label);
            let placed = self.picture(desk, (index, plan.seed(k)), &record).and_then(|view| Ok(collate::place(view, *shape, table, slot)?));
            placed.map_err(|source| broken(store, config, index, source))?;
        }
        Ok(true)
    }

    /// The picture as the network will see it.
    fn picture<'a>(&self, desk: &'a mut Desk, (index, seed): (u64, Seed), record: &Record<'a>) -> Result<View<'a>, RecordError> {
        let Inner { augment, shape, cache, .. } = &*self.inner;
        if let Encoding::Raw { height, width, channels } = record.encoding
            && augment.is_empty()
            && usize::from(channels) == shape[0]
        {
            // Straight from the store's pages into the batch.
            decode::check_raw(height, width, channels, record.bytes)?;
            return Ok(View { shape: [shape[0], height as usize, width as usize], pixels: record.bytes, mirrored: false });
        }
        let Desk { decoder, image, scratch } = desk;
        let mut rng = seed.rng();
        let (mut place, mut whole, mut wanted) = (None, [0; 2], Window::whole([0; 2]));
        let choose = |[height, width]: [usize; 2]| {
            (whole, wanted) = ([height, width], augment.part([height, width], &mut rng));
            place = cache.reserve(record.encoding, index, height * width * shape[0]);
            if place.is_some() { Window::whole([height, width]) } else { wanted }
        };
        let decoded = decoder.record(record, choose, image);
        let part = match place {
            None => decoded?,
            // Damage outside of what is wanted is nobody's concern, with or without a cache.
            Some(_) if decoded.is_err() => decoder.record(record, |_| wanted, image)?,
            Some(place) => {
                decode::convert(image, shape[0], &mut scratch.spare);
                place.fill(record.label, image);
                wanted
            }
        };
        decode::convert(image, shape[0], &mut scratch.spare);
        let mirrored = augment.apply_but_mirror((whole, part), image, &mut rng, scratch)?;
        Ok(View { mirrored, ..View::from(&*image) })
    }
}
