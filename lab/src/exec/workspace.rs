//! What stays between the runs of one graph: its plans, and memory that is used again.

use std::cell::RefCell;

use candle::{DType, Tensor, Var};
use datasets::Seed;

use super::{Done, Mode, Output, Pass, Plan, Statistics, Tape, forward_in};
use crate::graph::Graph;
use crate::kernels::BufferPool;
use crate::params::Params;
use crate::{Error, Result};

/// What a training step computes.
#[derive(Debug)]
pub(crate) struct Computed {
    /// A scalar.
    pub(crate) loss: Tensor,
    /// `(n, classes)`.
    pub(crate) logits: Tensor,
    /// One per batch-norm node.
    pub(crate) statistics: Vec<Statistics>,
    /// One per trained parameter, in their order.
    pub(crate) gradients: Vec<Tensor>,
}

/// Runs one graph again and again.
///
/// On the CPU by our own books ([`Tape`]), on other devices by candle's.
#[derive(Debug)]
pub(crate) struct Workspace {
    train: Plan,
    infer: Plan,
    /// Where it runs in mixed precision, its narrow type; on other devices than the CPU.
    narrow: Option<DType>,
    pool: RefCell<BufferPool>,
}

impl Workspace {
    pub(crate) fn new(graph: &Graph, narrow: Option<DType>) -> Self {
        Self { train: Plan::to_train(graph), infer: Plan::to_infer(graph), narrow, pool: RefCell::default() }
    }

    /// Logits `(n, classes)` by running statistics.
    ///
    /// # Errors
    /// As [`forward`].
    pub(crate) fn infer(&self, graph: &Graph, params: &Params, xs: &Tensor) -> Result<Tensor> {
        if !xs.device().is_cpu() {
            return Ok(forward_in(self.narrow, graph, params, xs, Mode::Eval)?.value.detach());
        }
        let xs = xs.contiguous()?;
        self.pool.borrow_mut().enter(|| Ok(Tape::record(&self.infer, (graph, params), &xs, Mode::Eval, &mut |_| {})?.output))
    }

    /// Loss of the logits, and its gradient, in training mode; what is dropped depends on `seed`. Changes nothing.
    ///
    /// # Errors
    /// As [`forward`]; also when nothing reads a trained parameter's node.
    pub(crate) fn step(
        &self,
        (graph, params): (&Graph, &Params),
        xs: &Tensor,
        seed: Seed,
        loss: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Computed> {
        self.followed_step((graph, params), xs, seed, loss, &mut |_| {})
    }

    /// [`Workspace::step`] that, on the CPU, tells `on_done` of each operation and of the loss when it has been done.
    pub(super) fn followed_step(
        &self,
        (graph, params): (&Graph, &Params),
        xs: &Tensor,
        seed: Seed,
        loss: impl Fn(&Tensor) -> Result<Tensor>,
        on_done: &mut dyn FnMut(Done),
    ) -> Result<Computed> {
        let mode = Mode::Train(seed);
        if !xs.device().is_cpu() {
            return step_by_candle(params, forward_in(self.narrow, graph, params, xs, mode)?, loss);
        }
        let xs = xs.contiguous()?;
        self.pool.borrow_mut().enter(|| {
            let mut tape = Tape::record(&self.train, (graph, params), &xs, mode, on_done)?;
            let (logits, statistics) = (Var::from_tensor(&tape.output)?, std::mem::take(&mut tape.statistics));
            let loss = loss(&logits)?;
            let grad = loss.backward()?.remove(&logits);
            let grad = grad.ok_or_else(|| Error::mismatch(&graph.name, "a loss of the logits", "one that does not depend on them"))?;
            on_done(Done { pass: Pass::Loss, node: graph.output, last: graph.output });
            let gradients = tape.backward(grad.contiguous()?, on_done)?;
            Ok(Computed { loss: loss.detach(), logits: logits.as_detached_tensor(), statistics, gradients })
        })
    }
}

fn step_by_candle(params: &Params, output: Output, loss: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Computed> {
    let Output { value, statistics } = output;
    let loss = loss(&value)?;
    let store = loss.backward()?;
    let gradient = |(parameter, var): (&crate::graph::Parameter, &Var)| {
        let found = store.get(var.as_tensor()).cloned();
        found.ok_or_else(|| Error::mismatch(&parameter.name, "a gradient", "none: nothing reads its node"))
    };
    let gradients = params.trainable().map(gradient).collect::<Result<_>>()?;
    Ok(Computed { loss: loss.detach(), logits: value.detach(), statistics, gradients })
}

#[cfg(test)]
mod tests;
