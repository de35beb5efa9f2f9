//! What an optimiser does to each parameter, and what it remembers between steps.

use candle::Var;

use super::{Decayed, Gradients, Optimizer, Recipe};
use crate::graph::{Parameter, Role};
use crate::kernels;
use crate::params::Params;
use crate::{Error, Result};

/// The rule of a run with its memory.
pub(super) struct Memory {
    rule: Optimizer,
    /// One per trained parameter.
    settings: Vec<Setting>,
    /// Velocity, or mean of gradients; one per trained parameter.
    first: Vec<Var>,
    /// Mean of squared gradients; one per trained parameter, none where the rule wants none.
    second: Vec<Var>,
}

/// What is different from parameter to parameter.
struct Setting {
    /// Factor of the learning rate.
    lr: f64,
    weight_decay: f64,
}

impl Memory {
    /// # Errors
    /// When a rate of the recipe is for parameters that are not there.
    pub(super) fn new(params: &Params, recipe: &Recipe) -> Result<Self> {
        let stranger = recipe.rates.keys().find(|prefix| !params.trainable().any(|(parameter, _)| covers(prefix, &parameter.name)));
        if let Some(stranger) = stranger {
            return Err(Error::mismatch("recipe: rates", "the beginning of a parameter's name", format!("`{stranger}`")));
        }
        let zeros = || -> candle::Result<Vec<Var>> {
            params.trainable().map(|(_, var)| Var::zeros(var.shape(), var.dtype(), var.device())).collect()
        };
        let second = if matches!(recipe.optimizer, Optimizer::AdamW { .. }) { zeros()? } else { Vec::new() };
        let settings = params.trainable().map(|(parameter, _)| setting(parameter, recipe)).collect();
        Ok(Self { rule: recipe.optimizer, settings, first: zeros()?, second })
    }

    /// Moves the parameters by step number `step`, counted from 1.
    pub(super) fn step(&self, params: &Params, gradients: &Gradients, lr: f64, step: usize) -> Result<()> {
        for (k, ((_, var), gradient)) in params.trainable().zip(gradients.iter()).enumerate() {
            let Setting { lr: factor, weight_decay } = self.settings[k];
            let (lr, first) = (lr * factor, &self.first[k]);
            match self.rule {
                Optimizer::Sgd { momentum, nesterov, .. } => {
                    kernels::sgd_step(var, gradient, first, &kernels::Sgd { lr, momentum, nesterov, weight_decay })?;
                }
                Optimizer::AdamW { betas: (beta1, beta2), eps, .. } => {
                    let rule = kernels::Adam { lr, beta1, beta2, eps, weight_decay, decay: kernels::Decay::Parameter };
                    kernels::adam_step(var, gradient, first, &self.second[k], step, &rule)?;
                }
            }
        }
        Ok(())
    }

    /// All that is remembered, each under a name: `first.fc.weight`.
    pub(super) fn entries<'a>(&'a self, params: &'a Params) -> impl Iterator<Item = (String, &'a Var)> {
        let named = move |stem: &'static str, vars: &'a [Var]| {
            params.trainable().zip(vars).map(move |((parameter, _), var)| (format!("{stem}.{}", parameter.name), var))
        };
        named("first", &self.first).chain(named("second", &self.second))
    }
}

fn setting(parameter: &Parameter, recipe: &Recipe) -> Setting {
    let (Optimizer::Sgd { weight_decay, .. } | Optimizer::AdamW { weight_decay, .. }) = recipe.optimizer;
    let decayed = recipe.decayed == Decayed::All || parameter.role == Role::Weight;
    let closest = recipe.rates.iter().filter(|(prefix, _)| covers(prefix, &parameter.name)).max_by_key(|(prefix, _)| prefix.len());
    Setting { lr: closest.map_or(1.0, |(_, &factor)| factor), weight_decay: if decayed { weight_decay } else { 0.0 } }
}

/// Whether `name` is `prefix` or goes on after a dot: `layer1` covers `layer1.0.conv1.weight`, not `layer10.fc.bias`.
fn covers(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
