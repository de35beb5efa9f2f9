//! NN-Mass the other way round: networks of a given mass, of different sizes, within limits of cost.
//!
//! Networks of equal mass train to about equal accuracy, whatever their size (Bhardwaj, Li & Marculescu, CVPR 2021,
//! arXiv:1910.00780): so the smallest of them is the one to train. [`compression`] is what that saves and costs, once they are trained.

use serde::{Deserialize, Serialize};

use crate::metrics::nn_mass::Cell;
use crate::metrics::profile;
use crate::models::{Spec, dense_cnn, dense_mlp};
use crate::table::Column;
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
    /// The mass that was asked for.
    pub target: f64,
    /// As near to what was asked for as whole numbers of links come.
    pub nn_mass: f64,
    /// Trained parameters.
    pub params: usize,
    /// Multiply-adds of one sample.
    pub macs: u64,
}

/// [`candidates`] as a table: a row each, with columns for the fields of its config, `target`, `nn_mass`, `params` and `macs`.
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
/// assert_eq!(table.column_f64("max_links")?, [7.0, 7.0]);
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
    Ok(Some(Candidate { architecture, target: mass, nn_mass, params: profile.params, macs: profile.macs }))
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

/// What the smallest network of each group saves, and what that costs: for rows that agree in the columns `by`, such as the mass asked for, a
/// row from the network with most parameters to the one with fewest (of two as large, the first).
///
/// Columns: those of `by`; `params_from` and `params_to`; `fewer_params` and `fewer_macs`, how many times; of the column `score`, such as
/// `accuracy`, `accuracy_from`, `accuracy_to` and `accuracy_change`. `networks` has columns `params` and `macs`.
///
/// ```
/// use lab::{Table, design};
///
/// let networks = Table::new([
///     ("target", vec![10, 10, 10].into()),
///     ("params", vec![3000, 4000, 1000].into()),
///     ("macs", vec![300, 500, 100].into()),
///     ("accuracy", vec![0.9, 0.75, 0.5].into()),
/// ])?;
/// let saved = design::compression(&networks, "accuracy", &["target"])?;
/// assert_eq!((saved.column_f64("fewer_params")?, saved.column_f64("fewer_macs")?), (vec![4.0], vec![5.0]));
/// assert_eq!(saved.column_f64("accuracy_change")?, [-0.25]);
/// # Ok::<(), lab::Error>(())
/// ```
///
/// # Errors
/// When there is no such column, or a number is a text.
pub fn compression(networks: &Table, score: &str, by: &[&str]) -> Result<Table> {
    let keys: Vec<Vec<String>> = by.iter().map(|name| networks.column_text(name)).collect::<Result<_>>()?;
    let (params, macs, scores) = (networks.column_f64("params")?, networks.column_f64("macs")?, networks.column_f64(score)?);
    let key = |row: usize| keys.iter().map(|column| column[row].as_str()).collect::<Vec<_>>();
    // Of each group, the rows with most and with fewest parameters.
    let mut groups: Vec<(Vec<&str>, usize, usize)> = Vec::new();
    for row in 0..networks.len() {
        match groups.iter_mut().find(|(group, ..)| *group == key(row)) {
            None => groups.push((key(row), row, row)),
            Some((_, from, to)) => {
                *from = if params[row] > params[*from] { row } else { *from };
                *to = if params[row] < params[*to] { row } else { *to };
            }
        }
    }
    let mut columns: Vec<(String, Column)> = Vec::new();
    for name in by {
        let cells = networks.data(name)?;
        columns.push((name.to_string(), Column::of(groups.iter().map(|&(_, from, _)| cells[from].clone()).collect())));
    }
    let mut number = |name: String, of: &dyn Fn(usize, usize) -> f64| {
        columns.push((name, groups.iter().map(|&(_, from, to)| of(from, to)).collect::<Vec<f64>>().into()));
    };
    number("params_from".to_owned(), &|from, _| params[from]);
    number("params_to".to_owned(), &|_, to| params[to]);
    number("fewer_params".to_owned(), &|from, to| params[from] / params[to]);
    number("fewer_macs".to_owned(), &|from, to| macs[from] / macs[to]);
    number(format!("{score}_from"), &|from, _| scores[from]);
    number(format!("{score}_to"), &|_, to| scores[to]);
    number(format!("{score}_change"), &|from, to| scores[to] - scores[from]);
    Table::new(columns)
}
