//! Two-dimensional convolution: any kernel, stride, padding, dilation and number of groups.
//!
//! What is here is the public surface, the checks, the node of the graph, and the choice of a way. The numbers are made in
//! [`conv_gather`](super::conv_gather) (any sizes, by matrix products), [`conv_winograd`](super::conv_winograd) (3×3 with stride 1, by a
//! quarter of the products) and [`conv_depthwise`](super::conv_depthwise) (one filter a channel).

#[cfg(feature = "cudnn")]
use candle::CudaStorage;
use candle::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};

use super::buffers::fresh;
#[cfg(feature = "cudnn")]
use super::cuda;
use super::norm::bias_backward;
use super::real::{Real, check_alike, for_real, numbers};
use super::{composed, conv_depthwise, conv_gather, conv_winograd};

/// How a kernel is moved over a picture; pairs are (vertical, horizontal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conv {
    /// Pixels from one position to the next.
    pub stride: (usize, usize),
    /// Zeros around the picture, on each side.
    pub padding: (usize, usize),
    /// Pixels from one tap of the kernel to the next.
    pub dilation: (usize, usize),
    /// Into how many parts the channels are split; a part of the output sees only its part of the input.
    pub groups: usize,
}

impl Default for Conv {
    /// Stride 1, no padding, no dilation, one group.
    fn default() -> Self {
        Self { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }
    }
}

impl Conv {
    /// Height and width after a kernel of this size; `None` when the kernel is larger than the padded picture, or a number
    /// that must not be 0 is.
    pub fn output_size(&self, (h, w): (usize, usize), (kh, kw): (usize, usize)) -> Option<(usize, usize)> {
        let size = |size: usize, k: usize, stride: usize, padding: usize, dilation: usize| {
            let reach = dilation * k.checked_sub(1)?;
            Some((size + 2 * padding).checked_sub(reach + 1)?.checked_div(stride)? + 1)
        };
        let rows = size(h, kh, self.stride.0, self.padding.0, self.dilation.0)?;
        let cols = size(w, kw, self.stride.1, self.padding.1, self.dilation.1)?;
        Some((rows, cols))
    }
}

/// `xs (n, c, h, w)`, weight `(o, c / groups, kh, kw)` and bias `(o)` to `(n, o, h', w')`.
///
/// # Errors
/// When the channels or the groups do not fit, the kernel is larger than the padded picture, the batch is empty, or types or devices
/// differ.
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv) -> Result<Tensor> {
    Geometry::new(xs.dims(), weight.dims(), conv)?;
    check_alike("conv2d", "weight", weight, xs)?;
    if let Some(bias) = bias {
        check_alike("conv2d", "bias", bias, xs)?;
        if bias.dims() != &weight.dims()[..1] {
            bail!("conv2d: bias: wanted ({}), found {:?}", weight.dims()[0], bias.dims())
        }
    }
    #[cfg(feature = "cudnn")]
    if cuda::takes(xs) {
        return composed::biased(&xs.contiguous()?.apply_op2(&weight.contiguous()?, Conv2d(*conv))?, bias);
    }
    if !xs.device().is_cpu() {
        return composed::conv2d(xs, weight, bias, conv);
    }
    let (xs, weight, op) = (xs.contiguous()?, weight.contiguous()?, Conv2d(*conv));
    match bias {
        Some(bias) => xs.apply_op3(&weight, &bias.contiguous()?, op),
        None => xs.apply_op2(&weight, op),
    }
}

/// The sizes of one convolution, checked against one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) n: usize,
    /// Channels in, and of these in one group.
    pub(super) c: usize,
    pub(super) c_group: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    /// Channels out, and of these in one group.
    pub(super) o: usize,
    pub(super) o_group: usize,
    pub(super) kh: usize,
    pub(super) kw: usize,
    pub(super) oh: usize,
    pub(super) ow: usize,
    pub(super) conv: Conv,
}

impl Geometry {
    fn new(xs: &[usize], weight: &[usize], conv: &Conv) -> Result<Self> {
        let (&[n, c, h, w], &[o, c_group, kh, kw]) = (xs, weight) else {
            bail!("conv2d: wanted an input (n, c, h, w) and a weight (o, c / groups, kh, kw), found {xs:?} and {weight:?}")
        };
        let groups = conv.groups;
        if groups == 0 || c % groups != 0 || o % groups != 0 || o == 0 {
            bail!("conv2d: wanted channels that {groups} groups divide, found {c} in, {o} out")
        }
        if c_group * groups != c {
            bail!("conv2d: the weight wanted {} channels ({groups} groups of {c_group}), found {c}", c_group * groups)
        }
        if xs.contains(&0) {
            bail!("conv2d: wanted at least one sample, channel and pixel, found an input {xs:?}")
        }
        let Some((oh, ow)) = conv.output_size((h, w), (kh, kw)) else {
            bail!("conv2d: wanted a kernel that fits the padded picture and a stride above 0, found {conv:?}, {kh}×{kw} on {h}×{w}")
        };
        Ok(Self { n, c, c_group, h, w, o, o_group: o / groups, kh, kw, oh, ow, conv: *conv })
    }

    pub(super) fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Pixels of a picture that comes in.
    pub(super) fn area_in(&self) -> usize {
        self.h * self.w
    }

    /// Pixels of a picture that goes out.
    pub(super) fn area_out(&self) -> usize {
        self.oh * self.ow
    }

    fn way(&self) -> Way {
        if self.c_group == 1 && self.conv.groups > 1 {
            Way::Depthwise
        } else if conv_winograd::fits(self) {
            Way::Winograd
        } else {
            Way::Gather
        }
    }

    /// The convolution that carries the gradient back where the stride is 1: kernels turned round, inputs and outputs exchanged. `None`
    /// where the padding is wider than the kernel.
    fn turned(&self) -> Option<Self> {
        let padding = |k: usize, dilation: usize, padding: usize| (dilation * (k - 1)).checked_sub(padding);
        let Conv { stride, padding: (rows, cols), dilation, groups } = self.conv;
        let padding = (padding(self.kh, dilation.0, rows)?, padding(self.kw, dilation.1, cols)?);
        let conv = Conv { stride, padding, dilation, groups };
        let turned = Self { c: self.o, c_group: self.o_group, h: self.oh, w: self.ow, o: self.c, o_group: self.c_group, conv, ..*self };
        (stride == (1, 1)).then_some(Self { oh: self.h, ow: self.w, ..turned })
    }
}

/// How the numbers of a convolution are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Depthwise,
    Winograd,
    Gather,
}

/// `ys (n, o, oh, ow)`.
fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let mut ys = fresh(g.n * g.o * g.area_out());
    match g.way() {
        Way::Depthwise => conv_depthwise::forward(g, xs, weight, bias, &mut ys),
        Way::Winograd => conv_winograd::forward(g, xs, weight, bias, &mut ys),
        Way::Gather => conv_gather::forward(g, xs, weight, bias, &mut ys),
    }
    ys
}

/// The gradient of the input `(n, c, h, w)`.
fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T]) -> Vec<T> {
    let mut dxs = fresh(g.n * g.c * g.area_in());
    match (g.way(), g.turned()) {
        (Way::Depthwise, _) => conv_depthwise::backward_data(g, grad, weight, &mut dxs),
        (Way::Winograd, Some(turned)) => conv_winograd::forward(&turned, grad, &turn(g, weight), None, &mut dxs),
        _ => conv_gather::backward_data(g, grad, weight, &mut dxs),
    }
    dxs
}

/// The gradient of the weight `(o, c / groups, kh, kw)`.
fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T]) -> Vec<T> {
    let mut dweight = fresh(g.o * g.c_group * g.taps());
    match g.way() {
        Way::Depthwise => conv_depthwise::backward_filter(g, grad, xs, &mut dweight),
        Way::Winograd => conv_winograd::backward_filter(g, grad, xs, &mut dweight),
        Way::Gather => conv_gather::backward_filter(g, grad, xs, &mut dweight),
    }
    dweight
}

/// The weight `(o, c / groups, kh, kw)` as `(c, o / groups, kh, kw)`, each kernel turned by half a circle.
fn turn<T: Real>(g: &Geometry, weight: &[T]) -> Vec<T> {
    let mut turned = vec![T::zero(); weight.len()];
    let taps = g.taps();
    for (at, kernel) in weight.chunks_exact(taps).enumerate() {
        let (o, c) = (at / g.c_group, at % g.c_group);
        let (group, nth) = (o / g.o_group, o % g.o_group);
        let to = ((group * g.c_group + c) * g.o_group + nth) * taps;
        for (to, &value) in turned[to..to + taps].iter_mut().zip(kernel.iter().rev()) {
            *to = value;
        }
    }
    turned
}

/// The gradient of the input of a convolution, from that of its output; for whoever keeps the books himself.
pub(crate) fn conv2d_backward_data(grad: &Tensor, weight: &Tensor, xs: &[usize], conv: &Conv) -> Result<Tensor> {
    grad.apply_op2_no_bwd(weight, &BackwardData(Geometry::new(xs, weight.dims(), conv)?))
}

/// The gradient of the weight of a convolution.
pub(crate) fn conv2d_backward_filter(grad: &Tensor, xs: &Tensor, weight: &[usize], conv: &Conv) -> Result<Tensor> {
    grad.apply_op2_no_bwd(xs, &BackwardFilter(Geometry::new(xs.dims(), weight, conv)?))
}

#[derive(Clone, Copy)]
struct Conv2d(Conv);

impl Conv2d {
    fn forward<T: Real>(&self, xs: &[T], weight: &[T], bias: Option<&[T]>, dims: (&[usize], &[usize])) -> Result<(CpuStorage, Shape)> {
        let geometry = Geometry::new(dims.0, dims.1, &self.0)?;
        let ys = forward(&geometry, xs, weight, bias);
        Ok((T::to_cpu_storage_owned(ys), (geometry.n, geometry.o, geometry.oh, geometry.ow).into()))
    }

    /// Gradients of the input and the weight; `None` where nobody asks.
    fn backward(&self, xs: &Tensor, weight: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = &grad.contiguous()?;
        let dxs = xs.track_op().then(|| conv2d_backward_data(grad, weight, xs.dims(), &self.0)).transpose()?;
        let dweight = weight.track_op().then(|| conv2d_backward_filter(grad, xs, weight.dims(), &self.0)).transpose()?;
        Ok((dxs, dweight))
    }
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("conv2d", xs, T => {
            self.forward::<T>(numbers("conv2d", xs, xl)?, numbers("conv2d", weight, wl)?, None, (xl.dims(), wl.dims()))
        })
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, xs: &CudaStorage, xl: &Layout, weight: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let g = Geometry::new(xl.dims(), wl.dims(), &self.0)?;
        Ok((cuda::forward(&g, (xs, xl), (weight, wl))?, (g.n, g.o, g.oh, g.ow).into()))
    }

    fn bwd(&self, xs: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.backward(xs, weight, grad)
    }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
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
        for_real!("conv2d", xs, T => {
            let bias = Some(numbers("conv2d", bias, bl)?);
            self.forward::<T>(numbers("conv2d", xs, xl)?, numbers("conv2d", weight, wl)?, bias, (xl.dims(), wl.dims()))
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
        let (dxs, dweight) = self.backward(xs, weight, grad)?;
        let dbias = bias.track_op().then(|| bias_backward(&grad.contiguous()?)).transpose()?;
        Ok((dxs, dweight, dbias))
    }
}

/// From the gradient of the output and the weight to the gradient of the input.
struct BackwardData(Geometry);

impl CustomOp2 for BackwardData {
    fn name(&self) -> &'static str {
        "conv2d backward data"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = &self.0;
        for_real!("conv2d", grad, T => {
            let dxs = backward_data(geometry, numbers::<T>("conv2d", grad, gl)?, numbers("conv2d", weight, wl)?);
            Ok((T::to_cpu_storage_owned(dxs), (geometry.n, geometry.c, geometry.h, geometry.w).into()))
        })
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, grad: &CudaStorage, gl: &Layout, weight: &CudaStorage, wl: &Layout) -> Result<(CudaStorage, Shape)> {
        let g = &self.0;
        Ok((cuda::backward_data(g, (grad, gl), (weight, wl))?, (g.n, g.c, g.h, g.w).into()))
    }
}

/// From the gradient of the output and the input to the gradient of the weight.
struct BackwardFilter(Geometry);

impl CustomOp2 for BackwardFilter {
    fn name(&self) -> &'static str {
        "conv2d backward filter"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let geometry = &self.0;
        for_real!("conv2d", grad, T => {
            let dweight = backward_filter(geometry, numbers::<T>("conv2d", grad, gl)?, numbers("conv2d", xs, xl)?);
            Ok((T::to_cpu_storage_owned(dweight), (geometry.o, geometry.c_group, geometry.kh, geometry.kw).into()))
        })
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(&self, grad: &CudaStorage, gl: &Layout, xs: &CudaStorage, xl: &Layout) -> Result<(CudaStorage, Shape)> {
        let g = &self.0;
        Ok((cuda::backward_filter(g, (grad, gl), (xs, xl))?, (g.o, g.c_group, g.kh, g.kw).into()))
    }
}
