//! What a node can compute.

use serde::{Deserialize, Serialize};

use crate::kernels::{self, Activation, Interpolation, Pool};

/// A convolution: kernel, stride, padding and dilation are `(rows, columns)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Output channels.
    pub channels: usize,
    /// Extent of the window.
    pub kernel: (usize, usize),
    /// Distance between windows.
    pub stride: (usize, usize),
    /// Zeros on each side.
    pub padding: (usize, usize),
    /// Distance between the taps of a window.
    pub dilation: (usize, usize),
    /// Channels are split into so many groups that do not see one another.
    pub groups: usize,
    /// Whether a value is added per output channel.
    pub bias: bool,
    /// How many weights are in use, those of the largest magnitude (of equals the later); the gradient reaches all, as if all were.
    /// `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
}

impl Conv {
    /// 1×1, stride 1, no bias.
    pub fn k1(channels: usize) -> Self {
        Self { channels, kernel: (1, 1), stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1, bias: false, top: None }
    }

    /// 3×3 with padding 1, stride 1, no bias.
    pub fn k3(channels: usize) -> Self {
        Self { kernel: (3, 3), padding: (1, 1), ..Self::k1(channels) }
    }

    /// Square `size`×`size`, padded so that stride 1 keeps the extent of an odd kernel; no bias.
    pub fn square(channels: usize, size: usize) -> Self {
        Self { kernel: (size, size), padding: (size / 2, size / 2), ..Self::k1(channels) }
    }

    /// With this stride in both directions.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride: (stride, stride), ..self }
    }

    /// With this padding on all sides.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding: (padding, padding), ..self }
    }

    /// With channels in `groups` groups.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// With a bias.
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// With only the `top` largest weights in use.
    pub fn top(self, top: usize) -> Self {
        Self { top: Some(top), ..self }
    }

    /// How the window moves over the picture.
    pub(crate) fn window(&self) -> kernels::Conv {
        kernels::Conv { stride: self.stride, padding: self.padding, dilation: self.dilation, groups: self.groups }
    }
}

/// A matrix product along the last dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Output features.
    pub features: usize,
    /// Whether a value is added per output feature.
    pub bias: bool,
    /// As in [`Conv`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
}

impl Linear {
    /// Without a bias.
    pub fn plain(features: usize) -> Self {
        Self { features, bias: false, top: None }
    }

    /// With only the `top` largest weights in use.
    pub fn top(self, top: usize) -> Self {
        Self { top: Some(top), ..self }
    }
}

/// With a bias.
impl From<usize> for Linear {
    fn from(features: usize) -> Self {
        Self { features, bias: true, top: None }
    }
}

/// What dropout drops as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Single numbers (Srivastava et al. 2014).
    Number,
    /// Whole channels of a sample (Tompson et al. 2015).
    Channel,
    /// All of a sample: stochastic depth, when applied to the branch of a residual block (Huang et al. 2016).
    Sample,
}

/// What a node computes. `[..]` are shapes of one sample, and dimensions are counted in them: 0 is the channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The network's input.
    Input,
    /// `[d]` to `[features]`, or `[t, d]` to `[t, features]`.
    Linear(Linear),
    /// `[c, h, w]` to `[channels, h', w']`.
    Conv(Conv),
    /// Each channel to mean 0 and variance 1 over the batch; `[c]` or `[c, h, w]`.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Weight of the newest batch in the running statistics.
        momentum: f64,
        /// Whether it is then scaled and shifted.
        affine: bool,
        /// Whether training, too, takes the running statistics, and leaves them as they are.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        frozen: bool,
    },
    /// Each channel of each sample to mean 0 and variance 1; `[c, h, w]`.
    InstanceNorm {
        /// Added to the variance.
        eps: f64,
        /// Whether each channel is then scaled and shifted.
        affine: bool,
    },
    /// Each sample to mean 0 and variance 1 over its last `dims` dimensions; any shape.
    LayerNorm {
        /// How many dimensions are normalised as one.
        dims: usize,
        /// Added to the variance.
        eps: f64,
        /// Whether each place of these dimensions is then scaled and shifted.
        affine: bool,
    },
    /// A function of each value; any shape.
    Activate(Activation),
    /// Positive values that add up to 1 along a dimension; any shape.
    Softmax {
        /// The dimension.
        dim: usize,
    },
    /// `[c, h, w]` to `[c, h', w']`: the largest value of each window.
    MaxPool(Pool),
    /// `[c, h, w]` to `[c, h', w']`: the mean of each window.
    AvgPool(Pool),
    /// `[c, h, w]` to `[c]`: the mean of each channel.
    GlobalAvgPool,
    /// `[c, h, w]` to `[c, size.0, size.1]`: means of windows that share the picture evenly.
    AdaptiveAvgPool {
        /// Rows and columns of the output.
        size: (usize, usize),
    },
    /// `[c, h, w]` to `[c, size.0, size.1]`: the picture in another resolution.
    Upsample {
        /// Rows and columns of the output.
        size: (usize, usize),
        /// What stands between the pixels.
        by: Interpolation,
    },
    /// `[c, h, w]` to `[c·h·w]`, channel by channel.
    Flatten,
    /// The same values in the same order in another shape.
    Reshape {
        /// The output's.
        shape: Vec<usize>,
    },
    /// The dimensions in another order.
    Permute {
        /// For each dimension of the output, which one of the input it was.
        order: Vec<usize>,
    },
    /// A part of one dimension.
    Slice {
        /// The dimension.
        dim: usize,
        /// Its first place that is kept.
        start: usize,
        /// How many are kept.
        len: usize,
    },
    /// Inputs one after the other along the channels.
    Concat,
    /// Chosen channels of the inputs, counted through all of them in order: the long-range links of a dense cell.
    Pick {
        /// In the order of the output.
        channels: Vec<usize>,
    },
    /// The sum of inputs of one shape.
    Add,
    /// The sum of inputs of one shape, each times a learned number; of one input, that times a learned number.
    WeightedSum {
        /// Applied to the learned numbers first.
        through: Option<Activation>,
    },
    /// The first input times the others, each of its shape, or with 1 in place of some dimensions, or `[c]`: a gate per channel.
    Multiply,
    /// `[.., m, k]` and `[.., k, n]` to `[.., m, n]`: the matrix product of two inputs.
    Matmul,
    /// Each value times a number.
    Scale {
        /// The number.
        by: f64,
    },
    /// In training, some values 0 and the others larger by as much as keeps their mean; any shape.
    Dropout {
        /// Probability of 0.
        p: f64,
        /// What is dropped as one.
        unit: Unit,
    },
}

impl Op {
    /// A short name for tables and drawings.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Linear(_) => "linear",
            Self::Conv(_) => "conv",
            Self::BatchNorm { .. } => "batch_norm",
            Self::InstanceNorm { .. } => "instance_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Activate(activation) => activation.name(),
            Self::Softmax { .. } => "softmax",
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Self::Upsample { .. } => "upsample",
            Self::Flatten => "flatten",
            Self::Reshape { .. } => "reshape",
            Self::Permute { .. } => "permute",
            Self::Slice { .. } => "slice",
            Self::Concat => "concat",
            Self::Pick { .. } => "pick",
            Self::Add => "add",
            Self::WeightedSum { .. } => "weighted_sum",
            Self::Multiply => "multiply",
            Self::Matmul => "matmul",
            Self::Scale { .. } => "scale",
            Self::Dropout { unit: Unit::Number, .. } => "dropout",
            Self::Dropout { unit: Unit::Channel, .. } => "channel_dropout",
            Self::Dropout { unit: Unit::Sample, .. } => "stochastic_depth",
        }
    }
}
