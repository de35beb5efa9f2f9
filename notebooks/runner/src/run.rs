//! Executes a notebook from top to bottom and writes it with its outputs.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::notebook::Notebook;
use crate::parameters;
use crate::say;
use crate::serve::Request;
use crate::session::Event;

/// What to run, and how.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The notebook
    notebook: PathBuf,
    /// Give a parameter another value; the first code cell tagged `parameters` names them and holds the defaults
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Where to write the executed notebook [default: `NAME.out.ipynb` beside it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("wanted NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Executes; exit code 1 when a cell fails, 130 when interrupted.
///
/// # Errors
/// When the notebook cannot be read or written, a parameter does not fit, or the engine does not start.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut notebook = Notebook::read(&args.notebook)?;
    notebook.clear();
    let defaults = notebook.parameters_cell();
    let declared = defaults.map(|k| parameters::parse(&notebook.source(k))).transpose();
    let declared = declared.with_context(|| args.notebook.display().to_string())?.unwrap_or_default();
    if !args.set.is_empty() {
        let source = parameters::inject(&declared, &args.set).with_context(|| args.notebook.display().to_string())?;
        notebook.inject(defaults.expect("an unknown parameter is refused"), &source);
    }
    let output = args.output.clone().unwrap_or_else(|| beside(&args.notebook));
    ensure!(output.canonicalize().ok() != args.notebook.canonicalize().ok(), "{}: would overwrite the notebook itself", output.display());
    notebook.write(&output)?; // a place that cannot be written is found before the work, not after

    let folder = match args.notebook.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    say!("{}: loading", args.notebook.display());
    let start = Instant::now();
    let mut engine = Engine::start(folder)?;
    say!("{}: ready after {:.1} s", args.notebook.display(), start.elapsed().as_secs_f64());

    let cells = notebook.code_cells();
    let mut failure = None;
    for (done, &k) in cells.iter().enumerate() {
        let source = notebook.source(k);
        say!("cell {} of {}: {}", done + 1, cells.len(), headline(&source));
        let start = Instant::now();
        notebook.start(k, done + 1);
        engine.execute(&source, |event| match event {
            Event::Stream { name, text } => {
                notebook.add_stream(k, name, text);
                for line in text.lines() {
                    say!("  {}", line.trim_start_matches('\r'));
                }
            }
            Event::Result(data) => notebook.add_result(k, data),
            Event::Error { name, message, traceback } => {
                notebook.add_error(k, name, message, &Value::from(traceback.clone()));
                failure = Some((name.clone(), traceback.join("\n")));
            }
            _ => {}
        })?;
        let seconds = start.elapsed().as_secs_f64();
        notebook.set_seconds(k, seconds);
        notebook.write(&output)?; // whatever happens next, this cell's outputs are there
        say!("  {seconds:.1} s");
        if failure.is_some() || engine.interrupted() {
            break;
        }
    }
    say!("{}: {:.1} s in all; written to {}", args.notebook.display(), start.elapsed().as_secs_f64(), output.display());
    Ok(match failure {
        _ if engine.interrupted() => {
            say!("interrupted");
            ExitCode::from(130)
        }
        Some((_, text)) => {
            say!("{text}");
            say!("error: {}: a cell failed", args.notebook.display());
            ExitCode::from(1)
        }
        None => ExitCode::SUCCESS,
    })
}

/// `NAME.out.ipynb` beside `NAME.ipynb`.
fn beside(notebook: &Path) -> PathBuf {
    let mut name = notebook.file_stem().map(OsString::from).unwrap_or_default();
    name.push(".out.ipynb");
    notebook.with_file_name(name)
}

/// The first line that says something.
fn headline(source: &str) -> String {
    let line = source.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(empty)");
    line.chars().take(100).collect()
}

/// The engine process, `notebook-runner serve`, in the folder of the notebook.
struct Engine {
    child: Child,
    requests: Arc<Mutex<ChildStdin>>,
    events: std::io::Lines<BufReader<std::process::ChildStdout>>,
    interrupted: Arc<AtomicBool>,
}

impl Engine {
    fn start(folder: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("find this program's own path")?);
        command.arg("serve").current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.process_group(0); // Ctrl-C comes to us, and we tell it
        let mut child = command.spawn().with_context(|| format!("start the engine in {}", folder.display()))?;
        let requests = Arc::new(Mutex::new(child.stdin.take().expect("piped")));
        let events = BufReader::new(child.stdout.take().expect("piped")).lines();
        let interrupted = Arc::new(AtomicBool::new(false));
        let ready = Arc::new(AtomicBool::new(false));
        watch_signals(&child, &requests, &interrupted, &ready)?;
        let mut engine = Self { child, requests, events, interrupted };
        let tell = |event: &Event| {
            if let Event::Stream { text, .. } = event {
                say!("{}", text.trim_end());
            }
        };
        engine.until(|event| matches!(event, Event::Ready), tell).map_err(|error| match engine.interrupted() {
            true => error.context("interrupted"),
            false => error,
        })?;
        ready.store(true, Ordering::SeqCst);
        Ok(engine)
    }

    /// Runs a cell and hands on what it has to tell.
    fn execute(&mut self, code: &str, tell: impl FnMut(&Event)) -> Result<()> {
        send(&self.requests, &Request::Execute(code.to_owned()))?;
        self.until(|event| matches!(event, Event::Done), tell)
    }

    fn until(&mut self, last: impl Fn(&Event) -> bool, mut tell: impl FnMut(&Event)) -> Result<()> {
        for line in self.events.by_ref() {
            // evcxr has a word of its own now and then.
            let Ok(event) = serde_json::from_str(&line.context("read from the engine")?) else { continue };
            tell(&event);
            if last(&event) {
                return Ok(());
            }
        }
        let status = self.child.wait().context("wait for the engine")?;
        anyhow::bail!("the engine ended early: {status}")
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It tidies up by itself, which takes a while on a busy disk; an engine that is gone has nothing to tidy.
        let _ = send(&self.requests, &Request::Quit);
    }
}

fn send(requests: &Mutex<ChildStdin>, request: &Request) -> Result<()> {
    let line = serde_json::to_string(request).expect("requests are plain data");
    writeln!(requests.lock().unwrap_or_else(PoisonError::into_inner), "{line}").context("write to the engine")
}

fn group(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// On the first signal, stops the cell that runs, so that what is done can be saved; on the second, or while the engine is
/// still loading, ends it all.
fn watch_signals(child: &Child, requests: &Arc<Mutex<ChildStdin>>, interrupted: &Arc<AtomicBool>, ready: &Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("watch for Ctrl-C")?;
    let group = group(child);
    let (requests, interrupted, ready) = (Arc::clone(requests), Arc::clone(interrupted), Arc::clone(ready));
    std::thread::spawn(move || {
        for _ in &mut signals {
            let again = interrupted.swap(true, Ordering::SeqCst);
            if !again && ready.load(Ordering::SeqCst) && send(&requests, &Request::Interrupt).is_ok() {
                continue;
            }
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
    });
    Ok(())
}
