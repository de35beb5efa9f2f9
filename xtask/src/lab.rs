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
pub(crate) fn lab(workspace: &Workspace, no_open: bool, features: &[String]) -> Result<()> {
    let start = Instant::now();
    let notebooks = workspace.root.join("notebooks");
    // pip waits for the network most of the time, and the compiler does not.
    let jupyter = std::thread::spawn({
        let notebooks = notebooks.clone();
        move || install_jupyter(&notebooks)
    });
    say(start, "1 of 4: compiling candle, polars, rust-analyzer and our crates (about 6 minutes the first time, seconds later)");
    let runner = workspace.notebooks(features)?;
    say(start, "2 of 4: linking what notebooks use");
    call(with_features(Command::new(&runner).arg("prepare"), features))?;

    let quickstart = notebooks.join("quickstart.ipynb");
    if quickstart.is_file() {
        let executed = notebooks.join("quickstart.out.ipynb");
        say(start, "3 of 4: executing notebooks/quickstart.ipynb (about a minute)");
        call(with_features(Command::new(&runner).arg("run").arg(&quickstart).arg("--output").arg(&executed), features))?;
        say(start, &format!("the executed notebook, with its figures: {}", executed.display()));
    } else {
        say(start, "3 of 4: there is no notebooks/quickstart.ipynb to execute");
    }

    say(start, "4 of 4: JupyterLab, in notebooks/.jupyter (optional)");
    let jupyter = jupyter.join().unwrap_or_else(|_| Err(anyhow!("its installation panicked")));
    let jupyter = match jupyter.and_then(|jupyter| write_kernel(&notebooks, &runner, features).map(|()| jupyter)) {
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

/// Lets notebook-runner build with these features of the package `topolab`.
pub(crate) fn with_features<'a>(runner: &'a mut Command, features: &[String]) -> &'a mut Command {
    match features {
        [] => runner,
        features => runner.env(FEATURES, features.join(",")),
    }
}

/// Where notebook-runner looks for them.
const FEATURES: &str = "TOPOLAB_FEATURES";

fn say(start: Instant, text: &str) {
    let seconds = start.elapsed().as_secs();
    println!("[{:>2}:{:02}] {text}", seconds / 60, seconds % 60);
}

/// A private Python environment with JupyterLab; the path of its `jupyter`.
fn install_jupyter(notebooks: &Path) -> Result<PathBuf> {
    let environment = notebooks.join(".jupyter");
    let jupyter = environment.join("bin/jupyter");
    if !environment.join("bin/jupyter-lab").is_file() {
        let quietly = |command: &mut Command| call(command.stdout(Stdio::null()).stdin(Stdio::null()));
        quietly(Command::new("python3").arg("--version")).context("no Python on this machine")?;
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context("make a Python environment")?;
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "jupyterlab"]);
        quietly(&mut pip).context("install JupyterLab")?;
    }
    Ok(jupyter)
}

/// Lets notebooks find our kernel in that environment: called `rust`, as evcxr's own is, so that a notebook opens with either.
fn write_kernel(notebooks: &Path, runner: &Path, features: &[String]) -> Result<()> {
    let environment = notebooks.join(".jupyter");
    let folder = environment.join("share/jupyter/kernels/rust");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let mut kernel = json!({
        "argv": [environment.join("bin/python"), notebooks.join("runner/kernel.py"), runner, "-f", "{connection_file}"],
        "display_name": "Rust",
        "language": "rust",
        "interrupt_mode": "signal",
    });
    if !features.is_empty() {
        kernel["env"] = json!({ FEATURES: features.join(",") });
    }
    let path = folder.join("kernel.json");
    fs::write(&path, format!("{kernel:#}\n")).with_context(|| format!("write {}", path.display()))
}
