//! An architecture as a value: nodes in execution order, each with an operation, inputs, a shape and a name.
//!
//! Nothing here knows a tensor. What a graph is asked (its parameters, its cost, its topology, its output) is answered
//! by the readers of the other modules; each is a function of the graph alone, or of the graph and its weights.

mod build;
mod init;
mod op;
mod rules;

pub use build::{Builder, Value};
pub use init::Init;
pub use op::{Conv, Linear, Op, Unit};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The position of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub usize);

/// One operation of a network and where its inputs come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Dotted, unique in the graph; also the prefix of the node's parameters in a checkpoint.
    pub name: String,
    /// What is computed.
    pub op: Op,
    /// Earlier nodes, in the order the operation takes them.
    pub inputs: Vec<NodeId>,
    /// Shape of the output for one sample: `[d]`, or `[c, h, w]`.
    pub shape: Vec<usize>,
    /// From what its fresh parameters are drawn, by role, where it is not [`Init::of`] the role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init: Vec<(Role, Init)>,
}

impl Node {
    /// Whether it hands on the channels of its one input, each for itself and in their order.
    pub(crate) fn passes(&self) -> bool {
        match &self.op {
            Op::Activate(_) | Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::Scale { .. } | Op::Dropout { .. } => true,
            Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => true,
            Op::Slice { dim, .. } | Op::Softmax { dim } => *dim > 0,
            Op::LayerNorm { dims, .. } => *dims < self.shape.len(),
            Op::Permute { order } => order[0] == 0,
            Op::Input | Op::Linear(_) | Op::Conv(_) | Op::Flatten | Op::Reshape { .. } | Op::Concat | Op::Pick { .. } => false,
            Op::Add | Op::WeightedSum { .. } | Op::Multiply | Op::Matmul => false,
        }
    }
}

/// A network: nodes such that each comes after its inputs; the first is the input, `output` is the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Graph {
    /// What the architecture is called.
    pub name: String,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// The node whose value is the network's.
    pub output: NodeId,
    /// The layers of each cell, first to last, for metrics that speak of cells (NN-Mass).
    pub cells: Vec<Vec<NodeId>>,
}

/// What a parameter is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Kernel of a convolution `(o, c / groups, kh, kw)` or matrix of a linear layer `(o, d)`.
    Weight,
    /// Added per output channel `(o)`.
    Bias,
    /// Multiplies what is normalised: a number a channel `(c)`, or a place.
    Scale,
    /// Added to what is normalised: a number a channel `(c)`, or a place.
    Shift,
    /// Multiplies each of several inputs `(inputs)`.
    Factor,
    /// Mean seen in training `(c)`; not trained by gradient.
    RunningMean,
    /// Variance seen in training `(c)`; not trained by gradient.
    RunningVar,
}

impl Role {
    /// Whether gradients change it.
    pub fn trainable(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar)
    }
}

/// A parameter a graph needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The node's name and, after a dot, PyTorch's name for it: `fc.weight`, `bn1.running_mean`.
    pub name: String,
    /// Its shape, as PyTorch has it.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// Number of inputs that meet in one output; 1 for normalisation.
    pub fan_in: usize,
    /// From what it is drawn when it is fresh.
    pub init: Init,
    /// The node it belongs to.
    pub node: NodeId,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Graph {
    /// The node of that number.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, name: &str) -> Result<NodeId> {
        let found = self.nodes.iter().position(|node| node.name == name).map(NodeId);
        found.ok_or_else(|| Error::mismatch(format!("{}: node", self.name), "a node's name", format!("`{name}`")))
    }

    /// Shape of one input sample.
    pub fn input_shape(&self) -> &[usize] {
        &self.nodes[0].shape
    }

    /// Shape of one output sample: `[classes]` for a classifier.
    pub fn output_shape(&self) -> &[usize] {
        &self.node(self.output).shape
    }

    /// The parameters in the order of the nodes, weights before biases, running statistics last.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            for (suffix, role, shape, fan_in) in self.parameters_of(node) {
                let set = node.init.iter().find(|(of, _)| *of == role);
                let init = set.map_or(Init::of(role), |&(_, init)| init);
                parameters.push(Parameter { name: format!("{}.{suffix}", node.name), shape, role, fan_in, init, node: NodeId(at) });
            }
        }
        parameters
    }

    /// Name, role, shape and fan-in of each parameter of one of the nodes.
    pub(crate) fn parameters_of(&self, node: &Node) -> Vec<(&'static str, Role, Vec<usize>, usize)> {
        let inputs: Vec<&[usize]> = node.inputs.iter().map(|&id| self.node(id).shape.as_slice()).collect();
        node.op.parameters(&inputs)
    }

    /// For each channel of a node's value, the node and channel where it was made: looks through whatever passes
    /// channels on (concatenation, picking, slicing, activation, normalisation, pooling), up to what mixes them or makes others of them.
    pub fn origins(&self, id: NodeId) -> Vec<(NodeId, usize)> {
        (0..self.node(id).shape[0]).map(|channel| self.origin(id, channel)).collect()
    }

    /// Where one channel of a node's value was made; see [`Graph::origins`].
    pub(crate) fn origin(&self, mut id: NodeId, mut channel: usize) -> (NodeId, usize) {
        loop {
            let node = self.node(id);
            (id, channel) = match &node.op {
                Op::Concat => self.joined(&node.inputs, channel),
                Op::Pick { channels } => self.joined(&node.inputs, channels[channel]),
                Op::Slice { dim: 0, start, .. } => (node.inputs[0], start + channel),
                _ if node.passes() => (node.inputs[0], channel),
                _ => return (id, channel),
            };
        }
    }

    /// The input, and its channel, that is this channel of all inputs one after the other.
    fn joined(&self, inputs: &[NodeId], mut channel: usize) -> (NodeId, usize) {
        for &input in inputs {
            let channels = self.node(input).shape[0];
            if channel < channels {
                return (input, channel);
            }
            channel -= channels;
        }
        unreachable!("the shape rules keep channels within the inputs")
    }
}

/// A graph as it came from a file, before anything is known of it.
#[derive(Deserialize)]
struct Unchecked {
    name: String,
    nodes: Vec<Node>,
    output: NodeId,
    cells: Vec<Vec<NodeId>>,
}

impl TryFrom<Unchecked> for Graph {
    type Error = Error;

    fn try_from(raw: Unchecked) -> Result<Self> {
        let Unchecked { name, nodes, output, cells } = raw;
        let input = nodes.first().map(|node| &node.op);
        if input != Some(&Op::Input) {
            return Err(Error::mismatch(format!("{name}: node 0"), "the input", format!("{input:?}")));
        }
        for (at, node) in nodes.iter().enumerate() {
            let what = || format!("{name}: {}", node.name);
            if let Some(late) = node.inputs.iter().find(|id| id.0 >= at) {
                return Err(Error::mismatch(what(), format!("inputs before node {at}"), format!("node {}", late.0)));
            }
            if at > 0 && node.op == Op::Input {
                return Err(Error::mismatch(what(), "one input, the first node", "a second"));
            }
            if nodes[..at].iter().any(|earlier| earlier.name == node.name) {
                return Err(Error::mismatch(what(), "a name of its own", "one taken before"));
            }
            if at > 0 {
                let shapes: Vec<&[usize]> = node.inputs.iter().map(|&NodeId(id)| nodes[id].shape.as_slice()).collect();
                let shape = node.op.shape(&shapes).map_err(|(wanted, found)| Error::mismatch(what(), wanted, found))?;
                if shape != node.shape {
                    return Err(Error::mismatch(what(), format!("shape {shape:?}"), format!("{:?}", node.shape)));
                }
            }
        }
        let strangers = cells.iter().flatten().chain([&output]).find(|id| id.0 >= nodes.len());
        if let Some(stranger) = strangers {
            return Err(Error::mismatch(format!("{name}: node"), format!("one of {}", nodes.len()), stranger.0));
        }
        Ok(Self { name, nodes, output, cells })
    }
}
