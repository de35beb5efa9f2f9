//! How a network is trained, as data.

use std::collections::BTreeMap;

use candle::{DType, Device};
use serde::{Deserialize, Serialize};

use super::{Epoch, Schedule};
use crate::{Error, Result};

/// Everything that decides a training run besides architecture, weights and data.
///
/// ```
/// use lab::Recipe;
/// use lab::train::Decayed;
///
/// let recipe = Recipe { warm_up: 5.0, decayed: Decayed::Weights, clip: Some(1.0), ..Recipe::sgd(0.1, 90) };
/// assert_eq!(recipe.rate(4, (99, 100)), 0.1);
/// ```
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
    // What follows came later, and is left out where it is not used: a run is known by the text of its recipe.
    /// Over so many epochs, or parts of one, the rate first grows, by the same amount at each step, to the peak.
    #[serde(default, skip_serializing_if = "is_default")]
    pub warm_up: f64,
    /// Trains on mixtures of two samples; the parameter of their Beta distribution, above 0 and at most 1, usually 0.2.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mix_up: Option<f64>,
    /// Which parameters decay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decayed: Decayed,
    /// Factor of the learning rate for the parameters below a dotted name: `{"fc": 10.0}`. Of several the longest name counts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rates: BTreeMap<String, f64>,
    /// A longer gradient, over all parameters together, is shortened to this length.
    #[serde(default, skip_serializing_if = "is_default")]
    pub clip: Option<f64>,
    /// Samples computed at once: the gradient is that of the whole batch, but batch norm sees this many.
    #[serde(default, skip_serializing_if = "is_default")]
    pub micro_batch: Option<usize>,
    /// Divides the summed loss of a batch by this instead of by its samples, so that a smaller last batch makes a smaller step: as
    /// the program behind the layer-wise study of feature amounts does it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nominal_batch: Option<usize>,
    /// Tests, and in the end returns, a running average of the weights; its decay a step, in `0.0..1.0`, usually 0.999 or more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub average: Option<f64>,
    /// When to stop before the last epoch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: Stop,
    /// What numbers are computed in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Of what is random in a step; the order of samples is the data's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seed: u64,
}

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
        /// λ, on the parameters that [`Recipe::decayed`] says.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019); without decay it is Adam (Kingma & Ba 2015).
    AdamW {
        /// Decay of the mean and of the squared mean.
        betas: (f64, f64),
        /// Added to the denominator.
        eps: f64,
        /// λ, on the parameters that [`Recipe::decayed`] says.
        weight_decay: f64,
    },
}

/// Which parameters weight decay is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decayed {
    /// Every trained one.
    #[default]
    All,
    /// Kernels and matrices; not biases, nor scales and shifts of normalisation.
    Weights,
}

/// What numbers are computed in. Parameters, what the optimiser remembers and running statistics are `f32` in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// `f32` throughout.
    #[default]
    Full,
    /// Convolutions and other sums of products in `bf16`, and so what lies between them; statistics, softmax, norms of single samples and
    /// the loss in `f32`, as PyTorch's autocast has it. For CUDA cards, with cuDNN. See [`forward_mixed`](crate::exec::forward_mixed).
    Mixed,
}

impl Precision {
    /// The narrow one of two types.
    pub(super) fn narrow(self) -> Option<DType> {
        (self == Self::Mixed).then_some(DType::BF16)
    }
}

/// When a run stops before its last epoch; wants test samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// As soon as the test accuracy is at least this.
    #[serde(skip_serializing_if = "is_default")]
    pub accuracy: Option<f64>,
    /// After so many epochs in a row whose test accuracy is not above the best one before them.
    #[serde(skip_serializing_if = "is_default")]
    pub patience: Option<usize>,
}

impl Recipe {
    /// SGD with momentum 0.9 and a cosine schedule; weight decay 5e-4: the usual recipe for small pictures.
    ///
    /// A rate of 0.1 wants a [`warm_up`](Self::warm_up), or [`clip`](Self::clip): without, the quickstart's small net is thrown off by
    /// its first steps and stays near chance for ten epochs; with either it is at 95 %.
    pub fn sgd(lr: f64, epochs: usize) -> Self {
        let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
        Self { schedule: Schedule::Cosine { floor: 0.0 }, ..Self::plain(optimizer, lr, epochs) }
    }

    /// Adam with a constant learning rate and no decay: the recipe of the NN-Mass perceptrons (there `lr` is 1e-3).
    pub fn adam(lr: f64, epochs: usize) -> Self {
        Self::plain(Optimizer::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 }, lr, epochs)
    }

    fn plain(optimizer: Optimizer, lr: f64, epochs: usize) -> Self {
        Self {
            epochs,
            optimizer,
            lr,
            schedule: Schedule::Constant,
            label_smoothing: 0.0,
            warm_up: 0.0,
            mix_up: None,
            decayed: Decayed::All,
            rates: BTreeMap::new(),
            clip: None,
            micro_batch: None,
            nominal_batch: None,
            average: None,
            stop: Stop::default(),
            precision: Precision::Full,
            seed: 0,
        }
    }

    /// The learning rate of step `step` of epoch `epoch`, both counted from 0, of `steps` an epoch.
    ///
    /// ```
    /// use lab::{Recipe, Schedule};
    ///
    /// let schedule = Schedule::WarmRestarts { first: 10, growth: 2, floor: 1e-5, late: None };
    /// let sgdr = Recipe { schedule, ..Recipe::sgd(0.01, 150) };
    /// assert_eq!(sgdr.rate(0, (0, 391)), 0.01);
    /// assert!(sgdr.rate(9, (390, 391)) < 1.01e-5);
    /// assert_eq!(sgdr.rate(10, (0, 391)), 0.01);
    /// ```
    pub fn rate(&self, epoch: usize, (step, steps): (usize, usize)) -> f64 {
        let (done, warm) = ((epoch * steps.max(1) + step) as f64, self.warm_up * steps.max(1) as f64);
        if done < warm {
            // The last step of the warm-up is at the peak.
            return self.lr * ((done + 1.0) / warm).min(1.0);
        }
        self.schedule.rate((self.lr, self.warm_up), (epoch, self.epochs), (step, steps))
    }

    /// # Errors
    /// When a number is out of its range; the message names the field.
    pub(super) fn check(&self, device: &Device) -> Result<()> {
        let wrong = |field: &str, wanted: &str, found: f64| Err(Error::mismatch(format!("recipe: {field}"), wanted, found));
        let at_least_0 = |number: f64| number.is_finite() && number >= 0.0;
        let (rates, decay) = match self.optimizer {
            Optimizer::Sgd { momentum, weight_decay, .. } => ([momentum, 0.0], weight_decay),
            Optimizer::AdamW { betas, weight_decay, .. } => ([betas.0, betas.1], weight_decay),
        };
        if self.epochs == 0 {
            return wrong("epochs", "at least 1", 0.0);
        }
        let counts = [("micro_batch", self.micro_batch), ("nominal_batch", self.nominal_batch), ("stop: patience", self.stop.patience)];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return wrong(field, "at least 1", 0.0);
        }
        if let Some((name, &factor)) = self.rates.iter().find(|(_, factor)| !at_least_0(**factor)) {
            return wrong(&format!("rates: {name}"), "at least 0", factor);
        }
        for (field, found) in [("lr", self.lr), ("warm_up", self.warm_up), ("optimizer: weight_decay", decay)] {
            if !at_least_0(found) {
                return wrong(field, "at least 0", found);
            }
        }
        let (momentum, average) = ("optimizer: momentum or betas", self.average.unwrap_or_default());
        for (field, found) in [("label_smoothing", self.label_smoothing), (momentum, rates[0]), (momentum, rates[1]), ("average", average)]
        {
            if !(0.0..1.0).contains(&found) {
                return wrong(field, "0.0..1.0", found);
            }
        }
        if let Some(accuracy) = self.stop.accuracy
            && !(0.0..=1.0).contains(&accuracy)
        {
            return wrong("stop: accuracy", "0.0..=1.0", accuracy);
        }
        let positive = [("mix_up", self.mix_up, 1.0, "more than 0, at most 1"), ("clip", self.clip, f64::MAX, "more than 0")];
        for (field, found, most, wanted) in positive {
            if let Some(found) = found
                && !(found > 0.0 && found <= most)
            {
                return wrong(field, wanted, found);
            }
        }
        if matches!(self.schedule, Schedule::WarmRestarts { late: Some(_), .. }) && self.warm_up > 0.0 {
            return wrong("warm_up", "0 before late restarts", self.warm_up);
        }
        if self.precision == Precision::Mixed && !(device.is_cuda() && cfg!(feature = "cudnn")) {
            let found = if device.is_cuda() { "mixed, and no cuDNN" } else { "mixed, and no card" };
            return Err(Error::mismatch("recipe: precision", "full, or a CUDA card and a build with cuDNN", found));
        }
        self.schedule.check()
    }
}

impl Stop {
    /// Whether a run with this history is to go no further.
    pub(super) fn is_due(&self, history: &[Epoch]) -> bool {
        let accuracies: Vec<f64> = history.iter().filter_map(|epoch| epoch.test_accuracy).collect();
        let Some(&last) = accuracies.last() else { return false };
        let best = accuracies.iter().enumerate().fold(0, |best, (at, &accuracy)| if accuracy > accuracies[best] { at } else { best });
        self.accuracy.is_some_and(|wanted| last >= wanted) || self.patience.is_some_and(|epochs| accuracies.len() - 1 - best >= epochs)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
