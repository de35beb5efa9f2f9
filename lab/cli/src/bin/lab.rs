//! The program `lab`: trains networks and makes tables of what came out. `topolab` has the same commands, and those for data.

use std::process::ExitCode;

use clap::Parser;
use pipeline::cli::EXIT_CODES;

/// Trains networks, one or a plan of many, and makes tables of what came out
#[derive(Debug, Parser)]
#[command(name = "lab", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: topolab_cli::Command,
}

fn main() -> ExitCode {
    topolab_cli::run(Args::parse().command)
}
