//! Channels that hold the same number in every pixel of every sample, whatever the input.
//!
//! They begin at a batch norm whose scale is 0, or at a layer without a weight other than 0, and are followed through whatever
//! acts on channels one by one.

use candle::{DType, Device, Tensor};

use crate::Result;
use crate::graph::{Conv, Graph, NodeId, Op, Role};
use crate::kernels;
use crate::params::Params;

/// Of each node, the number that each channel always holds; `None` for a channel that depends on the input.
pub(super) fn of(graph: &Graph, params: &Params) -> Result<Vec<Vec<Option<f64>>>> {
    let mut constants: Vec<Vec<Option<f64>>> = Vec::with_capacity(graph.nodes.len());
    for (at, node) in graph.nodes.iter().enumerate() {
        let id = NodeId(at);
        let input = |k: usize| &constants[node.inputs[k].0];
        let joined = || node.inputs.iter().flat_map(|input| constants[input.0].iter().copied());
        let own = match &node.op {
            Op::Linear(_) if node.shape.len() == 1 => layer(graph, params, id, input(0), Conv::k1(node.shape[0]))?,
            Op::Conv(conv) => layer(graph, params, id, input(0), *conv)?,
            Op::BatchNorm { eps, .. } => batch_norm(params, id, input(0), *eps)?,
            Op::Activate(activation) => {
                let numbers: Vec<f64> = input(0).iter().map(|constant| constant.unwrap_or(0.0)).collect();
                let activated = kernels::activate(&Tensor::new(numbers, &Device::Cpu)?, *activation)?.to_vec1::<f64>()?;
                input(0).iter().zip(activated).map(|(constant, activated)| constant.map(|_| activated)).collect()
            }
            Op::MaxPool(_) | Op::GlobalAvgPool | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } | Op::Dropout { .. } => input(0).clone(),
            Op::AvgPool(pool) => input(0).iter().map(|constant| constant.filter(|&k| k == 0.0 || pool.padding == (0, 0))).collect(),
            Op::Scale { by } => input(0).iter().map(|constant| constant.map(|k| k * by)).collect(),
            Op::Flatten => {
                let area = node.shape[0] / input(0).len();
                input(0).iter().flat_map(|&constant| vec![constant; area]).collect()
            }
            Op::Concat => joined().collect(),
            Op::Pick { channels } => {
                let all: Vec<Option<f64>> = joined().collect();
                channels.iter().map(|&channel| all[channel]).collect()
            }
            Op::Add => (0..node.shape[0]).map(|channel| (0..node.inputs.len()).map(|k| input(k)[channel]).sum()).collect(),
            // Nothing is lost where a constant is not seen.
            _ => vec![None; node.shape[0]],
        };
        constants.push(own);
    }
    Ok(constants)
}

/// Whether a layer passes the constant on as if the picture had no border: zeros of a padding are another number.
pub(super) fn passes(conv: &Conv, constant: Option<f64>) -> bool {
    constant.is_some_and(|k| k == 0.0 || conv.padding == (0, 0))
}

/// An output is constant when every channel it reads is.
fn layer(graph: &Graph, params: &Params, id: NodeId, inputs: &[Option<f64>], conv: Conv) -> Result<Vec<Option<f64>>> {
    let reads = reads(graph, params, id)?;
    let share = contribution(graph, params, id, inputs, conv.groups)?;
    let bias = numbers(params, id, Role::Bias)?;
    let (outputs, each) = (reads.len(), inputs.len() / conv.groups);
    let output = |o: usize| {
        let from = o / (outputs / conv.groups) * each;
        let mut read = inputs[from..from + each].iter().zip(&reads[o]).filter(|(_, reads)| **reads);
        let constant = read.all(|(&constant, _)| passes(&conv, constant));
        constant.then(|| share[o] + bias.get(o).copied().unwrap_or(0.0))
    };
    Ok((0..outputs).map(output).collect())
}

fn batch_norm(params: &Params, id: NodeId, inputs: &[Option<f64>], eps: f64) -> Result<Vec<Option<f64>>> {
    let roles = [Role::Scale, Role::Shift, Role::RunningMean, Role::RunningVar].map(|role| numbers(params, id, role));
    let [scale, shift, mean, var] = roles;
    let (scale, shift, mean, var) = (scale?, shift?, mean?, var?);
    let shift = |c: usize| shift.get(c).copied().unwrap_or(0.0);
    let output = |(c, constant): (usize, &Option<f64>)| match scale.get(c).copied().unwrap_or(1.0) {
        0.0 => Some(shift(c)),
        scale => constant.map(|k| (k - mean[c]) / (var[c] + eps).sqrt() * scale + shift(c)),
    };
    Ok(inputs.iter().enumerate().map(output).collect())
}

/// Of a layer, for each output, whether it has a weight other than 0 on each of the inputs of its group.
pub(super) fn reads(graph: &Graph, params: &Params, id: NodeId) -> Result<Vec<Vec<bool>>> {
    let some = weight(graph, params, id)?.ne(0.0)?.max(2)?.to_vec2::<u8>()?;
    Ok(some.into_iter().map(|row| row.into_iter().map(|some| some != 0).collect()).collect())
}

/// What constant inputs add to each output of a layer; inputs that are not constant count as 0.
pub(super) fn contribution(graph: &Graph, params: &Params, id: NodeId, inputs: &[Option<f64>], groups: usize) -> Result<Vec<f64>> {
    let weight = weight(graph, params, id)?;
    let (outputs, each, _) = weight.dims3()?;
    if inputs.iter().all(|constant| constant.unwrap_or(0.0) == 0.0) {
        return Ok(vec![0.0; outputs]);
    }
    let sums = weight.sum(2)?.to_vec2::<f64>()?;
    let output = |(o, row): (usize, &Vec<f64>)| {
        let from = o / (outputs / groups) * each;
        row.iter().zip(&inputs[from..]).map(|(sum, constant)| sum * constant.unwrap_or(0.0)).sum()
    };
    Ok(sums.iter().enumerate().map(output).collect())
}

/// The weight of a layer as `(outputs, inputs of a group, taps)`.
fn weight(graph: &Graph, params: &Params, id: NodeId) -> Result<Tensor> {
    let own = params.of(id).iter().find(|(parameter, _)| parameter.role == Role::Weight);
    let Some((_, weight)) = own else { return Err(crate::Error::mismatch(&graph.node(id).name, "a weight", "none")) };
    let weight = super::used(&graph.node(id).op, &weight.as_detached_tensor())?;
    let (outputs, inputs) = (weight.dim(0)?, weight.dim(1)?);
    let taps = weight.elem_count() / (outputs * inputs);
    Ok(weight.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.reshape((outputs, inputs, taps))?)
}

/// The values of a node's parameter of that role; none where it has none.
fn numbers(params: &Params, id: NodeId, role: Role) -> Result<Vec<f64>> {
    let own = params.of(id).iter().find(|(parameter, _)| parameter.role == role);
    Ok(own.map(|(_, var)| var.to_dtype(DType::F64)?.to_vec1::<f64>()).transpose()?.unwrap_or_default())
}
