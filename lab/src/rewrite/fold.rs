//! Batch norms folded into the layers before them.
//!
//! With running statistics a batch norm is `s·x + t` for each channel, where `s = scale / √(var + eps)` and
//! `t = shift − s·mean`. A convolution or linear layer that nothing else reads can do that itself, with the weights `s·w` and
//! the bias `s·b + t`.

use std::collections::BTreeMap;

use candle::{DType, Tensor, Var};

use crate::Result;
use crate::graph::{Conv, Graph, Linear, Node, NodeId, Op, Parameter, Role};
use crate::params::Params;

/// The network without the batch norms that directly follow a convolution or linear layer which only they read: the same
/// value in evaluation, but for rounding. Other batch norms stay. Layers keep their names, and get a bias where they had none; those
/// that use only their largest weights get these alone.
///
/// # Errors
/// When the device has no room.
pub fn fold(graph: &Graph, params: &Params) -> Result<(Graph, Params)> {
    let readers = readers(graph);
    let mut values: BTreeMap<String, Tensor> =
        params.iter().map(|(parameter, var)| (parameter.name.clone(), var.as_detached_tensor())).collect();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes.len());
    // Where the value of each old node is now.
    let mut place: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for (at, node) in graph.nodes.iter().enumerate() {
        if let Op::BatchNorm { eps, .. } = node.op {
            let NodeId(source) = node.inputs[0];
            let layer = &mut nodes[place[source].0];
            if let (1, Some(op)) = (readers[source], with_bias(&layer.op)) {
                fold_into(&mut values, layer, params.of(NodeId(at)), eps)?;
                layer.op = op;
                place.push(place[source]);
                continue;
            }
        }
        let inputs = node.inputs.iter().map(|input| place[input.0]).collect();
        nodes.push(Node { inputs, ..node.clone() });
        place.push(NodeId(nodes.len() - 1));
    }
    let cells = graph.cells.iter().map(|layers| layers.iter().map(|layer| place[layer.0]).collect()).collect();
    let graph = Graph { name: graph.name.clone(), nodes, output: place[graph.output.0], cells };
    let params = Params::collect(&graph, |parameter| Ok(values[&parameter.name].clone()))?;
    Ok((graph, params))
}

/// How many nodes read each node; the result of the network is read by whoever runs it.
fn readers(graph: &Graph) -> Vec<usize> {
    let mut readers = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|input| readers[input.0] += 1);
    readers[graph.output.0] += 1;
    readers
}

/// The operation with a bias, if batch norm can fold into it.
fn with_bias(op: &Op) -> Option<Op> {
    match op {
        Op::Conv(conv) => Some(Op::Conv(Conv { bias: true, top: None, ..*conv })),
        Op::Linear(linear) => Some(Op::Linear(Linear { bias: true, top: None, ..*linear })),
        _ => None,
    }
}

/// Changes weight and bias of `layer`. In `f64`, so that only the result is rounded.
fn fold_into(values: &mut BTreeMap<String, Tensor>, layer: &Node, norm: &[(Parameter, Var)], eps: f64) -> candle::Result<()> {
    let of = |role: Role| norm.iter().find(|(parameter, _)| parameter.role == role).map(|(_, var)| var.to_dtype(DType::F64)).transpose();
    let (Some(mean), Some(var)) = (of(Role::RunningMean)?, of(Role::RunningVar)?) else {
        candle::bail!("batch norm: wanted running statistics, found none")
    };
    let spread = (var + eps)?.sqrt()?;
    let factor = of(Role::Scale)?.map_or_else(|| spread.recip(), |scale| scale.div(&spread))?;
    let (weight_name, bias_name) = (format!("{}.weight", layer.name), format!("{}.bias", layer.name));
    let weight = super::used(&layer.op, &values[&weight_name])?;
    let dtype = weight.dtype();
    let per_channel: Vec<usize> = [factor.elem_count()].into_iter().chain(vec![1; weight.rank() - 1]).collect();
    let weight = weight.to_dtype(DType::F64)?.broadcast_mul(&factor.reshape(per_channel)?)?.to_dtype(dtype)?;
    let centred = match values.get(&bias_name) {
        Some(bias) => bias.to_dtype(DType::F64)?.sub(&mean)?,
        None => mean.neg()?,
    };
    let bias = centred.mul(&factor)?;
    let bias = of(Role::Shift)?.map_or_else(|| Ok(bias.clone()), |shift| &bias + shift)?.to_dtype(dtype)?;
    values.insert(weight_name, weight);
    values.insert(bias_name, bias);
    Ok(())
}
