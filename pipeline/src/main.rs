//! The program `pipeline`: makes, shows, checks and serves stores from a shell.

mod cli;
#[cfg(feature = "flight")]
mod serve;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Command::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
