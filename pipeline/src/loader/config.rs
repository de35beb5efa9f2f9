//! What a loader is asked for.

use datasets::Seed;
use serde::{Deserialize, Serialize};

use crate::augment::{Transform, normalize::Constants};
use crate::decode::Channels;
use crate::order::{Last, Order, Rules, Shard};
use crate::{Error, Result, Store};

/// Which samples, in which order, and what is done to them on the way; the fields stand as the data flows.
///
/// As JSON, in a file or a ticket of `topolab data serve`, where any field may be left out:
///
/// ```
/// let config: pipeline::loader::Config = serde_json::from_str(r#"{
///     "split": "train", "batch": 128, "order": "balanced", "seed": 0,
///     "transforms": [
///         {"rotate": {"degrees": [-15, 15], "between": "bilinear"}},
///         {"random_resized_crop": {"size": 224}},
///         {"colour_jitter": {"brightness": [0.6, 1.4], "contrast": [0.6, 1.4], "saturation": [0.6, 1.4], "hue": [-0.1, 0.1]}},
///         {"flip": {"p": 0.5}}
///     ],
///     "mix_up": 0.2, "normalize": "imagenet", "output": "f32"
/// }"#)?;
/// assert_eq!(config.transforms.len(), 4);
/// # Ok::<(), serde_json::Error>(())
/// ```
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
    /// Mixes the samples of each batch, and says so in it (mix-up); the parameter of the Beta distribution that shares come from, above 0 and at
    /// most 1, usually 0.2. Pixels are rounded: within half a level of what mixing normalised ones would give. Default: nothing is mixed.
    pub mix_up: Option<f64>,
    /// Which means and deviations. Default: the store's own.
    pub normalize: Constants,
    /// What a batch is made of. Default: pixels, normalised by whoever reads them.
    pub output: Output,
    /// Threads that make batches; 0, the default, is one a core. They do not change a batch.
    pub threads: usize,
    /// Bytes that decoded pictures may take, so that later epochs need not decode them again; 0, the default, keeps none. They do not change a
    /// batch. Worth it where all of a split fits: the 100,000 pictures of TinyImageNet take 1.2 GB. Pixels that are stored raw are not
    /// kept, since the system does so.
    pub cache: u64,
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

impl Output {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 => size_of::<u8>(),
            Self::F32 => size_of::<f32>(),
        }
    }
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
            mix_up: None,
            normalize: Constants::default(),
            output: Output::default(),
            threads: 0,
            cache: 0,
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

    /// How split `split` of `store` is cut into batches. Labels are read only where the order asks for them.
    pub(super) fn rules(&self, store: &Store, split: usize) -> Result<Rules> {
        let labels = if self.order.looks_at_labels() { store.labels(split)? } else { [].into() };
        Ok(Rules { batch: self.batch, order: self.order.clone(), last: self.last, shard: self.shard, seed: self.seed, labels })
    }

    /// What has to hold whatever the store.
    pub(super) fn check(&self) -> Result<()> {
        match self.mix_up {
            Some(alpha) if !(alpha > 0.0 && alpha <= 1.0) => Err(Error::config("mix_up", "more than 0, at most 1", alpha)),
            _ => self.normalize.check(self.output),
        }
    }
}
