//! `cargo xtask`: everything about this workspace that is not `cargo build`.
//!
//! Imports none of the crates that it builds, so that it is there in seconds. Everything goes through `cargo` in the
//! workspace's own target folder, with flags and features chosen so that candle and polars are compiled once, for tests
//! and notebooks alike.
#![expect(clippy::print_stdout, reason = "talks to the person at the terminal")]

mod bench;
mod checks;
mod deny;
mod docs;
mod feeding;
mod fuzz;
mod gallery;
mod installed;
mod lab;
mod markdown;
mod miri;
mod notebook;
mod peers;
mod python;
mod skips;
mod sweeping;
mod tidy;
mod workspace;
mod writing;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// Sets up, runs and checks Topolab.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up notebooks: build what they need, run the quickstart, and open JupyterLab where there is Python
    ///
    /// Nothing needs to be installed beforehand but Rust. The first time takes about 6 minutes on two cores, later
    /// times about one. JupyterLab goes into a private folder, `notebooks/.jupyter`, and is optional.
    Lab {
        /// Do not open JupyterLab, only say how to
        #[arg(long)]
        no_open: bool,
        /// Features of the package `topolab` to build with: cuda, cudnn
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Run or check notebooks, without Jupyter
    #[command(subcommand)]
    Notebook(Notebook),
    /// Build and run all tests
    Test {
        /// Run only tests whose name contains this
        filter: Option<String>,
        /// With debug assertions and overflow checks in our own crates
        #[arg(long)]
        checked: bool,
    },
    /// All checks: format, tidy, lints, documentation, notebooks, the installed program, fuzzing, tests; stops at the first that fails
    Ci,
    /// Check licences, duplicates and sources of what we depend on (deny.toml)
    Deny,
    /// Run the fuzz targets of `tests/fuzz`, two at a time
    Fuzz {
        /// Only targets whose name contains this
        filter: Option<String>,
        /// How long each runs; 0 only compiles them
        #[arg(long, default_value = "60")]
        seconds: u64,
    },
    /// Run what Miri can run of the unit tests; wants a nightly toolchain: `cargo +nightly xtask miri`
    Miri,
    /// Build the documents, the reference and the executed notebooks as static pages, in `site` of the target folder
    Docs,
    /// Check the walls between rooms, and the files themselves
    Tidy,
    /// Check that `topolab` runs outside the workspace, with an empty environment
    ///
    /// Copies the program of the tests, or, with --release, installs it by `cargo install`, which takes many minutes.
    Installed {
        /// Install it, in the release profile
        #[arg(long)]
        release: bool,
    },
    /// Run benchmarks; without a name all that measure only ourselves
    Bench {
        #[command(subcommand)]
        bench: Option<bench::Bench>,
    },
}

#[derive(Subcommand)]
enum Notebook {
    /// Execute a notebook from top to bottom and write it with its outputs
    ///
    /// Stops at the first cell that fails (exit code 1); Ctrl-C stops the cell that runs, and what is done is saved (130).
    Run {
        /// The notebook
        notebook: PathBuf,
        /// Give a parameter another value; the first code cell tagged `parameters` names them and holds the defaults
        #[arg(long = "set", value_name = "NAME=VALUE")]
        set: Vec<String>,
        /// Where to write the executed notebook [default: `NAME.out.ipynb` beside it]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Features of the package `topolab` to build with: cuda, cudnn
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Execute notebooks into `notebooks/gallery`, with parameters that take minutes, so that code hosts show their figures
    Gallery {
        /// Only notebooks whose name contains this
        filter: Option<String>,
        /// Only check that all copies are those of the notebooks as they are
        #[arg(long)]
        check: bool,
    },
    /// Compile the cells of notebooks without running them
    Check {
        /// The notebooks [default: all in `notebooks/`]
        notebooks: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match dispatch(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    let workspace = Workspace::find()?;
    match command {
        Command::Lab { no_open, features } => lab::lab(&workspace, no_open, &features),
        Command::Notebook(Notebook::Run { notebook, set, output, features }) => {
            notebook::run(&workspace, &notebook, &set, output.as_deref(), &features)
        }
        Command::Notebook(Notebook::Gallery { check: true, .. }) => gallery::check(&workspace),
        Command::Notebook(Notebook::Gallery { filter, check: false }) => gallery::write(&workspace, filter.as_deref()),
        Command::Notebook(Notebook::Check { notebooks }) => notebook::check(&workspace, notebooks),
        Command::Test { filter, checked } => checks::test(&workspace, filter.as_deref(), checked, false),
        Command::Ci => checks::ci(&workspace),
        Command::Deny => deny::check(&workspace),
        Command::Fuzz { filter, seconds } => fuzz::fuzz(&workspace, filter.as_deref(), seconds),
        Command::Miri => miri::miri(&workspace),
        Command::Docs => docs::build(&workspace),
        Command::Tidy => tidy::tidy(&workspace),
        Command::Installed { release } => installed::check(&workspace, release),
        Command::Bench { bench } => bench::bench(&workspace, bench),
    }
}
