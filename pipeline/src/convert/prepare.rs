//! From a picture of a source to a record of a store: its bytes as they came where that is possible, or else decoded, turned, reduced
//! and written anew.

use datasets::{Image, Picture};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use super::check::{self, Check, decoded};
use super::header::{Header, traits};
use super::moments::Moments;
use crate::augment::{self, Scratch};
use crate::decode::Decoder;
use crate::store::codec::Picture as Stored;
use crate::store::meta::{Size, Traits};
use crate::store::{Encoding, Form, Resize};

/// A picture as it goes into a store.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) stored: Stored,
    pub(super) size: Size,
    pub(super) traits: Traits,
    /// The sums of its pixels, where they were asked for.
    pub(super) moments: Option<Moments>,
    /// Why the bytes are not those of the source.
    pub(super) rewritten: Option<&'static str>,
}

/// What of a picture goes into the store, and, if `measure` says so, what its pixels add up to. `decoder` lends its memory.
///
/// # Errors
/// What is wrong with a picture that cannot be used.
pub(super) fn prepare(picture: Picture, form: &Form, check: Check, measure: bool, decoder: &mut Decoder) -> Result<Prepared, String> {
    let (image, rewritten) = match picture {
        Picture::Raw(image) => {
            check::size(&image)?;
            let to = form.size(image.height, image.width);
            (reduced(image, to), to.map(|_| REDUCED))
        }
        Picture::Encoded(bytes) => {
            let (encoding, header) = check::file(&bytes, decoder)?;
            let Some(reason) = form.reason(&header) else {
                return kept((encoding, &header, bytes), check == Check::Decode, measure, decoder).map(|kept| kept.indexed(form, decoder));
            };
            let image = if header.channels == 4 { rgb_of_inks(&bytes)? } else { decoded(encoding, &bytes, decoder)? };
            let image = if form.upright { turned(image, header.orientation) } else { image };
            let to = form.size(image.height, image.width);
            let image = reduced(image, to);
            if !form.raw {
                return written(&image, form.quality, reason, measure).map(|written| written.indexed(form, decoder));
            }
            (image, Some(reason))
        }
    };
    let (size, moments) = (check::size(&image)?, measure.then(|| Moments::of(&image)));
    let encoding = Encoding::Raw { height: size.height, width: size.width, channels: size.channels };
    let stored = Stored { encoding, index: Vec::new(), bytes: image.pixels };
    Ok(Prepared { stored, size, traits: Traits::default(), moments, rewritten })
}

impl Prepared {
    /// With an index of its rows, where the store shall have such and it pays.
    fn indexed(mut self, form: &Form, decoder: &mut Decoder) -> Self {
        if form.indexed && self.stored.encoding == Encoding::Jpeg {
            self.stored.index = decoder.index(&self.stored.bytes);
        }
        self
    }
}

/// Reasons to write a picture anew.
const REDUCED: &str = "reduced in size";
const PIXELS: &str = "decoded to pixels";
const TURNED: &str = "turned upright";
const INKS: &str = "changed from CMYK to RGB";

impl Form {
    /// Why a file with this header cannot stay as it is.
    fn reason(&self, header: &Header) -> Option<&'static str> {
        let size = self.size(header.height as usize, header.width as usize);
        let reasons =
            [(size.is_some(), REDUCED), (self.raw, PIXELS), (self.upright && header.traits.turned, TURNED), (header.channels == 4, INKS)];
        reasons.into_iter().find_map(|(given, reason)| given.then_some(reason))
    }

    /// The height and width that a larger picture is to be reduced to, rounded down as in training.
    fn size(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let (side, wanted) = match self.resize? {
            Resize::Shorter(wanted) => (height.min(width), wanted as usize),
            Resize::Longer(wanted) => (height.max(width), wanted as usize),
        };
        let scale = |length: usize| (length * wanted / side).max(1);
        (side > wanted).then(|| [scale(height), scale(width)])
    }
}

/// The bytes of a file as they came.
fn kept(
    (encoding, header, bytes): (Encoding, &Header, Vec<u8>),
    check: bool,
    measure: bool,
    decoder: &mut Decoder,
) -> Result<Prepared, String> {
    let image = (check || measure).then(|| decoded(encoding, &bytes, decoder)).transpose()?;
    let size = match &image {
        Some(image) => check::size(image)?,
        None => Size { height: header.height, width: header.width, channels: header.channels },
    };
    let moments = image.filter(|_| measure).map(|image| Moments::of(&image));
    let stored = Stored { encoding, index: Vec::new(), bytes };
    Ok(Prepared { stored, size, traits: header.traits, moments, rewritten: None })
}

/// A JPEG file made from pixels, without the blur of colours that smaller files pay for.
fn written(image: &Image, quality: u8, reason: &'static str, measure: bool) -> Result<Prepared, String> {
    let colour = if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .write_image(&image.pixels, image.width as u32, image.height as u32, colour)
        .map_err(|error| format!("cannot be written as JPEG: {error}"))?;
    let moments = measure.then(|| Moments::of(image));
    let traits = traits(Encoding::Jpeg, &bytes);
    let stored = Stored { encoding: Encoding::Jpeg, index: Vec::new(), bytes };
    Ok(Prepared { stored, size: check::size(image)?, traits, moments, rewritten: Some(reason) })
}

/// A JPEG file in the inks of a printer (CMYK, or YCCK that stands for it), as RGB. It is taken to be inverted, as Adobe's programs write
/// it and all readers assume; what colours the inks have is the printer's to know, so each takes away its third of the light.
fn rgb_of_inks(bytes: &[u8]) -> Result<Image, String> {
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    // Somebody else's decoder, and anyone's bytes: should it panic, that is a property of the bytes.
    let pixels = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decoder.decode()));
    let pixels = pixels.map_err(|_| "CMYK JPEG: the decoder gave up".to_owned())?.map_err(|error| format!("CMYK JPEG: {error}"))?;
    let (width, height) = decoder.dimensions().ok_or("CMYK JPEG: no frame header")?;
    if pixels.len() != height * width * 3 {
        return Err(format!("CMYK JPEG: wanted {height}x{width}x3 pixels, found {} bytes", pixels.len()));
    }
    Ok(Image::new(height, width, 3, pixels))
}

/// The picture upright, of one that lies as EXIF's `orientation` says: 2 to 4 are mirrored, on its head, both; 5 to 8 are those of 1 to 4
/// with rows and columns exchanged.
fn turned(image: Image, orientation: u8) -> Image {
    let (exchange, bottom_up, right_left) = match orientation {
        2 => (false, false, true),
        3 => (false, true, true),
        4 => (false, true, false),
        5 => (true, false, false),
        6 => (true, true, false),
        7 => (true, true, true),
        8 => (true, false, true),
        _ => return image,
    };
    let (height, width) = if exchange { (image.width, image.height) } else { (image.height, image.width) };
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for y in 0..height {
        for x in 0..width {
            let (y, x) = if exchange { (x, y) } else { (y, x) };
            let y = if bottom_up { image.height - 1 - y } else { y };
            let x = if right_left { image.width - 1 - x } else { x };
            pixels.extend_from_slice(&image.pixels[(y * image.width + x) * image.channels..][..image.channels]);
        }
    }
    Image::new(height, width, image.channels, pixels)
}

/// Reduced by the filter that training resizes with: bilinear, antialiased.
fn reduced(mut image: Image, to: Option<[usize; 2]>) -> Image {
    if let Some(to) = to {
        augment::resize(&mut image, to, &mut Scratch::default());
    }
    image
}
