//! A picture in another resolution, with the gradient that candle lacks.

use candle::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};

use super::composed;
use super::real::{Real, each_part, for_real, numbers, per_task};

/// What stands between the pixels of a picture. A pixel is a square, and the corners of both pictures lie on one another (PyTorch's
/// `align_corners=False`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The pixel at the upper left corner of the new one.
    Nearest,
    /// Straight lines between the middles of the pixels; beyond the outermost, their value.
    Bilinear,
}

impl Interpolation {
    /// For each place of a row of `out`, the two places of a row of `size` that it mixes, and the share of the second.
    pub(super) fn taps(self, size: usize, out: usize) -> Vec<Tap> {
        let tap = |at: usize| match self {
            Self::Nearest => Tap { first: at * size / out, second: at * size / out, share: 0.0 },
            Self::Bilinear => {
                let place = ((at as f64 + 0.5) * size as f64 / out as f64 - 0.5).max(0.0);
                let first = (place as usize).min(size - 1);
                Tap { first, second: (first + 1).min(size - 1), share: place - first as f64 }
            }
        };
        (0..out).map(tap).collect()
    }
}

/// Which two places a new place mixes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tap {
    pub(super) first: usize,
    pub(super) second: usize,
    /// Of the second, in `0.0..=1.0`.
    pub(super) share: f64,
}

/// `xs (n, c, h, w)` to `(n, c, rows, columns)`; smaller pictures, too, are only looked at where they are asked.
///
/// # Errors
/// When `xs` has another rank, or there are no pixels on either side.
pub fn upsample2d(xs: &Tensor, (rows, columns): (usize, usize), by: Interpolation) -> Result<Tensor> {
    let &[_, _, h, w] = xs.dims() else { bail!("upsample2d: wanted an input (n, c, h, w), found {:?}", xs.dims()) };
    if xs.elem_count() * rows * columns == 0 {
        bail!("upsample2d: wanted pixels, found an input {:?} and an output {rows}×{columns}", xs.dims())
    }
    if !xs.device().is_cpu() {
        return composed::upsample2d(xs, (rows, columns), by);
    }
    xs.contiguous()?.apply_op1(Upsample { size: (h, w), rows: by.taps(h, rows), columns: by.taps(w, columns) })
}

#[derive(Clone)]
struct Upsample {
    /// Of the input.
    size: (usize, usize),
    rows: Vec<Tap>,
    columns: Vec<Tap>,
}

impl Upsample {
    fn areas(&self) -> (usize, usize) {
        (self.size.0 * self.size.1, self.rows.len() * self.columns.len())
    }
}

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "upsample2d"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        fn enlarged<T: Real>(op: &Upsample, xs: &[T]) -> Vec<T> {
            let ((area_in, area_out), w) = (op.areas(), op.size.1);
            let mut ys = vec![T::zero(); xs.len() / area_in * area_out];
            let (planes, work) = (per_task(4 * area_out), 4 * ys.len());
            // A share of 0 takes nothing, not even an infinity.
            let mix = |a: T, b: T, share: f64| if share == 0.0 { a } else { a + (b - a) * T::from_f64(share) };
            each_part(&mut ys, planes * area_out, work, |part, ys| {
                for (nth, ys) in ys.chunks_exact_mut(area_out).enumerate() {
                    let xs = &xs[(part * planes + nth) * area_in..][..area_in];
                    for (ys, row) in ys.chunks_exact_mut(op.columns.len()).zip(&op.rows) {
                        let (upper, lower) = (&xs[row.first * w..][..w], &xs[row.second * w..][..w]);
                        for (y, column) in ys.iter_mut().zip(&op.columns) {
                            let across = |line: &[T]| mix(line[column.first], line[column.second], column.share);
                            *y = if row.share == 0.0 { across(upper) } else { mix(across(upper), across(lower), row.share) };
                        }
                    }
                }
            });
            ys
        }
        let (n, c, _, _) = xl.shape().dims4()?;
        for_real!("upsample2d", xs, T => {
            let ys = enlarged::<T>(self, numbers("upsample2d", xs, xl)?);
            Ok((T::to_cpu_storage_owned(ys), (n, c, self.rows.len(), self.columns.len()).into()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Backward(self))?))
    }
}

/// Hands each pixel's gradient back to the pixels it was mixed from.
struct Backward<'a>(&'a Upsample);

impl CustomOp1 for Backward<'_> {
    fn name(&self) -> &'static str {
        "upsample2d backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        fn gathered<T: Real>(op: &Upsample, grad: &[T]) -> Vec<T> {
            let ((area_in, area_out), w) = (op.areas(), op.size.1);
            let mut dxs = vec![T::zero(); grad.len() / area_out * area_in];
            let (planes, work) = (per_task(4 * area_out), 4 * grad.len());
            each_part(&mut dxs, planes * area_in, work, |part, dxs| {
                for (nth, dxs) in dxs.chunks_exact_mut(area_in).enumerate() {
                    let grad = &grad[(part * planes + nth) * area_out..][..area_out];
                    for (grad, row) in grad.chunks_exact(op.columns.len()).zip(&op.rows) {
                        for (line, share) in [(row.first, 1.0 - row.share), (row.second, row.share)] {
                            if share == 0.0 {
                                continue;
                            }
                            let dxs = &mut dxs[line * w..][..w];
                            for (&grad, column) in grad.iter().zip(&op.columns) {
                                dxs[column.first] += grad * T::from_f64(share * (1.0 - column.share));
                                dxs[column.second] += grad * T::from_f64(share * column.share);
                            }
                        }
                    }
                }
            });
            dxs
        }
        let (n, c, _, _) = gl.shape().dims4()?;
        for_real!("upsample2d", grad, T => {
            let dxs = gathered::<T>(self.0, numbers("upsample2d", grad, gl)?);
            Ok((T::to_cpu_storage_owned(dxs), (n, c, self.0.size.0, self.0.size.1).into()))
        })
    }
}
