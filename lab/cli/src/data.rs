//! What a plan says of its data, and the batches that it stands for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use datasets::synthetic::segments::{self, Points};
use datasets::{Batches, Seed, Segments, Table};
use lab::sweep::Run;
use pipeline::loader::{Config, Output};
use pipeline::order::Order;
use pipeline::{Loader, Store};
use serde::{Deserialize, Serialize};

/// The data of a run, as a plan says them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum Data {
    /// A store, and what the loaders of its splits are told.
    Store {
        store: PathBuf,
        #[serde(default)]
        train: Box<Config>,
        #[serde(default = "testing")]
        test: Box<Config>,
    },
    /// Points of a line or a disc in segments.
    Points { points: segments::Config, batch: usize },
}

/// The test split in its order.
fn testing() -> Box<Config> {
    Box::new(Config { split: "test".to_owned(), batch: 1000, order: Order::Sequential, ..Config::default() })
}

/// The data of a run, by what is in them instead of where they lie: with this the run is known by.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Known {
    Store { name: String, content: String, train: Box<Config>, test: Box<Config> },
    Points { points: segments::Config, batch: usize },
}

/// Of all drawn points: runs of different seeds differ in their networks, not in their data.
const POINTS: Seed = Seed(0);

/// Decoded numbers that are kept in memory, at most, bytes.
const KEPT: usize = 2 << 30;

/// The data of a plan, opened.
#[derive(Default)]
pub(crate) struct Shelf {
    stores: BTreeMap<String, PathBuf>,
    /// What no transform changes, in memory once for all runs: by content and how it is read.
    kept: BTreeMap<String, Table>,
    /// What was opened, as plans say it: most runs of a plan have the same.
    opened: Vec<(Data, Known)>,
}

impl Shelf {
    /// Opens what a run needs, unless it is open.
    ///
    /// # Errors
    /// When there is no such store, or its loaders make no sense.
    pub(crate) fn known(&mut self, run: &Run<Data>) -> Result<Run<Known>> {
        let data = match self.opened.iter().find(|(data, _)| *data == run.data) {
            Some((_, known)) => known.clone(),
            None => {
                let known = self.open(&run.data)?;
                self.opened.push((run.data.clone(), known.clone()));
                known
            }
        };
        Ok(Run { architecture: run.architecture.clone(), data, recipe: run.recipe.clone(), seed: run.seed })
    }

    fn open(&mut self, data: &Data) -> Result<Known> {
        Ok(match data {
            Data::Points { points, batch } => {
                ensure!(*batch > 0, "data: batch: wanted at least 1, found 0");
                Segments::new(*points, POINTS)?;
                Known::Points { points: *points, batch: *batch }
            }
            Data::Store { store: path, train, test } => {
                let store = Store::open(path)?;
                let content = store.meta().content.clone();
                let plain = |config: &Config| Box::new(Config { seed: Seed(0), threads: 0, ..config.clone() });
                let (train, test) = (plain(train), plain(test));
                for config in [&train, &test] {
                    let loader = Loader::new(Store::open(path)?, Config::clone(config)).with_context(|| path.display().to_string())?;
                    let bytes = 4 * loader.samples() * loader.sample_shape().iter().product::<usize>();
                    if config.transforms.is_empty() && bytes <= KEPT && !self.kept.contains_key(&kept(&content, config)) {
                        // In the order of the split; a run has its own.
                        let whole = Config { order: Order::Sequential, output: Output::F32, ..Config::clone(config) };
                        let table = Table::collect(&Loader::new(Store::open(path)?, whole)?);
                        let table = table.map_err(|error| anyhow::anyhow!(error)).with_context(|| path.display().to_string())?;
                        self.kept.insert(kept(&content, config), table);
                    }
                }
                self.stores.insert(content.clone(), path.clone());
                Known::Store { name: store.meta().name.clone(), content, train, test }
            }
        })
    }

    /// The training and test batches of a run, made by so many threads.
    ///
    /// # Errors
    /// When a store has gone.
    pub(crate) fn batches(&self, run: &Run<Known>, threads: usize) -> pipeline::Result<[Box<dyn Batches>; 2]> {
        let order = Seed(run.seed).named("order");
        match &run.data {
            Known::Points { points, batch } => {
                let drawn = Segments::new(*points, POINTS).expect("tried when the plan was read");
                let table = |points: &Points, seed| Table::new(points.rows.clone(), &[2], points.labels.clone(), 2, *batch, seed);
                Ok([Box::new(table(drawn.train(), Some(order))), Box::new(table(drawn.test(), None))])
            }
            Known::Store { content, train, test, .. } => {
                let batches = |config: &Config| -> pipeline::Result<Box<dyn Batches>> {
                    let seed = (config.order != Order::Sequential).then_some(order);
                    if let Some(table) = self.kept.get(&kept(content, config)) {
                        return Ok(Box::new(table.batched(config.batch, seed)));
                    }
                    let config = Config { seed: order, threads, ..config.clone() };
                    Ok(Box::new(Loader::new(Store::open(&self.stores[content])?, config)?))
                };
                Ok([batches(train)?, batches(test)?])
            }
        }
    }
}

/// What in memory is the same for all batch sizes and orders.
fn kept(content: &str, config: &Config) -> String {
    let plain = Config { batch: 1, order: Order::Sequential, seed: Seed(0), threads: 0, ..config.clone() };
    format!("{content} {}", serde_json::json!(plain))
}
