//! The learning rate over a run: a pure function of where the run is.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate goes from its peak. Time is counted in epochs; a step lies between two.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak, always.
    #[default]
    Constant,
    /// Half a cosine from the peak to 0 over all epochs, at every step (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Times `factor` at each of these epochs.
    Step {
        /// Epochs, counted from 0, that begin with a lower rate.
        milestones: Vec<usize>,
        /// Usually 0.1.
        factor: f64,
    },
    /// Cosine cycles from the peak to `floor`, each `growth` times as long as the one before (SGDR).
    WarmRestarts {
        /// Length of the first cycle in epochs.
        first: usize,
        /// Growth of the cycles, at least 1.
        growth: usize,
        /// Rate at the end of a cycle.
        floor: f64,
    },
}

impl Schedule {
    /// The learning rate of step `step` of epoch `epoch`, of `steps` and `epochs` in all.
    ///
    /// ```
    /// use lab::train::Schedule;
    ///
    /// let sgdr = Schedule::WarmRestarts { first: 10, growth: 2, floor: 1e-5 };
    /// assert_eq!(sgdr.rate(0.01, (0, 150), (0, 391)), 0.01);
    /// assert!(sgdr.rate(0.01, (9, 150), (390, 391)) < 1.01e-5);
    /// assert_eq!(sgdr.rate(0.01, (10, 150), (0, 391)), 0.01);
    /// ```
    pub fn rate(&self, peak: f64, (epoch, epochs): (usize, usize), (step, steps): (usize, usize)) -> f64 {
        let time = epoch as f64 + step as f64 / steps.max(1) as f64;
        let cosine = |done: f64| (1.0 + (std::f64::consts::PI * done).cos()) / 2.0;
        match self {
            Self::Constant => peak,
            Self::Cosine => peak * cosine(time / epochs.max(1) as f64),
            Self::Step { milestones, factor } => {
                let passed = milestones.iter().filter(|&&milestone| epoch >= milestone).count();
                peak * factor.powi(passed as i32)
            }
            Self::WarmRestarts { first, growth, floor } => {
                let (mut begin, mut length) = (0, (*first).max(1));
                while epoch >= begin + length {
                    begin += length;
                    length *= (*growth).max(1);
                }
                floor + (peak - floor) * cosine((time - begin as f64) / length as f64)
            }
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::WarmRestarts { first: 0, .. } => Err(Error::mismatch("recipe: schedule: first", "at least 1", 0)),
            Self::WarmRestarts { growth: 0, .. } => Err(Error::mismatch("recipe: schedule: growth", "at least 1", 0)),
            Self::Step { factor, .. } if !(0.0..=1.0).contains(factor) => {
                Err(Error::mismatch("recipe: schedule: factor", "0.0..=1.0", factor))
            }
            _ => Ok(()),
        }
    }
}
