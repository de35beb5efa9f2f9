//! Python, for what only others can say.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python that can do `imports`, in an environment of its own, made once a target folder of what pip calls `packages`; `None`, and a word to
/// the reader of the log, where that cannot be.
pub(crate) fn environment(name: &str, imports: &str, packages: &[&str]) -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Several tests want the same one at once, and the first is not to lose it to the second.
    let lock = File::create(environment.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let python = environment.join("bin/python");
    if succeeds(Command::new(&python).args(["-c", imports])) {
        return Some(python);
    }
    if !succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment)) {
        eprintln!("skipped: `python3 -m venv` does not work here");
        return None;
    }
    let install = ["-m", "pip", "install", "--quiet", "--retries", "0", "--timeout", "20"];
    if !succeeds(Command::new(&python).args(install).args(packages)) {
        eprintln!("skipped: pip cannot install {} here", packages.join(", "));
        return None;
    }
    Some(python)
}

/// Whether a program starts and ends well.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
