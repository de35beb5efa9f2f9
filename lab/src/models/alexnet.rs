//! The AlexNet for small pictures of the relative-weight-change study.
//!
//! After Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012: five
//! convolutions, three linear layers, no batch norm, a bias everywhere.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::graph::{Builder, Conv, Graph, Unit};
use crate::kernels::{Activation, Pool};

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels, rows and columns of a picture; at least 16 rows and columns.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Probability of 0 before each hidden linear layer.
    #[serde(default = "half")]
    pub dropout: f64,
}

fn half() -> f64 {
    0.5
}

impl Config {
    /// For pictures of 3×32×32.
    pub fn cifar(classes: usize) -> Self {
        Self { input: [3, 32, 32], classes, dropout: half() }
    }

    /// The network.
    ///
    /// # Errors
    /// When a size is 0, or the picture too small.
    pub fn graph(&self) -> Result<Graph> {
        let mut g = Builder::new("alexnet", &self.input);
        let mut ys = g.input();
        // Place in the list of layers, convolution, and whether the map is halved after it.
        let layers = [
            (0, Conv::k3(64).stride(2), true),
            (3, Conv::k3(192), true),
            (6, Conv::k3(384), false),
            (8, Conv::k3(256), false),
            (10, Conv::k3(256), true),
        ];
        for (at, conv, halved) in layers {
            ys = g.conv(format!("features.{at}"), ys, conv.bias());
            ys = g.activate(ys, Activation::Relu);
            ys = if halved { g.max_pool(ys, Pool::square(2, 2)) } else { ys };
        }
        ys = g.flatten(ys);
        for (at, width) in [(1, 4096), (4, 1024)] {
            ys = g.dropout(ys, self.dropout, Unit::Number);
            ys = g.linear(format!("classifier.{at}"), ys, width);
            ys = g.activate(ys, Activation::Relu);
        }
        let ys = g.linear("classifier.6", ys, self.classes);
        g.finish(ys)
    }
}
