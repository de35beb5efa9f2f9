//! One batch from start to end: read, decode, augment, collate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datasets::{Batch, Image, Values};

use crate::Result;
use crate::augment::Scratch;
use crate::collate::{self, Value, View};
use crate::decode::{self, Decoder};
use crate::error::RecordError;
use crate::order::{Plan, Plans};
use crate::store::{Encoding, Record};

use super::config::Output;
use super::pool::Pool;
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

    /// Batch `number`, or `None` once `stopped` says that nobody wants it.
    pub(crate) fn assemble(&self, desk: &mut Desk, number: usize, stopped: &dyn Fn() -> bool) -> Result<Option<Batch>> {
        let inner = &*self.inner;
        let plan = self.plans.plan(number);
        let mut labels = Vec::with_capacity(plan.indices.len());
        let (values, normalize) = match inner.config.output {
            Output::U8 => {
                let values = self.fill(desk, &plan, (&inner.bytes, &()), &mut labels, stopped)?;
                (values.map(Values::U8), inner.normalize.clone())
            }
            Output::F32 => {
                let values = self.fill(desk, &plan, (&inner.floats, &inner.lookup), &mut labels, stopped)?;
                (values.map(Values::F32), None)
            }
        };
        let [c, h, w] = inner.shape;
        Ok(values.map(|values| Batch { values, shape: vec![labels.len(), c, h, w], labels, indices: plan.indices, normalize }))
    }

    fn fill<T: Value>(
        &self,
        desk: &mut Desk,
        plan: &Plan,
        (pool, table): (&Pool<T>, &T::Table),
        labels: &mut Vec<u32>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<T>>> {
        let Inner { store, config, split, shape, .. } = &*self.inner;
        let reader = store.reader()?;
        // The first of each thread is nobody's next.
        if self.begun.fetch_add(1, Ordering::Relaxed) < self.stride {
            reader.prefetch(*split, &plan.indices);
        }
        let next = plan.number + self.stride;
        if next < self.plans.batches() {
            reader.prefetch(*split, &self.plans.plan(next).indices);
        }

        let size: usize = shape.iter().product();
        let mut values = pool.take(size * plan.indices.len());
        for (slot, &index) in values.chunks_exact_mut(size).zip(&plan.indices) {
            if stopped() {
                return Ok(None);
            }
            let record = reader.record(*split, index as usize)?;
            labels.push(record.label);
            let placed = self.picture(desk, plan, index, &record).and_then(|view| Ok(collate::place(view, *shape, table, slot)?));
            placed.map_err(|source| broken(store, config, index, source))?;
        }
        Ok(Some(values))
    }

    /// The picture as the network will see it.
    fn picture<'a>(&self, desk: &'a mut Desk, plan: &Plan, index: u64, record: &Record<'a>) -> Result<View<'a>, RecordError> {
        let Inner { augment, shape, .. } = &*self.inner;
        if let Encoding::Raw { height, width, channels } = record.encoding
            && augment.is_empty()
            && usize::from(channels) == shape[0]
        {
            // Straight from the store's pages into the batch.
            decode::check_raw(height, width, channels, record.bytes)?;
            return Ok(View { shape: [shape[0], height as usize, width as usize], pixels: record.bytes });
        }
        let Desk { decoder, image, scratch } = desk;
        let mut rng = plan.seed(index).rng();
        let part = decoder.record(record, |size| augment.part(size, &mut rng), image)?;
        decode::convert(image, shape[0], &mut scratch.spare);
        augment.apply_to(part, image, &mut rng, scratch)?;
        Ok(View::from(&*image))
    }
}
