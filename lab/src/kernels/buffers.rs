//! Memory that is used again: scratch of a thread, and results that one training step gives back for the next.
//!
//! A fresh result of some megabytes costs more than most operations that fill it, because the system clears it page by page. So
//! whoever knows that a tensor is done gives its memory back by [`recycle`], and while a [`Pool`] is entered, results are made in such
//! memory. What a number was before never shows: whoever takes memory from here writes all of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use candle::{CpuStorage, InplaceOp1, Layout, Result, Tensor};

use super::real::Real;

/// Lends `f` so many numbers of unknown value: the thread keeps them for the next that asks.
pub(super) fn lend<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    T::scratch().with(|kept: &Cell<Vec<T>>| {
        // Taken out, not borrowed: a task that runs within another finds nothing and makes its own.
        let mut numbers = kept.take();
        if numbers.len() < len {
            drop(std::mem::take(&mut numbers)); // before there is more
            numbers = vec![T::zero(); len];
        }
        let result = f(&mut numbers[..len]);
        kept.set(numbers);
        result
    })
}

/// Memory for a result whose every number will be written: recycled if there is some, else fresh.
pub(super) fn fresh<T: Real>(len: usize) -> Vec<T> {
    T::recycled(len).unwrap_or_else(|| vec![T::zero(); len])
}

/// Memory of results that are done, by capacity.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
}

thread_local! {
    static ENTERED: RefCell<Option<Pool>> = const { RefCell::new(None) };
}

impl Pool {
    /// Runs `f` with results taken from here, where they are made on this thread.
    pub(crate) fn enter<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Puts things back even when `f` panics.
        struct Leave<'p>(&'p mut Pool, Option<Pool>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let own = ENTERED.with(|entered| entered.replace(self.1.take()));
                *self.0 = own.unwrap_or_default();
            }
        }
        let before = ENTERED.with(|entered| entered.replace(Some(std::mem::take(self))));
        let _leave = Leave(self, before);
        f()
    }

    /// The smallest that is large enough, if it is not much larger. Where there is none, as much as will be made afresh is given up: so
    /// memory in use and memory kept here are together never more than has been in use at once.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        if let Some(mut numbers) = self.take_from(len..=len + len / 16) {
            numbers.resize(len, 0.0);
            return Some(numbers);
        }
        let mut given_up = 0;
        while given_up < len
            && let Some(numbers) = self.take_from(len - given_up..=usize::MAX).or_else(|| self.take_last())
        {
            given_up += numbers.capacity();
        }
        None
    }

    /// The smallest of these capacities.
    fn take_from(&mut self, capacities: RangeInclusive<usize>) -> Option<Vec<f32>> {
        let (&capacity, _) = self.free.range(capacities).next()?;
        self.take_one(capacity)
    }

    fn take_last(&mut self) -> Option<Vec<f32>> {
        let (&capacity, _) = self.free.last_key_value()?;
        self.take_one(capacity)
    }

    fn take_one(&mut self, capacity: usize) -> Option<Vec<f32>> {
        let same = self.free.get_mut(&capacity)?;
        let numbers = same.pop();
        if same.is_empty() {
            self.free.remove(&capacity);
        }
        numbers
    }

    /// How many numbers there is room for.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.free.values().flatten().map(Vec::capacity).sum()
    }

    fn put(&mut self, numbers: Vec<f32>) {
        if numbers.capacity() > 0 {
            self.free.entry(numbers.capacity()).or_default().push(numbers);
        }
    }
}

/// Memory from the pool that is entered.
pub(super) fn from_pool(len: usize) -> Option<Vec<f32>> {
    ENTERED.with(|entered| entered.borrow_mut().as_mut()?.take(len))
}

/// Gives the memory of a tensor to the pool that is entered; the tensor, and every other that shares its memory, is empty from now
/// on and must not be used.
pub(crate) fn recycle(tensor: Tensor) -> Result<()> {
    if tensor.device().is_cpu() && ENTERED.with(|entered| entered.borrow().is_some()) {
        tensor.inplace_op1(&Recycle)?;
    }
    Ok(())
}

struct Recycle;

impl InplaceOp1 for Recycle {
    fn name(&self) -> &'static str {
        "recycle"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        if let CpuStorage::F32(numbers) = storage {
            let numbers = std::mem::take(numbers);
            ENTERED.with(|entered| {
                if let Some(pool) = entered.borrow_mut().as_mut() {
                    pool.put(numbers);
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
