//! Sums of gradients, in place.

use candle::{CpuStorage, CustomOp1, InplaceOp2, Layout, Result, Shape, Tensor, WithDType};

use super::buffers::fresh;
use super::real::{Real, each_part, for_real, numbers, numbers_mut, vectorised};

/// Numbers a task.
const PART: usize = 1 << 15;

/// Adds `term` to `sum`, which nothing else may share its memory with.
pub(crate) fn add_to(sum: &Tensor, term: &Tensor) -> Result<()> {
    sum.inplace_op2(&term.contiguous()?, &Add)
}

/// The same numbers in memory of their own.
pub(crate) fn copy(xs: &Tensor) -> Result<Tensor> {
    xs.contiguous()?.apply_op1_no_bwd(&Copy)
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, sl: &Layout, term: &CpuStorage, tl: &Layout) -> Result<()> {
        fn add<T: Real>(sum: &mut [T], term: &[T]) {
            let work = sum.len();
            each_part(sum, PART, work, |part, sum| {
                let term = &term[part * PART..][..sum.len()];
                vectorised::<T, _>(|| sum.iter_mut().zip(term).for_each(|(sum, &term)| *sum += term));
            });
        }
        for_real!("add", term, T => {
            add::<T>(numbers_mut("add", sum, sl)?, numbers("add", term, tl)?);
            Ok(())
        })
    }
}

struct Copy;

impl CustomOp1 for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("copy", xs, T => {
            let xs = numbers::<T>("copy", xs, xl)?;
            let mut ys = fresh(xs.len());
            each_part(&mut ys, PART, xs.len(), |part, ys| ys.copy_from_slice(&xs[part * PART..][..ys.len()]));
            Ok((T::to_cpu_storage_owned(ys), xl.shape().clone()))
        })
    }
}
