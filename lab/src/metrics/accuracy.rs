//! How often the right class is among the best guesses.

use candle::{DType, Tensor};

use crate::{Error, Result};

/// The fraction, in `0.0..=1.0`, of samples whose label has the largest logit. `logits` `(n, classes)`, one label a row.
/// Of equal logits the first wins, as in PyTorch.
///
/// # Errors
/// When there is not one label a row, or no row.
pub fn top1(logits: &Tensor, labels: &[u32]) -> Result<f64> {
    top_k(logits, labels, 1)
}

/// The fraction, in `0.0..=1.0`, of samples whose label is among the `k` largest logits. `logits` `(n, classes)`.
///
/// # Errors
/// When there is not one label a row, or no row, or fewer than `k` classes, or `k` is 0.
pub fn top_k(logits: &Tensor, labels: &[u32], k: usize) -> Result<f64> {
    Ok(hits(logits, labels, k)? as f64 / labels.len() as f64)
}

/// How many samples have the largest logit at their label, a scalar that stays on the device: [`hits`] with `k` 1. `labels` are `(n)` of
/// `u32`; one that is no class is no hit where its logits are above 0, and no error.
pub(crate) fn hits_there(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0, logits.dims2()?.1 as u32, logits.device())?.unsqueeze(0)?;
    let (logits, labels) = (logits.detach().to_dtype(DType::F32)?, labels.unsqueeze(1)?);
    let own = labels.broadcast_eq(&classes)?.where_cond(&logits, &logits.zeros_like()?)?.sum_keepdim(1)?;
    let count = |places: Tensor| places.to_dtype(DType::F32)?.sum_keepdim(1);
    let larger = count(logits.broadcast_gt(&own)?)?;
    let first = count((logits.broadcast_eq(&own)? * classes.broadcast_lt(&labels)?)?)?;
    let better = ((larger + first)? + own.ne(&own)?.to_dtype(DType::F32)?)?;
    Ok(better.eq(&better.zeros_like()?)?.to_dtype(DType::F32)?.sum_all()?)
}

/// How many samples have their label among the `k` largest logits.
pub(crate) fn hits(logits: &Tensor, labels: &[u32], k: usize) -> Result<usize> {
    let (n, classes) = logits.dims2()?;
    if n != labels.len() || n == 0 {
        return Err(Error::mismatch("accuracy: labels", format!("one for each of {n} rows, at least one"), labels.len()));
    }
    if k == 0 || k > classes {
        return Err(Error::mismatch("accuracy: k", format!("1 to {classes}"), k));
    }
    let values: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    let mut hits = 0;
    for (row, &label) in values.chunks_exact(classes).zip(labels) {
        let Some(&own) = row.get(label as usize) else {
            return Err(Error::mismatch("accuracy: labels", format!("classes below {classes}"), label));
        };
        // A NaN beats nobody and is beaten by all.
        let better =
            row.iter().enumerate().filter(|&(class, &other)| other > own || own.is_nan() || (other == own && class < label as usize));
        hits += usize::from(better.count() < k);
    }
    Ok(hits)
}
