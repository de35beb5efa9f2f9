//! What a normalisation does with memory: sums over channels, and a map with a line for each channel.
#![expect(clippy::needless_range_loop, reason = "rows, columns and lanes by their numbers, as in the formulas")]

use std::ops::Range;

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
    let channels = (TOGETHER / area).clamp(1, CHANNELS);
    let block = |at: usize| {
        dispatch::<T, _>(PlaneSums { xs, ys, dims: [n, c, area], channels: at * channels..((at + 1) * channels).min(c), f: &f })
    };
    each_index(c.div_ceil(channels), xs.len(), block).concat()
}

/// Numbers of a channel that are summed in their own type, in many running sums; and so many that are read before the next row.
const TOGETHER: usize = 1024;

/// Evaluates `$body` with `$lanes` numbers to be taken at once from planes of `$area`.
macro_rules! for_lanes {
    ($area:expr, $lanes:ident => $body:expr) => {
        match $area {
            0..4 => {
                const $lanes: usize = 1;
                $body
            }
            4..16 => {
                const $lanes: usize = 4;
                $body
            }
            16..32 => {
                const $lanes: usize = 16;
                $body
            }
            _ => {
                const $lanes: usize = 32;
                $body
            }
        }
    };
}

/// Sums over the planes of some channels, with many running sums so that the processor can add side by side; the order depends on sizes
/// alone.
struct PlaneSums<'a, T, F> {
    xs: &'a [T],
    ys: &'a [T],
    /// Rows, channels and numbers of a plane.
    dims: [usize; 3],
    channels: Range<usize>,
    f: &'a F,
}

impl<T: Real, F: Fn(usize, T, T) -> [T; N], const N: usize> Kernel<T> for PlaneSums<'_, T, F> {
    type Output = Vec<[f64; N]>;

    #[inline(always)]
    #[expect(unsafe_code, reason = "the trait's signature")]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> Vec<[f64; N]> {
        for_lanes!(self.dims[2], LANES => self.sums::<LANES, N>())
    }
}

impl<T: Real, F> PlaneSums<'_, T, F> {
    #[inline(always)]
    fn sums<const LANES: usize, const N: usize>(self) -> Vec<[f64; N]>
    where
        F: Fn(usize, T, T) -> [T; N],
    {
        let Self { xs, ys, dims: [n, c, area], channels, f } = self;
        let mut totals = vec![[0.0; N]; channels.len()];
        let mut running = vec![[[T::ZERO; LANES]; N]; channels.len()];
        let rows = (TOGETHER / area).max(1);
        for first in (0..n).step_by(rows) {
            for row in first..n.min(first + rows) {
                for (running, channel) in running.iter_mut().zip(channels.clone()) {
                    let at = (row * c + channel) * area;
                    let ((xs, x_rest), (ys, y_rest)) = (xs[at..at + area].as_chunks::<LANES>(), ys[at..at + area].as_chunks::<LANES>());
                    let mut lanes = *running;
                    for (xs, ys) in xs.iter().zip(ys) {
                        for lane in 0..LANES {
                            let terms = f(channel, xs[lane], ys[lane]);
                            for nth in 0..N {
                                lanes[nth][lane] += terms[nth];
                            }
                        }
                    }
                    for (lane, (&x, &y)) in x_rest.iter().zip(y_rest).enumerate() {
                        let terms = f(channel, x, y);
                        for nth in 0..N {
                            lanes[nth][lane] += terms[nth];
                        }
                    }
                    *running = lanes;
                }
            }
            for (totals, running) in totals.iter_mut().zip(&mut running) {
                for nth in 0..N {
                    let mut sum = T::ZERO;
                    for lane in 0..LANES {
                        sum += running[nth][lane];
                    }
                    totals[nth] += sum.to_f64();
                }
                *running = [[T::ZERO; LANES]; N];
            }
        }
        totals
    }
}

/// Calls `f(first, part)` for parts of whole planes, or of whole rows where a plane is one number; `first` is the part's first plane.
fn each_unit<T: Real>(data: &mut [T], dims: &[usize], f: impl Fn(usize, &mut [T]) + Sync) {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let unit = if area == 1 { c } else { area };
    let (units, work) = (per_task(unit), data.len());
    each_part(data, units * unit, work, |part, data| vectorised::<T, _>(|| f(part * units * unit / area, data)));
}

/// Calls `f(channel, y, what lies there in each of xs)` for each number of whole planes, the first of which is of channel `first`.
#[inline(always)]
fn each_number<T: Real, const N: usize>(
    ys: &mut [T],
    xs: [&[T]; N],
    (first, channels, area): (usize, usize, usize),
    f: impl Fn(usize, &mut T, [T; N]),
) {
    for_lanes!(area, LANES => {
        let mut channel = first;
        for (nth, ys) in ys.chunks_exact_mut(area).enumerate() {
            let planes = xs.map(|xs| xs[nth * area..(nth + 1) * area].as_chunks::<LANES>());
            let (ys, rest) = ys.as_chunks_mut::<LANES>();
            for (at, ys) in ys.iter_mut().enumerate() {
                let xs = planes.map(|(chunks, _)| &chunks[at]);
                for lane in 0..LANES {
                    f(channel, &mut ys[lane], xs.map(|xs| xs[lane]));
                }
            }
            for (at, y) in rest.iter_mut().enumerate() {
                f(channel, y, planes.map(|(_, rest)| rest[at]));
            }
            channel = if channel + 1 == channels { 0 } else { channel + 1 };
        }
    });
}

/// `curve(line of the channel (x) [+ skip])` for each place.
pub(super) fn map<T: Real>(lines: &[Line<T>], xs: &[T], skip: Option<&[T]>, dims: &[usize], curve: impl Curve) -> Vec<T> {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let mut ys = fresh(xs.len());
    each_unit(&mut ys, dims, |plane, ys| {
        let places = plane * area..plane * area + ys.len();
        let (xs, planes) = (&xs[places.clone()], (plane % c, c, area));
        match skip.map(|skip| &skip[places]) {
            None if area == 1 => {
                for (ys, xs) in ys.chunks_exact_mut(c).zip(xs.chunks_exact(c)) {
                    ys.iter_mut().zip(xs).zip(lines).for_each(|((y, &x), line)| *y = curve.value(line.at(x)));
                }
            }
            Some(skip) if area == 1 => {
                for (ys, (xs, skip)) in ys.chunks_exact_mut(c).zip(xs.chunks_exact(c).zip(skip.chunks_exact(c))) {
                    ys.iter_mut().zip(xs).zip(skip).zip(lines).for_each(|(((y, &x), &skip), line)| *y = curve.value(line.at(x) + skip));
                }
            }
            None => each_number(ys, [xs], planes, |channel, y, [x]| *y = curve.value(lines[channel].at(x))),
            Some(skip) => each_number(ys, [xs, skip], planes, |channel, y, [x, skip]| *y = curve.value(lines[channel].at(x) + skip)),
        }
    });
    ys
}

/// See [`Descend`](super::layer).
pub(super) fn descend<T: Real>(lines: &[Line<T>], coefficients: &[[T; 3]], grad: &mut [T], xs: &[T], dims: &[usize], curve: impl Curve) {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let one = |grad: &mut T, x: T, line: Line<T>, [scale, slope, shift]: [T; 3]| {
        *grad = scale * *grad * curve.slope(line.at(x)) + (slope * (x - line.mean) + shift);
    };
    each_unit(grad, dims, |plane, grad| {
        let xs = &xs[plane * area..][..grad.len()];
        if area == 1 {
            for (grad, xs) in grad.chunks_exact_mut(c).zip(xs.chunks_exact(c)) {
                let channels = lines.iter().zip(coefficients);
                grad.iter_mut().zip(xs).zip(channels).for_each(|((grad, &x), (&line, &row))| one(grad, x, line, row));
            }
        } else {
            each_number(grad, [xs], (plane % c, c, area), |channel, grad, [x]| one(grad, x, lines[channel], coefficients[channel]));
        }
    });
}
