//! What the pixels of a data set add up to: mean and deviation.

use datasets::{Image, Normalize};
use serde::{Deserialize, Serialize};

/// Sums over pixels, in integers: exact, so that no order of adding changes them. 2⁶⁴ holds the squares of 280 million million
/// pixels, a thousand times ImageNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Moments {
    /// Pictures measured.
    pub(crate) pictures: u64,
    grey: Sums,
    color: Sums,
}

/// Of one channel, the first, or of three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Sums {
    pixels: u64,
    values: [u64; 3],
    squares: [u64; 3],
}

impl Moments {
    pub(crate) fn of(image: &Image) -> Self {
        match image.channels {
            1 => Self { pictures: 1, grey: Sums::of::<1>(&image.pixels), ..Self::default() },
            _ => Self { pictures: 1, color: Sums::of::<3>(&image.pixels), ..Self::default() },
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.pictures += other.pictures;
        self.grey.add(&other.grey);
        self.color.add(&other.color);
    }

    /// Mean and standard deviation on the scale 0 to 1, of one channel if all is grey, else of three.
    pub(crate) fn normalize(&self) -> Option<Normalize> {
        let channels = if self.color.pixels == 0 { 1 } else { 3 };
        let pixels = self.grey.pixels + self.color.pixels;
        let moment = |channel: usize| {
            let total = |grey: u64, color: u64| u128::from(grey) + u128::from(color);
            let n = u128::from(pixels);
            let sum = total(self.grey.values[0], self.color.values[channel]);
            let squares = total(self.grey.squares[0], self.color.squares[channel]);
            // n² times the variance, exact and never negative, before the first rounding.
            let variance = (n * squares - sum * sum) as f64 / (n as f64 * n as f64);
            ((sum as f64 / n as f64 / 255.0) as f32, (variance.sqrt() / 255.0) as f32)
        };
        let (mean, std) = (pixels > 0).then(|| (0..channels).map(moment).unzip())?;
        Some(Normalize { mean, std })
    }
}

impl Sums {
    fn of<const C: usize>(pixels: &[u8]) -> Self {
        // Lanes that are a whole number of pixels wide let the compiler add many at once; a lane's squares fit 32 bits for 66,051 rounds.
        const LANES: usize = 24;
        const ROUNDS: usize = 65_536;
        let mut sums = Self { pixels: (pixels.len() / C) as u64, ..Self::default() };
        for stretch in pixels.chunks(LANES * ROUNDS) {
            let (mut values, mut squares) = ([0u32; LANES], [0u32; LANES]);
            let rows = stretch.chunks_exact(LANES);
            for (lane, &pixel) in rows.remainder().iter().enumerate() {
                sums.values[lane % C] += u64::from(pixel);
                sums.squares[lane % C] += u64::from(pixel) * u64::from(pixel);
            }
            for row in rows {
                for lane in 0..LANES {
                    values[lane] += u32::from(row[lane]);
                    squares[lane] += u32::from(row[lane]) * u32::from(row[lane]);
                }
            }
            for lane in 0..LANES {
                sums.values[lane % C] += u64::from(values[lane]);
                sums.squares[lane % C] += u64::from(squares[lane]);
            }
        }
        sums
    }

    fn add(&mut self, other: &Self) {
        self.pixels += other.pixels;
        for channel in 0..3 {
            self.values[channel] += other.values[channel];
            self.squares[channel] += other.squares[channel];
        }
    }
}
