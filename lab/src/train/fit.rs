//! The training loop.

use candle::Tensor;
use datasets::{Batch, Batches, Seed};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Keeper};
use super::gradients::{self, Gradients, Targets};
use super::optimizer::Memory;
use super::score::{Tally, check_fit, evaluate_in};
use super::watch::{BETWEEN, Earlier, Unread};
use super::{Recipe, average, batch, blame, micro};
use crate::exec::Workspace;
use crate::metrics::accuracy;
use crate::metrics::memory::plan_batch;
use crate::model::Model;
use crate::params::Params;
use crate::{Error, Result};

#[cfg(test)]
mod tests;

/// Trains `model` in place on `train`, testing on `test` after every epoch, and returns one row per epoch.
///
/// The same model, data and recipe give the same weights, bit for bit on the CPU, on any number of threads. In the end the
/// model has the weights that were tested last: their average, where the recipe wants one.
///
/// `on_event` follows the run; what it returns may be nothing, or [`Flow::Stop`] to end it.
///
/// # Errors
/// When the recipe or the data do not fit the model, a batch cannot be read, or loss or gradient are no longer finite. The
/// model is then as the last whole step left it.
pub fn fit<F: Into<Flow>>(
    model: &Model,
    train: &dyn Batches,
    test: Option<&dyn Batches>,
    recipe: &Recipe,
    on_event: impl FnMut(Event<'_>) -> F,
) -> Result<Vec<Epoch>> {
    fit_with(model, train, test, recipe, &Options::default(), on_event)
}

/// [`fit`], kept on disk, or within a limit of memory.
///
/// With a [`Checkpoint`], the same call goes on where the last one ended, however that was, and gives the same weights and
/// rows as a run that was never interrupted, bit for bit on the CPU. A run that is done is not run again.
///
/// # Errors
/// As [`fit`]; when a checkpoint cannot be written or read, or is another run's; and when not even one sample fits into memory.
pub fn fit_with<F: Into<Flow>>(
    model: &Model,
    train: &dyn Batches,
    test: Option<&dyn Batches>,
    recipe: &Recipe,
    options: &Options,
    on_event: impl FnMut(Event<'_>) -> F,
) -> Result<Vec<Epoch>> {
    let between = if model.device.is_cpu() { 1 } else { BETWEEN };
    fit_watched(model, (train, test), recipe, options, between, on_event)
}

/// [`fit_with`], with a look at the device every `between` steps.
fn fit_watched<F: Into<Flow>>(
    model: &Model,
    (train, test): (&dyn Batches, Option<&dyn Batches>),
    recipe: &Recipe,
    options: &Options,
    between: usize,
    mut on_event: impl FnMut(Event<'_>) -> F,
) -> Result<Vec<Epoch>> {
    check(model, train, test, recipe)?;
    let workspace = Workspace::new(&model.graph, recipe.precision.narrow());
    let memory = options.memory.map(|limit| Limit { bytes: limit, planned: 0 });
    let watch = Watch { between, save: options.checkpoint.as_ref().map(|place| place.every), ..Watch::default() };
    let mut run = Run { model, recipe, steps: train.batches(), workspace, memory, watch, state: State::new(model, recipe)? };
    let keeper = options.checkpoint.as_ref().map(|place| Keeper::open(place, model, train, recipe)).transpose()?;
    if let Some(keeper) = &keeper {
        keeper.restore(&mut run.state, &model.params)?;
    }
    let save = |state: &State| keeper.as_ref().map_or(Ok(()), |keeper| keeper.save(state, &model.params));
    let due = |state: &State| options.checkpoint.as_ref().is_some_and(|place| state.done.is_multiple_of(place.every));
    let mut told = run.state.done;
    let tested = model.with(run.state.average.as_ref().unwrap_or(&model.params).clone());
    let total = recipe.epochs * run.steps;
    'run: while !run.is_over() {
        let (mut flow, mut last) = (Flow::Go, None);
        for batch in train.epoch(run.state.history.len() as u64, run.state.step) {
            let batch = batch.map_err(Error::Batch)?;
            drop(last.take()); // before there are new ones
            let Some(gradients) = run.step(&batch)? else { continue 'run };
            let (done, loss) = (run.state.done, run.state.tally.score().loss);
            if done > told {
                flow = on_event(Event::Step { done, of: total, samples: batch.len(), loss, model, gradients: &gradients }).into();
                told = done;
            }
            last = Some(gradients);
            if flow == Flow::Stop && !run.is_sound()? {
                continue 'run;
            }
            // The last step of an epoch is tested first, and then kept.
            if run.state.step < run.steps {
                if flow == Flow::Stop || due(&run.state) {
                    save(&run.state)?;
                }
                if flow == Flow::Stop {
                    break 'run;
                }
            }
        }
        let Some(gradients) = last else {
            return Err(Error::mismatch("train: epoch", format!("{} batches", run.steps), "none"));
        };
        let scored = test.map(|data| evaluate_in(&run.workspace, &tested, data, run.state.micro_batch)).transpose()?;
        let row = run.end_epoch(scored);
        save(&run.state)?;
        let after = on_event(Event::Epoch { row: &row, model: &tested, gradients: &gradients }).into();
        if flow == Flow::Stop || after == Flow::Stop {
            break;
        }
    }
    for ((_, average), (_, now)) in tested.params.iter().zip(model.params.iter()).filter(|_| recipe.average.is_some()) {
        now.set(average.as_tensor())?;
    }
    Ok(run.state.history)
}

/// How a run is carried out, besides what it computes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where it is kept, so that it can go on after a kill; nowhere if not said.
    pub checkpoint: Option<Checkpoint>,
    /// Bytes that the run may take, besides what reads its data; larger batches than fit are computed in parts, as
    /// [`Recipe::micro_batch`] does it. By [`plan_batch`], and so by the number of threads, too: a run with batch norm that has to be
    /// repeated on another machine says its `micro_batch`.
    pub memory: Option<u64>,
}

/// One epoch of a run: a row of its history; [`Table::from_rows`](crate::Table::from_rows) makes a table of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1: after how many passes.
    pub epoch: usize,
    /// Learning rate of its first step.
    pub lr: f64,
    /// Mean over the epoch's steps, in training mode, while the weights move.
    pub train_loss: f64,
    /// As `train_loss`; of mixed samples, how often the larger share was named.
    pub train_accuracy: f64,
    /// After the epoch, on the test samples, if there are any.
    pub test_loss: Option<f64>,
    /// As `test_loss`.
    pub test_accuracy: Option<f64>,
}

/// What [`fit`] tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Steps done in the whole run, this one included.
        done: usize,
        /// Steps of the whole run.
        of: usize,
        /// Samples of this step.
        samples: usize,
        /// Mean training loss of the epoch so far, in nats; on a card as of the last look at it, up to 15 steps ago.
        loss: f64,
        /// After the step.
        model: &'a Model,
        /// What the step was made of, clipped where the recipe clips.
        gradients: &'a Gradients,
    },
    /// An epoch is done and its network tested.
    Epoch {
        /// What [`fit`] will return of it.
        row: &'a Epoch,
        /// As tested: with averaged weights where the recipe averages.
        model: &'a Model,
        /// Of the last step.
        gradients: &'a Gradients,
    },
}

/// What a follower of a run answers; nothing at all means [`Flow::Go`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Go,
    /// End here: after this step, or where it was an epoch's last, after its test.
    Stop,
}

impl From<()> for Flow {
    fn from((): ()) -> Self {
        Self::Go
    }
}

/// What would otherwise fail later.
fn check(model: &Model, train: &dyn Batches, test: Option<&dyn Batches>, recipe: &Recipe) -> Result<()> {
    model.check_copy()?;
    recipe.check(&model.device)?;
    if recipe.stop != Default::default() && test.is_none() {
        return Err(Error::mismatch("recipe: stop", "test samples to stop by", "none"));
    }
    [Some(train), test].into_iter().flatten().try_for_each(|data| check_fit(&model.graph, data))?;
    match train.sample_shape()[..] {
        [views, _, _, _] => Err(Error::mismatch("training samples", "one view of each", views)),
        _ => Ok(()),
    }
}

/// A run under way.
struct Run<'a> {
    model: &'a Model,
    recipe: &'a Recipe,
    /// Steps an epoch.
    steps: usize,
    workspace: Workspace,
    memory: Option<Limit>,
    watch: Watch,
    state: State,
}

/// When a run looks at what its steps have given.
#[derive(Default)]
struct Watch {
    /// Steps from one look to the next.
    between: usize,
    /// Steps from one checkpoint to the next, which is of a state that has been looked at.
    save: Option<usize>,
    /// Of each step since the last look its loss, hits and squared length of gradient.
    unread: Unread,
    /// The run at the last look, where there are steps without.
    earlier: Option<Earlier>,
    /// Up to this step there is a look at each.
    wary: usize,
}

/// Of memory.
struct Limit {
    bytes: u64,
    /// The largest batch that has been planned for.
    planned: usize,
}

/// Where a run is: with the weights, all that a checkpoint holds.
pub(super) struct State {
    /// Steps done of the epoch under way.
    pub(super) step: usize,
    /// Steps done in all.
    pub(super) done: usize,
    /// The most samples computed at once.
    pub(super) micro_batch: usize,
    /// Of the epoch under way.
    pub(super) tally: Tally,
    /// One row an epoch done.
    pub(super) history: Vec<Epoch>,
    pub(super) memory: Memory,
    pub(super) average: Option<Params>,
}

impl State {
    fn new(model: &Model, recipe: &Recipe) -> Result<Self> {
        Ok(Self {
            step: 0,
            done: 0,
            micro_batch: recipe.micro_batch.unwrap_or(usize::MAX),
            tally: Tally::default(),
            history: Vec::with_capacity(recipe.epochs),
            memory: Memory::new(&model.params, recipe)?,
            average: recipe.average.map(|_| model.params.copied()).transpose()?,
        })
    }
}

impl Run<'_> {
    fn is_over(&self) -> bool {
        self.state.history.len() >= self.recipe.epochs || self.recipe.stop.is_due(&self.state.history)
    }

    fn rate(&self, step: usize) -> f64 {
        self.recipe.rate(self.state.history.len(), (step, self.steps))
    }

    /// Sees to it that batches of up to so many samples keep to the limit.
    fn plan(&mut self, samples: usize) -> Result<()> {
        if let Some(limit) = self.memory.as_mut().filter(|limit| limit.planned < samples) {
            let plan = plan_batch(&self.model.graph, samples, limit.bytes, self.recipe)?;
            if plan.micro_batch < samples {
                self.state.micro_batch = self.state.micro_batch.min(plan.micro_batch);
            }
            limit.planned = samples;
        }
        Ok(())
    }

    /// Whether the step about to be made is looked at before it is made.
    fn is_due(&self) -> bool {
        let (state, watch) = (&self.state, &self.watch);
        let next = state.done + 1;
        let ends = state.step == 0 || state.step + 1 == self.steps || watch.save.is_some_and(|every| next.is_multiple_of(every));
        ends || watch.unread.len() + 1 >= watch.between || next <= watch.wary
    }

    /// Looks at the steps since the last time and counts them; of the first that left the numbers how many were noted after it, its loss.
    fn look(&mut self) -> Result<Option<(usize, f64)>> {
        let rows = self.watch.unread.read()?;
        for (at, (scalars, samples)) in rows.iter().enumerate() {
            if !scalars.iter().all(|scalar| scalar.is_finite()) {
                return Ok(Some((rows.len() - 1 - at, scalars[0])));
            }
            self.state.tally.add(scalars, *samples);
        }
        Ok(None)
    }

    /// Whether all steps made so far kept to the numbers; else the run is where it was at the look before.
    fn is_sound(&mut self) -> Result<bool> {
        let found = self.look()?;
        if let Some((after, _)) = found {
            self.go_back(self.state.done - after)?;
        }
        Ok(found.is_none())
    }

    /// Puts the run back to where the last look left it, to go on with a look a step up to step number `wary`, counted from 1.
    fn go_back(&mut self, wary: usize) -> Result<()> {
        if let Some(earlier) = self.watch.earlier.take() {
            earlier.put_into(&mut self.state, &self.model.params)?;
        }
        self.watch.wary = wary;
        Ok(())
    }

    /// One step; changes nothing where it fails. `None` where it was found that one since the last look had left the numbers: the run is
    /// then where it was at that look.
    fn step(&mut self, batch: &Batch) -> Result<Option<Gradients>> {
        self.plan(batch.len())?;
        let Self { model: Model { graph, params, device, .. }, recipe, .. } = *self;
        let (lr, looks) = (self.rate(self.state.step), self.is_due());
        if !looks && self.watch.unread.len() == 0 {
            self.watch.earlier = Some(Earlier::of(&self.state, params)?);
        }
        let (state, workspace) = (&mut self.state, &self.workspace);
        let seed = Seed(recipe.seed).at(state.done as u64);
        let (xs, labels) = batch::to_tensors(batch, graph.input_shape(), device)?;
        let (xs, mixed) = match (recipe.mix_up, &batch.mixed) {
            (Some(_), Some(_)) => return Err(Error::mismatch("recipe: mix_up", "samples that were not mixed before", "mixed ones")),
            (Some(alpha), None) => batch::mix_up(&xs, &batch.labels, alpha, seed).map(|(xs, mixed)| (xs, Some(mixed)))?,
            (None, mixed) => (xs, mixed.clone()),
        };
        let (classes, smoothing) = (graph.output_shape()[0], recipe.label_smoothing);
        let targets = match mixed {
            Some(mixed) => {
                let targets = mixed.targets(&batch.labels, classes, smoothing);
                Targets::Soft(Tensor::from_vec(targets, (batch.len(), classes), device)?)
            }
            None => Targets::Labels { labels: labels.clone(), smoothing },
        };
        let compute =
            |xs: &_, targets: &_, part: usize| gradients::compute(workspace, (graph, params), (xs, targets), seed.at(part as u64));
        let computed = micro::fitting(&xs, &targets, &mut state.micro_batch, compute)?;
        let share = recipe.nominal_batch.map_or(1.0, |nominal| batch.len() as f64 / nominal as f64);
        let square = computed.gradients.square()?;
        let hits = accuracy::hits_there(&computed.logits, &labels)?;
        self.watch.unread.note(&[&computed.loss, &hits, &square], batch.len())?;
        let found = if looks { self.look()? } else { None };
        if let Some((after @ 1.., _)) = found {
            self.go_back(self.state.done + 1 - after)?;
            return Ok(None);
        }
        let state = &mut self.state;
        if let Some((_, loss)) = found {
            let first = blame::first((graph, params), (&xs, &targets), state.micro_batch, (seed, recipe.precision.narrow()));
            return Err(Error::Diverged { loss, epoch: state.history.len(), step: state.step, first });
        }
        let gradients = match recipe.clip {
            Some(most) => computed.gradients.clipped(most, share, &square)?,
            None if share == 1.0 => computed.gradients,
            None => computed.gradients.scaled(share)?,
        };
        (state.step, state.done) = (state.step + 1, state.done + 1);
        state.memory.step(params, &gradients, lr, state.done)?;
        average::statistics(graph, params, &computed.statistics)?;
        if let (Some(average), Some(decay)) = (&state.average, recipe.average) {
            average::weights(average, params, decay, state.done)?;
        }
        Ok(Some(gradients))
    }

    fn end_epoch(&mut self, tested: Option<super::Score>) -> Epoch {
        let trained = self.state.tally.score();
        let row = Epoch {
            epoch: self.state.history.len() + 1,
            lr: self.rate(0),
            train_loss: trained.loss,
            train_accuracy: trained.accuracy,
            test_loss: tested.map(|score| score.loss),
            test_accuracy: tested.map(|score| score.accuracy),
        };
        self.state.history.push(row.clone());
        (self.state.step, self.state.tally) = (0, Tally::default());
        row
    }
}
