//! Batch norm by cuDNN: by the batch's statistics with its gradient, and by running ones.

use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use candle::backend::{BackendDevice, BackendStorage};
use candle::cuda_backend::cudarc::cudnn::sys;
use candle::cuda_backend::cudarc::driver::CudaStream;
use candle::op::BackpropOp;
use candle::{CpuStorage, CudaDevice, CudaStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, bail};

use sys::cudnnBatchNormMode_t::CUDNN_BATCHNORM_SPATIAL;

use super::cudnn::{Dense, Handle, ONE, ZERO, fresh, read, write};
use crate::kernels::{Affine, Normed};

/// See [`batch_norm`](crate::kernels::batch_norm()).
pub(in crate::kernels) fn batch_norm(xs: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Normed> {
    let (weight, bias) = factors(xs, affine)?;
    let found = Arc::new(OnceLock::new());
    let ys = planes(xs)?.apply_op3(&weight, &bias, Node(Train { eps, found: found.clone() }))?.reshape(xs.shape())?;
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
    planes(xs)?.apply_op3(&weight, &bias, Node(Running { mean: number(mean)?, var: number(var)?, eps }))?.reshape(xs.shape())
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

/// A pass of cuDNN over a batch.
trait Pass {
    const NAME: &'static str;

    /// Puts the pass into the stream.
    fn launch(&self, call: &Call<'_>) -> Result<()>;

    /// Gradients of the three operands; see [`CustomOp3::bwd`].
    fn gradients(&self, operands: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]>;
}

/// A pass as a node of candle's graph: three operands, of which the first is a batch `(n, c, h, w)`, to a batch of the same shape.
struct Node<P>(P);

/// What a pass works on. All of it lives until the pass is in the stream.
struct Call<'a> {
    device: &'a CudaDevice,
    stream: &'a CudaStream,
    handle: sys::cudnnHandle_t,
    /// Describes the batch, its result, and gradients of both.
    batch: sys::cudnnTensorDescriptor_t,
    /// Describes `f32` numbers, one a channel.
    numbers: sys::cudnnTensorDescriptor_t,
    c: usize,
    operands: [*const c_void; 3],
    result: *mut c_void,
}

impl<P: Pass> CustomOp3 for Node<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: wanted a CUDA card, found the CPU", P::NAME)
    }

    fn cuda_fwd(
        &self,
        one: &CudaStorage,
        one_layout: &Layout,
        two: &CudaStorage,
        two_layout: &Layout,
        three: &CudaStorage,
        three_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (shape, device, stream) = (one_layout.shape(), one.device(), &one.device().cuda_stream());
        let (n, c, h, w) = shape.dims4()?;
        let (handle, batch) = (Handle::of(device)?, Dense::new(one.dtype(), [n, c, h, w])?);
        let (numbers, mut result) = (Dense::new(DType::F32, [1, c, 1, 1])?, fresh(device, one.dtype(), shape)?);
        {
            let (one, two) = (read(one, one_layout, stream)?, read(two, two_layout, stream)?);
            let (three, result) = (read(three, three_layout, stream)?, write(&mut result, stream)?);
            let (operands, result) = ([one.at, two.at, three.at], result.at);
            self.0.launch(&Call { device, stream, handle: handle.0, batch: batch.0, numbers: numbers.0, c, operands, result })?;
        }
        Ok((result, shape.clone()))
    }

    fn bwd(
        &self,
        one: &Tensor,
        two: &Tensor,
        three: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [one, two, three] = self.0.gradients([one, two, three], grad)?;
        Ok((one, two, three))
    }
}

impl Call<'_> {
    /// Tells `run` where two tensors `(c)` lie on the card.
    fn reading(&self, numbers: [&Tensor; 2], run: impl FnOnce([*const c_void; 2]) -> sys::cudnnStatus_t) -> Result<()> {
        let [(one, one_layout), (two, two_layout)] = numbers.map(Tensor::storage_and_layout);
        let (Storage::Cuda(one), Storage::Cuda(two)) = (&*one, &*two) else { bail!("batch_norm: wanted statistics on the card") };
        let (one, two) = (read(one, one_layout, self.stream)?, read(two, two_layout, self.stream)?);
        Ok(run([one.at, two.at]).result()?)
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

/// `xs`, weight and bias to the normalised batch.
struct Train {
    eps: f64,
    /// Filled by the forward pass, a node of the graph having but one value.
    found: Arc<OnceLock<Found>>,
}

impl Pass for Train {
    const NAME: &'static str = "batch_norm";

    fn launch(&self, call: &Call<'_>) -> Result<()> {
        let &Call { device, stream, handle, batch, numbers, c, operands: [xs, weight, bias], result: ys } = call;
        // Running statistics with a share of 1 for this batch are its own. They begin as zeros: 0 times what lies in memory may be NaN.
        let [mut mean, mut var] = [zeros(device, c)?, zeros(device, c)?];
        let [mut center, mut inv_std] = [fresh(device, DType::F32, c)?, fresh(device, DType::F32, c)?];
        {
            let (mean, var) = (write(&mut mean, stream)?, write(&mut var, stream)?);
            let (center, inv_std) = (write(&mut center, stream)?, write(&mut inv_std, stream)?);
            // SAFETY: the descriptions are of these operands, which are held until the kernel is in the stream.
            unsafe {
                sys::cudnnBatchNormalizationForwardTraining(
                    handle,
                    CUDNN_BATCHNORM_SPATIAL,
                    ONE,
                    ZERO,
                    batch,
                    xs,
                    batch,
                    ys,
                    numbers,
                    weight,
                    bias,
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
        let found = Found { mean: tensor(mean, c), var: tensor(var, c), inv_std: tensor(inv_std, c) };
        let Ok(()) = self.found.set(found) else { bail!("batch_norm: wanted one forward pass, found a second") };
        Ok(())
    }

    fn gradients(&self, [xs, weight, _]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let Some(found) = self.found.get() else { bail!("batch_norm: wanted the forward pass first, found none") };
        let backward = Node(Backward { eps: self.eps, found, factors: OnceLock::new() });
        let dxs = xs.apply_op3_no_bwd(weight, &grad.contiguous()?, &backward)?;
        let (dweight, dbias) = backward.0.factors.into_inner().unzip();
        Ok([Some(dxs), dweight, dbias])
    }
}

/// Input, weight and the gradient of the output to the gradient of the input.
struct Backward<'a> {
    eps: f64,
    found: &'a Found,
    /// The gradients of weight and bias, `(c)`, which come out of the same pass.
    factors: OnceLock<(Tensor, Tensor)>,
}

impl Pass for Backward<'_> {
    const NAME: &'static str = "batch_norm backward";

    fn launch(&self, call: &Call<'_>) -> Result<()> {
        let &Call { device, stream, handle, batch, numbers, c, operands: [xs, weight, grad], result: dxs } = call;
        let [mut dweight, mut dbias] = [fresh(device, DType::F32, c)?, fresh(device, DType::F32, c)?];
        {
            let (dweight, dbias) = (write(&mut dweight, stream)?, write(&mut dbias, stream)?);
            // SAFETY: the descriptions are of these operands, which are held until the kernel is in the stream.
            call.reading([&self.found.mean, &self.found.inv_std], |[mean, inv_std]| unsafe {
                sys::cudnnBatchNormalizationBackward(
                    handle,
                    CUDNN_BATCHNORM_SPATIAL,
                    ONE,
                    ZERO,
                    ONE,
                    ZERO,
                    batch,
                    xs,
                    batch,
                    grad,
                    batch,
                    dxs,
                    numbers,
                    weight,
                    dweight.at,
                    dbias.at,
                    self.eps,
                    mean,
                    inv_std,
                )
            })?;
        }
        let Ok(()) = self.factors.set((tensor(dweight, c), tensor(dbias, c))) else { bail!("batch_norm: wanted one pass, found two") };
        Ok(())
    }

    fn gradients(&self, _: [&Tensor; 3], _: &Tensor) -> Result<[Option<Tensor>; 3]> {
        bail!("batch_norm: wanted a first gradient, found a second")
    }
}

/// `xs`, weight and bias to the batch normalised by statistics through which no gradient flows.
struct Running {
    mean: Tensor,
    var: Tensor,
    eps: f64,
}

impl Pass for Running {
    const NAME: &'static str = "batch_norm_running";

    fn launch(&self, call: &Call<'_>) -> Result<()> {
        let &Call { handle, batch, numbers, operands: [xs, weight, bias], result: ys, .. } = call;
        // SAFETY: the descriptions are of these operands, which are held until the kernel is in the stream.
        call.reading([&self.mean, &self.var], |[mean, var]| unsafe {
            sys::cudnnBatchNormalizationForwardInference(
                handle,
                CUDNN_BATCHNORM_SPATIAL,
                ONE,
                ZERO,
                batch,
                xs,
                batch,
                ys,
                numbers,
                weight,
                bias,
                mean,
                var,
                self.eps,
            )
        })
    }

    /// cuDNN has none: in candle's operations, and in `f32`.
    fn gradients(&self, [xs, weight, _]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let beside = |numbers: &Tensor| numbers.reshape((1, (), 1, 1));
        let (grad, inv_std) = (grad.to_dtype(DType::F32)?, (&self.var + self.eps)?.sqrt()?.recip()?);
        let dxs = grad.broadcast_mul(&beside(&(weight * &inv_std)?)?)?.to_dtype(xs.dtype())?;
        let normalised = xs.to_dtype(DType::F32)?.broadcast_sub(&beside(&self.mean)?)?.broadcast_mul(&beside(&inv_std)?)?;
        let dweight = (normalised * &grad)?.sum((0, 2, 3))?;
        Ok([Some(dxs), Some(dweight), Some(grad.sum((0, 2, 3))?)])
    }
}

fn zeros(device: &CudaDevice, len: usize) -> Result<CudaStorage> {
    device.zeros_impl(&len.into(), DType::F32)
}

/// A tensor `(len)` without a history.
fn tensor(numbers: CudaStorage, len: usize) -> Tensor {
    Tensor::from_storage(Storage::Cuda(numbers), len, BackpropOp::none(), false)
}
