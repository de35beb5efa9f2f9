//! Bytes to a picture. Any bytes: the result is a picture or an error, never a panic and never more memory than the bytes can justify.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datasets::{Image, Picture, Sample};
use image::{DynamicImage, ImageDecoder, Limits, codecs::png::PngDecoder};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::jpeg;
use crate::store::{Encoding, Record};

/// Why bytes are not a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A picture without a pixel.
    #[error("{height}×{width} pixels: wanted at least one")]
    Empty {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
    },
    /// Raw pixels of another size than said.
    #[error("{height}×{width} pixels of {channels} channels: wanted {} bytes, found {found}", u128::from(*height) * u128::from(*width) * u128::from(*channels))]
    Raw {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// 1 or 3.
        channels: u8,
        /// Number of bytes.
        found: usize,
    },
    /// A number of channels that is neither grey nor colour.
    #[error("{found} channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)")]
    Channels {
        /// Number of channels.
        found: usize,
    },
    /// A header that promises more pixels than its bytes can hold.
    #[error("the header says {height}×{width} pixels, more than {bytes} bytes can hold")]
    Size {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Bytes there are.
        bytes: usize,
    },
    /// A file that ends before the picture does.
    #[error("cut short: {0} bytes without an end marker")]
    Truncated(usize),
    /// Not a JPEG, or a broken one.
    #[error("JPEG: {0}")]
    Jpeg(String),
    /// Not a PNG, or a broken one.
    #[error("PNG")]
    Png(#[source] image::ImageError),
}

/// The picture of a record: 1 or 3 channels, as it is stored.
///
/// # Errors
/// When the bytes are not a picture.
pub fn decode(record: &Record<'_>) -> Result<Image, DecodeError> {
    image(record.encoding, record.bytes)
}

/// The pictures of samples, decoded where they are files.
///
/// # Errors
/// When a picture cannot be decoded.
pub fn pictures(samples: &[Sample]) -> Result<Vec<Image>, DecodeError> {
    let picture = |sample: &Sample| match &sample.picture {
        Picture::Raw(image) => Ok(image.clone()),
        Picture::Encoded(bytes) if bytes.starts_with(b"\x89PNG") => image(Encoding::Png, bytes),
        Picture::Encoded(bytes) => image(Encoding::Jpeg, bytes),
    };
    samples.iter().map(picture).collect()
}

/// The picture in `bytes`: 1 or 3 channels, as encoded. An alpha channel is dropped, 16 bits are rounded to 8.
///
/// A JPEG that breaks off is refused. One whose pixels end too early but in a proper end marker cannot be told from a good one by the
/// decoder, and is grey from there on, as with other decoders.
///
/// # Errors
/// When the bytes are not a picture of this encoding.
pub fn image(encoding: Encoding, bytes: &[u8]) -> Result<Image, DecodeError> {
    let mut image = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };
    Decoder::default().decode(encoding, bytes, &mut image)?;
    Ok(image)
}

/// A rectangle within a picture, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Window {
    /// All of a picture of so many rows and columns.
    pub fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, height, width }
    }
}

/// Decodes picture after picture in the same memory.
#[derive(Debug, Default)]
pub struct Decoder {
    jpeg: jpeg::Decoder,
}

impl Decoder {
    /// As [`image`](fn@image), into the memory of an older picture.
    ///
    /// # Errors
    /// When the bytes are not a picture of this encoding; then `into` holds nothing of use.
    pub fn decode(&mut self, encoding: Encoding, bytes: &[u8], into: &mut Image) -> Result<(), DecodeError> {
        self.part(encoding, bytes, Window::whole, into).map(drop)
    }

    /// A part of the picture, which `choose` names once it is known how many rows and columns there are. Where the part cannot be had
    /// alone, `into` is all of the picture; the result is where in it the part lies. Damage elsewhere in the file may go unnoticed.
    ///
    /// # Errors
    /// When the bytes are not a picture of this encoding; then `into` holds nothing of use.
    pub fn part(
        &mut self,
        encoding: Encoding,
        bytes: &[u8],
        choose: impl FnOnce([usize; 2]) -> Window,
        into: &mut Image,
    ) -> Result<Window, DecodeError> {
        self.record(&Record { label: 0, encoding, index: &[], bytes }, choose, into)
    }

    /// As [`Decoder::part`], of a record; where it has an index of its rows, they are found by it.
    ///
    /// # Errors
    /// As those of [`Decoder::part`].
    pub fn record(
        &mut self,
        record: &Record<'_>,
        choose: impl FnOnce([usize; 2]) -> Window,
        into: &mut Image,
    ) -> Result<Window, DecodeError> {
        let Record { encoding, index, bytes, .. } = *record;
        match encoding {
            Encoding::Raw { height, width, channels } => {
                check_raw(height, width, channels, bytes)?;
                let (width, channels) = (width as usize, usize::from(channels));
                let part = choose([height as usize, width]);
                (into.height, into.width, into.channels) = (part.height, part.width, channels);
                into.pixels.clear();
                for row in bytes.chunks_exact(width * channels).skip(part.top).take(part.height) {
                    into.pixels.extend_from_slice(&row[part.left * channels..(part.left + part.width) * channels]);
                }
                Ok(Window { top: 0, left: 0, ..part })
            }
            // The decoders are other people's, and the bytes are anyone's: should one of them panic, that is a property of the bytes.
            Encoding::Jpeg => catch_unwind(AssertUnwindSafe(|| self.jpeg(bytes, index, choose, into)))
                .unwrap_or_else(|_| Err(DecodeError::Jpeg("the decoder gave up".to_owned()))),
            Encoding::Png => {
                catch_unwind(AssertUnwindSafe(|| png(bytes, into)))
                    .unwrap_or_else(|_| Err(DecodeError::Png(image::ImageError::IoError(std::io::Error::other("the decoder gave up")))))?;
                Ok(choose([into.height, into.width]))
            }
        }
    }

    /// Where the rows of a JPEG file begin, for [`Record::index`]; empty where that is of no use or cannot be had.
    pub(crate) fn index(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut index = || {
            let [height, width] = self.jpeg.open(bytes)?;
            check_size(height, width, bytes).ok()?;
            // A record has two bytes for its length.
            self.jpeg.index(bytes).filter(|index| index.len() <= usize::from(u16::MAX))
        };
        index().unwrap_or_default()
    }

    fn jpeg(
        &mut self,
        bytes: &[u8],
        index: &[u8],
        choose: impl FnOnce([usize; 2]) -> Window,
        into: &mut Image,
    ) -> Result<Window, DecodeError> {
        // The two bytes of the end marker cannot occur within coded pixels. They are the last two of a sound file, so the search is short.
        if bytes.starts_with(&[0xff, 0xd8]) && !bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
            return Err(DecodeError::Truncated(bytes.len()));
        }
        let Some([height, width]) = self.jpeg.open(bytes) else {
            any_jpeg(bytes, into)?;
            return Ok(choose([into.height, into.width]));
        };
        check_size(height, width, bytes)?;
        let part = choose([height, width]);
        if self.jpeg.decode(bytes, index, part, into).is_some() {
            return Ok(Window { top: 0, left: 0, ..part });
        }
        // Damaged; the other decoder says how, or gets over it.
        any_jpeg(bytes, into)?;
        if [into.height, into.width] == [height, width] { Ok(part) } else { Err(DecodeError::Jpeg("two sizes".to_owned())) }
    }
}

/// That `bytes` are as many as raw pixels of this shape need.
pub(crate) fn check_raw(height: u32, width: u32, channels: u8, bytes: &[u8]) -> Result<(), DecodeError> {
    if !matches!(channels, 1 | 3) {
        return Err(DecodeError::Channels { found: channels.into() });
    }
    if height == 0 || width == 0 {
        return Err(DecodeError::Empty { height, width });
    }
    let wanted = u128::from(height) * u128::from(width) * u128::from(channels);
    if bytes.len() as u128 != wanted {
        return Err(DecodeError::Raw { height, width, channels, found: bytes.len() });
    }
    Ok(())
}

/// A block of 8×8 pixels costs at least one bit, whatever the coding: at most 512 pixels a byte.
fn check_size(height: usize, width: usize, bytes: &[u8]) -> Result<(), DecodeError> {
    if height * width > bytes.len().saturating_mul(512) {
        return Err(DecodeError::Size { height, width, bytes: bytes.len() });
    }
    Ok(())
}

/// A JPEG of any kind, progressive ones too.
fn any_jpeg(bytes: &[u8], into: &mut Image) -> Result<(), DecodeError> {
    let failed = |error: zune_jpeg::errors::DecodeErrors| DecodeError::Jpeg(error.to_string().trim_end().to_owned());
    // Strict: otherwise a picture that breaks off is filled with grey and passes for a good one.
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), DecoderOptions::default().set_strict_mode(true));
    decoder.decode_headers().map_err(failed)?;
    let (Some(info), Some((width, height))) = (decoder.info(), decoder.dimensions()) else {
        return Err(DecodeError::Jpeg("no frame header".to_owned()));
    };
    let (channels, colours) = match info.components {
        1 => (1, ColorSpace::Luma),
        3 => (3, ColorSpace::RGB),
        found => return Err(DecodeError::Channels { found: found.into() }),
    };
    check_size(height, width, bytes)?;
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(colours));
    (into.height, into.width, into.channels) = (height, width, channels);
    into.pixels.resize(height * width * channels, 0);
    decoder.decode_into(&mut into.pixels).map_err(failed)
}

fn png(bytes: &[u8], into: &mut Image) -> Result<(), DecodeError> {
    // Deflate makes at most 1032 bytes of one.
    let most = (bytes.len() as u64).saturating_mul(1032);
    let mut limits = Limits::default();
    limits.max_alloc = Some(most.max(1 << 16));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(DecodeError::Png)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > most {
        return Err(DecodeError::Size { height: height as usize, width: width as usize, bytes: bytes.len() });
    }
    let grey = !decoder.color_type().has_color();
    let picture = DynamicImage::from_decoder(decoder).map_err(DecodeError::Png)?;
    (into.height, into.width) = (height as usize, width as usize);
    (into.channels, into.pixels) = if grey { (1, picture.into_luma8().into_raw()) } else { (3, picture.into_rgb8().into_raw()) };
    Ok(())
}

/// Which channels a batch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// Those of the split's first picture where pixels are stored raw; three where they are JPEG or PNG, which mix both kinds.
    #[default]
    Stored,
    /// One: colour becomes its luma, `0.299 R + 0.587 G + 0.114 B` (ITU-R BT.601), rounded.
    Grey,
    /// Three: grey is copied.
    Rgb,
}

impl Channels {
    /// How many, for records of this encoding.
    pub fn count(self, encoding: Encoding) -> usize {
        match (self, encoding) {
            (Self::Grey, _) => 1,
            (Self::Stored, Encoding::Raw { channels, .. }) => channels.into(),
            (Self::Rgb, _) | (Self::Stored, Encoding::Jpeg | Encoding::Png) => 3,
        }
    }
}

/// The grey of a colour (ITU-R BT.601), with weights in 1/65536 that sum to 1, so that grey given as colour keeps its value.
pub(crate) fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 32_768) >> 16) as u8
}

/// Makes `image` one of `channels` channels; `spare` lends memory.
pub(crate) fn convert(image: &mut Image, channels: usize, spare: &mut Vec<u8>) {
    match (image.channels, channels) {
        (1, 3) => {
            spare.clear();
            spare.extend(image.pixels.iter().flat_map(|&grey| [grey; 3]));
        }
        (3, 1) => {
            spare.clear();
            spare.extend(image.pixels.as_chunks().0.iter().copied().map(luma));
        }
        _ => return,
    }
    std::mem::swap(&mut image.pixels, spare);
    image.channels = channels;
}
