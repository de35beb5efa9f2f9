//! A batch as tensors: on the device, normalised, mixed.

use candle::{Device, Tensor};
use datasets::{Batch, Mixed, Normalize, Seed, Values};

use crate::kernels;
use crate::{Error, Result};

/// A batch on a device: inputs `(n, ..shape)` as `f32`, normalised there, and labels `(n)` as `u32`. Pictures become
/// vectors where `shape` has one dimension. Of samples with `v` views each, the inputs are `(n * v, ..shape)`.
///
/// # Errors
/// When a sample does not have as many values as `shape`.
pub fn to_tensors(batch: &Batch, shape: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
    let rows = batch.len() * batch.views();
    let found = [&[rows], batch.picture()].concat();
    let xs = match &batch.values {
        Values::F32(values) => Tensor::from_slice(values, found, device)?,
        Values::U8(values) => {
            let channels = found.get(1).copied().unwrap_or(1);
            let pixels = Tensor::from_slice(values, found, device)?;
            match &batch.normalize {
                Some(normalize) => kernels::normalize_u8(&pixels, normalize)?,
                None => kernels::normalize_u8(&pixels, &Normalize::unit(channels))?,
            }
        }
    };
    let wanted = [&[rows], shape].concat();
    let xs = match shape {
        _ if xs.dims() == wanted => xs,
        [d] if xs.elem_count() == rows * d => xs.reshape(wanted)?,
        _ => return Err(Error::mismatch("batch", format!("{wanted:?}"), format!("{:?}", batch.shape))),
    };
    Ok((xs, Tensor::from_slice(&batch.labels, batch.len(), device)?))
}

/// Mix-up (Zhang et al. 2018, arXiv:1710.09412): of `xs` `(n, ...)`, each sample becomes `λ` of itself and `1 − λ` of another
/// of the batch. One `λ` a batch, from Beta(`alpha`, `alpha`) with `alpha` in `0.0..=1.0`, taken at least ½ (the same mixtures, the
/// other one named first), so that a sample's own label stays the likelier.
pub(super) fn mix_up(xs: &Tensor, labels: &[u32], alpha: f64, seed: Seed) -> Result<(Tensor, Mixed)> {
    let mut rng = seed.named("mix_up").rng();
    let share = rng.beta(alpha);
    let mut others: Vec<u32> = (0..labels.len() as u32).collect();
    rng.shuffle(&mut others);
    let mixed = Mixed { share: share.max(1.0 - share) as f32, others: others.iter().map(|&other| labels[other as usize]).collect() };
    let others = Tensor::from_vec(others, labels.len(), xs.device())?;
    let own = f64::from(mixed.share);
    let xs = ((xs * own)? + (xs.index_select(&others, 0)? * (1.0 - own))?)?;
    Ok((xs, mixed))
}
