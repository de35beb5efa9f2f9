//! The commands `convert`, `inspect`, `verify` and `serve`: what can be typed, and the one library call that each is.
//!
//! For the programs `topolab` and `pipeline`. Here, and nowhere else in this crate, is the environment read and the terminal written to.
//!
//! Results go to standard output, everything else to standard error. The exit code is 0, 1 where something is wrong with the data
//! or the machine, and 2 where it is wrong with what was typed.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser};
use datasets::{Dataset, Folder, Source};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::convert::{self, Check, Options, Progress};
use crate::store::{self, Folder2Lmdb, Form, Resize, Skipped};
use crate::{Store, inspect, show, verify};

mod json;
#[cfg(feature = "flight")]
mod serve;

#[cfg(feature = "flight")]
pub use serve::Serve;

/// Makes, shows, checks and serves stores: picture data sets in one LMDB file
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, max_term_width = 100, after_help = EXIT_CODES)]
#[expect(missing_docs, reason = "clap shows what the structs say")]
pub enum Command {
    Convert(Convert),
    Inspect(Inspect),
    Verify(Verify),
    #[cfg(feature = "flight")]
    Serve(Serve),
}

/// What the exit codes of all commands mean.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something is wrong with the data, a run or the machine; standard error says what
  2  something is wrong with what was typed";

/// Copy a data set into a new store
///
/// Pictures stay as they are, byte for byte, unless an option says otherwise (CMYK becomes RGB in any case). The store grows under the
/// name TARGET.partial and gets its own name at the end. Killed or out of disk, the same command goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Convert {
    /// A folder, or an archive (.zip, .tar, .tar.gz, .tar.xz): idx files, CIFAR, TinyImageNet, ImageNet, or class folders of pictures; or
    /// what folder2lmdb.py wrote. Or the name of a public data set, which is downloaded: mnist, fashion-mnist, kmnist, cifar10, cifar100,
    /// tiny-imagenet
    source: PathBuf,
    /// The file to make; must not exist
    target: PathBuf,
    /// What SOURCE is, where its file names do not tell: mnist, fashion-mnist, kmnist, idx, cifar10, cifar100, tiny-imagenet,
    /// imagenet or folder
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<Source>,
    /// Reduce larger pictures until their shorter side has so many pixels
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=SIDE), conflicts_with = "longer")]
    shorter: Option<u32>,
    /// Reduce larger pictures until their longer side has so many pixels
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=SIDE))]
    longer: Option<u32>,
    /// Store pixels instead of files: more bytes, nothing to decode
    #[arg(long)]
    raw: bool,
    /// Keep beside each JPEG file where its rows begin, so that a crop is decoded without what lies above it and at its right; 0.2 % more
    /// bytes, and a store that only programs of this version and later read
    #[arg(long, conflicts_with = "raw")]
    index_rows: bool,
    /// Turn pictures as their EXIF data say; without it they stay as they lie, as in PyTorch's and TensorFlow's loaders
    #[arg(long)]
    upright: bool,
    /// The quality of JPEG files that have to be written, 1 to 100; 95 by default
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// What is looked at in each file: its headers and markers (header, the default), which shows cuts and other files, or, at a
    /// hundred times the cost, all its pixels (decode)
    #[arg(long, value_name = "WHAT", value_parser = ["header", "decode"], hide_possible_values = true)]
    check: Option<String>,
    /// Write what was made as JSON
    #[arg(long)]
    json: bool,
    /// Stop at the first picture that cannot be used, instead of leaving it out and saying so
    #[arg(long)]
    strict: bool,
    /// Threads that read and check pictures; all cores by default. The store does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The classes of ImageNet's flat val folder: a synset a line, or the devkit's ground truth
    #[arg(long, value_name = "FILE")]
    val_labels: Option<PathBuf>,
    /// The synsets that the numbers of the devkit's ground truth stand for, one a line
    #[arg(long, value_name = "FILE", requires = "val_labels")]
    synsets: Option<PathBuf>,
    /// Where files of public data sets are kept; topolab/data in $XDG_CACHE_HOME or ~/.cache by default
    #[cfg(feature = "download")]
    #[arg(long, value_name = "FOLDER")]
    downloads: Option<PathBuf>,
}

/// Show what is in a store
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Inspect {
    /// The store
    store: PathBuf,
    /// Write it as JSON
    #[arg(long)]
    json: bool,
    /// Measure mean and deviation of each split on all of its pictures, which takes as long as to verify
    #[arg(long)]
    measure: bool,
    /// Draw pictures of the first split, at equal distances, into this PNG file
    #[arg(long, value_name = "PNG")]
    grid: Option<PathBuf>,
    /// The split to draw
    #[arg(long, value_name = "NAME", requires = "grid")]
    split: Option<String>,
}

/// Read and decode every record of a store, and compare with its own account of itself
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Verify {
    /// The store
    store: PathBuf,
    /// Write what was found as JSON
    #[arg(long)]
    json: bool,
}

/// The longest side that a JPEG file may have.
const SIDE: i64 = 65_535;

/// Does what was typed, and tells an error on standard error.
pub fn run(command: Command) -> ExitCode {
    try_run(command).unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn try_run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Convert(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Verify(command) => command.run(),
        #[cfg(feature = "flight")]
        Command::Serve(command) => command.run(),
    }
}

/// Most rows, and columns, of a grid.
const GRID: (usize, usize) = (8, 16);

impl Convert {
    fn run(self) -> anyhow::Result<ExitCode> {
        let dataset = self.open().with_context(|| format!("cannot open the data set {}", self.source.display()))?;
        let source = match self.public() {
            Some(name) => name.to_owned(),
            None => self.source.canonicalize().unwrap_or_else(|_| self.source.clone()).display().to_string(),
        };
        let defaults = Options::new(source);
        let options = Options {
            form: self.form(),
            check: self.check(),
            strict: self.strict,
            threads: self.threads.unwrap_or(defaults.threads),
            ..defaults
        };
        store::keep_freed_memory();
        let mut bar = Bar::new("pictures converted");
        let report = convert::convert(dataset.as_ref(), &self.target, &options, &mut |progress| bar.show(progress));
        bar.end();
        let report = report?;
        complain_of_skipped(&report.meta.skipped);
        report.to_string().lines().for_each(log);
        let store = Store::open(&self.target)?;
        match self.json {
            true => print(&json::converted(&self.target, &store, &report))?,
            false => print(&inspect::inspect(&store).to_string())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn form(&self) -> Form {
        let resize = self.shorter.map(Resize::Shorter).or(self.longer.map(Resize::Longer));
        let quality = self.quality.unwrap_or(Form::default().quality);
        Form { resize, raw: self.raw, indexed: self.index_rows, upright: self.upright, quality }
    }

    fn check(&self) -> Check {
        if self.check.as_deref() == Some("decode") { Check::Decode } else { Check::Header }
    }

    fn open(&self) -> anyhow::Result<Box<dyn Dataset>> {
        if let Some(name) = self.public() {
            return self.download(name);
        }
        Ok(match (self.kind, &self.val_labels) {
            (None | Some(Source::Imagenet), Some(labels)) => Box::new(Folder::ilsvrc2012(&self.source, labels, self.synsets.as_deref())?),
            (Some(kind), Some(_)) => anyhow::bail!("--val-labels: wanted --as imagenet, found --as {kind}"),
            (Some(kind), None) => datasets::open_as(kind, &self.source)?,
            (None, None) if Folder2Lmdb::is_at(&self.source) => Box::new(Folder2Lmdb::open(&self.source)?),
            (None, None) => datasets::open(&self.source)?,
        })
    }
}

impl Convert {
    /// The name that SOURCE is, of a public data set or none, where it is no path to anything.
    fn public(&self) -> Option<&str> {
        let name = self.source.to_str().filter(|source| !source.contains(['/', '.']))?;
        (self.kind.is_none() && self.val_labels.is_none() && self.source.symlink_metadata().is_err()).then_some(name)
    }

    #[cfg(feature = "download")]
    fn download(&self, name: &str) -> anyhow::Result<Box<dyn Dataset>> {
        use datasets::download;

        if !download::names().contains(&name) {
            anyhow::bail!("{name}: wanted a file or folder, or one of {}, found none", download::names().join(", "));
        }
        let cache = || download::default_folder(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir());
        let folder = self.downloads.clone().or_else(cache).context("--downloads: wanted a folder, since there is no home folder")?;
        log(&format!("the files of {name} are kept in {}", folder.join(name).display()));
        let (mut shown, mut bar) = (String::new(), Bar::new("bytes"));
        let dataset = download::named(name, folder, |file, done, size| {
            // Nothing is to be seen of a file that is there.
            if file != shown && done < size {
                bar.end();
                file.clone_into(&mut shown);
                bar = Bar::new("bytes");
                log(&format!("downloading {file}, {:.1} MB", size as f64 / 1e6));
            }
            // More than there should be, or what was there thrown away: the end of the download will tell.
            let done = done.min(size);
            if file == shown {
                bar.show(Progress { done: done as usize, total: size as usize, bytes: done, bad: 0 });
            }
        });
        bar.end();
        Ok(dataset?)
    }

    #[cfg(not(feature = "download"))]
    fn download(&self, name: &str) -> anyhow::Result<Box<dyn Dataset>> {
        anyhow::bail!("{name}: wanted a file or folder, found none; a build with the feature `download` has public data sets by name")
    }
}

impl Inspect {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = Store::open(&self.store)?;
        if let Some(file) = &self.grid {
            let split = self.split.as_deref().map_or(Ok(0), |name| store.split(name))?;
            let rows = store.len(split).div_ceil(GRID.1).clamp(1, GRID.0);
            let sheet = inspect::grid(&store, split, rows, GRID.1)?;
            std::fs::write(file, show::png(&sheet)).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let splits = 0..store.meta().splits.len();
        let measured = splits.map(|number| if self.measure { inspect::measure(&store, number) } else { Ok(None) });
        let measured = measured.collect::<crate::Result<Vec<_>>>()?;
        if self.json {
            print(&json::inspected(&self.store, &store, &measured))?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&inspect::inspect(&store).to_string())?;
        for (split, normalize) in store.meta().splits.iter().zip(measured) {
            if let Some(normalize) = normalize {
                let [mean, std] = [&normalize.mean, &normalize.std].map(|numbers| show::numbers(numbers));
                print(&format!("\n{}, measured: mean {mean}, std {std}\n", split.name))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    fn run(self) -> anyhow::Result<ExitCode> {
        let store = Store::open(&self.store)?;
        let mut bar = Bar::new("records verified");
        let verification = verify::verify(&store, &mut |progress| bar.show(progress));
        bar.end();
        let verification = verification?;
        match self.json {
            true => print(&json::verified(&self.store, &verification))?,
            false => print(&format!("{verification}\n"))?,
        }
        Ok(if verification.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// An error and its causes, a line each, on standard error.
fn complain(error: &anyhow::Error) {
    for (depth, cause) in error.chain().enumerate() {
        log(&format!("{}{cause}", if depth == 0 { "error: " } else { "  caused by: " }));
    }
}

fn complain_of_skipped(skipped: &[Skipped]) {
    const SHOWN: usize = 20;
    for picture in skipped.iter().take(SHOWN) {
        log(&format!("skipped: {}: {}", picture.name, picture.reason));
    }
    if skipped.len() > SHOWN {
        log(&format!("skipped: {} more; the store's meta record lists all", skipped.len() - SHOWN));
    }
}

/// A reader that has seen enough (`topolab data inspect .. | head -1`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// There is nobody left to tell where standard error fails.
fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How far the work has come: a bar on a terminal, a line each tenth and each minute in a log.
struct Bar {
    what: &'static str,
    bar: Option<ProgressBar>,
    /// When this run began, and what earlier ones had done.
    begun: Option<(Instant, usize)>,
    /// What the last line of a log said, and when.
    tenth: usize,
    told: Duration,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        Self { what, bar: None, begun: None, tenth: 0, told: Duration::ZERO }
    }

    fn show(&mut self, progress: Progress) {
        let megabytes = progress.bytes / 1_000_000;
        let bad = if progress.bad > 0 { format!(", {} bad", progress.bad) } else { String::new() };
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(progress.total as u64).with_position(progress.done as u64);
                // What an earlier run did says nothing of the speed of this one.
                bar.reset_eta();
                bar.with_style(style(self.what))
            });
            bar.set_position(progress.done as u64);
            bar.set_message(format!("{megabytes} MB{bad}"));
            return;
        }
        let (begun, before) = *self.begun.get_or_insert_with(|| (Instant::now(), progress.done));
        let (tenth, now) = (progress.done * 10 / progress.total.max(1), begun.elapsed());
        if tenth > self.tenth || now >= self.told + MINUTE {
            (self.tenth, self.told) = (tenth, now);
            let pace = pace(progress.done.saturating_sub(before), progress.total - progress.done, now);
            log(&format!("{} of {} {}, {megabytes} MB{bad}{pace}", progress.done, progress.total, self.what));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Rate and time left, of work that lasts long enough to ask for them.
fn pace(done: usize, left: usize, taken: Duration) -> String {
    if done == 0 || taken < MINUTE / 4 {
        return String::new();
    }
    let rate = done as f64 / taken.as_secs_f64();
    format!(", {rate:.0} a second, {:#} left", HumanDuration(Duration::from_secs_f64(left as f64 / rate)))
}

fn style(what: &str) -> ProgressStyle {
    let template = format!("{{bar:30}} {{pos}}/{{len}} {what}, {{msg}}, {{per_sec}}, {{eta}} left");
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
