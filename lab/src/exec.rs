//! Runs a graph on tensors: one loop, one `match`. Changes nothing: what training learns besides gradients (the
//! statistics of batch norm) is handed back.

use candle::{D, Tensor, Var};

use crate::graph::{Graph, NodeId, Op};
use crate::kernels::{self, Divisor};
use crate::params::Params;
use crate::{Error, Result};

/// Which statistics batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch.
    Train,
    /// The running ones.
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
    /// One per batch-norm node, in [`Mode::Train`].
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
        let computed = match &node.op {
            Op::Input => Ok(xs.clone()),
            Op::Linear { .. } => kernels::linear(input(0), param(0), Some(param(1))),
            Op::Conv(conv) => kernels::conv2d(input(0), param(0), conv.bias.then(|| param(1)), &conv.window()),
            Op::BatchNorm { eps, .. } => {
                let affine = Some(kernels::Affine { weight: param(0), bias: param(1) });
                match mode {
                    Mode::Train => kernels::batch_norm(input(0), affine, *eps).map(|normed| {
                        statistics.push(Statistics { node: id, mean: normed.mean, var: normed.var });
                        normed.ys
                    }),
                    Mode::Eval => kernels::batch_norm_running(input(0), param(2), param(3), affine, *eps),
                }
            }
            Op::Activate(activation) => kernels::activate(input(0), *activation),
            Op::MaxPool(pool) => kernels::max_pool2d(input(0), pool),
            Op::AvgPool(pool) => kernels::avg_pool2d(input(0), pool, Divisor::Window),
            Op::GlobalAvgPool => kernels::global_avg_pool(input(0)),
            Op::Flatten => input(0).flatten_from(1),
            Op::Concat => join(&node.inputs, &values),
            Op::Pick { channels } => history.join(&node.inputs, &values).and_then(|all| kernels::pick(&all, channels)),
            Op::Add => (1..node.inputs.len()).try_fold(input(0).clone(), |sum, k| sum + input(k)),
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

/// Class indices `(n)` of logits `(n, classes)`.
///
/// # Errors
/// When `logits` has no second dimension.
pub fn predictions(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.argmax(D::Minus1)?)
}
