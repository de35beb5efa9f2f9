//! A graph with weights on a device: what a notebook holds.

use std::path::Path;

use candle::{Device, Tensor};
use datasets::Seed;

use crate::exec::{self, Mode, Trace};
use crate::graph::Graph;
use crate::metrics::profile::{self, Profile};
use crate::params::Params;
use crate::{Error, Result};

/// A network that can be run, looked into, trained, saved and loaded.
#[derive(Debug, Clone)]
pub struct Model {
    /// The architecture.
    pub graph: Graph,
    /// Its weights.
    pub params: Params,
    /// Where they live.
    pub device: Device,
    /// The copy of this library that made the weights: see [`Model::check_copy`].
    made_by: usize,
}

/// Where this copy of the library lies in memory.
static HOME: u8 = 0;

impl Model {
    /// Fresh weights for a graph: a function of `seed` and the parameters' names.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn new(graph: Graph, seed: Seed, device: &Device) -> Result<Self> {
        let params = Params::init(&graph, seed, device)?;
        Ok(Self { graph, params, device: device.clone(), made_by: home() })
    }

    /// The same network with other weights of its own shape.
    #[must_use]
    pub fn with(&self, params: Params) -> Self {
        Self { params, ..self.clone() }
    }

    /// Weights from a file; see [`Params::load`].
    ///
    /// # Errors
    /// When the file cannot be read or does not fit the graph.
    pub fn load(graph: Graph, path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let params = Params::load(&graph, path, device)?;
        Ok(Self { graph, params, device: device.clone(), made_by: home() })
    }

    /// Writes the weights to a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.params.save(path)
    }

    /// Logits `(n, classes)` of `xs` `(n, ...)`, with running statistics.
    ///
    /// # Errors
    /// When `xs` is not of the input's shape.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(exec::forward(&self.graph, &self.params, xs, Mode::Eval)?.value)
    }

    /// Every node's value for `xs` `(n, ...)`, with a probe for the gradient at each.
    ///
    /// # Errors
    /// When `xs` is not of the input's shape.
    pub fn trace(&self, xs: &Tensor) -> Result<Trace> {
        self.check_copy()?;
        exec::trace(&self.graph, &self.params, xs)
    }

    /// What the network costs: parameters and MACs, node by node.
    pub fn profile(&self) -> Profile {
        profile::of(&self.graph)
    }

    /// Two copies of candle in one process number their tensors independently, and file gradients under the wrong ones:
    /// no error, wrong numbers. A notebook gets there by a second `:dep` on candle or on this crate. So a model knows the
    /// copy that made it, and whatever needs gradients asks.
    ///
    /// # Errors
    /// When another copy of this library made the model.
    pub fn check_copy(&self) -> Result<()> {
        if self.made_by == home() {
            return Ok(());
        }
        let wanted = "one copy of the library: depend on `topolab` alone, restart the kernel";
        Err(Error::mismatch(format!("{}: gradients", self.graph.name), wanted, "a model made by a second copy"))
    }
}

fn home() -> usize {
    (&raw const HOME).addr()
}
