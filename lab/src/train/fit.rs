//! The training loop.

use candle::{Device, Tensor, Var};
use datasets::{Batch, Batches, Seed, Values};
use serde::{Deserialize, Serialize};

use super::{Optimizer, Recipe};
use crate::exec::{Statistics, Workspace};
use crate::graph::{Graph, Op};
use crate::kernels;
use crate::metrics::accuracy;
use crate::model::Model;
use crate::params::Params;
use crate::{Error, Result};

/// How well a network does on some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean cross-entropy per sample, in nats.
    pub loss: f64,
    /// Fraction of samples classified right, in `0.0..=1.0`.
    pub accuracy: f64,
}

/// One epoch of a run: a row of its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1: after how many passes.
    pub epoch: usize,
    /// Learning rate of its first step.
    pub lr: f64,
    /// Mean over the epoch's steps, in training mode, while the weights move.
    pub train_loss: f64,
    /// As `train_loss`.
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
        /// Mean training loss of the epoch so far, in nats.
        loss: f64,
    },
    /// An epoch is done and its network tested.
    Epoch(&'a Epoch),
}

/// Trains `model` in place on `train`, testing on `test` after every epoch, and returns one row per epoch.
///
/// The same model, data and recipe give the same weights, bit for bit on the CPU, on any number of threads.
///
/// # Errors
/// When the recipe or the data do not fit the model, a batch cannot be read, or the loss is no longer a number. The model
/// is then as the last whole step left it.
pub fn fit(
    model: &Model,
    train: &dyn Batches,
    test: Option<&dyn Batches>,
    recipe: &Recipe,
    mut on_event: impl FnMut(Event<'_>),
) -> Result<Vec<Epoch>> {
    model.check_copy()?;
    recipe.check()?;
    for data in [Some(train), test].into_iter().flatten() {
        check_fit(&model.graph, data)?;
    }
    let mut optimizer = State::new(&model.params, recipe.optimizer)?;
    let mut workspace = Workspace::new(&model.graph);
    let (steps, mut done) = (train.batches(), 0);
    let mut history = Vec::with_capacity(recipe.epochs);
    for epoch in 0..recipe.epochs {
        let rate = |step| recipe.schedule.rate(recipe.lr, (epoch, recipe.epochs), (step, steps));
        let mut tally = Tally::default();
        for (step, batch) in train.epoch(epoch as u64, 0).enumerate() {
            let batch = batch.map_err(Error::Batch)?;
            let (xs, labels) = to_tensors(&batch, model.graph.input_shape(), &model.device)?;
            let computed = workspace.step((&model.graph, &model.params), &xs, Seed(epoch as u64).at(step as u64), |logits| {
                Ok(kernels::cross_entropy(logits, &labels, recipe.label_smoothing)?)
            })?;
            tally.add(&computed.logits, &computed.loss, &batch.labels)?;
            if !tally.loss.is_finite() {
                return Err(Error::Diverged { loss: tally.loss, epoch, step });
            }
            optimizer.step(&model.params, &computed.gradients, rate(step))?;
            learn_statistics(&model.graph, &model.params, &computed.statistics)?;
            workspace.give_back(computed.gradients)?;
            done += 1;
            on_event(Event::Step { done, of: recipe.epochs * steps, samples: batch.len(), loss: tally.score().loss });
        }
        let trained = tally.score();
        let tested = test.map(|data| evaluate(model, data)).transpose()?;
        let row = Epoch {
            epoch: epoch + 1,
            lr: rate(0),
            train_loss: trained.loss,
            train_accuracy: trained.accuracy,
            test_loss: tested.map(|score| score.loss),
            test_accuracy: tested.map(|score| score.accuracy),
        };
        on_event(Event::Epoch(&row));
        history.push(row);
    }
    Ok(history)
}

/// Loss and accuracy of `model` over the first epoch of `data`, with running statistics.
///
/// # Errors
/// When the data do not fit the model, or a batch cannot be read.
pub fn evaluate(model: &Model, data: &dyn Batches) -> Result<Score> {
    check_fit(&model.graph, data)?;
    let mut workspace = Workspace::new(&model.graph);
    let mut tally = Tally::default();
    for batch in data.epoch(0, 0) {
        let batch = batch.map_err(Error::Batch)?;
        let (xs, labels) = to_tensors(&batch, model.graph.input_shape(), &model.device)?;
        let logits = workspace.infer(&model.graph, &model.params, &xs)?;
        let loss = kernels::cross_entropy(&logits, &labels, 0.0)?;
        tally.add(&logits, &loss, &batch.labels)?;
    }
    Ok(tally.score())
}

/// A batch on a device: inputs `(n, ..shape)` as `f32`, normalised there, and labels `(n)` as `u32`. Pictures become
/// vectors where `shape` has one dimension.
///
/// # Errors
/// When a sample does not have as many values as `shape`.
pub fn to_tensors(batch: &Batch, shape: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
    let xs = match &batch.values {
        Values::F32(values) => Tensor::from_slice(values, batch.shape.as_slice(), device)?,
        Values::U8(values) => {
            let pixels = Tensor::from_slice(values, batch.shape.as_slice(), device)?;
            let channels = batch.shape.get(1).copied().unwrap_or(1);
            match &batch.normalize {
                Some(constants) => kernels::normalize_u8(&pixels, &constants.mean, &constants.std)?,
                None => kernels::normalize_u8(&pixels, &vec![0.0; channels], &vec![1.0; channels])?,
            }
        }
    };
    let wanted: Vec<usize> = [batch.len()].into_iter().chain(shape.iter().copied()).collect();
    let xs = match shape {
        _ if xs.dims() == wanted => xs,
        [d] if xs.elem_count() == batch.len() * d => xs.reshape(wanted)?,
        _ => return Err(Error::mismatch("batch", format!("{wanted:?}"), format!("{:?}", batch.shape))),
    };
    Ok((xs, Tensor::from_slice(&batch.labels, batch.len(), device)?))
}

/// What would otherwise fail in the middle of an epoch.
fn check_fit(graph: &Graph, data: &dyn Batches) -> Result<()> {
    let (wanted, found) = (graph.input_shape(), data.sample_shape());
    let flat = wanted.len() == 1 && wanted[0] == found.iter().product::<usize>();
    if !flat && wanted != found {
        return Err(Error::mismatch(format!("{}: samples", graph.name), format!("{wanted:?}"), format!("{found:?}")));
    }
    if graph.output_shape() != [data.classes()] {
        let wanted = format!("{} classes", data.classes());
        return Err(Error::mismatch(format!("{}: output", graph.name), wanted, format!("{:?}", graph.output_shape())));
    }
    if data.samples() == 0 {
        return Err(Error::mismatch(format!("{}: samples", graph.name), "at least one", 0));
    }
    Ok(())
}

/// Sums over the samples seen.
#[derive(Default)]
struct Tally {
    loss: f64,
    hits: usize,
    samples: usize,
}

impl Tally {
    fn add(&mut self, logits: &Tensor, loss: &Tensor, labels: &[u32]) -> Result<()> {
        self.loss += f64::from(loss.to_scalar::<f32>()?) * labels.len() as f64;
        self.hits += accuracy::hits(logits, labels, 1)?;
        self.samples += labels.len();
        Ok(())
    }

    fn score(&self) -> Score {
        let n = self.samples.max(1) as f64;
        Score { loss: self.loss / n, accuracy: self.hits as f64 / n }
    }
}

/// What an optimiser remembers between steps, per trained parameter.
struct State {
    rule: Optimizer,
    memory: Vec<(Var, Option<Var>)>,
    steps: usize,
}

impl State {
    fn new(params: &Params, rule: Optimizer) -> Result<Self> {
        let zeros = |var: &Var| Var::zeros(var.shape(), var.dtype(), var.device());
        let second = matches!(rule, Optimizer::AdamW { .. });
        let memory = |(_, var)| Ok((zeros(var)?, second.then(|| zeros(var)).transpose()?));
        Ok(Self { rule, memory: params.trainable().map(memory).collect::<Result<_>>()?, steps: 0 })
    }

    fn step(&mut self, params: &Params, gradients: &[Tensor], lr: f64) -> Result<()> {
        self.steps += 1;
        for (((_, var), gradient), (first, second)) in params.trainable().zip(gradients).zip(&self.memory) {
            match (self.rule, second) {
                (Optimizer::Sgd { momentum, nesterov, weight_decay }, _) => {
                    let rule = kernels::Sgd { lr, momentum, nesterov, weight_decay };
                    kernels::sgd_step(var, gradient, first, &rule)?;
                }
                (Optimizer::AdamW { betas, eps, weight_decay }, Some(second)) => {
                    let (beta1, beta2) = betas;
                    let rule = kernels::Adam { lr, beta1, beta2, eps, weight_decay, decay: kernels::Decay::Parameter };
                    kernels::adam_step(var, gradient, first, second, self.steps, &rule)?;
                }
                (Optimizer::AdamW { .. }, None) => unreachable!("AdamW has a second memory"),
            }
        }
        Ok(())
    }
}

/// Folds a batch's statistics into the running ones.
fn learn_statistics(graph: &Graph, params: &Params, statistics: &[Statistics]) -> Result<()> {
    for Statistics { node, mean, var } in statistics {
        let Op::BatchNorm { momentum, .. } = graph.node(*node).op else { continue };
        // Last of the node's parameters, after scale and shift, if it has these.
        let [.., (_, running_mean), (_, running_var)] = params.of(*node) else { continue };
        for (running, new) in [(running_mean, mean), (running_var, var)] {
            let mixed = ((running.as_tensor() * (1.0 - momentum))? + (new.detach() * momentum)?)?;
            running.set(&mixed)?;
        }
    }
    Ok(())
}
