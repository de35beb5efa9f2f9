//! How much memory a network needs, from its graph alone: by liveness, node by node, for inference and for a training step.
//!
//! Counted are the values of nodes and their gradients, parameters, their gradients, and what the optimiser keeps. Not counted
//! is what an operation needs while it runs (scratch, a library's workspace), which depends on the device and not on the graph.
//!
//! A training step runs the nodes in order, then the loss, then the nodes in reverse. A value lives until its last reader ran
//! or, where the reverse pass needs it (see [`kept`]), until that has passed its reader or its node; a gradient from the first
//! reader of its node in the reverse pass until the node itself. Nothing is computed in place, and the input has no gradient.

use candle::DType;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Op};
use crate::kernels::Activation;
use crate::train::Optimizer;
use crate::{Error, Result};

/// Which value of a node its reverse pass needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None: the gradient follows from shapes.
    Nothing,
    /// What it read.
    Input,
    /// What it gave.
    Output,
}

/// What the reverse pass of an operation needs besides the gradient and the parameters: the one rule by which memory is counted
/// here and values are kept by a tape.
pub fn kept(op: &Op) -> Kept {
    match op {
        // The gradient of the weights is a product with the input; that of a norm holds the normalised input, made again.
        Op::Linear(_) | Op::Conv(_) | Op::BatchNorm { .. } => Kept::Input,
        // Which pixel won is found again.
        Op::MaxPool(_) => Kept::Input,
        // The slope at the value is the slope at the input: a layer behind it keeps the value anyway.
        Op::Activate(Activation::Relu | Activation::Relu6) => Kept::Output,
        Op::Activate(_) => Kept::Input,
        Op::Input | Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Reshape { .. } => Kept::Nothing,
        Op::Concat | Op::Pick { .. } | Op::Add => Kept::Nothing,
        // Run again from what they read.
        Op::InstanceNorm { .. } | Op::LayerNorm { .. } | Op::Softmax { .. } | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => {
            Kept::Input
        }
        Op::WeightedSum { .. } | Op::Multiply | Op::Matmul | Op::Scale { .. } | Op::Dropout { .. } => Kept::Input,
        Op::Permute { .. } | Op::Slice { .. } => Kept::Input,
    }
}

/// Whether an operation gives the memory it was given, in another shape.
fn is_view(op: &Op) -> bool {
    matches!(op, Op::Flatten | Op::Reshape { .. })
}

/// Memory at one node, in bytes a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The node's name.
    pub node: String,
    /// Its operation.
    pub op: &'static str,
    /// Its value; 0 where it is its input in another shape.
    pub bytes: u64,
    /// All that lives while it runs in inference.
    pub inference: u64,
    /// All that lives while it runs in a training step.
    pub forward: u64,
    /// All that lives while its reverse pass runs.
    pub backward: u64,
}

/// The memory of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In execution order.
    pub rows: Vec<Row>,
    /// The most that lives at once in inference, in bytes a sample.
    pub inference: u64,
    /// The most that lives at once in a training step, in bytes a sample.
    pub training: u64,
    /// Parameters and running statistics, in bytes.
    pub parameters: u64,
    /// Gradients of the trained parameters, in bytes.
    pub gradients: u64,
}

/// The memory of `graph` with values and their gradients in `dtype`; parameters are `f32`.
///
/// ```
/// use candle::DType;
/// use lab::metrics::memory;
/// use lab::{Activation, graph::Builder};
///
/// let mut g = Builder::new("two layers", &[4]);
/// let xs = g.linear("a", g.input(), 3);
/// let xs = g.activate(xs, Activation::Relu);
/// let logits = g.linear("b", xs, 2);
/// let memory = memory::of(&g.finish(logits)?, DType::F32);
/// // While `a` runs: 4 inputs, 3 outputs. While the ReLU runs in reverse: the inputs, its output, two gradients of 3.
/// assert_eq!((memory.inference, memory.training), (4 * (4 + 3), 4 * (4 + 3 + 3 + 3)));
/// # Ok::<(), lab::Error>(())
/// ```
pub fn of(graph: &Graph, dtype: DType) -> Memory {
    let nodes = &graph.nodes;
    let width = dtype.size_in_bytes() as u64;
    // The node whose memory a node's value lies in.
    let mut home: Vec<usize> = (0..nodes.len()).collect();
    for (at, node) in nodes.iter().enumerate().filter(|(_, node)| is_view(&node.op)) {
        home[at] = home[node.inputs[0].0];
    }
    let bytes = |at: usize| if home[at] == at { nodes[at].shape.iter().product::<usize>() as u64 * width } else { 0 };

    // Moments of a training step: a node runs at its number, the loss after all of them, then the nodes in reverse.
    let loss = nodes.len();
    let reverse = |at: usize| 2 * loss - at;
    let (mut inference, mut training) = (Timeline::new(loss), Timeline::new(2 * loss + 1));
    let learns = learning(graph);
    let mut last: Vec<usize> = home.clone();
    let mut needed = last.clone();
    let mut first_gradient = vec![None; nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            let read = home[input.0];
            (last[read], needed[read]) = (last[read].max(at), needed[read].max(at));
            if kept(&node.op) == Kept::Input && learns[at] {
                needed[read] = needed[read].max(reverse(at));
            }
            if learns[input.0] {
                // Later nodes come first in the reverse pass.
                first_gradient[read] = Some(reverse(at));
            }
        }
        if kept(&node.op) == Kept::Output && learns[at] {
            needed[home[at]] = needed[home[at]].max(reverse(at));
        }
    }
    let result = home[graph.output.0];
    last[result] = loss - 1;
    needed[result] = needed[result].max(loss);
    first_gradient[result] = learns[graph.output.0].then_some(loss);
    for at in 0..nodes.len() {
        inference.add(at, last[at], bytes(at));
        training.add(at, needed[at], bytes(at));
        if let Some(first) = first_gradient[at] {
            training.add(first, reverse(at), bytes(at));
        }
    }
    let (inference, training) = (inference.sums(), training.sums());
    let row = |(at, node): (usize, &crate::graph::Node)| Row {
        node: node.name.clone(),
        op: node.op.label(),
        bytes: bytes(at),
        inference: inference[at],
        forward: training[at],
        backward: training[reverse(at)],
    };
    let parameters = graph.parameters();
    let size = |trained: bool| {
        let counted = parameters.iter().filter(|parameter| !trained || parameter.role.trainable());
        counted.map(|parameter| parameter.len() as u64 * DType::F32.size_in_bytes() as u64).sum()
    };
    Memory {
        rows: nodes.iter().enumerate().map(row).collect(),
        inference: inference.iter().copied().max().unwrap_or(0),
        training: training.iter().copied().max().unwrap_or(0),
        parameters: size(false),
        gradients: size(true),
    }
}

/// Whether a gradient has to reach each node: where it, or something before it, is trained.
fn learning(graph: &Graph) -> Vec<bool> {
    let mut learns = vec![false; graph.nodes.len()];
    graph.parameters().iter().filter(|parameter| parameter.role.trainable()).for_each(|parameter| learns[parameter.node.0] = true);
    for (at, node) in graph.nodes.iter().enumerate() {
        learns[at] |= node.inputs.iter().any(|input| learns[input.0]);
    }
    learns
}

/// What lives at each moment, as changes from one to the next.
struct Timeline(Vec<i64>);

impl Timeline {
    fn new(moments: usize) -> Self {
        Self(vec![0; moments + 1])
    }

    /// From the moment `from` to the moment `to`, both included.
    fn add(&mut self, from: usize, to: usize, bytes: u64) {
        self.0[from] += bytes as i64;
        self.0[to + 1] -= bytes as i64;
    }

    fn sums(&self) -> Vec<u64> {
        let sum = |alive: &mut i64, change: &i64| {
            *alive += change;
            Some(*alive as u64)
        };
        self.0.iter().scan(0, sum).collect()
    }
}

impl Memory {
    /// Bytes that a training step needs whatever its batch: parameters, their gradients, and what the optimiser keeps.
    pub fn fixed(&self, optimizer: &Optimizer) -> u64 {
        let memories = match optimizer {
            Optimizer::Sgd { .. } => 1,
            Optimizer::AdamW { .. } => 2,
        };
        self.parameters + self.gradients * (1 + memories)
    }
}

/// How a batch is split so that a training step fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Samples that go through the network at once: as even a share of the batch as can be, and at most `largest`.
    pub micro_batch: usize,
    /// Micro-batches that make one step; the last may be smaller.
    pub accumulate: usize,
    /// The most samples that would fit at once.
    pub largest: usize,
    /// Bytes that a step needs at its peak.
    pub bytes: u64,
}

/// Splits a batch of `batch` samples so that a training step needs at most `limit` bytes, with values in `dtype`.
///
/// # Errors
/// When `batch` is 0, or not even one sample fits; the message has the numbers.
pub fn plan_batch(graph: &Graph, batch: usize, limit: u64, optimizer: &Optimizer, dtype: DType) -> Result<Plan> {
    if batch == 0 {
        return Err(Error::mismatch(format!("{}: batch", graph.name), "at least one sample", 0));
    }
    let memory = of(graph, dtype);
    let fixed = memory.fixed(optimizer);
    let largest = (limit.saturating_sub(fixed) / memory.training) as usize;
    if largest == 0 {
        let found = format!(
            "{} ({} for parameters and statistics, {} for gradients and the optimiser, {} for a sample)",
            fixed + memory.training,
            memory.parameters,
            fixed - memory.parameters,
            memory.training
        );
        return Err(Error::mismatch(format!("{}: bytes of a training step", graph.name), format!("at most {limit}"), found));
    }
    let accumulate = batch.div_ceil(largest);
    let micro_batch = batch.div_ceil(accumulate);
    Ok(Plan { micro_batch, accumulate, largest, bytes: fixed + memory.training * micro_batch as u64 })
}
