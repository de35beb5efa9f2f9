//! From what fresh parameters are drawn.

use serde::{Deserialize, Serialize};

use super::Role;

/// The distribution of a fresh parameter: a function of its shape and fan-in. The draw is a function of a seed and its name.
///
/// `fan_in` is the number of inputs that meet in one output, `fan_out` that of output channels times the area of the kernel; for a
/// grouped convolution, too, `fan_out` counts the channels of all groups, as PyTorch does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Uniform within ±1/√fan_in: PyTorch's default for weights and biases.
    Uniform,
    /// Normal with variance 2/fan_in (He et al. 2015).
    KaimingIn,
    /// Normal with variance 2/fan_out (He et al. 2015): the usual one of ResNets.
    KaimingOut,
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// All the same.
    Constant(f64),
}

impl Init {
    /// What PyTorch does with a parameter of that role when nothing else is said.
    pub fn of(role: Role) -> Self {
        match role {
            Role::Weight | Role::Bias => Self::Uniform,
            Role::Scale | Role::Factor | Role::RunningVar => Self::Constant(1.0),
            Role::Shift | Role::RunningMean => Self::Constant(0.0),
        }
    }
}
