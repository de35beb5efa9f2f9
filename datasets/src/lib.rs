//! Turns public files, a download, or a seed into samples; computes nothing about them.
//!
//! ```
//! use datasets::{Dataset, Picture, Seed, Shapes, synthetic::shapes::Config};
//!
//! let shapes = Shapes::new(Config::default(), Seed(0))?;
//! let sample = shapes.get(0, 6)?;
//! assert_eq!(shapes.info().classes[sample.label as usize], "star");
//! let Picture::Raw(image) = sample.picture else { panic!("drawn pictures are pixels") };
//! assert_eq!((image.height, image.width, image.channels), (32, 32, 3));
//! # Ok::<(), datasets::Error>(())
//! ```
//!
//! A [`Dataset`] hands out one [`Sample`] at a time: a picture, as pixels or as the bytes of its file, and a label.
//! What trains reads [`Batches`]: an epoch at a time, each a sequence of [`Batch`]. A picture is `u8`, row after row,
//! channels last (HWC); a batch is `u8` or `f32`, channels first (NCHW). Every random draw names its [`Seed`].
//!
//! [`open`](fn@open) finds out what a path holds. The readers, a file each: [`Idx`] (MNIST and its relatives), [`Cifar`], [`TinyImagenet`],
//! [`Folder`] (class folders, ImageNet). [`synthetic`] draws data from a seed; [`download`] fetches public sets by name. [`Subset`] takes the
//! first samples of each class of any of them.
//! A reader checks and lists its files when it is opened, and reads none of them twice.
//!
//! The crate opens files and decompresses them. It decodes no JPEG, resizes nothing and stores nothing:
//! that is the room of `pipeline`.

mod archive;
mod batch;
mod buffer;
mod cifar;
mod classes;
#[cfg(feature = "download")]
pub mod download;
mod error;
mod files;
mod folder;
#[cfg(feature = "hub")]
pub mod hub;
mod idx;
mod memory;
mod open;
mod random;
mod sample;
mod stream;
mod subset;
pub mod synthetic;
mod tiny_imagenet;
mod unpack;

pub use batch::{Batch, BatchError, BatchIter, Batches, Mixed, Normalize, Table, Values};
pub use buffer::Buffer;
pub use cifar::Cifar;
pub use error::{Error, Result, explain};
pub use folder::Folder;
pub use idx::Idx;
pub use memory::{Memory, Part};
pub use open::{Source, guess, open, open_as};
pub use random::{Rng, Seed};
pub use sample::{Dataset, Image, Info, Picture, Sample, Split};
pub use subset::Subset;
pub use synthetic::{Segments, Shapes};
pub use tiny_imagenet::TinyImagenet;
