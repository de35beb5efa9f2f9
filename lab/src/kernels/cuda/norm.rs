//! Batch norm by cuDNN: by the batch's statistics with its gradient, and by running ones.

use std::sync::{Arc, OnceLock};

use candle::backend::{BackendDevice, BackendStorage};
use candle::cuda_backend::cudarc::cudnn::sys;
use candle::op::BackpropOp;
use candle::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};

use sys::cudnnBatchNormMode_t::CUDNN_BATCHNORM_SPATIAL;

use super::cudnn::{Dense, Handle, ONE, ZERO, fresh, read, write};
use crate::kernels::{Affine, Normed};

/// See [`batch_norm`](crate::kernels::batch_norm()).
pub(in crate::kernels) fn batch_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Normed> {
    let (weight, bias) = factors(xs, affine)?;
    let found = Arc::new(OnceLock::new());
    let ys = planes(xs)?.apply_op3(&weight, &bias, Train { eps, found: found.clone() })?.reshape(xs.shape())?;
    let Some(Found { mean, var, .. }) = found.get() else { bail!("batch_norm: wanted statistics, found none") };
    Ok(Normed { ys, mean: mean.clone(), var: var.clone() })
}

/// See [`batch_norm_running`](crate::kernels::batch_norm_running()).
pub(in crate::kernels) fn batch_norm_running(
    xs: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    affine: Option<Affine<'_>>,
    eps: f64,
) -> Result<Tensor> {
    let (weight, bias) = factors(xs, affine)?;
    let number = |statistic: &Tensor| statistic.detach().to_dtype(DType::F32)?.contiguous();
    planes(xs)?.apply_op3(&weight, &bias, Running { mean: number(mean)?, var: number(var)?, eps })?.reshape(xs.shape())
}

/// `(n, c, h, w)`, contiguous; of `(n, c)` planes of one number, for which statistics a channel and a number are the same.
fn planes(xs: &Tensor) -> Result<Tensor> {
    match *xs.dims() {
        [n, c] => xs.contiguous()?.reshape((n, c, 1, 1)),
        _ => xs.contiguous(),
    }
}

/// Weight and bias `(c)` in `f32`, in which cuDNN wants them whatever the type of the batch.
fn factors(xs: &Tensor, affine: Option<Affine<'_>>) -> Result<(Tensor, Tensor)> {
    let c = xs.dims()[1];
    match affine {
        Some(Affine { weight, bias }) => Ok((weight.to_dtype(DType::F32)?.contiguous()?, bias.to_dtype(DType::F32)?.contiguous()?)),
        None => Ok((Tensor::ones(c, DType::F32, xs.device())?, Tensor::zeros(c, DType::F32, xs.device())?)),
    }
}

/// What one pass over a batch finds out, `(c)` of `f32` each.
#[derive(Debug)]
struct Found {
    mean: Tensor,
    /// Unbiased.
    var: Tensor,
    /// `1 / √(biased variance + eps)`, for the gradient.
    inv_std: Tensor,
}

/// `xs (n, c, h, w)`, weight and bias to the same shape.
struct Train {
    eps: f64,
    /// Filled by the forward pass, a node of the graph having but one value.
    found: Arc<OnceLock<Found>>,
}

impl CustomOp3 for Train {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("batch_norm: wanted a CUDA card, found the CPU")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        xl: &Layout,
        weight: &CudaStorage,
        wl: &Layout,
        bias: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, c) = (xs.device(), xl.dims()[1]);
        let (handle, x, numbers) = (Handle::of(device)?, dense(xs, xl)?, Dense::new(DType::F32, [1, c, 1, 1])?);
        let (stream, mut ys) = (&device.cuda_stream(), fresh(device, xs.dtype(), xl.shape())?);
        // Running statistics with a share of 1 for this batch are its own. They begin as zeros: 0 times what lies in memory may be NaN.
        let [mut mean, mut var] = [zeros(device, c)?, zeros(device, c)?];
        let [mut center, mut inv_std] = [fresh(device, DType::F32, c)?, fresh(device, DType::F32, c)?];
        {
            let (xs, weight, bias) = (read(xs, xl, stream)?, read(weight, wl, stream)?, read(bias, bl, stream)?);
            let (ys, mean, var) = (write(&mut ys, stream)?, write(&mut mean, stream)?, write(&mut var, stream)?);
            let (center, inv_std) = (write(&mut center, stream)?, write(&mut inv_std, stream)?);
            // SAFETY: the descriptions are of these operands, which are held until the kernel is in the stream.
            unsafe {
                sys::cudnnBatchNormalizationForwardTraining(
                    handle.0,
                    CUDNN_BATCHNORM_SPATIAL,
                    ONE,
                    ZERO,
                    x.0,
                    xs.at,
                    x.0,
                    ys.at,
                    numbers.0,
                    weight.at,
                    bias.at,
                    1.0,
                    mean.at,
                    var.at,
                    self.eps,
                    center.at,
                    inv_std.at,
                )
            }
            .result()?;
        }
        drop(center);
        let found = Found { mean: tensor(mean, c), var: tensor(var, c), inv_std: tensor(inv_std, c) };
        let Ok(()) = self.found.set(found) else { bail!("batch_norm: wanted one forward pass, found a second") };
        Ok((ys, xl.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(found) = self.found.get() else { bail!("batch_norm: wanted the forward pass first, found none") };
        let backward = Backward { eps: self.eps, found, factors: OnceLock::new() };
        let dxs = xs.apply_op3_no_bwd(weight, &grad.contiguous()?, &backward)?;
        let (dweight, dbias) = backward.factors.into_inner().unzip();
        Ok((Some(dxs), dweight, dbias))
    }
}

/// Input, weight and the gradient of the output to the gradient of the input.
struct Backward<'a> {
    eps: f64,
    found: &'a Found,
    /// The gradients of weight and bias, `(c)`, which come out of the same pass.
    factors: OnceLock<(Tensor, Tensor)>,
}

impl CustomOp3 for Backward<'_> {
    fn name(&self) -> &'static str {
        "batch_norm backward"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("batch_norm: wanted a CUDA card, found the CPU")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        xl: &Layout,
        weight: &CudaStorage,
        wl: &Layout,
        grad: &CudaStorage,
        gl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, c) = (xs.device(), xl.dims()[1]);
        let (handle, x, numbers) = (Handle::of(device)?, dense(xs, xl)?, Dense::new(DType::F32, [1, c, 1, 1])?);
        let (stream, mut dxs) = (&device.cuda_stream(), fresh(device, xs.dtype(), xl.shape())?);
        let [mut dweight, mut dbias] = [fresh(device, DType::F32, c)?, fresh(device, DType::F32, c)?];
        let ((mean, ml), (inv_std, il)) = (self.found.mean.storage_and_layout(), self.found.inv_std.storage_and_layout());
        let (Storage::Cuda(mean), Storage::Cuda(inv_std)) = (&*mean, &*inv_std) else { bail!("batch_norm: statistics left the card") };
        {
            let (xs, weight, grad) = (read(xs, xl, stream)?, read(weight, wl, stream)?, read(grad, gl, stream)?);
            let (mean, inv_std) = (read(mean, ml, stream)?, read(inv_std, il, stream)?);
            let (dxs, dweight, dbias) = (write(&mut dxs, stream)?, write(&mut dweight, stream)?, write(&mut dbias, stream)?);
            // SAFETY: as in the forward pass.
            unsafe {
                sys::cudnnBatchNormalizationBackward(
                    handle.0,
                    CUDNN_BATCHNORM_SPATIAL,
                    ONE,
                    ZERO,
                    ONE,
                    ZERO,
                    x.0,
                    xs.at,
                    x.0,
                    grad.at,
                    x.0,
                    dxs.at,
                    numbers.0,
                    weight.at,
                    dweight.at,
                    dbias.at,
                    self.eps,
                    mean.at,
                    inv_std.at,
                )
            }
            .result()?;
        }
        let Ok(()) = self.factors.set((tensor(dweight, c), tensor(dbias, c))) else { bail!("batch_norm: wanted one pass, found two") };
        Ok((dxs, xl.shape().clone()))
    }
}

/// `xs (n, c, h, w)`, weight and bias to the same shape, by statistics through which no gradient flows.
struct Running {
    mean: Tensor,
    var: Tensor,
    eps: f64,
}

impl CustomOp3 for Running {
    fn name(&self) -> &'static str {
        "batch_norm_running"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("batch_norm: wanted a CUDA card, found the CPU")
    }

    fn cuda_fwd(
        &self,
        xs: &CudaStorage,
        xl: &Layout,
        weight: &CudaStorage,
        wl: &Layout,
        bias: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (device, c) = (xs.device(), xl.dims()[1]);
        let (handle, x, numbers) = (Handle::of(device)?, dense(xs, xl)?, Dense::new(DType::F32, [1, c, 1, 1])?);
        let (stream, mut ys) = (&device.cuda_stream(), fresh(device, xs.dtype(), xl.shape())?);
        let ((mean, ml), (var, vl)) = (self.mean.storage_and_layout(), self.var.storage_and_layout());
        let (Storage::Cuda(mean), Storage::Cuda(var)) = (&*mean, &*var) else { bail!("batch_norm: statistics are not on the card") };
        {
            let (xs, weight, bias) = (read(xs, xl, stream)?, read(weight, wl, stream)?, read(bias, bl, stream)?);
            let (mean, var, ys) = (read(mean, ml, stream)?, read(var, vl, stream)?, write(&mut ys, stream)?);
            // SAFETY: as in training.
            unsafe {
                sys::cudnnBatchNormalizationForwardInference(
                    handle.0,
                    CUDNN_BATCHNORM_SPATIAL,
                    ONE,
                    ZERO,
                    x.0,
                    xs.at,
                    x.0,
                    ys.at,
                    numbers.0,
                    weight.at,
                    bias.at,
                    mean.at,
                    var.at,
                    self.eps,
                )
            }
            .result()?;
        }
        Ok((ys, xl.shape().clone()))
    }

    /// cuDNN has none: in candle's operations, and in `f32`.
    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let beside = |numbers: &Tensor| numbers.reshape((1, (), 1, 1));
        let (grad, inv_std) = (grad.to_dtype(DType::F32)?, (&self.var + self.eps)?.sqrt()?.recip()?);
        let dxs = grad.broadcast_mul(&beside(&(weight * &inv_std)?)?)?.to_dtype(xs.dtype())?;
        let normalised = xs.to_dtype(DType::F32)?.broadcast_sub(&beside(&self.mean)?)?.broadcast_mul(&beside(&inv_std)?)?;
        let dweight = (normalised * &grad)?.sum((0, 2, 3))?;
        Ok((Some(dxs), Some(dweight), Some(grad.sum((0, 2, 3))?)))
    }
}

fn dense(xs: &CudaStorage, layout: &Layout) -> Result<Dense> {
    let (n, c, h, w) = layout.shape().dims4()?;
    Dense::new(xs.dtype(), [n, c, h, w])
}

fn zeros(device: &candle::CudaDevice, len: usize) -> Result<CudaStorage> {
    device.zeros_impl(&len.into(), DType::F32)
}

/// A tensor `(len)` without a history.
fn tensor(numbers: CudaStorage, len: usize) -> Tensor {
    Tensor::from_storage(Storage::Cuda(numbers), len, BackpropOp::none(), false)
}
