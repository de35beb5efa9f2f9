//! Depthwise convolution: each channel has filters of its own, so there is no matrix to multiply, only rows to add.
//!
//! A plane is copied with its padding into scratch, so that the loops need not ask where the picture ends.

use super::conv::{Conv, Geometry};
use super::real::{Real, each_index, each_part, per_task, sum_by};

/// The padded plane: its width, and its number of pixels.
fn padded(g: &Geometry) -> (usize, usize) {
    let width = g.w + 2 * g.conv.padding.1;
    (width, width * (g.h + 2 * g.conv.padding.0))
}

/// Copies a plane `(h, w)` into the middle of a padded one, whose border stays as it is.
fn pad<T: Real>(g: &Geometry, plane: &[T], to: &mut [T]) {
    let (width, _) = padded(g);
    let (top, left) = g.conv.padding;
    for (row, to) in plane.chunks_exact(g.w).zip(to[top * width..].chunks_exact_mut(width)) {
        to[left..left + g.w].copy_from_slice(row);
    }
}

/// Where in the padded plane tap `(ki, kj)` of output row `oy` begins.
fn start(g: &Geometry, oy: usize, ki: usize, kj: usize) -> usize {
    let Conv { stride, dilation, .. } = g.conv;
    (oy * stride.0 + ki * dilation.0) * padded(g).0 + kj * dilation.1
}

fn work(g: &Geometry) -> usize {
    g.n * g.o * g.area_out() * g.taps()
}

/// `ys (n, o, oh, ow)`.
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let mut ys = vec![T::zero(); g.n * g.o * g.area_out()];
    let stride = g.conv.stride.1;
    let planes = per_task(g.area_out() * g.taps());
    each_part(&mut ys, planes * g.area_out(), work(g), |part, ys| {
        let mut plane = vec![T::zero(); padded(g).1];
        for (nth, ys) in ys.chunks_exact_mut(g.area_out()).enumerate() {
            let (sample, o) = ((part * planes + nth) / g.o, (part * planes + nth) % g.o);
            let channel = sample * g.c + o / g.o_group;
            pad(g, &xs[channel * g.area_in()..(channel + 1) * g.area_in()], &mut plane);
            let kernel = &weight[o * g.taps()..(o + 1) * g.taps()];
            ys.fill(bias.map_or(T::zero(), |bias| bias[o]));
            for (oy, ys) in ys.chunks_exact_mut(g.ow).enumerate() {
                for (tap, &weight) in kernel.iter().enumerate() {
                    let xs = &plane[start(g, oy, tap / g.kw, tap % g.kw)..];
                    if stride == 1 {
                        ys.iter_mut().zip(xs).for_each(|(y, &x)| *y += weight * x);
                    } else {
                        ys.iter_mut().zip(xs.iter().step_by(stride)).for_each(|(y, &x)| *y += weight * x);
                    }
                }
            }
        }
    });
    ys
}

/// The gradient of the input `(n, c, h, w)`.
pub(super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T]) -> Vec<T> {
    let mut dxs = vec![T::zero(); g.n * g.c * g.area_in()];
    let (stride, (top, left), (width, size)) = (g.conv.stride.1, g.conv.padding, padded(g));
    let planes = per_task(g.o_group * g.area_out() * g.taps());
    each_part(&mut dxs, planes * g.area_in(), work(g), |part, dxs| {
        let mut plane = vec![T::zero(); size];
        for (nth, dxs) in dxs.chunks_exact_mut(g.area_in()).enumerate() {
            let (sample, channel) = ((part * planes + nth) / g.c, (part * planes + nth) % g.c);
            plane.fill(T::zero());
            for o in channel * g.o_group..(channel + 1) * g.o_group {
                let kernel = &weight[o * g.taps()..(o + 1) * g.taps()];
                let grad = &grad[(sample * g.o + o) * g.area_out()..][..g.area_out()];
                for (oy, grad) in grad.chunks_exact(g.ow).enumerate() {
                    for (tap, &weight) in kernel.iter().enumerate() {
                        let dxs = &mut plane[start(g, oy, tap / g.kw, tap % g.kw)..];
                        if stride == 1 {
                            dxs.iter_mut().zip(grad).for_each(|(dx, &grad)| *dx += weight * grad);
                        } else {
                            dxs.iter_mut().step_by(stride).zip(grad).for_each(|(dx, &grad)| *dx += weight * grad);
                        }
                    }
                }
            }
            for (dxs, row) in dxs.chunks_exact_mut(g.w).zip(plane[top * width..].chunks_exact(width)) {
                dxs.copy_from_slice(&row[left..left + g.w]);
            }
        }
    });
    dxs
}

/// The gradient of the weight `(o, 1, kh, kw)`: each channel sums over the samples in order.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T]) -> Vec<T> {
    let stride = g.conv.stride.1;
    let of_channel = |channel: usize| {
        let mut plane = vec![T::zero(); padded(g).1];
        let mut sums = vec![T::zero(); g.o_group * g.taps()];
        for sample in 0..g.n {
            pad(g, &xs[(sample * g.c + channel) * g.area_in()..][..g.area_in()], &mut plane);
            for (nth, sums) in sums.chunks_exact_mut(g.taps()).enumerate() {
                let grad = &grad[(sample * g.o + channel * g.o_group + nth) * g.area_out()..][..g.area_out()];
                for (oy, grad) in grad.chunks_exact(g.ow).enumerate() {
                    for (tap, sum) in sums.iter_mut().enumerate() {
                        let xs = &plane[start(g, oy, tap / g.kw, tap % g.kw)..][..(g.ow - 1) * stride + 1];
                        *sum += if stride == 1 { sum_by(g.ow, |i| grad[i] * xs[i]) } else { sum_by(g.ow, |i| grad[i] * xs[i * stride]) };
                    }
                }
            }
        }
        sums
    };
    each_index(g.c, work(g), of_channel).concat()
}
