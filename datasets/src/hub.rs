//! Public data sets by name, downloaded when they are not here yet.
//!
//! MNIST, Fashion-MNIST and CIFAR-10 come from the Hugging Face hub through candle-datasets, which keeps them in the hub's own
//! cache (its variables `HF_HOME` and `HF_ENDPOINT` apply). [`download`](crate::download) has them, and others, without it.

use std::path::Path;

use candle::{DType, Tensor};
use candle_datasets::vision;

use crate::{Error, Memory, Result, cifar, idx, memory::Part};

/// MNIST: 60,000 and 10,000 grey pictures of 28×28.
///
/// # Errors
/// When it is neither in the cache nor to be had from the hub, or is not what it should be.
pub fn mnist() -> Result<Memory> {
    let classes = (0..10).map(|digit| digit.to_string()).collect();
    from_candle("mnist", classes, &load("ylecun/mnist", vision::mnist::load)?, Axes::Upright)
}

/// Fashion-MNIST: 60,000 and 10,000 grey pictures of 28×28.
///
/// # Errors
/// As [`mnist`].
pub fn fashion_mnist() -> Result<Memory> {
    let classes = idx::FASHION.map(str::to_owned).to_vec();
    from_candle("fashion-mnist", classes, &load("zalando-datasets/fashion_mnist", vision::fashion_mnist::load)?, Axes::Upright)
}

/// CIFAR-10: 50,000 and 10,000 colour pictures of 32×32. Loading takes 3 GB of memory for a moment.
///
/// # Errors
/// As [`mnist`].
pub fn cifar10() -> Result<Memory> {
    let classes = cifar::CLASSES_10.split_whitespace().map(str::to_owned).collect();
    from_candle("cifar10", classes, &load("cifar10", vision::cifar::load)?, Axes::Swapped)
}

/// How a loader of candle's lays out a picture behind its channel axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// Rows, then columns.
    Upright,
    /// Columns, then rows: what the hub loader for CIFAR-10 of candle-datasets 0.11 gives, which transposes each picture.
    Swapped,
}

/// What one of candle's loaders gave, as bytes again: pictures `(n, c, h, w)`, or `(n, h · w)` of a square, as `f32` of 0 to 1.
///
/// # Errors
/// When shapes are others, a label names no class, or the tensors cannot be read.
pub fn from_candle(name: &str, classes: Vec<String>, dataset: &vision::Dataset, axes: Axes) -> Result<Memory> {
    let (train, shape) = part(name, "train", &dataset.train_images, &dataset.train_labels, axes)?;
    let (test, found) = part(name, "test", &dataset.test_images, &dataset.test_labels, axes)?;
    if found != shape {
        return Err(Error::format(name, "images of test", format!("{shape:?}"), format!("{found:?}")));
    }
    for part in [&train, &test] {
        idx::check_labels(Path::new(name), &part.labels, classes.len())?;
    }
    Ok(Memory::new(name, classes, shape, vec![train, test]))
}

/// A split, and the `[channels, height, width]` of its pictures.
fn part(name: &str, split: &str, images: &Tensor, labels: &Tensor, axes: Axes) -> Result<(Part, [usize; 3])> {
    let labels: Vec<u32> = labels.to_dtype(DType::U32).and_then(|labels| labels.to_vec1()).map_err(|error| unread(name, error))?;
    let shape = match *images.dims() {
        [n, c, h, w] if n == labels.len() && axes == Axes::Swapped => [c, w, h],
        [n, c, h, w] if n == labels.len() => [c, h, w],
        [n, d] if n == labels.len() && d.isqrt().pow(2) == d => [1, d.isqrt(), d.isqrt()],
        _ => {
            return Err(Error::format(
                name,
                format!("images of {split}"),
                format!("{} pictures", labels.len()),
                format!("{:?}", images.dims()),
            ));
        }
    };
    let planes = planes(images, axes).map_err(|error| unread(name, error))?;
    Ok((Part { name: split.to_owned(), planes, files: vec![(split.to_owned(), labels.len())], labels }, shape))
}

/// The bytes of all pictures, each plane row after row.
fn planes(images: &Tensor, axes: Axes) -> candle::Result<Vec<u8>> {
    const AT_ONCE: usize = 1000;
    let count = images.dim(0)?;
    let mut bytes = Vec::with_capacity(images.elem_count());
    // Some at a time: as `f32`, all of CIFAR-10 a second time would be 600 MB more.
    for first in (0..count).step_by(AT_ONCE) {
        let some = images.narrow(0, first, AT_ONCE.min(count - first))?;
        let some = if axes == Axes::Swapped { some.transpose(2, 3)? } else { some };
        let levels: Vec<f32> = some.flatten_all()?.to_vec1()?;
        bytes.extend(levels.into_iter().map(|level| (level * 255.0).round() as u8));
    }
    Ok(bytes)
}

fn load(place: &str, loader: fn() -> candle::Result<vision::Dataset>) -> Result<vision::Dataset> {
    loader().map_err(|error| Error::Download { url: format!("hub data set {place}"), action: "load", source: error.into() })
}

fn unread(name: &str, error: candle::Error) -> Error {
    Error::Download { url: name.to_owned(), action: "convert", source: error.into() }
}
