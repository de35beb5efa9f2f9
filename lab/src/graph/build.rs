//! Writing a graph down, in straight-line code.

use std::collections::{BTreeMap, BTreeSet};

use super::{Conv, Graph, Init, Linear, Node, NodeId, Op, Role, Unit};
use crate::kernels::{Activation, Interpolation, Pool};
use crate::{Error, Result};

/// A value inside a graph that is being built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(NodeId);

impl Value {
    /// The node that makes it.
    pub fn id(self) -> NodeId {
        self.0
    }
}

/// Builds a [`Graph`] node by node.
///
/// ```
/// use lab::{Activation, Conv, graph::Builder};
///
/// let mut g = Builder::new("tiny", &[3, 32, 32]);
/// let xs = g.input();
/// let ys = g.conv("conv1", xs, Conv::k3(16).stride(2));
/// let ys = g.batch_norm("bn1", ys);
/// let ys = g.activate(ys, Activation::Relu);
/// let ys = g.global_avg_pool(ys);
/// let ys = g.linear("fc", ys, 10);
/// let graph = g.finish(ys)?;
/// assert_eq!(graph.output_shape(), [10]);
/// # Ok::<(), lab::Error>(())
/// ```
///
/// A mistake does not stop the code that builds: the first is kept, with the name of its node and the shapes, and comes
/// out of [`finish`](Self::finish).
#[derive(Debug)]
pub struct Builder {
    name: String,
    nodes: Vec<Node>,
    cells: Vec<Vec<NodeId>>,
    scope: Vec<String>,
    /// Of the nodes.
    names: BTreeSet<String>,
    /// Per stem of a name that was made here, the number that the next one tries.
    numbers: BTreeMap<String, usize>,
    inits: Vec<(Role, Init)>,
    mistake: Option<Error>,
}

impl Builder {
    /// A graph of that name, for samples of shape `input`: `[d]`, or `[c, h, w]`.
    pub fn new(name: &str, input: &[usize]) -> Self {
        let empty = input.is_empty() || input.contains(&0);
        let mistake = empty.then(|| Error::mismatch(format!("{name}: input"), "a shape [d] or [c, h, w] without 0", format!("{input:?}")));
        let shape = if input.is_empty() { vec![1] } else { input.to_vec() };
        let nodes = vec![Node { name: "input".to_owned(), op: Op::Input, inputs: Vec::new(), shape, init: Vec::new() }];
        let (names, numbers) = (BTreeSet::from(["input".to_owned()]), BTreeMap::new());
        Self { name: name.to_owned(), nodes, cells: Vec::new(), scope: Vec::new(), names, numbers, inits: Vec::new(), mistake }
    }

    /// The network's input.
    pub fn input(&self) -> Value {
        Value(NodeId(0))
    }

    /// The shape of a value for one sample.
    pub fn shape(&self, xs: Value) -> &[usize] {
        &self.nodes[xs.0.0].shape
    }

    /// The channels (or features) of a value.
    pub fn channels(&self, xs: Value) -> usize {
        self.shape(xs)[0]
    }

    /// What `build` adds is named below `name`: `layer1.0.conv1`.
    pub fn scope<T>(&mut self, name: impl ToString, build: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.to_string());
        let built = build(self);
        self.scope.pop();
        built
    }

    /// Declares that these layers, first to last, are a cell, for metrics that speak of cells.
    pub fn cell(&mut self, layers: &[Value]) {
        self.cells.push(layers.iter().map(|layer| layer.0).collect());
    }

    /// Fresh parameters of that role are drawn so, in the nodes from here on.
    pub fn init(&mut self, role: Role, init: Init) {
        self.inits.retain(|(of, _)| *of != role);
        self.inits.push((role, init));
    }

    /// `[d]` to `[features]`, or `[t, d]` to `[t, features]`: matrix product and bias. Without bias: `Linear::plain(features)`.
    pub fn linear(&mut self, name: impl ToString, xs: Value, linear: impl Into<Linear>) -> Value {
        self.named(name, Op::Linear(linear.into()), &[xs])
    }

    /// `[c, h, w]` to `[conv.channels, h', w']`.
    pub fn conv(&mut self, name: impl ToString, xs: Value, conv: Conv) -> Value {
        self.named(name, Op::Conv(conv), &[xs])
    }

    /// Normalises each channel over the batch (eps 1e-5, momentum 0.1), then scales and shifts it.
    pub fn batch_norm(&mut self, name: impl ToString, xs: Value) -> Value {
        self.named(name, Op::BatchNorm { eps: 1e-5, momentum: 0.1, affine: true, frozen: false }, &[xs])
    }

    /// Normalises each sample over its last `dims` dimensions (eps 1e-5), then scales and shifts each place of them.
    pub fn layer_norm(&mut self, name: impl ToString, xs: Value, dims: usize) -> Value {
        self.named(name, Op::LayerNorm { dims, eps: 1e-5, affine: true }, &[xs])
    }

    /// A function of each value.
    pub fn activate(&mut self, xs: Value, activation: Activation) -> Value {
        self.unnamed(Op::Activate(activation), &[xs])
    }

    /// The largest value of each window.
    pub fn max_pool(&mut self, xs: Value, pool: Pool) -> Value {
        self.unnamed(Op::MaxPool(pool), &[xs])
    }

    /// The mean of each window.
    pub fn avg_pool(&mut self, xs: Value, pool: Pool) -> Value {
        self.unnamed(Op::AvgPool(pool), &[xs])
    }

    /// `[c, h, w]` to `[c]`: the mean of each channel.
    pub fn global_avg_pool(&mut self, xs: Value) -> Value {
        self.unnamed(Op::GlobalAvgPool, &[xs])
    }

    /// `[c, h, w]` to `[c, size.0, size.1]`: means of windows that share the picture evenly.
    pub fn adaptive_avg_pool(&mut self, xs: Value, size: (usize, usize)) -> Value {
        self.unnamed(Op::AdaptiveAvgPool { size }, &[xs])
    }

    /// `[c, h, w]` to `[c, size.0, size.1]`.
    pub fn upsample(&mut self, xs: Value, size: (usize, usize), by: Interpolation) -> Value {
        self.unnamed(Op::Upsample { size, by }, &[xs])
    }

    /// Positive values that add up to 1 along a dimension; 0 is the channels.
    pub fn softmax(&mut self, xs: Value, dim: usize) -> Value {
        self.unnamed(Op::Softmax { dim }, &[xs])
    }

    /// `[c, h, w]` to `[c·h·w]`.
    pub fn flatten(&mut self, xs: Value) -> Value {
        self.unnamed(Op::Flatten, &[xs])
    }

    /// Values one after the other along the channels.
    pub fn concat(&mut self, xs: &[Value]) -> Value {
        self.unnamed(Op::Concat, xs)
    }

    /// Chosen channels of some values, counted through all of them in order.
    pub fn pick(&mut self, name: impl ToString, xs: &[Value], channels: Vec<usize>) -> Value {
        self.named(name, Op::Pick { channels }, xs)
    }

    /// The sum of values of one shape.
    pub fn add(&mut self, xs: &[Value]) -> Value {
        self.unnamed(Op::Add, xs)
    }

    /// The sum of values of one shape, each times a learned number; of one value, that times a learned number.
    pub fn weighted_sum(&mut self, name: impl ToString, xs: &[Value]) -> Value {
        self.named(name, Op::WeightedSum { through: None }, xs)
    }

    /// A value times another of its shape, or times a gate `[c]` or `[c, 1, 1]` for each channel.
    pub fn multiply(&mut self, xs: Value, by: Value) -> Value {
        self.unnamed(Op::Multiply, &[xs, by])
    }

    /// `[.., m, k]` and `[.., k, n]` to `[.., m, n]`.
    pub fn matmul(&mut self, xs: Value, ys: Value) -> Value {
        self.unnamed(Op::Matmul, &[xs, ys])
    }

    /// Each value times a number.
    pub fn scale(&mut self, xs: Value, by: f64) -> Value {
        self.unnamed(Op::Scale { by }, &[xs])
    }

    /// `len` places of a dimension, from `start` on.
    pub fn slice(&mut self, xs: Value, dim: usize, start: usize, len: usize) -> Value {
        self.unnamed(Op::Slice { dim, start, len }, &[xs])
    }

    /// The same values in another shape.
    pub fn reshape(&mut self, xs: Value, shape: &[usize]) -> Value {
        self.unnamed(Op::Reshape { shape: shape.to_vec() }, &[xs])
    }

    /// Dimension `order[i]` becomes dimension `i`.
    pub fn permute(&mut self, xs: Value, order: &[usize]) -> Value {
        self.unnamed(Op::Permute { order: order.to_vec() }, &[xs])
    }

    /// In training, each `unit` is 0 with probability `p`.
    pub fn dropout(&mut self, xs: Value, p: f64, unit: Unit) -> Value {
        self.unnamed(Op::Dropout { p, unit }, &[xs])
    }

    /// Any operation: what the other methods do with the usual settings.
    pub fn node(&mut self, name: impl ToString, op: Op, inputs: &[Value]) -> Value {
        self.named(name, op, inputs)
    }

    /// The graph whose result is `output`.
    ///
    /// # Errors
    /// The first mistake made while building.
    pub fn finish(self, output: Value) -> Result<Graph> {
        match self.mistake {
            Some(mistake) => Err(mistake),
            None => Ok(Graph { name: self.name, nodes: self.nodes, output: output.0, cells: self.cells }),
        }
    }

    fn named(&mut self, name: impl ToString, op: Op, inputs: &[Value]) -> Value {
        let path: Vec<&str> = self.scope.iter().map(String::as_str).collect();
        let name = path.into_iter().chain([name.to_string().as_str()]).collect::<Vec<_>>().join(".");
        if self.names.contains(&name) {
            self.mistaken(&name, "a name of its own", "one taken before");
        }
        self.push(name, op, inputs)
    }

    /// Named after the operation and the number of such nodes in the scope.
    fn unnamed(&mut self, op: Op, inputs: &[Value]) -> Value {
        let scope: String = self.scope.iter().flat_map(|part| [part.as_str(), "."]).collect();
        let stem = format!("{scope}{}", op.label());
        let number = self.numbers.entry(stem.clone()).or_default();
        let name = loop {
            let name = if *number == 0 { stem.clone() } else { format!("{stem}_{number}") };
            *number += 1;
            if !self.names.contains(&name) {
                break name;
            }
        };
        self.push(name, op, inputs)
    }

    fn push(&mut self, name: String, op: Op, inputs: &[Value]) -> Value {
        let shapes: Vec<&[usize]> = inputs.iter().map(|&xs| self.shape(xs)).collect();
        let (shape, own) = match op.shape(&shapes) {
            Ok(shape) => (shape, op.parameters(&shapes)),
            Err((wanted, found)) => {
                // Something to go on with; the graph is never handed out.
                let shape = shapes.first().map_or(vec![1], |shape| shape.to_vec());
                self.mistaken(&name, &wanted, &found);
                (shape, Vec::new())
            }
        };
        let init = self.inits.iter().filter(|(role, _)| own.iter().any(|(_, of, ..)| of == role)).copied().collect();
        self.names.insert(name.clone());
        self.nodes.push(Node { name, op, inputs: inputs.iter().map(|xs| xs.0).collect(), shape, init });
        Value(NodeId(self.nodes.len() - 1))
    }

    fn mistaken(&mut self, node: &str, wanted: &str, found: &str) {
        let what = format!("{}: {node}", self.name);
        self.mistake.get_or_insert_with(|| Error::mismatch(what, wanted, found));
    }
}
