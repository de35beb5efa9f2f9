//! Programs that train at our word, and the Python that some of them need.
//!
//! Such a program prints `params N`, then answers each line with the seconds of a step, and the end of its input with its peak memory in
//! bytes: `lab/benches/training`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, call};

/// A program that takes a step when it is told, and idles otherwise.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Parameters of its network.
    pub(crate) params: usize,
    /// How many steps are wanted of it.
    pub(crate) rounds: usize,
    /// Of its steps so far, without those to warm up.
    pub(crate) seconds: Vec<f64>,
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not start, or does not say how many parameters it has.
    pub(crate) fn start(name: &'static str, command: &mut Command, rounds: usize) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("start {name}"))?;
        let (to, from) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        let mut peer = Self { name, params: 0, rounds, seconds: vec![], child, to, from: BufReader::new(from).lines() };
        let first = peer.answer()?;
        let params = first.strip_prefix("params ").and_then(|params| params.parse().ok());
        peer.params = params.with_context(|| format!("{name}: wanted `params N`, found `{first}`"))?;
        Ok(peer)
    }

    /// Two steps that do not count.
    pub(crate) fn warm_up(&mut self) -> Result<()> {
        self.step()?;
        self.step()?;
        self.seconds.clear();
        Ok(())
    }

    /// One step.
    ///
    /// # Errors
    /// When the program has ended.
    pub(crate) fn step(&mut self) -> Result<()> {
        writeln!(self.to).with_context(|| format!("{} listens no longer", self.name))?;
        let answer = self.answer()?;
        self.seconds.push(answer.parse().with_context(|| format!("{}: wanted seconds, found `{answer}`", self.name))?);
        Ok(())
    }

    /// Ends it; its peak memory in bytes, 0 where it does not know.
    ///
    /// # Errors
    /// When it does not say.
    pub(crate) fn end(mut self) -> Result<u64> {
        drop(self.to);
        let answer = self.from.next().with_context(|| format!("{} ended without its peak memory", self.name))??;
        self.child.wait()?;
        answer.parse().with_context(|| format!("{}: wanted bytes, found `{answer}`", self.name))
    }

    fn answer(&mut self) -> Result<String> {
        let Some(line) = self.from.next() else { bail!("{} ended ({})", self.name, self.child.wait()?) };
        Ok(line?)
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len => (sorted[(len - 1) / 2] + sorted[len / 2]) / 2.0,
    }
}

/// With so many threads, whichever library has them.
pub(crate) fn threaded(command: &mut Command, threads: usize) -> &mut Command {
    let threads = threads.to_string();
    command.envs(["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"].map(|name| (name, &threads)))
}

/// A Python that can import PyTorch: the given one, or a private environment below the target folder, made when it is not there yet.
///
/// # Errors
/// When there is none and none can be made.
pub(crate) fn python(workspace: &Workspace, given: Option<&Path>) -> Result<PathBuf> {
    let quietly = |command: &mut Command| call(command.stdin(Stdio::null()).stdout(Stdio::null()));
    let environment = workspace.target.join("peers");
    let python = given.map_or_else(|| environment.join("bin/python"), Path::to_owned);
    if given.is_none() && !environment.join("complete").is_file() {
        println!("installing PyTorch in {}, once", environment.display());
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment)).context("make a Python environment")?;
        quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "torch", "numpy"]))
            .context("install PyTorch")?;
        std::fs::write(environment.join("complete"), "").context("write into the Python environment")?;
    }
    quietly(Command::new(&python).args(["-c", "import torch"])).context("import PyTorch")?;
    Ok(python)
}
