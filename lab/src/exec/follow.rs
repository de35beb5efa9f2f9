//! A training step, operation by operation, for whoever measures: the clock is theirs.

use candle::Tensor;
use datasets::Seed;

use super::Workspace;
use crate::graph::{Graph, NodeId};
use crate::kernels;
use crate::params::Params;
use crate::{Error, Result};

/// An operation that has just been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// In which part of the step.
    pub pass: Pass,
    /// The node whose operation it was.
    pub node: NodeId,
    /// The last node that was done with it: of a batch norm the sum or activation that follows, otherwise `node`.
    pub last: NodeId,
}

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// From the input to the logits.
    Forward,
    /// The loss of the logits, and its gradient.
    Loss,
    /// From that gradient to those of the parameters.
    Backward,
}

/// Computes the gradient of the cross-entropy of `xs` `(n, ...)` with class indices `labels` `(n)`, `steps` times, as training on the CPU
/// does it, and tells `on_done` after each operation which it was. Changes nothing; memory of the first step is used again by the others.
///
/// # Errors
/// As [`forward`](super::forward); and when the parameters are not on the CPU: elsewhere operations end later than they are called.
pub fn follow(
    (graph, params): (&Graph, &Params),
    (xs, labels): (&Tensor, &Tensor),
    steps: usize,
    mut on_done: impl FnMut(Done),
) -> Result<()> {
    if !xs.device().is_cpu() {
        return Err(Error::mismatch(format!("{}: input", graph.name), "on the CPU", format!("on {:?}", xs.device().location())));
    }
    let workspace = Workspace::new(graph, None);
    let loss = |logits: &Tensor| Ok(kernels::cross_entropy(logits, labels, 0.0)?);
    for step in 0..steps {
        workspace.followed_step((graph, params), xs, Seed(step as u64), loss, &mut on_done)?;
    }
    Ok(())
}
