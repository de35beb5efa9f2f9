//! A grid of samples.

use base64::Engine;
use datasets::Image;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::{Figure, Look, Plot, style};
use crate::show::escape;
use crate::{Error, Result, Table};

/// Pixels between pictures, and of a caption's line.
const GAP: u32 = 8;
const CAPTION: u32 = 18;

/// Pictures, ready for the page.
#[derive(Debug, Clone)]
pub(super) struct Pictures {
    pictures: Vec<Picture>,
    captioned: bool,
}

#[derive(Debug, Clone)]
struct Picture {
    caption: String,
    height: usize,
    width: usize,
    channels: usize,
    /// A PNG file in base 64.
    png: String,
}

/// The pictures row after row, each with its caption below; no captions at all where `captions` is empty. Small pictures are
/// enlarged without smoothing, so that every pixel can be seen.
///
/// # Errors
/// When there are captions, but not one for each picture; or a picture has neither 1 nor 3 channels, or no pixels.
pub fn picture_grid<S: AsRef<str>>(images: &[Image], captions: &[S]) -> Result<Figure> {
    if !captions.is_empty() && captions.len() != images.len() {
        return Err(Error::mismatch("captions", format!("none, or {}", images.len()), captions.len()));
    }
    let caption = |at: usize| captions.get(at).map_or(String::new(), |caption| caption.as_ref().to_owned());
    let pictures = images.iter().enumerate().map(|(at, image)| Picture::new(at, image, caption(at))).collect::<Result<Vec<_>>>()?;
    let pictures = Pictures { captioned: !captions.is_empty(), pictures };
    let width = 720;
    let height = pictures.layout(width).height;
    Ok(Figure::of(Plot::Pictures(pictures), ("", ""), (width, height)))
}

impl Picture {
    fn new(at: usize, image: &Image, caption: String) -> Result<Self> {
        let Image { height, width, channels, .. } = *image;
        let wrong = |wanted: &str, found: String| Error::mismatch(format!("picture {at}"), wanted, found);
        let colour = match channels {
            1 => ExtendedColorType::L8,
            3 => ExtendedColorType::Rgb8,
            other => return Err(wrong("1 or 3 channels", other.to_string())),
        };
        if height == 0 || width == 0 {
            return Err(wrong("pixels", format!("{height} × {width} of them")));
        }
        let mut png = Vec::new();
        let written = PngEncoder::new(&mut png).write_image(&image.pixels, width as u32, height as u32, colour);
        written.map_err(|source| wrong("a picture that PNG can hold", source.to_string()))?;
        Ok(Self { caption, height, width, channels, png: base64::engine::general_purpose::STANDARD.encode(png) })
    }
}

/// Where pictures go.
struct Layout {
    /// Pictures in a row.
    columns: u32,
    /// Room for a picture, in pixels of the page.
    cell: (u32, u32),
    /// Pixels of the page for one of a picture.
    zoom: f64,
    /// Of the whole, without a title.
    height: u32,
}

impl Pictures {
    fn layout(&self, page: u32) -> Layout {
        let largest = |side: fn(&Picture) -> usize| self.pictures.iter().map(side).max().unwrap_or(1) as f64;
        let (width, height) = (largest(|picture| picture.width), largest(|picture| picture.height));
        let count = self.pictures.len().max(1) as u32;
        // As near to 80 pixels as a whole number of page pixels a pixel comes; large pictures are made smaller, to 160.
        let zoom = if width > 160.0 { 160.0 / width } else { (80.0 / width).round().max(1.0) };
        let cell = ((width * zoom).ceil() as u32, (height * zoom).ceil() as u32);
        let columns = ((page - GAP) / (cell.0 + GAP)).clamp(1, count);
        let line = cell.1 + GAP + if self.captioned { CAPTION } else { 0 };
        Layout { columns, cell, zoom, height: GAP + count.div_ceil(columns) * line }
    }

    pub(super) fn data(&self) -> Table {
        let counts = |of: fn(&Picture) -> usize| self.pictures.iter().map(of).collect::<Vec<_>>().into();
        let captions: Vec<String> = self.pictures.iter().map(|picture| picture.caption.clone()).collect();
        let columns = [
            ("caption", captions.into()),
            ("height", counts(|picture| picture.height)),
            ("width", counts(|picture| picture.width)),
            ("channels", counts(|picture| picture.channels)),
        ];
        Table::new(columns).expect("columns of one length and different names")
    }

    pub(super) fn svg(&self, look: &Look) -> String {
        let Layout { columns, cell, zoom, height } = self.layout(look.size.0);
        let above = if look.title.is_empty() { 0 } else { 30 };
        let text = |x: u32, y: u32, attributes: &str, text: &str| {
            format!("<text x=\"{x}\" y=\"{y}\" font-family=\"sans-serif\" fill=\"#333\" {attributes}>{}</text>\n", escape(text))
        };
        let mut content = String::new();
        if above > 0 {
            content.push_str(&text(GAP, 22, "font-size=\"16\" font-weight=\"bold\"", &look.title));
        }
        let caption = if self.captioned { CAPTION } else { 0 };
        for (at, picture) in self.pictures.iter().enumerate() {
            let (column, row) = (at as u32 % columns, at as u32 / columns);
            let (left, top) = (GAP + column * (cell.0 + GAP), above + GAP + row * (cell.1 + GAP + caption));
            let (width, height) = (picture.width as f64 * zoom, picture.height as f64 * zoom);
            content.push_str(&format!(
                "<image x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{height}\" style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
                f64::from(left) + (f64::from(cell.0) - width) / 2.0,
                f64::from(top) + (f64::from(cell.1) - height) / 2.0,
                picture.png
            ));
            if self.captioned {
                let words = style::cut(&picture.caption, 12.0, f64::from(cell.0 + GAP) - 2.0);
                content.push_str(&text(left + cell.0 / 2, top + cell.1 + 14, "font-size=\"12\" text-anchor=\"middle\"", &words));
            }
        }
        let size = (look.size.0, height + above);
        style::document(size, size, &content)
    }
}
