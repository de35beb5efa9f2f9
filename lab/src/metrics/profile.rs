//! What a network costs, from its graph alone: parameters and multiply-adds.
//!
//! One MAC is one multiply-add of a convolution or a linear layer, for one sample. Biases, normalisation, activations,
//! pooling and additions are free, as papers count. Parameters are those that are trained: running statistics are not.

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

/// The cost of `graph`.
pub fn of(graph: &Graph) -> Profile {
    let mut params = vec![0; graph.nodes.len()];
    let mut weights = vec![0; graph.nodes.len()];
    for parameter in graph.parameters() {
        params[parameter.node.0] += if parameter.role.trainable() { parameter.len() } else { 0 };
        weights[parameter.node.0] += if parameter.role == crate::graph::Role::Weight { parameter.len() } else { 0 };
    }
    let row = |(at, node): (usize, &crate::graph::Node)| {
        // Each weight meets one input per output position.
        let positions: usize = match node.op {
            Op::Conv(_) => node.shape[1..].iter().product(),
            _ => 1,
        };
        let sizes: Vec<String> = node.shape.iter().map(usize::to_string).collect();
        let macs = (weights[at] * positions) as u64;
        Row { node: node.name.clone(), op: node.op.label(), output: sizes.join("×"), params: params[at], macs }
    };
    let rows: Vec<Row> = graph.nodes.iter().enumerate().map(row).collect();
    let (params, macs) = (rows.iter().map(|row| row.params).sum(), rows.iter().map(|row| row.macs).sum());
    Profile { rows, params, macs }
}
