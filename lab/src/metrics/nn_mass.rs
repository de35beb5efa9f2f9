//! NN-Mass: how well gradients flow through a network with DenseNet-type skips, before any training.
//!
//! Bhardwaj, Li & Marculescu, CVPR 2021, arXiv:1910.00780. A cell of `d` layers of `w` units: layer `i ≥ 2` may take
//! links from the `w·(i−1)` units at least two layers back. The density of a cell is links taken ÷ links possible; its
//! mass is `w·d` times that.
//!
//! A residual block is read as a cell too: its input's channels, which the sum hands on, are the links taken, and its mass is
//! the number of its units times their share of the links possible.

use std::collections::BTreeSet;

use crate::graph::{Graph, NodeId, Op};
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
        ratio("nn_mass: depth", self.depth, self.taken(), self.possible())
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

    /// The cell of that width and depth whose mass is nearest to `mass`; of two as near, the one with fewer links.
    ///
    /// # Errors
    /// When the cell has fewer than 3 layers, or `mass` is not in `0.0..=width·depth`: all links together weigh that much.
    pub fn with_mass(width: usize, depth: usize, mass: f64) -> Result<Self> {
        let all = Self { width, depth, max_links: width * depth.saturating_sub(2) };
        let most = all.mass()?;
        if !(0.0..=most).contains(&mass) {
            return Err(Error::mismatch("nn_mass: mass", format!("0 to {most}, of width {width} and depth {depth}"), mass));
        }
        // What is taken grows with the limit, so the first limit that reaches the mass is found by halving.
        let wanted = mass * all.possible() as f64 / (width * depth) as f64;
        let with = |max_links| Self { max_links, ..all };
        let (mut low, mut high) = (0, all.max_links);
        while low < high {
            let middle = low.midpoint(high);
            if (with(middle).taken() as f64) < wanted { low = middle + 1 } else { high = middle }
        }
        let below = with(low.saturating_sub(1));
        let nearer = wanted - below.taken() as f64 <= with(low).taken() as f64 - wanted;
        Ok(if nearer { below } else { with(low) })
    }

    fn taken(&self) -> usize {
        (2..self.depth).map(|layer| (self.width * (layer - 1)).min(self.max_links)).sum()
    }

    fn possible(&self) -> usize {
        (2..self.depth).map(|layer| self.width * (layer - 1)).sum()
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
    let taken = links(graph, layers).len();
    let possible = (2..layers.len()).map(|i| width * (i - 1)).sum();
    Ok((width * layers.len()) as f64 * ratio(&what(first), layers.len(), taken, possible)?)
}

/// A channel of a layer at least two back that reaches a layer without being mixed on the way. Layers are counted in their cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The layer that the channel is of.
    pub from: usize,
    /// Which of its channels.
    pub channel: usize,
    /// The layer that reads it.
    pub to: usize,
}

/// The links of a cell of `graph`, layer after layer.
pub fn links(graph: &Graph, cell: &[NodeId]) -> Vec<Link> {
    // A layer may be a block of several: its last one makes its channels.
    let made: Vec<NodeId> = cell.iter().map(|&layer| graph.origin(layer, 0).0).collect();
    let mut place = vec![None; graph.nodes.len()];
    made.iter().enumerate().for_each(|(at, layer)| place[layer.0] = Some(at));
    let into = |(to, &layer)| links_into(graph, layer, to, &place).into_iter().map(move |(from, channel)| Link { from, channel, to });
    made.iter().enumerate().skip(2).flat_map(into).collect()
}

/// The channels, as layer and number, that reach layer `to` of a cell from at least two layers back, through no other layer of it.
fn links_into(graph: &Graph, layer: NodeId, to: usize, place: &[Option<usize>]) -> Vec<(usize, usize)> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::from([layer]));
    let mut values = graph.node(layer).inputs.clone();
    while let Some(value) = values.pop() {
        let node = graph.node(value);
        let made = match node.op {
            Op::Concat => {
                values.extend(&node.inputs);
                continue;
            }
            _ if node.passes() => {
                values.push(node.inputs[0]);
                continue;
            }
            Op::Pick { .. } | Op::Slice { .. } => graph.origins(value),
            _ if place[value.0].is_some_and(|from| from + 1 >= to) => continue,
            _ => (0..node.shape[0]).map(|channel| (value, channel)).collect(),
        };
        for (origin, channel) in made {
            match place[origin.0] {
                Some(from) if from + 1 < to => found.push((from, channel)),
                None if seen.insert(origin) => values.extend(&graph.node(origin).inputs),
                _ => {}
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Which sums count as residual blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortcuts {
    /// `compat`: all of them. So the published ResNets count a block whose shortcut is a projection, though nothing skips it.
    Compat,
    /// Those that add the block's own input: only there a link skips the block.
    ResidualOnly,
}

/// A residual block: a sum of what layers made of a value, and of that value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Block {
    /// The name of the sum.
    pub name: String,
    /// Channels of the block's input: the links taken.
    pub links: usize,
    /// Channels that its layers read, all together.
    pub units: usize,
    /// Channels at least two layers before another value of the block, summed over these values: the links possible.
    pub candidates: usize,
    /// Whether the shortcut has a layer of its own.
    pub projected: bool,
}

impl Block {
    /// `units · links / candidates`.
    pub fn mass(&self) -> f64 {
        (self.units * self.links) as f64 / self.candidates as f64
    }
}

/// The sum of the masses of a graph's residual blocks; see [`blocks`].
///
/// # Errors
/// As [`blocks`], and when there is no block that counts.
pub fn of_residual(graph: &Graph, shortcuts: Shortcuts) -> Result<f64> {
    match blocks(graph, shortcuts)? {
        blocks if blocks.is_empty() => Err(Error::mismatch(format!("{}: nn_mass", graph.name), "at least one residual block", "none")),
        blocks => Ok(blocks.iter().map(Block::mass).sum()),
    }
}

/// The residual blocks of a graph that count, in order.
///
/// For two 3×3 convolutions the mass is `c + c'` (input and inner channels), for a bottleneck `c (c + 2b) / (2c + b)` with `b` inner
/// channels, grouped or not. A block that filters each channel of its input at once (an inverted residual that expands by 1) is read
/// as if it had made these channels from its input first, as published.
///
/// # Errors
/// When a sum's inputs do not come from one value by layers one after the other, or a single layer lies between: nothing could skip it.
pub fn blocks(graph: &Graph, shortcuts: Shortcuts) -> Result<Vec<Block>> {
    let sums = graph.nodes.iter().filter(|node| node.op == Op::Add);
    let mut blocks = sums.map(|node| block(graph, &node.name, &node.inputs)).collect::<Result<Vec<_>>>()?;
    blocks.retain(|block| shortcuts == Shortcuts::Compat || !block.projected);
    Ok(blocks)
}

fn block(graph: &Graph, name: &str, inputs: &[NodeId]) -> Result<Block> {
    let wrong = |wanted: &str, found: &str| Error::mismatch(format!("{}: nn_mass: {name}", graph.name), wanted, found);
    let &[one, other] = inputs else { return Err(wrong("a sum of two", &inputs.len().to_string())) };
    let (one, other) = (way_back(graph, one), way_back(graph, other));
    let (from, to) = one
        .iter()
        .enumerate()
        .find_map(|(at, id)| Some((at, other.iter().position(|other| other == id)?)))
        .ok_or_else(|| wrong("two branches from one value", "none"))?;
    let layers = |way: &[NodeId]| -> Vec<NodeId> {
        way.iter().copied().filter(|&id| matches!(graph.node(id).op, Op::Conv(_) | Op::Linear(_))).collect()
    };
    let (branch, shortcut) = (layers(&one[..from]), layers(&other[..to]));
    let (branch, shortcut) = if branch.len() >= shortcut.len() { (branch, shortcut) } else { (shortcut, branch) };
    let links = graph.node(one[from]).shape[0];
    // What the layers read, first to last: the block's input, then what each but the last makes.
    let mut read: Vec<usize> = branch.iter().skip(1).map(|&id| graph.node(id).shape[0]).chain([links]).rev().collect();
    let alone = |&id: &NodeId| matches!(graph.node(id).op, Op::Conv(conv) if conv.groups == links && links > 1);
    if branch.last().is_some_and(alone) {
        read.insert(0, links);
    }
    // The value that layer i makes may link to all but what it reads.
    let candidates: usize = (1..read.len()).map(|i| read[..i].iter().sum::<usize>()).sum();
    if candidates == 0 {
        return Err(wrong("at least 2 layers in a residual block", &branch.len().to_string()));
    }
    Ok(Block { name: name.to_owned(), links, units: read.iter().sum(), candidates, projected: !shortcut.is_empty() })
}

/// A value and those that it is made of, back to the last one of several inputs.
fn way_back(graph: &Graph, from: NodeId) -> Vec<NodeId> {
    let before = |&id: &NodeId| match graph.node(id).inputs.as_slice() {
        &[input] => Some(input),
        _ => None,
    };
    std::iter::successors(Some(from), before).collect()
}

fn ratio(what: &str, depth: usize, taken: usize, possible: usize) -> Result<f64> {
    if possible == 0 {
        return Err(Error::mismatch(what, "at least 3 layers in a cell", depth));
    }
    Ok(taken as f64 / possible as f64)
}
