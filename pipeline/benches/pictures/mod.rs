//! Stores of drawn pictures, for benchmarks that have no real ones.

use std::num::NonZeroUsize;
use std::path::Path;

use datasets::{Dataset, Image, Info, Picture, Sample, Seed, Split};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pipeline::{Store, convert};

/// `len` samples, which go through a few pictures again and again.
struct Pictures {
    info: Info,
    pictures: Vec<Picture>,
}

impl Dataset for Pictures {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, _: usize, index: usize) -> datasets::Result<Sample> {
        let picture = self.pictures[index % self.pictures.len()].clone();
        Ok(Sample { picture, label: 0, name: index.to_string() })
    }
}

/// A new store `name` in `folder`, of `len` samples.
pub(crate) fn store(folder: &Path, name: &str, len: usize, pictures: Vec<Picture>) -> Store {
    let info = Info { name: name.to_owned(), classes: vec!["one".to_owned()], splits: vec![Split { name: "train".to_owned(), len }] };
    let path = folder.join(name);
    let options = convert::Options { strict: true, threads: NonZeroUsize::MIN, ..convert::Options::new("bench") };
    convert::convert(&Pictures { info, pictures }, &path, &options, &mut |_| ()).expect("the folder is new");
    Store::open(path).expect("converted just now")
}

/// Soft colours with edges and a grain, which a JPEG spends about as many bits on as on a photograph.
pub(crate) fn picture(seed: u64, height: usize, width: usize, channels: usize) -> Image {
    let mut rng = Seed(seed).rng();
    let stripe = 8 + rng.below(40);
    let mut pixel = |y: usize, x: usize, c: usize| {
        let edge = if ((x + 2 * y) / stripe).is_multiple_of(2) { 60 } else { 0 };
        (y * 100 / height + x * 60 / width + c * 12 + edge + rng.below(14)) as u8
    };
    let mut pixels = Vec::with_capacity(height * width * channels);
    for at in 0..height * width * channels {
        pixels.push(pixel(at / channels / width, at / channels % width, at % channels));
    }
    Image::new(height, width, channels, pixels)
}

/// As a file of quality 90.
pub(crate) fn jpeg(image: &Image) -> Picture {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .write_image(&image.pixels, image.width as u32, image.height as u32, ExtendedColorType::Rgb8)
        .expect("a sound picture");
    Picture::Encoded(bytes)
}
