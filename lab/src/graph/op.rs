//! What a node can compute, and the shape and parameter rule of each operation.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::kernels::{self, Activation, Pool};

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
}

impl Conv {
    /// 1×1, stride 1, no bias.
    pub fn k1(channels: usize) -> Self {
        Self { channels, kernel: (1, 1), stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1, bias: false }
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

    /// How the window moves over the picture.
    pub(crate) fn window(&self) -> kernels::Conv {
        kernels::Conv { stride: self.stride, padding: self.padding, dilation: self.dilation, groups: self.groups }
    }
}

/// What a node computes. `[..]` are shapes of one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// The network's input.
    Input,
    /// `[d]` to `[features]`: matrix product and bias.
    Linear {
        /// Output features.
        features: usize,
    },
    /// `[c, h, w]` to `[channels, h', w']`.
    Conv(Conv),
    /// Each channel to mean 0 and variance 1, then scaled and shifted; any shape.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Weight of the newest batch in the running statistics.
        momentum: f64,
    },
    /// A function of each value; any shape.
    Activate(Activation),
    /// `[c, h, w]` to `[c, h', w']`: the largest value of each window.
    MaxPool(Pool),
    /// `[c, h, w]` to `[c, h', w']`: the mean of each window.
    AvgPool(Pool),
    /// `[c, h, w]` to `[c]`: the mean of each channel.
    GlobalAvgPool,
    /// `[c, h, w]` to `[c·h·w]`, channel by channel.
    Flatten,
    /// Inputs one after the other along the channels.
    Concat,
    /// Chosen channels of the inputs, counted through all of them in order: the long-range links of a dense cell.
    Pick {
        /// In the order of the output.
        channels: Vec<usize>,
    },
    /// The sum of inputs of one shape.
    Add,
}

/// What was wanted, and what was found.
type Misfit = (String, String);

impl Op {
    /// A short name for tables and drawings.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Linear { .. } => "linear",
            Self::Conv(_) => "conv",
            Self::BatchNorm { .. } => "batch_norm",
            Self::Activate(activation) => activation.name(),
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Flatten => "flatten",
            Self::Concat => "concat",
            Self::Pick { .. } => "pick",
            Self::Add => "add",
        }
    }

    /// The output's shape for one sample, given the inputs'.
    pub(super) fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Misfit> {
        let one = || match inputs {
            [one] => Ok(*one),
            _ => Err(("one input".to_owned(), inputs.len().to_string())),
        };
        let picture = || match one()? {
            &[c, h, w] => Ok((c, h, w)),
            other => Err(("an input [c, h, w]".to_owned(), format!("{other:?}"))),
        };
        match self {
            Self::Input => Err(("no second input".to_owned(), "one".to_owned())),
            Self::Linear { features } => match one()? {
                [_] if *features > 0 => Ok(vec![*features]),
                [_] => Err(("at least one feature".to_owned(), "0".to_owned())),
                other => Err(("an input [d]; flatten it first".to_owned(), format!("{other:?}"))),
            },
            Self::Conv(conv) => {
                let (c, h, w) = picture()?;
                if conv.groups == 0 || c % conv.groups != 0 || conv.channels % conv.groups != 0 || conv.channels == 0 {
                    let wanted = format!("{} groups that divide input and output channels", conv.groups);
                    return Err((wanted, format!("{c} and {}", conv.channels)));
                }
                let size = conv.window().output_size((h, w), conv.kernel);
                let (rows, columns) = size.ok_or_else(|| unfit("a kernel that fits the padded picture", conv, (h, w)))?;
                Ok(vec![conv.channels, rows, columns])
            }
            Self::MaxPool(pool) | Self::AvgPool(pool) => {
                let (c, h, w) = picture()?;
                let size = pool.output_size((h, w));
                let (rows, columns) = size.ok_or_else(|| unfit("a window that fits the padded picture", pool, (h, w)))?;
                Ok(vec![c, rows, columns])
            }
            Self::BatchNorm { .. } | Self::Activate(_) => Ok(one()?.to_vec()),
            Self::GlobalAvgPool => picture().map(|(c, _, _)| vec![c]),
            Self::Flatten => Ok(vec![one()?.iter().product()]),
            Self::Concat => joined(inputs),
            Self::Pick { channels } => {
                let mut shape = joined(inputs)?;
                if channels.is_empty() {
                    return Err(("at least one channel".to_owned(), "none".to_owned()));
                }
                if let Some(channel) = channels.iter().find(|&&channel| channel >= shape[0]) {
                    return Err((format!("channels below {}", shape[0]), channel.to_string()));
                }
                shape[0] = channels.len();
                Ok(shape)
            }
            Self::Add => match inputs {
                [first, rest @ ..] if !rest.is_empty() => match rest.iter().find(|shape| *shape != first) {
                    None => Ok(first.to_vec()),
                    Some(other) => Err((format!("inputs of one shape {first:?}"), format!("{other:?}"))),
                },
                _ => Err(("at least two inputs".to_owned(), inputs.len().to_string())),
            },
        }
    }

    /// Name, role, shape and fan-in of each parameter, for an input of this shape.
    pub(super) fn parameters(&self, input: &[usize]) -> Vec<(&'static str, Role, Vec<usize>, usize)> {
        match self {
            Self::Linear { features } => {
                vec![("weight", Role::Weight, vec![*features, input[0]], input[0]), ("bias", Role::Bias, vec![*features], input[0])]
            }
            Self::Conv(conv) => {
                let (kh, kw) = conv.kernel;
                let fan_in = input[0] / conv.groups * kh * kw;
                let weight = ("weight", Role::Weight, vec![conv.channels, input[0] / conv.groups, kh, kw], fan_in);
                if conv.bias { vec![weight, ("bias", Role::Bias, vec![conv.channels], fan_in)] } else { vec![weight] }
            }
            Self::BatchNorm { .. } => vec![
                ("weight", Role::Scale, vec![input[0]], 1),
                ("bias", Role::Shift, vec![input[0]], 1),
                ("running_mean", Role::RunningMean, vec![input[0]], 1),
                ("running_var", Role::RunningVar, vec![input[0]], 1),
            ],
            _ => Vec::new(),
        }
    }
}

fn unfit(wanted: &str, window: &impl std::fmt::Debug, (h, w): (usize, usize)) -> Misfit {
    (wanted.to_owned(), format!("{window:?} on {h}×{w}"))
}

/// The shape of inputs put one after the other along the channels.
fn joined(inputs: &[&[usize]]) -> Result<Vec<usize>, Misfit> {
    let Some(first) = inputs.first() else { return Err(("at least one input".to_owned(), "none".to_owned())) };
    if let Some(other) = inputs.iter().find(|shape| shape[1..] != first[1..] || shape.len() != first.len()) {
        return Err((format!("inputs that differ from {first:?} in channels alone"), format!("{other:?}")));
    }
    let mut shape = first.to_vec();
    shape[0] = inputs.iter().map(|shape| shape[0]).sum();
    Ok(shape)
}
