//! How well a network does.

use candle::{DType, Tensor};
use datasets::{Batch, Batches};
use serde::{Deserialize, Serialize};

use super::batch::to_tensors;
use super::micro;
use super::watch::{BETWEEN, Unread};
use crate::exec::Workspace;
use crate::graph::Graph;
use crate::kernels;
use crate::metrics::accuracy;
use crate::model::Model;
use crate::{Error, Result};

/// How well a network does on some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean cross-entropy per sample, in nats.
    pub loss: f64,
    /// Fraction of samples classified right, in `0.0..=1.0`.
    pub accuracy: f64,
}

/// Loss and accuracy of `model` over the first epoch of `data`, with running statistics. Of samples with several views, such as ten crops,
/// the logits of the views are averaged.
///
/// # Errors
/// When the data do not fit the model, are mixed, or a batch cannot be read.
pub fn evaluate(model: &Model, data: &dyn Batches) -> Result<Score> {
    evaluate_in(&Workspace::new(&model.graph, None), model, data, usize::MAX)
}

/// [`evaluate`], and the fraction of samples whose class is among the five likeliest, or among all where there are fewer.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_top5(model: &Model, data: &dyn Batches) -> Result<(Score, f64)> {
    let (mut tally, mut five) = (Tally::default(), 0);
    predict(model, data, |logits, labels| {
        let loss = kernels::cross_entropy(logits, &Tensor::new(labels, logits.device())?, 0.0)?.to_dtype(DType::F64)?.to_scalar()?;
        tally.add(&[loss, accuracy::hits(logits, labels, 1)? as f64], labels.len());
        five += accuracy::hits(logits, labels, logits.dim(1)?.min(5))?;
        Ok(())
    })?;
    Ok((tally.score(), five as f64 / tally.samples.max(1) as f64))
}

/// Gives `each` the logits `(n, classes)` of every batch of the first epoch of `data`, with its `n` labels. As [`evaluate`] has them: with
/// running statistics, and of several views their mean.
///
/// # Errors
/// As [`evaluate`], and those of `each`.
pub fn predict(model: &Model, data: &dyn Batches, mut each: impl FnMut(&Tensor, &[u32]) -> Result<()>) -> Result<()> {
    check_fit(&model.graph, data)?;
    let workspace = Workspace::new(&model.graph, None);
    for batch in unmixed(data) {
        let batch = batch?;
        let (xs, _) = to_tensors(&batch, model.graph.input_shape(), &model.device)?;
        each(&logits(&workspace, model, &xs, batch.views())?, &batch.labels)?;
    }
    Ok(())
}

/// The first epoch, of samples as they are.
fn unmixed(data: &dyn Batches) -> impl Iterator<Item = Result<Batch>> {
    data.epoch(0, 0).map(|batch| match batch.map_err(Error::Batch)? {
        batch if batch.mixed.is_some() => Err(Error::mismatch("samples to be tested with", "samples as they are", "mixed ones")),
        batch => Ok(batch),
    })
}

/// The logits of samples with so many views each, which are means over them.
fn logits(workspace: &Workspace, model: &Model, xs: &Tensor, views: usize) -> Result<Tensor> {
    let logits = workspace.infer(&model.graph, &model.params, xs)?;
    Ok(if views == 1 { logits } else { logits.reshape((logits.dim(0)? / views, views, ()))?.mean(1)? })
}

/// [`evaluate`], at most `size` samples at a time, in the memory of a `workspace` of the model's graph.
pub(super) fn evaluate_in(workspace: &Workspace, model: &Model, data: &dyn Batches, size: usize) -> Result<Score> {
    check_fit(&model.graph, data)?;
    let (mut tally, mut unread) = (Tally::default(), Unread::default());
    for batch in unmixed(data) {
        let batch = batch?;
        let (xs, labels) = to_tensors(&batch, model.graph.input_shape(), &model.device)?;
        let views = batch.views();
        for (from, len) in micro::parts(batch.len(), (size / views).clamp(1, batch.len())) {
            let logits = logits(workspace, model, &xs.narrow(0, from * views, len * views)?, views)?;
            let labels = labels.narrow(0, from, len)?;
            let loss = kernels::cross_entropy(&logits, &labels, 0.0)?;
            unread.note(&[&loss, &accuracy::hits_there(&logits, &labels)?], len)?;
        }
        if unread.len() >= BETWEEN {
            unread.read()?.iter().for_each(|(scalars, samples)| tally.add(scalars, *samples));
        }
    }
    unread.read()?.iter().for_each(|(scalars, samples)| tally.add(scalars, *samples));
    Ok(tally.score())
}

/// What would otherwise fail in the middle of an epoch.
pub(super) fn check_fit(graph: &Graph, data: &dyn Batches) -> Result<()> {
    let (wanted, found) = (graph.input_shape(), data.sample_shape());
    let view = if found.len() == 4 { &found[1..] } else { &found[..] };
    let flat = wanted.len() == 1 && wanted[0] == view.iter().product::<usize>();
    if !flat && wanted != view {
        return Err(Error::mismatch(format!("{}: samples", graph.name), format!("{wanted:?}"), format!("{found:?}")));
    }
    if graph.output_shape() != [data.classes()] {
        let wanted = format!("{} classes", data.classes());
        return Err(Error::mismatch(format!("{}: output", graph.name), wanted, format!("{:?}", graph.output_shape())));
    }
    if data.samples() == 0 || data.batches() == 0 {
        return Err(Error::mismatch(format!("{}: samples", graph.name), "at least one, in at least one batch", 0));
    }
    Ok(())
}

/// Sums over the samples seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Tally {
    /// Nats.
    pub(super) loss: f64,
    pub(super) hits: usize,
    pub(super) samples: usize,
}

impl Tally {
    /// A batch of so many samples: its mean loss, and how many of them are classified right.
    pub(super) fn add(&mut self, scalars: &[f64], samples: usize) {
        self.loss += scalars[0] * samples as f64;
        self.hits += scalars[1] as usize;
        self.samples += samples;
    }

    pub(super) fn score(&self) -> Score {
        let n = self.samples.max(1) as f64;
        Score { loss: self.loss / n, accuracy: self.hits as f64 / n }
    }
}
