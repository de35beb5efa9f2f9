//! Choosing and joining channels.

use std::ops::Deref;

use candle::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, WithDType, bail};

use super::buffers::fresh;
use super::real::{Real, each_part, for_dtype, for_real, numbers, per_task, planes};

/// The channels `channels` of `xs (n, c, h, w)` or `(n, c)`, in that order, some perhaps several times: `(n, channels.len(), ..)`.
///
/// The gradient of a channel is the sum over the places it was put.
///
/// # Errors
/// When no channel is asked for, or one that is not there.
pub fn pick(xs: &Tensor, channels: &[usize]) -> Result<Tensor> {
    let (_, c, _) = planes("pick", xs)?;
    if channels.is_empty() {
        bail!("pick: wanted at least one channel, found none")
    }
    if let Some((at, channel)) = channels.iter().enumerate().find(|&(_, &channel)| channel >= c) {
        bail!("pick: wanted channels below {c}, found {channel} at position {at}")
    }
    if !xs.device().is_cpu() {
        let channels: Vec<u32> = channels.iter().map(|&channel| channel as u32).collect();
        return xs.contiguous()?.index_select(&Tensor::from_vec(channels, (), xs.device())?, 1);
    }
    xs.contiguous()?.apply_op1(Pick(channels.to_vec()))
}

/// Tensors that agree but in their second dimension, one after another along it.
///
/// # Errors
/// When there is none, or they do not agree.
pub fn concat(xs: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = xs.first() else { bail!("concat: wanted at least one tensor, found none") };
    for (at, tensor) in xs.iter().enumerate() {
        let agrees = tensor.rank() >= 2 && tensor.rank() == first.rank() && tensor.dims()[0] == first.dims()[0];
        if !agrees || tensor.dims()[2..] != first.dims()[2..] {
            bail!("concat: wanted {:?} but for the channels, found {:?} at position {at}", first.dims(), tensor.dims())
        }
    }
    Tensor::cat(xs, 1)
}

struct Pick(Vec<usize>);

/// Rank 2 or 4 with another number of channels.
fn with_channels(dims: &[usize], channels: usize) -> Shape {
    let mut dims = dims.to_vec();
    dims[1] = channels;
    dims.into()
}

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn cpu_fwd(&self, xs: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (dims, sources) = (xl.dims(), self.0.iter().map(|&channel| (0, channel)).collect::<Vec<Source>>());
        for_real!("pick", xs, T => {
            let ys = choose::<T>(&[(numbers("pick", xs, xl)?, dims[1])], &sources, dims);
            Ok((T::to_cpu_storage_owned(ys), with_channels(dims, sources.len())))
        })
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&PickBackward { channels: &self.0, c: xs.dims()[1] })?))
    }
}

struct PickBackward<'a> {
    channels: &'a [usize],
    /// Channels of the input.
    c: usize,
}

impl CustomOp1 for PickBackward<'_> {
    fn name(&self) -> &'static str {
        "pick backward"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, gl: &Layout) -> Result<(CpuStorage, Shape)> {
        let pairs: Vec<(usize, usize)> = self.channels.iter().copied().enumerate().collect();
        for_real!("pick", grad, T => {
            let dxs = give_back::<T>(numbers("pick", grad, gl)?, gl.dims(), self.c, &pairs);
            Ok((T::to_cpu_storage_owned(dxs), with_channels(gl.dims(), self.c)))
        })
    }
}

/// From where each channel of a choice comes: which input, and which of its channels.
pub(crate) type Source = (usize, usize);

/// Channels chosen from several inputs at once, `(n, c, ..)` each: [`pick`] of [`concat`] without the join.
pub(crate) fn pick_from(inputs: &[&Tensor], sources: &[Source]) -> Result<Tensor> {
    for_dtype!(inputs[0].dtype(), "pick", T => {
        let guards = locked(inputs);
        let mut operands: Vec<(&[T], usize)> = Vec::with_capacity(inputs.len());
        for ((storage, layout), xs) in guards.iter().zip(inputs) {
            operands.push((on_cpu("pick", storage, layout)?, xs.dims()[1]));
        }
        let dims = inputs[0].dims();
        Tensor::from_vec(choose(&operands, sources, dims), with_channels(dims, sources.len()), inputs[0].device())
    })
}

/// The gradient of one input of [`pick_from`], of `channels` channels: `pairs` says which channel of the output is which of it.
pub(crate) fn pick_from_backward(grad: &Tensor, channels: usize, pairs: &[(usize, usize)]) -> Result<Tensor> {
    for_dtype!(grad.dtype(), "pick", T => {
        let (storage, layout) = grad.storage_and_layout();
        let dxs = give_back::<T>(on_cpu("pick", &storage, layout)?, grad.dims(), channels, pairs);
        Tensor::from_vec(dxs, with_channels(grad.dims(), channels), grad.device())
    })
}

/// Copies channels out of inputs, each with its number of channels; `dims` are one input's.
fn choose<T: Real>(inputs: &[(&[T], usize)], sources: &[Source], dims: &[usize]) -> Vec<T> {
    let (n, area) = (dims[0], dims[2..].iter().product::<usize>());
    let row = sources.len() * area;
    let mut ys = fresh(n * row);
    let samples = per_task(row);
    each_part(&mut ys, samples * row, n * row, |part, ys| {
        for (nth, ys) in ys.chunks_exact_mut(row).enumerate() {
            for (y, &(input, channel)) in ys.chunks_exact_mut(area).zip(sources) {
                let (xs, channels) = inputs[input];
                let at = ((part * samples + nth) * channels + channel) * area;
                y.copy_from_slice(&xs[at..at + area]);
            }
        }
    });
    ys
}

/// Sums each channel's gradient over the places it was put: `pairs` are (place, channel), `dims` the gradient's.
fn give_back<T: Real>(grad: &[T], dims: &[usize], channels: usize, pairs: &[(usize, usize)]) -> Vec<T> {
    let (n, picked, area) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
    let mut dxs = fresh(n * channels * area);
    let samples = per_task((channels + pairs.len()) * area);
    each_part(&mut dxs, samples * channels * area, n * (channels + pairs.len()) * area, |part, dxs| {
        for (nth, dxs) in dxs.chunks_exact_mut(channels * area).enumerate() {
            let grad = &grad[(part * samples + nth) * picked * area..][..picked * area];
            dxs.fill(T::ZERO);
            for &(from, to) in pairs {
                dxs[to * area..(to + 1) * area].iter_mut().zip(&grad[from * area..]).for_each(|(dx, &grad)| *dx += grad);
            }
        }
    });
    dxs
}

fn locked<'t>(tensors: &[&'t Tensor]) -> Vec<(impl Deref<Target = Storage> + 't, &'t Layout)> {
    tensors.iter().map(|tensor| tensor.storage_and_layout()).collect()
}

fn on_cpu<'a, T: Real>(op: &str, storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    match storage {
        Storage::Cpu(storage) => numbers(op, storage, layout),
        _ => bail!("{op}: wanted a tensor on the CPU"),
    }
}
