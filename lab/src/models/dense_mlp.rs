//! The multilayer perceptron with DenseNet-type random skip links of the NN-Mass study.
//!
//! Bhardwaj, Li & Marculescu, "How does topology influence gradient propagation and model performance of deep networks
//! with DenseNet-type skip connections?", CVPR 2021, arXiv:1910.00780.
//!
//! Layer 0 is followed by the activation. From layer 2 on, a layer reads its predecessor and up to `max_links` single
//! units drawn from all layers before that; the activation is applied to what it reads. The last layer, the classifier,
//! draws links too, but reads them without activation, as published.

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::graph::{Builder, Graph, Init, Role, Value};
use crate::kernels::Activation;
use crate::{Error, Result};

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Numbers per sample: 784 for MNIST.
    pub inputs: usize,
    /// Number of classes.
    pub classes: usize,
    /// Units of each hidden layer.
    pub width: usize,
    /// Linear layers, the first and the classifier included; at least 3, since none before the third can have links.
    pub depth: usize,
    /// Upper limit of the links drawn for one layer (`tc` in the original).
    pub max_links: usize,
    /// Between the layers.
    #[serde(default = "elu")]
    pub activation: Activation,
    /// From what the weights are drawn: in the theory of the paper from the standard normal distribution.
    #[serde(default = "uniform", skip_serializing_if = "is_uniform")]
    pub init: Init,
}

fn elu() -> Activation {
    Activation::Elu
}

fn uniform() -> Init {
    Init::Uniform
}

fn is_uniform(init: &Init) -> bool {
    *init == Init::Uniform
}

impl Config {
    /// For pictures of MNIST's size, ten classes, ELU.
    pub fn mnist(width: usize, depth: usize, max_links: usize) -> Self {
        Self { inputs: 784, classes: 10, width, depth, max_links, activation: Activation::Elu, init: Init::Uniform }
    }

    /// For the linear and circular point sets, two classes, ELU.
    pub fn points(width: usize, depth: usize, max_links: usize) -> Self {
        Self { inputs: 2, classes: 2, ..Self::mnist(width, depth, max_links) }
    }

    /// Units that layer `i` may draw links from: those of layers `0..=i−2`.
    pub fn candidates(&self, layer: usize) -> usize {
        self.width * layer.saturating_sub(1)
    }

    /// The links of every layer, drawn from `seed`: for layer `i`, distinct indices into the units of layers
    /// `i−2, i−3, …, 0`, newest first.
    pub fn wiring(&self, seed: Seed) -> Vec<Vec<usize>> {
        let draw = |layer: usize| {
            let candidates = self.candidates(layer);
            seed.named("links").at(layer as u64).rng().choose(candidates, self.max_links.min(candidates))
        };
        (0..self.depth).map(draw).collect()
    }

    /// The network with links drawn from `seed`.
    ///
    /// # Errors
    /// When a size is 0, or the depth below 3.
    pub fn graph(&self, seed: Seed) -> Result<Graph> {
        self.check()?;
        self.graph_with(&self.wiring(seed))
    }

    /// The network with these links, as [`Config::wiring`] gives them.
    ///
    /// # Errors
    /// When a size is 0, the depth below 3, or a link not among its layer's candidates.
    pub fn graph_with(&self, wiring: &[Vec<usize>]) -> Result<Graph> {
        self.check()?;
        if wiring.len() != self.depth {
            return Err(Error::mismatch("dense_mlp: wiring", format!("{} layers", self.depth), wiring.len()));
        }
        let mut g = Builder::new("dense_mlp", &[self.inputs]);
        g.init(Role::Weight, self.init);
        let xs = g.input();
        let first = g.linear("layers.0", xs, self.width);
        let mut outputs: Vec<Value> = vec![g.activate(first, self.activation)];
        let mut layers = vec![first];
        for (i, links) in wiring.iter().enumerate().skip(1) {
            let last = i == self.depth - 1;
            let before = outputs[i - 1];
            let read = if links.is_empty() {
                before
            } else {
                let candidates: Vec<Value> = outputs[..i - 1].iter().rev().copied().collect();
                let links = g.pick(format!("links.{i}"), &candidates, links.clone());
                g.concat(&[before, links])
            };
            // Layer 1 reads what is activated already; the classifier reads without activation.
            let read = if last || i == 1 { read } else { g.activate(read, self.activation) };
            let layer = g.linear(format!("layers.{i}"), read, if last { self.classes } else { self.width });
            layers.push(layer);
            outputs.push(layer);
        }
        g.cell(&layers);
        g.finish(outputs[self.depth - 1])
    }

    fn check(&self) -> Result<()> {
        let sizes = [("inputs", self.inputs, 1), ("classes", self.classes, 2), ("width", self.width, 1), ("depth", self.depth, 3)];
        match sizes.into_iter().find(|(_, found, least)| found < least) {
            Some((field, found, least)) => Err(Error::mismatch(format!("dense_mlp: {field}"), format!("at least {least}"), found)),
            None => Ok(()),
        }
    }
}
