//! What a client asks for, and what it is told about it, both as JSON.

use datasets::Normalize;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::loader::Config;
use crate::{Error, Result};

/// Bytes of the largest batch.
const LARGEST_BATCH: usize = 256 << 20;
/// Most samples in a batch, and most steps and the largest number in a list of transforms: with them nobody has a small picture resized to fill
/// the memory.
const MOST_SAMPLES: usize = 1 << 16;
const MOST_TRANSFORMS: usize = 32;
const LARGEST_NUMBER: f64 = 2048.0;
const LONGEST_NAME: usize = 200;

/// One epoch, or the rest of one, of one data set: what `DoGet` is shown, as JSON.
///
/// ```json
/// {"dataset": "tiny", "epoch": 3, "start": 17, "loader": {"split": "train", "batch": 128, "transforms": [{"pad_crop": {"size": 64, "pad": 8}}]}}
/// ```
///
/// All but `dataset` may be left out. A data set is named, never a file: nothing in a ticket reaches the file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The data set's name at the server.
    pub dataset: String,
    /// Which samples, in which order, and what is done to them; but `threads` and `cache`, which are the server's.
    #[serde(default)]
    pub loader: Config,
    /// The epoch. Default 0.
    #[serde(default)]
    pub epoch: u64,
    /// The first batch wanted. Default 0.
    #[serde(default)]
    pub start: usize,
    /// With whom the epoch is shared. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// A place in a group of consumers: each batch of an epoch goes to one of them, whoever has room for it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group's name; another one is another epoch. A run's name does.
    pub name: String,
    /// This consumer's name. With it, one that was cut off and asks again gets what was on its way to it; without, that is gone.
    #[serde(default)]
    pub member: String,
    /// The last batch that this member received, when it asks again; a member that names none gets again all that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<usize>,
}

/// What a ticket leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The data set's name at the server.
    pub dataset: String,
    /// The split's name.
    pub split: String,
    /// Number of samples in an epoch.
    pub samples: usize,
    /// Number of batches in an epoch.
    pub batches: usize,
    /// `[c, h, w]` of each picture, or `[v, c, h, w]` of `v` views of each.
    pub shape: Vec<usize>,
    /// The classes' names.
    pub classes: Vec<String>,
    /// What to do to `u8` pixels; without it they become `p / 255`.
    pub normalize: Option<Normalize>,
    /// A hash of the store's content.
    pub content: String,
}

impl Ticket {
    /// The ticket that these bytes are.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let ticket: Self = serde_json::from_slice(bytes).map_err(|error| Error::config("ticket", "a ticket as JSON", error))?;
        ticket.check()?;
        Ok(ticket)
    }

    /// As JSON.
    pub(super) fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// What can be said against it before a picture is looked at.
    fn check(&self) -> Result<()> {
        let Config { batch, transforms, threads, cache, .. } = &self.loader;
        if !(1..=MOST_SAMPLES).contains(batch) {
            return Err(Error::config("loader.batch", format!("1 to {MOST_SAMPLES}"), batch));
        }
        if *threads != 0 {
            return Err(Error::config("loader.threads", "0, since the threads are the server's", threads));
        }
        if *cache != 0 {
            return Err(Error::config("loader.cache", "0, since the memory is the server's", cache));
        }
        if transforms.len() > MOST_TRANSFORMS {
            return Err(Error::config("loader.transforms", format!("at most {MOST_TRANSFORMS}"), transforms.len()));
        }
        let largest = largest(&serde_json::json!(transforms));
        if largest > LARGEST_NUMBER {
            return Err(Error::config("loader.transforms", format!("numbers up to {LARGEST_NUMBER}"), largest));
        }
        let names = self.group.iter().flat_map(|group| [&group.name, &group.member]);
        if let Some(long) = names.map(String::len).find(|&length| length > LONGEST_NAME) {
            return Err(Error::config("group", format!("names of at most {LONGEST_NAME} bytes"), long));
        }
        Ok(())
    }

    /// Bytes of the pictures of a batch, of this shape each, if they can be sent.
    pub(super) fn size(&self, shape: &[usize]) -> Result<usize> {
        let bytes = self.loader.batch * shape.iter().product::<usize>() * self.loader.output.bytes();
        if bytes > LARGEST_BATCH {
            return Err(Error::config("loader.batch", format!("batches of at most {LARGEST_BATCH} bytes"), format!("{bytes} bytes")));
        }
        Ok(bytes)
    }
}

fn largest(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or(f64::INFINITY).abs(),
        Value::Array(values) => values.iter().map(largest).fold(0.0, f64::max),
        Value::Object(fields) => fields.values().map(largest).fold(0.0, f64::max),
        Value::Null | Value::Bool(_) | Value::String(_) => 0.0,
    }
}
