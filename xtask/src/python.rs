//! The Python environment that some tests ask, made before they run. `tests/it/python.rs` is the other side.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::workspace::{Workspace, call};

/// Makes the environment of the tests in the target folder, unless it is there: all of `tests/requirements.txt`, and nothing else.
///
/// Without Python or a network there is none, which is said, and the tests that want it skip.
///
/// # Errors
/// When the folder or the file cannot be read or written.
pub(crate) fn environment(workspace: &Workspace) -> Result<()> {
    // Cargo names this folder to tests as CARGO_TARGET_TMPDIR.
    let folder = workspace.target.join("tmp/python");
    let wanted = workspace.root.join("tests/requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| format!("read {}", wanted.display()))?;
    let complete = folder.join("requirements.txt");
    if fs::read_to_string(&complete).is_ok_and(|found| found == text) {
        return Ok(());
    }
    println!("installing tests/requirements.txt in {}, once", folder.display());
    let quietly = |command: &mut Command| call(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let made = quietly(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).and_then(|()| {
        let mut pip = Command::new(folder.join("bin/python"));
        // A wheel or nothing: to compile these would take longer than all tests.
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--retries=1", "--timeout=20"]);
        quietly(pip.arg("--requirement").arg(&wanted))
    });
    match made {
        Ok(()) => fs::write(&complete, text).with_context(|| format!("write {}", complete.display())),
        Err(error) => {
            println!("tests that want Python will skip: {error:#}");
            Ok(())
        }
    }
}
