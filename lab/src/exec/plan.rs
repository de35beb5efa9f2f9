//! How a graph is run when its values are kept in our own books: which nodes are done together, who reads which value when, and what a
//! gradient will ask for.

use crate::graph::{Graph, NodeId, Op};
use crate::kernels::{self, Activation};

/// Some nodes done as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The node whose operation it is.
    pub(super) node: NodeId,
    /// What follows a batch norm at once.
    pub(super) tail: Tail,
    /// The node whose value comes out: `node`, or the last of its tail.
    pub(super) out: NodeId,
}

/// `activation(norm [+ skip])`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) skip: Option<NodeId>,
    pub(super) activation: Option<Activation>,
}

/// A graph ready to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) steps: Vec<Step>,
    /// Per node: how many steps read its value forward.
    pub(super) readers: Vec<usize>,
    /// Per node: how many steps read its value backward.
    pub(super) askers: Vec<usize>,
    /// Per node: whether a trained parameter, or the value of one, flows into it.
    pub(super) trained: Vec<bool>,
    /// Per node: the node whose memory its value lies in.
    pub(super) home: Vec<NodeId>,
    /// Per home: whether the memory is certainly nobody else's.
    pub(super) owned: Vec<bool>,
}

impl Plan {
    pub(crate) fn new(graph: &Graph) -> Self {
        let readers_of = |id: NodeId| -> Vec<NodeId> {
            let reads = |(at, node): (usize, &crate::graph::Node)| node.inputs.contains(&id).then_some(NodeId(at));
            graph.nodes.iter().enumerate().filter_map(reads).collect()
        };
        let mut taken = vec![false; graph.nodes.len()];
        let mut steps = Vec::new();
        for (at, node) in graph.nodes.iter().enumerate() {
            let id = NodeId(at);
            if node.op == Op::Input || taken[at] {
                continue;
            }
            let (mut tail, mut out) = (Tail::default(), id);
            // The one reader of a value that nobody else wants.
            let only_reader = |id: NodeId| match readers_of(id).as_slice() {
                &[reader] if id != graph.output => Some(reader),
                _ => None,
            };
            if matches!(node.op, Op::BatchNorm { .. }) {
                let mut next = only_reader(id);
                // Of the two branches of a sum, the one that comes last takes the other in.
                if let Some(add) = next.filter(|&add| graph.node(add).op == Op::Add)
                    && let &[a, b] = graph.node(add).inputs.as_slice()
                    && let skip = (if a == id { b } else { a })
                    && made(&steps, graph, skip)
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
            steps.push(Step { node: id, tail, out });
        }
        Self::counted(graph, steps)
    }

    fn counted(graph: &Graph, steps: Vec<Step>) -> Self {
        let nodes = graph.nodes.len();
        let mut plan = Self {
            steps: Vec::new(),
            readers: vec![0; nodes],
            askers: vec![0; nodes],
            trained: vec![false; nodes],
            home: (0..nodes).map(NodeId).collect(),
            owned: vec![true; nodes],
        };
        // The input is the caller's.
        plan.owned[0] = false;
        for parameter in graph.parameters() {
            plan.trained[parameter.node.0] |= parameter.role.trainable();
        }
        for step in &steps {
            let (node, out) = (graph.node(step.node), step.out.0);
            match memory(&node.op) {
                Memory::Own => {}
                Memory::Input => plan.home[out] = plan.home[node.inputs[0].0],
                Memory::Unknown => {
                    plan.owned[out] = false;
                    node.inputs.iter().for_each(|input| plan.owned[plan.home[input.0].0] = false);
                }
            }
            for &input in node.inputs.iter().chain(&step.tail.skip) {
                plan.readers[plan.home[input.0].0] += 1;
                plan.trained[out] |= plan.trained[input.0];
            }
            plan.trained[out] |= plan.trained[step.node.0];
            for asked in asked(graph, step) {
                plan.askers[plan.home[asked.0].0] += 1;
            }
        }
        plan.readers[plan.home[graph.output.0].0] += 1;
        plan.steps = steps;
        plan
    }
}

/// Whether a value is there when the next step begins.
fn made(steps: &[Step], graph: &Graph, id: NodeId) -> bool {
    graph.node(id).op == Op::Input || steps.iter().any(|step| step.out == id)
}

/// Where the result of an operation lies.
enum Memory {
    Own,
    /// In that of its input.
    Input,
    /// Perhaps in that of an input.
    Unknown,
}

fn memory(op: &Op) -> Memory {
    match op {
        Op::Linear(_) | Op::Conv(_) | Op::BatchNorm { .. } | Op::Activate(_) | Op::MaxPool(_) | Op::AvgPool(_) => Memory::Own,
        Op::GlobalAvgPool | Op::Concat | Op::Pick { .. } | Op::Add => Memory::Own,
        Op::Flatten | Op::Reshape { .. } => Memory::Input,
        _ => Memory::Unknown,
    }
}

/// The values that the gradient of a step reads.
pub(super) fn asked(graph: &Graph, step: &Step) -> Vec<NodeId> {
    let node = graph.node(step.node);
    match &node.op {
        Op::BatchNorm { .. } => node.inputs.iter().copied().chain(step.tail.skip.map(|_| step.out)).collect(),
        Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Reshape { .. } | Op::Concat | Op::Pick { .. } | Op::Add => Vec::new(),
        _ => node.inputs.clone(),
    }
}
