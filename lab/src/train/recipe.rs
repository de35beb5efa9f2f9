//! How a network is trained, as data.

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::{Error, Result};

/// The rule that turns a gradient into a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Optimizer {
    /// `v ← μ·v + g + λ·w`, `w ← w − lr·v`; with Nesterov `w ← w − lr·(g + λ·w + μ·v)`. As PyTorch has it.
    Sgd {
        /// μ.
        momentum: f64,
        /// Look ahead along the momentum.
        nesterov: bool,
        /// λ, on every trained parameter.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019); without decay it is Adam (Kingma & Ba 2015).
    AdamW {
        /// Decay of the mean and of the squared mean.
        betas: (f64, f64),
        /// Added to the denominator.
        eps: f64,
        /// λ, on every trained parameter.
        weight_decay: f64,
    },
}

/// Everything that decides a training run besides architecture, data and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training data.
    pub epochs: usize,
    /// The rule of a step.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub lr: f64,
    /// How the learning rate goes on from there.
    #[serde(default)]
    pub schedule: Schedule,
    /// Share of the target given to all classes alike, in `0.0..1.0`.
    #[serde(default)]
    pub label_smoothing: f64,
}

impl Recipe {
    /// SGD with momentum 0.9 and a cosine schedule; weight decay 5e-4: the usual recipe for small pictures.
    pub fn sgd(lr: f64, epochs: usize) -> Self {
        let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
        Self { epochs, optimizer, lr, schedule: Schedule::Cosine, label_smoothing: 0.0 }
    }

    /// Adam with a constant learning rate and no decay: the recipe of the NN-Mass perceptrons (there `lr` is 1e-3).
    pub fn adam(lr: f64, epochs: usize) -> Self {
        let optimizer = Optimizer::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
        Self { epochs, optimizer, lr, schedule: Schedule::Constant, label_smoothing: 0.0 }
    }

    /// # Errors
    /// When a number is out of its range; the message names the field.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |field: &str, wanted: &str, found: f64| Err(Error::mismatch(format!("recipe: {field}"), wanted, found));
        if self.epochs == 0 {
            return wrong("epochs", "at least 1", 0.0);
        }
        if !(self.lr.is_finite() && self.lr >= 0.0) {
            return wrong("lr", "at least 0", self.lr);
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return wrong("label_smoothing", "0.0..1.0", self.label_smoothing);
        }
        let (rates, decay) = match self.optimizer {
            Optimizer::Sgd { momentum, weight_decay, .. } => ([momentum, 0.0], weight_decay),
            Optimizer::AdamW { betas, weight_decay, .. } => ([betas.0, betas.1], weight_decay),
        };
        if let Some(rate) = rates.into_iter().find(|rate| !(0.0..1.0).contains(rate)) {
            return wrong("optimizer: momentum or betas", "0.0..1.0", rate);
        }
        if decay.is_nan() || decay < 0.0 {
            return wrong("optimizer: weight_decay", "at least 0", decay);
        }
        self.schedule.check()
    }
}
