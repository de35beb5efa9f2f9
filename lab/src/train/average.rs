//! Averages that follow what training moves: of all weights, and of what batch norm sees.

use candle::{Tensor, Var};

use crate::Result;
use crate::exec::Statistics;
use crate::graph::{Graph, Op};
use crate::params::Params;

/// Moves each entry of `average`, running statistics among them, towards that of `params` after step number `step`, counted
/// from 1: `average ← d·average + (1 − d)·params`, where `d` is `decay`, but less in the first steps, `step / (step + 9)` at
/// most, so that the average soon forgets the weights it began with.
pub(super) fn weights(average: &Params, params: &Params, decay: f64, step: usize) -> Result<()> {
    let decay = decay.min(step as f64 / (step as f64 + 9.0));
    average.iter().zip(params.iter()).try_for_each(|((_, average), (_, now))| blend(average, now, 1.0 - decay))
}

/// Folds what micro-batches had at the batch-norm nodes into the running statistics, in their order.
pub(super) fn statistics(graph: &Graph, params: &Params, statistics: &[Statistics]) -> Result<()> {
    for Statistics { node, mean, var } in statistics {
        let Op::BatchNorm { momentum, .. } = graph.node(*node).op else { continue };
        // Last of the node's parameters, whatever comes before.
        let [.., (_, running_mean), (_, running_var)] = params.of(*node) else { continue };
        blend(running_mean, mean, momentum)?;
        blend(running_var, var, momentum)?;
    }
    Ok(())
}

/// `average ← (1 − share)·average + share·new`.
fn blend(average: &Var, new: &Tensor, share: f64) -> Result<()> {
    Ok(average.set(&((average.as_detached_tensor() * (1.0 - share))? + (new.detach() * share)?)?)?)
}
