//! What steps give, read from the device now and then: a host that waits for each step leaves a card without work meanwhile.
//!
//! Between two looks steps are made unseen. Where a look finds one that left the numbers, the run is put back to where the look before left
//! it and goes on from there with a look a step, until it comes to the same step, and ends as if it had looked all the time. On the CPU,
//! where nothing runs ahead, there is a look a step anyway.

use candle::{DType, Tensor};

use super::checkpoint::entries;
use super::fit::State;
use super::score::Tally;
use crate::Result;
use crate::params::Params;

/// Steps from one look at a card to the next: waiting then costs little of their time, and what is told of a run is not much behind it.
pub(super) const BETWEEN: usize = 16;

/// Scalars of batches, on the device until they are read together.
#[derive(Debug, Default)]
pub(super) struct Unread(Vec<(Tensor, usize)>);

impl Unread {
    /// Keeps some scalars of a batch of so many samples.
    pub(super) fn note(&mut self, scalars: &[&Tensor], samples: usize) -> Result<()> {
        let wide = scalars.iter().map(|scalar| scalar.detach().to_dtype(DType::F64)).collect::<candle::Result<Vec<_>>>()?;
        self.0.push((Tensor::stack(&wide, 0)?, samples));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All that was noted since the last time, in its order: one copy from the device, for which the host waits.
    pub(super) fn read(&mut self) -> Result<Vec<(Vec<f64>, usize)>> {
        let (rows, samples): (Vec<Tensor>, Vec<usize>) = std::mem::take(&mut self.0).into_iter().unzip();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(Tensor::stack(&rows, 0)?.to_vec2()?.into_iter().zip(samples).collect())
    }
}

/// A run as it was at a look.
pub(super) struct Earlier {
    /// In the order of [`entries`].
    tensors: Vec<Tensor>,
    step: usize,
    done: usize,
    tally: Tally,
}

impl Earlier {
    /// Copies all that steps change, on the device.
    pub(super) fn of(state: &State, params: &Params) -> Result<Self> {
        let copy = |(_, var): (String, &candle::Var)| var.as_detached_tensor().copy();
        let tensors = entries(state, params).into_iter().map(copy).collect::<candle::Result<_>>()?;
        Ok(Self { tensors, step: state.step, done: state.done, tally: state.tally })
    }

    /// Puts it back.
    pub(super) fn put_into(self, state: &mut State, params: &Params) -> Result<()> {
        for ((_, var), tensor) in entries(state, params).into_iter().zip(&self.tensors) {
            var.set(tensor)?;
        }
        (state.step, state.done, state.tally) = (self.step, self.done, self.tally);
        Ok(())
    }
}
