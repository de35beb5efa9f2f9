//! What is in a store: as a value, and as a sheet of pictures.

use std::collections::BTreeMap;

use datasets::{Image, Normalize};
use fast_image_resize::images::{Image as Resized, ImageRef};
use fast_image_resize::{PixelType, Resizer};
use rayon::prelude::*;

use crate::convert::check::chain;
use crate::convert::header::header;
use crate::convert::moments::Moments;
use crate::store::{Form, Pictures, Record};
use crate::{Encoding, Error, Result, Store, decode, jpeg};

/// What is in a store; shows itself as text, and in a notebook as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The name of the data set.
    pub name: String,
    /// Where it came from.
    pub source: String,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// One for each split: its name, number of records, and what the pictures are like.
    pub splits: Vec<(String, usize, Pictures)>,
    /// Who decodes its JPEG files, one for each split.
    pub readers: Vec<Readers>,
    /// Mean and standard deviation of the training pixels, on the scale 0 to 1.
    pub normalize: Option<datasets::Normalize>,
    /// Pictures that mean and deviation were measured on.
    pub measured: u64,
    /// What was made of the pictures.
    pub form: Form,
    /// Why so many pictures are not the bytes of their source.
    pub rewritten: BTreeMap<String, u64>,
    /// Pictures of the source that are not in the store.
    pub skipped: usize,
    /// Bytes of the store.
    pub file_bytes: u64,
    /// SHA-256 of the content, in hex.
    pub content: String,
}

/// Which decoder reads the JPEG files of a split, by their headers; of more than 1024 pictures, of so many at equal distances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    /// Files of the usual kind: our own decoder makes of them what a crop takes, and nothing beside it.
    pub own: u64,
    /// Files that a decoder of general use reads, always whole, by the reason.
    pub general: BTreeMap<&'static str, u64>,
}

/// What is in this store, by its own account; [`verify`](crate::verify::verify) checks it.
pub fn inspect(store: &Store) -> Inspection {
    let meta = store.meta();
    let splits = meta.splits.iter().zip(&meta.pictures);
    Inspection {
        name: meta.name.clone(),
        source: meta.source.clone(),
        classes: meta.classes.clone(),
        splits: splits.map(|(split, pictures)| (split.name.clone(), split.len, pictures.clone())).collect(),
        readers: (0..meta.splits.len()).map(|split| readers(store, split)).collect(),
        normalize: meta.normalize.clone(),
        measured: meta.measured,
        form: meta.form,
        rewritten: meta.rewritten.clone(),
        skipped: meta.skipped.len(),
        file_bytes: store.file_bytes(),
        content: meta.content.clone(),
    }
}

/// What cannot be read is passed over: to find that is [`verify`](crate::verify::verify)'s work.
fn readers(store: &Store, split: usize) -> Readers {
    let mut readers = Readers::default();
    let (Ok(reader), mut decoder) = (store.reader(), jpeg::Decoder::default()) else { return readers };
    let len = store.len(split);
    let looked = len.min(LOOKED_AT);
    for index in (0..looked).map(|number| number * len / looked) {
        let Ok(Record { encoding: Encoding::Jpeg, bytes, .. }) = reader.record(split, index) else { continue };
        if decoder.open(bytes).is_some() {
            readers.own += 1;
            continue;
        }
        let reason = match header(Encoding::Jpeg, bytes) {
            Some(header) if header.traits.progressive => "progressive",
            Some(header) if header.channels == 4 => "CMYK",
            Some(_) => "unusual sampling or colours",
            None => "doubtful",
        };
        *readers.general.entry(reason).or_default() += 1;
    }
    readers
}

/// Pictures of a split whose headers are read.
const LOOKED_AT: usize = 1024;

/// Mean and standard deviation of each channel over all pixels of a split, on the scale 0 to 1; `None` where there is no picture. Decodes
/// everything, on all of rayon's threads, where [`Meta::normalize`](crate::Meta::normalize) may be of a part of the training pictures.
///
/// # Errors
/// When a record cannot be read or decoded.
///
/// # Panics
/// When there is no split of this number.
pub fn measure(store: &Store, split: usize) -> Result<Option<Normalize>> {
    let moments = |index| {
        let image = decode::decode(&store.reader()?.record(split, index)?);
        image.map(|image| Moments::of(&image)).map_err(|error| unusable(store, (split, index), &error))
    };
    let sum = |mut one: Moments, other| {
        one.add(&other);
        Ok(one)
    };
    let all = (0..store.len(split)).into_par_iter().with_min_len(16).map(moments);
    Ok(all.try_reduce(Moments::default, sum)?.normalize())
}

fn unusable(store: &Store, (split, index): (usize, usize), error: &decode::DecodeError) -> Error {
    Error::Picture { name: format!("split {:?}, record {index}", store.meta().splits[split].name), reason: chain(error) }
}

impl Inspection {
    /// Bytes of all pictures, as encoded.
    pub fn picture_bytes(&self) -> u64 {
        self.splits.iter().map(|(_, _, pictures)| pictures.bytes).sum()
    }

    /// Bytes of the store for each byte of its pictures.
    pub fn ratio(&self) -> f64 {
        self.file_bytes as f64 / self.picture_bytes().max(1) as f64
    }
}

/// A sheet of `rows * columns` pictures of a split, taken at equal distances from its first to its last, as RGB. All cells have the
/// same size, 64 to 128 pixels a side; small pictures are enlarged by a whole number, pixel for pixel, and large ones reduced.
/// Cells without a picture stay white.
///
/// # Errors
/// When a record cannot be read or decoded.
///
/// # Panics
/// When there is no split of this number.
pub fn grid(store: &Store, split: usize, rows: usize, columns: usize) -> Result<Image> {
    let reader = store.reader()?;
    let (len, cells) = (store.len(split), rows * columns);
    let shown = len.min(cells);
    let pictures = (0..shown).map(|cell| {
        let index = cell * len / shown;
        decode::decode(&reader.record(split, index)?).map_err(|error| unusable(store, (split, index), &error))
    });
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    let longest = pictures.iter().map(|image| image.height.max(image.width)).max().unwrap_or(1);
    let enlarge = CELL.0.div_ceil(longest);
    let cell = (longest * enlarge).min(CELL.1);
    let pitch = cell + GAP;
    let (height, width) = (rows * pitch + GAP, columns * pitch + GAP);
    let mut sheet = Image::new(height, width, 3, vec![255; height * width * 3]);
    for (number, picture) in pictures.iter().enumerate() {
        let picture = if longest > CELL.1 { reduce(&rgb(picture), cell) } else { magnify(&rgb(picture), enlarge) };
        let top = GAP + number / columns * pitch + (cell - picture.height) / 2;
        let left = GAP + number % columns * pitch + (cell - picture.width) / 2;
        for y in 0..picture.height {
            let at = ((top + y) * width + left) * 3;
            sheet.pixels[at..at + picture.width * 3].copy_from_slice(&picture.pixels[y * picture.width * 3..(y + 1) * picture.width * 3]);
        }
    }
    Ok(sheet)
}

/// The least and the largest side of a cell, in pixels.
const CELL: (usize, usize) = (64, 128);

/// Pixels between cells.
const GAP: usize = 2;

fn rgb(image: &Image) -> Image {
    match image.channels {
        1 => Image::new(image.height, image.width, 3, image.pixels.iter().flat_map(|&grey| [grey; 3]).collect()),
        _ => image.clone(),
    }
}

/// Every pixel `by` times as high and wide.
fn magnify(image: &Image, by: usize) -> Image {
    let (height, width) = (image.height * by, image.width * by);
    let pixel = |at: usize| &image.pixels[(at / width / by * image.width + at % width / by) * 3..][..3];
    Image::new(height, width, 3, (0..height * width).flat_map(pixel).copied().collect())
}

/// Shrunk to fit a square of `side`; smaller pictures stay.
fn reduce(image: &Image, side: usize) -> Image {
    let longest = image.height.max(image.width);
    if longest <= side {
        return image.clone();
    }
    let scale = |length: usize| (length * side / longest).max(1);
    let (height, width) = (scale(image.height), scale(image.width));
    let source = ImageRef::new(image.width as u32, image.height as u32, &image.pixels, PixelType::U8x3).expect("three bytes a pixel");
    let mut target = Resized::new(width as u32, height as u32, PixelType::U8x3);
    Resizer::new().resize(&source, &mut target, None).expect("both pictures have the same kind of pixels");
    Image::new(height, width, 3, target.into_vec())
}
