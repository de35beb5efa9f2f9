//! What a store says about itself.

use std::collections::BTreeMap;

use datasets::{Normalize, Split};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Encoding;

/// The version of the format that this program writes.
pub const FORMAT: u32 = 2;

/// The version of stores with indexed JPEG files, which is otherwise the same. Programs that know [`FORMAT`] alone refuse it by name.
pub const INDEXED: u32 = 3;

/// What a store says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the format: [`FORMAT`] or [`INDEXED`].
    pub format: u32,
    /// The short name of the data set, such as `mnist`.
    pub name: String,
    /// The names of the classes; a label is an index into it.
    pub classes: Vec<String>,
    /// The parts and their numbers of records.
    pub splits: Vec<Split>,
    /// What the pictures are like, one for each split.
    pub pictures: Vec<Pictures>,
    /// Mean and standard deviation of the pixels of split `train` (or of the first split, where none is called so): one number
    /// where all its pictures are grey, else three, a grey picture counting as three equal channels. `None` where it is empty.
    pub normalize: Option<Normalize>,
    /// Pictures that `normalize` was measured on: all of them, or some at equal distances where most were not decoded.
    pub measured: u64,
    /// What was made of the pictures.
    pub form: Form,
    /// Why so many pictures are not the bytes of their source.
    pub rewritten: BTreeMap<String, u64>,
    /// Pictures of the source that are not in the store.
    pub skipped: Vec<Skipped>,
    /// So many files of the source were no pictures, by what was taken for the reason.
    pub ignored: BTreeMap<String, u64>,
    /// Where the pictures came from.
    pub source: String,
    /// SHA-256, in hex, of classes, splits and records: equal for equal content, however it was packed.
    pub content: String,
}

/// What is made of the pictures of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Form {
    /// The size that larger pictures are reduced to. Default: their own.
    pub resize: Option<Resize>,
    /// Pixels are stored, ready to be read, instead of files. Default: no.
    pub raw: bool,
    /// Beside each JPEG file stands where its rows begin, so that a crop is decoded without what lies above it and at its right. Default: no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub indexed: bool,
    /// Pictures are turned as their EXIF data say. Default: no, as in PyTorch's and TensorFlow's loaders.
    pub upright: bool,
    /// The quality of the JPEG files that have to be written, 1 to 100. Default 95.
    pub quality: u8,
}

/// A size that keeps the proportions. No picture is enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter side has so many pixels.
    Shorter(u32),
    /// The longer side has so many pixels.
    Longer(u32),
}

impl Default for Form {
    fn default() -> Self {
        Self { resize: None, raw: false, indexed: false, upright: false, quality: 95 }
    }
}

/// What the pictures of one split are like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pictures {
    /// Records of each class.
    pub per_class: Vec<u64>,
    /// Pictures kept as pixels.
    pub raw: u64,
    /// Pictures kept as JPEG.
    pub jpeg: u64,
    /// Pictures kept as PNG.
    pub png: u64,
    /// Pictures of one channel, among all the above.
    pub grey: u64,
    /// Progressive JPEG files.
    pub progressive: u64,
    /// Files whose EXIF data say that the picture lies turned or mirrored. Readers of a store take it as it lies.
    pub turned: u64,
    /// Files with a colour profile (ICC). Readers of a store pay no heed to it.
    pub icc: u64,
    /// Files of 16 bits a channel, which become 8 when they are decoded.
    pub deep: u64,
    /// Bytes of all pictures, as encoded.
    pub bytes: u64,
    /// Rows; `None` without pictures.
    pub height: Option<Extent>,
    /// Columns; `None` without pictures.
    pub width: Option<Extent>,
}

/// The range of one dimension, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The smallest.
    pub min: u32,
    /// As many are smaller as are larger; the lower of the two middle ones.
    pub median: u32,
    /// The largest.
    pub max: u32,
}

/// A picture of the source that is not in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The split it belongs to.
    pub split: String,
    /// The picture, as its data set names it.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Counts the pictures of a split, one after the other; a value that can be written down and gone on with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Census {
    pictures: Pictures,
    heights: BTreeMap<u32, u64>,
    widths: BTreeMap<u32, u64>,
}

/// The size of one picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) channels: u8,
}

/// What is worth knowing of a picture's file beyond its size; [`Pictures`] counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traits {
    pub(crate) progressive: bool,
    pub(crate) turned: bool,
    pub(crate) icc: bool,
    pub(crate) deep: bool,
}

impl Census {
    pub(crate) fn new(classes: usize) -> Self {
        Self { pictures: Pictures { per_class: vec![0; classes], ..Pictures::default() }, ..Self::default() }
    }

    /// # Panics
    /// When `label` is not below the number of classes.
    pub(crate) fn add(&mut self, label: u32, encoding: Encoding, size: Size, traits: Traits, bytes: usize) {
        let pictures = &mut self.pictures;
        pictures.per_class[label as usize] += 1;
        *match encoding {
            Encoding::Raw { .. } => &mut pictures.raw,
            Encoding::Jpeg => &mut pictures.jpeg,
            Encoding::Png => &mut pictures.png,
        } += 1;
        pictures.grey += u64::from(size.channels == 1);
        pictures.progressive += u64::from(traits.progressive);
        pictures.turned += u64::from(traits.turned);
        pictures.icc += u64::from(traits.icc);
        pictures.deep += u64::from(traits.deep);
        pictures.bytes += bytes as u64;
        *self.heights.entry(size.height).or_default() += 1;
        *self.widths.entry(size.width).or_default() += 1;
    }

    pub(crate) fn len(&self) -> u64 {
        self.pictures.per_class.iter().sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.pictures.bytes
    }

    pub(crate) fn pictures(&self) -> Pictures {
        Pictures { height: extent(&self.heights), width: extent(&self.widths), ..self.pictures.clone() }
    }
}

fn extent(histogram: &BTreeMap<u32, u64>) -> Option<Extent> {
    let count: u64 = histogram.values().sum();
    let mut seen = 0;
    let median = histogram.iter().find(|&(_, &n)| {
        seen += n;
        2 * seen >= count
    });
    Some(Extent { min: *histogram.keys().next()?, median: *median?.0, max: *histogram.keys().next_back()? })
}

/// The content hash of a store: of the names of its classes, and of name, length and digest of each split.
pub(crate) fn content(classes: &[String], splits: &[Split], digests: &[[u8; 32]]) -> String {
    let mut hash = Sha256::new();
    for class in classes {
        hash.update(format!("class {class}\n"));
    }
    for (split, &digest) in splits.iter().zip(digests) {
        hash.update(format!("split {} {} {}\n", split.name, split.len, hex(digest)));
    }
    hex(hash.finalize().into())
}

pub(crate) fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
