//! `topolab sweep`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use datasets::Seed;
use lab::metrics::{memory, nn_mass, profile};
use lab::models::Spec;
use lab::sweep::{self, Event, Options, Plan, Run, Standing};
use lab::{device, show};
use serde::Serialize;

use crate::data::{Data, Known, Shelf};
use crate::{EXIT_CODES, note, say};

/// Train every network of a plan that is not in its results yet
///
/// A plan is a TOML or JSON file: a run, and grids of what changes in it. Each finished run is a line of RESULTS, written before it is shown, so that a sweep that is killed goes on where it was. A run that fails is
/// noted in a file beside it, with its reason, and the others go on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{EXAMPLE}\n\n{EXIT_CODES}"))]
pub struct Sweep {
    /// What to run
    plan: PathBuf,
    /// Where results are and come to be; beside the plan with the ending .jsonl if not said
    #[arg(short, long, value_name = "FILE")]
    results: Option<PathBuf>,
    /// Runs at once
    #[arg(short, long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,
    /// Memory that training may take, of all runs at once, such as 8G; larger batches are computed in parts
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Try again what failed before
    #[arg(long)]
    retry: bool,
    /// Keep each run on disk every so many steps, so that one that is killed goes on in its middle
    #[arg(long, value_name = "STEPS")]
    checkpoint: Option<NonZeroUsize>,
    /// Where to train: cpu, cuda, or auto (a card where there is one)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: device::Want,
    /// Show the networks of the plan with their size, and what is left to run, and train none
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const EXAMPLE: &str = r#"A plan:

  [run]
  data = { store = "mnist.lmdb", train = { batch = 64, normalize = "none" } }

  [run.architecture]
  family = "dense_mlp"
  inputs = 784
  classes = 10
  width = 8

  [run.recipe]
  epochs = 12
  lr = 1e-3
  optimizer = { name = "adam_w", betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.0 }

  [[grid]]
  "architecture.depth" = [16, 24, 32]
  "architecture.max_links" = [0, 1, 2, 4]
  seed = [0, 1, 2]"#;

/// `500M`, `8G`, `8GiB`: powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wanted = || format!("wanted a number with K, M, G or T, found `{text}`");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) =
        (text[..end].parse::<f64>().map_err(|_| wanted())?, text[end..].trim().trim_end_matches("iB").trim_end_matches('B'));
    let power = ["", "K", "M", "G", "T"].iter().position(|name| name.eq_ignore_ascii_case(unit)).ok_or_else(wanted)?;
    Ok((number * 1024f64.powi(power as i32)) as u64)
}

/// Exit code 1 when a run has failed.
///
/// # Errors
/// When the plan is none, its data are not there, or the results cannot be written.
pub(crate) fn sweep(args: &Sweep) -> Result<ExitCode> {
    let planned = Plan::read(&args.plan)?.runs::<Data>().with_context(|| args.plan.display().to_string())?;
    for run in &planned {
        // Before anything is loaded or trained.
        run.architecture.graph(Seed(run.seed)).with_context(|| args.plan.display().to_string())?;
    }
    let mut shelf = Shelf::default();
    if args.dry_run {
        say(&networks(&planned)?);
        return Ok(ExitCode::SUCCESS);
    }
    let plan: Vec<Run<Known>> = planned.iter().map(|run| shelf.known(run)).collect::<Result<_>>()?;
    let device = device::pick(args.device)?;
    let results = args.results.clone().unwrap_or_else(|| args.plan.with_extension("jsonl"));
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let options =
        Options { workers: args.workers.get(), memory: args.memory, retry: args.retry, checkpoint: args.checkpoint.map(NonZeroUsize::get) };
    let work = |run: &Run<Known>, desk: &sweep::Desk<'_>| {
        let [train, test] = shelf.batches(run, cores.div_ceil(options.workers)).map_err(|error| lab::Error::Batch(Box::new(error)))?;
        sweep::trained(run, desk, &device, &*train, &*test)
    };
    let mut show = show::sweeping("sweep");
    let mut reasons: Vec<String> = Vec::new();
    let standing = sweep::run(&plan, &results, options.clone(), work, |event: Event<'_, Known>, standing| {
        if let Event::Failed { run, reason } = &event {
            reasons.push(format!("run {}: {reason}", run.id()));
        }
        show(event, standing);
    })?;
    let Standing { done, failed, ran, of } = standing;
    reasons.iter().for_each(|reason| note(reason));
    if failed > reasons.len() {
        note(&format!("{} failed before; --retry tries them again", failed - reasons.len()));
    }
    say(&format!("{}: {done} of {of} runs ({ran} now), {failed} failed", results.display()));
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a plan would train.
#[derive(Serialize)]
struct Network {
    architecture: Spec,
    runs: usize,
    params: usize,
    macs: u64,
    nn_mass: Option<f64>,
    /// Of a training step, with one sample.
    bytes: u64,
}

fn networks(plan: &[Run<Data>]) -> Result<String> {
    let mut networks: Vec<Network> = Vec::new();
    for run in plan {
        if let Some(known) = networks.iter_mut().find(|known| known.architecture == run.architecture) {
            known.runs += 1;
            continue;
        }
        let graph = run.architecture.graph(Seed(run.seed))?;
        let size = profile::of(&graph);
        networks.push(Network {
            architecture: run.architecture.clone(),
            runs: 1,
            params: size.params,
            macs: size.macs,
            nn_mass: if graph.cells.is_empty() { None } else { Some(nn_mass::of(&graph)?) },
            bytes: memory::plan_batch(&graph, 1, u64::MAX, &run.recipe)?.bytes,
        });
    }
    let table = lab::Table::from_rows(&networks)?;
    let names: Vec<(String, String)> =
        table.names().into_iter().filter_map(|name| Some((name.clone(), name.strip_prefix("architecture.")?.to_owned()))).collect();
    let table = table.rename(&names.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect::<Vec<_>>())?;
    Ok(format!("{table}\n{} runs", plan.len()))
}
