//! From stored bytes to numbers a network wants, on the device.

use candle::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};

use super::real::{each_part, numbers, per_task};

/// `(p / 255 − mean) / std` of each pixel `p` of `xs (n, c, h, w)`, `u8` to `f32`; `mean` and `std` are one number a channel.
///
/// # Errors
/// When `xs` has another rank or type, a list does not have one number a channel, or a `std` is not above 0.
pub fn normalize_u8(xs: &Tensor, mean: &[f32], std: &[f32]) -> Result<Tensor> {
    let (&[_, c, _, _], DType::U8) = (xs.dims(), xs.dtype()) else {
        bail!("normalize_u8: wanted (n, c, h, w) of u8, found {:?} of {}", xs.dims(), xs.dtype().as_str())
    };
    if mean.len() != c || std.len() != c {
        bail!("normalize_u8: wanted {c} means and {c} deviations, found {} and {}", mean.len(), std.len())
    }
    if let Some((channel, std)) = std.iter().enumerate().find(|(_, std)| std.is_nan() || **std <= 0.0) {
        bail!("normalize_u8: deviation of channel {channel}: wanted more than 0, found {std}")
    }
    if !xs.device().is_cpu() {
        let of = |numbers: Vec<f32>| Tensor::from_vec(numbers, (1, c, 1, 1), xs.device());
        let factor = of(std.iter().map(|std| 1.0 / (255.0 * std)).collect())?;
        let shift = of(mean.iter().zip(std).map(|(mean, std)| -mean / std).collect())?;
        return xs.to_dtype(DType::F32)?.broadcast_mul(&factor)?.broadcast_add(&shift);
    }
    xs.contiguous()?.apply_op1_no_bwd(&Normalize { mean, std })
}

struct Normalize<'a> {
    mean: &'a [f32],
    std: &'a [f32],
}

impl CustomOp1 for Normalize<'_> {
    fn name(&self) -> &'static str {
        "normalize_u8"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, c, h, w) = xl.shape().dims4()?;
        let xs = numbers::<u8>("normalize_u8", xs, xl)?;
        let mut ys = vec![0f32; xs.len()];
        let area = (h * w).max(1);
        let planes = per_task(area);
        each_part(&mut ys, planes * area, xs.len(), |part, ys| {
            for (nth, ys) in ys.chunks_exact_mut(area).enumerate() {
                let plane = part * planes + nth;
                let (mean, std) = (self.mean[plane % c], self.std[plane % c]);
                let xs = &xs[plane * area..(plane + 1) * area];
                ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = (f32::from(x) / 255.0 - mean) / std);
            }
        });
        Ok((f32::to_cpu_storage_owned(ys), xl.shape().clone()))
    }
}
