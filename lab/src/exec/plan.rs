//! How a graph is run when its values are kept in our own books: which nodes are done together, who reads which value when, and what a
//! gradient will ask for.

use std::ops::Range;

use crate::graph::{Graph, Node, NodeId, Op};
use crate::kernels::{self, Activation, Source};

/// Some nodes done as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The node whose operation it is.
    pub(crate) node: NodeId,
    /// What follows a batch norm at once.
    pub(crate) tail: Tail,
    /// The node whose value comes out: `node`, or the last of its tail.
    pub(crate) out: NodeId,
    /// The values that it reads: the inputs of `node`, and the skip.
    pub(crate) reads: Vec<NodeId>,
    /// The values that its gradient reads; none where nothing is trained up to here.
    pub(crate) asks: Vec<NodeId>,
    /// Which of the trained parameters, in the graph's order, are its own.
    pub(crate) trains: Range<usize>,
    /// Of an [`Op::Concat`], an [`Op::Pick`], or an [`Op::Slice`] of channels.
    pub(crate) choice: Choice,
    /// Whether its gradient is made by running it again in candle's books.
    pub(crate) by_candle: bool,
}

/// `activation(norm [+ skip])`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) skip: Option<NodeId>,
    pub(crate) activation: Option<Activation>,
}

/// Which channels of its inputs a step puts together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// From where each channel comes.
    pub(crate) sources: Vec<Source>,
    /// For each input: places, and which of its channels stands there.
    pub(crate) places: Vec<Vec<(usize, usize)>>,
}

/// A graph ready to be run, to train or to infer.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Per node: how many steps read its value forward.
    pub(crate) readers: Vec<usize>,
    /// Per node: how many steps read its value backward.
    pub(crate) askers: Vec<usize>,
    /// Per node: whether a trained parameter, or the value of one, flows into it.
    pub(crate) trained: Vec<bool>,
    /// Per node: the node whose memory its value lies in.
    pub(crate) home: Vec<NodeId>,
    /// Per home: the nodes whose values lie there.
    pub(crate) names: Vec<Vec<NodeId>>,
    /// Per home: whether the memory is certainly nobody else's.
    pub(crate) owned: Vec<bool>,
}

impl Plan {
    /// For training: what gradients ask for is kept.
    pub(crate) fn to_train(graph: &Graph) -> Self {
        Self::new(graph, true)
    }

    /// For inference: nothing is kept, and nothing dropped.
    pub(crate) fn to_infer(graph: &Graph) -> Self {
        Self::new(graph, false)
    }

    fn new(graph: &Graph, train: bool) -> Self {
        let nodes = graph.nodes.len();
        let mut plan = Self {
            steps: joined(graph),
            readers: vec![0; nodes],
            askers: vec![0; nodes],
            trained: vec![false; nodes],
            home: (0..nodes).map(NodeId).collect(),
            names: vec![Vec::new(); nodes],
            owned: vec![true; nodes],
        };
        let mut own = vec![0; nodes];
        graph.parameters().iter().filter(|parameter| parameter.role.trainable()).for_each(|parameter| own[parameter.node.0] += 1);
        let mut first = 0;
        for step in &mut plan.steps {
            let (node, out) = (graph.node(step.node), step.out.0);
            match memory(graph, node, train) {
                Memory::Own => {}
                Memory::Input => plan.home[out] = plan.home[node.inputs[0].0],
                Memory::Unknown => {
                    plan.owned[out] = false;
                    node.inputs.iter().for_each(|input| plan.owned[plan.home[input.0].0] = false);
                }
            }
            step.trains = first..first + own[step.node.0];
            first = step.trains.end;
            plan.trained[out] = !step.trains.is_empty() || step.reads.iter().any(|read| plan.trained[read.0]);
            if train && plan.trained[out] {
                step.asks = asked(graph, step);
            }
            step.reads.iter().for_each(|read| plan.readers[plan.home[read.0].0] += 1);
            step.asks.iter().for_each(|asked| plan.askers[plan.home[asked.0].0] += 1);
        }
        for id in [NodeId(0)].into_iter().chain(plan.steps.iter().map(|step| step.out)) {
            plan.names[plan.home[id.0].0].push(id);
        }
        // The input and the output are the caller's.
        let output = plan.home[graph.output.0].0;
        plan.readers[output] += 1;
        (plan.owned[0], plan.owned[output]) = (false, false);
        plan
    }

    /// The node whose gradient is made in the memory of the gradient of the step's value.
    pub(crate) fn heir(&self, graph: &Graph, step: &Step) -> Option<NodeId> {
        let inputs = &graph.node(step.node).inputs;
        match graph.node(step.node).op {
            Op::BatchNorm { frozen: false, .. } => step.tail.skip.or(Some(inputs[0])),
            Op::Activate(_) | Op::Flatten | Op::Reshape { .. } | Op::Dropout { p: 0.0, .. } => Some(inputs[0]),
            Op::Add => inputs.iter().rfind(|input| self.trained[input.0]).copied(),
            _ => None,
        }
    }
}

/// The steps of a graph: a batch norm with what can be done at once with it, every other node alone.
fn joined(graph: &Graph) -> Vec<Step> {
    let mut readers = vec![Vec::new(); graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|input| readers[input.0].push(NodeId(at)));
    }
    // The one reader of a value that nobody else wants.
    let only_reader = |id: NodeId| match readers[id.0].as_slice() {
        &[reader] if id != graph.output => Some(reader),
        _ => None,
    };
    let (mut taken, mut made) = (vec![false; graph.nodes.len()], vec![false; graph.nodes.len()]);
    let mut steps = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        if taken[at] {
            continue;
        }
        let (mut tail, mut out) = (Tail::default(), NodeId(at));
        if matches!(node.op, Op::BatchNorm { frozen: false, .. }) {
            let mut next = only_reader(out);
            // Of the two branches of a sum, the one that comes last takes the other in.
            if let Some(add) = next.filter(|&add| graph.node(add).op == Op::Add)
                && let &[a, b] = graph.node(add).inputs.as_slice()
                && let skip = (if a == out { b } else { a })
                && made[skip.0]
            {
                (tail.skip, out) = (Some(skip), add);
                taken[add.0] = true;
                next = only_reader(add);
            }
            if let Some(reader) = next
                && let Op::Activate(activation) = graph.node(reader).op
                && kernels::fuses(activation)
            {
                (tail.activation, out) = (Some(activation), reader);
                taken[reader.0] = true;
            }
        }
        made[out.0] = true;
        if node.op != Op::Input {
            let reads = node.inputs.iter().copied().chain(tail.skip).collect();
            let (choice, by_candle) = (choice(graph, node), by_candle(graph, node));
            steps.push(Step { node: NodeId(at), tail, out, reads, asks: Vec::new(), trains: 0..0, choice, by_candle });
        }
    }
    steps
}

/// Which channels a node puts together; none where that is not what it does.
fn choice(graph: &Graph, node: &Node) -> Choice {
    let channels = |(k, &input): (usize, &NodeId)| (0..graph.node(input).shape[0]).map(move |channel| (k, channel));
    let all = || node.inputs.iter().enumerate().flat_map(channels).collect::<Vec<Source>>();
    let sources = match &node.op {
        Op::Concat => all(),
        Op::Pick { channels } => {
            let all = all();
            channels.iter().map(|&channel| all[channel]).collect()
        }
        Op::Slice { dim: 0, start, len } => (*start..start + len).map(|channel| (0, channel)).collect(),
        _ => return Choice::default(),
    };
    let mut places = vec![Vec::new(); node.inputs.len()];
    sources.iter().enumerate().for_each(|(place, &(k, channel))| places[k].push((place, channel)));
    Choice { sources, places }
}

/// Where the result of an operation lies.
enum Memory {
    Own,
    /// In that of its input.
    Input,
    /// Perhaps in that of an input.
    Unknown,
}

fn memory(graph: &Graph, node: &Node, train: bool) -> Memory {
    match &node.op {
        Op::Linear(_) | Op::Conv(_) | Op::BatchNorm { .. } | Op::Activate(_) | Op::MaxPool(_) | Op::AvgPool(_) => Memory::Own,
        Op::GlobalAvgPool | Op::Concat | Op::Pick { .. } | Op::Slice { dim: 0, .. } | Op::Add | Op::Scale { .. } => Memory::Own,
        Op::Multiply if !by_candle(graph, node) => Memory::Own,
        Op::Softmax { dim } if dim + 1 == node.shape.len() => Memory::Own,
        Op::Dropout { p, .. } if train && *p > 0.0 => Memory::Own,
        Op::Flatten | Op::Reshape { .. } | Op::Dropout { .. } => Memory::Input,
        _ => Memory::Unknown,
    }
}

/// Whether a [`Tape`](super::tape::Tape) has no gradient of its own for a node, and runs it again in candle's books.
fn by_candle(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::InstanceNorm { .. } | Op::LayerNorm { .. } | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => true,
        Op::WeightedSum { .. } | Op::Matmul => true,
        Op::BatchNorm { frozen, .. } => *frozen,
        Op::Slice { dim, .. } => *dim > 0,
        Op::Multiply => match node.inputs.as_slice() {
            &[xs, gate] => {
                let dims = |id: NodeId| [&[1], graph.node(id).shape.as_slice()].concat();
                !kernels::gates_planes(&dims(xs), &dims(gate))
            }
            _ => true,
        },
        Op::Input | Op::Linear(_) | Op::Conv(_) | Op::Activate(_) | Op::Softmax { .. } => false,
        Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } => false,
        Op::Concat | Op::Pick { .. } | Op::Add | Op::Scale { .. } | Op::Dropout { .. } => false,
    }
}

/// Which value of a node its gradient is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None: the gradient follows from shapes.
    Nothing,
    /// What it read.
    Input,
    /// What it gave.
    Output,
}

/// What the gradient of an operation needs besides that of its value and the parameters: the one rule by which a training step keeps
/// values, and [`memory`](crate::metrics::memory) counts them.
pub fn kept(op: &Op) -> Kept {
    match op {
        // The gradient of the weights is a product with the input; that of a norm holds the normalised input, made again.
        Op::Linear(_) | Op::Conv(_) | Op::BatchNorm { .. } => Kept::Input,
        // Which pixel won is found again.
        Op::MaxPool(_) => Kept::Input,
        // The slope at the value is the slope at the input: a layer behind it keeps the value anyway.
        Op::Activate(Activation::Relu | Activation::Relu6) => Kept::Output,
        Op::Activate(_) => Kept::Input,
        Op::Softmax { .. } => Kept::Output,
        // The other factor.
        Op::Multiply => Kept::Input,
        Op::Input | Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } => Kept::Nothing,
        Op::Concat | Op::Pick { .. } | Op::Slice { dim: 0, .. } | Op::Add | Op::Scale { .. } => Kept::Nothing,
        // What was dropped is drawn again.
        Op::Dropout { .. } => Kept::Nothing,
        // Run again from what they read.
        Op::InstanceNorm { .. } | Op::LayerNorm { .. } | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => Kept::Input,
        Op::WeightedSum { .. } | Op::Matmul | Op::Slice { .. } => Kept::Input,
    }
}

/// The values that the gradient of a step reads.
fn asked(graph: &Graph, step: &Step) -> Vec<NodeId> {
    let node = graph.node(step.node);
    match kept(&node.op) {
        Kept::Nothing => Vec::new(),
        Kept::Output => vec![step.out],
        // The activation behind a sum has its slope from its value.
        Kept::Input => node.inputs.iter().copied().chain(step.tail.skip.map(|_| step.out)).collect(),
    }
}
