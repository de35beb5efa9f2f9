//! Where the time of a training step goes, and how far products of matrices are from what the machine can do.

use std::collections::BTreeMap;
use std::time::Instant;

use candle::{DType, Device, Tensor};
use datasets::{Batches, Table};
use lab::exec::{Done, Pass, follow};
use lab::graph::{Graph, NodeId, Op};
use lab::metrics::profile;
use lab::train::{Event, to_tensors};
use lab::{Model, Recipe, fit};

use crate::some_batch;

const STEPS: usize = 5;

/// Prints a Markdown row for each kind of operation: milliseconds forward and backward, share of the step, and the rate of multiply-adds
/// beside that of a large product of matrices. A rate counts the multiply-adds of the definition, also where Winograd's algorithm does fewer.
pub(crate) fn profile(model: &Model, batch: usize) -> lab::Result<()> {
    let data = some_batch(batch, model.graph.input_shape());
    let only = data.epoch(0, 0).next().expect("a table has a batch").map_err(lab::Error::Batch)?;
    let (xs, labels) = to_tensors(&only, model.graph.input_shape(), &Device::Cpu)?;
    let mut costs: Vec<(String, Cost)> = costs(model, (&xs, &labels))?.into_iter().collect();
    costs.sort_by(|(_, a), (_, b)| b.seconds().total_cmp(&a.seconds()));
    let step = seconds_of_a_step(model, &data)?;
    let rest = step - costs.iter().map(|(_, cost)| cost.seconds()).sum::<f64>();
    costs.push(("rest: batch, length of the gradient, update".to_owned(), Cost { forward: rest, ..Cost::default() }));
    let peak = rate_of_a_product()?;
    println!("{}: {:.0} ms a step of {batch}; {} threads", model.graph.name, 1e3 * step, rayon::current_num_threads());
    println!("product of 1024×1024 matrices by candle, which is `gemm`: {:.0} GFLOP/s\n", 2e-9 * peak);
    println!("| operation | forward, ms | backward, ms | share, % | GFLOP/s | of the product's, % |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (kind, cost) in &costs {
        let (forward, backward, share) = (1e3 * cost.forward, 1e3 * cost.backward, 1e2 * cost.seconds() / step);
        let rate = cost.macs / cost.seconds();
        let rates = if cost.macs > 0.0 { format!("{:.0} | {:.0}", 2e-9 * rate, 1e2 * rate / peak) } else { " | ".to_owned() };
        println!("| {kind} | {forward:.1} | {backward:.1} | {share:.1} | {rates} |");
    }
    Ok(())
}

/// What one kind of operation costs in a step.
#[derive(Default)]
struct Cost {
    /// Seconds.
    forward: f64,
    /// Seconds.
    backward: f64,
    /// Multiply-adds of both.
    macs: f64,
}

impl Cost {
    fn seconds(&self) -> f64 {
        self.forward + self.backward
    }
}

/// By kind; of the quickest of some steps after a first one.
fn costs(model: &Model, (xs, labels): (&Tensor, &Tensor)) -> lab::Result<BTreeMap<String, Cost>> {
    let graph = &model.graph;
    let macs = profile::of(graph).rows;
    let (mut steps, mut step, mut last) = (Vec::new(), BTreeMap::<String, Cost>::new(), Instant::now());
    follow((graph, &model.params), (xs, labels), STEPS + 1, |done| {
        let seconds = last.elapsed().as_secs_f64();
        let products = match done.pass {
            Pass::Forward => 1,
            Pass::Loss => 0,
            // The input wants no gradient.
            Pass::Backward => 2 - usize::from(graph.node(done.node).inputs.contains(&NodeId(0))),
        };
        let cost = step.entry(kind(graph, done)).or_default();
        *(if done.pass == Pass::Forward { &mut cost.forward } else { &mut cost.backward }) += seconds;
        cost.macs += (products * xs.dims()[0]) as f64 * macs[done.node.0].macs as f64;
        // The gradient of the first operation ends a step.
        if done.pass == Pass::Backward && done.node == NodeId(1) {
            steps.push(std::mem::take(&mut step));
        }
        last = Instant::now();
    })?;
    let seconds = |step: &BTreeMap<String, Cost>| step.values().map(Cost::seconds).sum::<f64>();
    let quickest = steps.drain(1..).min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    Ok(quickest.unwrap_or_default())
}

/// What a person calls it: `conv 3×3`, `batch_norm, add, relu`.
fn kind(graph: &Graph, done: Done) -> String {
    let (node, last) = (graph.node(done.node), graph.node(done.last));
    if done.pass == Pass::Loss {
        return "loss".to_owned();
    }
    if done.node != done.last {
        let sum = if last.op == Op::Add || last.inputs.contains(&done.node) { "" } else { ", add" };
        return format!("{}{sum}, {}", node.op.label(), last.op.label());
    }
    match &node.op {
        Op::Conv(conv) => {
            let alone = if conv.groups > 1 { "depthwise " } else { "" };
            let stride = if conv.stride.0 > 1 { format!(", stride {}", conv.stride.0) } else { String::new() };
            format!("{alone}conv {}×{}{stride}", conv.kernel.0, conv.kernel.1)
        }
        op => op.label().to_owned(),
    }
}

/// The quickest of some steps of [`fit`], everything included.
fn seconds_of_a_step(model: &Model, data: &Table) -> lab::Result<f64> {
    let (mut quickest, mut start) = (f64::INFINITY, Instant::now());
    fit(model, data, None, &Recipe::sgd(0.01, STEPS + 1), |event| {
        if let Event::Step { .. } = event {
            quickest = quickest.min(start.elapsed().as_secs_f64());
        }
        start = Instant::now();
    })?;
    Ok(quickest)
}

/// Multiply-adds a second of the quickest of some products of 1024×1024 matrices.
fn rate_of_a_product() -> lab::Result<f64> {
    const SIZE: usize = 1024;
    let matrix = Tensor::ones((SIZE, SIZE), DType::F32, &Device::Cpu)?;
    let mut quickest = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        matrix.matmul(&matrix)?;
        quickest = quickest.min(start.elapsed().as_secs_f64());
    }
    Ok(SIZE.pow(3) as f64 / quickest)
}
