//! Python, for what only others can say.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skips::{Lacks, skip};

/// The Python environment of the tests, which has what `tests/requirements.txt` lists; `None`, and a skip, where there is none.
///
/// `cargo xtask test` makes it, once a target folder: it takes a download, which a test should not wait for.
pub(crate) fn environment() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let wanted = include_str!("../requirements.txt");
    // Written when the installation was complete.
    let found = std::fs::read_to_string(folder.join("requirements.txt")).unwrap_or_default();
    if found != wanted {
        skip(Lacks::Python, "`cargo xtask test` has made no environment with tests/requirements.txt here");
        return None;
    }
    Some(folder.join("bin/python"))
}

/// Whether a program starts and ends well.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
