//! One file a family: a serde config to a [`Graph`]. Says nothing about training, counting or explaining.

pub mod dense_mlp;

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::graph::Graph;

/// An architecture as data: what is written in a plan, a result row, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum Spec {
    /// A multilayer perceptron with random skip links (NN-Mass).
    DenseMlp(dense_mlp::Config),
}

impl Spec {
    /// The graph; what is random in it is drawn from `seed`.
    ///
    /// # Errors
    /// When the config does not add up; the message names the field.
    pub fn graph(&self, seed: Seed) -> Result<Graph> {
        match self {
            Self::DenseMlp(config) => config.graph(seed),
        }
    }
}
