//! What a network costs, from its graph alone: parameters and multiply-adds.
//!
//! One MAC is one multiply-add of a convolution, a linear layer or a product of matrices, for one sample. Biases, normalisation,
//! activations, pooling, resampling, gates and additions are free, as papers count; so are weights that a layer's `top` leaves out.
//! Parameters are those that are trained, in use or not: running statistics are not. Other conventions have names: [`Convention`].

use std::fmt::Write;

use serde::Serialize;

use crate::graph::{Graph, Op};

/// The cost of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The node's name.
    pub node: String,
    /// Its operation.
    pub op: &'static str,
    /// Shape of its output, one sample, such as `16×32×32`.
    pub output: String,
    /// Trained parameters.
    pub params: usize,
    /// Multiply-adds, one sample.
    pub macs: u64,
}

/// The cost of a network, node by node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// In execution order.
    pub rows: Vec<Row>,
    /// Trained parameters.
    pub params: usize,
    /// Multiply-adds, one sample.
    pub macs: u64,
}

/// What counts as a multiply-add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// Products of weights and inputs, or of two inputs: [`of`].
    Products,
    /// As the profiler thop 0.0.31 counts, and so the figures of MobileNetV2 and its kin in some papers: besides products, one for each
    /// bias that a convolution adds, two for each number that batch norm in evaluation gives, one for each mean of a window.
    Thop31,
}

/// The cost of `graph`, counting products.
pub fn of(graph: &Graph) -> Profile {
    by(graph, Convention::Products)
}

/// The cost of `graph` by a convention of what a multiply-add is.
pub fn by(graph: &Graph, convention: Convention) -> Profile {
    let mut params = vec![0; graph.nodes.len()];
    let mut weights = vec![0; graph.nodes.len()];
    for parameter in graph.parameters() {
        params[parameter.node.0] += if parameter.role.trainable() { parameter.len() } else { 0 };
        weights[parameter.node.0] += if parameter.role == crate::graph::Role::Weight { parameter.len() } else { 0 };
    }
    let row = |(at, node): (usize, &crate::graph::Node)| {
        // Each weight in use meets one input per output position.
        let used = |top: Option<usize>| top.unwrap_or(weights[at]);
        let values: usize = node.shape.iter().product();
        let products = match &node.op {
            Op::Conv(conv) => used(conv.top) * node.shape[1..].iter().product::<usize>(),
            Op::Linear(linear) => used(linear.top) * values / linear.features,
            Op::Matmul => values * graph.node(node.inputs[0]).shape.last().unwrap_or(&0),
            _ => 0,
        };
        let besides = match &node.op {
            _ if convention == Convention::Products => 0,
            Op::Conv(conv) if conv.bias => values,
            Op::BatchNorm { .. } => 2 * values,
            Op::AvgPool(_) => values,
            _ => 0,
        };
        let macs = (products + besides) as u64;
        Row { node: node.name.clone(), op: node.op.label(), output: sizes(&node.shape), params: params[at], macs }
    };
    let rows: Vec<Row> = graph.nodes.iter().enumerate().map(row).collect();
    let (params, macs) = (rows.iter().map(|row| row.params).sum(), rows.iter().map(|row| row.macs).sum());
    Profile { rows, params, macs }
}

/// Such as `16×32×32`.
fn sizes(shape: &[usize]) -> String {
    let mut text = String::new();
    for (at, size) in shape.iter().enumerate() {
        let between = if at > 0 { "×" } else { "" };
        write!(text, "{between}{size}").expect("a string takes any text");
    }
    text
}
