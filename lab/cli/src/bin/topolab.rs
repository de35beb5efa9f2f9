//! The program `topolab`: all that Topolab does from a shell.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use pipeline::cli::EXIT_CODES;

/// Research on the topology of neural networks: data, training, sweeps, tables
#[derive(Debug, Parser)]
#[command(name = "topolab", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, show, check and serve stores: image data sets in one LMDB file
    #[command(subcommand)]
    Data(pipeline::cli::Command),
    #[command(flatten)]
    Lab(topolab_cli::Command),
    /// Write completions for a shell to standard output
    ///
    /// For bash: topolab completions bash > ~/.local/share/bash-completion/completions/topolab
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a man page for each command
    Man {
        /// The folder, such as ~/.local/share/man/man1
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Data(command) => return pipeline::cli::run(command),
        Command::Lab(command) => return topolab_cli::run(command),
        Command::Completions { shell } => {
            let mut text = vec![];
            clap_complete::generate(shell, &mut Args::command(), "topolab", &mut text);
            std::io::stdout().write_all(&text)
        }
        Command::Man { folder } => std::fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(Args::command(), &folder))
            .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", folder.display()))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
