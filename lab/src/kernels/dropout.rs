//! Dropout with a seed of its own.

use candle::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use datasets::Seed;

use super::buffers::fresh;
use super::composed;
use super::real::{Real, each_index, each_part, for_real, numbers};

/// Each number of `xs` is 0 with probability `p`, and divided by `1 − p` otherwise. For training.
///
/// Which numbers are kept depends on `seed` and their place in `xs` alone: not on type, device or threads.
///
/// # Errors
/// When `p` is outside `0.0..=1.0`.
pub fn dropout(xs: &Tensor, p: f64, seed: Seed) -> Result<Tensor> {
    if !(0.0..=1.0).contains(&p) {
        bail!("dropout: wanted a probability, found {p}")
    }
    if p == 0.0 {
        return Ok(xs.clone());
    }
    let op = Dropout { p, seed };
    if !xs.device().is_cpu() {
        return composed::dropout(xs, &kept(xs.elem_count(), (p, seed), xs.device())?, p);
    }
    xs.contiguous()?.apply_op1(op)
}

/// For each of `len` places whether it keeps its number, 1, or not, 0: `(len)` of `u8`. A CUDA card draws for itself, and the same.
pub(super) fn kept(len: usize, (p, seed): (f64, Seed), device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(card) = device {
        return super::cuda::draw(card, len, p, seed);
    }
    Tensor::from_vec(each_index(len, 4 * len, |at| u8::from(Dropout { p, seed }.keeps(at))), len, device)
}

#[derive(Clone, Copy)]
struct Dropout {
    p: f64,
    seed: Seed,
}

impl Dropout {
    fn keeps(&self, at: usize) -> bool {
        !self.seed.at(at as u64).rng().chance(self.p)
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        const PART: usize = 1 << 12;
        fn scaled<T: Real>(op: &Dropout, xs: &[T]) -> Vec<T> {
            let mut ys = fresh(xs.len());
            let factor = T::from_f64(1.0 / (1.0 - op.p));
            each_part(&mut ys, PART, 4 * xs.len(), |part, ys| {
                for (i, y) in ys.iter_mut().enumerate() {
                    let at = part * PART + i;
                    // Not a product: what is dropped is 0 even where it was infinite.
                    *y = if op.keeps(at) { xs[at] * factor } else { T::zero() };
                }
            });
            ys
        }
        for_real!("dropout", xs, T => {
            Ok((T::to_cpu_storage_owned(scaled::<T>(self, numbers("dropout", xs, xl)?)), xl.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // The same factors: the mask is drawn again rather than kept.
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(self)?))
    }
}
