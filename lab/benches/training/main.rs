//! Training as PyTorch's twin program `training.py` does it too; `cargo xtask bench` talks to both.
//!
//! - `training step MODEL BATCH ENGINE [DEVICE]`, with the engine `topolab` or `candle`, says how many parameters the network has, then takes
//!   one optimiser step for each line that it reads and answers with the step's seconds; at the end of its input it says how many bytes it
//!   needed at most, and 0 where it does not know. On the device `cuda` Topolab computes in mixed precision.
//! - `training profile MODEL BATCH` says where the time of such a step goes.
//! - `training learn FOLDER SEED [DEVICE]` trains on CIFAR-10 below that folder: on a part of it, or with `cuda` on all of it.
#![expect(clippy::print_stdout, reason = "prints what it has measured")]

mod learn;
mod plain;
mod profile;

use std::io::{BufRead, Write};
use std::time::Instant;

use candle::Device;
use datasets::{Seed, Table};
use lab::graph::{Builder, Conv, Graph, Value};
use lab::models::{mobilenet_v2, resnet, vgg};
use lab::train::{Event, Precision};
use lab::{Activation, Model, Recipe, device, fit};

fn main() -> lab::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["step", model, batch, "candle"] => plain::by_candle(&network(model, &Device::Cpu)?, number(batch), &mut Talk::new())?,
        ["step", model, batch, "topolab", on @ ..] => steps(&network(model, &device(on)?)?, number(batch))?,
        ["profile", model, batch] => profile::profile(&network(model, &Device::Cpu)?, number(batch))?,
        ["learn", folder, seed, on @ ..] => learn::learn(folder, Seed(number(seed) as u64), &device(on)?)?,
        _ => println!("nothing to measure: `cargo xtask bench train` does"),
    }
    Ok(())
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("wanted a number, found {text}"))
}

fn device(args: &[&str]) -> lab::Result<Device> {
    device::pick(if args == ["cuda"] { device::Want::Cuda } else { device::Want::Cpu })
}

/// The networks that are timed, by name.
fn network(name: &str, device: &Device) -> lab::Result<Model> {
    let graph = match name {
        "resnet18" => resnet::Config::r18(10).cifar().graph(),
        "vgg16_bn" => vgg::Config::d16(10).cifar().graph(),
        "mobilenet_v2" => mobilenet_v2::Config::imagenet(1.0, 10).cifar().graph(),
        "depthwise" => depthwise(),
        other => panic!("wanted resnet18, vgg16_bn, mobilenet_v2 or depthwise, found {other}"),
    }?;
    Model::new(graph, Seed(0), device)
}

/// MobileNet as it first was (Howard et al. 2017), for pictures of 3×32×32: 13 times a depthwise 3×3 and a 1×1 convolution.
fn depthwise() -> lab::Result<Graph> {
    let mut g = Builder::new("depthwise", &[3, 32, 32]);
    let layer = |g: &mut Builder, name: String, xs: Value, conv: Conv| {
        let ys = g.conv(&name, xs, conv);
        let ys = g.batch_norm(format!("{name}_bn"), ys);
        g.activate(ys, Activation::Relu)
    };
    let input = g.input();
    let mut xs = layer(&mut g, "stem".to_owned(), input, Conv::k3(32));
    let widths = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024];
    for (at, width) in widths.into_iter().enumerate() {
        let stride = if [1, 3, 5, 11].contains(&at) { 2 } else { 1 };
        let channels = g.channels(xs);
        xs = layer(&mut g, format!("depthwise{at}"), xs, Conv::k3(channels).stride(stride).groups(channels));
        xs = layer(&mut g, format!("pointwise{at}"), xs, Conv::k1(width));
    }
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 10);
    g.finish(logits)
}

/// Steps of [`fit`], one a line.
fn steps(model: &Model, batch: usize) -> lab::Result<()> {
    let data = some_batch(batch, model.graph.input_shape());
    let mut talk = Talk::new();
    talk.begin(model);
    talk.wait(&model.device);
    let precision = if model.device.is_cpu() { Precision::Full } else { Precision::Mixed };
    let outcome = fit(model, &data, None, &Recipe { precision, ..Recipe::sgd(0.01, 1_000_000) }, |event| {
        if let Event::Step { .. } = event {
            model.device.synchronize().expect("a device that works");
            talk.answer();
            talk.wait(&model.device);
        }
    });
    outcome.map(|_| ())
}

/// One batch of noise, with labels in turn.
fn some_batch(n: usize, shape: &[usize]) -> Table {
    let mut rng = Seed(1).rng();
    let values = (0..n * shape.iter().product::<usize>()).map(|_| rng.range(0.0, 1.0) as f32).collect();
    Table::new(values, shape, (0..n as u32).map(|at| at % 10).collect(), 10, n, None)
}

/// The other side of the pipe.
struct Talk {
    lines: std::io::Lines<std::io::StdinLock<'static>>,
    start: Instant,
}

impl Talk {
    fn new() -> Self {
        Self { lines: std::io::stdin().lock().lines(), start: Instant::now() }
    }

    /// Says what is there to be trained.
    fn begin(&self, model: &Model) {
        println!("params {}", model.profile().params);
    }

    /// Until the next line; ends the program when there is none.
    fn wait(&mut self, device: &Device) {
        if self.lines.next().is_none() {
            println!("{}", if device.is_cpu() { peak() } else { 0 });
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
