//! NN-Mass the other way round: networks of a given mass, of different sizes, within limits of cost.
//!
//! Networks of equal mass train to about equal accuracy, whatever their size (Bhardwaj, Li & Marculescu, CVPR 2021,
//! arXiv:1910.00780): so the smallest of them is the one to train.

use serde::{Deserialize, Serialize};

use crate::metrics::nn_mass::Cell;
use crate::metrics::profile;
use crate::models::{Spec, dense_cnn, dense_mlp};
use crate::{Error, Result, Table};
use datasets::Seed;

/// Among which networks to look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Space {
    /// A dense perceptron or a dense convolutional network: its width, depth and links are replaced. Over the cells of the second the mass is
    /// shared as it is here; where this has no links, in proportion to their channels.
    pub like: Spec,
    /// Units, or channels of the first cell.
    pub widths: Vec<usize>,
    /// Layers of a cell.
    pub depths: Vec<usize>,
}

/// What a network may cost; by default anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Trained parameters.
    pub params: Option<usize>,
    /// Multiply-adds of one sample.
    pub macs: Option<u64>,
}

/// A network of about the mass that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The network.
    #[serde(flatten)]
    pub architecture: Spec,
    /// As near to what was asked for as whole numbers of links come.
    pub nn_mass: f64,
    /// Trained parameters.
    pub params: usize,
    /// Multiply-adds of one sample.
    pub macs: u64,
}

/// [`candidates`] as a table: a row each, with columns for the fields of its config, `nn_mass`, `params` and `macs`.
///
/// ```
/// use lab::design::{Limits, Space, design_for_mass};
/// use lab::models::{Spec, dense_mlp};
///
/// let like = Spec::DenseMlp(dense_mlp::Config::mnist(8, 8, 0));
/// let space = Space { like, widths: vec![8, 16], depths: vec![8, 16, 32] };
/// let table = design_for_mass(16.0, Limits { params: Some(10_000), macs: None }, &space)?;
/// assert_eq!(table.column_f64("width")?, [8.0, 8.0]);
/// assert_eq!(table.column_f64("depth")?, [8.0, 16.0]);
/// assert_eq!(table.column_f64("max_links")?, [7.0, 8.0]);
/// # Ok::<(), lab::Error>(())
/// ```
///
/// # Errors
/// As [`candidates`].
pub fn design_for_mass(mass: f64, limits: Limits, space: &Space) -> Result<Table> {
    Table::from_rows(&candidates(mass, limits, space)?)
}

/// For every width and depth that can have it, the network whose mass is nearest to `mass` (of two as near, the one with fewer links), if
/// it keeps within the limits. Those with fewest parameters come first.
///
/// # Errors
/// When the family has no cells of links, a depth is below 3, another size does not add up, or no network is found.
pub fn candidates(mass: f64, limits: Limits, space: &Space) -> Result<Vec<Candidate>> {
    let sizes = space.widths.iter().flat_map(|&width| space.depths.iter().map(move |&depth| (width, depth)));
    let found = sizes.map(|(width, depth)| candidate(mass, &space.like, width, depth)).collect::<Result<Vec<_>>>()?;
    let within = |candidate: &Candidate| {
        limits.params.is_none_or(|most| candidate.params <= most) && limits.macs.is_none_or(|most| candidate.macs <= most)
    };
    let mut found: Vec<Candidate> = found.into_iter().flatten().filter(within).collect();
    if found.is_empty() {
        let wanted = "a width and depth that can have it within the limits";
        let tried = format!("none among {} widths and {} depths", space.widths.len(), space.depths.len());
        return Err(Error::mismatch(format!("design: mass {mass}"), wanted, tried));
    }
    found.sort_by_key(|candidate| (candidate.params, candidate.macs));
    Ok(found)
}

/// `None` where even all links weigh too little.
fn candidate(mass: f64, like: &Spec, width: usize, depth: usize) -> Result<Option<Candidate>> {
    let cells = cells_of(like)?;
    let weights: Vec<f64> = cells.iter().map(Cell::mass).collect::<Result<_>>()?;
    let (linked, channels) = (weights.iter().sum::<f64>(), cells.iter().map(|cell| cell.width).sum::<usize>() as f64);
    let share = |(cell, weight): (&Cell, &f64)| if linked > 0.0 { weight / linked } else { cell.width as f64 / channels };
    let mut found = Vec::new();
    for (at, share) in cells.iter().zip(&weights).map(share).enumerate() {
        let (width, mass) = (width << at, mass * share);
        if mass > (width * depth) as f64 {
            return Ok(None);
        }
        found.push(Cell::with_mass(width, depth, mass)?);
    }
    let nn_mass = found.iter().map(Cell::mass).sum::<Result<f64>>()?;
    let max_links: Vec<usize> = found.iter().map(|cell| cell.max_links).collect();
    let architecture = match like {
        Spec::DenseCnn(config) => Spec::DenseCnn(dense_cnn::Config { width, depth, max_links, ..config.clone() }),
        Spec::DenseMlp(config) => Spec::DenseMlp(dense_mlp::Config { width, depth, max_links: max_links[0], ..config.clone() }),
        other => other.clone(),
    };
    // Costs depend on the number of links alone.
    let profile = profile::of(&architecture.graph(Seed(0))?);
    Ok(Some(Candidate { architecture, nn_mass, params: profile.params, macs: profile.macs }))
}

/// The cells of a network by their sizes.
///
/// # Errors
/// When its family has none.
pub fn cells_of(spec: &Spec) -> Result<Vec<Cell>> {
    match spec {
        Spec::DenseCnn(config) => {
            let cell = |(at, &max_links): (usize, &usize)| Cell { width: config.channels(at), depth: config.depth, max_links };
            Ok(config.max_links.iter().enumerate().map(cell).collect())
        }
        Spec::DenseMlp(config) => Ok(vec![Cell { width: config.width, depth: config.depth, max_links: config.max_links }]),
        _ => Err(Error::mismatch("design: family", "dense_cnn or dense_mlp", "a network without cells of links")),
    }
}
