//! Ten views of a picture (Krizhevsky et al. 2012), over which a network's logits are averaged.

use datasets::Image;

use super::{AugmentError, Scratch, crop, flip};

/// Number of views.
pub(super) const VIEWS: usize = 10;

/// The corners (top left, top right, bottom left, bottom right) and the middle, then those of the mirrored picture; one below the other.
pub(super) fn ten_crop(image: &mut Image, size: usize, scratch: &mut Scratch) -> Result<(), AugmentError> {
    let Image { height, width, .. } = *image;
    if height < size || width < size {
        return Err(AugmentError::Small { step: "ten_crop", wanted: size, height, width });
    }
    let (bottom, right) = (height - size, width - size);
    let places = [[0, 0], [0, right], [bottom, 0], [bottom, right], crop::middle(height, width, size)];
    scratch.spare.clear();
    for _ in 0..VIEWS / places.len() {
        for [top, left] in places {
            crop::part(image, [top as isize, left as isize], size, &mut scratch.spare);
        }
        flip::flip(image);
    }
    std::mem::swap(&mut image.pixels, &mut scratch.spare);
    (image.height, image.width) = (VIEWS * size, size);
    Ok(())
}
