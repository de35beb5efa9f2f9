//! `cargo xtask lab`: from a fresh clone to an executed notebook, and to JupyterLab where there is Python.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::workspace::{Workspace, call};

/// Sets notebooks up, runs the quickstart, and opens JupyterLab unless `no_open`.
///
/// # Errors
/// When something does not compile, or the quickstart fails. That there is no Python, or no network to get JupyterLab
/// from, is said and is no error.
pub(crate) fn lab(workspace: &Workspace, no_open: bool) -> Result<()> {
    let start = Instant::now();
    say(start, "1 of 4: building what executes notebooks (the first time about 5 minutes on 2 cores, later seconds)");
    let runner = workspace.runner()?;
    say(
        start,
        "2 of 4: building what notebooks use: candle, polars, our crates (the first time about 13 minutes on 2 cores, later seconds)",
    );
    call(Command::new(&runner).arg("prepare"))?;

    let notebooks = workspace.root.join("notebooks");
    let quickstart = notebooks.join("quickstart.ipynb");
    if quickstart.is_file() {
        let executed = notebooks.join("quickstart.out.ipynb");
        say(start, "3 of 4: executing notebooks/quickstart.ipynb (a few minutes)");
        call(Command::new(&runner).arg("run").arg(&quickstart).arg("--output").arg(&executed))?;
        say(start, &format!("the executed notebook, with its figures: {}", executed.display()));
    } else {
        say(start, "3 of 4: there is no notebooks/quickstart.ipynb to execute");
    }

    say(start, "4 of 4: JupyterLab, in notebooks/.jupyter (optional; the first time about 2 minutes)");
    let jupyter = match install_jupyter(&notebooks, &runner) {
        Ok(jupyter) => jupyter,
        Err(error) => {
            say(start, &format!("no JupyterLab: {error:#}"));
            say(start, "ready; `cargo xtask notebook run FILE` executes notebooks without it");
            return Ok(());
        }
    };
    if no_open {
        say(start, &format!("ready; to open the notebooks: {} lab {}", jupyter.display(), notebooks.display()));
        return Ok(());
    }
    say(start, "ready; opening notebooks/ in JupyterLab (Ctrl-C ends it)");
    // From here on the terminal is JupyterLab's.
    let error = Command::new(&jupyter).arg("lab").current_dir(&notebooks).env("JUPYTER_PREFER_ENV_PATH", "1").exec();
    Err(anyhow!(error).context("start JupyterLab"))
}

fn say(start: Instant, text: &str) {
    let seconds = start.elapsed().as_secs();
    println!("[{:>2}:{:02}] {text}", seconds / 60, seconds % 60);
}

/// A private Python environment with JupyterLab, in which notebooks find our kernel; the path of its `jupyter`.
fn install_jupyter(notebooks: &Path, runner: &Path) -> Result<PathBuf> {
    let environment = notebooks.join(".jupyter");
    let python = environment.join("bin/python");
    let jupyter = environment.join("bin/jupyter");
    if !environment.join("bin/jupyter-lab").is_file() {
        let quietly = |command: &mut Command| call(command.stdout(Stdio::null()).stdin(Stdio::null()));
        quietly(Command::new("python3").arg("--version")).context("no Python on this machine")?;
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context("make a Python environment")?;
        quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "jupyterlab"]))
            .context("install JupyterLab")?;
    }
    // Called `rust`, as evcxr's own kernel is, so that a notebook opens with either.
    let folder = environment.join("share/jupyter/kernels/rust");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let kernel = json!({
        "argv": [python, notebooks.join("runner/kernel.py"), runner, "-f", "{connection_file}"],
        "display_name": "Rust",
        "language": "rust",
        "interrupt_mode": "signal",
    });
    let path = folder.join("kernel.json");
    fs::write(&path, format!("{kernel:#}\n")).with_context(|| format!("write {}", path.display()))?;
    Ok(jupyter)
}
