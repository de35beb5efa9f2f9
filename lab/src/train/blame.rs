//! Where training left the numbers.

use candle::{DType, Tensor};
use datasets::Seed;

use super::gradients::Targets;
use super::micro::parts;
use crate::Result;
use crate::exec::{self, Mode};
use crate::graph::{Graph, NodeId};
use crate::kernels;
use crate::params::Params;

/// Who is the first, in the order of computing, with a number that is not finite: the value of a node, else the gradient at
/// a node or of a parameter; in words.
///
/// Runs the batch once more, `micro_batch` samples at a time, and keeps everything, which takes about twice the memory of a
/// step. Where that fails, or nobody is found, it was the loss.
pub(super) fn first(
    (graph, params): (&Graph, &Params),
    (xs, targets): (&Tensor, &Targets),
    micro_batch: usize,
    (seed, narrow): (Seed, Option<DType>),
) -> String {
    let n = xs.dims()[0];
    let in_part = |(nth, (from, len))| {
        let how = (Mode::Train(seed.at(nth as u64)), narrow);
        of_part(graph, params, (&xs.narrow(0, from, len)?, &targets.rows(from, len)?), how)
    };
    let found = parts(n, micro_batch.min(n)).into_iter().enumerate().find_map(|part| in_part(part).transpose());
    found.and_then(Result::ok).unwrap_or_else(|| "the loss".to_owned())
}

fn of_part(graph: &Graph, params: &Params, (xs, targets): (&Tensor, &Targets), how: (Mode, Option<DType>)) -> Result<Option<String>> {
    let trace = exec::trace_in(graph, params, xs, how)?;
    for (at, node) in graph.nodes.iter().enumerate() {
        if !finite(trace.value(NodeId(at)))? {
            return Ok(Some(format!("the value of `{}`", node.name)));
        }
    }
    let gradients = targets.loss(&trace.value(graph.output).to_dtype(xs.dtype())?)?.backward()?;
    for (at, node) in graph.nodes.iter().enumerate().rev() {
        if let Some(gradient) = trace.gradient(&gradients, NodeId(at))
            && !finite(gradient)?
        {
            return Ok(Some(format!("the gradient at `{}`", node.name)));
        }
        for (parameter, var) in params.of(NodeId(at)) {
            if let Some(gradient) = gradients.get(var.as_tensor())
                && !finite(gradient)?
            {
                return Ok(Some(format!("the gradient of `{}`", parameter.name)));
            }
        }
    }
    Ok(None)
}

fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(kernels::sum_of_squares(tensor)?.to_scalar::<f64>()?.is_finite())
}
