//! `cargo xtask bench convert`: what it costs to turn a folder of pictures into a store, and into what others read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::feeding::{Source, past_seconds};
use crate::peers::median;
use crate::workspace::{Workspace, call};

/// What `cargo xtask bench convert` is told.
#[derive(Args)]
pub(crate) struct Convert {
    #[command(flatten)]
    source: Source,
    /// Threads or processes of each, where it has such
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How often each takes its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A Python with some of webdataset, mosaicml-streaming and ffcv; peers that it has not are left out
    #[arg(long)]
    python: Option<PathBuf>,
}

/// What one conversion took.
struct Turn {
    cpu: f64,
    seconds: f64,
    bytes: u64,
}

/// Prints a Markdown table, a row for each writer. Processor time is that of the whole program, but for importing a peer.
///
/// # Errors
/// When our own program does not build or run, or there are no pictures.
pub(crate) fn convert(workspace: &Workspace, args: &Convert) -> Result<()> {
    let (scratch, folder, program) = (args.source.scratch(workspace)?, args.source.folder(workspace)?, workspace.pipeline()?);
    let to = scratch.join("written");
    let (pictures, bytes) = count(&folder)?;
    let workers = args.workers.to_string();
    let mut writers = vec!["Topolab"];
    writers.extend(["webdataset", "mosaic", "ffcv"].into_iter().filter(|_| args.python.is_some()));
    let mut turns: Vec<Vec<Turn>> = writers.iter().map(|_| vec![]).collect();
    for _ in 0..args.rounds {
        for (writer, turns) in writers.iter().zip(&mut turns) {
            if to.exists() {
                fs::remove_dir_all(&to)?;
            }
            fs::create_dir(&to)?;
            let (start, before) = (Instant::now(), past_seconds());
            let mut turn = match &args.python {
                Some(python) if *writer != "Topolab" => match peer(workspace, python, &[writer, &workers], &folder, &to)? {
                    Some(turn) => turn,
                    None => continue,
                },
                _ => {
                    let mut command = Command::new(&program);
                    command.args(["convert", "--as", "folder", "--threads", &workers]).arg(&folder).arg(to.join("ours.lmdb"));
                    call(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
                    Turn { cpu: past_seconds() - before, seconds: start.elapsed().as_secs_f64(), bytes: 0 }
                }
            };
            turn.bytes = count(&to)?.1;
            turns.push(turn);
        }
    }
    println!(
        "| {pictures} pictures, {:.0} MB | a core-second | ÷ Topolab | MB a core-second | a second | disk ÷ pictures |",
        bytes as f64 / 1e6
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let of = |turns: &[Turn], what: &dyn Fn(&Turn) -> f64| median(&turns.iter().map(what).collect::<Vec<_>>());
    let us = of(&turns[0], &|turn| turn.cpu);
    for (writer, turns) in writers.iter().zip(&turns) {
        if turns.is_empty() {
            println!("{writer}: does not run here");
            continue;
        }
        let (cpu, seconds, disk) = (of(turns, &|turn| turn.cpu), of(turns, &|turn| turn.seconds), of(turns, &|turn| turn.bytes as f64));
        println!(
            "| {writer} | {:.0} | {:.2} | {:.0} | {:.0} | {:.3} |",
            pictures as f64 / cpu,
            us / cpu,
            bytes as f64 / 1e6 / cpu,
            pictures as f64 / seconds,
            disk / bytes as f64
        );
    }
    fs::remove_dir_all(&to)?;
    Ok(())
}

/// `None` where it does not run.
fn peer(workspace: &Workspace, python: &Path, how: &[&str], folder: &Path, to: &Path) -> Result<Option<Turn>> {
    let mut command = Command::new(python);
    command.arg(workspace.root.join("pipeline/benches/feeding/writing.py")).args(how).arg(folder).arg(to);
    let output = command.stderr(Stdio::null()).output().context("start Python")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.lines().find_map(|line| line.strip_prefix("took ")?.split_once(' '));
    Ok(numbers.and_then(|(cpu, seconds)| Some(Turn { cpu: cpu.parse().ok()?, seconds: seconds.parse().ok()?, bytes: 0 })))
}

/// Files of a folder, and the bytes that they take.
fn count(folder: &Path) -> Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let (entry, inside) = entry.and_then(|entry| entry.metadata().map(|inside| (entry, inside)))?;
        if inside.is_dir() {
            let below = count(&entry.path())?;
            (files, bytes) = (files + below.0, bytes + below.1);
        } else {
            (files, bytes) = (files + 1, bytes + inside.len());
        }
    }
    Ok((files, bytes))
}
