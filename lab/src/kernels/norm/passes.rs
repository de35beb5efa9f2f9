//! What a normalisation does with memory: sums over channels, and a map with a line for each channel.
#![expect(clippy::needless_range_loop, reason = "rows, columns and lanes by their numbers, as in the formulas")]

use candle::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

use super::super::activation::Curve;
use super::super::buffers::fresh;
use super::super::real::{Real, each_index, each_part, for_real, numbers, per_task, vectorised};
use super::super::simd::{Kernel, Lanes, dispatch};

/// Mean and biased variance of each channel.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    pub(super) mean: Vec<f64>,
    pub(super) var: Vec<f64>,
    /// Numbers a channel.
    pub(super) count: usize,
}

impl Moments {
    pub(super) fn inv_std(&self, eps: f64) -> Vec<f64> {
        self.var.iter().map(|var| 1.0 / (var + eps).sqrt()).collect()
    }

    /// Mean and unbiased variance `(c)`, of the type and on the device of `like`.
    pub(super) fn learned(&self, like: &Tensor) -> Result<(Tensor, Tensor)> {
        let (c, unbias) = (self.mean.len(), self.count as f64 / (self.count - 1) as f64);
        let tensor = |numbers: Vec<f64>| Tensor::from_vec(numbers, c, like.device())?.to_dtype(like.dtype());
        Ok((tensor(self.mean.clone())?, tensor(self.var.iter().map(|var| var * unbias).collect())?))
    }
}

/// What stands in a formula for one channel: the numbers are shifted by `mean`, multiplied by `scale`, and shifted by `shift`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<T> {
    pub(super) mean: T,
    pub(super) scale: T,
    pub(super) shift: T,
}

impl<T: Real> Line<T> {
    #[inline(always)]
    pub(super) fn at(self, x: T) -> T {
        (x - self.mean) * self.scale + self.shift
    }
}

pub(super) fn lines<T: Real>(mean: &[f64], inv_std: &[f64], weight: &[T], bias: &[T]) -> Vec<Line<T>> {
    let line = |c: usize| Line { mean: T::from_f64(mean[c]), scale: T::from_f64(inv_std[c]) * weight[c], shift: bias[c] };
    (0..mean.len()).map(line).collect()
}

/// [`Moments`] as `(2, c)`, `f64`.
pub(super) struct MomentsOf;

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
struct ChannelSum;

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
pub(super) fn sum2<T: Real, const N: usize>(
    (xs, ys): (&[T], &[T]),
    dims: &[usize],
    f: impl Fn(usize, T, T) -> [T; N] + Sync,
) -> Vec<[f64; N]> {
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
pub(super) fn map<T: Real>(lines: &[Line<T>], xs: &[T], skip: Option<&[T]>, dims: &[usize], curve: impl Curve) -> Vec<T> {
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
pub(super) fn descend<T: Real>(lines: &[Line<T>], coefficients: &[[T; 3]], grad: &mut [T], xs: &[T], dims: &[usize], curve: impl Curve) {
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
