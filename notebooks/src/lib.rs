//! Everything a notebook cell needs: `use topolab::*;`.
//!
//! evcxr links every cell as a library of its own. Were candle linked into each of them, each would count tensors by itself,
//! and gradients would be looked up under the wrong ids and come out wrong, in silence. So notebook-runner links this crate, and all below
//! it, into one dynamic library. Cells find that, and depend on no other package that brings candle.
//!
//! The names below are the prelude. Whatever is not among them is reached through its crate: `topolab::datasets::...`.

pub use {candle, candle_nn, datasets, lab, pipeline, polars, tokio};

pub use candle::{D, DType, Device, IndexOp, Module, Tensor, Var};

pub use datasets::synthetic::{segments, shapes};
pub use datasets::{Batch, Batches, Dataset, Image, Picture, Rng, Sample, Seed, Segments, Shapes, Source};

pub use pipeline::augment::{self, Transform};
pub use pipeline::convert::ensure;
pub use pipeline::decode::pictures;
pub use pipeline::inspect::{grid, inspect};
pub use pipeline::{Loader, Store, loader, order};

pub use lab::figure::picture_grid;
pub use lab::metrics::{accuracy, gaussian, ldi, nn_mass, profile};
pub use lab::models::{Spec, dense_cnn, dense_mlp};
pub use lab::sweep::Run;
pub use lab::{Activation, Builder, Conv, Figure, Graph, Model, Params, Pool, Recipe, Schedule, Table};
pub use lab::{design, device, draw, evaluate, exec, fit, metrics, models, show, stats, sweep, train};

/// The store of a public data set (`mnist`, `fashion-mnist`, `kmnist`, `cifar10`, `cifar100` or `tiny-imagenet`), `stores/NAME.lmdb`: opened
/// where it is there; where it is not, downloaded with a progress bar, and converted. The published files are kept in `topolab/data` in the
/// user's cache (`$XDG_CACHE_HOME` or `~/.cache`), for all notebooks and for `pipeline convert NAME`.
///
/// # Errors
/// As [`pipeline::convert::ensure_public`].
pub fn ensure_public(name: &str, stores: impl AsRef<std::path::Path>) -> pipeline::Result<Store> {
    let cache = datasets::download::default_folder(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir());
    let downloads = cache.unwrap_or_else(|| stores.as_ref().join("downloads"));
    pipeline::convert::ensure_public(name, stores, downloads, show::downloading())
}
