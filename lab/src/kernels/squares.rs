//! How large the numbers of a tensor are together, and whether they are numbers at all.

use candle::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::real::{Real, each_index, for_real, numbers, sum_by};

/// The sum of the squares of `xs`, of any shape, as a scalar of `f64`: what overflows no `f32` stays finite, and what holds
/// an infinity or a NaN does not. Nothing flows back through it.
///
/// # Errors
/// When `xs` is not of `f32` or `f64`.
pub fn sum_of_squares(xs: &Tensor) -> Result<Tensor> {
    if !xs.device().is_cpu() {
        return xs.detach().to_dtype(DType::F64)?.sqr()?.sum_all();
    }
    xs.contiguous()?.apply_op1_no_bwd(&SumOfSquares)
}

struct SumOfSquares;

impl CustomOp1 for SumOfSquares {
    fn name(&self) -> &'static str {
        "sum_of_squares"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        /// Numbers a task.
        const PART: usize = 1 << 14;
        fn sum<T: Real>(xs: &[T]) -> f64 {
            let part = |part: usize| {
                let xs = &xs[part * PART..((part + 1) * PART).min(xs.len())];
                sum_by(xs.len(), |i| xs[i].to_f64() * xs[i].to_f64())
            };
            each_index(xs.len().div_ceil(PART), xs.len(), part).into_iter().sum()
        }
        for_real!("sum_of_squares", xs, T => {
            Ok((CpuStorage::F64(vec![sum::<T>(numbers("sum_of_squares", xs, xl)?)]), ().into()))
        })
    }
}
