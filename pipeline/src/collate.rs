//! Pictures to one batch: rows of pixels with channels last become planes, `[n, c, h, w]`.

use bytemuck::Pod;
use datasets::{Image, Mixed, Normalize};

use crate::augment::Contrast;
use crate::order::Plan;

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
    /// Whether its mirror image is meant.
    pub(crate) mirrored: bool,
}

impl<'a> From<&'a Image> for View<'a> {
    fn from(image: &'a Image) -> Self {
        Self { shape: [image.channels, image.height, image.width], pixels: &image.pixels, mirrored: false }
    }
}

/// Numbers a batch can be made of.
pub(crate) trait Value: Pod + Send + Sync {
    /// What a pixel of channel `channel` becomes.
    type Table: Send + Sync;

    /// Writes a picture's planes, one after the other.
    fn write(channels: usize, pixels: &[u8], table: &Self::Table, slot: &mut [Self]);

    /// `share` of `own`, and the rest of `other`.
    fn mix(own: Self, other: Self, share: f32) -> Self;
}

impl Value for u8 {
    type Table = ();

    fn write(channels: usize, pixels: &[u8], (): &(), slot: &mut [u8]) {
        match channels {
            1 => slot.copy_from_slice(pixels),
            _ => bytes(pixels, slot),
        }
    }

    fn mix(own: u8, other: u8, share: f32) -> u8 {
        // Halves are rounded up; the sum of the shares is 1, so it fits.
        (share * f32::from(own) + (1.0 - share) * f32::from(other) + 0.5) as u8
    }
}

/// What each of the 256 values of a pixel becomes. A sum and a division a pixel would cost more than the look-up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lookup {
    /// By channel.
    Constants(Vec<[f32; 256]>),
    /// By picture.
    Contrast(Contrast),
}

impl Lookup {
    pub(crate) fn new(normalize: Option<&Normalize>, channels: usize) -> Self {
        let unit = Normalize::unit(channels);
        let row = |channel: usize| std::array::from_fn(|pixel| normalize.unwrap_or(&unit).channel(channel)(pixel as u8));
        Self::Constants((0..channels).map(row).collect())
    }
}

impl Value for f32 {
    type Table = Lookup;

    fn write(channels: usize, pixels: &[u8], table: &Lookup, slot: &mut [f32]) {
        let own;
        let rows: [&[f32; 256]; 3] = match table {
            Lookup::Constants(rows) => std::array::from_fn(|channel| &rows[channel.min(rows.len() - 1)]),
            Lookup::Contrast(contrast) => {
                own = contrast.row(pixels);
                [&own; 3]
            }
        };
        match channels {
            1 => slot.iter_mut().zip(pixels).for_each(|(value, &pixel)| *value = rows[0][usize::from(pixel)]),
            _ => planes(pixels, slot, |channel, pixel| rows[channel][usize::from(pixel)]),
        }
    }

    fn mix(own: f32, other: f32, share: f32) -> f32 {
        share * own + (1.0 - share) * other
    }
}

/// As [`planes`], of the pixels themselves.
fn bytes(pixels: &[u8], slot: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[expect(unsafe_code, reason = "the compiler cannot know on which processor this will run")]
        // SAFETY: this processor has what the function was compiled for.
        return unsafe { bytes_wide(pixels, slot) };
    }
    planes(pixels, slot, |_, pixel| pixel);
}

/// As [`bytes`], compiled for registers that 32 pixels are shuffled in at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn bytes_wide(pixels: &[u8], slot: &mut [u8]) {
    planes(pixels, slot, |_, pixel| pixel);
}

/// Three interleaved channels to three planes, in one pass over the pixels.
#[inline(always)]
fn planes<T>(pixels: &[u8], slot: &mut [T], value: impl Fn(usize, u8) -> T) {
    let (red, rest) = slot.split_at_mut(slot.len() / 3);
    let (green, blue) = rest.split_at_mut(red.len());
    for (((red, green), blue), pixel) in red.iter_mut().zip(green).zip(blue).zip(pixels.chunks_exact(3)) {
        *red = value(0, pixel[0]);
        *green = value(1, pixel[1]);
        *blue = value(2, pixel[2]);
    }
}

/// Writes one picture, or views of it that lie one below the other, into its place in a batch of pictures of shape `wanted`.
pub(crate) fn place<T: Value>(view: View<'_>, wanted: [usize; 3], table: &T::Table, slot: &mut [T]) -> Result<(), ShapeError> {
    let [channels, height, width] = wanted;
    let size = channels * height * width;
    if view.shape != [channels, slot.len() / size * height, width] {
        return Err(ShapeError { wanted, found: view.shape });
    }
    for (pixels, slot) in view.pixels.chunks_exact(size).zip(slot.chunks_exact_mut(size)) {
        T::write(channels, pixels, table, slot);
        if view.mirrored {
            slot.chunks_exact_mut(width).for_each(<[T]>::reverse);
        }
    }
    Ok(())
}

/// Mix-up (Zhang et al. 2018): writes to `into` the samples of a batch labelled `labels`, each with a share of another's. The share is drawn
/// once for the batch from Beta(`alpha`, `alpha`) and taken at least ½, so that a sample's own label stays the likelier.
pub(crate) fn mix_up<T: Value>(plan: &Plan, alpha: f64, labels: &[u32], values: &[T], into: &mut [T]) -> Mixed {
    let mut rng = plan.mix_seed().rng();
    let share = rng.beta(alpha);
    let share = share.max(1.0 - share) as f32;
    let mut others: Vec<usize> = (0..labels.len()).collect();
    rng.shuffle(&mut others);
    let size = values.len() / labels.len();
    for ((mixed, own), &other) in into.chunks_exact_mut(size).zip(values.chunks_exact(size)).zip(&others) {
        let other = &values[other * size..][..size];
        mixed.iter_mut().zip(own).zip(other).for_each(|((mixed, &own), &other)| *mixed = T::mix(own, other, share));
    }
    Mixed { share, others: others.iter().map(|&other| labels[other]).collect() }
}
