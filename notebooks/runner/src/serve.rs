//! The engine: a request a line on standard input, events on standard output, both JSON.

use std::env;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, mpsc};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::folder::{Folder, Places};
use crate::session::{Event, Session};

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
/// Says that the folder is one of ours, and made.
const MADE: &str = "TOPOLAB_FOLDER_MADE";

/// Serves requests until the input ends.
///
/// # Errors
/// When the packages that cells use do not compile or load.
pub(crate) fn serve() -> Result<ExitCode> {
    if env::var_os(MADE).is_none() {
        // Variables are set for the program that this process becomes, since setting them here would be unsafe.
        let path = Folder::make()?;
        let mut again = Command::new(env::current_exe().context("find this program's own path")?);
        again.arg("serve").env(FOLDER, path).env(MADE, "1").env("EVCXR_CONFIG_DIR", Places::find()?.root.join("notebooks"));
        return Err(again.exec()).context("start the engine");
    }
    let path = PathBuf::from(env::var_os(FOLDER).context("no folder to compile in")?);
    let emit = Arc::new(|event: &Event| {
        let line = serde_json::to_string(event).expect("events are plain data");
        // Without a reader there is nobody to tell; the input ends then, and so does this process.
        let _ = writeln!(io::stdout().lock(), "{line}");
    });
    let mut session = Session::start(path, emit.clone())?;
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
