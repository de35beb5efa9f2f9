//! Rows of numbers brought to mean 0 and variance 1, or to a sum of 1.

use candle::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::accumulate::copy;
use super::buffers::fresh;
use super::composed;
use super::norm::{Affine, batch_norm_running};
use super::real::{Real, check_alike, each_part, for_real, numbers, per_task, sum_by, vectorised};

/// `xs (n, ..)`, each sample shifted and scaled to mean 0 and variance 1 over its last `dims` dimensions (Ba, Kiros & Hinton 2016).
///
/// `affine` has the shape of these dimensions, `eps` is added to the (biased) variance.
///
/// # Errors
/// When there are not so many dimensions besides the batch, shapes do not fit, or types or devices differ.
pub fn layer_norm(xs: &Tensor, dims: usize, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let rank = xs.rank();
    if dims == 0 || dims >= rank {
        bail!("layer_norm: wanted 1 to {} dimensions, found {dims}", rank.saturating_sub(1))
    }
    let inner = &xs.dims()[rank - dims..];
    check("layer_norm", xs, affine, inner)?;
    if !xs.device().is_cpu() {
        return composed::layer_norm(xs, dims, affine, eps);
    }
    let len: usize = inner.iter().product();
    let rows = xs.contiguous()?.reshape(((), len))?.apply_op1(Normalize { eps })?;
    scale_shift(&rows, affine)?.reshape(xs.shape())
}

/// `xs (n, c, h, w)`, each channel of each sample shifted and scaled to mean 0 and variance 1 (Ulyanov, Vedaldi & Lempitsky 2016).
///
/// `affine` is `(c)`, `eps` is added to the (biased) variance.
///
/// # Errors
/// When a channel has but one pixel, shapes do not fit, or types or devices differ.
pub fn instance_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let &[_, c, h, w] = xs.dims() else { bail!("instance_norm: wanted an input (n, c, h, w), found {:?}", xs.dims()) };
    if h * w < 2 {
        bail!("instance_norm: wanted at least 2 pixels to normalise by, found an input {:?}", xs.dims())
    }
    check("instance_norm", xs, affine, &[c])?;
    if !xs.device().is_cpu() {
        return composed::instance_norm(xs, affine, eps);
    }
    let rows = xs.contiguous()?.reshape(((), h * w))?.apply_op1(Normalize { eps })?;
    scale_shift(&rows.reshape(xs.shape())?, affine)
}

/// `exp(x) / Σ exp(x)` along dimension `dim` of `xs`.
///
/// # Errors
/// When there is no such dimension.
pub fn softmax(xs: &Tensor, dim: usize) -> Result<Tensor> {
    let rank = xs.rank();
    if dim >= rank || xs.elem_count() == 0 {
        bail!("softmax: wanted numbers and a dimension below {rank}, found dimension {dim} of {:?}", xs.dims())
    }
    if !xs.device().is_cpu() {
        return composed::softmax(xs, dim);
    }
    let rows = xs.transpose(dim, rank - 1)?.contiguous()?.apply_op1(Softmax)?;
    rows.transpose(dim, rank - 1)?.contiguous()
}

/// The gradient of the input of [`softmax`] along `dim`, from its value.
pub(crate) fn softmax_backward(grad: &Tensor, ys: &Tensor, dim: usize) -> Result<Tensor> {
    let last = ys.rank() - 1;
    if dim == last {
        return grad.apply_op2_no_bwd(ys, &SoftmaxBackward);
    }
    let turned = |xs: &Tensor| xs.transpose(dim, last)?.contiguous();
    copy(&turned(grad)?.apply_op2_no_bwd(&turned(ys)?, &SoftmaxBackward)?.transpose(dim, last)?)
}

fn check(op: &str, xs: &Tensor, affine: Option<Affine<'_>>, wanted: &[usize]) -> Result<()> {
    if xs.elem_count() == 0 {
        bail!("{op}: wanted at least one number, found an input {:?}", xs.dims())
    }
    for (name, tensor) in affine.iter().flat_map(|affine| [("weight", affine.weight), ("bias", affine.bias)]) {
        check_alike(op, name, tensor, xs)?;
        if tensor.dims() != wanted {
            bail!("{op}: {name}: wanted {wanted:?}, found {:?}", tensor.dims())
        }
    }
    Ok(())
}

/// Each channel of `xs (n, c, ..)` times its weight, plus its bias: a batch norm by mean 0 and variance 1.
fn scale_shift(xs: &Tensor, affine: Option<Affine<'_>>) -> Result<Tensor> {
    let Some(Affine { weight, bias }) = affine else { return Ok(xs.clone()) };
    let (weight, bias) = (weight.flatten_all()?, bias.flatten_all()?);
    batch_norm_running(xs, &weight.zeros_like()?, &weight.ones_like()?, Some(Affine { weight: &weight, bias: &bias }), 0.0)
}

/// For each row of `len` numbers, `f(number of the row, row)`.
fn each_row<T: Real>(out: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (rows, work) = (per_task(4 * len), 4 * out.len());
    each_part(out, rows * len, work, |part, out| {
        out.chunks_exact_mut(len).enumerate().for_each(|(nth, row)| f(part * rows + nth, row));
    });
}

fn last(layout: &Layout) -> usize {
    layout.dims()[layout.dims().len() - 1]
}

/// Each row to mean 0 and variance 1.
#[derive(Clone, Copy)]
struct Normalize {
    eps: f64,
}

impl Normalize {
    /// Mean and 1 / standard deviation of a row.
    fn moments<T: Real>(self, row: &[T]) -> (T, T) {
        let count = T::from_f64(row.len() as f64);
        let mean = sum_by(row.len(), |i| row[i]) / count;
        let var = sum_by(row.len(), |i| (row[i] - mean) * (row[i] - mean)) / count;
        (mean, T::from_f64(1.0 / (var.to_f64() + self.eps).sqrt()))
    }
}

impl CustomOp1 for Normalize {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let len = last(xl);
        for_real!("layer_norm", xs, T => {
            let xs = numbers::<T>("layer_norm", xs, xl)?;
            let mut ys = fresh(xs.len());
            each_row(&mut ys, len, |at, ys| {
                let xs = &xs[at * len..(at + 1) * len];
                let (mean, inv_std) = self.moments(xs);
                vectorised::<T, _>(|| ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = (x - mean) * inv_std));
            });
            Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op2_no_bwd(xs, &NormalizeBackward(*self))?))
    }
}

struct NormalizeBackward(Normalize);

impl CustomOp2 for NormalizeBackward {
    fn name(&self) -> &'static str {
        "layer_norm backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let len = last(xl);
        for_real!("layer_norm", grad, T => {
            let (grad, xs) = (numbers::<T>("layer_norm", grad, gl)?, numbers::<T>("layer_norm", xs, xl)?);
            let mut dxs = fresh(xs.len());
            each_row(&mut dxs, len, |at, dxs| {
                let (grad, xs) = (&grad[at * len..(at + 1) * len], &xs[at * len..(at + 1) * len]);
                let (mean, inv_std) = self.0.moments(xs);
                let count = T::from_f64(len as f64);
                let shift = sum_by(len, |i| grad[i]) / count;
                let slope = sum_by(len, |i| grad[i] * (xs[i] - mean)) / count * inv_std * inv_std;
                let rows = dxs.iter_mut().zip(grad).zip(xs);
                vectorised::<T, _>(|| rows.for_each(|((dx, &grad), &x)| *dx = (grad - shift - (x - mean) * slope) * inv_std));
            });
            Ok((T::to_cpu_storage_owned(dxs), xl.shape().clone()))
        })
    }
}

/// Each row to positive numbers that add up to 1.
struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let len = last(xl);
        for_real!("softmax", xs, T => {
            let xs = numbers::<T>("softmax", xs, xl)?;
            let mut ys = fresh(xs.len());
            each_row(&mut ys, len, |at, ys| {
                let xs = &xs[at * len..(at + 1) * len];
                // Less the largest, so that nothing overflows.
                let largest = xs.iter().copied().fold(-T::INFINITY, |a, b| if b > a { b } else { a });
                vectorised::<T, _>(|| ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = (x - largest).exp()));
                let sum = sum_by(len, |i| ys[i]);
                vectorised::<T, _>(|| ys.iter_mut().for_each(|y| *y /= sum));
            });
            Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op2_no_bwd(ys, &SoftmaxBackward)?))
    }
}

/// `y · (grad − Σ grad·y)`.
struct SoftmaxBackward;

impl CustomOp2 for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, ys: &CpuStorage, yl: &Layout) -> Result<(CpuStorage, Shape)> {
        let len = last(yl);
        for_real!("softmax", grad, T => {
            let (grad, ys) = (numbers::<T>("softmax", grad, gl)?, numbers::<T>("softmax", ys, yl)?);
            let mut dxs = fresh(ys.len());
            each_row(&mut dxs, len, |at, dxs| {
                let (grad, ys) = (&grad[at * len..(at + 1) * len], &ys[at * len..(at + 1) * len]);
                let mean = sum_by(len, |i| grad[i] * ys[i]);
                let rows = dxs.iter_mut().zip(grad).zip(ys);
                vectorised::<T, _>(|| rows.for_each(|((dx, &grad), &y)| *dx = y * (grad - mean)));
            });
            Ok((T::to_cpu_storage_owned(dxs), yl.shape().clone()))
        })
    }
}
