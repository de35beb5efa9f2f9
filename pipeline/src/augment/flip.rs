//! Mirroring left and right.

use datasets::Image;

pub(super) fn flip(image: &mut Image) {
    let c = image.channels;
    for row in image.pixels.chunks_exact_mut(image.width * c) {
        row.reverse();
        // Reversing the row has reversed the channels of each pixel as well.
        if c > 1 {
            row.chunks_exact_mut(c).for_each(<[u8]>::reverse);
        }
    }
}
