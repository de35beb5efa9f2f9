//! Which sample is in which batch: a pure function of length, rules (which may hold labels or weights) and epoch.
//!
//! Nothing here sees a picture, a thread or a clock. So resuming in the middle of an epoch is asking for batch `k` instead
//! of batch 0, and threads cannot change a batch, because they are not among the arguments.

mod draw;

use std::ops::Range;
use std::sync::Arc;

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

use draw::Lots;

/// In which order an epoch goes through a split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Each class as often as the others, however many samples it has, in an epoch as long as the split: rounds of one sample of each class,
    /// in random order. A class goes through all its samples before one comes again; a large one does not come to its end.
    Balanced,
    /// With replacement: each place of an epoch as long as the split gets a sample by weight, whatever is drawn for the others.
    Weighted {
        /// Of weight 2, a sample comes twice as often as of weight 1, on the average.
        weights: Vec<f64>,
        /// Whose weights they are. Default: each sample has one.
        #[serde(default)]
        per: Per,
    },
}

/// What has a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each sample of a split.
    #[default]
    Sample,
    /// Each class; it is the weight of each of its samples, so that large classes still come more often.
    Class,
}

impl Order {
    /// Whether it depends on the samples' classes.
    pub(crate) fn looks_at_labels(&self) -> bool {
        matches!(self, Self::Balanced | Self::Weighted { per: Per::Class, .. })
    }
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
#[derive(Debug, Clone, PartialEq)]
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
    /// The class of each sample, for [`Order::Balanced`] and weights [`Per::Class`]; other orders do not look at it.
    pub labels: Arc<[u32]>,
}

/// The batches of one epoch: any of them on request, in a memory of at most one permutation.
#[derive(Debug, Clone)]
pub struct Plans {
    len: usize,
    rules: Rules,
    sequence: Sequence,
    seeds: Seeds,
}

/// The positions of an epoch, one after the other.
#[derive(Debug, Clone)]
enum Sequence {
    /// 0, 1, 2 and so on.
    Straight,
    /// These.
    Listed(Vec<u64>),
    /// By weight.
    Drawn(Lots),
}

/// The randomness of an epoch but for its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seeds {
    augment: Seed,
    mix: Seed,
    /// Whether a sample may come more than once, and is then to look different.
    repeats: bool,
}

/// One batch to be: who is in it, and the randomness that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its number in the epoch.
    pub number: usize,
    /// Positions in the split.
    pub indices: Vec<u64>,
    /// The place in the epoch of the first of them.
    first: usize,
    seeds: Seeds,
}

impl Plan {
    /// The seed of the augmentation of sample `k` of the batch. It depends on the run's seed, the epoch and the sample's position in the split
    /// alone, not on the batch, so that what was done to a picture can be done again without the others. Where a sample may come more than
    /// once in an epoch, it depends on the place in the epoch too.
    ///
    /// # Panics
    /// When the batch has no sample `k`.
    pub fn seed(&self, k: usize) -> Seed {
        let seed = self.seeds.augment.at(self.indices[k]);
        if self.seeds.repeats { seed.at((self.first + k) as u64) } else { seed }
    }

    /// The seed of what is drawn once for all of the batch; the same for all processes of a step.
    pub fn mix_seed(&self) -> Seed {
        self.seeds.mix.at(self.number as u64)
    }
}

/// The batches of epoch `epoch` over `len` samples.
///
/// With a `world` of `w` processes, step `k` of all of them together is batch `k` of a single process with a `w` times larger batch.
/// The shards of an epoch are disjoint, have the same number of batches, none of them empty, and together hold each sample once
/// (with [`Last::Drop`]: all but the rest). Where samples may come more than once, this holds of the places of the epoch.
///
/// # Errors
/// When the batch is 0, the rank is not below the world, labels or weights are not as many as samples or are no weights, or the samples kept
/// at the end cannot be shared out so that each process has as many batches as the others.
pub fn plan(len: usize, rules: &Rules, epoch: u64) -> Result<Plans> {
    rules.check(len)?;
    Ok(Plans::new(len, rules, epoch))
}

impl Plans {
    /// As [`plan`], of rules that were checked against `len`.
    pub(crate) fn new(len: usize, rules: &Rules, epoch: u64) -> Self {
        let seed = rules.seed.named("order").at(epoch);
        let mut rng = seed.rng();
        let sequence = match rules.order {
            Order::Sequential => Sequence::Straight,
            Order::Shuffled => {
                let mut order: Vec<u64> = (0..len as u64).collect();
                rng.shuffle(&mut order);
                Sequence::Listed(order)
            }
            Order::Blocks { size, mixed } => {
                let mut blocks: Vec<usize> = (0..len.div_ceil(size)).collect();
                rng.shuffle(&mut blocks);
                let mut order = Vec::with_capacity(len);
                for blocks in blocks.chunks(mixed) {
                    let start = order.len();
                    order.extend(blocks.iter().flat_map(|&block| (block * size) as u64..(block * size + size).min(len) as u64));
                    rng.shuffle(&mut order[start..]);
                }
                Sequence::Listed(order)
            }
            Order::Balanced => Sequence::Listed(draw::balanced(&rules.labels, &mut rng)),
            Order::Weighted { ref weights, per: Per::Sample } => Sequence::Drawn(Lots::new(weights.iter().copied(), seed)),
            Order::Weighted { ref weights, per: Per::Class } => {
                Sequence::Drawn(Lots::new(rules.labels.iter().map(|&label| weights[label as usize]), seed))
            }
        };
        let seeds = Seeds {
            augment: rules.seed.named("augment").at(epoch),
            mix: rules.seed.named("mix_up").at(epoch),
            repeats: matches!(rules.order, Order::Balanced | Order::Weighted { .. }),
        };
        Self { len, rules: rules.clone(), sequence, seeds }
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
        let first = range.start;
        let indices = match &self.sequence {
            Sequence::Straight => (range.start as u64..range.end as u64).collect(),
            Sequence::Listed(order) => order[range].to_vec(),
            Sequence::Drawn(lots) => range.map(|place| lots.draw(place)).collect(),
        };
        Plan { number, indices, first, seeds: self.seeds }
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
        if self.order.looks_at_labels() && self.labels.len() != len {
            return Err(Error::config("labels", format!("one for each of {len} samples"), self.labels.len()));
        }
        match &self.order {
            Order::Sequential | Order::Shuffled | Order::Balanced => {}
            &Order::Blocks { size, mixed } => {
                for (field, found) in [("order.blocks.size", size), ("order.blocks.mixed", mixed)] {
                    // Sums of both with a length stay far from the largest number.
                    if !(1..=1 << 32).contains(&found) {
                        return Err(Error::config(field, "1 to 2³²", found));
                    }
                }
            }
            Order::Weighted { weights, per } => draw::check_weights(weights, *per, (len, &self.labels))?,
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
