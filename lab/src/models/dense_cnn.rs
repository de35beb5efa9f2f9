//! The convolutional networks with DenseNet-type random skip links of the NN-Mass study.
//!
//! Bhardwaj, Li & Marculescu, "How does topology influence gradient propagation and model performance of deep networks
//! with DenseNet-type skip connections?", CVPR 2021, arXiv:1910.00780, the networks for CIFAR-10 and CIFAR-100.
//!
//! Cells of equally many layers follow one another, each with twice the channels and half the pixels of the one before. From its third
//! layer on, a layer reads its predecessor and up to `max_links` single channels drawn from all layers of its cell before that. Layers 0
//! and 1 are convolution and batch norm, the others batch norm, ReLU and convolution. The last cell's value, as it comes out of the
//! convolution, goes through 2×2 means to the classifier. Names are those of the published program.

use datasets::Seed;
use serde::{Deserialize, Serialize};

use super::mersenne::Python;
use crate::graph::{Builder, Conv, Graph, Op, Value};
use crate::kernels::{Activation, Pool};
use crate::{Error, Result};

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels, rows and columns of a picture.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// What a layer is.
    pub layer: Layer,
    /// Channels of a layer in the first cell: 16 times `wm` in the original.
    pub width: usize,
    /// Layers of each cell; at least 3, since none before the third can have links.
    pub depth: usize,
    /// For each cell, upper limit of the links drawn for one layer (`tc1`, `tc2`, … in the original).
    pub max_links: Vec<usize>,
    /// Where to do as the published program does.
    #[serde(default, skip_serializing_if = "Compat::is_none")]
    pub compat: Compat,
}

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// A 3×3 convolution.
    Regular,
    /// Convolutions 1×1, 3×3 of each channel alone, and 1×1, each with batch norm, ReLU between them; the network's first layer is regular.
    Depthwise,
}

/// Mistakes of the published program that its numbers depend on; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compat {
    /// Links are drawn among the channels at least two layers back, but looked up from the direct predecessor on. So they repeat channels
    /// that a layer reads anyway (those of layer 2 no others), and never reach the first layer of a cell.
    pub links_from_predecessor: bool,
    /// The links are those that Python draws after `random.seed(2)`, as every construction of a network begins: one wiring for all seeds.
    pub fixed_wiring: bool,
    /// A layer without links reads its predecessor past its batch norm, whose value the program throws away. The norm is left out here,
    /// and with it two parameters a channel that nothing ever trains.
    pub norm_needs_links: bool,
    /// Batch norm stays in evaluation mode while the network trains, and so scales and shifts by its running statistics, which remain 0
    /// and 1. The program switches its layers over when it makes them, and never back.
    pub frozen_norm: bool,
}

impl Compat {
    /// All of them: the published program.
    pub fn published() -> Self {
        Self { links_from_predecessor: true, fixed_wiring: true, norm_needs_links: true, frozen_norm: true }
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// For pictures of 3×32×32; as many cells as `max_links` has numbers.
    pub fn cifar(layer: Layer, width: usize, depth: usize, max_links: &[usize], classes: usize) -> Self {
        Self { input: [3, 32, 32], classes, layer, width, depth, max_links: max_links.to_vec(), compat: Compat::default() }
    }

    /// The published program's default: three cells of 13 layers, 32, 64 and 128 channels.
    pub fn default_cifar(layer: Layer, classes: usize) -> Self {
        Self::cifar(layer, 32, 13, &[40, 80, 125], classes)
    }

    /// Channels of a layer of that cell.
    pub fn channels(&self, cell: usize) -> usize {
        self.width << cell
    }

    /// Channels of its cell that layer `layer` may draw links from: those of layers `0..=layer−2`.
    pub fn candidates(&self, cell: usize, layer: usize) -> usize {
        self.channels(cell) * layer.saturating_sub(1)
    }

    /// The links of every layer of every cell, drawn from `seed`: for layer `i`, distinct indices into the channels of layers
    /// `i−2, i−3, …, 0` of its cell, newest first.
    pub fn wiring(&self, seed: Seed) -> Vec<Vec<Vec<usize>>> {
        let mut python = Python::seeded(2);
        let mut draw = |cell: usize, layer: usize| {
            let candidates = self.candidates(cell, layer);
            let count = self.max_links[cell].min(candidates);
            match self.compat.fixed_wiring {
                true => python.sample(candidates, count),
                false => seed.named("links").at(cell as u64).at(layer as u64).rng().choose(candidates, count),
            }
        };
        (0..self.max_links.len()).map(|cell| (0..self.depth).map(|layer| draw(cell, layer)).collect()).collect()
    }

    /// The network with links drawn from `seed`.
    ///
    /// # Errors
    /// When a size is 0, there is no cell, the depth is below 3, or the picture too small to be halved in each cell and for the classifier.
    pub fn graph(&self, seed: Seed) -> Result<Graph> {
        self.check()?;
        self.graph_with(&self.wiring(seed))
    }

    /// The network with these links, as [`Config::wiring`] gives them.
    ///
    /// # Errors
    /// As [`Config::graph`], and when a link is not among its layer's candidates.
    pub fn graph_with(&self, wiring: &[Vec<Vec<usize>>]) -> Result<Graph> {
        self.check()?;
        let (wanted, found) = (vec![self.depth; self.max_links.len()], wiring.iter().map(Vec::len).collect::<Vec<_>>());
        if wanted != found {
            return Err(Error::mismatch("dense_cnn: wiring", format!("cells of {wanted:?} layers"), format!("{found:?}")));
        }
        let mut g = Builder::new("dense_cnn", &self.input);
        let mut xs = g.input();
        for (cell, links) in wiring.iter().enumerate() {
            xs = self.cell(&mut g, xs, cell, links);
        }
        let ys = g.avg_pool(xs, Pool::square(2, 2));
        let ys = g.flatten(ys);
        let ys = g.linear("fc_layer", ys, self.classes);
        g.finish(ys)
    }

    /// `[c, h, w]` to `[width, h, w]` in the first cell, to `[width, h / 2, w / 2]` in the others.
    fn cell(&self, g: &mut Builder, xs: Value, cell: usize, wiring: &[Vec<usize>]) -> Value {
        let width = self.channels(cell);
        let at = |layer: usize| cell * self.depth + layer;
        let first = self.layer(g, at(0), xs, Conv::k3(width).stride(if cell == 0 { 1 } else { 2 }));
        let mut outputs = vec![self.norm(g, at(0), first)];
        let ys = g.activate(outputs[0], Activation::Relu);
        let second = self.layer(g, at(1), ys, Conv::k3(width));
        outputs.push(self.norm(g, at(1), second));
        let mut layers = vec![first, second];
        for (i, links) in wiring.iter().enumerate().skip(2) {
            let before = outputs[i - 1];
            let read = if links.is_empty() {
                before
            } else {
                let reached = if self.compat.links_from_predecessor { i } else { i - 1 };
                let candidates: Vec<Value> = outputs[..reached].iter().rev().copied().collect();
                let links = g.pick(format!("links.{}", at(i)), &candidates, links.clone());
                g.concat(&[before, links])
            };
            let read = if links.is_empty() && self.compat.norm_needs_links { read } else { self.norm(g, at(i), read) };
            let read = g.activate(read, Activation::Relu);
            let layer = self.layer(g, at(i), read, Conv::k3(width));
            layers.push(layer);
            outputs.push(layer);
        }
        g.cell(&layers);
        outputs[self.depth - 1]
    }

    /// Layer `at` of the network: `[c, h, w]` to what `conv` would make of it.
    fn layer(&self, g: &mut Builder, at: usize, xs: Value, conv: Conv) -> Value {
        let name = format!("layer_list.{at}");
        if at == 0 || self.layer == Layer::Regular {
            return g.conv(name, xs, conv);
        }
        g.scope(name, |g| {
            let convs = [Conv::k1(conv.channels), conv.groups(conv.channels), Conv::k1(conv.channels)];
            let mut ys = xs;
            for (k, conv) in convs.into_iter().enumerate() {
                ys = if k > 0 { g.activate(ys, Activation::Relu) } else { ys };
                ys = g.conv(format!("conv{k}"), ys, conv);
                ys = self.batch_norm(g, format!("batch{k}"), ys);
            }
            ys
        })
    }

    fn norm(&self, g: &mut Builder, at: usize, xs: Value) -> Value {
        self.batch_norm(g, format!("norm_list.{at}"), xs)
    }

    fn batch_norm(&self, g: &mut Builder, name: String, xs: Value) -> Value {
        g.node(name, Op::BatchNorm { eps: 1e-5, momentum: 0.1, affine: true, frozen: self.compat.frozen_norm }, &[xs])
    }

    fn check(&self) -> Result<()> {
        let cells = self.max_links.len();
        let sizes = [("classes", self.classes, 2), ("width", self.width, 1), ("depth", self.depth, 3), ("max_links: cells", cells, 1)];
        if let Some((field, found, least)) = sizes.into_iter().find(|(_, found, least)| found < least) {
            return Err(Error::mismatch(format!("dense_cnn: {field}"), format!("at least {least}"), found));
        }
        // Strides round up; 2×2 means need two pixels.
        let least = (1_usize << (cells - 1).min(32)) + 1;
        let [_, rows, columns] = self.input;
        if rows.min(columns) < least {
            let wanted = format!("at least {least}×{least} pixels for {cells} cells");
            return Err(Error::mismatch("dense_cnn: input", wanted, format!("{rows}×{columns}")));
        }
        Ok(())
    }
}
