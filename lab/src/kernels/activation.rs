//! Activation functions, each one node of the graph with one backward pass.

use candle::{CpuStorage, CustomOp1, InplaceOp2, Layout, Result, Shape, Tensor, WithDType};

use super::buffers::fresh;
use super::composed;
use super::real::{Real, each_part, for_real, numbers, numbers_mut, vectorised};

/// A function of single numbers that follows a layer. Where the slope jumps it is PyTorch's: that of the flat side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`; the slope at 0 is 0.
    Relu,
    /// `min(max(x, 0), 6)`; the slopes at 0 and 6 are 0.
    Relu6,
    /// `x` where positive, else `exp(x) − 1`.
    Elu,
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x · sigmoid(x)`, also called SiLU.
    Swish,
    /// `x · relu6(x + 3) / 6`.
    HardSwish,
    /// `relu6(x + 3) / 6`.
    HardSigmoid,
}

impl Activation {
    /// As in a config: `relu`, `hard_swish`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Elu => "elu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Swish => "swish",
            Self::HardSwish => "hard_swish",
            Self::HardSigmoid => "hard_sigmoid",
        }
    }
}

/// The function of every number of `xs`: same shape, same type.
///
/// # Errors
/// When `xs` is neither `f32` nor `f64`.
pub fn activate(xs: &Tensor, activation: Activation) -> Result<Tensor> {
    if !xs.device().is_cpu() {
        return composed::activate(xs, activation);
    }
    xs.contiguous()?.apply_op1(Activate(activation))
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("activate", xs, T => {
            Ok((T::to_cpu_storage_owned(forward::<T>(numbers("activate", xs, xl)?, self.0)), xl.shape().clone()))
        })
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(activate_backward(grad.copy()?, xs, self.0)?))
    }
}

/// The gradient of the input, in the memory of the output's.
pub(crate) fn activate_backward(grad: Tensor, xs: &Tensor, activation: Activation) -> Result<Tensor> {
    let (grad, xs) = (grad.contiguous()?, xs.contiguous()?);
    grad.inplace_op2(&xs, &Backward(activation))?;
    Ok(grad)
}

struct Backward(Activation);

impl InplaceOp2 for Backward {
    fn name(&self) -> &'static str {
        "activate backward"
    }

    fn cpu_fwd(&self, grad: &mut CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<()> {
        for_real!("activate", xs, T => {
            let xs = numbers::<T>("activate", xs, xl)?;
            backward(numbers_mut("activate", grad, gl)?, xs, self.0);
            Ok(())
        })
    }
}

/// An activation as code, so that every loop over numbers is compiled for the one it applies.
pub(super) trait Curve: Copy + Send + Sync {
    /// At `x`.
    fn value<T: Real>(self, x: T) -> T;
    /// The derivative at `x`.
    fn slope<T: Real>(self, x: T) -> T;
}

/// No activation.
#[derive(Clone, Copy)]
pub(super) struct Identity;

macro_rules! curves {
    ($($name:ident: $x:ident => $value:expr, $slope:expr;)*) => {
        $(#[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Curve for $name {
            #[inline(always)]
            fn value<T: Real>(self, $x: T) -> T {
                $value
            }
            #[inline(always)]
            fn slope<T: Real>(self, $x: T) -> T {
                $slope
            }
        })*
    };
}

// Comparisons are written so that NaN stays NaN.
curves! {
    Relu: x => if x <= T::ZERO { T::ZERO } else { x }, if x <= T::ZERO { T::ZERO } else { T::one() };
    Relu6: x => relu6(x), if x > T::ZERO && x < T::from_f64(6.0) { T::one() } else { T::ZERO };
    Elu: x => if x > T::ZERO { x } else { x.exp_m1() }, if x > T::ZERO { T::one() } else { x.exp() };
    Sigmoid: x => sigmoid(x), {
        let s = sigmoid(x);
        s * (T::one() - s)
    };
    Tanh: x => x.tanh(), {
        let t = x.tanh();
        T::one() - t * t
    };
    Swish: x => x * sigmoid(x), {
        let s = sigmoid(x);
        s * (T::one() + x * (T::one() - s))
    };
    HardSwish: x => x * relu6(x + T::from_f64(3.0)) / T::from_f64(6.0), {
        let slope = x / T::from_f64(3.0) + T::from_f64(0.5);
        let slope = if x < T::from_f64(3.0) { slope } else { T::one() };
        if x <= T::from_f64(-3.0) { T::ZERO } else { slope }
    };
    HardSigmoid: x => relu6(x + T::from_f64(3.0)) / T::from_f64(6.0), {
        if x > T::from_f64(-3.0) && x < T::from_f64(3.0) { T::from_f64(1.0 / 6.0) } else { T::ZERO }
    };
}

impl Curve for Identity {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x
    }
    #[inline(always)]
    fn slope<T: Real>(self, _: T) -> T {
        T::one()
    }
}

#[inline(always)]
fn relu6<T: Real>(x: T) -> T {
    let six = T::from_f64(6.0);
    let x = if x < T::ZERO { T::ZERO } else { x };
    if x > six { six } else { x }
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    // `exp` overflows to infinity for very negative `x`, and the quotient is then 0, as it should be.
    T::one() / (T::one() + (-x).exp())
}

/// Evaluates `$body` with `$curve` as the code of `$activation`.
macro_rules! for_curve {
    ($activation:expr, $curve:ident => $body:expr) => {{
        use $crate::kernels::activation as curves;
        match $activation {
            Activation::Relu => {
                let $curve = curves::Relu;
                $body
            }
            Activation::Relu6 => {
                let $curve = curves::Relu6;
                $body
            }
            Activation::Elu => {
                let $curve = curves::Elu;
                $body
            }
            Activation::Sigmoid => {
                let $curve = curves::Sigmoid;
                $body
            }
            Activation::Tanh => {
                let $curve = curves::Tanh;
                $body
            }
            Activation::Swish => {
                let $curve = curves::Swish;
                $body
            }
            Activation::HardSwish => {
                let $curve = curves::HardSwish;
                $body
            }
            Activation::HardSigmoid => {
                let $curve = curves::HardSigmoid;
                $body
            }
        }
    }};
}

/// Numbers a task: large enough to be worth a thread, small enough to stay in its cache.
const PART: usize = 1 << 14;

fn forward<T: Real>(xs: &[T], activation: Activation) -> Vec<T> {
    fn map<T: Real>(xs: &[T], curve: impl Curve) -> Vec<T> {
        let mut ys = fresh(xs.len());
        each_part(&mut ys, PART, xs.len(), |part, ys| {
            let xs = &xs[part * PART..][..ys.len()];
            vectorised::<T, _>(|| ys.iter_mut().zip(xs).for_each(|(y, &x)| *y = curve.value(x)));
        });
        ys
    }
    for_curve!(activation, curve => map(xs, curve))
}

/// Multiplies the gradient by the slope, in place.
fn backward<T: Real>(grad: &mut [T], xs: &[T], activation: Activation) {
    fn map<T: Real>(grad: &mut [T], xs: &[T], curve: impl Curve) {
        let work = grad.len();
        each_part(grad, PART, work, |part, grad| {
            let xs = &xs[part * PART..][..grad.len()];
            vectorised::<T, _>(|| grad.iter_mut().zip(xs).for_each(|(grad, &x)| *grad *= curve.slope(x)));
        });
    }
    for_curve!(activation, curve => map(grad, xs, curve));
}
