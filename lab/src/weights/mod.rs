//! Weights from files: safetensors, and the state dicts of PyTorch.
//!
//! Entries are found by name. Numbers stored as `f16`, `bf16` or `f64` become `f32`. What does not fit (names that are missing
//! or left over, other shapes) is told in one error, all of it, since the reason is often one renamed layer.

mod torch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Parameter};
use crate::params::Params;
use crate::{Error, Result};

/// How the names in a file become those of a graph: prefixes are taken off, texts replaced, and what is to be ignored is left
/// out, in this order. A name that the graph has already stays as it is.
///
/// ```
/// use lab::weights::Names;
///
/// let names: Names = serde_json::from_str(r#"{"strip": ["backbone."], "replace": [[".shortcut.", ".downsample."]]}"#)?;
/// assert_eq!(names.translate("backbone.layer2.0.shortcut.0.weight").as_deref(), Some("layer2.0.downsample.0.weight"));
/// assert_eq!(names.translate("bn1.num_batches_tracked"), None);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Prefixes, each taken off where a name has it. By default `module.`, which `DataParallel` puts there.
    pub strip: Vec<String>,
    /// A text and what stands for it, wherever in a name it is.
    pub replace: Vec<(String, String)>,
    /// What ignored names contain. By default `num_batches_tracked`, which nothing here counts.
    pub ignore: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        Self { strip: vec!["module.".to_owned()], replace: Vec::new(), ignore: vec!["num_batches_tracked".to_owned()] }
    }
}

impl Names {
    /// The graph's name for a file's; `None` where it is ignored.
    pub fn translate(&self, name: &str) -> Option<String> {
        let bare = self.strip.iter().fold(name, |name, prefix| name.strip_prefix(prefix.as_str()).unwrap_or(name));
        let name = self.replace.iter().fold(bare.to_owned(), |name, (from, to)| name.replace(from, to));
        (!self.ignore.iter().any(|part| name.contains(part.as_str()))).then_some(name)
    }
}

/// The parameters of `graph` out of a file, as `f32`; see [`Params::load`].
///
/// # Errors
/// When the file cannot be read, or does not hold exactly the graph's parameters: the message names the file and everything
/// that is missing, left over, or of another shape.
pub fn load(graph: &Graph, path: impl AsRef<Path>, names: &Names, device: &Device) -> Result<Params> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, "read the weights", source))?;
    let what = path.display().to_string();
    let mut file =
        File::open(&bytes).map_err(|found| Error::mismatch(&what, "weights in safetensors, or a state dict of PyTorch", found))?;
    let wanted = graph.parameters();
    let entries = assign(&wanted, &file.entries(), names)
        .map_err(|misfit| Error::mismatch(&what, format!("the parameters of {}", graph.name), misfit))?;
    let mut value = |entry: &str, shape: &[usize]| file.values(entry)?.reshape(shape)?.to_device(device);
    Params::collect(graph, |parameter| {
        let entry = &entries[&parameter.name];
        value(entry, &parameter.shape).map_err(|error| candle::Error::Msg(format!("{what}: {entry}: {error}")))
    })
}

/// For each parameter the file's name of its entry.
fn assign(wanted: &[Parameter], entries: &BTreeMap<String, Entry>, names: &Names) -> Result<BTreeMap<String, String>, Misfit> {
    let mut missing: BTreeMap<&str, &Parameter> = wanted.iter().map(|parameter| (parameter.name.as_str(), parameter)).collect();
    let known = missing.clone();
    let (mut assigned, mut misfit) = (BTreeMap::new(), Misfit::default());
    for (theirs, Entry { shape, dtype }) in entries {
        let translated = if known.contains_key(theirs.as_str()) { Some(theirs.clone()) } else { names.translate(theirs) };
        let Some(ours) = translated else { continue };
        match (missing.remove(ours.as_str()), known.get(ours.as_str())) {
            (Some(parameter), _) if *shape != parameter.shape => {
                misfit.other.push(format!("{theirs} {shape:?} instead of {:?}", parameter.shape));
            }
            (Some(_), _) => match dtype {
                Ok(dtype) if FLOATS.contains(dtype) => drop(assigned.insert(ours, theirs.clone())),
                Ok(other) => misfit.other.push(format!("{theirs} in {} instead of floats", other.as_str())),
                Err(other) => misfit.other.push(format!("{theirs} in {other} instead of floats")),
            },
            (None, Some(_)) => misfit.twice.push(format!("{theirs} for {ours}")),
            (None, None) => misfit.strange.push(theirs.clone()),
        }
    }
    misfit.missing = wanted.iter().filter(|parameter| missing.contains_key(parameter.name.as_str())).map(|p| p.name.clone()).collect();
    if misfit == Misfit::default() { Ok(assigned) } else { Err(misfit) }
}

/// Why a file is not the weights of a graph.
#[derive(Debug, Default, PartialEq)]
struct Misfit {
    /// In another shape, or no numbers of that kind.
    other: Vec<String>,
    /// A second entry for a parameter.
    twice: Vec<String>,
    missing: Vec<String>,
    /// Nothing in the graph is called so.
    strange: Vec<String>,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As many names as one reads; a wrong architecture has hundreds.
        const MOST: usize = 12;
        let mut parts = Vec::new();
        for (what, names) in
            [("", &self.other), ("two of one parameter: ", &self.twice), ("no ", &self.missing), ("unknown ", &self.strange)]
        {
            if !names.is_empty() {
                let more = names.len().checked_sub(MOST).filter(|&more| more > 0);
                let listed = names[..names.len().min(MOST)].join(", ");
                parts.push(format!("{what}{listed}{}", more.map_or(String::new(), |more| format!(" and {more} more"))));
            }
        }
        f.write_str(&parts.join("; "))
    }
}

/// What a file says of an entry.
struct Entry {
    shape: Vec<usize>,
    /// How its numbers are stored; a name where candle has no such type.
    dtype: Result<DType, String>,
}

/// What becomes `f32`.
const FLOATS: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

/// A file of named numbers, in memory.
enum File<'b> {
    Safetensors(SafeTensors<'b>),
    Torch(torch::StateDict<'b>),
}

impl<'b> File<'b> {
    /// Told by its first bytes; the error says what it is instead.
    fn open(bytes: &'b [u8]) -> Result<Self, String> {
        match bytes {
            [b'P', b'K', ..] => torch::StateDict::open(bytes).map(Self::Torch),
            // A pickle: what `torch.save` wrote until 2020.
            [0x80, 1..=5, ..] => Err("the format before PyTorch 1.6; `torch.save(torch.load(file), file)` renews it".to_owned()),
            _ => SafeTensors::deserialize(bytes).map(Self::Safetensors).map_err(|error| error.to_string()),
        }
    }

    fn entries(&self) -> BTreeMap<String, Entry> {
        match self {
            Self::Safetensors(file) => {
                let entry = |view: safetensors::tensor::TensorView<'_>| Entry {
                    shape: view.shape().to_vec(),
                    dtype: view.dtype().try_into().map_err(|_| format!("{:?}", view.dtype())),
                };
                file.tensors().into_iter().map(|(name, view)| (name, entry(view))).collect()
            }
            Self::Torch(file) => file.entries(),
        }
    }

    /// The numbers of an entry, in rows.
    fn values(&mut self, name: &str) -> candle::Result<Tensor> {
        match self {
            Self::Safetensors(file) => {
                let view = file.tensor(name).map_err(candle::Error::wrap)?;
                numbers(view.data(), view.dtype().try_into()?)
            }
            Self::Torch(file) => file.values(name),
        }
    }
}

/// Stored numbers, one after the other, as `f32`.
fn numbers(bytes: &[u8], dtype: DType) -> candle::Result<Tensor> {
    let count = bytes.len() / dtype.size_in_bytes();
    Tensor::from_raw_buffer(bytes, dtype, &[count], &Device::Cpu)?.to_dtype(DType::F32)
}
