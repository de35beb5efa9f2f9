//! The shape and parameter rule of each operation.

use super::{Conv, Op, Role};

/// What was wanted, and what was found.
type Misfit = (String, String);

fn misfit<T>(wanted: impl ToString, found: impl ToString) -> Result<T, Misfit> {
    Err((wanted.to_string(), found.to_string()))
}

impl Op {
    /// The output's shape for one sample, given the inputs'.
    pub(super) fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, Misfit> {
        match self {
            Self::Input => misfit("no second input", "one"),
            Self::Linear(linear) => {
                let shape = match one(inputs)? {
                    _ if linear.features == 0 => return misfit("at least one feature", 0),
                    &[_] => vec![linear.features],
                    &[t, _] => vec![t, linear.features],
                    other => return misfit("an input [d] or [t, d]; flatten it first", format!("{other:?}")),
                };
                self.check_top(linear.top, inputs).map(|()| shape)
            }
            Self::Conv(conv) => {
                let (c, h, w) = picture(inputs)?;
                if conv.groups == 0 || c % conv.groups != 0 || conv.channels % conv.groups != 0 || conv.channels == 0 {
                    let wanted = format!("{} groups that divide input and output channels", conv.groups);
                    return misfit(wanted, format!("{c} and {}", conv.channels));
                }
                let size = conv.window().output_size((h, w), conv.kernel);
                let (rows, columns) = size.ok_or_else(|| unfit("a kernel that fits the padded picture", conv, (h, w)))?;
                self.check_top(conv.top, inputs).map(|()| vec![conv.channels, rows, columns])
            }
            Self::MaxPool(pool) | Self::AvgPool(pool) => {
                let (c, h, w) = picture(inputs)?;
                let size = pool.output_size((h, w));
                let (rows, columns) = size.ok_or_else(|| unfit("a window that fits the padded picture", pool, (h, w)))?;
                Ok(vec![c, rows, columns])
            }
            Self::BatchNorm { .. } => match one(inputs)? {
                shape @ (&[_] | &[_, _, _]) => Ok(shape.to_vec()),
                other => misfit("an input [c] or [c, h, w]", format!("{other:?}")),
            },
            Self::InstanceNorm { .. } => match picture(inputs)? {
                (_, 1, 1) => misfit("more than one pixel to normalise by", "1×1"),
                (c, h, w) => Ok(vec![c, h, w]),
            },
            Self::LayerNorm { dims, .. } => {
                let shape = one(inputs)?;
                if !(1..=shape.len()).contains(dims) {
                    return misfit(format!("1 to {} dimensions", shape.len()), dims);
                }
                Ok(shape.to_vec())
            }
            Self::Activate(_) => Ok(one(inputs)?.to_vec()),
            Self::Scale { by } if !by.is_finite() => misfit("a finite number", by),
            Self::Scale { .. } => Ok(one(inputs)?.to_vec()),
            Self::Dropout { p, .. } if !(0.0..1.0).contains(p) => misfit("a probability below 1", p),
            Self::Dropout { .. } => Ok(one(inputs)?.to_vec()),
            Self::Softmax { dim } => dimension(one(inputs)?, *dim).map(<[usize]>::to_vec),
            Self::GlobalAvgPool => picture(inputs).map(|(c, _, _)| vec![c]),
            Self::AdaptiveAvgPool { size } | Self::Upsample { size, .. } => match (picture(inputs)?, *size) {
                (_, (0, _) | (_, 0)) => misfit("at least one row and column", format!("{size:?}")),
                ((c, _, _), (rows, columns)) => Ok(vec![c, rows, columns]),
            },
            Self::Flatten => Ok(vec![one(inputs)?.iter().product()]),
            Self::Reshape { shape } => {
                let input = one(inputs)?;
                if shape.is_empty() || shape.iter().product::<usize>() != input.iter().product::<usize>() {
                    return misfit(format!("a shape of as many values as {input:?}"), format!("{shape:?}"));
                }
                Ok(shape.clone())
            }
            Self::Permute { order } => {
                let input = one(inputs)?;
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..input.len()) {
                    return misfit(format!("each of the {} dimensions once", input.len()), format!("{order:?}"));
                }
                Ok(order.iter().map(|&dim| input[dim]).collect())
            }
            Self::Slice { dim, start, len } => {
                let mut shape = dimension(one(inputs)?, *dim)?.to_vec();
                if *len == 0 || *start >= shape[*dim] || *len > shape[*dim] - start {
                    return misfit(format!("a part of {} places", shape[*dim]), format!("{len} from place {start} on"));
                }
                shape[*dim] = *len;
                Ok(shape)
            }
            Self::Concat => joined(inputs),
            Self::Pick { channels } => {
                let mut shape = joined(inputs)?;
                if channels.is_empty() {
                    return misfit("at least one channel", "none");
                }
                if let Some(channel) = channels.iter().find(|&&channel| channel >= shape[0]) {
                    return misfit(format!("channels below {}", shape[0]), channel);
                }
                shape[0] = channels.len();
                Ok(shape)
            }
            Self::Add => match inputs {
                [_, _, ..] => alike(inputs),
                _ => misfit("at least two inputs", inputs.len()),
            },
            Self::WeightedSum { .. } => match inputs {
                [] => misfit("at least one input", 0),
                _ => alike(inputs),
            },
            Self::Multiply => match inputs {
                [first, gates @ ..] if !gates.is_empty() => match gates.iter().find(|gate| !gates_fit(first, gate)) {
                    None => Ok(first.to_vec()),
                    Some(gate) => misfit(format!("[{}], or {first:?} with 1 in some places", first[0]), format!("{gate:?}")),
                },
                _ => misfit("at least two inputs", inputs.len()),
            },
            Self::Matmul => match inputs {
                [[left @ .., m, k], [right @ .., same, n]] if left == right && k == same => Ok([left, &[*m, *n]].concat()),
                _ => misfit("two inputs [.., m, k] and [.., k, n]", format!("{inputs:?}")),
            },
        }
    }

    /// Name, role, shape and fan-in of each parameter, for inputs of these shapes.
    pub(super) fn parameters(&self, inputs: &[&[usize]]) -> Vec<(&'static str, Role, Vec<usize>, usize)> {
        let Some(&input) = inputs.first() else { return Vec::new() };
        let norm = |affine: bool, shape: &[usize]| match affine {
            true => vec![("weight", Role::Scale, shape.to_vec(), 1), ("bias", Role::Shift, shape.to_vec(), 1)],
            false => Vec::new(),
        };
        let layer = |weight: Vec<usize>, bias: bool| {
            let fan_in = weight[1..].iter().product();
            let bias = bias.then(|| ("bias", Role::Bias, vec![weight[0]], fan_in));
            [("weight", Role::Weight, weight, fan_in)].into_iter().chain(bias).collect()
        };
        match self {
            Self::Linear(linear) => layer(vec![linear.features, input[input.len() - 1]], linear.bias),
            Self::Conv(Conv { channels, kernel, groups, bias, .. }) => layer(vec![*channels, input[0] / groups, kernel.0, kernel.1], *bias),
            Self::BatchNorm { affine, .. } => {
                let running = [("running_mean", Role::RunningMean), ("running_var", Role::RunningVar)];
                let running = running.map(|(name, role)| (name, role, vec![input[0]], 1));
                norm(*affine, &input[..1]).into_iter().chain(running).collect()
            }
            Self::InstanceNorm { affine, .. } => norm(*affine, &input[..1]),
            Self::LayerNorm { dims, affine, .. } => norm(*affine, &input[input.len() - dims..]),
            Self::WeightedSum { .. } => vec![("weight", Role::Factor, vec![inputs.len()], 1)],
            _ => Vec::new(),
        }
    }

    fn check_top(&self, top: Option<usize>, inputs: &[&[usize]]) -> Result<(), Misfit> {
        let weights = self.parameters(inputs)[0].2.iter().product();
        match top {
            Some(top) if !(1..=weights).contains(&top) => misfit(format!("1 to {weights} weights in use"), top),
            _ => Ok(()),
        }
    }
}

fn one<'a>(inputs: &[&'a [usize]]) -> Result<&'a [usize], Misfit> {
    match inputs {
        [one] => Ok(one),
        _ => misfit("one input", inputs.len()),
    }
}

fn picture(inputs: &[&[usize]]) -> Result<(usize, usize, usize), Misfit> {
    match one(inputs)? {
        &[c, h, w] => Ok((c, h, w)),
        other => misfit("an input [c, h, w]", format!("{other:?}")),
    }
}

fn unfit(wanted: &str, window: &impl std::fmt::Debug, (h, w): (usize, usize)) -> Misfit {
    (wanted.to_owned(), format!("{window:?} on {h}×{w}"))
}

/// The shape itself, if it has that dimension.
fn dimension(shape: &[usize], dim: usize) -> Result<&[usize], Misfit> {
    if dim < shape.len() { Ok(shape) } else { misfit(format!("a dimension of {shape:?}, counted from 0"), dim) }
}

/// The shape that all inputs have.
fn alike(inputs: &[&[usize]]) -> Result<Vec<usize>, Misfit> {
    match inputs.iter().find(|&&shape| shape != inputs[0]) {
        None => Ok(inputs[0].to_vec()),
        Some(other) => misfit(format!("inputs of one shape {:?}", inputs[0]), format!("{other:?}")),
    }
}

/// Whether a gate's shape says by what each value is multiplied.
fn gates_fit(shape: &[usize], gate: &[usize]) -> bool {
    gate == &shape[..1] || gate.len() == shape.len() && gate.iter().zip(shape).all(|(&gate, &size)| gate == size || gate == 1)
}

/// The shape of inputs put one after the other along the channels.
fn joined(inputs: &[&[usize]]) -> Result<Vec<usize>, Misfit> {
    let Some(first) = inputs.first() else { return misfit("at least one input", "none") };
    if let Some(other) = inputs.iter().find(|shape| shape[1..] != first[1..] || shape.len() != first.len()) {
        return misfit(format!("inputs that differ from {first:?} in channels alone"), format!("{other:?}"));
    }
    let mut shape = first.to_vec();
    shape[0] = inputs.iter().map(|shape| shape[0]).sum();
    Ok(shape)
}
