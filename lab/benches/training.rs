//! One optimiser step of whole networks, ours or by candle's own operations, at the word of whoever measures.
//!
//! `training MODEL BATCH ENGINE [DEVICE]` takes one step for each line it reads and answers with the step's seconds;
//! at the end of its input it says how many bytes it needed at most. `training.py` is the same for PyTorch, and `cargo xtask bench train`
//! talks to both in turn.

use std::io::{BufRead, Write};
use std::time::Instant;

use candle::{Device, Result, Tensor, Var};
use datasets::{Batch, BatchIter, Batches, Seed, Values};
use lab::graph::{Graph, Op};
use lab::models::{mobilenet_v2, resnet, vgg};
use lab::train::Event;
use lab::{Activation, Model, Recipe, device, fit};

/// The networks that are timed, by name.
fn graph(name: &str) -> lab::Result<Graph> {
    match name {
        "resnet18" => resnet::Config::r18(10).cifar().graph(),
        "vgg16_bn" => vgg::Config::d16(10).cifar().graph(),
        "mobilenet_v2" => mobilenet_v2::Config::imagenet(1.0, 10).cifar().graph(),
        other => panic!("a network called {other}"),
    }
}

fn main() -> lab::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [name, batch, engine, rest @ ..] = args.as_slice() else {
        println!("nothing to measure: `cargo xtask bench train` does");
        return Ok(());
    };
    let batch: usize = batch.parse().expect("a batch size");
    let want = if rest.first().map(String::as_str) == Some("cuda") { device::Want::Cuda } else { device::Want::Cpu };
    let graph = graph(name)?;
    let model = Model::new(graph, Seed(0), &device::pick(want)?)?;
    let mut talk = Talk { lines: std::io::stdin().lock().lines(), start: Instant::now() };
    if engine == "candle" {
        by_candle(&model, batch, &mut talk)?;
        return Ok(());
    }
    let data = Same(some_batch(batch, model.graph.input_shape()));
    talk.wait();
    let recipe = Recipe::sgd(0.01, 1_000_000);
    let outcome = fit(&model, &data, None, &recipe, |event| {
        if let Event::Step { .. } = event {
            talk.answer();
            talk.wait();
        }
    });
    outcome.map(|_| ())
}

/// Noise, with labels in turn.
fn some_batch(n: usize, shape: &[usize]) -> Batch {
    let mut rng = Seed(1).rng();
    let values = (0..n * shape.iter().product::<usize>()).map(|_| rng.range(0.0, 1.0) as f32).collect();
    let labels = (0..n as u32).map(|at| at % 10).collect();
    Batch { values: Values::F32(values), shape: [&[n], shape].concat(), labels, indices: (0..n as u64).collect(), normalize: None }
}

/// Epochs of one and the same batch.
struct Same(Batch);

impl Batches for Same {
    fn samples(&self) -> usize {
        self.0.len()
    }
    fn batches(&self) -> usize {
        1
    }
    fn sample_shape(&self) -> Vec<usize> {
        self.0.shape[1..].to_vec()
    }
    fn classes(&self) -> usize {
        10
    }
    fn epoch(&self, _: u64, first: usize) -> BatchIter {
        let batch = (first == 0).then(|| Ok(self.0.clone()));
        Box::new(batch.into_iter())
    }
}

/// The other side of the pipe.
struct Talk<L> {
    lines: L,
    start: Instant,
}

impl<L: Iterator<Item = std::io::Result<String>>> Talk<L> {
    /// Until the next line; ends the program when there is none.
    fn wait(&mut self) {
        if self.lines.next().is_none() {
            println!("{}", peak());
            std::process::exit(0);
        }
        self.start = Instant::now();
    }

    fn answer(&mut self) {
        println!("{}", self.start.elapsed().as_secs_f64());
        std::io::stdout().flush().expect("somebody listens");
    }
}

/// The most memory this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// A step as one would write it with candle alone: its operations, its autograd, its SGD.
fn by_candle(model: &Model, batch: usize, talk: &mut Talk<impl Iterator<Item = std::io::Result<String>>>) -> Result<()> {
    let device = &Device::Cpu;
    let xs = Tensor::rand(0f32, 1f32, [&[batch], model.graph.input_shape()].concat(), device)?;
    let labels = Tensor::arange(0u32, batch as u32, device)?.to_dtype(candle::DType::F32)?;
    let labels = (&labels - ((labels.clone() / 10.0)?.floor()? * 10.0)?)?.to_dtype(candle::DType::U32)?;
    let vars: Vec<Var> = model.params.trainable().map(|(_, var)| var.clone()).collect();
    let mut sgd = <candle_nn::SGD as candle_nn::Optimizer>::new(vars, 0.01)?;
    loop {
        talk.wait();
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
            #[expect(clippy::disallowed_methods, reason = "its gradient is wrong, and takes the time that it takes")]
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
