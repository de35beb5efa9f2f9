//! Choosing and joining channels.

use candle::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};

use super::real::{each_part, for_real, numbers, per_task, planes};

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
        let (dims, picked) = (xl.dims(), self.0.len());
        let (n, c, area) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
        for_real!("pick", xs, T => {
            let xs = numbers::<T>("pick", xs, xl)?;
            let mut ys = vec![0.0; n * picked * area];
            let samples = per_task(picked * area);
            let work = ys.len();
            each_part(&mut ys, samples * picked * area, work, |part, ys| {
                for (nth, ys) in ys.chunks_exact_mut(picked * area).enumerate() {
                    let xs = &xs[(part * samples + nth) * c * area..][..c * area];
                    for (y, &channel) in ys.chunks_exact_mut(area).zip(&self.0) {
                        y.copy_from_slice(&xs[channel * area..(channel + 1) * area]);
                    }
                }
            });
            Ok((T::to_cpu_storage_owned(ys), with_channels(dims, picked)))
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
        let (dims, c) = (gl.dims(), self.c);
        let (n, picked, area) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
        for_real!("pick", grad, T => {
            let grad = numbers::<T>("pick", grad, gl)?;
            let mut dxs = vec![0.0; n * c * area];
            let samples = per_task(picked.max(c) * area);
            each_part(&mut dxs, samples * c * area, grad.len(), |part, dxs| {
                for (nth, dxs) in dxs.chunks_exact_mut(c * area).enumerate() {
                    let grad = &grad[(part * samples + nth) * picked * area..][..picked * area];
                    for (grad, &channel) in grad.chunks_exact(area).zip(self.channels) {
                        dxs[channel * area..(channel + 1) * area].iter_mut().zip(grad).for_each(|(dx, &grad)| *dx += grad);
                    }
                }
            });
            Ok((T::to_cpu_storage_owned(dxs), with_channels(dims, c)))
        })
    }
}
