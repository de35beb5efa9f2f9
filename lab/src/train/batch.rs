//! A batch as tensors: on the device, normalised, mixed.

use candle::{Device, Tensor};
use datasets::{Batch, Normalize, Rng, Seed, Values};

use super::gradients::Targets;
use crate::kernels;
use crate::{Error, Result};

/// A batch on a device: inputs `(n, ..shape)` as `f32`, normalised there, and labels `(n)` as `u32`. Pictures become
/// vectors where `shape` has one dimension.
///
/// # Errors
/// When a sample does not have as many values as `shape`.
pub fn to_tensors(batch: &Batch, shape: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
    let xs = match &batch.values {
        Values::F32(values) => Tensor::from_slice(values, batch.shape.as_slice(), device)?,
        Values::U8(values) => {
            let pixels = Tensor::from_slice(values, batch.shape.as_slice(), device)?;
            let channels = batch.shape.get(1).copied().unwrap_or(1);
            match &batch.normalize {
                Some(normalize) => kernels::normalize_u8(&pixels, normalize)?,
                None => kernels::normalize_u8(&pixels, &Normalize::unit(channels))?,
            }
        }
    };
    let wanted: Vec<usize> = [batch.len()].into_iter().chain(shape.iter().copied()).collect();
    let xs = match shape {
        _ if xs.dims() == wanted => xs,
        [d] if xs.elem_count() == batch.len() * d => xs.reshape(wanted)?,
        _ => return Err(Error::mismatch("batch", format!("{wanted:?}"), format!("{:?}", batch.shape))),
    };
    Ok((xs, Tensor::from_slice(&batch.labels, batch.len(), device)?))
}

/// Mix-up (Zhang et al. 2018, arXiv:1710.09412): of `xs` `(n, ...)`, each sample becomes `λ` of itself and `1 − λ` of another
/// of the batch, and so does its target. One `λ` a batch, from Beta(`alpha`, `alpha`) with `alpha` in `0.0..=1.0`, taken at
/// least ½ (the same mixtures, the other one named first), so that a sample's own label stays the likelier.
pub(super) fn mix_up(xs: &Tensor, labels: &[u32], classes: usize, (alpha, smoothing): (f64, f64), seed: Seed) -> Result<(Tensor, Targets)> {
    let mut rng = seed.named("mix_up").rng();
    let share = beta(alpha, &mut rng);
    let own = share.max(1.0 - share);
    let mut others: Vec<u32> = (0..labels.len() as u32).collect();
    rng.shuffle(&mut others);
    let mut targets = vec![(smoothing / classes as f64) as f32; labels.len() * classes];
    for (row, (&label, &other)) in targets.chunks_exact_mut(classes).zip(labels.iter().zip(&others)) {
        for (label, share) in [(label, own), (labels[other as usize], 1.0 - own)] {
            row[label as usize] += ((1.0 - smoothing) * share) as f32;
        }
    }
    let others = Tensor::from_vec(others, labels.len(), xs.device())?;
    let mixed = ((xs * own)? + (xs.index_select(&others, 0)? * (1.0 - own))?)?;
    Ok((mixed, Targets::Soft(Tensor::from_vec(targets, (labels.len(), classes), xs.device())?)))
}

/// From the Beta distribution with both parameters `alpha`, in `0.0..=1.0` (Jöhnk 1964).
fn beta(alpha: f64, rng: &mut Rng) -> f64 {
    loop {
        let (x, y) = (rng.uniform().powf(1.0 / alpha), rng.uniform().powf(1.0 / alpha));
        // Of a very small `alpha`, both may be too small to be told from 0.
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
}
