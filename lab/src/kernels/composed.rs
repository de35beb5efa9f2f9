//! The kernels written in candle's own operations: what runs on other devices than the CPU, and a second opinion for tests.
//!
//! candle's operations with wrong gradients are left out: `max_pool2d`, `avg_pool2d`, `relu`, `upsample_*`, and `conv2d` where rows
//! or columns of the input are left over. Arguments are not checked again; the functions of the same names one level up do that.

mod further;

pub use further::{dropout, instance_norm, layer_norm, softmax, times, top_k, upsample2d};

use candle::{D, DType, Result, Tensor};

use super::{Activation, Affine, Conv, Divisor, Normed, Pool};

/// See [`conv2d`](super::conv2d()).
///
/// # Errors
/// When candle refuses.
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv) -> Result<Tensor> {
    let ((n, c, h, w), (o, c_group, kh, kw)) = (xs.dims4()?, weight.dims4()?);
    let Some((oh, ow)) = conv.output_size((h, w), (kh, kw)) else {
        candle::bail!("conv2d: wanted a kernel that fits, found {kh}×{kw} on {h}×{w}")
    };
    let padded = pad(xs, 0.0, (conv.padding.0, conv.padding.0), (conv.padding.1, conv.padding.1))?;
    let ys = if conv.groups == 1 && conv.stride.0 == conv.stride.1 && conv.dilation.0 == conv.dilation.1 {
        // candle's gradient takes the rows left over at the bottom for the columns left over at the right: leave none.
        let used = |out: usize, k: usize| (out - 1) * conv.stride.0 + (k - 1) * conv.dilation.0 + 1;
        let used = padded.narrow(2, 0, used(oh, kh))?.narrow(3, 0, used(ow, kw))?.contiguous()?;
        used.conv2d(&weight.contiguous()?, 0, conv.stride.0, conv.dilation.0, 1)?
    } else {
        let (groups, depth) = (conv.groups, c_group * kh * kw);
        let taps = taps(&padded, (kh, kw), (oh, ow), conv.stride, conv.dilation)?;
        let taps: Vec<Tensor> = taps.iter().map(|tap| tap.reshape((n, c, 1, oh * ow))).collect::<Result<_>>()?;
        let columns = Tensor::cat(&taps, 2)?.reshape((n, groups, depth, oh * ow))?;
        let weight = weight.reshape((1, groups, o / groups, depth))?.broadcast_as((n, groups, o / groups, depth))?;
        weight.contiguous()?.matmul(&columns)?.reshape((n, o, oh, ow))?
    };
    biased(&ys, bias)
}

/// `ys (n, o, h, w)` plus one number a channel.
pub(super) fn biased(ys: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => wide(ys)?.broadcast_add(&wide(&beside(ys, bias)?)?)?.to_dtype(ys.dtype()),
        None => Ok(ys.clone()),
    }
}

/// `xs` with `value` around it: (above, below), (left, right).
fn pad(xs: &Tensor, value: f64, rows: (usize, usize), cols: (usize, usize)) -> Result<Tensor> {
    let mut xs = xs.clone();
    for (dim, (before, after)) in [(2, rows), (3, cols)] {
        let border = |len: usize| {
            let mut dims = xs.dims().to_vec();
            dims[dim] = len;
            Tensor::full(value, dims, xs.device())?.to_dtype(xs.dtype())
        };
        if before + after > 0 {
            xs = Tensor::cat(&[&border(before)?, &xs, &border(after)?], dim)?;
        }
    }
    Ok(xs)
}

/// For each tap of a kernel what it sees of the padded `xs` at each output position: `(n, c, oh, ow)`, in the kernel's row-major order.
fn taps(
    xs: &Tensor,
    (kh, kw): (usize, usize),
    (oh, ow): (usize, usize),
    stride: (usize, usize),
    dilation: (usize, usize),
) -> Result<Vec<Tensor>> {
    let mut taps = Vec::with_capacity(kh * kw);
    for ki in 0..kh {
        let rows = every(xs, 2, ki * dilation.0, oh, stride.0)?;
        for kj in 0..kw {
            taps.push(every(&rows, 3, kj * dilation.1, ow, stride.1)?.contiguous()?);
        }
    }
    Ok(taps)
}

/// `len` slices of `xs` along a dimension, from `first` on, each `step` after the one before. By views: an index would come from the host.
fn every(xs: &Tensor, dim: usize, first: usize, len: usize, step: usize) -> Result<Tensor> {
    if step == 1 {
        return xs.narrow(dim, first, len);
    }
    // The last slice has perhaps none behind it to be left out.
    let xs = xs.pad_with_zeros(dim, 0, (first + len * step).saturating_sub(xs.dims()[dim]))?.narrow(dim, first, len * step)?;
    let split: Vec<usize> = [&xs.dims()[..dim], &[len, step], &xs.dims()[dim + 1..]].concat();
    xs.reshape(split)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
}

/// See [`linear`](super::linear()).
///
/// # Errors
/// When candle refuses.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ys = xs.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => wide(&ys)?.broadcast_add(&wide(bias)?)?.to_dtype(ys.dtype()),
        None => Ok(ys),
    }
}

/// See [`batch_norm`](super::batch_norm()).
///
/// # Errors
/// When candle refuses.
pub fn batch_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Normed> {
    let (c, dims) = (xs.dims()[1], if xs.rank() == 4 { vec![0, 2, 3] } else { vec![0] });
    let (dtype, xs, count) = (xs.dtype(), &wide(xs)?, (xs.elem_count() / c) as f64);
    let mean = xs.mean_keepdim(dims.as_slice())?;
    let centred = xs.broadcast_sub(&mean)?;
    let var = centred.sqr()?.mean_keepdim(dims.as_slice())?;
    let ys = scale_shift(&centred.broadcast_div(&(&var + eps)?.sqrt()?)?, affine)?.to_dtype(dtype)?;
    let unbiased = (var.detach().reshape(c)? * (count / (count - 1.0)))?;
    Ok(Normed { ys, mean: mean.detach().reshape(c)?, var: unbiased })
}

/// See [`batch_norm_running`](super::batch_norm_running()).
///
/// # Errors
/// When candle refuses.
pub fn batch_norm_running(xs: &Tensor, mean: &Tensor, var: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let (dtype, xs) = (xs.dtype(), &wide(xs)?);
    let (mean, std) = (beside(xs, &mean.detach())?, (beside(xs, &var.detach())? + eps)?.sqrt()?);
    scale_shift(&xs.broadcast_sub(&mean)?.broadcast_div(&std)?, affine)?.to_dtype(dtype)
}

fn scale_shift(xs: &Tensor, affine: Option<Affine<'_>>) -> Result<Tensor> {
    match affine {
        Some(Affine { weight, bias }) => xs.broadcast_mul(&beside(xs, weight)?)?.broadcast_add(&beside(xs, bias)?),
        None => Ok(xs.clone()),
    }
}

/// One number a channel, in a shape and type that go with `xs`.
fn beside(xs: &Tensor, numbers: &Tensor) -> Result<Tensor> {
    let mut dims = vec![1; xs.rank()];
    dims[1] = numbers.elem_count();
    numbers.reshape(dims)?.to_dtype(xs.dtype())
}

/// Half precision as `f32`, because candle adds up in the type of the numbers; other types as they are.
fn wide(xs: &Tensor) -> Result<Tensor> {
    if matches!(xs.dtype(), DType::F16 | DType::BF16) { xs.to_dtype(DType::F32) } else { Ok(xs.clone()) }
}

/// See [`max_pool2d`](super::max_pool2d()).
///
/// # Errors
/// When candle refuses.
pub fn max_pool2d(xs: &Tensor, pool: &Pool) -> Result<Tensor> {
    let taps = windows(xs, pool, f64::NEG_INFINITY)?;
    let mut largest = taps[0].clone();
    for tap in &taps[1..] {
        // Strictly larger, so that the first of equals keeps the gradient.
        largest = tap.gt(&largest)?.where_cond(tap, &largest)?;
    }
    Ok(largest)
}

/// See [`avg_pool2d`](super::avg_pool2d()).
///
/// # Errors
/// When candle refuses.
pub fn avg_pool2d(xs: &Tensor, pool: &Pool, divisor: Divisor) -> Result<Tensor> {
    let (dtype, xs) = (xs.dtype(), &wide(xs)?);
    let taps = windows(xs, pool, 0.0)?;
    let mut sum = taps[0].clone();
    for tap in &taps[1..] {
        sum = (sum + tap)?;
    }
    let (_, _, h, w) = xs.dims4()?;
    let (_, _, oh, ow) = sum.dims4()?;
    let (rows, cols) = pool.factors(divisor, (h, w), (oh, ow));
    let factors: Vec<f64> = rows.iter().flat_map(|row| cols.iter().map(move |col| row * col)).collect();
    if factors.iter().all(|factor| *factor == factors[0]) {
        return (sum * factors[0])?.to_dtype(dtype);
    }
    sum.broadcast_mul(&Tensor::from_vec(factors, (1, 1, oh, ow), xs.device())?.to_dtype(xs.dtype())?)?.to_dtype(dtype)
}

/// See [`global_avg_pool`](super::global_avg_pool()).
///
/// # Errors
/// When candle refuses.
pub fn global_avg_pool(xs: &Tensor) -> Result<Tensor> {
    wide(xs)?.mean((2, 3))?.to_dtype(xs.dtype())
}

fn windows(xs: &Tensor, pool: &Pool, border: f64) -> Result<Vec<Tensor>> {
    let (_, _, h, w) = xs.dims4()?;
    let Some((oh, ow)) = pool.output_size((h, w)) else { candle::bail!("pooling: wanted a window that fits, found {pool:?} on {h}×{w}") };
    // Below and to the right, as far as the last window reaches.
    let after = |out: usize, size: usize, k: usize, stride: usize, before: usize| ((out - 1) * stride + k).saturating_sub(size + before);
    let bottom = after(oh, h, pool.kernel.0, pool.stride.0, pool.padding.0);
    let right = after(ow, w, pool.kernel.1, pool.stride.1, pool.padding.1);
    let padded = pad(xs, border, (pool.padding.0, bottom), (pool.padding.1, right))?;
    taps(&padded, pool.kernel, (oh, ow), pool.stride, (1, 1))
}

/// See [`activate`](super::activate()).
///
/// # Errors
/// When candle refuses.
pub fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    // Compared with tensors, because candle brings a number that it compares with from the host.
    let relu = |xs: &Tensor| xs.le(&xs.zeros_like()?)?.where_cond(&xs.zeros_like()?, xs);
    let six = |xs: &Tensor| Tensor::full(6f32, xs.shape(), xs.device())?.to_dtype(xs.dtype());
    let relu6 = |xs: &Tensor| xs.ge(&six(xs)?)?.where_cond(&six(xs)?, &relu(xs)?);
    // Through the hyperbolic tangent, because the gradient of 1 / (1 + exp(−x)) is ∞ · 0 for large negative x.
    let sigmoid = |xs: &Tensor| ((xs * 0.5)?.tanh()? * 0.5)? + 0.5;
    let hard_sigmoid = |xs: &Tensor| relu6(&(xs + 3.0)?)? / 6.0;
    match activation {
        Activation::Relu => relu(xs),
        Activation::Relu6 => relu6(xs),
        Activation::Elu => xs.elu(1.0),
        Activation::Sigmoid => sigmoid(xs),
        Activation::Tanh => xs.tanh(),
        Activation::Swish => xs * sigmoid(xs)?,
        Activation::HardSwish => xs * hard_sigmoid(xs)?,
        Activation::HardSigmoid => hard_sigmoid(xs),
    }
}

/// See [`cross_entropy`](super::cross_entropy()).
///
/// # Errors
/// When candle refuses.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (_, k) = logits.dims2()?;
    let classes = Tensor::arange(0u32, k as u32, logits.device())?.unsqueeze(0)?;
    let logits = &wide(logits)?;
    let hot = labels.unsqueeze(1)?.broadcast_eq(&classes)?.to_dtype(logits.dtype())?;
    // A label that is no class has no hot place: 0 / 0 makes the loss NaN without a copy to the host.
    let hot = hot.broadcast_div(&hot.sum_keepdim(1)?)?;
    soft_cross_entropy(logits, &((hot * (1.0 - smoothing))? + smoothing / k as f64)?)
}

/// See [`soft_cross_entropy`](super::soft_cross_entropy()).
///
/// # Errors
/// When candle refuses.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let (logits, targets) = (wide(logits)?, wide(targets)?);
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_p = shifted.broadcast_sub(&log_sum)?;
    (targets * log_p)?.sum_all()? / -(logits.dims()[0] as f64)
}
