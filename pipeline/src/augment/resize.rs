//! Bilinear resizing with antialiasing, as Pillow does it, to within one grey level.

use datasets::Image;
use fast_image_resize::images::{CroppedImage, Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions};

use super::{AugmentError, LONGEST, Scratch};
use crate::decode::Window;

/// Resizes so that the shorter side is `shorter`, the longer one `shorter * long / short`, rounded down.
pub(super) fn shorter_side(image: &mut Image, shorter: usize, scratch: &mut Scratch) -> Result<(), AugmentError> {
    let Image { height, width, .. } = *image;
    let found = shorter * height.max(width) / height.min(width);
    if found > LONGEST {
        return Err(AugmentError::Narrow { height, width, found });
    }
    resize(image, if height <= width { [shorter, found] } else { [found, shorter] }, scratch);
    Ok(())
}

/// Resizes to `[height, width]`.
pub(super) fn resize(image: &mut Image, to: [usize; 2], scratch: &mut Scratch) {
    if to != [image.height, image.width] {
        resize_window(image, Window::whole([image.height, image.width]), to, scratch);
    }
}

/// Cuts out `window` and resizes it to `[height, width]`. As when cut out first: no pixel outside the window has an influence.
pub(super) fn resize_window(image: &mut Image, window: Window, [height, width]: [usize; 2], scratch: &mut Scratch) {
    let kind = if image.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let side = |pixels: usize| u32::try_from(pixels).expect("a picture of that many pixels on a side would not be in memory");
    scratch.spare.resize(height * width * image.channels, 0);

    let source = ImageRef::new(side(image.width), side(image.height), &image.pixels, kind).expect("a picture has as many bytes as it says");
    let source = CroppedImage::new(&source, side(window.left), side(window.top), side(window.width), side(window.height))
        .expect("the window is in the picture and not empty");
    let mut target = Target::from_slice_u8(side(width), side(height), &mut scratch.spare, kind).expect("resized just now");
    scratch.resizer.resize(&source, &mut target, &options).expect("both are of the same kind");

    std::mem::swap(&mut image.pixels, &mut scratch.spare);
    (image.height, image.width) = (height, width);
}
