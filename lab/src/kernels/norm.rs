//! Batch normalisation as one node of the graph, and the sums over channels that it and biases need.

use candle::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};

use super::composed;
use super::real::{Real, check_alike, each_index, each_part, for_real, numbers, per_task, planes, sum_by};

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
    let (n, c, area) = check(xs, affine)?;
    let count = n * area;
    if count < 2 {
        bail!("batch_norm: wanted at least 2 numbers a channel to normalise by, found {count} (input {:?})", xs.dims())
    }
    if !xs.device().is_cpu() {
        return composed::batch_norm(xs, affine, eps);
    }
    let xs = xs.contiguous()?;
    let moments = xs.apply_op1_no_bwd(&Moments)?.to_vec2::<f64>()?;
    let inv_std = moments[1].iter().map(|var| 1.0 / (var + eps).sqrt()).collect();
    let unbiased: Vec<f64> = moments[1].iter().map(|var| var * count as f64 / (count - 1) as f64).collect();
    let mean = Tensor::new(moments[0].as_slice(), xs.device())?.to_dtype(xs.dtype())?;
    let var = Tensor::from_vec(unbiased, c, xs.device())?.to_dtype(xs.dtype())?;
    let ys = normalize(&xs, affine, Normalize { mean: moments[0].clone(), inv_std, count: Some(count) })?;
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
            let coefficients: Vec<[T; 4]> = (0..weight.len())
                .map(|c| [T::from_f64(self.mean[c]), T::from_f64(self.inv_std[c]) * weight[c], bias[c], 0.0])
                .collect();
            let xs = numbers::<T>("batch_norm", xs, xl)?;
            let ys = map(&coefficients, (xs, xs), xl.dims(), |[mean, scale, bias, _], x, _| (x - mean) * scale + bias);
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
        let grad = &grad.contiguous()?;
        let sums = grad.apply_op2_no_bwd(xs, &GradientSums { mean: &self.mean, inv_std: &self.inv_std })?;
        let of = |row: usize| sums.get(row)?.to_dtype(xs.dtype());
        let dxs = || {
            let sums = sums.to_vec2::<f64>()?;
            let weight = weight.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            let coefficient = |c: usize| {
                let scale = weight[c] * self.inv_std[c];
                let (slope, shift) = match self.count {
                    Some(count) => (-scale * self.inv_std[c] * sums[1][c] / count as f64, -scale * sums[0][c] / count as f64),
                    None => (0.0, 0.0),
                };
                [self.mean[c], scale, slope, shift]
            };
            grad.apply_op2_no_bwd(xs, &GradientOfInput((0..weight.len()).map(coefficient).collect()))
        };
        Ok((
            xs.track_op().then(dxs).transpose()?,
            weight.track_op().then(|| of(1)).transpose()?,
            bias.track_op().then(|| of(0)).transpose()?,
        ))
    }
}

/// `dx = scale · grad + slope · (x − mean) + shift`, a row `[mean, scale, slope, shift]` a channel.
struct GradientOfInput(Vec<[f64; 4]>);

impl CustomOp2 for GradientOfInput {
    fn name(&self) -> &'static str {
        "batch_norm backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("batch_norm", grad, T => {
            let coefficients: Vec<[T; 4]> = self.0.iter().map(|row| row.map(T::from_f64)).collect();
            let operands = (numbers::<T>("batch_norm", grad, gl)?, numbers::<T>("batch_norm", xs, xl)?);
            let dxs = map(&coefficients, operands, gl.dims(), |[mean, scale, slope, shift], grad, x| {
                scale * grad + slope * (x - mean) + shift
            });
            Ok((T::to_cpu_storage_owned(dxs), gl.shape().clone()))
        })
    }
}

/// For each channel the sums of the gradient and of gradient × normalised input: `(2, c)`, `f64`.
struct GradientSums<'a> {
    mean: &'a [f64],
    inv_std: &'a [f64],
}

impl CustomOp2 for GradientSums<'_> {
    fn name(&self) -> &'static str {
        "batch_norm backward sums"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("batch_norm", grad, T => {
            let (grad, xs) = (numbers::<T>("batch_norm", grad, gl)?, numbers::<T>("batch_norm", xs, xl)?);
            let mean: Vec<T> = self.mean.iter().map(|&mean| T::from_f64(mean)).collect();
            let mut sums = sum(grad, gl.dims(), |_, grad| grad);
            let products = sum2((grad, xs), gl.dims(), |c, grad, x| grad * (x - mean[c]));
            sums.extend(products.iter().zip(self.inv_std).map(|(sum, inv_std)| sum * inv_std));
            Ok((CpuStorage::F64(sums), (2, self.mean.len()).into()))
        })
    }
}

/// Mean and biased variance of each channel: `(2, c)`, `f64`.
struct Moments;

impl CustomOp1 for Moments {
    fn name(&self) -> &'static str {
        "batch_norm moments"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let c = xl.dims()[1];
        let count = (xl.shape().elem_count() / c) as f64;
        for_real!("batch_norm", xs, T => {
            let xs = numbers::<T>("batch_norm", xs, xl)?;
            let mut moments: Vec<f64> = sum(xs, xl.dims(), |_, x| x).iter().map(|sum| sum / count).collect();
            // A second pass over the deviations: the difference of two large sums would lose the variance of shifted data.
            let mean: Vec<T> = moments.iter().map(|&mean| T::from_f64(mean)).collect();
            let squares = sum(xs, xl.dims(), |c, x| (x - mean[c]) * (x - mean[c]));
            moments.extend(squares.iter().map(|sum| sum / count));
            Ok((CpuStorage::F64(moments), (2, c).into()))
        })
    }
}

/// The sum over everything but the channel: `(n, c, h, w)` or `(n, c)` to `(c)`; the gradient of a bias.
pub(super) struct ChannelSum;

impl CustomOp1 for ChannelSum {
    fn name(&self) -> &'static str {
        "sum over channels"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("sum over channels", xs, T => {
            let sums = sum(numbers::<T>("sum over channels", xs, xl)?, xl.dims(), |_, x| x);
            let sums: Vec<T> = sums.into_iter().map(T::from_f64).collect();
            Ok((T::to_cpu_storage_owned(sums), xl.dims()[1].into()))
        })
    }
}

fn sum<T: Real>(xs: &[T], dims: &[usize], f: impl Fn(usize, T) -> T + Sync) -> Vec<f64> {
    sum2((xs, xs), dims, |c, x, _| f(c, x))
}

/// For each channel the sum of `f(channel, x, y)`: in the numbers' own type within a plane, in `f64` over planes.
fn sum2<T: Real>((xs, ys): (&[T], &[T]), dims: &[usize], f: impl Fn(usize, T, T) -> T + Sync) -> Vec<f64> {
    /// Channels a task where each is one number a row: a cache line or more.
    const CHANNELS: usize = 64;
    let (n, c, area) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
    if area == 1 {
        let block = |at: usize| {
            let channels = at * CHANNELS..((at + 1) * CHANNELS).min(c);
            let mut sums = vec![0.0; channels.len()];
            for row in 0..n {
                let at = row * c;
                let (xs, ys) = (&xs[at..at + c], &ys[at..at + c]);
                for (sum, c) in sums.iter_mut().zip(channels.clone()) {
                    *sum += f(c, xs[c], ys[c]).to_f64();
                }
            }
            sums
        };
        return each_index(c.div_ceil(CHANNELS), xs.len(), block).concat();
    }
    let channel = |c_at: usize| {
        let plane = |row: usize| {
            let at = (row * c + c_at) * area;
            let (xs, ys) = (&xs[at..at + area], &ys[at..at + area]);
            sum_by(area, |i| f(c_at, xs[i], ys[i])).to_f64()
        };
        (0..n).map(plane).sum()
    };
    each_index(c, xs.len(), channel)
}

/// `f(coefficients of the channel, x, y)` for each place.
fn map<T: Real>(coefficients: &[[T; 4]], (xs, ys): (&[T], &[T]), dims: &[usize], f: impl Fn([T; 4], T, T) -> T + Sync) -> Vec<T> {
    let (c, area) = (dims[1], dims[2..].iter().product::<usize>());
    let mut result = vec![T::zero(); xs.len()];
    // Whole planes, or whole rows where a plane is one number.
    let unit = if area == 1 { c } else { area };
    let units = per_task(unit);
    each_part(&mut result, units * unit, xs.len(), |part, result| {
        let first = part * units;
        for (nth, result) in result.chunks_exact_mut(unit).enumerate() {
            let at = (first + nth) * unit;
            let operands = xs[at..at + unit].iter().zip(&ys[at..at + unit]);
            if area == 1 {
                for ((result, (&x, &y)), &coefficients) in result.iter_mut().zip(operands).zip(coefficients) {
                    *result = f(coefficients, x, y);
                }
            } else {
                let coefficients = coefficients[(first + nth) % c];
                for (result, (&x, &y)) in result.iter_mut().zip(operands) {
                    *result = f(coefficients, x, y);
                }
            }
        }
    });
    result
}
