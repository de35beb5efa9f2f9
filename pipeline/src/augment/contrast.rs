//! Global contrast normalisation: each picture by its own mean and contrast.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A pixel `p` of 0 to 255 becomes `scale × (p / 255 − mean) / max(epsilon, √(lambda + variance))`, with mean and variance over all values of
/// the picture, the channels together (Goodfellow, Bengio & Courville 2016, equation 12.3). With the defaults, the standard deviation of
/// each picture is 1.
///
/// pylearn2 computes on 0 to 255: its `sqrt_bias` is 255² times `lambda`, and its `min_divisor` 255 times `epsilon`. It divides by the root of
/// the variance of a sample, of `n − 1` in place of `n` values, or without `use_std` by that of the sum of squares, √n times as much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contrast {
    /// The standard deviation of the result, but for the other two. Default 1.
    pub scale: f64,
    /// Added to the variance, so that a picture of little contrast keeps little. Default 0.
    pub lambda: f64,
    /// The least divisor, so that a picture of one colour becomes 0. Default 1e-8.
    pub epsilon: f64,
}

impl Default for Contrast {
    fn default() -> Self {
        Self { scale: 1.0, lambda: 0.0, epsilon: 1e-8 }
    }
}

impl Contrast {
    pub(crate) fn check(&self) -> Result<()> {
        let positive = |field: &str, found: f64, least: bool| match found.is_finite() && (found > 0.0 || least && found == 0.0) {
            true => Ok(()),
            false => Err(Error::config(format!("normalize.contrast.{field}"), "a positive number", found)),
        };
        positive("scale", self.scale, false)?;
        positive("lambda", self.lambda, true)?;
        positive("epsilon", self.epsilon, false)
    }

    /// What each of the 256 values of a pixel becomes in this picture.
    pub(crate) fn row(&self, pixels: &[u8]) -> [f32; 256] {
        let (mut sum, mut squares) = (0u64, 0u64);
        // In integers, which add up alike in any order, and so that a stretch fits 32 bits.
        for stretch in pixels.chunks(65_536) {
            let (values, products) = stretch.iter().fold((0u32, 0u32), |(values, products), &pixel| {
                (values + u32::from(pixel), products + u32::from(pixel) * u32::from(pixel))
            });
            (sum, squares) = (sum + u64::from(values), squares + u64::from(products));
        }
        let n = pixels.len() as f64;
        let mean = sum as f64 / n;
        // n² times the variance is a whole number, never negative.
        let variance = (pixels.len() as u128 * u128::from(squares) - u128::from(sum) * u128::from(sum)) as f64 / (n * n);
        let divisor = (self.lambda + variance / (255.0 * 255.0)).sqrt().max(self.epsilon);
        std::array::from_fn(|pixel| (self.scale * (pixel as f64 - mean) / 255.0 / divisor) as f32)
    }
}
