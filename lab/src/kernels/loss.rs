//! Cross-entropy of logits as one node of the graph: the softmax is never stored.

use candle::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, bail};

use super::composed;
use super::real::{Real, check_alike, each_index, each_part, for_real, numbers, per_task, sum_by, vectorised};

/// Mean cross-entropy, in nats, of logits `(n, k)` and labels `(n)` of type `u32`: a scalar, `f32` where the logits are of half precision.
///
/// With `smoothing` the target is `1 − smoothing` on the label plus `smoothing / k` on every class.
///
/// # Errors
/// When shapes or types do not fit, the batch is empty, `smoothing` is outside `0.0..=1.0`, or a label is not below `k`. On other devices
/// than the CPU labels are not read back: there the loss of a batch with such a label is NaN.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let (n, k) = check(logits)?;
    if labels.dims() != [n] || labels.dtype() != DType::U32 {
        bail!("cross_entropy: labels: wanted ({n}) of u32, found {:?} of {}", labels.dims(), labels.dtype().as_str())
    }
    if !(0.0..=1.0).contains(&smoothing) {
        bail!("cross_entropy: smoothing: wanted 0 to 1, found {smoothing}")
    }
    if !logits.device().is_cpu() {
        return composed::cross_entropy(logits, labels, smoothing);
    }
    let labels = labels.to_vec1::<u32>()?;
    if let Some((row, label)) = labels.iter().enumerate().find(|&(_, &label)| label as usize >= k) {
        bail!("cross_entropy: row {row}: wanted a label below {k}, found {label}")
    }
    logits.contiguous()?.apply_op1(Hard { labels, smoothing })
}

/// Mean cross-entropy, in nats, of logits `(n, k)` and targets `(n, k)`, a distribution a row: a scalar.
///
/// # Errors
/// When shapes or types do not fit, or the batch is empty.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    check(logits)?;
    check_alike("soft_cross_entropy", "targets", targets, logits)?;
    if targets.dims() != logits.dims() {
        bail!("soft_cross_entropy: targets: wanted {:?}, found {:?}", logits.dims(), targets.dims())
    }
    if !logits.device().is_cpu() {
        return composed::soft_cross_entropy(logits, targets);
    }
    logits.contiguous()?.apply_op2(&targets.contiguous()?, Soft)
}

fn check(logits: &Tensor) -> Result<(usize, usize)> {
    match *logits.dims() {
        [n, k] if n > 0 && k > 0 => Ok((n, k)),
        ref other => bail!("cross_entropy: wanted logits (n, k), at least one row and one class, found {other:?}"),
    }
}

/// The largest number of a row; NaN is none.
#[inline(always)]
fn largest<T: Real>(row: &[T]) -> T {
    let larger = |a: T, b: T| if b > a { b } else { a };
    let (chunks, rest) = row.as_chunks::<16>();
    let mut lanes = [-<T as Real>::INFINITY; 16];
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] = larger(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().chain(rest).fold(-<T as Real>::INFINITY, |a, &b| larger(a, b))
}

/// The logarithm of the sum of the exponentials of a row.
fn log_sum_exp<T: Real>(row: &[T]) -> f64 {
    let largest = vectorised::<T, _>(|| largest(row));
    if !largest.to_f64().is_finite() {
        return if row.iter().any(|x| x.to_f64().is_nan()) { f64::NAN } else { largest.to_f64() };
    }
    let sum = vectorised::<T, _>(|| sum_by(row.len(), |at| (row[at] - largest).exp()));
    largest.to_f64() + sum.to_f64().ln()
}

/// The mean over rows, summed in order.
fn mean<T: Real>(logits: &[T], (n, k): (usize, usize), loss: impl Fn(usize, &[T]) -> f64 + Sync + Send) -> (CpuStorage, Shape) {
    let rows = per_task(8 * k);
    let part = |part: usize| -> f64 {
        let first = part * rows;
        (first..(first + rows).min(n)).map(|row| loss(row, &logits[row * k..(row + 1) * k])).sum()
    };
    let total: f64 = each_index(n.div_ceil(rows), 8 * logits.len(), part).into_iter().sum();
    (T::to_cpu_storage_owned(vec![T::from_f64(total / n as f64)]), ().into())
}

/// Puts the softmax of a row into `result`, one exponential a number, and gives the log-sum-exp.
fn softmax<T: Real>(row: &[T], result: &mut [T]) -> T {
    let (largest, sum) = vectorised::<T, _>(|| {
        let largest = largest(row);
        result.iter_mut().zip(row).for_each(|(result, &x)| *result = (x - largest).exp());
        let sum = sum_by(result.len(), |at| result[at]).to_f64();
        let scale = T::from_f64(1.0 / sum);
        result.iter_mut().for_each(|result| *result *= scale);
        (largest, sum)
    });
    T::from_f64(largest.to_f64() + sum.ln())
}

/// `f(row, logits of the row, log-sum-exp of the row, result)` for each row; `result` begins as the softmax.
fn each_row<T: Real>(logits: &[T], k: usize, f: impl Fn(usize, &[T], T, &mut [T]) + Sync) -> Vec<T> {
    let mut result = vec![T::zero(); logits.len()];
    let rows = per_task(8 * k);
    each_part(&mut result, rows * k, 8 * logits.len(), |part, result| {
        for (nth, result) in result.chunks_exact_mut(k).enumerate() {
            let row = part * rows + nth;
            let logits = &logits[row * k..(row + 1) * k];
            f(row, logits, softmax(logits, result), result);
        }
    });
    result
}

/// What each row's gradient is scaled by: the gradient of the mean over the number of rows.
fn scale(grad: &Tensor, n: usize) -> Result<f64> {
    Ok(grad.to_dtype(DType::F64)?.to_scalar::<f64>()? / n as f64)
}

struct Hard {
    labels: Vec<u32>,
    smoothing: f64,
}

impl CustomOp1 for Hard {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, ll: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, k) = ll.shape().dims2()?;
        for_real!("cross_entropy", logits, T => {
            Ok(mean::<T>(numbers("cross_entropy", logits, ll)?, (n, k), |row, logits| {
                let hard = (1.0 - self.smoothing) * logits[self.labels[row] as usize].to_f64();
                // Without smoothing a logit of minus infinity is no reason for a NaN.
                let soft = if self.smoothing == 0.0 { 0.0 } else { logits.iter().map(|x| x.to_f64()).sum::<f64>() * self.smoothing / k as f64 };
                log_sum_exp(logits) - hard - soft
            }))
        })
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let scale = scale(grad, self.labels.len())?;
        Ok(Some(logits.apply_op1_no_bwd(&HardBackward { of: self, scale })?))
    }
}

struct HardBackward<'a> {
    of: &'a Hard,
    scale: f64,
}

impl CustomOp1 for HardBackward<'_> {
    fn name(&self) -> &'static str {
        "cross_entropy backward"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, ll: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, k) = ll.shape().dims2()?;
        for_real!("cross_entropy", logits, T => {
            let (scale, share) = (T::from_f64(self.scale), T::from_f64(self.of.smoothing / k as f64));
            let hard = T::from_f64(1.0 - self.of.smoothing);
            let dlogits = each_row::<T>(numbers("cross_entropy", logits, ll)?, k, |row, _, _, dlogits| {
                dlogits.iter_mut().for_each(|dx| *dx = scale * (*dx - share));
                dlogits[self.of.labels[row] as usize] -= scale * hard;
            });
            Ok((T::to_cpu_storage_owned(dlogits), ll.shape().clone()))
        })
    }
}

struct Soft;

impl CustomOp2 for Soft {
    fn name(&self) -> &'static str {
        "soft_cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, ll: &Layout, targets: &CpuStorage, tl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, k) = ll.shape().dims2()?;
        for_real!("soft_cross_entropy", logits, T => {
            let targets = numbers::<T>("soft_cross_entropy", targets, tl)?;
            Ok(mean::<T>(numbers("soft_cross_entropy", logits, ll)?, (n, k), |row, logits| {
                let lse = log_sum_exp(logits);
                let terms = targets[row * k..(row + 1) * k].iter().zip(logits);
                terms.filter(|(t, _)| t.to_f64() != 0.0).map(|(t, x)| t.to_f64() * (lse - x.to_f64())).sum()
            }))
        })
    }

    fn bwd(&self, logits: &Tensor, targets: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let scale = scale(grad, logits.dims()[0])?;
        let of = |side| logits.apply_op2_no_bwd(targets, &SoftBackward { scale, side });
        let dlogits = logits.track_op().then(|| of(Side::Logits)).transpose()?;
        let dtargets = targets.track_op().then(|| of(Side::Targets)).transpose()?;
        Ok((dlogits, dtargets))
    }
}

enum Side {
    Logits,
    Targets,
}

struct SoftBackward {
    scale: f64,
    side: Side,
}

impl CustomOp2 for SoftBackward {
    fn name(&self) -> &'static str {
        "soft_cross_entropy backward"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, ll: &Layout, targets: &CpuStorage, tl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, k) = ll.shape().dims2()?;
        for_real!("soft_cross_entropy", logits, T => {
            let (scale, targets) = (T::from_f64(self.scale), numbers::<T>("soft_cross_entropy", targets, tl)?);
            let logits = numbers::<T>("soft_cross_entropy", logits, ll)?;
            let result = match self.side {
                Side::Logits => each_row::<T>(logits, k, |row, _, _, result| {
                    let targets = &targets[row * k..(row + 1) * k];
                    let total: T = targets.iter().copied().sum();
                    result.iter_mut().zip(targets).for_each(|(result, &t)| *result = scale * (*result * total - t));
                }),
                Side::Targets => each_row::<T>(logits, k, |_, logits, lse, result| {
                    result.iter_mut().zip(logits).for_each(|(result, &x)| *result = scale * (lse - x));
                }),
            };
            Ok((T::to_cpu_storage_owned(result), ll.shape().clone()))
        })
    }
}
