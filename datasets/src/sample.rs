//! A picture, a sample, and what a data set promises.

use std::collections::BTreeMap;

use crate::Result;

/// Pixels of one picture: `height × width × channels` bytes, row after row, channels last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// `height * width * channels` bytes.
    pub pixels: Vec<u8>,
}

impl Image {
    /// A picture of these bytes.
    ///
    /// # Panics
    /// When the number of bytes is not `height * width * channels`.
    pub fn new(height: usize, width: usize, channels: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), height * width * channels, "{height}×{width}×{channels} pixels");
        Self { height, width, channels, pixels }
    }

    /// From planes (channels first), as CIFAR and tensors have them. The one place where a layout is turned round.
    ///
    /// # Panics
    /// When the number of bytes is not `height * width * channels`.
    pub fn from_planes(height: usize, width: usize, channels: usize, planes: &[u8]) -> Self {
        assert_eq!(planes.len(), height * width * channels, "{channels}×{height}×{width} pixels");
        let area = height * width;
        let pixels = (0..area).flat_map(|at| (0..channels).map(move |c| planes[c * area + at])).collect();
        Self { height, width, channels, pixels }
    }

    /// The bytes channels first, as a tensor wants them.
    pub fn to_planes(&self) -> Vec<u8> {
        (0..self.channels).flat_map(|c| self.pixels.iter().skip(c).step_by(self.channels).copied()).collect()
    }
}

/// A picture as its source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// Pixels.
    Raw(Image),
    /// The bytes of a picture file (JPEG or PNG), not looked into.
    Encoded(Vec<u8>),
}

/// A picture, its class, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture.
    pub picture: Picture,
    /// Index into [`Info::classes`].
    pub label: u32,
    /// Where it came from, for messages: a file's name, or a record's number in its file.
    pub name: String,
}

/// What a data set is called and holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Info {
    /// A short lower-case name, such as `mnist`.
    pub name: String,
    /// The names of the classes; a label is an index into it.
    pub classes: Vec<String>,
    /// The parts, in a fixed order: usually `train`, then `val` or `test`.
    pub splits: Vec<Split>,
}

/// A part of a data set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Split {
    /// `train`, `val` or `test`.
    pub name: String,
    /// Number of samples.
    pub len: usize,
}

/// Samples by number.
///
/// An index past the end is the caller's mistake and panics, as with a slice. What the world does wrong (a file that is
/// gone, truncated or of another format) is an [`Error`](crate::Error) that names the file and the record.
pub trait Dataset: Send + Sync {
    /// What it is called and holds.
    fn info(&self) -> &Info;

    /// How many files lie among its own that are none of its samples, by what was taken for the reason. Default: none.
    fn ignored(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// What changes when somebody writes the file that a sample comes from, as the system keeps it: its length in bytes, and when it was
    /// written, in nanoseconds since 1970. Default: `None`, nothing is known.
    ///
    /// # Panics
    /// When `split` or `index` is past the end.
    fn stamp(&self, _split: usize, _index: usize) -> Option<[u64; 2]> {
        None
    }

    /// Sample `index` of the split `info().splits[split]`.
    ///
    /// # Errors
    /// When the sample cannot be read.
    ///
    /// # Panics
    /// When `split` or `index` is past the end.
    fn get(&self, split: usize, index: usize) -> Result<Sample>;
}
