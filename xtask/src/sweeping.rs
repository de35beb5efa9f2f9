//! `cargo xtask bench sweep`: how many small networks a minute a sweep trains, and a PyTorch program.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::peers::{median, python, threaded};
use crate::workspace::{Workspace, call};

/// What `cargo xtask bench sweep` is told.
#[derive(Args)]
pub(crate) struct Sweep {
    /// The folder of MNIST's files [default: `shared/data/mnist` beside the workspace]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Passes over the training pictures
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// Networks of our sweep, two at once; PyTorch trains half as many, in two processes of one thread, which is its fastest way
    #[arg(long, default_value_t = 16)]
    runs: usize,
    /// How often each takes its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with PyTorch [default: one of our own in the target folder, made when first needed]
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Prints a Markdown table. Our time is that of the whole program, start, reading and results on disk; of PyTorch that of the runs alone.
///
/// # Errors
/// When our own program does not build or run, or there is no MNIST.
pub(crate) fn sweep(workspace: &Workspace, args: &Sweep) -> Result<()> {
    let data = args.data.clone().unwrap_or_else(|| workspace.root.join("../shared/data/mnist"));
    ensure!(data.is_dir(), "{}: no such folder; `--data` says where MNIST is", data.display());
    let (lab, pipeline) = (workspace.lab()?, workspace.pipeline()?);
    let scratch = workspace.target.join("bench-sweep");
    fs::create_dir_all(&scratch).context("make a folder for the store")?;
    let (store, plan, results) = (scratch.join("mnist.lmdb"), scratch.join("plan.toml"), scratch.join("plan.jsonl"));
    if !store.is_file() {
        call(Command::new(pipeline).arg("convert").arg(&data).arg(&store))?;
    }
    let seeds: Vec<String> = (0..args.runs).map(|seed| seed.to_string()).collect();
    fs::write(&plan, PLAN.replace("EPOCHS", &args.epochs.to_string()).replace("SEEDS", &seeds.join(", ")))?;
    let python = python(workspace, args.python.as_deref()).inspect_err(|error| println!("no PyTorch: {error:#}")).ok();
    let peer = workspace.root.join("lab/benches/topology/sweep.py");
    let theirs = |mode: &str| -> Result<Vec<f64>> {
        let Some(python) = &python else { return Ok(vec![]) };
        let runs = (args.runs / 4).max(1).to_string();
        let start = || {
            let mut command = Command::new(python);
            command.arg(&peer).arg(&data).args([&args.epochs.to_string(), &runs, mode]);
            threaded(&mut command, 1).stdout(Stdio::piped()).spawn().context("start Python")
        };
        let mut seconds = vec![];
        for child in [start()?, start()?] {
            let output = child.wait_with_output().context("wait for Python")?;
            let text = String::from_utf8_lossy(&output.stdout);
            // Two at once, so that each takes half of its time.
            seconds.extend(text.lines().filter_map(|line| Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 2.0)));
        }
        Ok(seconds)
    };
    let (mut ours, mut tensors, mut loader) = (vec![], vec![], vec![]);
    for _ in 0..args.rounds {
        let _ = fs::remove_file(&results);
        let start = Instant::now();
        let mut command = Command::new(&lab);
        command.arg("sweep").arg(&plan).args(["--workers", "2", "--device", "cpu"]).current_dir(&scratch);
        call(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        ours.push(start.elapsed().as_secs_f64() / args.runs as f64);
        tensors.extend(theirs("tensors")?);
        loader.extend(theirs("loader")?);
    }
    println!("| perceptrons on MNIST, {} epochs | runs a minute | ÷ Topolab |", args.epochs);
    println!("| --- | --- | --- |");
    let us = median(&ours);
    for (name, seconds) in [("Topolab", &ours), ("PyTorch, pictures in memory", &tensors), ("PyTorch, DataLoader", &loader)] {
        if !seconds.is_empty() {
            println!("| {name} | {:.1} | {:.3} |", 60.0 / median(seconds), us / median(seconds));
        }
    }
    Ok(())
}

const PLAN: &str = r#"
[run]
data = { store = "mnist.lmdb", train = { batch = 64, normalize = "none" }, test = { split = "test", batch = 1000, normalize = "none" } }
recipe = { epochs = EPOCHS, lr = 1e-3, optimizer = { name = "adam_w", betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.0 } }
architecture = { family = "dense_mlp", inputs = 784, classes = 10, width = 8, depth = 16, max_links = 8 }

[[grid]]
seed = [SEEDS]
"#;
