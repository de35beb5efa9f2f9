//! What can be found only in a program where nothing else runs: a test of this one, started again by itself.

use std::process::{Command, Stdio};

/// Say to this program, started again, about what to find something, and the file for what it found.
const CASE: &str = "ALONE_CASE";
const FOUND: &str = "ALONE_FOUND";

/// What `test` finds about a case.
#[track_caller]
pub(crate) fn find(test: &str, case: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let found = folder.path().join("found");
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", test, "--test-threads", "1"]).env(CASE, case).env(FOUND, &found);
    assert!(program.stdout(Stdio::null()).status().unwrap().success(), "{case}");
    std::fs::read_to_string(found).unwrap()
}

/// For a test that [`find`] starts, the case, and how to tell; `None` where it was started with all others.
pub(crate) fn asked() -> Option<(String, impl FnOnce(&str))> {
    let (case, found) = (std::env::var(CASE).ok()?, std::env::var_os(FOUND)?);
    Some((case, move |text: &str| std::fs::write(found, text).unwrap()))
}
