//! Channels that cannot change the result, removed.
//!
//! What is needed spreads from the result against the edges. Convolutions and linear layers ask for the inputs that have a
//! weight other than 0 in an output that is needed; a pick asks for what it chose; everything else passes channels on, and then
//! all of its sides keep the same ones: a sum, for one, cannot lose a channel of one of its inputs only. A constant channel
//! (see `constants`) need not be read either: what it adds goes into the bias of its reader, where no padding is in the way.

use candle::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::constants;
use crate::Result;
use crate::graph::{Conv, Graph, Linear, Node, NodeId, Op, Parameter, Role};
use crate::params::Params;

/// A network without its dead channels, and what is gone.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// The smaller architecture.
    pub graph: Graph,
    /// What is left of the weights.
    pub params: Params,
    /// One entry for each node that lost channels, in the order of the old graph.
    pub removed: Vec<Removed>,
}

/// Channels that a node lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The node's name.
    pub node: String,
    /// Which, counted as they were; all of them where the node is gone.
    pub channels: Vec<usize>,
    /// How many it had.
    pub of: usize,
}

/// The network without the channels that no output depends on, and without those that are constant: the same value in
/// evaluation, but for rounding. Input and output keep their shapes; groups of a convolution leave as a whole; a layer that uses only its
/// largest weights gets these alone.
///
/// # Errors
/// When the device has no room.
#[expect(clippy::missing_panics_doc, reason = "the output is needed")]
pub fn prune(graph: &Graph, params: &Params) -> Result<Pruned> {
    let constants = constants::of(graph, params)?;
    let kept = needed(graph, &flows(graph, params, &constants)?);
    // Old numbers of the channels that stay.
    let stay: Vec<Vec<usize>> = kept.iter().map(|kept| (0..kept.len()).filter(|&channel| kept[channel]).collect()).collect();
    let alive = |id: &NodeId| !stay[id.0].is_empty();

    let mut nodes = Vec::new();
    let mut place = vec![None; graph.nodes.len()];
    // What constant channels that go add to the outputs of their readers.
    let mut shares = vec![Vec::new(); graph.nodes.len()];
    for (at, node) in graph.nodes.iter().enumerate().filter(|(at, _)| alive(&NodeId(*at))) {
        if let Some(groups) = groups(node) {
            let NodeId(input) = node.inputs[0];
            let gone: Vec<Option<f64>> = (0..kept[input].len()).map(|c| constants[input][c].filter(|_| !kept[input][c])).collect();
            shares[at] = constants::contribution(graph, params, NodeId(at), &gone, groups)?;
        }
        let mut shape = node.shape.clone();
        shape[0] = stay[at].len();
        let inputs = node.inputs.iter().filter(|input| alive(input)).filter_map(|input| place[input.0]).collect();
        nodes.push(Node { op: shrunk(node, at, &kept, &shares[at]), inputs, shape, ..node.clone() });
        place[at] = Some(NodeId(nodes.len() - 1));
    }
    let cells = graph.cells.iter().map(|layers| layers.iter().filter_map(|layer| place[layer.0]).collect()).collect();
    let output = place[graph.output.0].expect("the output is needed");
    let smaller = Graph { name: graph.name.clone(), nodes, output, cells };

    let old: Vec<usize> = (0..graph.nodes.len()).filter(|&at| place[at].is_some()).collect();
    let value = |parameter: &Parameter| {
        let at = old[parameter.node.0];
        let (node, own) = (&graph.nodes[at], params.of(NodeId(at)));
        let columns = (groups(node) == Some(1)).then(|| stay[node.inputs[0].0].as_slice());
        sliced(node, own, parameter, &stay[at], columns, &shares[at])
    };
    let params = Params::collect(&smaller, value)?;
    let lost = |(at, node): (usize, &Node)| {
        let channels: Vec<usize> = (0..node.shape[0]).filter(|&channel| !kept[at][channel]).collect();
        (!channels.is_empty()).then(|| Removed { node: node.name.clone(), channels, of: node.shape[0] })
    };
    Ok(Pruned { graph: smaller, params, removed: graph.nodes.iter().enumerate().filter_map(lost).collect() })
}

/// The groups of a layer that has weights between channels. A linear layer over tokens has them between features.
fn groups(node: &Node) -> Option<usize> {
    match &node.op {
        Op::Conv(conv) => Some(conv.groups),
        Op::Linear(_) if node.shape.len() == 1 => Some(1),
        _ => None,
    }
}

/// How a node's channels hang on those of its inputs, counted through all inputs in order.
enum Flow {
    /// An output that stays asks for the inputs where this, `[output][input]`, is true.
    Chosen(Vec<Vec<bool>>),
    /// An output that stays asks for that one input.
    Picked(Vec<usize>),
    /// Inputs and outputs fall into so many groups; a group stays or goes as a whole, on both sides.
    Groups(usize),
    /// A channel stays in the output and in every input, or in none.
    Sum,
}

fn flows(graph: &Graph, params: &Params, constants: &[Vec<Option<f64>>]) -> Result<Vec<Flow>> {
    let chosen = |at: usize, conv: Conv| {
        let mut reads = constants::reads(graph, params, NodeId(at))?;
        for row in &mut reads {
            let inputs = &constants[graph.nodes[at].inputs[0].0];
            row.iter_mut().zip(inputs).for_each(|(reads, &constant)| *reads &= !constants::passes(&conv, constant));
        }
        Ok(Flow::Chosen(reads))
    };
    let flow = |(at, node): (usize, &Node)| {
        let channels = node.shape[0];
        let input = |k: usize| &graph.node(node.inputs[k]).shape;
        // One by one, or all together.
        let each = |alone: bool| Ok(Flow::Groups(if alone { channels } else { 1 }));
        match &node.op {
            Op::Linear(_) if node.shape.len() == 1 => chosen(at, Conv::k1(channels)),
            Op::Conv(conv) if conv.groups == 1 => chosen(at, *conv),
            Op::Conv(conv) => Ok(Flow::Groups(conv.groups)),
            Op::Pick { channels } => Ok(Flow::Picked(channels.clone())),
            Op::Slice { dim: 0, start, len } => Ok(Flow::Picked((*start..start + len).collect())),
            Op::Add | Op::WeightedSum { .. } => Ok(Flow::Sum),
            Op::Multiply if (1..node.inputs.len()).all(|k| input(k)[0] == channels) => Ok(Flow::Sum),
            Op::Flatten => Ok(Flow::Groups(input(0)[0])),
            Op::Softmax { dim } => each(*dim > 0),
            Op::LayerNorm { dims, .. } => each(*dims < node.shape.len()),
            Op::Permute { order } => each(order[0] == 0),
            Op::Multiply | Op::Matmul | Op::Reshape { .. } => each(false),
            Op::Input | Op::Linear(_) | Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::Activate(_) | Op::Scale { .. } => each(true),
            Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => each(true),
            Op::Concat | Op::Slice { .. } | Op::Dropout { .. } => each(true),
        }
    };
    graph.nodes.iter().enumerate().map(flow).collect()
}

/// For each node, which channels stay: the fewest that satisfy everybody. A node without any is not needed at all.
fn needed(graph: &Graph, flows: &[Flow]) -> Vec<Vec<bool>> {
    let mut kept: Vec<Vec<bool>> = graph.nodes.iter().map(|node| vec![false; node.shape[0]]).collect();
    kept[0].fill(true);
    kept[graph.output.0].fill(true);
    loop {
        let before = kept.clone();
        for (at, flow) in flows.iter().enumerate().rev().filter(|(at, _)| *at > 0) {
            if kept[at].contains(&true) {
                spread(&graph.nodes[at].inputs, at, flow, &mut kept);
            }
        }
        if kept != before {
            continue;
        }
        // A layer whose weights are all 0 still has to read something.
        let asks = |at: &usize| matches!(flows[*at], Flow::Chosen(_)) && kept[*at].contains(&true);
        let starving = (0..flows.len()).filter(asks).map(|at| graph.nodes[at].inputs[0].0).find(|&input| !kept[input].contains(&true));
        match starving {
            Some(input) => kept[input][0] = true,
            None => return kept,
        }
    }
}

/// What a node that is needed asks of its inputs, and where it is tied to them, they of it.
fn spread(inputs: &[NodeId], at: usize, flow: &Flow, kept: &mut [Vec<bool>]) {
    let own = |channel: usize| (at, channel);
    let read: Vec<(usize, usize)> = inputs.iter().flat_map(|&NodeId(input)| (0..kept[input].len()).map(move |c| (input, c))).collect();
    let outputs = kept[at].len();
    match flow {
        Flow::Chosen(reads) => {
            for &(input, c) in &read {
                kept[input][c] |= (0..outputs).any(|o| kept[at][o] && reads[o][c]);
            }
        }
        Flow::Picked(channels) => {
            for (o, &channel) in channels.iter().enumerate() {
                let (input, c) = read[channel];
                kept[input][c] |= kept[at][o];
            }
        }
        Flow::Groups(groups) => {
            let (each_in, each_out) = (read.len() / groups, outputs / groups);
            for group in 0..*groups {
                let ends = (group * each_out..(group + 1) * each_out).map(own);
                tie(kept, ends.chain(read[group * each_in..(group + 1) * each_in].iter().copied()).collect());
            }
        }
        Flow::Sum => (0..outputs).for_each(|c| tie(kept, inputs.iter().map(|input| (input.0, c)).chain([own(c)]).collect())),
    }
}

/// These channels, by node and number, stay together or go together.
fn tie(kept: &mut [Vec<bool>], ends: Vec<(usize, usize)>) {
    if ends.iter().any(|&(node, channel)| kept[node][channel]) {
        ends.iter().for_each(|&(node, channel)| kept[node][channel] = true);
    }
}

/// The operation of a node for the channels that stay; with a bias where constant channels went into it.
fn shrunk(node: &Node, at: usize, kept: &[Vec<bool>], share: &[f64]) -> Op {
    let count = |at: usize| kept[at].iter().filter(|&&kept| kept).count();
    let biased = share.iter().zip(&kept[at]).any(|(share, kept)| *kept && *share != 0.0);
    // New numbers of some channels of the inputs, in a row, where the output stays.
    let renumbered = |channels: &mut dyn Iterator<Item = usize>| {
        let read: Vec<bool> = node.inputs.iter().flat_map(|input| kept[input.0].iter().copied()).collect();
        let stays = channels.zip(&kept[at]).filter(|(_, kept)| **kept);
        stays.map(|(channel, _)| read[..channel].iter().filter(|&&kept| kept).count()).collect()
    };
    match &node.op {
        Op::Conv(conv) => {
            let groups = if conv.groups == 1 { 1 } else { count(at) * conv.groups / conv.channels };
            Op::Conv(Conv { channels: count(at), groups, bias: conv.bias || biased, top: None, ..*conv })
        }
        Op::Linear(linear) if node.shape.len() == 1 => Op::Linear(Linear { features: count(at), bias: linear.bias || biased, top: None }),
        Op::Linear(linear) => Op::Linear(Linear { top: None, ..*linear }),
        Op::Pick { channels } => Op::Pick { channels: renumbered(&mut channels.iter().copied()) },
        Op::Slice { dim: 0, start, len } if count(node.inputs[0].0) < kept[node.inputs[0].0].len() => {
            Op::Pick { channels: renumbered(&mut (*start..start + len)) }
        }
        other => other.clone(),
    }
}

/// The part of a parameter that stays: rows of the channels in `rows`, of a weight between all channels the columns in `columns`.
fn sliced(
    node: &Node,
    own: &[(Parameter, Var)],
    parameter: &Parameter,
    rows: &[usize],
    columns: Option<&[usize]>,
    share: &[f64],
) -> candle::Result<Tensor> {
    let select = |value: &Tensor, channels: &[usize], dim: usize| {
        let channels: Vec<u32> = channels.iter().map(|&channel| channel as u32).collect();
        value.index_select(&Tensor::new(channels, value.device())?, dim)
    };
    let old = own.iter().find(|(old, _)| old.name == parameter.name).map(|(_, var)| var.as_detached_tensor());
    let per_channel = groups(node).is_some() || matches!(node.op, Op::BatchNorm { .. } | Op::InstanceNorm { .. });
    match (parameter.role, old) {
        (Role::Weight, Some(weight)) if !per_channel => super::used(&node.op, &weight),
        (_, Some(value)) if !per_channel => Ok(value),
        (Role::Weight, Some(weight)) => {
            let weight = select(&super::used(&node.op, &weight)?, rows, 0)?;
            columns.map_or(Ok(weight.clone()), |columns| select(&weight, columns, 1))
        }
        (Role::Bias, old) => {
            let like = &own[0].1;
            let share = Tensor::new(rows.iter().map(|&row| share[row]).collect::<Vec<f64>>(), like.device())?;
            let sum = match old {
                Some(bias) => (select(&bias, rows, 0)?.to_dtype(DType::F64)? + share)?,
                None => share,
            };
            sum.to_dtype(like.dtype())
        }
        (_, Some(value)) => select(&value, rows, 0),
        (_, None) => candle::bail!("{}: wanted a value, found none", parameter.name),
    }
}
