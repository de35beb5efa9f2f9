//! Batch normalisation as one node of the graph.
//!
//! The loops over memory are in `passes`; `layer` has the form that a training step uses, joined to what follows.

mod layer;
mod passes;

use candle::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};

use super::activation::Identity;
use super::composed;
use super::real::{check_beside, for_real, numbers, planes};
use passes::{Moments, MomentsOf, lines, map};

pub(crate) use layer::{Layer, Saved, fuses, layer_backward, layer_forward, layer_running};
pub(crate) use passes::bias_backward;

/// What follows the normalisation: `weight · x + bias`, both `(c)`.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// One factor a channel.
    pub weight: &'a Tensor,
    /// One summand a channel.
    pub bias: &'a Tensor,
}

/// A batch normalised by its own statistics, and these, which are `f32` where it is of half precision.
#[derive(Debug, Clone)]
pub struct Normed {
    /// Same shape as the input.
    pub ys: Tensor,
    /// Mean of each channel `(c)`; no gradient flows back through it.
    pub mean: Tensor,
    /// Variance of each channel `(c)`, unbiased (divided by one less than the count), for running statistics; no gradient.
    pub var: Tensor,
}

/// `xs (n, c, h, w)` or `(n, c)`, each channel shifted and scaled to mean 0 and variance 1 over this batch. For training.
///
/// `eps` is added to the (biased) variance. The gradient flows through mean and variance. Weight and bias may be of a wider type than
/// `xs`: `f32` beside `bf16`.
///
/// # Errors
/// When there is but one number a channel, shapes do not fit, or types or devices differ.
pub fn batch_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Normed> {
    let (n, _, area) = check(xs, affine)?;
    let count = n * area;
    if count < 2 {
        bail!("batch_norm: wanted at least 2 numbers a channel to normalise by, found {count} (input {:?})", xs.dims())
    }
    #[cfg(feature = "cudnn")]
    if super::cuda::takes(xs) {
        return super::cuda::batch_norm(xs, affine, eps);
    }
    if !xs.device().is_cpu() {
        return composed::batch_norm(xs, affine, eps);
    }
    let xs = xs.contiguous()?;
    let moments = xs.apply_op1_no_bwd(&MomentsOf)?.to_vec2::<f64>()?;
    let moments = Moments { mean: moments[0].clone(), var: moments[1].clone(), count };
    let (mean, var) = moments.learned(&xs)?;
    let ys = normalize(&xs, affine, Normalize { mean: moments.mean.clone(), inv_std: moments.inv_std(eps), count: Some(count) })?;
    Ok(Normed { ys, mean, var })
}

/// `xs (n, c, h, w)` or `(n, c)`, each channel shifted and scaled by the statistics given, both `(c)`. For evaluation.
///
/// No gradient flows to the statistics. These, weight and bias may be of a wider type than `xs`.
///
/// # Errors
/// When shapes do not fit, or types or devices differ.
pub fn batch_norm_running(xs: &Tensor, mean: &Tensor, var: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let (_, c, _) = check(xs, affine)?;
    for (name, statistic) in [("mean", mean), ("variance", var)] {
        check_beside("batch_norm", name, statistic, xs)?;
        if statistic.dims() != [c] {
            bail!("batch_norm: running {name}: wanted ({c}), found {:?}", statistic.dims())
        }
    }
    #[cfg(feature = "cudnn")]
    if super::cuda::takes(xs) {
        return super::cuda::batch_norm_running(xs, mean, var, affine, eps);
    }
    if !xs.device().is_cpu() {
        return composed::batch_norm_running(xs, mean, var, affine, eps);
    }
    let numbers = |statistic: &Tensor| statistic.to_dtype(DType::F64)?.to_vec1::<f64>();
    let inv_std = numbers(var)?.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
    normalize(&xs.contiguous()?, affine, Normalize { mean: numbers(mean)?, inv_std, count: None })
}

fn check(xs: &Tensor, affine: Option<Affine<'_>>) -> Result<(usize, usize, usize)> {
    let dims = planes("batch_norm", xs)?;
    if xs.elem_count() == 0 {
        bail!("batch_norm: wanted at least one number, found an input {:?}", xs.dims())
    }
    for (name, tensor) in affine.iter().flat_map(|affine| [("weight", affine.weight), ("bias", affine.bias)]) {
        check_beside("batch_norm", name, tensor, xs)?;
        if tensor.dims() != [dims.1] {
            bail!("batch_norm: {name}: wanted ({}), found {:?}", dims.1, tensor.dims())
        }
    }
    Ok(dims)
}

fn normalize(xs: &Tensor, affine: Option<Affine<'_>>, op: Normalize) -> Result<Tensor> {
    let c = xs.dims()[1];
    match affine {
        Some(Affine { weight, bias }) => {
            let of_type = |numbers: &Tensor| numbers.to_dtype(xs.dtype())?.contiguous();
            xs.apply_op3(&of_type(weight)?, &of_type(bias)?, op)
        }
        None => xs.apply_op3(&Tensor::ones(c, xs.dtype(), xs.device())?, &Tensor::zeros(c, xs.dtype(), xs.device())?, op),
    }
}

struct Normalize {
    mean: Vec<f64>,
    inv_std: Vec<f64>,
    /// Numbers a channel where the statistics are those of the batch, so that the gradient flows through them.
    count: Option<usize>,
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_real!("batch_norm", xs, T => {
            let (weight, bias) = (numbers::<T>("batch_norm", weight, wl)?, numbers::<T>("batch_norm", bias, bl)?);
            let lines = lines(&self.mean, &self.inv_std, weight, bias);
            let ys = map(&lines, numbers::<T>("batch_norm", xs, xl)?, None, xl.dims(), Identity);
            Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (grad, saved) = (grad.contiguous()?, Saved { mean: self.mean.clone(), inv_std: self.inv_std.clone(), count: self.count });
        let layer = Layer { weight, bias, activation: None };
        let sums = grad.apply_op2_no_bwd(xs, &layer::GradientSums { saved: &saved, layer: &layer })?;
        let of = |row: usize| sums.get(row)?.to_dtype(xs.dtype());
        let dxs = || {
            let dxs = grad.copy()?;
            saved.descend(&dxs, xs, &layer, &sums)?;
            Result::Ok(dxs)
        };
        Ok((
            xs.track_op().then(dxs).transpose()?,
            weight.track_op().then(|| of(1)).transpose()?,
            bias.track_op().then(|| of(0)).transpose()?,
        ))
    }
}
