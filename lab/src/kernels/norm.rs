//! Batch normalisation as one node of the graph, and the sums over channels that it and biases need.

use candle::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, InplaceOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::accumulate::copy;
use super::activation::{Activation, Curve, Identity, Relu, Relu6, activate_backward};
use super::buffers::fresh;
use super::composed;
use super::real::{Real, check_alike, each_index, each_part, for_real, numbers, numbers_mut, per_task, planes, vectorised};
use super::simd::{Kernel, Lanes, dispatch};

/// What follows the normalisation: `weight · x + bias`, both `(c)`.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// One factor a channel.
    pub weight: &'a Tensor,
    /// One summand a channel.
    pub bias: &'a Tensor,
}

/// A batch normalised by its own statistics, and these.
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
/// `eps` is added to the (biased) variance. The gradient flows through mean and variance.
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
/// No gradient flows to the statistics.
///
/// # Errors
/// When shapes do not fit, or types or devices differ.
pub fn batch_norm_running(xs: &Tensor, mean: &Tensor, var: &Tensor, affine: Option<Affine<'_>>, eps: f64) -> Result<Tensor> {
    let (_, c, _) = check(xs, affine)?;
    for (name, statistic) in [("mean", mean), ("variance", var)] {
        check_alike("batch_norm", name, statistic, xs)?;
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
        check_alike("batch_norm", name, tensor, xs)?;
        if tensor.dims() != [dims.1] {
            bail!("batch_norm: {name}: wanted ({}), found {:?}", dims.1, tensor.dims())
        }
    }
    Ok(dims)
}

fn normalize(xs: &Tensor, affine: Option<Affine<'_>>, op: Normalize) -> Result<Tensor> {
    let c = xs.dims()[1];
    match affine {
        Some(Affine { weight, bias }) => xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op),
        None => xs.apply_op3(&Tensor::ones(c, xs.dtype(), xs.device())?, &Tensor::zeros(c, xs.dtype(), xs.device())?, op),
    }
}

/// Mean and biased variance of each channel.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    mean: Vec<f64>,
    var: Vec<f64>,
    /// Numbers a channel.
    count: usize,
}

impl Moments {
    fn inv_std(&self, eps: f64) -> Vec<f64> {
        self.var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect()
    }

    /// Mean and unbiased variance `(c)`, of the type and on the device of `like`.
    fn learned(&self, like: &Tensor) -> Result<(Tensor, Tensor)> {
        let (c, unbias) = (self.mean.len(), self.count as f64 / (self.count - 1) as f64);
        let tensor = |numbers: Vec<f64>| Tensor::from_vec(numbers, c, like.device())?.to_dtype(like.dtype());
        Ok((tensor(self.mean.clone())?, tensor(self.var.iter().map(|var| var * unbias).collect())?))
    }
}

/// What stands in a formula for one channel: the numbers are shifted by `mean`, multiplied by `scale`, and shifted by `shift`.
#[derive(Debug, Clone, Copy)]
struct Line<T> {
    mean: T,
    scale: T,
    shift: T,
}

impl<T: Real> Line<T> {
    #[inline(always)]
    fn at(self, x: T) -> T {
        (x - self.mean) * self.scale + self.shift
    }
}

fn lines<T: Real>(mean: &[f64], inv_std: &[f64], weight: &[T], bias: &[T]) -> Vec<Line<T>> {
    let line = |c: usize| Line { mean: T::from_f64(mean[c]), scale: T::from_f64(inv_std[c]) * weight[c], shift: bias[c] };
    (0..mean.len()).map(line).collect()
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
        let sums = grad.apply_op2_no_bwd(xs, &GradientSums { saved: &saved, affine: &Layer { weight, bias, activation: None } })?;
        let of = |row: usize| sums.get(row)?.to_dtype(xs.dtype());
        let dxs = || {
            let dxs = grad.copy()?;
            saved.descend(&dxs, xs, &Layer { weight, bias, activation: None }, &sums)?;
            Result::Ok(dxs)
        };
        Ok((
            xs.track_op().then(dxs).transpose()?,
            weight.track_op().then(|| of(1)).transpose()?,
            bias.track_op().then(|| of(0)).transpose()?,
        ))
    }
}

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
    mean: Vec<f64>,
    inv_std: Vec<f64>,
    count: Option<usize>,
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
        let sums = grad.apply_op2_no_bwd(xs, &GradientSums { saved, affine: layer })?;
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
    let sums = skip.apply_op2_no_bwd(xs, &GradientSums { saved, affine: &layer })?;
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
    fn descend(&self, grad: &Tensor, xs: &Tensor, layer: &Layer<'_>, sums: &Tensor) -> Result<()> {
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
struct GradientSums<'a> {
    saved: &'a Saved,
    affine: &'a Layer<'a>,
}

impl CustomOp2 for GradientSums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm backward sums"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("batch_norm", grad, T => {
            let (grad, xs) = (numbers::<T>("batch_norm", grad, gl)?, numbers::<T>("batch_norm", xs, xl)?);
            let lines = self.affine.lines::<T>(self.saved)?;
            let sums = for_fused!(self.affine.activation, curve => {
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

/// [`Moments`] as `(2, c)`, `f64`.
struct MomentsOf;

impl CustomOp1 for MomentsOf {
    fn name(&self) -> &'static str {
        "batch_norm moments"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let c = xl.dims()[1];
        let (area, count) = (xl.dims()[2..].iter().product::<usize>(), (xl.shape().elem_count() / c) as f64);
        for_real!("batch_norm", xs, T => {
            let xs = numbers::<T>("batch_norm", xs, xl)?;
            // Deviations are taken from the mean of the channel's first plane, or sixteen first rows: near enough to the mean that no
            // digits are lost when the squares' sum is corrected for the difference.
            let near: Vec<T> = (0..c)
                .map(|at| {
                    let some: Vec<T> = if area > 1 { xs[at * area..(at + 1) * area].to_vec() } else { xs[at..].iter().step_by(c).take(16).copied().collect() };
                    T::from_f64(some.iter().map(|x| x.to_f64()).sum::<f64>() / some.len() as f64)
                })
                .collect();
            let sums = sum2((xs, xs), xl.dims(), |c: usize, x: T, _| {
                let d = x - near[c];
                [d, d * d]
            });
            let mut rows: Vec<f64> = sums.iter().zip(&near).map(|(sums, near)| near.to_f64() + sums[0] / count).collect();
            rows.extend(sums.iter().map(|sums| (sums[1] / count - (sums[0] / count) * (sums[0] / count)).max(0.0)));
            Ok((CpuStorage::F64(rows), (2, c).into()))
        })
    }
}

/// The gradient of a bias `(c)`: the sum over everything but the channel.
pub(crate) fn bias_backward(grad: &Tensor) -> Result<Tensor> {
    grad.apply_op1_no_bwd(&ChannelSum)
}

/// The sum over everything but the channel: `(n, c, h, w)` or `(n, c)` to `(c)`; the gradient of a bias.
pub(super) struct ChannelSum;

impl CustomOp1 for ChannelSum {
    fn name(&self) -> &'static str {
        "sum over channels"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("sum over channels", xs, T => {
            let xs = numbers::<T>("sum over channels", xs, xl)?;
            let sums = sum2((xs, xs), xl.dims(), |_, x: T, _| [x]);
            let sums: Vec<T> = sums.into_iter().map(|[sum]| T::from_f64(sum)).collect();
            Ok((T::to_cpu_storage_owned(sums), xl.dims()[1].into()))
        })
    }
}

/// For each channel the sums of what `f(channel, x, y)` gives: in the numbers' own type within a plane, in `f64` over planes.
fn sum2<T: Real, const N: usize>((xs, ys): (&[T], &[T]), dims: &[usize], f: impl Fn(usize, T, T) -> [T; N] + Sync) -> Vec<[f64; N]> {
    /// Channels a task where each is one number a row: a cache line or more.
    const CHANNELS: usize = 64;
    let (n, c, area) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
    if area == 1 {
        let block = |at: usize| {
            let channels = at * CHANNELS..((at + 1) * CHANNELS).min(c);
            let mut sums = vec![[0.0; N]; channels.len()];
            for row in 0..n {
                let at = row * c;
                let (xs, ys) = (&xs[at..at + c], &ys[at..at + c]);
                for (sums, c) in sums.iter_mut().zip(channels.clone()) {
                    sums.iter_mut().zip(f(c, xs[c], ys[c])).for_each(|(sum, term)| *sum += term.to_f64());
                }
            }
            sums
        };
        return each_index(c.div_ceil(CHANNELS), xs.len(), block).concat();
    }
    let channel = |c_at: usize| {
        let mut sums = [0.0; N];
        for row in 0..n {
            let at = (row * c + c_at) * area;
            let (xs, ys) = (&xs[at..at + area], &ys[at..at + area]);
            let plane = dispatch::<T, _>(PlaneSums { xs, ys, f: |x, y| f(c_at, x, y) });
            sums.iter_mut().zip(plane).for_each(|(sum, term)| *sum += term.to_f64());
        }
        sums
    };
    each_index(c, xs.len(), channel)
}

/// Sums over a plane, with many running sums so that the processor can add side by side; the order depends on the length alone.
struct PlaneSums<'a, T, F> {
    xs: &'a [T],
    ys: &'a [T],
    f: F,
}

impl<T: Real, F: Fn(T, T) -> [T; N], const N: usize> Kernel<T> for PlaneSums<'_, T, F> {
    type Output = [T; N];

    #[inline(always)]
    #[expect(unsafe_code, reason = "the trait's signature")]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> [T; N] {
        const LANES: usize = 32;
        let mut lanes = [[T::ZERO; LANES]; N];
        let (mut xs, mut ys) = (self.xs.chunks_exact(LANES), self.ys.chunks_exact(LANES));
        for (xs, ys) in (&mut xs).zip(&mut ys) {
            for lane in 0..LANES {
                let terms = (self.f)(xs[lane], ys[lane]);
                for nth in 0..N {
                    lanes[nth][lane] += terms[nth];
                }
            }
        }
        let mut sums = [T::ZERO; N];
        for nth in 0..N {
            for lane in 0..LANES {
                sums[nth] += lanes[nth][lane];
            }
        }
        for (&x, &y) in xs.remainder().iter().zip(ys.remainder()) {
            let terms = (self.f)(x, y);
            for nth in 0..N {
                sums[nth] += terms[nth];
            }
        }
        sums
    }
}

/// Calls `f(first, part)` for parts of whole planes, or of whole rows where a plane is one number; `first` is the part's first unit.
fn each_unit<T: Real>(data: &mut [T], dims: &[usize], f: impl Fn(usize, &mut [T]) + Sync) {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let unit = if area == 1 { c } else { area };
    let (units, work) = (per_task(unit), data.len());
    each_part(data, units * unit, work, |part, data| {
        for (nth, data) in data.chunks_exact_mut(unit).enumerate() {
            f(part * units + nth, data);
        }
    });
}

/// `curve(line of the channel (x) [+ skip])` for each place.
fn map<T: Real>(lines: &[Line<T>], xs: &[T], skip: Option<&[T]>, dims: &[usize], curve: impl Curve) -> Vec<T> {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let mut ys = fresh(xs.len());
    each_unit(&mut ys, dims, |unit, ys| {
        let places = unit * ys.len()..(unit + 1) * ys.len();
        let (xs, line) = (&xs[places.clone()], lines[unit % c]);
        match skip.map(|skip| &skip[places]) {
            None if area == 1 => vectorised::<T, _>(|| {
                ys.iter_mut().zip(xs).zip(lines).for_each(|((y, &x), line)| *y = curve.value(line.at(x)));
            }),
            None => vectorised::<T, _>(|| ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = curve.value(line.at(x)))),
            Some(skip) if area == 1 => vectorised::<T, _>(|| {
                ys.iter_mut().zip(xs).zip(skip).zip(lines).for_each(|(((y, &x), &skip), line)| *y = curve.value(line.at(x) + skip));
            }),
            Some(skip) => vectorised::<T, _>(|| {
                ys.iter_mut().zip(xs).zip(skip).for_each(|((y, &x), &skip)| *y = curve.value(line.at(x) + skip));
            }),
        }
    });
    ys
}

/// See [`Descend`].
fn descend<T: Real>(lines: &[Line<T>], coefficients: &[[T; 3]], grad: &mut [T], xs: &[T], dims: &[usize], curve: impl Curve) {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let one = |grad: &mut T, x: T, line: Line<T>, [scale, slope, shift]: [T; 3]| {
        *grad = scale * *grad * curve.slope(line.at(x)) + (slope * (x - line.mean) + shift);
    };
    each_unit(grad, dims, |unit, grad| {
        let xs = &xs[unit * grad.len()..][..grad.len()];
        if area == 1 {
            let channels = lines.iter().zip(coefficients);
            vectorised::<T, _>(|| grad.iter_mut().zip(xs).zip(channels).for_each(|((grad, &x), (&line, &row))| one(grad, x, line, row)));
        } else {
            let (line, row) = (lines[unit % c], coefficients[unit % c]);
            vectorised::<T, _>(|| grad.iter_mut().zip(xs).for_each(|(grad, &x)| one(grad, x, line, row)));
        }
    });
}
