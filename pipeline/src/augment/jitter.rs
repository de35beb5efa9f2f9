//! Colour jitter: other light, another film, another camera.
//!
//! The operations are Pillow's, as torchvision uses them: brightness, contrast and saturation are a mixture with black, with the mean grey, and
//! with the grey picture, in which a factor of 0 leaves only that and one above 1 goes away from it. Hue turns the colour circle, in exact
//! numbers where Pillow first rounds to 256 hues.

use datasets::{Image, Rng};

/// Factors that change nothing.
pub(super) fn same() -> [f64; 2] {
    [1.0; 2]
}

/// Least and largest of each: brightness, contrast, saturation, hue. In random order, each on the result of the one before.
pub(super) fn jitter(image: &mut Image, bounds: [[f64; 2]; 4], rng: &mut Rng) {
    let mut order = [0, 1, 2, 3];
    rng.shuffle(&mut order);
    let [brightness, contrast, saturation, hue] = bounds.map(|[least, largest]| rng.range(least, largest) as f32);
    for step in order {
        match step {
            0 if brightness != 1.0 => towards(image, 0, brightness),
            1 if contrast != 1.0 => towards(image, mean(image), contrast),
            2 if saturation != 1.0 => saturate(image, saturation),
            3 if hue != 0.0 => turn(image, hue),
            _ => {}
        }
    }
}

/// `from` at a factor of 0, `to` at 1; rounded towards 0, as Pillow does.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

fn towards(image: &mut Image, grey: u8, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|pixel| blend(grey, pixel as u8, factor));
    image.pixels.iter_mut().for_each(|pixel| *pixel = table[usize::from(*pixel)]);
}

/// The mean grey, rounded.
fn mean(image: &Image) -> u8 {
    let pixels = (image.height * image.width) as u64;
    let sum: u64 = image.pixels.chunks_exact(image.channels).map(|pixel| u64::from(grey(pixel))).sum();
    ((2 * sum + pixels) / (2 * pixels)) as u8
}

fn grey(pixel: &[u8]) -> u8 {
    if let &[red, green, blue] = pixel { crate::decode::luma([red, green, blue]) } else { pixel[0] }
}

fn saturate(image: &mut Image, factor: f32) {
    if image.channels == 3 {
        for pixel in image.pixels.as_chunks_mut().0 {
            let grey = crate::decode::luma(*pixel);
            *pixel = pixel.map(|value| blend(grey, value, factor));
        }
    }
}

/// Each colour goes so many turns round the circle of the colours as bright and as strong as it.
fn turn(image: &mut Image, turns: f32) {
    if image.channels == 3 {
        for pixel in image.pixels.as_chunks_mut().0 {
            *pixel = turned(*pixel, turns);
        }
    }
}

fn turned(pixel: [u8; 3], turns: f32) -> [u8; 3] {
    let [red, green, blue] = pixel.map(f32::from);
    let (most, least) = (red.max(green).max(blue), red.min(green).min(blue));
    let span = most - least;
    if span == 0.0 {
        return pixel;
    }
    // In sixths: red at 0, green at 2, blue at 4.
    let hue = match most {
        _ if most == red => (green - blue) / span,
        _ if most == green => (blue - red) / span + 2.0,
        _ => (red - green) / span + 4.0,
    };
    let hue = (hue + 6.0 * turns).rem_euclid(6.0);
    let (falls, rises) = (most - span * hue.fract(), least + span * hue.fract());
    let colour = match hue as u8 {
        0 | 6 => [most, rises, least],
        1 => [falls, most, least],
        2 => [least, most, rises],
        3 => [least, falls, most],
        4 => [rises, least, most],
        _ => [most, least, falls],
    };
    colour.map(|value| value.round() as u8)
}
