//! The program `lab`: what notebooks do, from a shell.
//!
//! Results go to standard output, everything else to standard error. The exit code is 0, 1 where something is wrong with the data, a
//! run or the machine, and 2 where it is wrong with what was typed.

mod data;
mod networks;
mod sweep;
mod table;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Trains networks, one or a plan of many, and makes tables of what came out
#[derive(Debug, Parser)]
#[command(name = "lab", version, max_term_width = 100)]
enum Command {
    Train(train::Train),
    Eval(train::Eval),
    Sweep(sweep::Sweep),
    Table(table::Table),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Train(args) => train::train(&args),
        Command::Eval(args) => train::eval(&args),
        Command::Sweep(args) => sweep::sweep(&args),
        Command::Table(args) => table::table(&args),
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
