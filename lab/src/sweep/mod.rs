//! Runs what is not yet in the results.
//!
//! A run is data, and its id a hash of that. The results are a file of JSON lines, one for each *finished* run, appended
//! and synced; beside it lie the runs that failed, with their reasons. Nothing else is kept. So resuming is plan minus what is
//! there, after any kind of end. [`Plan`] writes many runs down as one and what changes.

mod desk;
mod plan;
mod results;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle::Device;
use datasets::{Batches, Seed};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::metrics::memory::plan_batch;
use crate::metrics::nn_mass;
use crate::models::Spec;
use crate::train::{self, Epoch, Recipe, evaluate, fit_with};
use crate::{Model, Result, Table};

pub use desk::Desk;
use desk::Room;
pub use plan::Plan;
use results::Results;
pub use results::{Failure, Row};

/// One network to be trained: everything its result depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run<D = String> {
    /// The network.
    pub architecture: Spec,
    /// Which data: words, or values, that say all that matters, such as name, subset, batch size.
    pub data: D,
    /// How it is trained.
    pub recipe: Recipe,
    /// Of the wiring, the weights, the order of samples, and what a step draws.
    pub seed: u64,
}

impl<D: Serialize> Run<D> {
    /// Sixteen hexadecimal digits: the beginning of the SHA-256 of the run as JSON.
    ///
    /// # Panics
    /// When `data` cannot be JSON.
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

/// An outcome, and how the run came to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// As [`trained`] tells it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// A row an epoch; [`Table::unfold`] makes rows of a table of them.
    pub history: Vec<Epoch>,
}

/// Draws the run's network from its seed, trains it, and tests it once, at the end: the usual work of a sweep.
///
/// # Errors
/// As [`fit`](crate::fit), and when the architecture does not add up.
pub fn trained<D>(run: &Run<D>, desk: &Desk<'_>, device: &Device, train: &dyn Batches, test: &dyn Batches) -> Result<Outcome> {
    Ok(course(run, desk, device, (train, test), false)?.outcome)
}

/// As [`trained`], tested after every epoch: for learning curves.
///
/// # Errors
/// As [`trained`].
pub fn followed<D>(run: &Run<D>, desk: &Desk<'_>, device: &Device, train: &dyn Batches, test: &dyn Batches) -> Result<Course> {
    course(run, desk, device, (train, test), true)
}

/// Tested at the end, and if `followed`, after every epoch.
fn course<D>(
    run: &Run<D>,
    desk: &Desk<'_>,
    device: &Device,
    (train, test): (&dyn Batches, &dyn Batches),
    followed: bool,
) -> Result<Course> {
    let graph = run.architecture.graph(Seed(run.seed))?;
    let nn_mass = if graph.cells.is_empty() { None } else { Some(nn_mass::of(&graph)?) };
    let recipe = Recipe { seed: run.seed, ..run.recipe.clone() };
    if let Some(limit) = desk.memory() {
        let batch = train.samples().div_ceil(train.batches().max(1)).max(1);
        desk.take(plan_batch(&graph, batch, limit, &recipe)?.bytes);
    }
    let model = Model::new(graph, Seed(run.seed), device)?;
    let options = train::Options { checkpoint: desk.checkpoint(), memory: desk.memory() };
    let history = fit_with(&model, train, followed.then_some(test), &recipe, &options, |event| {
        if let train::Event::Epoch { row, .. } = event {
            desk.epoch(row);
        }
    })?;
    let score = evaluate(&model, test)?;
    let profile = model.profile();
    let outcome = Outcome {
        nn_mass,
        params: profile.params,
        macs: profile.macs,
        train_loss: history.last().map_or(f64::NAN, |epoch| epoch.train_loss),
        test_loss: score.loss,
        test_accuracy: score.accuracy,
    };
    Ok(Course { outcome, history })
}

/// How a sweep goes about its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Runs at once. Default 1.
    pub workers: usize,
    /// Bytes that those at once may take together, as far as they ask at their [`Desk`]; one that is larger is computed in parts. Default: any.
    pub memory: Option<u64>,
    /// Tries again what failed before. Default: that is left out.
    pub retry: bool,
    /// Steps between two checkpoints of a run, with which a run that was killed goes on; for runs that take hours. Default: none.
    pub checkpoint: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 1, memory: None, retry: false, checkpoint: None }
    }
}

impl From<usize> for Options {
    /// So many at once.
    fn from(workers: usize) -> Self {
        Self { workers, ..Self::default() }
    }
}

/// What [`run`] tells.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a, D = String> {
    /// A run under way has done an epoch.
    Epoch {
        /// Which.
        run: &'a Run<D>,
        /// How it stands.
        row: &'a Epoch,
    },
    /// A run is in the results.
    Done {
        /// Which.
        run: &'a Run<D>,
    },
    /// A run failed, and the others go on.
    Failed {
        /// Which.
        run: &'a Run<D>,
        /// The error with its causes, or the panic.
        reason: &'a str,
    },
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Runs of the plan that are in the results.
    pub done: usize,
    /// Runs of the plan that failed, now or before, and are not in the results.
    pub failed: usize,
    /// Runs that were finished by this call.
    pub ran: usize,
    /// Runs of the plan.
    pub of: usize,
}

/// Works through those runs of `plan` that are not in the file at `path`, and appends a line for each that finishes. A run that
/// fails is noted in a file beside it (`NAME.failed.jsonl`) and not tried again unless the options say so.
///
/// `work` gets a run and its [`Desk`], where it asks for memory and tells how far it is.
///
/// # Errors
/// When a file cannot be written, holds something else than results, or is being written by another sweep. What finished stays.
#[expect(clippy::missing_panics_doc, reason = "a lock is only poisoned by a worker that panicked, and what panics is caught")]
pub fn run<D, R>(
    plan: &[Run<D>],
    path: impl AsRef<Path>,
    options: impl Into<Options>,
    work: impl Fn(&Run<D>, &Desk<'_>) -> Result<R> + Sync,
    on_event: impl FnMut(Event<'_, D>, Standing) + Send,
) -> Result<Standing>
where
    D: Serialize + Sync,
    R: Serialize,
{
    let (path, options) = (path.as_ref(), options.into());
    let results = Results::open(path)?;
    let mut planned = BTreeSet::new();
    let plan: Vec<(String, &Run<D>)> = plan.iter().map(|run| (run.id(), run)).filter(|(id, _)| planned.insert(id.clone())).collect();
    let is_open = |id: &String| !results.ids.contains(id) && (options.retry || !results.failed.contains(id));
    let todo: Vec<&(String, &Run<D>)> = plan.iter().filter(|(id, _)| is_open(id)).collect();
    let standing = Standing {
        done: plan.iter().filter(|(id, _)| results.ids.contains(id)).count(),
        failed: plan.iter().filter(|(id, _)| !results.ids.contains(id) && !is_open(id)).count(),
        ran: 0,
        of: plan.len(),
    };
    let (next, broken, room) = (AtomicUsize::new(0), Mutex::new(None), Room::new(options.memory));
    let rim = Mutex::new((results, on_event, standing));
    let one = |(id, run): &(String, &Run<D>)| {
        let tell = |row: &Epoch| {
            let (_, on_event, standing) = &mut *rim.lock().expect("nobody panics with it");
            on_event(Event::Epoch { run, row }, *standing);
        };
        let folder = options.checkpoint.map(|every| (under_way(path).join(id), every));
        let desk = Desk::new(&room, folder.clone(), &tell);
        let result = catch_unwind(AssertUnwindSafe(|| work(run, &desk)));
        drop(desk);
        let mut rim = rim.lock().expect("nobody panics with it");
        let (results, on_event, standing) = &mut *rim;
        let reason = match result {
            Ok(Ok(result)) => {
                results.append(&Row { id: id.clone(), run: *run, result })?;
                (standing.done, standing.ran) = (standing.done + 1, standing.ran + 1);
                on_event(Event::Done { run }, *standing);
                if let Some((folder, _)) = folder {
                    // Of no use any more, and harmless.
                    let _ = std::fs::remove_dir_all(folder).and_then(|()| std::fs::remove_dir(under_way(path)));
                }
                return Ok(());
            }
            Ok(Err(error)) => format!("{error:?}"),
            Err(panic) => format!("panicked: {}", panicked(&*panic)),
        };
        results.append_failure(&Failure { id: id.clone(), run: *run, reason: reason.clone() })?;
        standing.failed += 1;
        on_event(Event::Failed { run, reason: &reason }, *standing);
        Ok(())
    };
    let workers = options.workers.clamp(1, todo.len().max(1));
    let works = || {
        while let Some(run) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = one(run) {
                next.store(todo.len(), Ordering::Relaxed);
                broken.lock().expect("setting a value does not panic").get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| match pool(workers) {
                Some(pool) => pool.install(works),
                None => works(),
            });
        }
    });
    match broken.into_inner().expect("setting a value does not panic") {
        Some(error) => Err(error),
        None => Ok(rim.into_inner().expect("nobody panics with it").2),
    }
}

/// The runs of `plan` that are in the results at `path`, in the order of the plan, whatever else is there: `id`, the fields of the run and those of its
/// result, by [short names](Table::short_names).
///
/// # Errors
/// When the file cannot be read, or holds something else than results.
pub fn table<D: Serialize>(plan: &[Run<D>], path: impl AsRef<Path>) -> Result<Table> {
    let place: BTreeMap<String, usize> = plan.iter().map(Run::id).enumerate().map(|(at, id)| (id, at)).collect();
    let rows = Table::read_jsonl(path)?.filter(|row| place.contains_key(&row.text("id")))?;
    let names = rows.names();
    let rows = rows.with_column("place", |row| place.get(&row.text("id")).copied())?.sort(&["place"])?;
    Ok(rows.select(&names.iter().map(String::as_str).collect::<Vec<_>>())?.short_names())
}

/// Threads for one of so many workers: networks that share threads wait for one another at every operation. `None` where one worker has all.
fn pool(workers: usize) -> Option<rayon::ThreadPool> {
    let threads = (rayon::current_num_threads() / workers).max(1);
    // Where the system gives no threads, there are those that all share.
    (workers > 1).then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()).flatten()
}

/// Where checkpoints of runs are, until they are done.
fn under_way(results: &Path) -> PathBuf {
    results.with_extension("under-way")
}

/// What a panic said.
fn panicked(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
