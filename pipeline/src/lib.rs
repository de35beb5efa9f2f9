//! LMDB image stores, and the loader that reads them ahead of training.
//!
//! [`convert`](convert::convert) copies any [`Dataset`](datasets::Dataset) into a [`Store`]: one file that holds pictures as they
//! came (JPEG bytes, PNG bytes or pixels), their labels, and what there is to know about them. [`inspect`](inspect::inspect) tells
//! what is in a store, [`verify`](verify::verify) re-reads all of it. The program `pipeline` does the three from a shell.
//!
//! A [`Loader`] reads a store ahead of training: it decides the order ([`order`]), decodes ([`decode`](mod@decode)), augments ([`augment`]) and collates
//! on threads, and hands over batches, the same on any number of them.
//!
//! ```no_run
//! use datasets::{Batches, Seed};
//! use pipeline::{Loader, Store, augment, loader::Config};
//!
//! let loader = Loader::new(Store::open("cifar10.lmdb")?, Config::train(128, augment::cifar_train(), Seed(0)))?;
//! for batch in loader.epoch(0, 0) {
//!     let batch = batch?;
//!     println!("{:?} {:?}", batch.shape, &batch.labels[..4]);
//! }
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//!
//! [`flight`] hands the same batches to other processes and machines, from a daemon.
//!
//! What a store looks like on disk is in `FORMAT.md`.

pub mod augment;
pub mod cli;
mod collate;
pub mod convert;
pub mod decode;
mod error;
mod flatbuffer;
#[cfg(feature = "flight")]
pub mod flight;
#[cfg(all(fuzzing, feature = "flight"))]
pub mod fuzzing;
pub mod inspect;
mod jpeg;
pub mod loader;
pub mod order;
pub mod show;
pub mod store;
pub mod verify;

pub use collate::ShapeError;
pub use error::{Error, RecordError, Result};
pub use loader::Loader;
pub use store::{Encoding, Meta, Reader, Record, Store};
