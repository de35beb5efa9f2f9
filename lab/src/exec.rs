//! Runs a graph on tensors: one loop, one `match`. Changes nothing: what training learns besides gradients (the
//! statistics of batch norm) is handed back.

use candle::{D, Tensor, Var};
use datasets::Seed;

use crate::graph::{Graph, NodeId, Op, Unit};
use crate::kernels::{self, Divisor};
use crate::params::Params;
use crate::{Error, Result};

/// Which statistics batch norm uses, and whether anything is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch; what is dropped depends on the seed, which is that of one step, and on the node's name.
    Train(Seed),
    /// The running ones; nothing is dropped.
    Eval,
}

/// Mean and variance `(c)` that a batch had at a batch-norm node.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// The batch-norm node.
    pub node: NodeId,
    /// Mean per channel.
    pub mean: Tensor,
    /// Unbiased variance per channel.
    pub var: Tensor,
}

/// What a run gives.
#[derive(Debug, Clone)]
pub struct Output {
    /// The network's value, `(n, ...)`: logits `(n, classes)` of a classifier.
    pub value: Tensor,
    /// One per batch-norm node, in training.
    pub statistics: Vec<Statistics>,
}

/// Every node's value in one run.
#[derive(Debug, Clone)]
pub struct Trace {
    values: Vec<Tensor>,
    probes: Vec<Var>,
}

impl Trace {
    /// The value `(n, ...)` of a node.
    pub fn value(&self, node: NodeId) -> &Tensor {
        &self.values[node.0]
    }

    /// The gradient at a node's value, of whatever `gradients` belongs to; `None` where nothing flowed.
    ///
    /// candle drops the gradients of intermediate values; a zero variable added to each node keeps them.
    pub fn gradient<'g>(&self, gradients: &'g candle::backprop::GradStore, node: NodeId) -> Option<&'g Tensor> {
        gradients.get(self.probes[node.0].as_tensor())
    }
}

/// Runs the graph on `xs` `(n, ...)`.
///
/// # Errors
/// When `xs` is not of the graph's input shape, or an operation fails; the message names the node.
#[expect(clippy::missing_panics_doc, reason = "the output is kept to the end")]
pub fn forward(graph: &Graph, params: &Params, xs: &Tensor, mode: Mode) -> Result<Output> {
    let (mut values, statistics) = run(graph, params, xs, mode, Keep::Needed)?;
    let value = values.swap_remove(graph.output.0).expect("the output is kept to the end");
    Ok(Output { value, statistics })
}

/// Runs the graph in [`Mode::Eval`] and keeps every value, with a probe for the gradient at each.
///
/// # Errors
/// As [`forward`].
pub fn trace(graph: &Graph, params: &Params, xs: &Tensor) -> Result<Trace> {
    trace_in(graph, params, xs, Mode::Eval)
}

/// [`trace`] in another mode.
pub(crate) fn trace_in(graph: &Graph, params: &Params, xs: &Tensor, mode: Mode) -> Result<Trace> {
    let mut probes = Vec::with_capacity(graph.nodes.len());
    let (values, _) = run(graph, params, xs, mode, Keep::All(&mut probes))?;
    Ok(Trace { values: values.into_iter().map(|value| value.expect("every value is kept")).collect(), probes })
}

/// What a run holds on to.
enum Keep<'p> {
    /// A value until its last reader ran: without gradients, its memory is free from then on.
    Needed,
    /// Every value, each with a probe.
    All(&'p mut Vec<Var>),
}

/// What the last `Pick` chose from. The next one in a dense cell chooses from the same and one value more in front, so
/// remembering makes a cell of depth d cost d joins of two values instead of d joins of d.
struct History {
    inputs: Vec<NodeId>,
    joined: Option<Tensor>,
}

impl History {
    fn join(&mut self, inputs: &[NodeId], values: &Values) -> candle::Result<Tensor> {
        let joined = match (inputs, &self.joined) {
            ([first, rest @ ..], Some(joined)) if rest == self.inputs => kernels::concat(&[value(*first, values), joined])?,
            _ => join(inputs, values)?,
        };
        self.inputs = inputs.to_vec();
        self.joined = Some(joined.clone());
        Ok(joined)
    }
}

fn join(inputs: &[NodeId], values: &Values) -> candle::Result<Tensor> {
    match inputs {
        [only] => Ok(value(*only, values).clone()),
        _ => kernels::concat(&inputs.iter().map(|&id| value(id, values)).collect::<Vec<_>>()),
    }
}

fn value(id: NodeId, values: &Values) -> &Tensor {
    values[id.0].as_ref().expect("inputs come first")
}

type Values = Vec<Option<Tensor>>;

fn run(graph: &Graph, params: &Params, xs: &Tensor, mode: Mode, mut keep: Keep<'_>) -> Result<(Values, Vec<Statistics>)> {
    if xs.dims().get(1..) != Some(graph.input_shape()) || xs.elem_count() == 0 {
        return Err(Error::mismatch(
            format!("{}: input", graph.name),
            format!("(n, {:?}) with n at least 1", graph.input_shape()),
            format!("{:?}", xs.dims()),
        ));
    }
    let mut last_reader = vec![0; graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|input| last_reader[input.0] = at);
    }
    last_reader[graph.output.0] = usize::MAX;
    let mut values: Values = vec![None; graph.nodes.len()];
    let mut statistics = Vec::new();
    let mut history = History { inputs: Vec::new(), joined: None };
    for (at, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(at);
        let input = |k: usize| value(node.inputs[k], &values);
        let own = params.of(id);
        let param = |k: usize| own[k].1.as_tensor();
        let affine = |affine: bool| affine.then(|| kernels::Affine { weight: param(0), bias: param(1) });
        let computed = match &node.op {
            Op::Input => Ok(xs.clone()),
            Op::Linear(layer) => used(param(0), layer.top).and_then(|weight| linear(input(0), &weight, layer.bias.then(|| param(1)))),
            Op::Conv(conv) => {
                used(param(0), conv.top).and_then(|weight| kernels::conv2d(input(0), &weight, conv.bias.then(|| param(1)), &conv.window()))
            }
            Op::BatchNorm { eps, affine: is_affine, .. } => match mode {
                Mode::Train(_) => kernels::batch_norm(input(0), affine(*is_affine), *eps).map(|normed| {
                    statistics.push(Statistics { node: id, mean: normed.mean, var: normed.var });
                    normed.ys
                }),
                Mode::Eval => {
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
            Op::Concat => join(&node.inputs, &values),
            Op::Pick { channels } => history.join(&node.inputs, &values).and_then(|all| kernels::pick(&all, channels)),
            Op::Add => (1..node.inputs.len()).try_fold(input(0).clone(), |sum, k| sum + input(k)),
            Op::WeightedSum { through } => {
                let inputs: Vec<&Tensor> = (0..node.inputs.len()).map(input).collect();
                let weights = through.map_or_else(|| Ok(param(0).clone()), |through| kernels::activate(param(0), through));
                weights.and_then(|weights| kernels::weighted_sum(&inputs, &weights))
            }
            Op::Multiply => (1..node.inputs.len()).try_fold(input(0).clone(), |product, k| kernels::multiply(&product, input(k))),
            Op::Matmul => input(0).contiguous().and_then(|xs| xs.matmul(&input(1).contiguous()?)),
            Op::Scale { by } => input(0) * *by,
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
        let value = computed.map_err(|error| error.context(format!("{}: {}", graph.name, node.name)))?;
        match &mut keep {
            Keep::Needed => {
                values[at] = Some(value);
                for input in &node.inputs {
                    if last_reader[input.0] == at {
                        values[input.0] = None;
                    }
                }
            }
            Keep::All(probes) => {
                let probe = Var::zeros(value.shape(), value.dtype(), value.device())?;
                values[at] = Some((value + probe.as_tensor())?);
                probes.push(probe);
            }
        }
    }
    Ok((values, statistics))
}

/// `xs (n, d)` to `(n, o)`, or `(n, t, d)` to `(n, t, o)`.
fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> candle::Result<Tensor> {
    match *xs.dims() {
        [n, t, d] => kernels::linear(&xs.reshape((n * t, d))?, weight, bias)?.reshape((n, t, ())),
        _ => kernels::linear(xs, weight, bias),
    }
}

/// The weights in use.
fn used(weight: &Tensor, top: Option<usize>) -> candle::Result<Tensor> {
    top.map_or_else(|| Ok(weight.clone()), |top| kernels::top_k(weight, top))
}

/// Class indices `(n)` of logits `(n, classes)`.
///
/// # Errors
/// When `logits` has no second dimension.
pub fn predictions(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.argmax(D::Minus1)?)
}
