//! What a loader is asked for.

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::augment::{Transform, normalize::Constants};
use crate::decode::Channels;
use crate::order::{Last, Order, Rules, Shard};

/// Which samples, in which order, and what is done to them on the way; the fields stand as the data flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The split's name. Default `train`.
    pub split: String,
    /// Samples in a batch. Default 128.
    pub batch: usize,
    /// In which order. Default shuffled, anew in each epoch.
    pub order: Order,
    /// What becomes of the samples that do not fill a batch. Default: they make a smaller one.
    pub last: Last,
    /// Which part of each step is this process's. Default: all.
    pub shard: Shard,
    /// Names the order and the augmentation. Default 0.
    pub seed: Seed,
    /// Grey or colour. Default: as stored.
    pub channels: Channels,
    /// From picture to picture. Default: nothing.
    pub transforms: Vec<Transform>,
    /// Which means and deviations. Default: the store's own.
    pub normalize: Constants,
    /// What a batch is made of. Default: pixels, normalised by whoever reads them.
    pub output: Output,
    /// Threads that make batches; 0, the default, is one a core. They do not change a batch.
    pub threads: usize,
}

/// The numbers of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// Pixels, and beside them the constants with which a device normalises them: a quarter of the memory and of the way.
    #[default]
    U8,
    /// Normalised here.
    F32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            split: "train".to_owned(),
            batch: 128,
            order: Order::default(),
            last: Last::default(),
            shard: Shard::default(),
            seed: Seed(0),
            channels: Channels::default(),
            transforms: Vec::new(),
            normalize: Constants::default(),
            output: Output::default(),
            threads: 0,
        }
    }
}

impl Config {
    /// For training: `train`, shuffled.
    pub fn train(batch: usize, transforms: Vec<Transform>, seed: Seed) -> Self {
        Self { batch, transforms, seed, ..Self::default() }
    }

    /// For evaluation: the split `split`, from first to last.
    pub fn eval(split: &str, batch: usize, transforms: Vec<Transform>) -> Self {
        Self { split: split.to_owned(), batch, transforms, order: Order::Sequential, ..Self::default() }
    }

    pub(super) fn rules(&self) -> Rules {
        Rules { batch: self.batch, order: self.order, last: self.last, shard: self.shard, seed: self.seed }
    }
}
