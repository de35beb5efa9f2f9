//! A run on disk: whole after any kind of end, and taken up again only by the run it belongs to.
//!
//! A checkpoint is two files: `step-<n>.safetensors` with every tensor of the run, and beside it `checkpoint.json` with the
//! rest, which names it. Both are written aside and renamed, the JSON last: until then the old pair counts, from then on the
//! new one, and what belongs to neither is removed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use candle::{Device, Var};
use datasets::Batches;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fit::State;
use super::score::Tally;
use super::{Epoch, Recipe};
use crate::model::Model;
use crate::params::{Params, write_whole};
use crate::{Error, Result};

/// What the files mean. Another number is another meaning, and refused.
const FORMAT: u64 = 1;

/// Where and how often a run is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// A folder for this run alone; made where it is not there.
    pub folder: PathBuf,
    /// Steps between two checkpoints. There is one after each epoch in any case.
    pub every: usize,
}

/// A checkpoint's folder, locked for one run.
pub(super) struct Keeper<'a> {
    place: &'a Checkpoint,
    /// What has to agree between a run and its checkpoint.
    run: Value,
    lock: File,
}

impl Drop for Keeper<'_> {
    fn drop(&mut self) {
        // Closing alone would do, were there not the programs that others start meanwhile, each with a copy for a moment.
        let _ = self.lock.unlock();
    }
}

impl<'a> Keeper<'a> {
    /// # Errors
    /// When the folder cannot be written, or another run keeps its checkpoints there.
    pub(super) fn open(place: &'a Checkpoint, model: &Model, train: &dyn Batches, recipe: &Recipe) -> Result<Self> {
        if place.every == 0 {
            return Err(Error::mismatch("checkpoint: every", "at least 1 step", 0));
        }
        let folder = &place.folder;
        fs::create_dir_all(folder).map_err(|source| Error::io(folder, "make the folder", source))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(|source| Error::io(&path, "write the file", source))?;
        crate::lock::try_lock(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => {
                Error::mismatch(folder.display().to_string(), "one run at a time", "another that keeps its checkpoints here")
            }
            TryLockError::Error(source) => Error::io(&path, "lock the file", source),
        })?;
        let structure = Sha256::digest(json(&model.graph)?);
        let structure: String = structure.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let run = serde_json::json!({
            "graph": model.graph.name,
            "structure": structure,
            "samples": train.samples(),
            "batches": train.batches(),
            "recipe": recipe,
        });
        // Through text, as what it will be compared with.
        let run = serde_json::from_slice(&json(&run)?).map_err(|error| Error::mismatch("checkpoint", "JSON", error))?;
        Ok(Self { place, run, lock })
    }

    /// Writes where the run is.
    ///
    /// # Errors
    /// When a file cannot be written; the checkpoint before stays.
    pub(super) fn save(&self, state: &State, params: &Params) -> Result<()> {
        let tensors = format!("step-{}.safetensors", state.done);
        let entries = entries(state, params);
        let bytes = safetensors::serialize(entries.iter().map(|(name, var)| (name, var.as_tensor())), None).map_err(candle::Error::wrap)?;
        write_whole(&self.place.folder.join(&tensors), &bytes)?;
        let saved = Saved { format: FORMAT, run: self.run.clone(), state: state.into(), tensors };
        write_whole(&self.path(), &json(&saved)?)?;
        self.clean(&saved.tensors)
    }

    /// Puts the run where its checkpoint left it, if there is one.
    ///
    /// # Errors
    /// When the checkpoint is of another format, architecture, recipe or data: the message says what differs; or a file
    /// cannot be read.
    pub(super) fn restore(&self, state: &mut State, params: &Params) -> Result<()> {
        let path = self.path();
        if !path.exists() {
            return Ok(());
        }
        let bytes = fs::read(&path).map_err(|source| Error::io(&path, "read the checkpoint", source))?;
        let differs = |what: &str, wanted: String, found: String| Error::mismatch(format!("{}: {what}", path.display()), wanted, found);
        let broken = |error: serde_json::Error| differs("text", "a checkpoint".to_owned(), error.to_string());
        let found: Value = serde_json::from_slice(&bytes).map_err(broken)?;
        if found["format"] != FORMAT {
            return Err(differs("format", FORMAT.to_string(), found["format"].to_string()));
        }
        if let Some((what, wanted, found)) = difference(&self.run, &found["run"]) {
            return Err(differs(&what, wanted, found));
        }
        let saved: Saved = serde_json::from_slice(&bytes).map_err(broken)?;
        let path = self.place.folder.join(&saved.tensors);
        let bytes = fs::read(&path).map_err(|source| Error::io(&path, "read the checkpoint", source))?;
        // To host memory: a variable takes it from there to where it lives.
        let tensors = candle::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        for (name, var) in entries(state, params) {
            let Some(tensor) = tensors.get(&name).filter(|tensor| tensor.dims() == var.dims()) else {
                let found = tensors.get(&name).map_or("no such name".to_owned(), |tensor| format!("{:?}", tensor.dims()));
                return Err(Error::mismatch(format!("{}: {name}", path.display()), format!("{:?}", var.dims()), found));
            };
            var.set(&tensor.to_device(var.device())?)?;
        }
        saved.state.put_into(state);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.place.folder.join("checkpoint.json")
    }

    /// Removes tensors that no checkpoint names: of the one before, and of one whose writing was cut short.
    fn clean(&self, keep: &str) -> Result<()> {
        let folder: &Path = &self.place.folder;
        let listed = fs::read_dir(folder).map_err(|source| Error::io(folder, "list the folder", source))?;
        for entry in listed.filter_map(|entry| entry.ok()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.trim_start_matches('.').starts_with("step-") && name.contains(".safetensors");
            if ours && name != keep {
                fs::remove_file(entry.path()).map_err(|source| Error::io(entry.path(), "remove the old checkpoint", source))?;
            }
        }
        Ok(())
    }
}

/// Every variable of a run, under a name of its own.
pub(super) fn entries<'a>(state: &'a State, params: &'a Params) -> Vec<(String, &'a Var)> {
    let weights =
        |stem: &'static str, params: &'a Params| params.iter().map(move |(parameter, var)| (format!("{stem}.{}", parameter.name), var));
    let average = state.average.iter().flat_map(|average| weights("average", average));
    weights("model", params).chain(state.memory.entries(params)).chain(average).collect()
}

/// The first thing in which two texts of JSON differ: its dotted name, what was wanted, what was found.
fn difference(wanted: &Value, found: &Value) -> Option<(String, String, String)> {
    let (Value::Object(wanted), Value::Object(found)) = (wanted, found) else {
        return (wanted != found).then(|| (String::new(), wanted.to_string(), found.to_string()));
    };
    let nothing = Value::String("nothing".to_owned());
    let of = |map: &serde_json::Map<String, Value>, name: &String| map.get(name).unwrap_or(&nothing).clone();
    wanted.keys().chain(found.keys()).find_map(|name| {
        let (inner, wanted, found) = difference(&of(wanted, name), &of(found, name))?;
        let name = if inner.is_empty() { name.clone() } else { format!("{name}.{inner}") };
        Some((name, wanted, found))
    })
}

/// `checkpoint.json`.
#[derive(Serialize, Deserialize)]
struct Saved {
    format: u64,
    run: Value,
    state: SavedState,
    tensors: String,
}

#[derive(Serialize, Deserialize)]
struct SavedState {
    /// Epochs done.
    epoch: usize,
    /// Steps of the epoch under way.
    step: usize,
    /// Steps in all.
    done: usize,
    /// `None`: whole batches.
    micro_batch: Option<usize>,
    /// Of the epoch under way.
    loss: Exact,
    hits: usize,
    samples: usize,
    history: Vec<SavedEpoch>,
}

#[derive(Serialize, Deserialize)]
struct SavedEpoch {
    epoch: usize,
    lr: Exact,
    train_loss: Exact,
    train_accuracy: Exact,
    test_loss: Option<Exact>,
    test_accuracy: Option<Exact>,
}

/// A number as a text, because `serde_json` reads numbers back only to within their last bit. A text also holds a NaN.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Exact(f64);

impl From<Exact> for String {
    fn from(exact: Exact) -> Self {
        format!("{:?}", exact.0)
    }
}

impl TryFrom<String> for Exact {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<&State> for SavedState {
    fn from(state: &State) -> Self {
        let epoch = |row: &Epoch| SavedEpoch {
            epoch: row.epoch,
            lr: Exact(row.lr),
            train_loss: Exact(row.train_loss),
            train_accuracy: Exact(row.train_accuracy),
            test_loss: row.test_loss.map(Exact),
            test_accuracy: row.test_accuracy.map(Exact),
        };
        Self {
            epoch: state.history.len(),
            step: state.step,
            done: state.done,
            micro_batch: (state.micro_batch < usize::MAX).then_some(state.micro_batch),
            loss: Exact(state.tally.loss),
            hits: state.tally.hits,
            samples: state.tally.samples,
            history: state.history.iter().map(epoch).collect(),
        }
    }
}

impl SavedState {
    fn put_into(self, state: &mut State) {
        let epoch = |row: SavedEpoch| Epoch {
            epoch: row.epoch,
            lr: row.lr.0,
            train_loss: row.train_loss.0,
            train_accuracy: row.train_accuracy.0,
            test_loss: row.test_loss.map(|exact| exact.0),
            test_accuracy: row.test_accuracy.map(|exact| exact.0),
        };
        (state.step, state.done) = (self.step, self.done);
        state.micro_batch = self.micro_batch.unwrap_or(usize::MAX);
        state.tally = Tally { loss: self.loss.0, hits: self.hits, samples: self.samples };
        state.history = self.history.into_iter().map(epoch).collect();
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::mismatch("checkpoint", "values that JSON can hold", error))
}
