//! Executes evcxr notebooks: headless, for `cargo xtask notebook`, and cell by cell, for Jupyter.
//!
//! `run` reads a notebook and writes it again with its outputs; `check` compiles the cells of many notebooks and runs none;
//! `serve` is the engine behind both `run` and the Jupyter kernel (`kernel.py`): one request a line in, events out, as JSON.
//! Cells link one dynamic library, `topolab`, made by [`library`]; [`view`] tells rust-analyzer what is in it.

mod cells;
mod check;
mod folder;
mod library;
mod notebook;
mod parameters;
mod places;
mod processes;
mod run;
mod serve;
mod session;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Executes evcxr notebooks, without Jupyter and for it.
#[derive(Parser)]
#[command(name = "notebook-runner")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Execute a notebook and write it with its outputs; exit 1 when a cell fails, 130 when interrupted
    Run(run::Args),
    /// Compile the code cells of notebooks without running them
    Check {
        /// The notebooks
        #[arg(required = true)]
        notebooks: Vec<PathBuf>,
    },
    /// Compile everything that cells link, so that the first cell need not wait for it
    Prepare,
    /// Execute cells that come in as JSON, a request a line, until the input ends (the Jupyter kernel talks to this)
    Serve,
}

fn main() -> ExitCode {
    let done = match view::is_stand_in() {
        true => view::answer(),
        false => dispatch(Args::parse().command),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Check { notebooks } => check::check(&notebooks),
        Command::Prepare => library::Library::make(&places::Places::find()?).map(|_| ExitCode::SUCCESS),
        Command::Serve => serve::serve(),
    }
}

/// A line for the person at the terminal. Standard output belongs to results and to the protocol of `serve`.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        // A closed terminal is no reason to lose a run.
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}
