//! Layerwise dynamical isometry: the singular values of what each layer does to small changes of its input, before any training.
//!
//! Bhardwaj, Li & Marculescu, CVPR 2021, arXiv:1910.00780, after Lee et al., "A signal propagation perspective for pruning neural networks
//! at initialization", ICLR 2020, arXiv:1906.06307. Networks of equal width and equal NN-Mass have about equal mean singular values.
//!
//! The Jacobian of a layer is that of its value to all that it reads, links included. Of a cell's first layer that is `diag(a'(z)) W`, `a`
//! being the activation behind it; of the second, which reads what is activated already, `W`; of the others `W diag(a'(z))`, where they read
//! `a(z)`. All singular values of all layers and samples count alike.

use std::collections::BTreeMap;

use candle::{DType, Device, Tensor, Var};
use datasets::{Batches, Seed};
use rayon::prelude::*;
use serde::Serialize;

use super::{nn_mass, profile};
use crate::exec::Trace;
use crate::graph::{Graph, NodeId, Op};
use crate::kernels::{self, Activation};
use crate::models::Spec;
use crate::train::to_tensors;
use crate::{Error, Model, Result, Table, spectrum, stats};

/// By what a layer's matrix is multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Slope {
    /// The slope of the activation.
    #[default]
    True,
    /// `compat`: what the published program takes for it: for ELU `exp(z)` where `z` is positive and else 0 (the slope is 1 and `exp(z)`), and
    /// for the classifier, too, though it reads without activation. Of ReLU, and of ELU alone.
    Published,
}

/// Singular values of layer Jacobians, all together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ldi {
    /// Their mean, at most `rms`.
    pub mean: f64,
    /// The root of the mean of their squares. Where weights are PyTorch's, about 0.41 of a hidden ReLU layer, whatever the links.
    pub rms: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their standard deviation, unbiased.
    pub std: f64,
    /// How many they are.
    pub count: usize,
}

/// Layerwise dynamical isometry of a network for the samples `xs` `(n, ...)`.
///
/// # Errors
/// As [`layers`].
pub fn of(model: &Model, xs: &Tensor, slope: Slope) -> Result<Ldi> {
    Ok(Sums::of(&layers(model, xs, slope)?).ldi())
}

/// [`of`] all samples of a source of batches. The published program takes the mean of each batch's `std` instead.
///
/// # Errors
/// As [`layers`], and when a batch cannot be had.
pub fn of_batches(model: &Model, batches: &dyn Batches, slope: Slope) -> Result<Ldi> {
    let mut sums = Sums::default();
    for batch in batches.epoch(0, 0) {
        let (xs, _) = to_tensors(&batch.map_err(Error::Batch)?, model.graph.input_shape(), &model.device)?;
        sums = sums.and(Sums::of(&layers(model, &xs, slope)?));
    }
    Ok(sums.ldi())
}

/// [`of`] fresh networks, the links and weights of each architecture drawn from each of `seeds`: a row each, with columns for the fields of its
/// config, `seed`, `nn_mass`, `params`, `macs`, `mean`, `rms`, `min`, `max`, `std` and `count`.
///
/// # Errors
/// As [`layers`], and when an architecture does not add up.
pub fn over_seeds(architectures: &[Spec], seeds: impl IntoIterator<Item = u64> + Clone, xs: &Tensor, slope: Slope) -> Result<Table> {
    #[derive(Serialize)]
    struct Row<'a> {
        #[serde(flatten)]
        architecture: &'a Spec,
        seed: u64,
        nn_mass: f64,
        params: usize,
        macs: u64,
        #[serde(flatten)]
        ldi: Ldi,
    }
    let mut rows = Vec::new();
    for architecture in architectures {
        for seed in seeds.clone() {
            let graph = architecture.graph(Seed(seed))?;
            let (nn_mass, profile) = (nn_mass::of(&graph)?, profile::of(&graph));
            let ldi = of(&Model::new(graph, Seed(seed), xs.device())?, xs, slope)?;
            rows.push(Row { architecture, seed, nn_mass, params: profile.params, macs: profile.macs, ldi });
        }
    }
    Table::from_rows(&rows)
}

/// Singular values of one layer's Jacobians.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name in the graph.
    pub name: String,
    /// Those that differ, each as many as the layer's smaller side, largest first: of a layer whose slopes are 0 and 1 there are few, and of
    /// one that reads without activation one.
    spectra: Vec<Vec<f64>>,
    /// Which of them each sample has.
    of_sample: Vec<usize>,
}

impl Layer {
    /// Those of one sample, as many as the layer's smaller side, largest first.
    ///
    /// # Panics
    /// When there is no such sample.
    pub fn sample(&self, sample: usize) -> &[f64] {
        &self.spectra[self.of_sample[sample]]
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.of_sample.len()
    }
}

/// The singular values of the layers of a network's cells, for each of the samples `xs` `(n, ...)`: in the order of the layers, in double
/// precision; those below 1e-8 of a layer's largest are noise.
///
/// # Errors
/// When the graph declares no cell, a layer of a cell is not linear, `xs` is not of the input's shape, or, of the published slope, when the
/// activation is neither ReLU nor ELU.
pub fn layers(model: &Model, xs: &Tensor, slope: Slope) -> Result<Vec<Layer>> {
    let graph = &model.graph;
    if graph.cells.is_empty() {
        return Err(Error::mismatch(format!("{}: ldi", graph.name), "at least one cell", "none"));
    }
    let trace = model.trace(xs)?;
    let mut layers = Vec::new();
    for cell in &graph.cells {
        let first = activation_behind(graph, cell[0]);
        for (at, &layer) in cell.iter().enumerate() {
            let Op::Linear(linear) = graph.node(layer).op else {
                let what = format!("{}: ldi: {}", graph.name, graph.node(layer).name);
                return Err(Error::mismatch(what, "a linear layer", graph.node(layer).op.label()));
            };
            let weight = model.params.get(&format!("{}.weight", graph.node(layer).name))?.as_detached_tensor();
            let weight = linear.top.map_or(Ok(weight.clone()), |top| kernels::top_k(&weight, top))?;
            let read = graph.node(layer).inputs[0];
            let scaled = match (at, graph.node(read).op.clone()) {
                (0, _) => first.map(|(activation, _)| Scaled { before: false, at: layer, activation }),
                // The activation is the first layer's, and counts there.
                (_, Op::Activate(_)) if first.is_some_and(|(_, behind)| behind == read) => None,
                (_, Op::Activate(activation)) => Some(Scaled { before: true, at: graph.node(read).inputs[0], activation }),
                (_, _) if slope == Slope::Published => first.map(|(activation, _)| Scaled { before: true, at: read, activation }),
                _ => None,
            };
            let (spectra, of_sample) = spectra(&weight, scaled, &trace, slope)?;
            let of_sample = if of_sample.is_empty() { vec![0; xs.dims()[0]] } else { of_sample };
            layers.push(Layer { name: graph.node(layer).name.clone(), spectra, of_sample });
        }
    }
    Ok(layers)
}

/// The activation that reads a layer's value, and its node.
fn activation_behind(graph: &Graph, layer: NodeId) -> Option<(Activation, NodeId)> {
    graph.nodes.iter().enumerate().find_map(|(at, node)| match node.op {
        Op::Activate(activation) if node.inputs == [layer] => Some((activation, NodeId(at))),
        _ => None,
    })
}

/// The slopes that scale what a layer reads, or what it gives.
struct Scaled {
    before: bool,
    /// The node whose value they are slopes at.
    at: NodeId,
    activation: Activation,
}

/// The spectra that differ, and which of them each sample has; one, for all, where nothing is scaled.
fn spectra(weight: &Tensor, scaled: Option<Scaled>, trace: &Trace, slope: Slope) -> Result<(Vec<Vec<f64>>, Vec<usize>)> {
    let (mut rows, mut columns) = weight.dims2()?;
    let Some(scaled) = scaled else {
        return Ok((vec![spectrum::singular_values(&numbers(weight)?, rows, columns)], Vec::new()));
    };
    // A matrix and its transpose have the same singular values: let the columns be scaled.
    let matrix = if scaled.before {
        numbers(weight)?
    } else {
        (rows, columns) = (columns, rows);
        numbers(&weight.t()?)?
    };
    let slopes = numbers(&slopes(trace.value(scaled.at), scaled.activation, slope)?)?;
    let mut distinct: Vec<&[f64]> = Vec::new();
    let of_sample: Vec<usize> = if matches!(scaled.activation, Activation::Relu | Activation::Relu6) {
        let mut place = BTreeMap::new();
        let pattern = |slopes: &[f64]| slopes.iter().map(|&slope| slope != 0.0).collect::<Vec<bool>>();
        let mut find = |slopes| {
            *place.entry(pattern(slopes)).or_insert_with(|| {
                distinct.push(slopes);
                distinct.len() - 1
            })
        };
        slopes.chunks_exact(columns).map(&mut find).collect()
    } else {
        distinct = slopes.chunks_exact(columns).collect();
        (0..distinct.len()).collect()
    };
    // Of the smaller of A S² Aᵀ and S (Aᵀ A) S; in the latter the product is the same for all samples.
    let products = (rows > columns).then(|| {
        let turned: Vec<f64> = (0..matrix.len()).map(|at| matrix[at % rows * columns + at / rows]).collect();
        spectrum::gram(&turned, columns, rows, &vec![1.0; rows])
    });
    let of = |slopes: &&[f64]| match &products {
        None => spectrum::roots(spectrum::gram(&matrix, rows, columns, slopes), rows),
        Some(products) => {
            let scaled = products.iter().enumerate().map(|(at, number)| number * slopes[at / columns] * slopes[at % columns]);
            spectrum::roots(scaled.collect(), columns)
        }
    };
    Ok((distinct.par_iter().map(of).collect(), of_sample))
}

/// The slope of an activation at each of `xs`.
fn slopes(xs: &Tensor, activation: Activation, slope: Slope) -> Result<Tensor> {
    let positive = || xs.gt(0.0)?.to_dtype(xs.dtype());
    Ok(match (slope, activation) {
        (Slope::True, _) => {
            let xs = Var::from_tensor(&xs.detach())?;
            let gradients = kernels::activate(&xs, activation)?.sum_all()?.backward()?;
            gradients.get(&xs).map_or_else(|| xs.zeros_like(), |slopes| Ok(slopes.clone()))?
        }
        (Slope::Published, Activation::Relu) => positive()?,
        (Slope::Published, Activation::Elu) => (xs.exp()? * positive()?)?,
        (Slope::Published, other) => return Err(Error::mismatch("ldi: published slope", "relu or elu", other.name())),
    })
}

/// Row after row, in double precision, on the host.
fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// What is known of some singular values; adds up.
#[derive(Debug, Clone, Copy)]
struct Sums {
    count: usize,
    mean: f64,
    /// Squared distances from the mean.
    squares: f64,
    min: f64,
    max: f64,
}

impl Default for Sums {
    fn default() -> Self {
        Self { count: 0, mean: 0.0, squares: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Sums {
    fn of(layers: &[Layer]) -> Self {
        let spectra = layers.iter().flat_map(|layer| (0..layer.samples()).map(|sample| layer.sample(sample)));
        spectra.map(Self::of_spectrum).fold(Self::default(), Self::and)
    }

    fn of_spectrum(values: &[f64]) -> Self {
        let mean = stats::mean(values);
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
        let [min, max] = [values.last(), values.first()].map(|value| value.copied().unwrap_or(f64::NAN));
        Self { count: values.len(), mean, squares, min, max }
    }

    /// Both together (Chan, Golub & LeVeque 1979).
    fn and(self, other: Self) -> Self {
        let (count, apart) = (self.count + other.count, other.mean - self.mean);
        let share = other.count as f64 / count as f64;
        let squares = self.squares + other.squares + apart * apart * self.count as f64 * share;
        Self { count, mean: self.mean + apart * share, squares, min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn ldi(self) -> Ldi {
        let Self { count, mean, squares, min, max } = self;
        let rms = (mean * mean + squares / count as f64).sqrt();
        Ldi { mean, rms, min, max, std: (squares / (count as f64 - 1.0)).sqrt(), count }
    }
}
