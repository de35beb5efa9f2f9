//! Orders in which a sample may come more than once.

use std::collections::BTreeMap;

use datasets::{Rng, Seed};

use super::Per;
use crate::{Error, Result};

/// As many positions as there are labels, each class as often as the others: rounds of one sample of each class, in random order, of which
/// the last may not be whole. A class goes through its samples in random order, and again in another.
pub(super) fn balanced(labels: &[u32], rng: &mut Rng) -> Vec<u64> {
    let mut decks: BTreeMap<u32, Deck> = BTreeMap::new();
    for (index, &class) in labels.iter().enumerate() {
        decks.entry(class).or_default().cards.push(index as u64);
    }
    let mut decks: Vec<Deck> = decks.into_values().collect();
    let mut round: Vec<usize> = (0..decks.len()).collect();
    let mut order = Vec::with_capacity(labels.len());
    while order.len() < labels.len() {
        rng.shuffle(&mut round);
        order.extend(round.iter().take(labels.len() - order.len()).map(|&class| decks[class].draw(rng)));
    }
    order
}

/// The samples of a class, drawn one by one; shuffled when all have been.
#[derive(Debug, Default)]
struct Deck {
    cards: Vec<u64>,
    drawn: usize,
}

impl Deck {
    fn draw(&mut self, rng: &mut Rng) -> u64 {
        let at = self.drawn % self.cards.len();
        if at == 0 {
            rng.shuffle(&mut self.cards);
        }
        self.drawn += 1;
        self.cards[at]
    }
}

/// Draws positions by weight, each whatever the others are. The draw for a place of an epoch is a function of the place, so none is stored.
#[derive(Debug, Clone)]
pub(super) struct Lots {
    /// Of the weights up to each position, itself included.
    sums: Vec<f64>,
    seed: Seed,
}

impl Lots {
    /// Of the weight of each position.
    pub(super) fn new(weights: impl Iterator<Item = f64>, seed: Seed) -> Self {
        let sum = |sum: &mut f64, weight: f64| {
            *sum += weight;
            Some(*sum)
        };
        Self { sums: weights.scan(0.0, sum).collect(), seed }
    }

    /// The position drawn for place `place`.
    pub(super) fn draw(&self, place: usize) -> u64 {
        let total = self.sums.last().copied().unwrap_or_default();
        let at = self.seed.at(place as u64).rng().uniform() * total;
        // Where the product is rounded up to the total, the last position with a weight is meant.
        self.sums.partition_point(|&sum| sum <= at && sum < total) as u64
    }
}

/// That `len` samples of these classes can be drawn by these weights.
pub(super) fn check_weights(weights: &[f64], per: Per, (len, labels): (usize, &[u32])) -> Result<()> {
    let refused = |wanted: String, found: String| Err(Error::config("order.weighted.weights", wanted, found));
    let classes = labels.iter().max().map_or(0, |&last| last as usize + 1);
    match per {
        Per::Sample if weights.len() != len => return refused(format!("one for each of {len} samples"), weights.len().to_string()),
        Per::Class if weights.len() < classes => return refused(format!("one for each of {classes} classes"), weights.len().to_string()),
        _ => {}
    }
    if let Some(at) = weights.iter().position(|weight| !(0.0..f64::INFINITY).contains(weight)) {
        return refused("finite numbers of at least 0".to_owned(), format!("{} at {at}", weights[at]));
    }
    let total: f64 = match per {
        Per::Sample => weights.iter().sum(),
        Per::Class => labels.iter().map(|&label| weights[label as usize]).sum(),
    };
    if len == 0 || (total > 0.0 && total.is_finite()) {
        Ok(())
    } else {
        refused("a sum that is positive and finite".to_owned(), total.to_string())
    }
}
