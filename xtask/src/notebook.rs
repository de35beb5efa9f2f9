//! Notebooks without Jupyter, by `notebook-runner`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::lab::with_features;
use crate::workspace::{Workspace, call};

/// Becomes `notebook-runner run`, so that its exit code and Ctrl-C are its own.
///
/// # Errors
/// When it does not compile or start; otherwise this never returns.
pub(crate) fn run(workspace: &Workspace, notebook: &Path, set: &[String], output: Option<&Path>, features: &[String]) -> Result<()> {
    let mut runner = Command::new(workspace.notebooks(features)?);
    with_features(&mut runner, features);
    runner.arg("run").arg(notebook).args(set.iter().map(|setting| format!("--set={setting}")));
    if let Some(output) = output {
        runner.arg("--output").arg(output);
    }
    Err(anyhow!(runner.exec()).context("start notebook-runner"))
}

/// Compiles the cells of these notebooks, or of all.
///
/// # Errors
/// When one does not compile.
pub(crate) fn check(workspace: &Workspace, mut notebooks: Vec<PathBuf>) -> Result<()> {
    if notebooks.is_empty() {
        notebooks = all(workspace)?;
    }
    if notebooks.is_empty() {
        println!("there are no notebooks");
        return Ok(());
    }
    call(Command::new(workspace.runner()?).arg("check").args(notebooks))
}

/// The notebooks of the workspace, without those that a run has written.
fn all(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("notebooks");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_source = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".ipynb") && !name.ends_with(".out.ipynb")
    };
    let mut notebooks: Vec<PathBuf> = paths.into_iter().filter(is_source).collect();
    notebooks.sort();
    Ok(notebooks)
}
