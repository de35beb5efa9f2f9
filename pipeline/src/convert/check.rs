//! Whether a picture can be used.

use datasets::Image;

use super::header::{Header, header};
use crate::decode::Decoder;
use crate::store::Encoding;
use crate::store::codec::PICTURE_LIMIT;
use crate::store::meta::{Size, Traits};

/// How closely the files of pictures are looked at before they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Headers, and the way from marker to marker to the end: a file that was cut short or is something else is seen, one with wrong
    /// bits among its pixels is not. A hundredth of the work of decoding. What this finds doubtful is decoded.
    #[default]
    Header,
    /// Every picture is decoded.
    Decode,
}

/// What the bytes of a file are: a JPEG or PNG that is whole as far as can be told without decoding, or else by decoding.
pub(super) fn file(bytes: &[u8], decoder: &mut Decoder) -> Result<(Encoding, Header), String> {
    let encoding = sniff(bytes)?;
    if let Some(header) = header(encoding, bytes) {
        let Header { height, width, channels, .. } = header;
        extent(height as usize, width as usize, usize::from(channels).min(3))?;
        return Ok((encoding, header));
    }
    let Size { height, width, channels } = size(&decoded(encoding, bytes, decoder)?)?;
    Ok((encoding, Header { height, width, channels, orientation: 1, traits: Traits::default() }))
}

/// The picture of a file.
pub(super) fn decoded(encoding: Encoding, bytes: &[u8], decoder: &mut Decoder) -> Result<Image, String> {
    let mut image = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };
    decoder.decode(encoding, bytes, &mut image).map_err(|error| chain(&error))?;
    Ok(image)
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source()).fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn sniff(bytes: &[u8]) -> Result<Encoding, String> {
    match bytes {
        _ if bytes.len() > PICTURE_LIMIT => Err(format!("longer than {PICTURE_LIMIT} bytes")),
        [0xff, 0xd8, 0xff, ..] => Ok(Encoding::Jpeg),
        [0x89, b'P', b'N', b'G', ..] => Ok(Encoding::Png),
        [] => Err("an empty file".to_owned()),
        _ => Err(format!("neither JPEG nor PNG: starts with {:02x?}", &bytes[..bytes.len().min(4)])),
    }
}

/// The size of pixels: grey or RGB, and at least one of them.
pub(crate) fn size(image: &Image) -> Result<Size, String> {
    extent(image.height, image.width, image.channels)?;
    Ok(Size { height: image.height as u32, width: image.width as u32, channels: image.channels as u8 })
}

fn extent(height: usize, width: usize, channels: usize) -> Result<(), String> {
    let bytes = height as u128 * width as u128 * channels as u128;
    if height == 0 || width == 0 || !matches!(channels, 1 | 3) || bytes > PICTURE_LIMIT as u128 {
        return Err(format!("{height}x{width}x{channels} pixels: wanted 1 or 3 channels and 1 to {PICTURE_LIMIT} bytes"));
    }
    Ok(())
}
