//! One file a family: a serde config to a [`Graph`]. Says nothing about training, counting or explaining.

pub mod alexnet;
pub mod dense_cnn;
pub mod dense_mlp;
mod mersenne;
pub mod mobilenet_v2;
mod named;
pub mod resnet;
pub mod vgg;

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::graph::Graph;

pub use named::{NAMES, named};

/// An architecture as data: what is written in a plan, a result row, or a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
pub enum Spec {
    /// Convolutions with random skip links (NN-Mass).
    DenseCnn(dense_cnn::Config),
    /// A multilayer perceptron with random skip links (NN-Mass).
    DenseMlp(dense_mlp::Config),
    /// An AlexNet for small pictures.
    Alexnet(alexnet::Config),
    /// Inverted residuals.
    MobilenetV2(mobilenet_v2::Config),
    /// A residual network.
    Resnet(resnet::Config),
    /// A plain stack of convolutions.
    Vgg(vgg::Config),
}

impl Spec {
    /// The graph; what is random in it is drawn from `seed`.
    ///
    /// # Errors
    /// When the config does not add up; the message names the field.
    pub fn graph(&self, seed: Seed) -> Result<Graph> {
        match self {
            Self::DenseCnn(config) => config.graph(seed),
            Self::DenseMlp(config) => config.graph(seed),
            Self::Alexnet(config) => config.graph(),
            Self::MobilenetV2(config) => config.graph(),
            Self::Resnet(config) => config.graph(),
            Self::Vgg(config) => config.graph(),
        }
    }
}
