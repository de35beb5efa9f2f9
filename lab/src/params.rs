//! The weights of a graph: in the graph's order, drawn by (seed, name), saved as safetensors under PyTorch's names.

use std::collections::BTreeMap;
use std::path::Path;

use candle::{DType, Device, Tensor, Var};
use datasets::Seed;

use crate::graph::{Graph, Init, NodeId, Parameter};
use crate::weights::{self, Names};
use crate::{Error, Result};

/// The parameters of one graph, on one device.
#[derive(Debug, Clone)]
pub struct Params {
    entries: Vec<(Parameter, Var)>,
    /// Where each node's parameters start.
    starts: BTreeMap<NodeId, usize>,
}

impl Params {
    /// Fresh parameters, `f32`, from what each is to be drawn; see [`Init`]. A parameter depends on `seed` and its name alone.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn init(graph: &Graph, seed: Seed, device: &Device) -> Result<Self> {
        let draw = |parameter: &Parameter| {
            let fan_in = parameter.fan_in as f64;
            let fan_out = parameter.shape.iter().enumerate().map(|(at, &size)| if at == 1 { 1 } else { size }).product::<usize>() as f64;
            let mut rng = seed.named(&parameter.name).rng();
            let mut number = || match parameter.init {
                Init::Uniform => rng.range(-1.0 / fan_in.sqrt(), 1.0 / fan_in.sqrt()),
                Init::KaimingIn => rng.normal() * (2.0 / fan_in).sqrt(),
                Init::KaimingOut => rng.normal() * (2.0 / fan_out).sqrt(),
                Init::Normal { std } => rng.normal() * std,
                Init::Constant(value) => value,
            };
            let values: Vec<f32> = (0..parameter.len()).map(|_| number() as f32).collect();
            Tensor::from_vec(values, parameter.shape.as_slice(), device)
        };
        Self::collect(graph, draw)
    }

    /// The parameters of `graph` out of a file: safetensors, or a state dict that PyTorch saved (`.pth`, `.pt`), also one under
    /// `state_dict` or `model` beside other things, its names with or without `module.` in front. For other names see
    /// [`weights::load`].
    ///
    /// # Errors
    /// When the file cannot be read, or names or shapes differ from the graph's: the message tells all that do. PyTorch's
    /// `num_batches_tracked` may be there.
    pub fn load(graph: &Graph, path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        weights::load(graph, path, &Names::default(), device)
    }

    /// The parameters of `graph`, each a copy of its `value`.
    pub(crate) fn collect(graph: &Graph, mut value: impl FnMut(&Parameter) -> candle::Result<Tensor>) -> Result<Self> {
        let mut starts = BTreeMap::new();
        let mut entries = Vec::new();
        for parameter in graph.parameters() {
            starts.entry(parameter.node).or_insert(entries.len());
            let var = Var::from_tensor(&value(&parameter)?)?;
            entries.push((parameter, var));
        }
        Ok(Self { entries, starts })
    }

    /// Writes all parameters to a safetensors file; the file appears whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let tensors = self.entries.iter().map(|(parameter, var)| (parameter.name.as_str(), var.as_tensor()));
        let bytes = safetensors::serialize(tensors, None).map_err(candle::Error::wrap)?;
        write_whole(path, &bytes)
    }

    /// Every parameter with what the graph says of it, in the graph's order.
    pub fn iter(&self) -> impl Iterator<Item = (&Parameter, &Var)> {
        self.entries.iter().map(|(parameter, var)| (parameter, var))
    }

    /// Those that gradients change.
    pub fn trainable(&self) -> impl Iterator<Item = (&Parameter, &Var)> {
        self.iter().filter(|(parameter, _)| parameter.role.trainable())
    }

    /// The parameter of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<&Var> {
        let found = self.iter().find(|(parameter, _)| parameter.name == name);
        found.map(|(_, var)| var).ok_or_else(|| Error::mismatch("params", "a parameter's name", format!("`{name}`")))
    }

    /// Puts other values in place of a parameter's.
    ///
    /// # Errors
    /// When there is no such parameter, or it has another shape.
    pub fn set(&self, name: &str, value: &Tensor) -> Result<()> {
        let var = self.get(name)?;
        if var.dims() != value.dims() {
            return Err(Error::mismatch(format!("params: {name}"), format!("{:?}", var.dims()), format!("{:?}", value.dims())));
        }
        let value = value.to_dtype(var.dtype())?.to_device(var.device())?;
        Ok(var.set(&value)?)
    }

    /// The same values as another type: `f64` for what `f32` rounds away.
    ///
    /// # Errors
    /// When `dtype` is no type of floating-point numbers.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if !dtype.is_float() {
            return Err(Error::mismatch("params: type", "floating-point numbers", dtype.as_str()));
        }
        let cast =
            |(parameter, var): &(Parameter, Var)| Ok((parameter.clone(), Var::from_tensor(&var.as_detached_tensor().to_dtype(dtype)?)?));
        Ok(Self { entries: self.entries.iter().map(cast).collect::<Result<_>>()?, starts: self.starts.clone() })
    }

    /// The same values in variables of their own.
    pub(crate) fn copied(&self) -> Result<Self> {
        let copy = |(parameter, var): &(Parameter, Var)| Ok((parameter.clone(), Var::from_tensor(&var.as_detached_tensor().copy()?)?));
        Ok(Self { entries: self.entries.iter().map(copy).collect::<Result<_>>()?, starts: self.starts.clone() })
    }

    /// The parameters of a node, in the order of [`Graph::parameters`].
    pub(crate) fn of(&self, node: NodeId) -> &[(Parameter, Var)] {
        let Some(&start) = self.starts.get(&node) else { return &[] };
        let own = self.entries[start..].iter().take_while(|(parameter, _)| parameter.node == node).count();
        &self.entries[start..start + own]
    }
}

/// Writes a file aside and renames it, so that its name never stands for half of it.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;

    let aside = path.with_file_name(format!(".{}.partial", path.file_name().unwrap_or_default().to_string_lossy()));
    let write = || {
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|source| Error::io(path, "write the file", source))
}
