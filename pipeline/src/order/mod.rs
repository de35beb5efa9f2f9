//! Which sample is in which batch: a pure function of length, rules and epoch.
//!
//! Nothing here sees a picture, a thread or a clock. So resuming in the middle of an epoch is asking for batch `k` instead
//! of batch 0, and threads cannot change a batch, because they are not among the arguments.

use std::ops::Range;

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// In which order an epoch goes through a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// 0, 1, 2 and so on, the same in each epoch.
    Sequential,
    /// A permutation of the whole split, another one in each epoch.
    #[default]
    Shuffled,
    /// For stores larger than memory: as `Shuffled`, but reading stays within a few stretches of the store at a time. Blocks of neighbours
    /// come in random order, and the samples of so many blocks that follow one another in it are shuffled among themselves.
    Blocks {
        /// Samples of a block, which lie beside one another; the split's last may have fewer.
        size: usize,
        /// Blocks that are mixed.
        mixed: usize,
    },
}

/// What becomes of the samples that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// They make a smaller last batch.
    #[default]
    Keep,
    /// They are left out of this epoch.
    Drop,
}

/// One of several processes that share an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// This process, below `world`.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { rank: 0, world: 1 }
    }
}

/// How a split is cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Samples in a batch of this process.
    pub batch: usize,
    /// In which order.
    pub order: Order,
    /// What becomes of the rest.
    pub last: Last,
    /// Which part of each step is this process's.
    pub shard: Shard,
    /// Names the permutations and the augmentations.
    pub seed: Seed,
}

/// The batches of one epoch: any of them on request, in a memory of at most one permutation.
#[derive(Debug, Clone)]
pub struct Plans {
    len: usize,
    rules: Rules,
    /// The order, where it is not 0, 1, 2 and so on.
    permutation: Option<Vec<u64>>,
    augment: Seed,
}

/// One batch to be: who is in it, and the randomness that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its number in the epoch.
    pub number: usize,
    /// Positions in the split.
    pub indices: Vec<u64>,
    augment: Seed,
}

impl Plan {
    /// The seed of sample `index`'s augmentation. It depends on the run's seed, the epoch and the index alone, not on the batch, so that
    /// what was done to a picture can be done again without the others.
    pub fn seed(&self, index: u64) -> Seed {
        self.augment.at(index)
    }
}

/// The batches of epoch `epoch` over `len` samples.
///
/// With a `world` of `w` processes, step `k` of all of them together is batch `k` of a single process with a `w` times larger batch.
/// The shards of an epoch are disjoint, have the same number of batches, none of them empty, and together hold each sample once
/// (with [`Last::Drop`]: all but the rest).
///
/// # Errors
/// When the batch is 0, the rank is not below the world, or the samples kept at the end cannot be shared out so that each process has as
/// many batches as the others.
pub fn plan(len: usize, rules: &Rules, epoch: u64) -> Result<Plans> {
    rules.check(len)?;
    Ok(Plans::new(len, rules, epoch))
}

impl Plans {
    /// As [`plan`], of rules that were checked against `len`.
    pub(crate) fn new(len: usize, rules: &Rules, epoch: u64) -> Self {
        let permutation = match rules.order {
            Order::Sequential => None,
            Order::Shuffled => {
                let mut order: Vec<u64> = (0..len as u64).collect();
                rules.seed.named("order").at(epoch).rng().shuffle(&mut order);
                Some(order)
            }
            Order::Blocks { size, mixed } => {
                let mut rng = rules.seed.named("order").at(epoch).rng();
                let mut blocks: Vec<usize> = (0..len.div_ceil(size)).collect();
                rng.shuffle(&mut blocks);
                let mut order = Vec::with_capacity(len);
                for blocks in blocks.chunks(mixed) {
                    let start = order.len();
                    order.extend(blocks.iter().flat_map(|&block| (block * size) as u64..(block * size + size).min(len) as u64));
                    rng.shuffle(&mut order[start..]);
                }
                Some(order)
            }
        };
        Self { len, rules: *rules, permutation, augment: rules.seed.named("augment").at(epoch) }
    }

    /// Number of batches.
    pub fn batches(&self) -> usize {
        self.rules.batches(self.len)
    }

    /// Batch `number`.
    ///
    /// # Panics
    /// When `number` is not below [`Plans::batches`].
    pub fn plan(&self, number: usize) -> Plan {
        assert!(number < self.batches(), "batch {number} of {}", self.batches());
        let range = self.rules.range(self.len, number);
        let indices = match &self.permutation {
            Some(order) => order[range].to_vec(),
            None => (range.start as u64..range.end as u64).collect(),
        };
        Plan { number, indices, augment: self.augment }
    }
}

impl Rules {
    /// Number of batches that `len` samples make for this process, and for each other.
    ///
    /// # Panics
    /// When the batch or the world is 0.
    pub fn batches(&self, len: usize) -> usize {
        match self.last {
            Last::Keep => len.div_ceil(self.step()),
            Last::Drop => len / self.step(),
        }
    }

    /// Number of samples of an epoch that are this process's.
    ///
    /// # Panics
    /// When the batch or the world is 0.
    pub fn samples(&self, len: usize) -> usize {
        // All but the last two batches are full, and `range` knows about those.
        let batches = self.batches(len);
        let full = batches.saturating_sub(2);
        full * self.batch + (full..batches).map(|number| self.range(len, number).len()).sum::<usize>()
    }

    fn step(&self) -> usize {
        self.batch * self.shard.world
    }

    pub(crate) fn check(&self, len: usize) -> Result<()> {
        let Shard { rank, world } = self.shard;
        if self.batch == 0 {
            return Err(Error::config("batch", "at least 1", 0));
        }
        if let Order::Blocks { size, mixed } = self.order {
            for (field, found) in [("order.blocks.size", size), ("order.blocks.mixed", mixed)] {
                // Sums of both with a length stay far from the largest number.
                if !(1..=1 << 32).contains(&found) {
                    return Err(Error::config(field, "1 to 2³²", found));
                }
            }
        }
        if rank >= world {
            return Err(Error::config("shard.rank", format!("below the world of {world}"), rank));
        }
        if self.batch.checked_mul(world).is_none() {
            return Err(Error::config("batch", "a number of samples that fit in memory", self.batch));
        }
        let rest = len % self.step();
        let starved = self.last == Last::Keep && (1..world).contains(&rest);
        if starved && (self.batch == 1 || len < world) {
            let wanted = format!("a number that shares out {len} samples in batches of {}, or `last` = `drop`", self.batch);
            return Err(Error::config("shard.world", wanted, world));
        }
        Ok(())
    }

    /// Where batch `number` of this process lies in the order.
    fn range(&self, len: usize, number: usize) -> Range<usize> {
        let (step, world) = (self.step(), self.shard.world);
        let (full, rest) = (len / step, len % step);
        // A rest smaller than the world would leave some process without a last batch, and the others waiting for it. So the step before
        // gives up as many samples as make one for each.
        let lent = if self.last == Last::Keep && (1..world).contains(&rest) { world - rest } else { 0 };
        let end = |number: usize| match number {
            n if n < full => n * step + step - if n + 1 == full { lent } else { 0 },
            _ => len,
        };
        let start = if number == 0 { 0 } else { end(number - 1) };
        let size = end(number) - start;
        let share = |rank: usize| start + rank * size / world;
        share(self.shard.rank)..share(self.shard.rank + 1)
    }
}
