//! The fully connected layer as one node of the graph: `ys = xs · weightᵀ + bias`.

use candle::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::buffers::fresh;
use super::composed;
use super::norm::bias_backward;
use super::real::{Matrix, Real, check_alike, for_real, numbers, product_parallel};

/// `xs (n, d)`, weight `(o, d)` and bias `(o)` to `(n, o)`.
///
/// # Errors
/// When the shapes do not fit, or types or devices differ.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (&[_, d], &[o, wanted]) = (xs.dims(), weight.dims()) else {
        bail!("linear: wanted an input (n, d) and a weight (o, d), found {:?} and {:?}", xs.dims(), weight.dims())
    };
    if d != wanted {
        bail!("linear: the weight wanted {wanted} features, found {d}")
    }
    check_alike("linear", "weight", weight, xs)?;
    if let Some(bias) = bias {
        check_alike("linear", "bias", bias, xs)?;
        if bias.dims() != [o] {
            bail!("linear: bias: wanted ({o}), found {:?}", bias.dims())
        }
    }
    if !xs.device().is_cpu() {
        return composed::linear(xs, weight, bias);
    }
    let (xs, weight) = (xs.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, Linear),
        None => xs.apply_op2(&weight, Linear),
    }
}

#[derive(Clone, Copy)]
struct Linear;

fn forward<T: Real>(xs: &[T], weight: &[T], bias: Option<&[T]>, dims: [usize; 3]) -> Vec<T> {
    let [n, o, d] = dims;
    let mut ys = match bias {
        Some(bias) => {
            let mut ys = fresh(n * o);
            ys.chunks_exact_mut(o).for_each(|row| row.copy_from_slice(bias));
            ys
        }
        None => fresh(n * o),
    };
    product_parallel(dims, &mut ys, bias.is_some(), Matrix::rows(xs, d), Matrix::rows(weight, d).transposed());
    ys
}

/// The gradient of the input `(n, d)`; for whoever keeps the books himself.
pub(crate) fn linear_backward_data(grad: &Tensor, weight: &Tensor) -> Result<Tensor> {
    grad.apply_op2_no_bwd(weight, &BackwardData)
}

/// The gradient of the weight `(o, d)`.
pub(crate) fn linear_backward_weight(grad: &Tensor, xs: &Tensor) -> Result<Tensor> {
    grad.apply_op2_no_bwd(xs, &BackwardWeight)
}

/// Gradients of the input and the weight; `None` where nobody asks.
fn backward(xs: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let grad = &grad.contiguous()?;
    let dxs = xs.track_op().then(|| linear_backward_data(grad, weight)).transpose()?;
    let dweight = weight.track_op().then(|| linear_backward_weight(grad, xs)).transpose()?;
    Ok((dxs, dweight))
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((n, d), o) = (xl.shape().dims2()?, wl.dims()[0]);
        for_real!("linear", xs, T => {
            let ys = forward::<T>(numbers("linear", xs, xl)?, numbers("linear", weight, wl)?, None, [n, o, d]);
            Ok((candle::WithDType::to_cpu_storage_owned(ys), (n, o).into()))
        })
    }

    fn bwd(&self, xs: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        backward(xs, weight, grad)
    }
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        let ((n, d), o) = (xl.shape().dims2()?, wl.dims()[0]);
        for_real!("linear", xs, T => {
            let bias = numbers("linear", bias, bl)?;
            let ys = forward::<T>(numbers("linear", xs, xl)?, numbers("linear", weight, wl)?, Some(bias), [n, o, d]);
            Ok((candle::WithDType::to_cpu_storage_owned(ys), (n, o).into()))
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
        let (dxs, dweight) = backward(xs, weight, grad)?;
        let dbias = bias.track_op().then(|| bias_backward(&grad.contiguous()?)).transpose()?;
        Ok((dxs, dweight, dbias))
    }
}

/// `grad (n, o) · weight (o, d)`.
struct BackwardData;

impl CustomOp2 for BackwardData {
    fn name(&self) -> &'static str {
        "linear backward data"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((n, o), d) = (gl.shape().dims2()?, wl.dims()[1]);
        for_real!("linear", grad, T => {
            let mut dxs = fresh(n * d);
            let (grad, weight) = (numbers::<T>("linear", grad, gl)?, numbers("linear", weight, wl)?);
            product_parallel([n, d, o], &mut dxs, false, Matrix::rows(grad, o), Matrix::rows(weight, d));
            Ok((candle::WithDType::to_cpu_storage_owned(dxs), (n, d).into()))
        })
    }
}

/// `gradᵀ (o, n) · xs (n, d)`.
struct BackwardWeight;

impl CustomOp2 for BackwardWeight {
    fn name(&self) -> &'static str {
        "linear backward weight"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((n, o), d) = (gl.shape().dims2()?, xl.dims()[1]);
        for_real!("linear", grad, T => {
            let mut dweight = fresh(o * d);
            let (grad, xs) = (numbers::<T>("linear", grad, gl)?, numbers("linear", xs, xl)?);
            product_parallel([o, d, n], &mut dweight, false, Matrix::rows(grad, o).transposed(), Matrix::rows(xs, d));
            Ok((candle::WithDType::to_cpu_storage_owned(dweight), (o, d).into()))
        })
    }
}
