//! Turning a picture about its middle.

use datasets::Image;
use serde::{Deserialize, Serialize};

use super::Scratch;

/// What colour there is between pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// That of the nearest pixel: sharp, with steps along edges. Pillow's pixels.
    #[default]
    Nearest,
    /// A mean of the four pixels around, by distance: smooth. Pillow's pixels to within one grey level, since here the mean is rounded.
    Bilinear,
}

/// A position between pixels, or a share of a pixel, is counted in parts of `2^-BITS`, as Pillow does.
const BITS: u32 = 16;
const ONE: i64 = 1 << BITS;

/// Turns the picture counter-clockwise; it keeps its size, and what comes into sight from outside is `fill`.
pub(super) fn rotate(image: &mut Image, degrees: f64, between: Between, fill: &[u8; 3], scratch: &mut Scratch) {
    let Image { height, width, channels, .. } = *image;
    // Of right angles, 15 digits are exact.
    let digits = |x: f64| (x * 1e15).round() / 1e15;
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let (sine, cosine) = (digits(sine), digits(cosine));
    let parts = |x: f64| (x * ONE as f64 + 0.5).floor() as i64;
    // The middle of the first pixel, turned back, is where its colour comes from; a step right or down turns back alike.
    let (down, right) = (height as f64 / 2.0 - 0.5, width as f64 / 2.0 - 0.5);
    let mut start = [parts(height as f64 / 2.0 - sine * right - cosine * down), parts(width as f64 / 2.0 - cosine * right + sine * down)];
    let (along, across) = ([parts(sine), parts(cosine)], [parts(cosine), parts(-sine)]);

    let source = Source { pixels: &image.pixels, height: height as i64, width: width as i64, channels };
    scratch.spare.resize(image.pixels.len(), 0);
    for row in scratch.spare.chunks_exact_mut(width * channels) {
        let [mut y, mut x] = start;
        for pixel in row.chunks_exact_mut(channels) {
            match between {
                _ if !source.contains(y >> BITS, x >> BITS) => pixel.copy_from_slice(&fill[..channels]),
                Between::Nearest => pixel.copy_from_slice(source.pixel(y >> BITS, x >> BITS)),
                Between::Bilinear => source.mean(y, x, pixel),
            }
            (y, x) = (y + along[0], x + along[1]);
        }
        start = [start[0] + across[0], start[1] + across[1]];
    }
    std::mem::swap(&mut image.pixels, &mut scratch.spare);
}

struct Source<'a> {
    pixels: &'a [u8],
    height: i64,
    width: i64,
    channels: usize,
}

impl<'a> Source<'a> {
    fn contains(&self, y: i64, x: i64) -> bool {
        (0..self.height).contains(&y) && (0..self.width).contains(&x)
    }

    fn pixel(&self, y: i64, x: i64) -> &'a [u8] {
        &self.pixels[(y * self.width + x) as usize * self.channels..][..self.channels]
    }

    /// The colour at a place; over the border, pixels go on as the last one is.
    fn mean(&self, y: i64, x: i64, into: &mut [u8]) {
        let split = |at: i64, last: i64| {
            // Counted from the middles of pixels.
            let at = at - ONE / 2;
            let before = at >> BITS;
            (before.max(0), (before + 1).min(last), at & (ONE - 1))
        };
        let ((top, bottom, low), (left, right, far)) = (split(y, self.height - 1), split(x, self.width - 1));
        let corners = [self.pixel(top, left), self.pixel(top, right), self.pixel(bottom, left), self.pixel(bottom, right)];
        for (channel, value) in into.iter_mut().enumerate() {
            let [a, b, c, d] = corners.map(|pixel| i64::from(pixel[channel]));
            let (above, below) = (a * (ONE - far) + b * far, c * (ONE - far) + d * far);
            *value = ((above * (ONE - low) + below * low + ONE * ONE / 2) >> (2 * BITS)) as u8;
        }
    }
}
