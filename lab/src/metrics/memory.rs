//! How much memory a network needs, from its graph alone: by liveness, step by step, for inference and for a training step.
//!
//! Counted is what a run on the CPU holds, which this module plays through with the books of [`crate::exec`] but without a number:
//! values until their last reader ran or, where a gradient is made from them ([`kept`](crate::exec::kept)), until it is; gradients,
//! where they are not made in the memory of another; parameters, their gradients, and what the optimiser keeps; the batch; and what
//! kernels take meanwhile. Batch norm is one with the sum and the activation behind it. Memory that is used again is never more than
//! has been in use at once, so what an allocator sees is not above the plan, and hardly below (`tests/it/fitting.rs`).
//!
//! On other devices candle keeps the books, and more: there a plan is where to begin, and what does not fit is halved.

use candle::DType;
use serde::{Deserialize, Serialize};

use crate::exec::{self, Step};
use crate::graph::{Graph, Node, Op};
use crate::kernels::{self, Scratch};
use crate::train::{Optimizer, Recipe};
use crate::{Error, Result};

/// Memory at one node, in bytes a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The node's name.
    pub node: String,
    /// Its operation.
    pub op: &'static str,
    /// Its value in training; 0 where it is its input in another shape, or never there because the next operation is done with it.
    pub bytes: u64,
    /// All that lives while it runs in inference.
    pub inference: u64,
    /// All that lives while it runs in a training step.
    pub forward: u64,
    /// All that lives while its gradient is passed back; 0 where there is none.
    pub backward: u64,
}

/// The memory of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// In execution order.
    pub rows: Vec<Row>,
    /// The most that lives at once in inference, in bytes a sample.
    pub inference: u64,
    /// The most that lives at once in a training step, in bytes a sample, besides gradients of parameters.
    pub training: u64,
    /// The input, in bytes a sample.
    pub input: u64,
    /// Parameters and running statistics, in bytes.
    pub parameters: u64,
    /// Gradients of the trained parameters, in bytes.
    pub gradients: u64,
    /// Of these, those of the largest parameter.
    largest: u64,
    /// Of a training step in order.
    moments: Vec<Moment>,
}

/// What lives at one time of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Moment {
    /// Values and their gradients, in bytes a sample.
    sample: u64,
    /// Gradients of parameters, in bytes.
    gradients: u64,
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
/// // While `a` runs: 4 inputs, 3 outputs, and so for the ReLU. The loss has the input, the ReLU's output, and six times the logits.
/// assert_eq!((memory.inference, memory.training), (4 * (4 + 3 + 3), 4 * (4 + 3 + 6 * 2)));
/// # Ok::<(), lab::Error>(())
/// ```
pub fn of(graph: &Graph, dtype: DType) -> Memory {
    let books = |plan| Books::new(graph, plan, dtype.size_in_bytes() as u64);
    let (inference, _) = books(exec::Plan::to_infer(graph)).forward();
    let books = books(exec::Plan::to_train(graph));
    let (forward, alive) = books.forward();
    let (loss, backward) = books.backward(alive);
    let row = |(at, node): (usize, &Node)| Row {
        node: node.name.clone(),
        op: node.op.label(),
        bytes: books.own[at],
        inference: inference[at],
        forward: forward[at],
        backward: backward[at].sample,
    };
    let most = |moments: &[u64]| moments.iter().copied().max().unwrap_or(0);
    let ahead = forward.iter().map(|&sample| Moment { sample, gradients: 0 });
    let moments: Vec<Moment> = ahead.chain([loss]).chain(backward.iter().rev().copied()).collect();
    Memory {
        rows: graph.nodes.iter().enumerate().map(row).collect(),
        inference: most(&inference),
        training: moments.iter().map(|moment| moment.sample).max().unwrap_or(0),
        input: books.own[0],
        parameters: graph.parameters().iter().map(|parameter| parameter.len() as u64 * FLOAT).sum(),
        gradients: books.parameters.iter().sum(),
        largest: most(&books.parameters),
        moments,
    }
}

/// Bytes of an `f32`.
const FLOAT: u64 = 4;

/// The books of a run, kept in bytes a sample.
struct Books<'a> {
    graph: &'a Graph,
    plan: exec::Plan,
    /// Per node, a value of its shape.
    size: Vec<u64>,
    /// Per node, the memory that is its own.
    own: Vec<u64>,
    /// Per node, gradients of its parameters, in bytes whatever the batch.
    parameters: Vec<u64>,
}

impl<'a> Books<'a> {
    fn new(graph: &'a Graph, plan: exec::Plan, width: u64) -> Self {
        let size: Vec<u64> = graph.nodes.iter().map(|node| node.shape.iter().product::<usize>() as u64 * width).collect();
        let (mut own, mut parameters) = (vec![0; size.len()], vec![0; size.len()]);
        own[0] = size[0];
        for out in plan.steps.iter().map(|step| step.out).filter(|&out| plan.home[out.0] == out) {
            own[out.0] = size[out.0];
        }
        for parameter in graph.parameters().iter().filter(|parameter| parameter.role.trainable()) {
            parameters[parameter.node.0] += parameter.len() as u64 * FLOAT;
        }
        Self { graph, plan, size, own, parameters }
    }

    /// The nodes that a step computes: an operation, and of its tail the activation and the sum before it.
    fn nodes(&self, step: &Step) -> [usize; 3] {
        let sum = if step.tail.skip.is_some() && step.tail.activation.is_some() { self.graph.node(step.out).inputs[0] } else { step.out };
        [step.node.0, sum.0, step.out.0]
    }

    /// What lives while each node runs, and in the end.
    fn forward(&self) -> (Vec<u64>, u64) {
        let mut readers = self.plan.readers.clone();
        let mut alive = self.own[0];
        let mut moments = vec![alive; self.graph.nodes.len()];
        for step in &self.plan.steps {
            alive += self.own[step.out.0];
            self.nodes(step).into_iter().for_each(|at| moments[at] = alive);
            for read in &step.reads {
                let home = self.plan.home[read.0];
                readers[home.0] -= 1;
                // The input is the caller's.
                if readers[home.0] == 0 && home.0 > 0 && self.plan.askers[home.0] == 0 {
                    alive -= self.own[home.0];
                }
            }
        }
        (moments, alive)
    }

    /// What lives at the loss, and while the gradient of each node is passed back, when a forward pass leaves `alive`.
    fn backward(&self, mut alive: u64) -> (Moment, Vec<Moment>) {
        /// Logits as a variable, softmax, gradient, and what candle makes of them.
        const LOSS: u64 = 5;
        let (mut askers, output) = (self.plan.askers.clone(), self.graph.output);
        let loss = Moment { sample: alive + LOSS * self.size[output.0], gradients: 0 };
        let mut gradients = 0;
        let mut moments = vec![Moment { sample: 0, gradients: 0 }; self.graph.nodes.len()];
        let mut reached = vec![false; self.graph.nodes.len()];
        // With the logits that candle has.
        (reached[output.0], alive) = (true, alive + 2 * self.size[output.0]);
        for step in self.plan.steps.iter().rev().filter(|step| self.plan.trained[step.out.0]) {
            if std::mem::take(&mut reached[step.out.0]) {
                gradients += self.parameters[step.node.0];
                let heir = self.plan.heir(self.graph, step).filter(|heir| self.plan.trained[heir.0]);
                let flows = step.reads.iter().filter(|read| self.plan.trained[read.0]);
                let fresh: u64 = flows.clone().filter(|&&read| Some(read) != heir).map(|read| self.size[read.0]).sum();
                let sample = alive + fresh + self.meanwhile(step);
                self.nodes(step).into_iter().for_each(|at| moments[at] = Moment { sample, gradients });
                alive += fresh;
                if heir.is_none() {
                    alive -= self.size[step.out.0];
                }
                for read in flows {
                    // Summed where there is a gradient already.
                    if std::mem::replace(&mut reached[read.0], true) {
                        alive -= self.size[read.0];
                    }
                }
            }
            for asked in &step.asks {
                let home = self.plan.home[asked.0];
                askers[home.0] -= 1;
                if askers[home.0] == 0 && home.0 > 0 {
                    alive -= self.own[home.0];
                }
            }
        }
        (loss, moments)
    }

    /// What is taken for a gradient and given back when it is there.
    fn meanwhile(&self, step: &Step) -> u64 {
        let (node, out) = (self.graph.node(step.node), self.size[step.out.0]);
        match &node.op {
            // Copies, products, and sums from zero.
            _ if step.by_candle => 4 * (out + step.reads.iter().map(|read| self.size[read.0]).sum::<u64>()),
            // Copies with the dimensions in another order.
            Op::Softmax { dim } if dim + 1 < node.shape.len() => 4 * out,
            Op::Permute { .. } => out,
            _ => 0,
        }
    }
}

impl Memory {
    /// Bytes that training needs whatever its batch, between steps: parameters, what the optimiser keeps, and averaged parameters.
    pub fn fixed(&self, recipe: &Recipe) -> u64 {
        let memories = match recipe.optimizer {
            Optimizer::Sgd { .. } => 1,
            Optimizer::AdamW { .. } => 2,
        };
        let averaged = if recipe.average.is_some() { self.parameters } else { 0 };
        self.parameters + self.gradients * memories + averaged
    }

    /// Bytes that a step needs at its peak with `batch` samples, of which `micro_batch` are computed at once, besides [`Self::fixed`]
    /// and what kernels take.
    fn step(&self, micro_batch: usize, batch: usize, recipe: &Recipe) -> u64 {
        let needed = |moment: &Moment| moment.sample * micro_batch as u64 + moment.gradients;
        let computed = self.moments.iter().map(needed).max().unwrap_or(0).max(self.gradients);
        let parts = batch.div_ceil(micro_batch) as u64;
        // One tensor at a time is scaled or added.
        let sum = if parts > 1 { self.gradients + self.largest } else { 0 };
        // As it was read, and as a tensor; while samples are mixed, their products and sums.
        let copies = if recipe.mix_up.is_some() { 6 } else { 2 };
        // Of each part those that running ones learn from; of one, in double precision, for its gradient.
        let statistics = (self.parameters - self.gradients) * (parts + 2);
        computed + sum + statistics + self.input * (copies * batch - micro_batch) as u64
    }
}

/// How a batch is split so that a training step fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Samples that go through the network at once: as even a share of the batch as can be.
    pub micro_batch: usize,
    /// Micro-batches that make one step; the last may be smaller.
    pub accumulate: usize,
    /// Bytes that training needs at its peak, on as many threads as there are.
    pub bytes: u64,
}

/// Splits a batch of `batch` samples so that training by `recipe` needs at most `limit` bytes: into as few parts as can be.
///
/// # Errors
/// When `batch` is 0, or not even one sample fits; the message has the numbers.
pub fn plan_batch(graph: &Graph, batch: usize, limit: u64, recipe: &Recipe) -> Result<Plan> {
    if batch == 0 {
        return Err(Error::mismatch(format!("{}: batch", graph.name), "at least one sample", 0));
    }
    let memory = of(graph, DType::F32);
    let fixed = memory.fixed(recipe);
    let bytes = |micro_batch: usize| {
        let counted = fixed + memory.step(micro_batch, batch, recipe) + scratch(graph, micro_batch);
        counted + counted / SMALL
    };
    if bytes(1).min(bytes(batch)) > limit {
        let found = format!(
            "{} ({fixed} for parameters and the optimiser, {} for their gradients, {} for a sample, {} for kernels)",
            bytes(1),
            memory.gradients,
            memory.training,
            scratch(graph, 1)
        );
        return Err(Error::mismatch(format!("{}: bytes of a training step", graph.name), format!("at most {limit}"), found));
    }
    // More samples at once need more; and the whole batch at once has no sum of gradients to keep.
    let (mut fits, mut does_not) = if bytes(batch) <= limit { (batch, batch + 1) } else { (1, batch) };
    while does_not - fits > 1 {
        let middle = fits.midpoint(does_not);
        if bytes(middle) <= limit { fits = middle } else { does_not = middle }
    }
    let accumulate = batch.div_ceil(fits);
    let micro_batch = batch.div_ceil(accumulate);
    Ok(Plan { micro_batch, accumulate, bytes: bytes(micro_batch) })
}

/// The share, one in so many, of what is not worth counting one by one: what a tensor is besides its numbers, sums over channels, reused
/// memory that is a little larger than asked for.
const SMALL: u64 = 50;

/// Bytes that kernels take while they run `n` samples.
fn scratch(graph: &Graph, n: usize) -> u64 {
    let of_node = |node: &Node| match (&node.op, graph.node(*node.inputs.first()?).shape.as_slice(), node.shape.as_slice()) {
        (Op::Conv(conv), &[c, h, w], &[o, oh, ow]) => {
            Some(kernels::conv2d_scratch(&[n, c, h, w], &[o, oh, ow], conv.kernel, &conv.window()))
        }
        _ => None,
    };
    graph.nodes.iter().filter_map(of_node).fold(Scratch::default(), Scratch::or).and(kernels::product_scratch()).bytes()
}
