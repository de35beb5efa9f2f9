//! Pictures to one batch: rows of pixels with channels last become planes, `[n, c, h, w]`.

use datasets::{Image, Normalize};

/// A picture that does not fit among the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wanted {} like the split's first picture, found {}: add a resize or a crop", shape(wanted), shape(found))]
pub struct ShapeError {
    /// `[c, h, w]` of the batch.
    pub wanted: [usize; 3],
    /// `[c, h, w]` of the picture.
    pub found: [usize; 3],
}

fn shape([c, h, w]: &[usize; 3]) -> String {
    format!("{c}×{h}×{w}")
}

/// A picture that someone else owns: pixels with channels last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    /// `[c, h, w]`.
    pub(crate) shape: [usize; 3],
    pub(crate) pixels: &'a [u8],
}

impl<'a> From<&'a Image> for View<'a> {
    fn from(image: &'a Image) -> Self {
        Self { shape: [image.channels, image.height, image.width], pixels: &image.pixels }
    }
}

/// Numbers a batch can be made of.
pub(crate) trait Value: Copy + Default + Send + 'static {
    /// What a pixel of channel `channel` becomes.
    type Table: Send + Sync;

    /// Writes a picture's planes, one after the other.
    fn write(view: View<'_>, table: &Self::Table, slot: &mut [Self]);
}

impl Value for u8 {
    type Table = ();

    fn write(view: View<'_>, (): &(), slot: &mut [u8]) {
        match view.shape[0] {
            1 => slot.copy_from_slice(view.pixels),
            _ => planes(view.pixels, slot, |_, pixel| pixel),
        }
    }
}

/// What each of the 256 values of a pixel becomes, by channel. A sum and a division a pixel would cost more than the look-up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lookup(Vec<[f32; 256]>);

impl Lookup {
    pub(crate) fn new(normalize: Option<&Normalize>, channels: usize) -> Self {
        let unit = Normalize::unit(channels);
        let row = |channel: usize| std::array::from_fn(|pixel| normalize.unwrap_or(&unit).channel(channel)(pixel as u8));
        Self((0..channels).map(row).collect())
    }
}

impl Value for f32 {
    type Table = Lookup;

    fn write(view: View<'_>, Lookup(rows): &Lookup, slot: &mut [f32]) {
        match &rows[..] {
            [row] => slot.iter_mut().zip(view.pixels).for_each(|(value, &pixel)| *value = row[usize::from(pixel)]),
            _ => planes(view.pixels, slot, |channel, pixel| rows[channel][usize::from(pixel)]),
        }
    }
}

/// Three interleaved channels to three planes, in one pass over the pixels.
fn planes<T>(pixels: &[u8], slot: &mut [T], value: impl Fn(usize, u8) -> T) {
    let (red, rest) = slot.split_at_mut(slot.len() / 3);
    let (green, blue) = rest.split_at_mut(red.len());
    for (((red, green), blue), pixel) in red.iter_mut().zip(green).zip(blue).zip(pixels.chunks_exact(3)) {
        *red = value(0, pixel[0]);
        *green = value(1, pixel[1]);
        *blue = value(2, pixel[2]);
    }
}

/// Writes one picture into its place in a batch of pictures of shape `wanted`.
pub(crate) fn place<T: Value>(view: View<'_>, wanted: [usize; 3], table: &T::Table, slot: &mut [T]) -> Result<(), ShapeError> {
    if view.shape != wanted {
        return Err(ShapeError { wanted, found: view.shape });
    }
    T::write(view, table, slot);
    Ok(())
}
