//! The gradient of one micro-batch: the one place in training that differentiates.

use candle::Tensor;
use datasets::Seed;

use crate::Result;
use crate::exec::{self, Statistics, Workspace};
use crate::graph::Graph;
use crate::kernels;
use crate::params::Params;

/// Runs `xs` `(n, ...)` through the graph in training mode and differentiates the mean loss over these `n` samples.
///
/// Changes nothing. `seed` is of what is dropped.
pub(super) fn compute(
    workspace: &Workspace,
    (graph, params): (&Graph, &Params),
    (xs, targets): (&Tensor, &Targets),
    seed: Seed,
) -> Result<Computed> {
    let exec::Computed { loss, logits, statistics, gradients } =
        workspace.step((graph, params), xs, seed, |logits| targets.loss(logits))?;
    Ok(Computed { loss, logits, statistics, gradients: Gradients(gradients) })
}

/// What a batch, or a part of one, gives.
#[derive(Debug)]
pub(super) struct Computed {
    /// Mean over the samples, in nats: a scalar.
    pub(super) loss: Tensor,
    /// `(n, classes)`.
    pub(super) logits: Tensor,
    /// One per batch-norm node and micro-batch, in the order in which they were run.
    pub(super) statistics: Vec<Statistics>,
    /// Of `loss`.
    pub(super) gradients: Gradients,
}

/// What logits are held against.
#[derive(Debug, Clone)]
pub(super) enum Targets {
    /// Class indices `(n)` of `u32`, and the share of the target that goes to all classes alike.
    Labels { labels: Tensor, smoothing: f64 },
    /// A distribution a row, `(n, classes)`.
    Soft(Tensor),
}

impl Targets {
    /// Mean cross-entropy of logits `(n, classes)`, in nats: a scalar.
    pub(super) fn loss(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Labels { labels, smoothing } => kernels::cross_entropy(logits, labels, *smoothing)?,
            Self::Soft(targets) => kernels::soft_cross_entropy(logits, targets)?,
        })
    }

    /// Those of samples `from..from + len`.
    pub(super) fn rows(&self, from: usize, len: usize) -> Result<Self> {
        Ok(match self {
            Self::Labels { labels, smoothing } => Self::Labels { labels: labels.narrow(0, from, len)?, smoothing: *smoothing },
            Self::Soft(targets) => Self::Soft(targets.narrow(0, from, len)?),
        })
    }
}

/// The gradient of a loss: one tensor per trained parameter, in the order of [`Params::trainable`].
#[derive(Debug, Clone)]
pub struct Gradients(Vec<Tensor>);

impl Gradients {
    /// One tensor per trained parameter, of its shape; `params.trainable().zip(gradients.iter())` has the names.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter()
    }

    /// The Euclidean length of all of them together; not finite where one of their numbers is not.
    ///
    /// # Errors
    /// When the device fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.square()?.to_scalar::<f64>()?.sqrt())
    }

    /// The square of [`Gradients::norm`], a scalar of `f64` on the device.
    pub(super) fn square(&self) -> Result<Tensor> {
        let squares = self.0.iter().map(kernels::sum_of_squares).collect::<candle::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&squares, 0)?.sum_all()?)
    }

    /// Each number times `share`, and if their length is then more than `most`, shortened to that. `square` is that of the length before.
    pub(super) fn clipped(self, most: f64, share: f64, square: &Tensor) -> Result<Self> {
        let scalar = |number: f64| Tensor::full(number, (), square.device());
        let factor = (scalar(share * most)? / (square.sqrt()? * share)?.maximum(&scalar(most)?)?)?;
        let scaled = |gradient: Tensor| gradient.broadcast_mul(&factor.to_dtype(gradient.dtype())?);
        Ok(Self(self.0.into_iter().map(scaled).collect::<candle::Result<_>>()?))
    }

    /// Each number times `factor`; each tensor goes when the next is there.
    pub(super) fn scaled(self, factor: f64) -> Result<Self> {
        Ok(Self(self.0.into_iter().map(|gradient| gradient * factor).collect::<candle::Result<_>>()?))
    }

    /// Each number plus the other's; both tensors go when their sum is there.
    pub(super) fn plus(self, other: Self) -> Result<Self> {
        Ok(Self(self.0.into_iter().zip(other.0).map(|(one, other)| one + other).collect::<candle::Result<_>>()?))
    }
}
