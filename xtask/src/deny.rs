//! `cargo xtask deny`: licences, duplicates and sources of what we depend on, by cargo-deny and `deny.toml`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, call};

/// Checks them; installs cargo-deny into the target folder where there is none, which takes some minutes once.
///
/// # Errors
/// When cargo-deny does not compile, or finds something.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let program = program(workspace)?;
    call(Command::new(program).args(["check", "licenses", "bans", "sources"]).current_dir(&workspace.root))
}

fn program(workspace: &Workspace) -> Result<PathBuf> {
    if Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Ok("cargo-deny".into());
    }
    let tools = workspace.target.join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.is_file() {
        let mut install = workspace.cargo(&["install", "--locked", "--quiet", "cargo-deny", "--root"]);
        // In a target folder of its own, so that the usual one keeps its profile.
        call(install.arg(&tools).env("CARGO_TARGET_DIR", tools.join("build")))?;
    }
    Ok(program)
}
