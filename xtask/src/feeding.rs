//! `cargo xtask bench load`: our loader and those that people use today, in turn on the same pictures.
//!
//! What counts is pictures a second of one core, over all processes of a loader: on a shared machine the rest is luck.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::peers::median;
use crate::workspace::{Workspace, call};

/// What `cargo xtask bench load` is told.
#[derive(Args)]
pub(crate) struct Load {
    #[command(flatten)]
    source: Source,
    /// Numbers of a batch
    #[arg(long, value_enum, default_value_t = Numbers::U8)]
    output: Numbers,
    /// Workers of each loader
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How often each takes its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Time instead the first epoch of a store that lies on the disk alone, beside plain reading; the pictures are pixels of our own
    #[arg(long)]
    cold: bool,
    /// Pixels instead of JPEG files, photographs with a shorter side of 256: our loader alone
    #[arg(long, conflicts_with_all = ["cold", "python"])]
    raw: bool,
    /// A Python with some of torchvision, webdataset, mosaicml-streaming, nvidia-dali and ffcv; peers that it has not are left out
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Which pictures.
#[derive(Args)]
pub(crate) struct Source {
    /// A folder of JPEG files for each class [default: the sample in `shared/data` beside the workspace]
    #[arg(long)]
    data: Option<PathBuf>,
    /// What the pictures are: photographs become 224×224 by random resized crops, thumbnails of 64×64 are padded and cropped
    #[arg(long, value_enum, default_value_t = Pictures::Photographs)]
    pictures: Pictures,
}

impl Source {
    /// Where this is kept from one call to the next.
    pub(crate) fn scratch(&self, workspace: &Workspace) -> Result<PathBuf> {
        let scratch = workspace.target.join("bench-load").join(word(self.pictures));
        fs::create_dir_all(&scratch).context("make a folder for the stores")?;
        Ok(scratch)
    }

    /// The pictures' folder. The sample is small, so each of its files has many names: ends of epochs are rare with large sets.
    pub(crate) fn folder(&self, workspace: &Workspace) -> Result<PathBuf> {
        if let Some(data) = &self.data {
            return data.canonicalize().with_context(|| format!("{}: no such folder", data.display()));
        }
        let (name, inside, names) = match self.pictures {
            Pictures::Photographs => ("imagenet-sample-every10th.tar.zst", "imagenet-sample/train", 32),
            Pictures::Thumbnails => ("tiny-imagenet-200-train20-val10.tar.zst", "tiny-imagenet-200/train", 5),
        };
        let scratch = self.scratch(workspace)?;
        let (linked, unpacked) = (scratch.join("pictures"), scratch.join("unpacked"));
        if linked.is_dir() {
            return Ok(linked);
        }
        let archive = workspace.root.join("../shared/data").join(name);
        ensure!(archive.is_file(), "{}: no such file; `--data` says where pictures are", archive.display());
        fs::create_dir_all(&unpacked)?;
        call(Command::new("tar").arg("--zstd").arg("-xf").arg(&archive).arg("-C").arg(&unpacked)).context("unpack the sample")?;
        let partial = scratch.join("pictures.partial");
        for class in fs::read_dir(unpacked.join(inside))? {
            let class = class?;
            let images = class.path().join("images");
            let files = fs::read_dir(if images.is_dir() { images } else { class.path() })?.collect::<Result<Vec<_>, _>>()?;
            let to = partial.join(class.file_name());
            fs::create_dir_all(&to)?;
            for file in files.iter().filter(|file| file.path().extension().is_some_and(|name| name.eq_ignore_ascii_case("jpeg"))) {
                for number in 0..names {
                    let _ = fs::hard_link(file.path(), to.join(format!("{number}-{}", file.file_name().to_string_lossy())));
                }
            }
        }
        fs::rename(&partial, &linked)?;
        Ok(linked)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pictures {
    Photographs,
    Thumbnails,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Numbers {
    U8,
    F32,
}

const PEERS: [&str; 5] = ["torchvision", "webdataset", "mosaic", "dali", "ffcv"];

/// Prints a Markdown table, a row for each loader.
///
/// # Errors
/// When our own program does not build or run, or there are no pictures.
pub(crate) fn load(workspace: &Workspace, args: &Load) -> Result<()> {
    if args.cold {
        let scratch = args.source.scratch(workspace)?;
        let mut program = Command::new(workspace.benchmark("feeding", &[])?);
        return call(program.arg("cold").arg(&scratch).args([args.workers, args.rounds].map(|number| number.to_string())));
    }
    let (what, output) = (word(args.source.pictures), word(args.output));
    let (scratch, folder) = (args.source.scratch(workspace)?, args.source.folder(workspace)?);

    let program = workspace.benchmark("feeding", &[])?;
    let (name, form): (_, &[&str]) = match (args.raw, args.source.pictures) {
        (false, _) => ("ours.lmdb", &[]),
        (true, Pictures::Photographs) => ("pixels.lmdb", &["--raw", "--shorter", "256"]),
        (true, Pictures::Thumbnails) => ("pixels.lmdb", &["--raw"]),
    };
    let store = scratch.join(name);
    if !store.is_file() {
        call(Command::new(workspace.pipeline()?).args(["convert", "--as", "folder"]).args(form).arg(&folder).arg(&store))?;
    }
    let workers = args.workers.to_string();
    let ours = |how: &str| {
        let mut command = Command::new(&program);
        command.args([how, &what]).arg(&store).args([&workers, &output]);
        command
    };
    let mut loaders = vec![Loader::start("no loader", &mut ours("bare"))?.context("it gave up")?];
    loaders.push(Loader::start("Topolab", &mut ours("load"))?.context("it gave up")?);
    for peer in PEERS.into_iter().filter(|_| args.python.is_some()) {
        let mut command = Command::new(args.python.as_ref().expect("asked just now"));
        command.arg(workspace.root.join("pipeline/benches/feeding/feeding.py")).arg(peer).arg(&what);
        command.arg(&folder).arg(&scratch).args([&workers, &output]).env("OMP_NUM_THREADS", "1").stderr(Stdio::null());
        match Loader::start(peer, &mut command)? {
            Some(loader) => loaders.push(loader),
            None => println!("{peer}: does not run here"),
        }
    }
    for _ in 0..args.rounds {
        for loader in &mut loaders {
            loader.turn(args.seconds)?;
        }
    }
    println!("| {what}, {output} | a core-second | ÷ Topolab (range) | a second | first batch, s | own memory, MB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let us: Vec<f64> = loaders[1].turns.iter().map(|turn| turn.pictures / turn.cpu).collect();
    for loader in &loaders {
        println!("{}", loader.row(&us));
    }
    Ok(())
}

/// As it is typed.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A program that hands out batches.
struct Loader {
    name: &'static str,
    /// Seconds from opening the data to the first batch.
    first: f64,
    turns: Vec<Turn>,
    /// Most bytes that were its processes' alone.
    own: u64,
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

/// What was handed out in one turn.
struct Turn {
    pictures: f64,
    cpu: f64,
    seconds: f64,
}

impl Loader {
    /// `None` where it ends before its first batch.
    fn start(name: &'static str, command: &mut Command) -> Result<Option<Self>> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("start {name}"))?;
        let (to, from) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        let mut from = BufReader::new(from).lines();
        // Some say more than they are asked.
        let ready = from.find_map(|line| line.ok()?.strip_prefix("ready ")?.parse().ok());
        let Some(first) = ready else {
            child.wait()?;
            return Ok(None);
        };
        Ok(Some(Self { name, first, turns: vec![], own: 0, child, to, from }))
    }

    fn turn(&mut self, seconds: f64) -> Result<()> {
        writeln!(self.to, "{seconds}").with_context(|| format!("{} listens no longer", self.name))?;
        let mut answer = || self.from.next().with_context(|| format!("{} ended", self.name))?.context("read an answer");
        while answer()? != "go" {}
        let tree = family(self.child.id());
        let (start, before) = (Instant::now(), cpu_seconds(&tree));
        let pictures = answer()?.parse()?;
        let turn = Turn { pictures, cpu: cpu_seconds(&tree) - before, seconds: start.elapsed().as_secs_f64() };
        self.turns.push(turn);
        self.own = self.own.max(own_bytes(&tree));
        Ok(())
    }

    fn row(&self, us: &[f64]) -> String {
        let rates: Vec<f64> = self.turns.iter().map(|turn| turn.pictures / turn.cpu).collect();
        let mut ratios: Vec<f64> = rates.iter().zip(us).map(|(rate, us)| rate / us).collect();
        ratios.sort_by(f64::total_cmp);
        let range = [ratios.first(), ratios.last()].map(|ratio| ratio.copied().unwrap_or(f64::NAN));
        let wall: Vec<f64> = self.turns.iter().map(|turn| turn.pictures / turn.seconds).collect();
        format!(
            "| {} | {:.0} | {:.2} ({:.2} to {:.2}) | {:.0} | {:.2} | {:.0} |",
            self.name,
            median(&rates),
            median(&ratios),
            range[0],
            range[1],
            median(&wall),
            self.first,
            self.own as f64 / 1e6
        )
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Some wait for threads that never end; their workers notice that they are alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process and all that come from it.
fn family(root: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = numbers.filter_map(|process| Some((process, stat(process)?.0))).collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(&of) = family.get(at) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(process, _)| *process));
        at += 1;
    }
    family
}

/// The parent of a process, and the ticks of a processor that it has used.
fn stat(process: u32) -> Option<(u32, u64)> {
    let fields = fields(&process.to_string())?;
    Some((fields.first()?.parse().ok()?, ticks(&fields, 10)?))
}

/// Seconds of a processor that processes have used which this one started and which have ended.
pub(crate) fn past_seconds() -> f64 {
    fields("self").and_then(|fields| ticks(&fields, 12)).map_or(f64::NAN, |ticks| ticks as f64 / TICKS)
}

/// What `/proc` says of a process, from the parent on.
fn fields(process: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Before it stand a name, which may hold anything, and the state.
    Some(text.rsplit_once(')')?.1.split_whitespace().skip(1).map(str::to_owned).collect())
}

/// Ticks in user and system mode.
fn ticks(fields: &[String], at: usize) -> Option<u64> {
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(field(at)? + field(at + 1)?)
}

/// Ticks a second, which Linux has not changed for any program since it has had them.
const TICKS: f64 = 100.0;

fn cpu_seconds(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|&process| Some(stat(process)?.1 as f64 / TICKS)).sum()
}

/// Memory that is not the page cache's; what processes share is shared out.
fn own_bytes(processes: &[u32]) -> u64 {
    let of = |process: &u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let lines = text.lines().filter_map(|line| line.strip_prefix("Pss_Anon:").or(line.strip_prefix("Pss_Shmem:")));
        Some(lines.filter_map(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).sum::<u64>() * 1024)
    };
    processes.iter().filter_map(of).sum()
}
