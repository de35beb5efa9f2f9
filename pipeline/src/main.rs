//! The program `pipeline`: makes, shows, checks and serves stores from a shell. `topolab data` is the same.

use std::process::ExitCode;

use clap::Parser;
use pipeline::cli;

fn main() -> ExitCode {
    cli::run(cli::Command::parse())
}
