//! One step of an optimiser for one parameter, in place.
//!
//! The caller keeps the state: variables of the parameter's shape that begin as zeros.

use candle::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};

use super::real::{Real, check_alike, each_part, for_real, numbers, numbers_mut, vectorised};

/// Stochastic gradient descent as PyTorch's `SGD` with dampening 0 does it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// What is left of the last step's velocity; 0 for none.
    pub momentum: f64,
    /// Whether to look one step ahead; wants momentum.
    pub nesterov: bool,
    /// Factor of the parameter that is added to its gradient.
    pub weight_decay: f64,
}

/// How weight decay enters [`Adam`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Added to the gradient (`Adam`).
    Gradient,
    /// Taken from the parameter (`AdamW`, Loshchilov & Hutter 2019).
    Parameter,
}

/// Adam (Kingma & Ba 2015) as PyTorch's `Adam` and `AdamW` do it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Factor of the parameter.
    pub weight_decay: f64,
    /// Where that goes.
    pub decay: Decay,
}

/// Moves `param` by one step; `velocity` has its shape and begins as zeros (which makes the first velocity the gradient).
///
/// # Errors
/// When shapes, types or devices differ, or Nesterov's step is asked for without momentum.
pub fn sgd_step(param: &Var, grad: &Tensor, velocity: &Var, sgd: &Sgd) -> Result<()> {
    if sgd.nesterov && sgd.momentum <= 0.0 {
        bail!("sgd_step: wanted momentum for Nesterov's step, found {}", sgd.momentum)
    }
    let grad = &check("sgd_step", param, grad, &[("velocity", velocity)])?;
    let lookahead = if sgd.nesterov { Some((sgd.momentum, sgd.weight_decay)) } else { None };
    if param.device().is_cpu() {
        velocity.inplace_op3(grad, param, &Velocity { momentum: sgd.momentum, weight_decay: sgd.weight_decay })?;
        return param.inplace_op3(grad, velocity, &Descend { lr: sgd.lr, lookahead });
    }
    let (old, before) = (param.as_detached_tensor(), velocity.as_detached_tensor());
    let grad = (grad + (&old * sgd.weight_decay)?)?;
    let after = ((before * sgd.momentum)? + &grad)?;
    let step = if sgd.nesterov { (grad + (&after * sgd.momentum)?)? } else { after.clone() };
    param.set(&(old - (step * sgd.lr)?)?)?;
    velocity.set(&after)
}

/// Moves `param` by step number `step`, counted from 1; `first` and `second` have its shape and begin as zeros.
///
/// # Errors
/// When shapes, types or devices differ, or `step` is 0.
pub fn adam_step(param: &Var, grad: &Tensor, first: &Var, second: &Var, step: usize, adam: &Adam) -> Result<()> {
    if step == 0 {
        bail!("adam_step: wanted a step counted from 1, found 0")
    }
    let grad = &check("adam_step", param, grad, &[("first moment", first), ("second moment", second)])?;
    let unbias = |beta: f64| 1.0 - beta.powf(step as f64);
    let (added, kept) = match adam.decay {
        Decay::Gradient => (adam.weight_decay, 1.0),
        Decay::Parameter => (0.0, 1.0 - adam.lr * adam.weight_decay),
    };
    let (rate, root) = (adam.lr / unbias(adam.beta1), unbias(adam.beta2).sqrt());
    let grad = &if added == 0.0 { grad.clone() } else { (grad + (param.as_detached_tensor() * added)?)? };
    if param.device().is_cpu() {
        first.inplace_op2(grad, &Blend { beta: adam.beta1, squared: false })?;
        second.inplace_op2(grad, &Blend { beta: adam.beta2, squared: true })?;
        return param.inplace_op3(first, second, &AdamDescend { rate, root, kept, eps: adam.eps });
    }
    first.set(&((first.as_detached_tensor() * adam.beta1)? + (grad * (1.0 - adam.beta1))?)?)?;
    second.set(&((second.as_detached_tensor() * adam.beta2)? + (grad.sqr()? * (1.0 - adam.beta2))?)?)?;
    let root = ((second.as_detached_tensor().sqrt()? / root)? + adam.eps)?;
    let step = ((first.as_detached_tensor() * rate)? / root)?;
    param.set(&((param.as_detached_tensor() * kept)? - step)?)
}

/// The gradient, contiguous and free of its history, when all fits.
fn check(op: &str, param: &Var, grad: &Tensor, state: &[(&str, &Var)]) -> Result<Tensor> {
    let state = state.iter().map(|&(name, var)| (name, var.as_tensor()));
    for (name, tensor) in std::iter::once(("gradient", grad)).chain(state) {
        check_alike(op, name, tensor, param)?;
        if tensor.dims() != param.dims() {
            bail!("{op}: {name}: wanted {:?}, found {:?}", param.dims(), tensor.dims())
        }
    }
    grad.detach().contiguous()
}

/// Numbers a task.
const PART: usize = 1 << 14;

/// `f(number to be changed, a, b)` for each place.
fn update<T: Real>(op: &str, (dst, dl): (&mut CpuStorage, &Layout), (a, b): (&[T], &[T]), f: impl Fn(T, T, T) -> T + Sync) -> Result<()> {
    let dst = numbers_mut::<T>(op, dst, dl)?;
    let work = dst.len();
    each_part(dst, PART, work, |part, dst| {
        let at = part * PART;
        let (a, b) = (&a[at..][..dst.len()], &b[at..][..dst.len()]);
        vectorised::<T, _>(|| dst.iter_mut().zip(a).zip(b).for_each(|((dst, &a), &b)| *dst = f(*dst, a, b)));
    });
    Ok(())
}

/// `velocity = momentum · velocity + grad + weight_decay · param`.
struct Velocity {
    momentum: f64,
    weight_decay: f64,
}

impl InplaceOp3 for Velocity {
    fn name(&self) -> &'static str {
        "sgd_step velocity"
    }

    fn cpu_fwd(&self, v: &mut CpuStorage, vl: &Layout, grad: &CpuStorage, gl: &Layout, param: &CpuStorage, pl: &Layout) -> Result<()> {
        for_real!("sgd_step", grad, T => {
            let (momentum, decay) = (self.momentum as T, self.weight_decay as T);
            let operands = (numbers::<T>("sgd_step", grad, gl)?, numbers::<T>("sgd_step", param, pl)?);
            update("sgd_step", (v, vl), operands, |velocity, grad, param| momentum * velocity + (grad + decay * param))
        })
    }
}

/// `param −= lr · velocity`, or Nesterov's step with (momentum, weight decay).
struct Descend {
    lr: f64,
    lookahead: Option<(f64, f64)>,
}

impl InplaceOp3 for Descend {
    fn name(&self) -> &'static str {
        "sgd_step"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, pl: &Layout, grad: &CpuStorage, gl: &Layout, v: &CpuStorage, vl: &Layout) -> Result<()> {
        for_real!("sgd_step", grad, T => {
            let lr = self.lr as T;
            let operands = (numbers::<T>("sgd_step", grad, gl)?, numbers::<T>("sgd_step", v, vl)?);
            match self.lookahead {
                None => update("sgd_step", (param, pl), operands, |param, _, velocity| param - lr * velocity),
                Some((momentum, decay)) => {
                    let (momentum, decay) = (momentum as T, decay as T);
                    update("sgd_step", (param, pl), operands, |param, grad, velocity| {
                        param - lr * (grad + decay * param + momentum * velocity)
                    })
                }
            }
        })
    }
}

/// `mean = beta · mean + (1 − beta) · grad`, or of its square.
struct Blend {
    beta: f64,
    squared: bool,
}

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "adam_step moment"
    }

    fn cpu_fwd(&self, mean: &mut CpuStorage, ml: &Layout, grad: &CpuStorage, gl: &Layout) -> Result<()> {
        for_real!("adam_step", grad, T => {
            let (keep, take) = (self.beta as T, (1.0 - self.beta) as T);
            let grad = numbers::<T>("adam_step", grad, gl)?;
            if self.squared {
                update("adam_step", (mean, ml), (grad, grad), |mean, grad, _| keep * mean + take * grad * grad)
            } else {
                update("adam_step", (mean, ml), (grad, grad), |mean, grad, _| keep * mean + take * grad)
            }
        })
    }
}

/// `param = kept · param − rate · first / (√second / root + eps)`.
struct AdamDescend {
    rate: f64,
    root: f64,
    kept: f64,
    eps: f64,
}

impl InplaceOp3 for AdamDescend {
    fn name(&self) -> &'static str {
        "adam_step"
    }

    fn cpu_fwd(
        &self,
        param: &mut CpuStorage,
        pl: &Layout,
        first: &CpuStorage,
        fl: &Layout,
        second: &CpuStorage,
        sl: &Layout,
    ) -> Result<()> {
        for_real!("adam_step", first, T => {
            let [rate, root, kept, eps] = [self.rate, self.root, self.kept, self.eps].map(|number| number as T);
            let operands = (numbers::<T>("adam_step", first, fl)?, numbers::<T>("adam_step", second, sl)?);
            update("adam_step", (param, pl), operands, |param, first, second| {
                kept * param - rate * first / (second.sqrt() / root + eps)
            })
        })
    }
}
