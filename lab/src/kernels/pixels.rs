//! From stored bytes to numbers a network wants, on the device.

use candle::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use datasets::Normalize;

use super::real::{each_part, numbers, per_task};

/// Each pixel of `xs (n, c, h, w)` normalised, `u8` to `f32`.
///
/// # Errors
/// When `xs` has another rank or type, there is not one mean and one deviation a channel, or a deviation is not above 0.
pub fn normalize_u8(xs: &Tensor, normalize: &Normalize) -> Result<Tensor> {
    let (&[_, c, _, _], DType::U8) = (xs.dims(), xs.dtype()) else {
        bail!("normalize_u8: wanted (n, c, h, w) of u8, found {:?} of {}", xs.dims(), xs.dtype().as_str())
    };
    let Normalize { mean, std } = normalize;
    if mean.len() != c || std.len() != c {
        bail!("normalize_u8: wanted {c} means and {c} deviations, found {} and {}", mean.len(), std.len())
    }
    if let Some((channel, std)) = std.iter().enumerate().find(|(_, std)| std.is_nan() || **std <= 0.0) {
        bail!("normalize_u8: deviation of channel {channel}: wanted more than 0, found {std}")
    }
    if !xs.device().is_cpu() {
        let (factors, summands) = normalize.lines();
        let [factors, summands] = [factors, summands].map(|numbers| Tensor::from_vec(numbers, (1, c, 1, 1), xs.device()));
        return xs.to_dtype(DType::F32)?.broadcast_mul(&factors?)?.broadcast_add(&summands?);
    }
    xs.contiguous()?.apply_op1_no_bwd(&Pixels(normalize))
}

struct Pixels<'a>(&'a Normalize);

impl CustomOp1 for Pixels<'_> {
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
                let (value, xs) = (self.0.channel(plane % c), &xs[plane * area..(plane + 1) * area]);
                ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = value(x));
            }
        });
        Ok((f32::to_cpu_storage_owned(ys), xl.shape().clone()))
    }
}
