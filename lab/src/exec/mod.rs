//! Runs a graph on tensors: one loop, one `match`. Changes nothing: what training learns besides gradients (the
//! statistics of batch norm) is handed back.

mod apply;
mod cast;
mod follow;
mod plan;
mod tape;
mod workspace;

use apply::apply_in;
use cast::Mixed;
pub use follow::{Done, Pass, follow};
pub use plan::{Kept, kept};
pub(crate) use plan::{Plan, Step};
use tape::Tape;
pub(crate) use workspace::{Computed, Workspace};

use candle::{D, DType, Tensor, Var};
use datasets::Seed;

use crate::graph::{Graph, NodeId, Op};
use crate::kernels;
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
pub fn forward(graph: &Graph, params: &Params, xs: &Tensor, mode: Mode) -> Result<Output> {
    forward_in(None, graph, params, xs, mode)
}

/// [`forward`] in mixed precision: convolutions, linear layers and matrix products compute in `narrow`, a type of less than the parameters'
/// and the input's digits; softmax and the norms of single samples in theirs; what follows an operation in the type that it leaves.
/// The network's value and the gradients of the parameters are of their type.
///
/// On a card `narrow` is `bf16`, whose range is that of `f32`, so that no gradient vanishes and no loss is scaled.
///
/// # Errors
/// As [`forward`].
pub fn forward_mixed(graph: &Graph, params: &Params, xs: &Tensor, mode: Mode, narrow: DType) -> Result<Output> {
    forward_in(Some(narrow), graph, params, xs, mode)
}

/// [`forward_mixed`] where a narrow type is given.
fn forward_in(narrow: Option<DType>, graph: &Graph, params: &Params, xs: &Tensor, mode: Mode) -> Result<Output> {
    let (mut values, statistics) = run(graph, params, xs, (mode, narrow), Keep::Needed)?;
    let value = values.swap_remove(graph.output.0).expect("the output is kept to the end");
    Ok(Output { value: value.to_dtype(xs.dtype())?, statistics })
}

/// Runs the graph in [`Mode::Eval`] and keeps every value, with a probe for the gradient at each.
///
/// # Errors
/// As [`forward`].
pub fn trace(graph: &Graph, params: &Params, xs: &Tensor) -> Result<Trace> {
    trace_in(graph, params, xs, (Mode::Eval, None))
}

/// [`trace`] in another mode, and in mixed precision where a narrow type is given.
pub(crate) fn trace_in(graph: &Graph, params: &Params, xs: &Tensor, how: (Mode, Option<DType>)) -> Result<Trace> {
    let mut probes = Vec::with_capacity(graph.nodes.len());
    let (values, _) = run(graph, params, xs, how, Keep::All(&mut probes))?;
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
            ([first, rest @ ..], Some(joined)) if rest == self.inputs => apply::join(&[value(*first, values), joined])?,
            _ => join(inputs, values)?,
        };
        self.inputs = inputs.to_vec();
        self.joined = Some(joined.clone());
        Ok(joined)
    }
}

fn join(inputs: &[NodeId], values: &Values) -> candle::Result<Tensor> {
    apply::join(&inputs.iter().map(|&id| value(id, values)).collect::<Vec<_>>())
}

fn value(id: NodeId, values: &Values) -> &Tensor {
    values[id.0].as_ref().expect("inputs come first")
}

type Values = Vec<Option<Tensor>>;

fn run(
    graph: &Graph,
    params: &Params,
    xs: &Tensor,
    (mode, narrow): (Mode, Option<DType>),
    mut keep: Keep<'_>,
) -> Result<(Values, Vec<Statistics>)> {
    check_input(graph, xs)?;
    let mixed = narrow.map(|narrow| Mixed { narrow, wide: xs.dtype() });
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
        let computed = match &node.op {
            Op::Input => Ok(xs.clone()),
            Op::Pick { channels } => history.join(&node.inputs, &values).and_then(|all| kernels::pick(&all, channels)),
            _ => {
                let inputs: Vec<&Tensor> = node.inputs.iter().map(|&input| value(input, &values)).collect();
                let own: Vec<&Tensor> = params.of(id).iter().map(|(_, var)| var.as_tensor()).collect();
                apply_in(mixed, node, &inputs, &own, mode).map(|applied| {
                    let of_node = |(mean, var)| Statistics { node: id, mean, var };
                    statistics.extend(applied.statistics.map(of_node));
                    applied.value
                })
            }
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

fn check_input(graph: &Graph, xs: &Tensor) -> Result<()> {
    if xs.dims().get(1..) == Some(graph.input_shape()) && xs.elem_count() > 0 {
        return Ok(());
    }
    let wanted = format!("(n, {:?}) with n at least 1", graph.input_shape());
    Err(Error::mismatch(format!("{}: input", graph.name), wanted, format!("{:?}", xs.dims())))
}

/// Class indices `(n)` of logits `(n, classes)`.
///
/// # Errors
/// When `logits` has no second dimension.
pub fn predictions(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.argmax(D::Minus1)?)
}
