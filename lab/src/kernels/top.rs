//! The largest weights of a layer, chosen anew in each step.

#[cfg(feature = "cuda")]
use candle::CudaStorage;
use candle::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};

use super::composed;
#[cfg(feature = "cuda")]
use super::cuda;
use super::real::{Real, for_real, numbers};

/// The `count` numbers of `weight` with the largest magnitude; the others are 0. Of equals, the later ones are kept.
///
/// The gradient passes as if nothing were 0, so that a weight out of use can come back (Wortsman, Farhadi & Rastegari 2019,
/// "Discovering Neural Wirings").
///
/// # Errors
/// When `count` is 0 or larger than the number of weights.
pub fn top_k(weight: &Tensor, count: usize) -> Result<Tensor> {
    if !(1..=weight.elem_count()).contains(&count) {
        bail!("top_k: wanted 1 to {} weights, found {count}", weight.elem_count())
    }
    #[cfg(feature = "cuda")]
    if cuda::selects(weight) {
        return weight.contiguous()?.apply_op1(TopK(count));
    }
    if !weight.device().is_cpu() {
        return composed::top_k(weight, count);
    }
    weight.contiguous()?.apply_op1(TopK(count))
}

struct TopK(usize);

impl CustomOp1 for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn cpu_fwd(&self, weight: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("top_k", weight, T => {
            let weight = numbers::<T>("top_k", weight, layout)?;
            let mut kept = weight.to_vec();
            smallest(weight, weight.len() - self.0).into_iter().for_each(|at| kept[at] = 0.0);
            Ok((T::to_cpu_storage_owned(kept), layout.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, weight: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        Ok((cuda::top_k(weight, layout, self.0)?, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// Where the `count` numbers of smallest magnitude are: by (magnitude, place) in ascending order, the first. NaN is the largest.
pub(super) fn smallest<T: Real>(weight: &[T], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..weight.len()).collect();
    if count < places.len() {
        let magnitude = |at: &usize| weight[*at].to_f64().abs();
        places.select_nth_unstable_by(count, |a, b| magnitude(a).total_cmp(&magnitude(b)).then(a.cmp(b)));
        places.truncate(count);
    }
    places
}
