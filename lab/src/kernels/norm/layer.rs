//! Batch norm with what follows it, for whoever keeps the books himself: sum with a skip, and activation.

use candle::{CpuStorage, CustomOp1, CustomOp2, DType, InplaceOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::super::accumulate::copy;
use super::super::activation::{Activation, Curve, Identity, Relu, Relu6, activate_backward};
use super::super::real::{Real, for_real, numbers, numbers_mut};
use super::passes::{Line, Moments, MomentsOf, descend, lines, map, sum2};
use super::{Affine, Normed, check};

/// A normalisation together with what follows it: `activation(normalised · weight + bias [+ skip])`, in one pass over memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// `(c)`.
    pub(crate) weight: &'a Tensor,
    /// `(c)`.
    pub(crate) bias: &'a Tensor,
    /// One that [`fuses`].
    pub(crate) activation: Option<Activation>,
}

/// Whether an activation can be done together with the normalisation before it.
pub(crate) fn fuses(activation: Activation) -> bool {
    matches!(activation, Activation::Relu | Activation::Relu6)
}

/// Evaluates `$body` with `$curve` as the code of an activation that [`fuses`], or of none.
macro_rules! for_fused {
    ($activation:expr, $curve:ident => $body:expr) => {
        match $activation {
            Some(Activation::Relu) => {
                let $curve = Relu;
                $body
            }
            Some(Activation::Relu6) => {
                let $curve = Relu6;
                $body
            }
            None => {
                let $curve = Identity;
                $body
            }
            Some(other) => bail!("batch_norm: wanted an activation that can be joined to it, found {}", other.name()),
        }
    };
}

/// What a normalisation leaves for its gradient.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    pub(super) mean: Vec<f64>,
    pub(super) inv_std: Vec<f64>,
    pub(super) count: Option<usize>,
}

/// A [`Layer`] on a batch, by the batch's own statistics; `skip` has the shape of `xs`. For whoever keeps the books himself.
pub(crate) fn layer_forward(xs: &Tensor, layer: &Layer<'_>, skip: Option<&Tensor>, eps: f64) -> Result<(Normed, Saved)> {
    let (n, _, area) = check(xs, Some(Affine { weight: layer.weight, bias: layer.bias }))?;
    let count = n * area;
    if count < 2 {
        bail!("batch_norm: wanted at least 2 numbers a channel to normalise by, found {count} (input {:?})", xs.dims())
    }
    let moments = xs.apply_op1_no_bwd(&MomentsOf)?.to_vec2::<f64>()?;
    let moments = Moments { mean: moments[0].clone(), var: moments[1].clone(), count };
    let (mean, var) = moments.learned(xs)?;
    let saved = Saved { inv_std: moments.inv_std(eps), mean: moments.mean, count: Some(count) };
    Ok((Normed { ys: saved.apply(xs, layer, skip)?, mean, var }, saved))
}

/// A [`Layer`] by running statistics.
pub(crate) fn layer_running(
    xs: &Tensor,
    layer: &Layer<'_>,
    skip: Option<&Tensor>,
    (mean, var): (&Tensor, &Tensor),
    eps: f64,
) -> Result<Tensor> {
    let numbers = |statistic: &Tensor| statistic.to_dtype(DType::F64)?.to_vec1::<f64>();
    let inv_std = numbers(var)?.iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
    Saved { mean: numbers(mean)?, inv_std, count: None }.apply(xs, layer, skip)
}

/// Gradients of a [`Layer`].
pub(crate) struct LayerGradients {
    pub(crate) xs: Tensor,
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) skip: Option<Tensor>,
}

/// From the gradient of the output, whose memory is used. `ys` is the output where there was a `skip`.
pub(crate) fn layer_backward(grad: Tensor, xs: &Tensor, ys: Option<&Tensor>, layer: &Layer<'_>, saved: &Saved) -> Result<LayerGradients> {
    let Some(ys) = ys else {
        let sums = grad.apply_op2_no_bwd(xs, &GradientSums { saved, layer })?;
        saved.descend(&grad, xs, layer, &sums)?;
        let of = |row: usize| sums.get(row)?.to_dtype(xs.dtype());
        return Ok(LayerGradients { weight: of(1)?, bias: of(0)?, xs: grad, skip: None });
    };
    // The slope of an activation that fuses is the same at its value; what remains of the gradient is also that of the skip.
    let skip = match layer.activation {
        Some(activation) => activate_backward(grad, ys, activation)?,
        None => grad,
    };
    let layer = Layer { activation: None, ..*layer };
    let sums = skip.apply_op2_no_bwd(xs, &GradientSums { saved, layer: &layer })?;
    let dxs = copy(&skip)?;
    saved.descend(&dxs, xs, &layer, &sums)?;
    let of = |row: usize| sums.get(row)?.to_dtype(xs.dtype());
    Ok(LayerGradients { weight: of(1)?, bias: of(0)?, xs: dxs, skip: Some(skip) })
}

impl Saved {
    fn apply(&self, xs: &Tensor, layer: &Layer<'_>, skip: Option<&Tensor>) -> Result<Tensor> {
        struct Apply<'a>(&'a Saved, &'a Layer<'a>);
        impl Apply<'_> {
            fn run(&self, xs: &CpuStorage, xl: &Layout, skip: Option<(&CpuStorage, &Layout)>) -> Result<(CpuStorage, Shape)> {
                for_real!("batch_norm", xs, T => {
                    let lines = self.1.lines::<T>(self.0)?;
                    let skip = skip.map(|(skip, layout)| numbers::<T>("batch_norm", skip, layout)).transpose()?;
                    let xs = numbers::<T>("batch_norm", xs, xl)?;
                    let ys = for_fused!(self.1.activation, curve => map(&lines, xs, skip, xl.dims(), curve));
                    Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
                })
            }
        }
        impl CustomOp1 for Apply<'_> {
            fn name(&self) -> &'static str {
                "batch_norm"
            }
            fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
                self.run(xs, xl, None)
            }
        }
        impl CustomOp2 for Apply<'_> {
            fn name(&self) -> &'static str {
                "batch_norm"
            }
            fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout, skip: &CpuStorage, sl: &Layout) -> Result<(CpuStorage, Shape)> {
                self.run(xs, xl, Some((skip, sl)))
            }
        }
        match skip {
            Some(skip) => xs.apply_op2_no_bwd(skip, &Apply(self, layer)),
            None => xs.apply_op1_no_bwd(&Apply(self, layer)),
        }
    }

    /// Turns the gradient of the output into that of the input, in place; `sums` are [`GradientSums`].
    pub(super) fn descend(&self, grad: &Tensor, xs: &Tensor, layer: &Layer<'_>, sums: &Tensor) -> Result<()> {
        grad.inplace_op2(xs, &Descend { saved: self, layer, sums: sums.to_vec2::<f64>()? })
    }
}

impl Layer<'_> {
    fn lines<T: Real>(&self, saved: &Saved) -> Result<Vec<Line<T>>> {
        Ok(lines(&saved.mean, &saved.inv_std, &self.weight.to_vec1::<T>()?, &self.bias.to_vec1::<T>()?))
    }
}

/// `dx = scale · d + slope · (x − mean) + shift`, where `d` is the gradient behind the activation, and slope and shift bring back what
/// flows through the batch's statistics.
struct Descend<'a> {
    saved: &'a Saved,
    layer: &'a Layer<'a>,
    sums: Vec<Vec<f64>>,
}

impl InplaceOp2 for Descend<'_> {
    fn name(&self) -> &'static str {
        "batch_norm backward"
    }

    fn cpu_fwd(&self, grad: &mut CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<()> {
        for_real!("batch_norm", xs, T => {
            let lines = self.layer.lines::<T>(self.saved)?;
            let coefficient = |c: usize| {
                let (scale, inv_std) = (lines[c].scale.to_f64(), self.saved.inv_std[c]);
                let (slope, shift) = match self.saved.count {
                    Some(count) => (-scale * inv_std * self.sums[1][c] / count as f64, -scale * self.sums[0][c] / count as f64),
                    None => (0.0, 0.0),
                };
                [lines[c].scale, T::from_f64(slope), T::from_f64(shift)]
            };
            let coefficients: Vec<[T; 3]> = (0..lines.len()).map(coefficient).collect();
            let (grad, xs) = (numbers_mut::<T>("batch_norm", grad, gl)?, numbers::<T>("batch_norm", xs, xl)?);
            for_fused!(self.layer.activation, curve => descend(&lines, &coefficients, grad, xs, xl.dims(), curve));
            Ok(())
        })
    }
}

/// For each channel the sums of the gradient behind the activation, and of that × normalised input: `(2, c)`, `f64`.
pub(super) struct GradientSums<'a> {
    pub(super) saved: &'a Saved,
    pub(super) layer: &'a Layer<'a>,
}

impl CustomOp2 for GradientSums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm backward sums"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("batch_norm", grad, T => {
            let (grad, xs) = (numbers::<T>("batch_norm", grad, gl)?, numbers::<T>("batch_norm", xs, xl)?);
            let lines = self.layer.lines::<T>(self.saved)?;
            let sums = for_fused!(self.layer.activation, curve => {
                sum2((grad, xs), gl.dims(), |c: usize, grad: T, x: T| {
                    let d = grad * curve.slope(lines[c].at(x));
                    [d, d * (x - lines[c].mean)]
                })
            });
            let mut rows: Vec<f64> = sums.iter().map(|sums| sums[0]).collect();
            rows.extend(sums.iter().zip(&self.saved.inv_std).map(|(sums, inv_std)| sums[1] * inv_std));
            Ok((CpuStorage::F64(rows), (2, sums.len()).into()))
        })
    }
}
