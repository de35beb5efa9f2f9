//! The second half of the kernels in candle's own operations: norms of single samples, gates, resampling, the largest weights.

use candle::{D, DType, Result, Tensor};

use super::wide;
use crate::kernels::{Affine, Interpolation, top};

/// See [`layer_norm`](crate::kernels::layer_norm()).
///
/// # Errors
/// When candle refuses.
pub fn layer_norm(xs: &Tensor, dims: usize, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let len: usize = xs.dims()[xs.rank() - dims..].iter().product();
    let ys = normalized(&xs.contiguous()?.reshape(((), len))?, eps)?.reshape(xs.shape())?;
    match affine {
        Some(Affine { weight, bias }) => ys.broadcast_mul(weight)?.broadcast_add(bias),
        None => Ok(ys),
    }
}

/// See [`instance_norm`](crate::kernels::instance_norm()).
///
/// # Errors
/// When candle refuses.
pub fn instance_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let (n, c, h, w) = xs.dims4()?;
    let ys = normalized(&xs.contiguous()?.reshape((n * c, h * w))?, eps)?.reshape((n, c, h, w))?;
    match affine {
        Some(Affine { weight, bias }) => ys.broadcast_mul(&weight.reshape((1, c, 1, 1))?)?.broadcast_add(&bias.reshape((1, c, 1, 1))?),
        None => Ok(ys),
    }
}

fn normalized(xs: &Tensor, eps: f64) -> Result<Tensor> {
    let rows = wide(xs)?;
    let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
    let var = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(var + eps)?.sqrt()?)?.to_dtype(xs.dtype())
}

/// See [`softmax`](crate::kernels::softmax()).
///
/// # Errors
/// When candle refuses.
pub fn softmax(xs: &Tensor, dim: usize) -> Result<Tensor> {
    let (dtype, xs) = (xs.dtype(), wide(xs)?);
    let powers = xs.broadcast_sub(&xs.max_keepdim(dim)?.detach())?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(dim)?)?.to_dtype(dtype)
}

/// `xs` divided by `1 − p` where `kept`, a `u8` a place, is not 0, and 0 elsewhere; see [`dropout`](crate::kernels::dropout()).
///
/// # Errors
/// When candle refuses.
pub fn dropout(xs: &Tensor, kept: &Tensor, p: f64) -> Result<Tensor> {
    let scaled = if p < 1.0 { (xs / (1.0 - p))? } else { xs.clone() };
    kept.reshape(xs.shape())?.where_cond(&scaled, &xs.zeros_like()?)
}

/// `xs` cut into as many planes as there are `factors`, each times its factor; see [`multiply`](crate::kernels::multiply()).
///
/// # Errors
/// When candle refuses.
pub fn times(xs: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let planes = factors.elem_count();
    xs.contiguous()?.reshape((planes, ()))?.broadcast_mul(&factors.contiguous()?.reshape((planes, 1))?)?.reshape(xs.shape())
}

/// See [`upsample2d`](crate::kernels::upsample2d()).
///
/// # Errors
/// When candle refuses.
pub fn upsample2d(xs: &Tensor, (rows, columns): (usize, usize), by: Interpolation) -> Result<Tensor> {
    let (n, c, h, w) = xs.dims4()?;
    // Interpolation is a matrix product over columns and one over rows.
    let matrix = |size: usize, out: usize| {
        let mut shares = vec![0.0; out * size];
        for (tap, shares) in by.taps(size, out).iter().zip(shares.chunks_exact_mut(size)) {
            shares[tap.first] += 1.0 - tap.share;
            shares[tap.second] += tap.share;
        }
        Tensor::from_vec(shares, (out, size), xs.device())?.to_dtype(xs.dtype())
    };
    let ys = xs.contiguous()?.reshape((n * c * h, w))?.matmul(&matrix(w, columns)?.t()?)?;
    let ys = ys.reshape((n * c, h, columns))?.transpose(1, 2)?.contiguous()?.reshape((n * c * columns, h))?;
    let ys = ys.matmul(&matrix(h, rows)?.t()?)?.reshape((n, c, columns, rows))?;
    ys.transpose(2, 3)?.contiguous()
}

/// See [`top_k`](crate::kernels::top_k()). The choice is made on the CPU: candle sorts no long rows on a card.
///
/// # Errors
/// When candle refuses.
pub fn top_k(weight: &Tensor, count: usize) -> Result<Tensor> {
    let numbers = weight.detach().flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let mut mask = vec![1.0; numbers.len()];
    top::smallest(&numbers, numbers.len() - count).into_iter().for_each(|at| mask[at] = 0.0);
    let mask = Tensor::from_vec(mask, weight.shape(), weight.device())?.to_dtype(weight.dtype())?;
    // Adds 0 to what is kept and takes away what is not, unseen by the gradient.
    let change = ((weight * mask)? - weight)?.detach();
    weight + change
}
