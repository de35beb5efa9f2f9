//! A batch in parts: as many samples at once as memory holds.

use candle::Tensor;

use super::gradients::{Computed, Targets};
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// Loss, logits, statistics and gradient of a whole batch `(n, ...)`, computed at most `size` samples at a time. Where a
/// part turns out not to fit, `size` is halved, for this batch and those to come, and the batch is begun again.
///
/// `compute` gets the inputs, targets and number of a part.
pub(super) fn fitting(
    xs: &Tensor,
    targets: &Targets,
    size: &mut usize,
    compute: impl Fn(&Tensor, &Targets, usize) -> Result<Computed>,
) -> Result<Computed> {
    loop {
        match in_parts(xs, targets, *size, &compute) {
            Err(error) if out_of_memory(&error) && (*size).min(xs.dims()[0]) > 1 => {
                *size = (*size).min(xs.dims()[0]).div_ceil(2);
                tracing::warn!(micro_batch = *size, "out of memory: going on with smaller micro-batches");
            }
            outcome => return outcome,
        }
    }
}

/// The gradient of the mean over all samples is the mean over the parts, each weighing by its samples.
fn in_parts(
    xs: &Tensor,
    targets: &Targets,
    size: usize,
    compute: impl Fn(&Tensor, &Targets, usize) -> Result<Computed>,
) -> Result<Computed> {
    let n = xs.dims()[0];
    if size >= n {
        return compute(xs, targets, 0);
    }
    let mut parts = parts(n, size).into_iter().enumerate().map(|(nth, (from, len))| {
        let part = compute(&xs.narrow(0, from, len)?, &targets.rows(from, len)?, nth)?;
        let weight = len as f64 / n as f64;
        Ok::<_, Error>(Computed { loss: (part.loss * weight)?, gradients: part.gradients.scaled(weight)?, ..part })
    });
    let mut sum = parts.next().expect("a batch has a part")?;
    let mut logits = vec![sum.logits.clone()];
    for part in parts {
        let part = part?;
        sum.loss = (sum.loss + part.loss)?;
        sum.gradients = sum.gradients.plus(part.gradients)?;
        sum.statistics.extend(part.statistics);
        logits.push(part.logits);
    }
    Ok(Computed { logits: Tensor::cat(&logits, 0)?, ..sum })
}

/// First sample and length of each part of `n` samples, `size` and a rest. A rest of one sample takes another from its
/// neighbour where that leaves the neighbour two, because batch norm wants two.
pub(super) fn parts(n: usize, size: usize) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = (0..n).step_by(size).map(|from| (from, size.min(n - from))).collect();
    if let [.., neighbour, rest] = parts.as_mut_slice()
        && rest.1 == 1
        && neighbour.1 > 2
    {
        (neighbour.1, *rest) = (neighbour.1 - 1, (rest.0 - 1, 2));
    }
    parts
}

/// Whether a device refused memory. CUDA, cuBLAS and cuDNN each say it in words of their own, and candle hands these on as
/// text. On the CPU a program that asks for too much is ended by the system: there the size has to be planned.
fn out_of_memory(error: &Error) -> bool {
    let words = ["out of memory", "out_of_memory", "alloc_failed"];
    let said = |text: String| words.iter().any(|word| text.to_lowercase().contains(word));
    matches!(error, Error::Tensor(_)) && said(format!("{error}"))
}
