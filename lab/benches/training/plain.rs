//! The same networks and steps as one would write them with candle alone.
#![expect(clippy::disallowed_methods, reason = "what is wrong with candle's operations takes the time that it takes")]

use candle::{DType, Device, Result, Tensor, Var};
use lab::graph::Op;
use lab::{Activation, Model};

use crate::Talk;

/// Steps by candle's operations, its autograd, its SGD.
pub(crate) fn by_candle(model: &Model, batch: usize, talk: &mut Talk) -> Result<()> {
    let device = &Device::Cpu;
    let xs = Tensor::rand(0f32, 1f32, [&[batch], model.graph.input_shape()].concat(), device)?;
    let labels = Tensor::arange(0u32, batch as u32, device)?.to_dtype(DType::F32)?;
    let labels = (&labels - ((labels.clone() / 10.0)?.floor()? * 10.0)?)?.to_dtype(DType::U32)?;
    let vars: Vec<Var> = model.params.trainable().map(|(_, var)| var.clone()).collect();
    talk.begin(model);
    let mut sgd = <candle_nn::SGD as candle_nn::Optimizer>::new(vars, 0.01)?;
    loop {
        talk.wait(device);
        let logits = forward_by_candle(model, &xs)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels)?;
        candle_nn::Optimizer::backward_step(&mut sgd, &loss)?;
        talk.answer();
    }
}

fn forward_by_candle(model: &Model, xs: &Tensor) -> Result<Tensor> {
    let mut values: Vec<Tensor> = Vec::new();
    for node in &model.graph.nodes {
        let input = |k: usize| &values[node.inputs[k].0];
        let param = |name: &str| model.params.get(&format!("{}.{name}", node.name)).map(|var| var.as_tensor().clone());
        let value = match &node.op {
            Op::Input => xs.clone(),
            Op::Conv(conv) => {
                let ys = input(0).conv2d(&param("weight").expect("its weight"), conv.padding.0, conv.stride.0, 1, conv.groups)?;
                if conv.bias { ys.broadcast_add(&param("bias").expect("its bias").reshape((1, (), 1, 1))?)? } else { ys }
            }
            Op::Linear(_) => {
                input(0).matmul(&param("weight").expect("its weight").t()?)?.broadcast_add(&param("bias").expect("its bias"))?
            }
            Op::BatchNorm { eps, .. } => {
                let of = |name: &str| param(name).expect("its parameter");
                let norm = candle_nn::BatchNorm::new(
                    of("weight").elem_count(),
                    of("running_mean"),
                    of("running_var"),
                    of("weight"),
                    of("bias"),
                    *eps,
                )?;
                candle_nn::ModuleT::forward_t(&norm, input(0), true)?
            }
            Op::Activate(Activation::Relu) => input(0).relu()?,
            Op::Activate(_) => input(0).clamp(0f32, 6f32)?,
            Op::MaxPool(pool) => input(0).max_pool2d(pool.kernel.0)?,
            Op::AvgPool(pool) => input(0).avg_pool2d(pool.kernel.0)?,
            Op::GlobalAvgPool => input(0).mean((2, 3))?,
            Op::Flatten => input(0).flatten_from(1)?,
            Op::Add => (input(0) + input(1))?,
            Op::Dropout { .. } => input(0).clone(),
            other => candle::bail!("{} is not in these networks", other.label()),
        };
        values.push(value);
    }
    Ok(values[model.graph.output.0].clone())
}
