//! Network architectures as values, and everything one asks of them, on candle.
//!
//! ```
//! use datasets::Seed;
//! use lab::{Model, device, metrics::nn_mass, models::dense_mlp};
//!
//! let graph = dense_mlp::Config::mnist(8, 8, 10).graph(Seed(0))?;
//! assert_eq!(format!("{:.4}", nn_mass::of(&graph)?), "22.0952");
//!
//! let model = Model::new(graph, Seed(0), &device::pick(device::Want::Cpu)?)?;
//! assert_eq!(model.profile().params, 7_286);
//! # Ok::<(), lab::Error>(())
//! ```
//!
//! A [`models`] file turns a config into a [`graph::Graph`]; [`exec`] runs it on [`params::Params`], [`train`] changes
//! them; [`metrics`] are functions of a graph, a trace or predictions. [`Model`] holds graph, weights and device together.
//!
//! Notation: `n` batch, `c` channels, `h` rows, `w` columns, `d` features, `k` classes. Tensors are `f32`, NCHW.
//! Accuracy is a fraction, loss in nats, one MAC a multiply-add. The crate reads no pictures and knows no store: what it
//! trains on comes as [`datasets::Batches`].

pub mod design;
pub mod device;
pub mod draw;
pub mod exec;
pub mod figure;
pub mod graph;
pub mod kernels;
pub mod metrics;
pub mod models;
pub mod onnx;
pub mod params;
pub mod rewrite;
pub mod show;
pub mod spectrum;
pub mod stats;
pub mod sweep;
pub mod table;
pub mod train;
pub mod weights;

mod error;
mod lock;
mod model;

pub use error::{Error, Result};
pub use figure::Figure;
pub use graph::{Builder, Conv, Graph};
pub use kernels::{Activation, Pool};
pub use model::Model;
pub use params::Params;
pub use table::Table;
pub use train::{Recipe, Schedule, evaluate, fit};
