//! Runs what is not yet in the results.
//!
//! A run is data, and its id a hash of that. The results are a file of JSON lines, one for each *finished* run, appended
//! and synced; nothing else is kept. So resuming is plan minus what is there, after any kind of end.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle::Device;
use datasets::{Batches, Seed};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::metrics::nn_mass;
use crate::models::Spec;
use crate::train::{Recipe, evaluate, fit};
use crate::{Error, Model, Result};

/// One network to be trained: everything its result depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The network.
    pub architecture: Spec,
    /// Which data, in words that say all that matters: name, subset, batch size.
    pub data: String,
    /// How it is trained.
    pub recipe: Recipe,
    /// Of the wiring, the weights, the order of samples, and what a step draws.
    pub seed: u64,
}

impl Run {
    /// Sixteen hexadecimal digits: the beginning of the SHA-256 of the run as JSON.
    #[expect(clippy::missing_panics_doc, reason = "plain data is always JSON")]
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).expect("plain data is always JSON");
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is known of a network after its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of its wiring; `None` where the graph declares no cell.
    pub nn_mass: Option<f64>,
    /// Trained parameters.
    pub params: usize,
    /// Multiply-adds of one sample.
    pub macs: u64,
    /// Mean over the last epoch, in nats, while the weights moved.
    pub train_loss: f64,
    /// Mean over the test samples, in nats.
    pub test_loss: f64,
    /// Fraction of the test samples, in `0.0..=1.0`.
    pub test_accuracy: f64,
}

/// Draws the run's network from its seed, trains it, and tests it once, at the end: the usual work of a sweep.
///
/// # Errors
/// As [`fit`], and when the architecture does not add up.
pub fn trained(run: &Run, device: &Device, train: &dyn Batches, test: &dyn Batches) -> Result<Outcome> {
    let graph = run.architecture.graph(Seed(run.seed))?;
    let nn_mass = if graph.cells.is_empty() { None } else { Some(nn_mass::of(&graph)?) };
    let model = Model::new(graph, Seed(run.seed), device)?;
    let recipe = Recipe { seed: run.seed, ..run.recipe.clone() };
    let history = fit(&model, train, None, &recipe, |_| {})?;
    let score = evaluate(&model, test)?;
    let profile = model.profile();
    Ok(Outcome {
        nn_mass,
        params: profile.params,
        macs: profile.macs,
        train_loss: history.last().map_or(f64::NAN, |epoch| epoch.train_loss),
        test_loss: score.loss,
        test_accuracy: score.accuracy,
    })
}

/// One line of the results file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row<R> {
    /// [`Run::id`].
    pub id: String,
    /// What was run.
    pub run: Run,
    /// What came out.
    pub result: R,
}

/// What [`run`] tells after each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Runs of the plan that are in the results now.
    pub done: usize,
    /// Runs of the plan.
    pub of: usize,
}

/// Works through those runs of `plan` that are not in the file at `path`, `workers` at once, and appends a line for each
/// that finishes. Returns how many were run. A run that fails stops the sweep after those under way; what finished stays.
///
/// # Errors
/// When the file cannot be written, holds something else than results, is being written by another sweep, or a run fails.
#[expect(clippy::missing_panics_doc, reason = "a lock is only poisoned by a worker that panicked, and then the scope has panicked already")]
pub fn run<R: Serialize>(
    plan: &[Run],
    path: impl AsRef<Path>,
    workers: usize,
    work: impl Fn(&Run) -> Result<R> + Sync,
    on_done: impl FnMut(Done) + Send,
) -> Result<usize> {
    let results = Results::open(path.as_ref())?;
    let mut planned = BTreeSet::new();
    let plan: Vec<(String, &Run)> = plan.iter().map(|run| (run.id(), run)).filter(|(id, _)| planned.insert(id.clone())).collect();
    let todo: Vec<&(String, &Run)> = plan.iter().filter(|(id, _)| !results.ids.contains(id)).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let rim = Mutex::new((results, on_done, plan.len() - todo.len()));
    let one = |(id, run): &(String, &Run)| {
        let result = work(run)?;
        let mut rim = rim.lock().expect("no worker panics while it holds the file");
        let (results, on_done, done) = &mut *rim;
        results.append(&Row { id: id.clone(), run: (*run).clone(), result })?;
        *done += 1;
        on_done(Done { done: *done, of: plan.len() });
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.clamp(1, todo.len().max(1)) {
            scope.spawn(|| {
                while let Some(run) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(error) = one(run) {
                        next.store(todo.len(), Ordering::Relaxed);
                        failed.lock().expect("setting a value does not panic").get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().expect("setting a value does not panic") {
        Some(error) => Err(error),
        None => Ok(todo.len()),
    }
}

/// The results file, open for this sweep alone.
struct Results {
    path: PathBuf,
    file: File,
    ids: BTreeSet<String>,
}

impl Results {
    fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, "make the folder", source))?;
        }
        let options = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = options.map_err(|source| Error::io(path, "open the results", source))?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => {
                Error::mismatch(path.display().to_string(), "one sweep at a time", "another that writes it")
            }
            std::fs::TryLockError::Error(source) => Error::io(path, "lock the results", source),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|source| Error::io(path, "read the results", source))?;
        // A line without its end was cut by a kill; the run it stood for counts as not done.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(|source| Error::io(path, "cut a half-written line", source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| Error::io(path, "seek", source))?;
        let id = |(at, line): (usize, &str)| match serde_json::from_str::<Row<serde_json::Value>>(line) {
            Ok(row) => Ok(row.id),
            Err(error) => Err(Error::mismatch(format!("{}: line {}", path.display(), at + 1), "a finished run", error)),
        };
        let ids = text[..whole].lines().enumerate().map(id).collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), file, ids })
    }

    fn append<R: Serialize>(&mut self, row: &Row<R>) -> Result<()> {
        let mut line = serde_json::to_vec(row).map_err(|error| Error::mismatch("sweep: result", "values that JSON can hold", error))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::io(&self.path, "append a result", source))
    }
}
