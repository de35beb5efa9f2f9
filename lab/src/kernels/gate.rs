//! Numbers that multiply whole planes: gates, learned factors, and the masks of dropout.

use candle::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use datasets::Seed;

use super::buffers::fresh;
use super::composed;
use super::dropout::kept;
use super::real::{Real, check_alike, each_index, each_part, for_real, numbers, sum_by, vectorised};

/// `xs (n, ..)` times `by (n, ..)` of the same shape, or with 1 in place of some dimensions, or `(n, c)`: a gate per channel.
///
/// # Errors
/// When the shapes do not fit, or types or devices differ.
pub fn multiply(xs: &Tensor, by: &Tensor) -> Result<Tensor> {
    check_alike("multiply", "second factor", by, xs)?;
    let (dims, gate) = (xs.dims(), by.dims());
    if gates_planes(dims, gate) {
        return times(xs, by);
    }
    if dims.len() != gate.len() || gate.iter().zip(dims).any(|(&gate, &size)| gate != size && gate != 1) {
        bail!("multiply: wanted a second factor {dims:?}, or with 1 in some places, or {:?}, found {gate:?}", &dims[..2.min(dims.len())])
    }
    xs.broadcast_mul(by)
}

/// Whether what `gate` multiplies by each of its numbers lies together in `xs`: single numbers, or channels.
pub(crate) fn gates_planes(xs: &[usize], gate: &[usize]) -> bool {
    // Beyond its channels a gate has nothing, or ones.
    let per_channel = xs.len() >= 2 && gate.len() >= 2 && xs[..2] == gate[..2] && gate[2..].iter().all(|&size| size == 1);
    xs == gate || (per_channel && (gate.len() == 2 || gate.len() == xs.len()))
}

/// The gradient of the second factor, of shape `gate`, of a [`multiply`] that [`gates_planes`].
pub(crate) fn multiply_backward_gate(grad: &Tensor, xs: &Tensor, gate: &[usize]) -> Result<Tensor> {
    grad.apply_op2_no_bwd(xs, &PlaneProducts(gate.iter().product()))?.reshape(gate)
}

/// Each number of `xs` times a number.
pub(crate) fn scale(xs: &Tensor, by: f64) -> Result<Tensor> {
    times(xs, &Tensor::new(&[by], xs.device())?.to_dtype(xs.dtype())?)
}

/// The sum of tensors of one shape, each times one of `weights (count)`.
///
/// # Errors
/// When there is no tensor, shapes or counts do not fit, or types or devices differ.
pub fn weighted_sum(xs: &[&Tensor], weights: &Tensor) -> Result<Tensor> {
    let Some((first, others)) = xs.split_first() else { bail!("weighted_sum: wanted at least one tensor, found none") };
    if weights.dims() != [xs.len()] {
        bail!("weighted_sum: weights: wanted ({}), found {:?}", xs.len(), weights.dims())
    }
    check_alike("weighted_sum", "weights", weights, first)?;
    let term = |at: usize, tensor: &Tensor| {
        if tensor.dims() != first.dims() {
            bail!("weighted_sum: wanted {:?}, found {:?} at position {at}", first.dims(), tensor.dims())
        }
        check_alike("weighted_sum", "tensor", tensor, first)?;
        times(tensor, &weights.narrow(0, at, 1)?)
    };
    (1..).zip(others).try_fold(term(0, first)?, |sum, (at, tensor)| sum + term(at, tensor)?)
}

/// Each channel of each sample of `xs (n, c, ..)` is 0 with probability `p`, and divided by `1 − p` otherwise. For training.
///
/// Which are kept depends on `seed` and their place alone, as in [`dropout`](super::dropout()).
///
/// # Errors
/// When `p` is outside `0.0..=1.0`, or `xs` has no channels.
pub fn dropout_channels(xs: &Tensor, p: f64, seed: Seed) -> Result<Tensor> {
    let &[n, c, ..] = xs.dims() else { bail!("dropout_channels: wanted a tensor (n, c, ..), found {:?}", xs.dims()) };
    drop_planes("dropout_channels", xs, n * c, (p, seed))
}

/// Each sample of `xs (n, ..)` is 0 with probability `p`, and divided by `1 − p` otherwise. For training: stochastic depth.
///
/// # Errors
/// When `p` is outside `0.0..=1.0`, or `xs` has no samples.
pub fn dropout_samples(xs: &Tensor, p: f64, seed: Seed) -> Result<Tensor> {
    let &[n, ..] = xs.dims() else { bail!("dropout_samples: wanted a tensor (n, ..), found {:?}", xs.dims()) };
    drop_planes("dropout_samples", xs, n, (p, seed))
}

fn drop_planes(op: &str, xs: &Tensor, planes: usize, (p, seed): (f64, Seed)) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&p) {
        bail!("{op}: wanted a probability, found {p}")
    }
    if p == 0.0 {
        return Ok(xs.clone());
    }
    let factor = if p < 1.0 { 1.0 / (1.0 - p) } else { 1.0 };
    let mask = (kept(planes, (p, seed), xs.device())?.to_dtype(DType::F64)? * factor)?;
    times(xs, &mask.to_dtype(xs.dtype())?)
}

/// `xs` cut into as many planes, in the order of memory, as there are `factors`, each plane times its factor.
fn times(xs: &Tensor, factors: &Tensor) -> Result<Tensor> {
    if xs.elem_count() == 0 {
        bail!("multiply: wanted at least one number, found an input {:?}", xs.dims())
    }
    if !xs.device().is_cpu() {
        return composed::times(xs, factors);
    }
    xs.contiguous()?.apply_op2(&factors.contiguous()?, Times)
}

struct Times;

impl CustomOp2 for Times {
    fn name(&self) -> &'static str {
        "multiply"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout, factors: &CpuStorage, fl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("multiply", xs, T => {
            let ys = planes_times::<T>(numbers("multiply", xs, xl)?, numbers("multiply", factors, fl)?);
            Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, factors: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = &grad.contiguous()?;
        let dxs = xs.track_op().then(|| grad.apply_op2_no_bwd(factors, &Self)).transpose()?;
        let dfactors = || multiply_backward_gate(grad, xs, factors.dims());
        Ok((dxs, factors.track_op().then(dfactors).transpose()?))
    }
}

/// Numbers a task: large enough to be worth a thread, small enough to stay in its cache.
const PART: usize = 1 << 14;

fn planes_times<T: Real>(xs: &[T], factors: &[T]) -> Vec<T> {
    let area = xs.len() / factors.len();
    let mut ys = fresh(xs.len());
    each_part(&mut ys, PART, xs.len(), |part, ys| {
        let (mut at, end) = (part * PART, part * PART + ys.len());
        if area == 1 {
            let factors = xs[at..end].iter().zip(&factors[at..end]);
            return vectorised::<T, _>(|| ys.iter_mut().zip(factors).for_each(|(y, (&x, &factor))| *y = x * factor));
        }
        while at < end {
            let plane = at / area;
            let until = end.min((plane + 1) * area);
            let place = at - part * PART;
            for (y, &x) in ys[place..].iter_mut().zip(&xs[at..until]) {
                *y = x * factors[plane];
            }
            at = until;
        }
    });
    ys
}

/// For each of so many planes the sum of the products of two tensors: `(planes)`.
struct PlaneProducts(usize);

impl CustomOp2 for PlaneProducts {
    fn name(&self) -> &'static str {
        "multiply backward"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout, ys: &CpuStorage, yl: &Layout) -> Result<(CpuStorage, Shape)> {
        fn sums<T: Real>(xs: &[T], ys: &[T], planes: usize) -> Vec<T> {
            let area = xs.len() / planes;
            if area == 1 {
                return planes_times(xs, ys);
            }
            // A plane may be the whole tensor, so it is cut; the cuts depend on its size alone.
            let blocks = area.div_ceil(PART);
            let block = |index: usize| {
                let (plane, block) = (index / blocks, index % blocks);
                let (at, end) = (plane * area + block * PART, plane * area + area.min((block + 1) * PART));
                let (xs, ys) = (&xs[at..end], &ys[at..end]);
                sum_by(xs.len(), |i| xs[i] * ys[i]).to_f64()
            };
            let sums = each_index(planes * blocks, xs.len(), block);
            let mut products = fresh(planes);
            products.iter_mut().zip(sums.chunks_exact(blocks)).for_each(|(product, blocks)| *product = T::from_f64(blocks.iter().sum()));
            products
        }
        for_real!("multiply", xs, T => {
            let sums = sums::<T>(numbers("multiply", xs, xl)?, numbers("multiply", ys, yl)?, self.0);
            Ok((T::to_cpu_storage_owned(sums), self.0.into()))
        })
    }
}
