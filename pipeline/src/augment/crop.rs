//! Parts of a picture.

use datasets::{Image, Rng};

use super::{AugmentError, Scratch};
use crate::decode::Window;

/// Published range of the area of a random resized crop.
pub(super) fn area() -> [f64; 2] {
    [0.08, 1.0]
}

/// Published range of the proportion of a random resized crop.
pub(super) fn ratio() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

pub(super) fn centre_crop(image: &mut Image, size: usize, scratch: &mut Scratch) -> Result<(), AugmentError> {
    let Image { height, width, .. } = *image;
    if height < size || width < size {
        return Err(AugmentError::Small { step: "centre_crop", wanted: size, height, width });
    }
    cut(image, middle(height, width, size).map(|offset| offset as isize), size, scratch);
    Ok(())
}

/// `[top, left]` of the `size × size` pixels in the middle.
pub(super) fn middle(height: usize, width: usize, size: usize) -> [usize; 2] {
    [height, width].map(|side| {
        let half = (side - size) / 2;
        // Half a pixel too many goes to the even neighbour.
        if (side - size) % 2 == 1 { half + half % 2 } else { half }
    })
}

pub(super) fn pad_crop(image: &mut Image, size: usize, pad: usize, rng: &mut Rng, scratch: &mut Scratch) -> Result<(), AugmentError> {
    let Image { height, width, .. } = *image;
    if height + 2 * pad < size || width + 2 * pad < size {
        return Err(AugmentError::Small { step: "pad_crop", wanted: size - 2 * pad, height, width });
    }
    let mut offset = |side: usize| rng.below(side + 2 * pad - size + 1) as isize - pad as isize;
    let window = [offset(height), offset(width)];
    cut(image, window, size, scratch);
    Ok(())
}

/// Leaves the `size × size` pixels from `place` on.
fn cut(image: &mut Image, place: [isize; 2], size: usize, scratch: &mut Scratch) {
    scratch.spare.clear();
    part(image, place, size, &mut scratch.spare);
    std::mem::swap(&mut image.pixels, &mut scratch.spare);
    (image.height, image.width) = (size, size);
}

/// Adds the `size × size` pixels from `[top, left]` on to `into`; black outside the picture.
pub(super) fn part(image: &Image, [top, left]: [isize; 2], size: usize, into: &mut Vec<u8>) {
    let c = image.channels;
    let start = into.len();
    into.resize(start + size * size * c, 0);
    // Columns of the window that lie in the picture, counted in the window.
    let inside = (-left).clamp(0, size as isize) as usize..(image.width as isize - left).clamp(0, size as isize) as usize;
    for (row, y) in into[start..].chunks_exact_mut(size * c).zip(top..) {
        if (0..image.height as isize).contains(&y) && !inside.is_empty() {
            let from = (y as usize * image.width).wrapping_add_signed(left + inside.start as isize) * c;
            row[inside.start * c..inside.end * c].copy_from_slice(&image.pixels[from..from + inside.len() * c]);
        }
    }
}

/// The rectangle of a random resized crop.
pub(super) fn random_window([height, width]: [usize; 2], area: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> Window {
    let (h, w) = (height as f64, width as f64);
    for _ in 0..10 {
        let target = h * w * rng.range(area[0], area[1]);
        let proportion = rng.range(ratio[0].ln(), ratio[1].ln()).exp();
        let (rows, columns) = ((target / proportion).sqrt().round() as usize, (target * proportion).sqrt().round() as usize);
        if (1..=height).contains(&rows) && (1..=width).contains(&columns) {
            return Window { top: rng.below(height - rows + 1), left: rng.below(width - columns + 1), height: rows, width: columns };
        }
    }
    let columns = (w.min(h * ratio[1]).round() as usize).clamp(1, width);
    let rows = (h.min(w / ratio[0]).round() as usize).clamp(1, height);
    Window { top: (height - rows) / 2, left: (width - columns) / 2, height: rows, width: columns }
}
