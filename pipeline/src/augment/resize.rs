//! Bilinear resizing with antialiasing, as Pillow does it, to within one grey level.

use datasets::Image;

use super::resample::{Side, Source};
use super::{AugmentError, LONGEST, Scratch, crop};
use crate::decode::Window;

/// Resizes so that the shorter side is `shorter`, the longer one `shorter * long / short`, rounded down.
pub(super) fn shorter_side(image: &mut Image, shorter: usize, scratch: &mut Scratch) -> Result<(), AugmentError> {
    let to = scaled([image.height, image.width], shorter)?;
    resize(image, to, scratch);
    Ok(())
}

/// Resizes to `[height, width]`.
pub(crate) fn resize(image: &mut Image, to: [usize; 2], scratch: &mut Scratch) {
    if to != [image.height, image.width] {
        resize_window(image, Window::whole([image.height, image.width]), to, scratch);
    }
}

/// Cuts out `window` and resizes it to `[height, width]`. As when cut out first: no pixel outside the window has an influence.
pub(super) fn resize_window(image: &mut Image, window: Window, [height, width]: [usize; 2], scratch: &mut Scratch) {
    resample(image, [window.top, window.left], &[Side::whole(window.height, height), Side::whole(window.width, width)], scratch);
}

/// The middle of a picture whose shorter side is resized to `shorter`, `size × size` pixels: how a picture of `whole` rows and columns becomes that.
/// Nothing where it cannot.
pub(super) fn middle(whole: [usize; 2], shorter: usize, size: usize) -> Option<[Side; 2]> {
    let to @ [height, width] = scaled(whole, shorter).ok()?;
    let offsets = (height.min(width) >= size).then(|| crop::middle(height, width, size))?;
    Some([0, 1].map(|side| Side { from: whole[side], to: to[side], kept: offsets[side]..offsets[side] + size }))
}

/// What of a picture goes into so much of a resize of it.
pub(super) fn needs([rows, columns]: &[Side; 2]) -> Window {
    let (rows, columns) = (rows.needs(), columns.needs());
    Window { top: rows.start, left: columns.start, height: rows.len(), width: columns.len() }
}

/// Resizes what lies at `place` of the image; it need not have more of the picture.
pub(super) fn resample(image: &mut Image, place: [usize; 2], [rows, columns]: &[Side; 2], scratch: &mut Scratch) {
    let source = Source { pixels: &image.pixels, width: image.width, channels: image.channels, place };
    scratch.resampler.resample(source, rows, columns, &mut scratch.spare);
    std::mem::swap(&mut image.pixels, &mut scratch.spare);
    (image.height, image.width) = (rows.kept.len(), columns.kept.len());
}

/// `[height, width]` with the shorter side as wanted.
fn scaled([height, width]: [usize; 2], shorter: usize) -> Result<[usize; 2], AugmentError> {
    let longer = shorter * height.max(width) / height.min(width);
    match longer {
        ..=LONGEST => Ok(if height <= width { [shorter, longer] } else { [longer, shorter] }),
        _ => Err(AugmentError::Narrow { height, width, found: longer }),
    }
}
