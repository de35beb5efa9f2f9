//! `cargo xtask bench`: how long things take, and beside PyTorch on the same machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};

use crate::feeding::{Load, load};
use crate::peers::{Peer, median, python, threaded};
use crate::sweeping::{Sweep, sweep};
use crate::workspace::{Workspace, call};
use crate::writing::{Convert, convert};

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Time optimiser steps of whole networks in alternation with plain candle and PyTorch
    Train(Train),
    /// Train ResNet-18 on CIFAR-10 beside PyTorch: on a part of it, or on a card on all of it
    Learn(Learn),
    /// Time our loader in alternation with those that people use today
    Load(Load),
    /// Time conversion in alternation with the writers of the same loaders
    Convert(Convert),
    /// Time a sweep of small networks beside a PyTorch program
    Sweep(Sweep),
    /// A benchmark of `cargo bench` by its name (kernels, loading, opening), and what it is told: `kernels -- pool`
    #[command(external_subcommand)]
    Of(Vec<String>),
}

/// What `cargo xtask bench train` is told.
#[derive(Args)]
pub(crate) struct Train {
    /// The networks, for pictures of 3×32×32
    #[arg(long, value_delimiter = ',', default_value = "resnet18,vgg16_bn,mobilenet_v2,depthwise")]
    models: Vec<String>,
    /// Samples a step
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Numbers of threads, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// How often each takes its turn; plain candle does so at most twice
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// On CUDA both compute in mixed precision with bfloat16; PyTorch channels last, as it is and compiled
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// A Python with PyTorch [default: one of our own in the target folder, made when first needed]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Leave plain candle out, which is slow
    #[arg(long)]
    no_candle: bool,
    /// Show instead where the time of our own step goes, by kind of operation
    #[arg(long)]
    profile: bool,
}

/// What `cargo xtask bench learn` is told.
#[derive(Args)]
pub(crate) struct Learn {
    /// The folder of CIFAR-10's binary files [default: `shared/data/cifar10` beside the workspace]
    #[arg(long)]
    data: Option<PathBuf>,
    /// How many runs of each
    #[arg(long, default_value_t = 3)]
    seeds: usize,
    /// Threads of each; on the CPU the two run side by side
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// On CUDA the two take turns with all pictures, shifted and mirrored, for 30 epochs
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// As for `train`
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Where networks are trained.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Device {
    Cpu,
    Cuda,
}

/// Runs what is asked for.
///
/// # Errors
/// When it does not compile or fails.
pub(crate) fn bench(workspace: &Workspace, bench: Option<Bench>) -> Result<()> {
    match bench {
        None => call(workspace.cargo_bench().arg("--benches")),
        Some(Bench::Of(args)) => call(workspace.cargo_bench().arg("--bench").args(&args)),
        Some(Bench::Train(args)) if args.profile => profile(workspace, &args),
        Some(Bench::Train(args)) => train(workspace, &args),
        Some(Bench::Learn(args)) => learn(workspace, &args),
        Some(Bench::Load(args)) => load(workspace, &args),
        Some(Bench::Convert(args)) => convert(workspace, &args),
        Some(Bench::Sweep(args)) => sweep(workspace, &args),
    }
}

fn profile(workspace: &Workspace, args: &Train) -> Result<()> {
    ensure!(args.device == Device::Cpu, "a profile is of the CPU: on a card operations end later than they are called");
    let program = workspace.benchmark("training", &[])?;
    for model in &args.models {
        for &threads in &args.threads {
            call(threaded(Command::new(&program).args(["profile", model, &args.batch.to_string()]), threads))?;
        }
    }
    Ok(())
}

/// Prints a Markdown table, a row for each network and number of threads.
fn train(workspace: &Workspace, args: &Train) -> Result<()> {
    let Some(program) = program(workspace, args.device)? else { return Ok(()) };
    let python = python(workspace, args.python.as_deref()).inspect_err(|error| println!("no PyTorch: {error:#}")).ok();
    let twin = workspace.root.join("lab/benches/training/training.py");
    let ours = |engine: &str, device: &[&str], model: &str| -> Command {
        let mut command = Command::new(&program);
        command.args(["step", model, &args.batch.to_string(), engine]).args(device);
        command
    };
    let theirs = |mode: &[&str], model: &str| -> Option<Command> {
        let mut command = Command::new(python.as_ref()?);
        command.arg(&twin).args(["step", model, &args.batch.to_string()]).args(mode);
        Some(command)
    };
    println!("{TRAIN_HEAD}");
    for model in &args.models {
        for &threads in &args.threads {
            let commands = match args.device {
                Device::Cpu => vec![
                    ("Topolab", Some(ours("topolab", &[], model)), args.rounds),
                    ("candle", (!args.no_candle).then(|| ours("candle", &[], model)), args.rounds.min(2)),
                    ("PyTorch", theirs(&["cpu", "eager"], model), args.rounds),
                ],
                Device::Cuda => vec![
                    ("Topolab", Some(ours("topolab", &["cuda"], model)), args.rounds),
                    ("PyTorch", theirs(&["cuda", "eager"], model), args.rounds),
                    ("PyTorch, compiled", theirs(&["cuda", "compile"], model), args.rounds),
                ],
            };
            let started = commands.into_iter().filter_map(|(name, command, rounds)| Some((name, command?, rounds)));
            let mut peers = started
                .map(|(name, mut command, rounds)| Peer::start(name, threaded(&mut command, threads), rounds))
                .collect::<Result<Vec<_>>>()?;
            in_turn(&mut peers, args.rounds).with_context(|| format!("{model}, {threads} threads"))?;
            for row in rows(peers)? {
                println!("| {model} | {} | {threads} | {row} |", args.batch);
            }
        }
    }
    Ok(())
}

/// The program that trains; none, and a word about it, where the device is not there.
fn program(workspace: &Workspace, device: Device) -> Result<Option<PathBuf>> {
    if device == Device::Cpu {
        return workspace.benchmark("training", &[]).map(Some);
    }
    if call(Command::new("nvidia-smi").arg("-L")).is_err() {
        println!("no CUDA device here (`nvidia-smi -L` finds none): nothing is measured");
        return Ok(None);
    }
    let program = workspace.benchmark("training", &["lab/cudnn"]);
    Ok(program.inspect_err(|error| println!("not built for CUDA: nothing is measured: {error:#}")).ok())
}

const TRAIN_HEAD: &str = "| network | batch | threads | by | seconds a step | ÷ PyTorch (range) | peak memory, MB |
| --- | --- | --- | --- | --- | --- | --- |";

/// One step of each, then the next of each: what disturbs the machine disturbs all.
fn in_turn(peers: &mut [Peer], rounds: usize) -> Result<()> {
    for peer in &peers[1..] {
        ensure!(peer.params == peers[0].params, "{} has {} parameters, {} has {}", peer.name, peer.params, peers[0].name, peers[0].params);
    }
    for peer in peers.iter_mut() {
        peer.warm_up()?;
    }
    for round in 0..rounds {
        for peer in peers.iter_mut().filter(|peer| round < peer.rounds) {
            peer.step()?;
        }
    }
    Ok(())
}

/// A part of a row for each: name, median seconds, median of the ratios to PyTorch in the same round with their range, peak megabytes.
fn rows(peers: Vec<Peer>) -> Result<Vec<String>> {
    let torch = peers.iter().find(|peer| peer.name == "PyTorch").map(|peer| peer.seconds.clone());
    let row = |peer: Peer| {
        let ratios = torch.as_ref().filter(|_| peer.name != "PyTorch").map(|torch| ratios(&peer.seconds, torch));
        let (name, seconds) = (peer.name, median(&peer.seconds));
        let memory = match peer.end()? {
            0 => String::new(),
            bytes => format!("{:.0}", bytes as f64 / 1e6),
        };
        Ok(format!("{name} | {seconds:.3} | {} | {memory}", ratios.unwrap_or_default()))
    };
    peers.into_iter().map(row).collect()
}

/// `0.97 (0.93 to 1.02)`.
fn ratios(ours: &[f64], theirs: &[f64]) -> String {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    ratios.sort_by(f64::total_cmp);
    match ratios.as_slice() {
        [] => String::new(),
        [least, .., most] => format!("{:.2} ({least:.2} to {most:.2})", median(&ratios)),
        [one] => format!("{one:.2}"),
    }
}

/// Prints a Markdown table, a row for each run and one for all.
fn learn(workspace: &Workspace, args: &Learn) -> Result<()> {
    let data = args.data.clone().unwrap_or_else(|| workspace.root.join("../shared/data/cifar10"));
    ensure!(data.is_dir(), "{}: no such folder; `--data` says where CIFAR-10 is", data.display());
    let Some(program) = program(workspace, args.device)? else { return Ok(()) };
    let python = python(workspace, args.python.as_deref())?;
    let device: &[&str] = if args.device == Device::Cuda { &["cuda"] } else { &[] };
    println!("| seed | Topolab, % right | s | PyTorch, % right | s |\n| --- | --- | --- | --- | --- |");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for seed in 0..args.seeds {
        let start = |command: &mut Command| {
            let command = threaded(command.arg("learn").arg(&data).arg(seed.to_string()).args(device), args.threads);
            command.stdout(Stdio::piped()).spawn().context("start a run")
        };
        let our = start(&mut Command::new(&program))?;
        let they = || start(Command::new(&python).arg(workspace.root.join("lab/benches/training/training.py")));
        let [(our, s), (their, their_s)] = match args.device {
            Device::Cpu => {
                let their = they()?;
                [learnt(our)?, learnt(their)?]
            }
            Device::Cuda => [learnt(our)?, learnt(they()?)?],
        };
        println!("| {seed} | {our:.1} | {s:.0} | {their:.1} | {their_s:.0} |");
        ours.push(our);
        theirs.push(their);
    }
    println!("| all | {} | | {} | |", spread(&ours), spread(&theirs));
    Ok(())
}

/// Accuracy in percent and seconds: the last line of a run.
fn learnt(run: std::process::Child) -> Result<(f64, f64)> {
    let output = run.wait_with_output()?;
    ensure!(output.status.success(), "a run failed ({})", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().and_then(|line| line.split_once(' ')).context("a run said nothing")?;
    Ok((100.0 * last.0.parse::<f64>()?, last.1.parse()?))
}

/// `41.2 ± 1.3`: mean and standard deviation of a sample.
fn spread(numbers: &[f64]) -> String {
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let square = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (numbers.len() as f64 - 1.0);
    format!("{mean:.1} ± {:.1}", square.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_same_round() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        // The second round was disturbed: both took ten times as long.
        assert_eq!(ratios(&[1.0, 10.0, 1.5], &[2.0, 20.0, 2.0]), "0.50 (0.50 to 0.75)");
        assert_eq!(ratios(&[3.0], &[2.0, 1.0]), "1.50");
    }

    #[test]
    fn a_spread_is_that_of_a_sample() {
        assert_eq!(spread(&[1.0, 2.0, 3.0]), "2.0 ± 1.0");
    }
}
