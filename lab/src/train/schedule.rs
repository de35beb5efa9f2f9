//! The learning rate over a run: a pure function of where the run is.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate goes from its peak, from step to step. Time is counted in epochs; a step lies between two.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The peak, always.
    #[default]
    Constant,
    /// Half a cosine from the peak to `floor` over all epochs after the warm-up (Loshchilov & Hutter 2017, without restarts).
    Cosine {
        /// Rate at the end of the run.
        #[serde(default, skip_serializing_if = "is_zero")]
        floor: f64,
    },
    /// A straight line from the peak to `floor` over all epochs after the warm-up.
    Linear {
        /// Rate at the end of the run.
        #[serde(default, skip_serializing_if = "is_zero")]
        floor: f64,
    },
    /// Times `factor` at each of these epochs.
    Step {
        /// Epochs, counted from 0 and from the beginning of the run, that begin with a lower rate.
        milestones: Vec<usize>,
        /// Usually 0.1.
        factor: f64,
    },
    /// Cosine cycles from the peak to `floor`, each `growth` times as long as the one before (SGDR), the first after the warm-up.
    WarmRestarts {
        /// Length of the first cycle in epochs.
        first: usize,
        /// Growth of the cycles, at least 1.
        growth: usize,
        /// Rate at the end of a cycle.
        floor: f64,
        /// As the program behind the layer-wise study of feature amounts does it: it counts steps from 1, divides them by the
        /// *whole* batches of an epoch, which is this number, and restarts one step late, on the second step of a cycle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        late: Option<usize>,
    },
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Schedule {
    /// The rate of step `step` of epoch `epoch`, of `steps` and `epochs` in all, when the schedule begins at time `begin`.
    pub(super) fn rate(&self, (peak, begin): (f64, f64), (epoch, epochs): (usize, usize), (step, steps): (usize, usize)) -> f64 {
        let time = epoch as f64 + step as f64 / steps.max(1) as f64;
        let wave = |floor: f64, done: f64| floor + (peak - floor) * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0;
        match *self {
            Self::Constant => peak,
            Self::Cosine { floor } => wave(floor, (time - begin) / (epochs as f64 - begin)),
            Self::Linear { floor } => peak + (floor - peak) * (time - begin) / (epochs as f64 - begin),
            Self::Step { ref milestones, factor } => {
                let passed = milestones.iter().filter(|&&milestone| epoch >= milestone).count();
                peak * factor.powi(passed as i32)
            }
            Self::WarmRestarts { first, growth, floor, late: None } => {
                let (start, length) = cycle(time - begin, first, growth);
                wave(floor, (time - begin - start) / length)
            }
            Self::WarmRestarts { first, growth, floor, late: Some(whole) } => {
                let before = if step == 0 { epoch.saturating_sub(1) } else { epoch };
                let (start, length) = cycle(before as f64, first, growth);
                wave(floor, (epoch as f64 - start + (step + 1) as f64 / whole as f64) / length)
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let wrong = |field: &str, wanted: &str, found: f64| Err(Error::mismatch(format!("recipe: schedule: {field}"), wanted, found));
        match *self {
            Self::WarmRestarts { first: 0, .. } => wrong("first", "at least 1", 0.0),
            Self::WarmRestarts { growth: 0, .. } => wrong("growth", "at least 1", 0.0),
            Self::WarmRestarts { late: Some(0), .. } => wrong("late", "at least 1", 0.0),
            Self::Cosine { floor } | Self::Linear { floor } | Self::WarmRestarts { floor, .. } if !(floor.is_finite() && floor >= 0.0) => {
                wrong("floor", "at least 0", floor)
            }
            Self::Step { factor, .. } if !(0.0..=1.0).contains(&factor) => wrong("factor", "0.0..=1.0", factor),
            _ => Ok(()),
        }
    }
}

/// Begin and length of the cycle that `time` lies in, in epochs since the first began.
fn cycle(time: f64, first: usize, growth: usize) -> (f64, f64) {
    let (mut start, mut length) = (0.0, first.max(1) as f64);
    while time >= start + length {
        start += length;
        length *= growth.max(1) as f64;
    }
    (start, length)
}
