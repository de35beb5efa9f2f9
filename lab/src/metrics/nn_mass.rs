//! NN-Mass: how well gradients flow through a network with DenseNet-type skips, before any training.
//!
//! Bhardwaj, Li & Marculescu, CVPR 2021, arXiv:1910.00780. A cell of `d` layers of `w` units: layer `i ≥ 2` may take
//! links from the `w·(i−1)` units at least two layers back. The density of a cell is links taken ÷ links possible; its
//! mass is `w·d` times that.

use std::collections::BTreeSet;

use crate::graph::{Graph, NodeId};
use crate::{Error, Result};

/// One cell by its sizes: `depth` layers of `width` units, each drawing up to `max_links` links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Units (or channels) of a layer.
    pub width: usize,
    /// Number of layers, the classifier of a multilayer perceptron included.
    pub depth: usize,
    /// Upper limit of the links drawn for one layer.
    pub max_links: usize,
}

impl Cell {
    /// Links taken ÷ links possible, in `0.0..=1.0`.
    ///
    /// # Errors
    /// When the cell has fewer than 3 layers: none could have a link.
    pub fn density(&self) -> Result<f64> {
        let candidates = |layer: usize| self.width * (layer - 1);
        let taken = (2..self.depth).map(|layer| candidates(layer).min(self.max_links)).sum();
        ratio("nn_mass: depth", self.depth, taken, (2..self.depth).map(candidates).sum())
    }

    /// `width · depth · density`, in `0.0..=width·depth`; about `2·max_links` while `max_links ≤ width`, whatever the
    /// width and depth.
    ///
    /// ```
    /// use lab::metrics::nn_mass::Cell;
    ///
    /// let mass = Cell { width: 8, depth: 8, max_links: 10 }.mass()?;
    /// assert_eq!(format!("{mass:.4}"), "22.0952");
    /// # Ok::<(), lab::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the cell has fewer than 3 layers.
    pub fn mass(&self) -> Result<f64> {
        Ok((self.width * self.depth) as f64 * self.density()?)
    }
}

/// The sum over cells of `width · depth · density`, at least 0, counted from the edges the graph really has: a link is a
/// channel of a layer at least two back that reaches a layer without being mixed on the way.
///
/// # Errors
/// When the graph declares no cell, a cell has fewer than 3 layers, or its hidden layers differ in width.
pub fn of(graph: &Graph) -> Result<f64> {
    if graph.cells.is_empty() {
        return Err(Error::mismatch(format!("{}: nn_mass", graph.name), "at least one cell", "none"));
    }
    graph.cells.iter().map(|layers| cell_mass(graph, layers)).sum()
}

fn cell_mass(graph: &Graph, layers: &[NodeId]) -> Result<f64> {
    let what = |layer: NodeId| format!("{}: nn_mass: {}", graph.name, graph.node(layer).name);
    let Some((&first, rest)) = layers.split_first() else {
        return Err(Error::mismatch(format!("{}: nn_mass", graph.name), "a cell with layers", "none"));
    };
    let width = graph.node(first).shape[0];
    // The last layer may be a classifier; nothing links from it.
    let hidden = &rest[..rest.len().saturating_sub(1)];
    if let Some(&odd) = hidden.iter().find(|&&layer| graph.node(layer).shape[0] != width) {
        return Err(Error::mismatch(what(odd), format!("width {width}"), graph.node(odd).shape[0]));
    }
    let mut taken = 0;
    for (i, &layer) in layers.iter().enumerate().skip(2) {
        let reachable: BTreeSet<NodeId> = layers[..i - 1].iter().copied().collect();
        let read = graph.node(layer).inputs.iter().flat_map(|&input| graph.origins(input));
        taken += read.filter(|(origin, _)| reachable.contains(origin)).collect::<BTreeSet<_>>().len();
    }
    let possible = (2..layers.len()).map(|i| width * (i - 1)).sum();
    Ok((width * layers.len()) as f64 * ratio(&what(first), layers.len(), taken, possible)?)
}

fn ratio(what: &str, depth: usize, taken: usize, possible: usize) -> Result<f64> {
    if possible == 0 {
        return Err(Error::mismatch(what, "at least 3 layers in a cell", depth));
    }
    Ok(taken as f64 / possible as f64)
}
