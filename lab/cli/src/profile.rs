//! `topolab profile`.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle::DType;
use datasets::Seed;
use lab::Recipe;
use lab::metrics::{memory, nn_mass, profile};
use serde_json::{Value, json};

use crate::networks::network;
use crate::{EXIT_CODES, say};

/// Count what a network takes: parameters, multiply-adds, memory
///
/// Nothing is computed: the largest network takes milliseconds. A multiply-add (MAC) is a product of a weight and an input, of one sample. Memory
/// is that of a step of training by SGD with momentum, and of inference, on the CPU in single precision.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Profile {
    /// Networks by name (an unknown one lists them), or JSON files with an architecture, as `train` writes them
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// Rows and columns of an image
    #[arg(long, value_name = "PIXELS", default_value = "224")]
    input_size: usize,
    /// Classes
    #[arg(long, value_name = "N", default_value = "1000")]
    classes: usize,
    /// Multiple of the channels of a mobile network
    #[arg(long, value_name = "FACTOR")]
    width_mult: Option<f64>,
    /// Of wiring that is drawn
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Images in a batch, for the memory
    #[arg(short, long, value_name = "N", default_value = "1")]
    batch: NonZeroUsize,
    /// Show each layer
    #[arg(short, long)]
    layers: bool,
    /// Write it as JSON: an array with an object for each network
    #[arg(long)]
    json: bool,
}

/// # Errors
/// When there is no such network, or it does not take images of this size.
pub(crate) fn profile(args: &Profile) -> Result<ExitCode> {
    let found = args
        .networks
        .iter()
        .map(|name| one(args, name).with_context(|| format!("{name}: cannot be profiled")))
        .collect::<Result<Vec<Value>>>()?;
    if args.json {
        say(&format!("{:#}", Value::from(found)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("{:24} {:>14} {:>16} {:>12} {:>12}\n", "network", "parameters", "MACs", "inference", "training");
    for network in &found {
        let memory = |name: &str| format!("{:.1} MB", network["memory"][name].as_f64().unwrap_or_default() / 1e6);
        let [name, params, macs] = ["network", "parameters", "macs"].map(|name| plain(&network[name]));
        text += &format!("{name:24} {params:>14} {macs:>16} {:>12} {:>12}\n", memory("inference"), memory("training"));
        for layer in network["layers"].as_array().into_iter().flatten().filter(|_| args.layers) {
            let [node, op, output, params, macs] = ["node", "op", "output", "params", "macs"].map(|name| plain(&layer[name]));
            text += &format!("  {node:38} {op:20} {output:>16} {params:>12} {macs:>14}\n");
        }
    }
    say(&text);
    Ok(ExitCode::SUCCESS)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn one(args: &Profile, name: &str) -> Result<Value> {
    let spec = network(name, args.classes, args.width_mult, args.input_size)?;
    let graph = spec.graph(Seed(args.seed))?;
    let (cost, memory) = (profile::of(&graph), memory::of(&graph, DType::F32));
    let training = memory::plan_batch(&graph, args.batch.get(), u64::MAX, &Recipe::sgd(0.1, 1))?.bytes;
    Ok(json!({
        "network": name,
        "input": graph.input_shape(),
        "parameters": cost.params,
        "macs": cost.macs,
        "nn_mass": if graph.cells.is_empty() { None } else { nn_mass::of(&graph).ok() },
        "memory": {
            "batch": args.batch,
            "inference": memory.parameters + args.batch.get() as u64 * memory.inference,
            "training": training,
        },
        "layers": cost.rows,
    }))
}
