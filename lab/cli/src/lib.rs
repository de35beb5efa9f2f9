//! The commands `train`, `eval`, `sweep`, `table` and `profile`: what notebooks do, from a shell. For the programs `topolab` and `lab`.
//!
//! Results go to standard output, everything else to standard error. The exit code is 0, 1 where something is wrong with the data, a
//! run or the machine, and 2 where it is wrong with what was typed.

mod data;
mod networks;
mod profile;
mod sweep;
mod table;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use pipeline::cli::EXIT_CODES;

pub use profile::Profile;
pub use sweep::Sweep;
pub use table::Table;
pub use train::{Eval, Train};

/// What can be typed.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "clap shows what the structs say")]
pub enum Command {
    Train(Train),
    Eval(Eval),
    Sweep(Sweep),
    Table(Table),
    Profile(Profile),
}

/// Does what was typed, and tells an error on standard error.
pub fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Train(args) => train::train(&args),
        Command::Eval(args) => train::eval(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Table(args) => table::table(&args),
        Command::Profile(args) => profile::profile(&args),
    };
    done.unwrap_or_else(|error| {
        // With its causes, but not with where in our code it passed.
        let causes: String = error.chain().skip(1).map(|cause| format!("\n  caused by: {cause}")).collect();
        let _ = writeln!(std::io::stderr(), "error: {error}{causes}");
        ExitCode::FAILURE
    })
}

/// Writes to standard output; whoever closed it does not want the rest.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Writes to standard error.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
