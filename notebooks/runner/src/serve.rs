//! The engine: a request a line on standard input, events on standard output, both JSON.

use std::env;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::folder::Folder;
use crate::library::Library;
use crate::places::Places;
use crate::session::{Event, Session};
use crate::view;

/// What a front end may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Run a cell: events, then [`Event::Done`].
    Execute(String),
    /// Say what could stand at a position, in characters: [`Event::Completions`].
    Complete { code: String, position: usize },
    /// Stop the cell that runs. The only request that does not wait for its turn.
    Interrupt,
    /// End, as when the input ends.
    Quit,
}

/// evcxr looks for its compile folder in this variable.
const FOLDER: &str = "EVCXR_TMPDIR";
/// Says which program runs the cells, and by that that all is made.
const RUNTIME: &str = "TOPOLAB_CELLS";

/// What a session finds made when it starts.
pub(crate) struct Made {
    /// The folder in which evcxr compiles.
    pub(crate) folder: PathBuf,
    /// The program that runs cells.
    pub(crate) runtime: PathBuf,
    /// Where cargo keeps its registry.
    pub(crate) cargo_home: PathBuf,
}

impl Made {
    /// Builds what cells link, and becomes this program again with variables that say where it is: setting them here would be unsafe.
    fn make() -> anyhow::Error {
        let again = || -> Result<Command> {
            let places = Places::find()?;
            let library = Library::make(&places)?;
            let folder = Folder::make(&places)?;
            let mut again = Command::new(env::current_exe().context("find this program's own path")?);
            again.arg("serve").envs(view::stand_in(&places, &folder, &library.view())?);
            again.env(FOLDER, folder).env(RUNTIME, library.runtime()).env("EVCXR_CONFIG_DIR", places.root.join("notebooks"));
            // cargo prefers these to the flags that evcxr gives it.
            again.env("CARGO_ENCODED_RUSTFLAGS", library.flags().join("\u{1f}"));
            library.keep_over_exec()?;
            Ok(again)
        };
        match again() {
            Ok(mut again) => anyhow::Error::from(again.exec()).context("start the engine"),
            Err(error) => error,
        }
    }

    fn find() -> Option<Self> {
        let path = |name| env::var_os(name).map(PathBuf::from);
        Some(Self { folder: path(FOLDER)?, runtime: path(RUNTIME)?, cargo_home: path(view::CARGO_HOME)? })
    }
}

/// Serves requests until the input ends.
///
/// # Errors
/// When the library that cells link does not compile, or evcxr does not start.
pub(crate) fn serve() -> Result<ExitCode> {
    let Some(made) = Made::find() else { return Err(Made::make()) };
    let emit = Arc::new(|event: &Event| {
        let line = serde_json::to_string(event).expect("events are plain data");
        // Without a reader there is nobody to tell; the input ends then, and so does this process.
        let _ = writeln!(io::stdout().lock(), "{line}");
    });
    let mut session = Session::start(&made, emit.clone())?;
    emit(&Event::Ready);

    let (sender, requests) = mpsc::channel();
    let interrupt = session.interrupt();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Request::Interrupt) => interrupt.stop(),
                Ok(Request::Quit) => break,
                Ok(request) => {
                    // The requests are taken up until this thread lets go of the sender.
                    let _ = sender.send(request);
                }
                Err(error) => crate::say!("not a request: {error}: {line}"),
            }
        }
        drop(sender);
        // The front end is gone: a cell that still runs has nobody to run for.
        interrupt.end();
    });
    for request in requests {
        match request {
            Request::Execute(code) => session.execute(&code),
            Request::Complete { code, position } => session.complete(&code, position),
            Request::Interrupt | Request::Quit => unreachable!("answered by the thread that reads"),
        }
    }
    session.end();
    // At once: rust-analyzer would take half a minute to free its memory, piece by piece.
    std::process::exit(0)
}
