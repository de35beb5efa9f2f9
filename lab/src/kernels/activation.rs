//! Activation functions, each one node of the graph with one backward pass.

use candle::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

use super::composed;
use super::real::{Real, each_part, for_real, numbers};

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
        Ok(Some(grad.contiguous()?.apply_op2_no_bwd(xs, &Backward(self.0))?))
    }
}

struct Backward(Activation);

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "activate backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!("activate", grad, T => {
            let dxs = backward::<T>(numbers("activate", grad, gl)?, numbers("activate", xs, xl)?, self.0);
            Ok((T::to_cpu_storage_owned(dxs), gl.shape().clone()))
        })
    }
}

/// Numbers a task: large enough to be worth a thread, small enough to stay in its cache.
const PART: usize = 1 << 14;

fn forward<T: Real>(xs: &[T], activation: Activation) -> Vec<T> {
    fn map<T: Real>(xs: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
        let mut ys = vec![T::zero(); xs.len()];
        each_part(&mut ys, PART, xs.len(), |part, ys| {
            for (y, &x) in ys.iter_mut().zip(&xs[part * PART..]) {
                *y = f(x);
            }
        });
        ys
    }
    let (zero, three, six) = (T::zero(), T::from_f64(3.0), T::from_f64(6.0));
    // Comparisons are written so that NaN stays NaN.
    let relu6 = move |x: T| {
        if x < zero {
            zero
        } else if x > six {
            six
        } else {
            x
        }
    };
    match activation {
        Activation::Relu => map(xs, |x| if x <= zero { zero } else { x }),
        Activation::Relu6 => map(xs, relu6),
        Activation::Elu => map(xs, |x| if x > zero { x } else { x.exp_m1() }),
        Activation::Sigmoid => map(xs, sigmoid),
        Activation::Tanh => map(xs, T::tanh),
        Activation::Swish => map(xs, |x| x * sigmoid(x)),
        Activation::HardSwish => map(xs, |x| x * relu6(x + three) / six),
        Activation::HardSigmoid => map(xs, |x| relu6(x + three) / six),
    }
}

fn backward<T: Real>(grad: &[T], xs: &[T], activation: Activation) -> Vec<T> {
    fn map<T: Real>(grad: &[T], xs: &[T], slope: impl Fn(T) -> T + Sync) -> Vec<T> {
        let mut dxs = vec![T::zero(); xs.len()];
        each_part(&mut dxs, PART, xs.len(), |part, dxs| {
            let at = part * PART;
            for ((dx, &g), &x) in dxs.iter_mut().zip(&grad[at..]).zip(&xs[at..]) {
                *dx = g * slope(x);
            }
        });
        dxs
    }
    let (zero, one, three, six) = (T::zero(), T::one(), T::from_f64(3.0), T::from_f64(6.0));
    match activation {
        Activation::Relu => map(grad, xs, |x| if x <= zero { zero } else { one }),
        Activation::Relu6 => map(grad, xs, |x| if x > zero && x < six { one } else { zero }),
        Activation::Elu => map(grad, xs, |x| if x > zero { one } else { x.exp() }),
        Activation::Sigmoid => map(grad, xs, |x| {
            let s = sigmoid(x);
            s * (one - s)
        }),
        Activation::Tanh => map(grad, xs, |x| {
            let t = x.tanh();
            one - t * t
        }),
        Activation::Swish => map(grad, xs, |x| {
            let s = sigmoid(x);
            s * (one + x * (one - s))
        }),
        Activation::HardSwish => map(grad, xs, |x| {
            if x <= -three {
                zero
            } else if x < three {
                x / three + one / (one + one)
            } else {
                one
            }
        }),
        Activation::HardSigmoid => map(grad, xs, |x| if x > -three && x < three { one / six } else { zero }),
    }
}

fn sigmoid<T: Real>(x: T) -> T {
    // `exp` overflows to infinity for very negative `x`, and the quotient is then 0, as it should be.
    T::one() / (T::one() + (-x).exp())
}
