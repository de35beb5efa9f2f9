//! One node on tensors, as part of candle's graph: what each operation means.

use candle::{Result, Tensor, bail};

use super::Mode;
use super::cast::{Mixed, alike};
use crate::graph::{Node, Op, Unit};
use crate::kernels::{self, Divisor};

/// What a node gives.
pub(super) struct Applied {
    pub(super) value: Tensor,
    /// Mean and unbiased variance of a batch norm, in training.
    pub(super) statistics: Option<(Tensor, Tensor)>,
}

/// The value of a node for its inputs and parameters, in the order of the graph, all of one type.
pub(super) fn apply(node: &Node, inputs: &[&Tensor], own: &[&Tensor], mode: Mode) -> Result<Applied> {
    apply_in(None, node, inputs, own, mode)
}

/// [`apply`], computing in the types of a run in mixed precision where it is one.
pub(super) fn apply_in(mixed: Option<Mixed>, node: &Node, inputs: &[&Tensor], own: &[&Tensor], mode: Mode) -> Result<Applied> {
    let cast = mixed.map_or_else(|| Ok(inputs.iter().map(|&input| input.clone()).collect()), |mixed| mixed.cast(&node.op, inputs))?;
    let inputs: &[&Tensor] = &cast.iter().collect::<Vec<_>>();
    let (input, param) = (|k: usize| inputs[k], |k: usize| own[k]);
    // A factor in the type of what it multiplies.
    let factor = |param: Tensor| if mixed.is_some() { param.to_dtype(input(0).dtype()) } else { Ok(param) };
    let weight = |top: Option<usize>| used(param(0), top).and_then(factor);
    let bias = |bias: bool| bias.then(|| factor(param(1).clone())).transpose();
    let affine = |affine: bool| affine.then(|| kernels::Affine { weight: param(0), bias: param(1) });
    let value = match &node.op {
        Op::Input => bail!("wanted an operation, found the input"),
        Op::Linear(layer) => linear(input(0), &weight(layer.top)?, bias(layer.bias)?.as_ref()),
        Op::Conv(conv) => kernels::conv2d(input(0), &weight(conv.top)?, bias(conv.bias)?.as_ref(), &conv.window()),
        Op::BatchNorm { eps, affine: is_affine, frozen, .. } => match mode {
            Mode::Train(_) if !frozen => {
                let normed = kernels::batch_norm(input(0), affine(*is_affine), *eps)?;
                // In the type of those that will learn from them.
                let learned = |statistic: Tensor| statistic.to_dtype(own.last().map_or(statistic.dtype(), |running| running.dtype()));
                return Ok(Applied { value: normed.ys, statistics: Some((learned(normed.mean)?, learned(normed.var)?)) });
            }
            _ => {
                let running = own.len() - 2;
                kernels::batch_norm_running(input(0), param(running), param(running + 1), affine(*is_affine), *eps)
            }
        },
        Op::InstanceNorm { eps, affine: is_affine } => kernels::instance_norm(input(0), affine(*is_affine), *eps),
        Op::LayerNorm { dims, eps, affine: is_affine } => kernels::layer_norm(input(0), *dims, affine(*is_affine), *eps),
        Op::Activate(activation) => kernels::activate(input(0), *activation),
        Op::Softmax { dim } => kernels::softmax(input(0), dim + 1),
        Op::MaxPool(pool) => kernels::max_pool2d(input(0), pool),
        Op::AvgPool(pool) => kernels::avg_pool2d(input(0), pool, Divisor::Window),
        Op::GlobalAvgPool => kernels::global_avg_pool(input(0)),
        Op::AdaptiveAvgPool { size } => kernels::adaptive_avg_pool2d(input(0), *size),
        Op::Upsample { size, by } => kernels::upsample2d(input(0), *size, *by),
        Op::Flatten => input(0).flatten_from(1),
        Op::Reshape { shape } => input(0).reshape([&input(0).dims()[..1], shape].concat()),
        Op::Permute { order } => {
            let order: Vec<usize> = [0].into_iter().chain(order.iter().map(|dim| dim + 1)).collect();
            input(0).permute(order).and_then(|xs| xs.contiguous())
        }
        Op::Slice { dim, start, len } => input(0).narrow(dim + 1, *start, *len).and_then(|xs| xs.contiguous()),
        Op::Concat => join(inputs),
        Op::Pick { channels } => join(inputs).and_then(|all| kernels::pick(&all, channels)),
        Op::Add => (1..inputs.len()).try_fold(input(0).clone(), |sum, k| sum + input(k)),
        Op::WeightedSum { through } => {
            let weights = through.map_or_else(|| Ok(param(0).clone()), |through| kernels::activate(param(0), through));
            weights.and_then(factor).and_then(|weights| kernels::weighted_sum(inputs, &weights))
        }
        Op::Multiply => (1..inputs.len()).try_fold(input(0).clone(), |product, k| kernels::multiply(&product, input(k))),
        Op::Matmul => input(0).contiguous().and_then(|xs| xs.matmul(&input(1).contiguous()?)),
        Op::Scale { by } => kernels::scale(input(0), *by),
        Op::Dropout { p, unit } => match mode {
            Mode::Eval => Ok(input(0).clone()),
            Mode::Train(seed) => {
                let drop = match unit {
                    Unit::Number => kernels::dropout,
                    Unit::Channel => kernels::dropout_channels,
                    Unit::Sample => kernels::dropout_samples,
                };
                drop(input(0), *p, seed.named(&node.name))
            }
        },
    };
    Ok(Applied { value: value?, statistics: None })
}

/// Inputs one after the other along the channels, in the widest of their types.
pub(super) fn join(inputs: &[&Tensor]) -> Result<Tensor> {
    match inputs {
        [only] => Ok((*only).clone()),
        _ => kernels::concat(&alike(inputs)?.iter().collect::<Vec<_>>()),
    }
}

/// `xs (n, d)` to `(n, o)`, or `(n, t, d)` to `(n, t, o)`.
fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match *xs.dims() {
        [n, t, d] => kernels::linear(&xs.reshape((n * t, d))?, weight, bias)?.reshape((n, t, ())),
        _ => kernels::linear(xs, weight, bias),
    }
}

/// The weights in use.
pub(super) fn used(weight: &Tensor, top: Option<usize>) -> Result<Tensor> {
    top.map_or_else(|| Ok(weight.clone()), |top| kernels::top_k(weight, top))
}
