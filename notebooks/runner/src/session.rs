//! One evcxr session: cells go in one after the other; text, results and errors come out as [`Event`]s.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use evcxr::{CommandContext, CompilationError, EvalContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cells::{BEGIN, END, Ending, MARK, STDOUT};
use crate::folder::{self, Folder};
use crate::places::Places;
use crate::processes;
use crate::serve::Made;

/// What a session has to tell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// Cells can come.
    Ready,
    /// A cell printed whole lines.
    Stream {
        /// `stdout` or `stderr`.
        name: String,
        text: String,
    },
    /// What a cell ended with: content by MIME type.
    Result(Value),
    /// A cell failed.
    Error {
        /// `compile`, `error` (a `?`), `panic`, `crash` or `interrupt`.
        name: String,
        message: String,
        traceback: Vec<String>,
    },
    /// A cell is over, well or not.
    Done,
    /// What could stand between two offsets, in characters.
    Completions { matches: Vec<String>, start: usize, end: usize },
}

/// Where events go.
pub(crate) type Emit = Arc<dyn Fn(&Event) + Send + Sync>;

/// An evcxr session with our packages loaded.
pub(crate) struct Session {
    context: CommandContext,
    emit: Emit,
    /// How each cell ended, with the last line that it wrote to standard error.
    endings: mpsc::Receiver<(Ending, String)>,
    /// Whether all that the cells wrote has been read.
    quiet: Box<dyn Fn() -> bool>,
    interrupt: Interrupt,
    folder: Folder,
    has_tokio: bool,
}

/// Stops what a cell does, from another thread.
#[derive(Clone)]
pub(crate) struct Interrupt {
    cells: Arc<Mutex<Child>>,
    /// Which cell was sent last, counted from 1.
    cell: Arc<AtomicU64>,
    /// It is not done.
    busy: Arc<AtomicBool>,
    /// It has been compiled, and runs.
    runs: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Stops the compilation of a cell, which leaves all variables as they are, or ends the process of a cell that runs, and its
    /// variables with it. Does nothing between cells.
    pub(crate) fn stop(&self) {
        if !self.busy.load(Ordering::SeqCst) {
            return;
        }
        self.asked.store(true, Ordering::SeqCst);
        if self.runs.load(Ordering::SeqCst) {
            return self.end();
        }
        // evcxr compiles up to six times, with other guesses, and checks; each has to be stopped.
        let (this, cell) = (self.clone(), self.cell.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            // The next cell may have been sent already, and is not meant.
            let is_meant = || this.busy.load(Ordering::SeqCst) && this.cell.load(Ordering::SeqCst) == cell;
            while is_meant() && !this.runs.load(Ordering::SeqCst) {
                let cells = this.cells.lock().unwrap_or_else(PoisonError::into_inner).id();
                processes::kill_descendants(cells);
                std::thread::sleep(Duration::from_millis(20));
            }
            if is_meant() {
                this.end();
            }
        });
    }

    /// Ends the process of the cells.
    pub(crate) fn end(&self) {
        // It may have ended by itself.
        let _ = self.cells.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

impl Session {
    /// Starts evcxr in a folder that was made for it, and lets cells find the library.
    ///
    /// # Errors
    /// When evcxr does not start, or a first cell does not run.
    pub(crate) fn start(made: &Made, emit: Emit) -> Result<Self> {
        let folder = Folder::take(made.folder.clone())?;
        let places = Places::find()?;
        let started = EvalContext::with_subprocess_command(Command::new(&made.runtime));
        let (context, outputs) = started.map_err(|error| anyhow::anyhow!("start evcxr: {error}"))?;
        let context = CommandContext::with_eval_context(context);
        let (sender, endings) = mpsc::channel();
        let lines = outputs.stderr.clone();
        let told = Arc::clone(&emit);
        let reading = Arc::new(AtomicBool::new(false));
        let quiet = {
            let (lines, reading) = (lines.clone(), Arc::clone(&reading));
            Box::new(move || lines.is_empty() && !reading.load(Ordering::SeqCst))
        };
        let interrupt = Interrupt {
            cells: context.process_handle(),
            cell: Arc::default(),
            busy: Arc::default(),
            runs: Arc::default(),
            asked: Arc::default(),
        };
        let runs = Arc::clone(&interrupt.runs);
        std::thread::spawn(move || {
            let mut last = String::new();
            while let Ok(line) = lines.recv() {
                reading.store(true, Ordering::SeqCst);
                match tell(&line, &mut last, &told) {
                    Some(Mark::Begin) => runs.store(true, Ordering::SeqCst),
                    Some(Mark::End(ending)) => {
                        runs.store(false, Ordering::SeqCst);
                        // The session may have ended.
                        let _ = sender.send((ending, std::mem::take(&mut last)));
                    }
                    None => {}
                }
                reading.store(false, Ordering::SeqCst);
            }
        });
        let mut session = Self { context, emit, endings, quiet, interrupt, folder, has_tokio: false };
        session.load(&places, made)?;
        Ok(session)
    }

    fn load(&mut self, places: &Places, made: &Made) -> Result<()> {
        // evcxr's own first cell had no dependencies, so cargo emptied the lock file.
        folder::lend_settings(places, &self.folder.path)?;
        // The linker that the library was linked with. Errors of ours tell their causes by `Debug` alone. rust-analyzer alone is to take
        // this program for cargo.
        self.quietly(&format!(":linker system\n:efmt {{:?}}\n:build_env CARGO_HOME={}", made.cargo_home.display()))
            .context("prepare evcxr")?;
        // evcxr asks rust-analyzer for the type of every new variable, and the first question takes seconds. It also learns from
        // the first `?` that cells want one, and forgets over it that the cell ends with a value to be shown.
        let loaded = format!("{MARK}{END}{}", Ending::Loaded.name());
        self.quietly(&format!(
            "let warm_up = \"1\".parse::<i32>()?; let _ = warm_up; let _ = topolab::Device::Cpu; eprintln!({loaded:?});"
        ))
        .context("run a first cell")?;
        // How many cells evcxr has run by now is its own affair, and on a busy machine their endings come late.
        while self.ending().context("the first cell did not say that it ran")?.0 != Ending::Loaded {}
        self.ending().context("the first cell did not end")?;
        Ok(())
    }

    /// Gives a cell that awaits something the library's tokio, before evcxr takes a second one, whose reactor would know nothing of our
    /// streams. Not at the start, since rust-analyzer reads all sources again after every `:dep`.
    fn lend_tokio(&mut self, code: &str) -> Result<(), evcxr::Error> {
        if !self.has_tokio && code.contains(".await") {
            let path = self.folder.path.join("tokio").display().to_string();
            self.context.execute(&format!(":dep tokio = {{ path = {path:?} }}"))?;
            self.has_tokio = true;
        }
        Ok(())
    }

    fn quietly(&mut self, code: &str) -> Result<()> {
        self.context.execute(code).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(())
    }

    /// Ends the process of the cells and removes the folder.
    pub(crate) fn end(&self) {
        self.interrupt.end();
        self.folder.remove();
    }

    /// What stops a running cell.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Runs a cell to its end; events tell the rest, `Done` last.
    pub(crate) fn execute(&mut self, code: &str) {
        if let Some(message) = refused(code) {
            self.fail("error", message, vec![]);
            (self.emit)(&Event::Done);
            return;
        }
        self.interrupt.asked.store(false, Ordering::SeqCst);
        self.interrupt.cell.fetch_add(1, Ordering::SeqCst);
        self.interrupt.busy.store(true, Ordering::SeqCst);
        let result = self.lend_tokio(code).and_then(|()| self.context.execute(code));
        self.interrupt.busy.store(false, Ordering::SeqCst);
        match result {
            Ok(outputs) => {
                // A cell of definitions alone runs nothing.
                let ending = if outputs.phases.is_empty() { None } else { self.ending() };
                if !outputs.content_by_mime_type.is_empty() {
                    let content = outputs.content_by_mime_type.into_iter().map(|(mime, text)| (mime, Value::from(text))).collect();
                    (self.emit)(&Event::Result(content));
                }
                match ending {
                    None | Some((Ending::Done | Ending::Loaded, _)) => {}
                    Some((Ending::Error, last)) => self.fail("error", last, vec![]),
                    Some((Ending::Panic, last)) => self.fail("panic", last, vec![]),
                }
            }
            Err(error) => {
                self.wait();
                self.interrupt.runs.store(false, Ordering::SeqCst);
                let asked = self.interrupt.asked.load(Ordering::SeqCst);
                let (name, message, traceback) = match &error {
                    evcxr::Error::SubprocessTerminated(_) if asked => (
                        "interrupt",
                        "the cell was interrupted; its variables are gone, and those of the cells before it".to_owned(),
                        vec![],
                    ),
                    _ if asked => {
                        ("interrupt", "the cell was interrupted while it was compiled; all variables are as before".to_owned(), vec![])
                    }
                    evcxr::Error::SubprocessTerminated(_) => ("crash", format!("{error}; all variables are gone"), vec![]),
                    evcxr::Error::CompilationErrors(all) => {
                        // cargo repeats the warnings of the packages that it did not need to compile.
                        let errors = || all.iter().filter(|error| error.level() == "error");
                        let message = errors().next().map(CompilationError::message).unwrap_or_default();
                        ("compile", message, errors().flat_map(explain).collect())
                    }
                    _ => ("error", error.to_string(), vec![]),
                };
                self.fail(name, message, traceback);
            }
        }
        (self.emit)(&Event::Done);
    }

    fn fail(&self, name: &str, message: String, traceback: Vec<String>) {
        let traceback = if traceback.is_empty() { vec![format!("{name}: {message}")] } else { traceback };
        (self.emit)(&Event::Error { name: name.to_owned(), message, traceback });
    }

    /// What could stand at `position`, in characters, of `code`.
    pub(crate) fn complete(&mut self, code: &str, position: usize) {
        let bytes = code.char_indices().nth(position).map_or(code.len(), |(at, _)| at);
        let characters = |bytes: usize| code.get(..bytes).map_or(position, |text| text.chars().count());
        let event = match self.context.completions(code, bytes) {
            Ok(found) => Event::Completions {
                matches: found.completions.into_iter().map(|completion| completion.code).collect(),
                start: characters(found.start_offset),
                end: characters(found.end_offset),
            },
            // A half-written cell often makes no sense yet.
            Err(_) => Event::Completions { matches: vec![], start: position, end: position },
        };
        (self.emit)(&event);
    }

    /// How the cell that just ran ended; all that it wrote has been told by then.
    fn ending(&self) -> Option<(Ending, String)> {
        // The line was written before evcxr was told of the end: only a cell that closed its standard error withholds it.
        self.endings.recv_timeout(Duration::from_secs(60)).ok()
    }

    /// Waits until all is told that a cell wrote which has no ending.
    fn wait(&self) {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            if (self.quiet)() {
                break;
            }
        }
    }
}

/// Packages that the library holds, and how cells name them. A second copy of candle would give wrong gradients in silence, and one of
/// the others takes minutes to compile and has types of its own.
const HELD: [(&str, &str); 7] = [
    ("candle-core", "topolab::candle"),
    ("candle-nn", "topolab::candle_nn"),
    ("polars", "topolab::polars"),
    ("datasets", "topolab::datasets"),
    ("pipeline", "topolab::pipeline"),
    ("lab", "topolab::lab"),
    ("topolab", "topolab"),
];

/// Why a cell is not run that asks for such a package with `:dep`.
fn refused(code: &str) -> Option<String> {
    let asked = code.lines().filter_map(|line| line.trim_start().strip_prefix(":dep ")?.split(['=', ' ']).find(|word| !word.is_empty()));
    let held = asked.filter_map(|name| HELD.iter().find(|(held, _)| *held == name.trim_matches('"').replace('_', "-")));
    let (name, path) = held.into_iter().next()?;
    Some(format!("`:dep {name}`: cells have it already, as `{path}`; a second copy would not know the values of the first"))
}

/// What the process of the cells says of a cell.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Begin,
    End(Ending),
}

/// Tells one line from the process of the cells; `last` becomes the last line of standard error, with its causes.
fn tell(line: &str, last: &mut String, emit: &Emit) -> Option<Mark> {
    let stream = |name: &str, text: &str| emit(&Event::Stream { name: name.to_owned(), text: format!("{text}\n") });
    let (error, marked) = match line.split_once(MARK) {
        Some((error, marked)) => (error, Some(marked)),
        None => (line, None),
    };
    if marked.is_none() || !error.is_empty() {
        stream("stderr", error);
        match error.trim() {
            "" => {}
            // Of an error, as the line before.
            cause if cause.starts_with("caused by: ") && !last.is_empty() => *last += &format!("\n  {cause}"),
            line => line.clone_into(last),
        }
    }
    let marked = marked?;
    if let Some(text) = marked.strip_prefix(STDOUT) {
        stream("stdout", text);
    }
    match marked.strip_prefix(END) {
        Some(name) => Ending::from_name(name).map(Mark::End),
        None => (marked == BEGIN).then_some(Mark::Begin),
    }
}

/// A compiler's error as lines of text: the message, the lines it is about, and what it says of them.
fn explain(error: &CompilationError) -> Vec<String> {
    let code = error.code().map(|code| format!("[{code}]")).unwrap_or_default();
    let mut lines = vec![format!("error{code}: {}", error.message())];
    for spanned in error.spanned_messages() {
        lines.extend(spanned.lines.iter().map(|line| format!("  {line}")));
        match &spanned.span {
            Some(span) if span.start_line == span.end_line => {
                let width = span.end_column.saturating_sub(span.start_column).max(1);
                lines.push(format!("  {}{} {}", " ".repeat(span.start_column.saturating_sub(1)), "^".repeat(width), spanned.label));
            }
            _ if !spanned.label.is_empty() => lines.push(format!("  {}", spanned.label)),
            _ => {}
        }
    }
    lines.extend(error.help().iter().map(|help| format!("help: {help}")));
    lines.iter().flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a cell's error is called that printed these lines.
    #[track_caller]
    fn check(lines: &[&str], message: &str) {
        let (mut last, emit): (_, Emit) = (String::new(), Arc::new(|_: &Event| {}));
        lines.iter().for_each(|line| assert_eq!(tell(line, &mut last, &emit), None));
        assert_eq!(tell(&format!("{MARK}{END}error"), &mut last, &emit), Some(Mark::End(Ending::Error)));
        assert_eq!(last, message);
    }

    #[test]
    fn a_second_copy_of_what_cells_have_is_refused() {
        let told = |code: &str| refused(code).map(|message| message.split(':').nth(1).unwrap().to_owned());
        assert_eq!(told("let a = 1;\n:dep candle-core = \"0.11\""), Some("dep candle-core`".to_owned()));
        assert_eq!(told(":dep candle_nn = { version = \"0.11\" }"), Some("dep candle-nn`".to_owned()));
        assert_eq!(told(":dep polars"), Some("dep polars`".to_owned()));
        assert_eq!(told(":dep itertools = \"0.14\"\n// :dep polars\nlet lab = 1;"), None);
    }

    #[test]
    fn an_error_keeps_its_causes() {
        check(&["at work", "a.csv: cannot open", "  caused by: No such file", ""], "a.csv: cannot open\n  caused by: No such file");
        check(&["one", "  caused by: two", "  caused by: three"], "one\n  caused by: two\n  caused by: three");
        check(&["no error", "  caused by: nothing", "ParseIntError { kind: Empty }"], "ParseIntError { kind: Empty }");
        check(&["  caused by: nobody"], "caused by: nobody");
    }
}
