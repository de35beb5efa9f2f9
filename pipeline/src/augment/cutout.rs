//! Cutout: a network that is sometimes shown a picture with a hole must look at more than one spot.

use datasets::{Image, Rng};

pub(super) fn cutout(image: &mut Image, length: usize, blank: &[u8; 3], rng: &mut Rng) {
    let half = length / 2;
    let (y, x) = (rng.below(image.height), rng.below(image.width));
    let (top, bottom) = (y.saturating_sub(half), (y + half).min(image.height));
    let (left, right) = (x.saturating_sub(half), (x + half).min(image.width));
    let c = image.channels;
    for row in image.pixels.chunks_exact_mut(image.width * c).take(bottom).skip(top) {
        row[left * c..right * c].chunks_exact_mut(c).for_each(|pixel| pixel.copy_from_slice(&blank[..c]));
    }
}
