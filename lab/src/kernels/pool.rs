//! Pooling: the largest or the mean number of each window, any kernel, stride and padding.

use std::ops::Range;

use candle::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};

use super::buffers::fresh;
use super::composed;
use super::conv::{Conv, Geometry};
use super::real::{Real, each_part, for_real, numbers, per_task, sum_by};

/// How windows are laid over a picture; pairs are (vertical, horizontal).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Size of a window.
    pub kernel: (usize, usize),
    /// Pixels from one window to the next.
    pub stride: (usize, usize),
    /// Border on each side, at most half a window; never the largest number, and 0 in a mean.
    #[serde(default)]
    pub padding: (usize, usize),
    /// Whether a last window that sticks out counts, as long as it begins in the picture or its left or upper border.
    #[serde(default)]
    pub ceil_mode: bool,
}

/// What a mean is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divisor {
    /// Pixels of the window, border included (PyTorch's default); what sticks out over the border in `ceil_mode` is not.
    Window,
    /// Pixels of the picture in the window.
    Picture,
}

impl Pool {
    /// Windows of `size`×`size`, `stride` apart, without a border.
    pub fn square(size: usize, stride: usize) -> Self {
        Self { kernel: (size, size), stride: (stride, stride), padding: (0, 0), ceil_mode: false }
    }

    /// Height and width after pooling; `None` when no window fits, a number that must not be 0 is, or the border is more than half a
    /// window.
    pub fn output_size(&self, (h, w): (usize, usize)) -> Option<(usize, usize)> {
        let size = |size: usize, k: usize, stride: usize, padding: usize| {
            if k == 0 || 2 * padding > k {
                return None;
            }
            let late = if self.ceil_mode { stride.checked_sub(1)? } else { 0 };
            let count = (size + 2 * padding + late).checked_sub(k)?.checked_div(stride)? + 1;
            Some(if (count - 1) * stride >= size + padding { count - 1 } else { count })
        };
        let rows = size(h, self.kernel.0, self.stride.0, self.padding.0)?;
        let cols = size(w, self.kernel.1, self.stride.1, self.padding.1)?;
        Some((rows, cols))
    }

    /// As a convolution's sizes, one filter a channel, so that the same loops serve.
    fn geometry(&self, op: &str, dims: &[usize]) -> Result<Geometry> {
        let &[n, c, h, w] = dims else { bail!("{op}: wanted an input (n, c, h, w), found {dims:?}") };
        if dims.contains(&0) {
            bail!("{op}: wanted at least one sample, channel and pixel, found an input {dims:?}")
        }
        let Some((oh, ow)) = self.output_size((h, w)) else {
            bail!(
                "{op}: wanted a window that fits the picture, a border of at most half a window, a stride above 0; found {self:?} on {h}×{w}"
            )
        };
        let conv = Conv { stride: self.stride, padding: self.padding, dilation: (1, 1), groups: c };
        Ok(Geometry { n, c, c_group: 1, h, w, o: c, o_group: 1, kh: self.kernel.0, kw: self.kernel.1, oh, ow, conv })
    }

    /// What the mean of each window is multiplied by: a factor a row times a factor a column.
    pub(super) fn factors(&self, divisor: Divisor, (h, w): (usize, usize), (oh, ow): (usize, usize)) -> (Vec<f64>, Vec<f64>) {
        let factors = |out: usize, size: usize, k: usize, stride: usize, padding: usize| {
            let factor = |at: usize| {
                let (start, end) = (at * stride, at * stride + k);
                let counted = match divisor {
                    Divisor::Window => end.min(size + 2 * padding) - start,
                    Divisor::Picture => end.min(size + padding) - start.max(padding),
                };
                1.0 / counted as f64
            };
            (0..out).map(factor).collect()
        };
        (factors(oh, h, self.kernel.0, self.stride.0, self.padding.0), factors(ow, w, self.kernel.1, self.stride.1, self.padding.1))
    }
}

/// The largest number of each window: `(n, c, h, w)` to `(n, c, h', w')`. The gradient goes to the first of equals.
///
/// # Errors
/// When no window fits or the padding is more than half a window.
pub fn max_pool2d(xs: &Tensor, pool: &Pool) -> Result<Tensor> {
    let geometry = pool.geometry("max_pool2d", xs.dims())?;
    if !xs.device().is_cpu() {
        return composed::max_pool2d(xs, pool);
    }
    xs.contiguous()?.apply_op1(Max(geometry))
}

/// The mean of each window: `(n, c, h, w)` to `(n, c, h', w')`.
///
/// # Errors
/// When no window fits or the padding is more than half a window.
pub fn avg_pool2d(xs: &Tensor, pool: &Pool, divisor: Divisor) -> Result<Tensor> {
    let geometry = pool.geometry("avg_pool2d", xs.dims())?;
    if !xs.device().is_cpu() {
        return composed::avg_pool2d(xs, pool, divisor);
    }
    let factors = pool.factors(divisor, (geometry.h, geometry.w), (geometry.oh, geometry.ow));
    xs.contiguous()?.apply_op1(Mean { geometry, factors })
}

/// The mean of each plane: `(n, c, h, w)` to `(n, c)`.
///
/// # Errors
/// When `xs` has another rank, or no pixels.
pub fn global_avg_pool(xs: &Tensor) -> Result<Tensor> {
    let &[_, _, h, w] = xs.dims() else { bail!("global_avg_pool: wanted an input (n, c, h, w), found {:?}", xs.dims()) };
    if h * w == 0 {
        bail!("global_avg_pool: wanted at least one pixel, found an input {:?}", xs.dims())
    }
    if !xs.device().is_cpu() {
        return composed::global_avg_pool(xs);
    }
    xs.contiguous()?.apply_op1(PlaneMean)
}

/// The gradient of the input of [`max_pool2d`]; for whoever keeps the books himself.
pub(crate) fn max_pool2d_backward(grad: &Tensor, xs: &Tensor, pool: &Pool) -> Result<Tensor> {
    grad.apply_op2_no_bwd(xs, &MaxBackward(pool.geometry("max_pool2d", xs.dims())?))
}

/// The gradient of the input, of shape `xs`, of [`avg_pool2d`].
pub(crate) fn avg_pool2d_backward(grad: &Tensor, xs: &[usize], pool: &Pool, divisor: Divisor) -> Result<Tensor> {
    let geometry = pool.geometry("avg_pool2d", xs)?;
    let factors = pool.factors(divisor, (geometry.h, geometry.w), (geometry.oh, geometry.ow));
    grad.apply_op1_no_bwd(&MeanBackward(&Mean { geometry, factors }))
}

/// The gradient of the input, of shape `xs`, of [`global_avg_pool`].
pub(crate) fn global_avg_pool_backward(grad: &Tensor, xs: &[usize]) -> Result<Tensor> {
    grad.apply_op1_no_bwd(&PlaneMeanBackward { h: xs[2], w: xs[3] })
}

/// Means of `rows × cols` windows that cover the picture as evenly as may be: `(n, c, h, w)` to `(n, c, rows, cols)`.
///
/// Window `i` of `rows` reaches from `⌊i·h / rows⌋` to `⌈(i+1)·h / rows⌉`, as in PyTorch.
///
/// # Errors
/// When `xs` has another rank, no pixels, or no window is asked for.
pub fn adaptive_avg_pool2d(xs: &Tensor, (rows, cols): (usize, usize)) -> Result<Tensor> {
    let &[n, c, h, w] = xs.dims() else { bail!("adaptive_avg_pool2d: wanted an input (n, c, h, w), found {:?}", xs.dims()) };
    if h * w * rows * cols == 0 {
        bail!("adaptive_avg_pool2d: wanted pixels and windows, found an input {:?} and {rows}×{cols} windows", xs.dims())
    }
    if (rows, cols) == (1, 1) {
        return global_avg_pool(xs)?.reshape((n, c, 1, 1));
    }
    // A window's mean is a mean over rows of means over columns: two matrix products, right on every device.
    let matrix = |size: usize, windows: usize| {
        let mut weights = vec![0.0; windows * size];
        for (i, weights) in weights.chunks_exact_mut(size).enumerate() {
            let window = i * size / windows..((i + 1) * size).div_ceil(windows);
            let weight = 1.0 / window.len() as f64;
            weights[window].fill(weight);
        }
        Tensor::from_vec(weights, (windows, size), xs.device())?.to_dtype(xs.dtype())
    };
    let ys = xs.contiguous()?.reshape((n * c * h, w))?.matmul(&matrix(w, cols)?.t()?)?;
    let ys = ys.reshape((n * c, h, cols))?.transpose(1, 2)?.contiguous()?.reshape((n * c * cols, h))?;
    let ys = ys.matmul(&matrix(h, rows)?.t()?)?.reshape((n, c, cols, rows))?;
    ys.transpose(2, 3)?.contiguous()
}

/// The output positions `0..out` at which tap `tap` falls inside `0..size`.
fn inside(tap: usize, out: usize, size: usize, stride: usize, padding: usize, dilation: usize) -> Range<usize> {
    let shift = tap * dilation;
    let first = padding.saturating_sub(shift).div_ceil(stride).min(out);
    let end = (size + padding).saturating_sub(shift).div_ceil(stride).min(out);
    first..end.max(first)
}

/// Calls `f(tap, row, cols, at)` for every tap and every output row of `rows` (counted from their first): the output columns whose
/// tap falls inside plane `channel`, and where in the input the first of them falls. Taps in the padding are left out.
#[inline(always)]
fn each_run(g: &Geometry, channel: usize, rows: &Range<usize>, mut f: impl FnMut(usize, usize, Range<usize>, usize)) {
    let Conv { stride, padding, dilation, .. } = g.conv;
    for ki in 0..g.kh {
        let valid = inside(ki, g.oh, g.h, stride.0, padding.0, dilation.0);
        let valid = valid.start.max(rows.start)..valid.end.min(rows.end);
        for kj in 0..g.kw {
            let cols = inside(kj, g.ow, g.w, stride.1, padding.1, dilation.1);
            if cols.is_empty() {
                continue;
            }
            let left = cols.start * stride.1 + kj * dilation.1 - padding.1;
            for oy in valid.clone() {
                let iy = oy * stride.0 + ki * dilation.0 - padding.0;
                f(ki * g.kw + kj, oy - rows.start, cols.clone(), (channel * g.h + iy) * g.w + left);
            }
        }
    }
}

/// For each plane of `out` (of `size` numbers), `f(number of the plane, plane, scratch)`; `steps` elementary steps a plane.
fn each_plane<T: Real, S>(
    out: &mut [T],
    size: usize,
    steps: usize,
    scratch: impl Fn() -> S + Sync,
    f: impl Fn(usize, &mut [T], &mut S) + Sync,
) {
    let planes = per_task(steps);
    let work = out.len() / size * steps;
    each_part(out, planes * size, work, |part, out| {
        let mut scratch = scratch();
        for (nth, plane) in out.chunks_exact_mut(size).enumerate() {
            f(part * planes + nth, plane, &mut scratch);
        }
    });
}

struct Max(Geometry);

impl CustomOp1 for Max {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        for_real!("max_pool2d", xs, T => {
            let xs = numbers::<T>("max_pool2d", xs, xl)?;
            let mut ys = fresh(g.n * g.c * g.area_out());
            each_plane(&mut ys, g.area_out(), g.area_out() * g.taps(), || (), |plane, ys, ()| {
                ys.fill(-T::INFINITY);
                each_run(g, plane, &(0..g.oh), |_, row, cols, from| {
                    let ys = &mut ys[row * g.ow + cols.start..row * g.ow + cols.end];
                    for (y, &x) in ys.iter_mut().zip(xs[from..].iter().step_by(g.conv.stride.1)) {
                        *y = if beats(x, *y) { x } else { *y };
                    }
                });
            });
            Ok((T::to_cpu_storage_owned(ys), (g.n, g.c, g.oh, g.ow).into()))
        })
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op2_no_bwd(xs, &MaxBackward(self.0))?))
    }
}

/// Whether `x` takes the place of the largest number so far. NaN does, and is then never beaten.
#[inline(always)]
#[expect(clippy::eq_op, reason = "NaN alone differs from itself")]
fn beats<T: Real>(x: T, y: T) -> bool {
    x > y || x != x
}

struct MaxBackward(Geometry);

impl CustomOp2 for MaxBackward {
    fn name(&self) -> &'static str {
        "max_pool2d backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        for_real!("max_pool2d", grad, T => {
            let (grad, xs) = (numbers::<T>("max_pool2d", grad, gl)?, numbers::<T>("max_pool2d", xs, xl)?);
            let mut dxs = fresh(g.n * g.c * g.area_in());
            // Which pixel won each window, found again: cheaper than keeping it from the forward pass of every evaluation.
            let scratch = || (vec![0.0; g.area_out()], vec![0u32; g.area_out()]);
            each_plane(&mut dxs, g.area_in(), g.area_out() * g.taps(), scratch, |plane, dxs, (best, at)| {
                dxs.fill(T::ZERO);
                best.fill(-T::INFINITY);
                at.fill(u32::MAX);
                let xs = &xs[plane * g.area_in()..(plane + 1) * g.area_in()];
                each_run(g, 0, &(0..g.oh), |_, row, cols, from| {
                    let (first, end) = (row * g.ow + cols.start, row * g.ow + cols.end);
                    let places = best[first..end].iter_mut().zip(&mut at[first..end]);
                    for (i, (best, at)) in places.enumerate() {
                        let from = from + i * g.conv.stride.1;
                        let wins = beats(xs[from], *best) || *at == u32::MAX;
                        *best = if wins { xs[from] } else { *best };
                        *at = if wins { from as u32 } else { *at };
                    }
                });
                for (&at, &grad) in at.iter().zip(&grad[plane * g.area_out()..]) {
                    dxs[at as usize] += grad;
                }
            });
            Ok((T::to_cpu_storage_owned(dxs), (g.n, g.c, g.h, g.w).into()))
        })
    }
}

#[derive(Clone)]
struct Mean {
    geometry: Geometry,
    /// By row, and by column.
    factors: (Vec<f64>, Vec<f64>),
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        for_real!("avg_pool2d", xs, T => {
            let xs = numbers::<T>("avg_pool2d", xs, xl)?;
            let mut ys = fresh(g.n * g.c * g.area_out());
            each_plane(&mut ys, g.area_out(), g.area_out() * g.taps(), || (), |plane, ys, ()| {
                ys.fill(T::ZERO);
                each_run(g, plane, &(0..g.oh), |_, row, cols, from| {
                    let ys = &mut ys[row * g.ow + cols.start..row * g.ow + cols.end];
                    ys.iter_mut().zip(xs[from..].iter().step_by(g.conv.stride.1)).for_each(|(y, &x)| *y += x);
                });
                for (ys, row) in ys.chunks_exact_mut(g.ow).zip(&self.factors.0) {
                    ys.iter_mut().zip(&self.factors.1).for_each(|(y, col)| *y *= T::from_f64(row * col));
                }
            });
            Ok((T::to_cpu_storage_owned(ys), (g.n, g.c, g.oh, g.ow).into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&MeanBackward(self))?))
    }
}

struct MeanBackward<'a>(&'a Mean);

impl CustomOp1 for MeanBackward<'_> {
    fn name(&self) -> &'static str {
        "avg_pool2d backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let Mean { geometry: g, factors } = self.0;
        for_real!("avg_pool2d", grad, T => {
            let grad = numbers::<T>("avg_pool2d", grad, gl)?;
            let mut dxs = fresh(g.n * g.c * g.area_in());
            let scratch = || vec![0.0; g.area_out()];
            each_plane(&mut dxs, g.area_in(), g.area_out() * g.taps(), scratch, |plane, dxs, shares| {
                dxs.fill(T::ZERO);
                let grad = &grad[plane * g.area_out()..(plane + 1) * g.area_out()];
                for ((shares, grad), row) in shares.chunks_exact_mut(g.ow).zip(grad.chunks_exact(g.ow)).zip(&factors.0) {
                    for ((share, &grad), col) in shares.iter_mut().zip(grad).zip(&factors.1) {
                        *share = grad * T::from_f64(row * col);
                    }
                }
                each_run(g, 0, &(0..g.oh), |_, row, cols, to| {
                    let shares = &shares[row * g.ow + cols.start..row * g.ow + cols.end];
                    dxs[to..].iter_mut().step_by(g.conv.stride.1).zip(shares).for_each(|(dx, &share)| *dx += share);
                });
            });
            Ok((T::to_cpu_storage_owned(dxs), (g.n, g.c, g.h, g.w).into()))
        })
    }
}

struct PlaneMean;

impl CustomOp1 for PlaneMean {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = xl.shape().dims4()?;
        let area = h * w;
        for_real!("global_avg_pool", xs, T => {
            let xs = numbers::<T>("global_avg_pool", xs, xl)?;
            let mut ys = fresh(n * c);
            each_plane(&mut ys, 1, area, || (), |plane, y, ()| {
                let xs = &xs[plane * area..(plane + 1) * area];
                y[0] = sum_by(area, |i| xs[i]) / T::from_f64(area as f64);
            });
            Ok((T::to_cpu_storage_owned(ys), (n, c).into()))
        })
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(global_avg_pool_backward(&grad.contiguous()?, xs.dims())?))
    }
}

struct PlaneMeanBackward {
    h: usize,
    w: usize,
}

impl CustomOp1 for PlaneMeanBackward {
    fn name(&self) -> &'static str {
        "global_avg_pool backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((n, c), area) = (gl.shape().dims2()?, self.h * self.w);
        for_real!("global_avg_pool", grad, T => {
            let grad = numbers::<T>("global_avg_pool", grad, gl)?;
            let mut dxs = fresh(n * c * area);
            each_plane(&mut dxs, area, area, || (), |plane, dxs, ()| dxs.fill(grad[plane] / T::from_f64(area as f64)));
            Ok((T::to_cpu_storage_owned(dxs), (n, c, self.h, self.w).into()))
        })
    }
}
