//! Depthwise convolution as sums of shifted pictures, vectors along the picture.
//!
//! A plane is copied, with its padding, into a layout in which every tap of the kernel sees one run of numbers: row after row for stride
//! 1; for stride s, the s² pictures of every s-th row and column. All of a plane's outputs are then one loop over long vectors; what
//! lies between rows is computed and left out.
#![expect(unsafe_code, reason = "vectors")]

use super::super::buffers::lend;
use super::super::conv::{Conv, Geometry};
use super::super::real::{Real, each_index, each_part, per_task};
use super::super::simd::{Kernel, Lanes, dispatch};

/// Numbers behind every run, so that the last vectors may read on; no vector pair is longer.
const SLACK: usize = 32;

/// How a padded plane lies in memory.
#[derive(Debug, Clone, Copy)]
struct Field {
    /// Rows and columns of each of the pictures that the plane is split into.
    rows: usize,
    cols: usize,
}

impl Field {
    fn of(g: &Geometry) -> Self {
        let Conv { stride, padding, .. } = g.conv;
        Self { rows: (g.h + 2 * padding.0).div_ceil(stride.0), cols: (g.w + 2 * padding.1).div_ceil(stride.1) }
    }

    /// Numbers of one picture.
    fn area(self) -> usize {
        self.rows * self.cols
    }

    /// Numbers of the whole plane.
    fn size(self, g: &Geometry) -> usize {
        g.conv.stride.0 * g.conv.stride.1 * self.area() + SLACK
    }

    /// Where padded row `y` and column `x` lie.
    fn place(self, g: &Geometry, y: usize, x: usize) -> usize {
        let (down, right) = g.conv.stride;
        (y % down * right + x % right) * self.area() + y / down * self.cols + x / right
    }

    /// From the first output to the last, when rows are as long as the pictures'.
    fn span(self, g: &Geometry) -> usize {
        (g.oh - 1) * self.cols + g.ow
    }

    /// Where each tap sees the first output's number.
    fn taps(self, g: &Geometry) -> Vec<usize> {
        (0..g.taps()).map(|tap| self.place(g, tap / g.kw * g.conv.dilation.0, tap % g.kw * g.conv.dilation.1)).collect()
    }

    /// Copies a plane `(h, w)` into `field`, whose padding stays as it is.
    fn put<T: Real>(self, g: &Geometry, plane: &[T], field: &mut [T]) {
        let (right, (top, left)) = (g.conv.stride.1, g.conv.padding);
        for (y, row) in plane.chunks_exact(g.w).enumerate() {
            if right == 1 {
                let at = self.place(g, y + top, left);
                field[at..at + g.w].copy_from_slice(row);
            } else {
                for first in 0..right.min(g.w) {
                    let at = self.place(g, y + top, first + left);
                    field[at..].iter_mut().zip(row[first..].iter().step_by(right)).for_each(|(to, &x)| *to = x);
                }
            }
        }
    }

    /// Copies the plane `(h, w)` out again.
    fn get<T: Real>(self, g: &Geometry, field: &[T], plane: &mut [T]) {
        let (right, (top, left)) = (g.conv.stride.1, g.conv.padding);
        for (y, row) in plane.chunks_exact_mut(g.w).enumerate() {
            for first in 0..right.min(g.w) {
                let at = self.place(g, y + top, first + left);
                row[first..].iter_mut().step_by(right).zip(&field[at..]).for_each(|(x, &from)| *x = from);
            }
        }
    }
}

/// `to[i] = bias + Σ weight · from[start + i]` over the taps `(start, weight)`.
struct Correlate<'a, T> {
    taps: &'a [(usize, T)],
    bias: T,
    from: &'a [T],
    to: &'a mut [T],
}

impl<T: Real> Kernel<T> for Correlate<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let whole = self.to.len().next_multiple_of(2 * L::N) - 2 * L::N;
        let room = self.from.len().checked_sub(self.to.len() + SLACK);
        assert!(self.taps.iter().all(|&(start, _)| room.is_some_and(|room| start <= room)) && 2 * L::N <= SLACK);
        let mut last = [T::zero(); SLACK];
        for at in (0..self.to.len()).step_by(2 * L::N) {
            // SAFETY: the processor has the instructions, by the caller's promise. Every tap was just checked to have its run and `SLACK` elements behind
            // it, and a pair of vectors is no longer. What is written ends within `to` before `whole`, and has room in `last` from there on.
            unsafe {
                let mut sums = [L::splat(self.bias); 2];
                for &(start, weight) in self.taps {
                    let (weight, from) = (L::splat(weight), self.from.as_ptr().add(start + at));
                    sums = [weight.mul_add(L::load(from), sums[0]), weight.mul_add(L::load(from.add(L::N)), sums[1])];
                }
                let to = if at < whole { self.to.as_mut_ptr().add(at) } else { last.as_mut_ptr() };
                sums[0].store(to);
                sums[1].store(to.add(L::N));
            }
        }
        let rest = &mut self.to[whole..];
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `Σ a[i] · b[start + i]` for each of `N` starts; `a` is followed by zeros and `b` by numbers, both [`SLACK`] of them.
struct Dots<'a, T, const N: usize> {
    a: &'a [T],
    b: &'a [T],
    starts: [usize; N],
}

impl<T: Real, const N: usize> Kernel<T> for Dots<'_, T, N> {
    type Output = [T; N];

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> [T; N] {
        let (len, room) = (self.a.len().checked_sub(SLACK), self.b.len().checked_sub(self.a.len()));
        let (Some(len), Some(room)) = (len, room) else { panic!("{} and {} elements", self.a.len(), self.b.len()) };
        assert!(self.starts.iter().all(|&start| start <= room) && L::N <= SLACK);
        // SAFETY: the processor has the instructions, by the caller's promise. The last vector begins before `len`, and ends within the `SLACK` elements
        // behind it; of `b`, as many elements as `a` has were just checked to follow each start.
        let sums = unsafe {
            let mut sums = [L::splat(T::zero()); N];
            for at in (0..len).step_by(L::N) {
                let a = L::load(self.a.as_ptr().add(at));
                for (sum, start) in sums.iter_mut().zip(self.starts) {
                    *sum = a.mul_add(L::load(self.b.as_ptr().add(start + at)), *sum);
                }
            }
            sums
        };
        let mut totals = [T::ZERO; N];
        for (total, sum) in totals.iter_mut().zip(sums) {
            let mut lanes = [T::ZERO; SLACK];
            // SAFETY: the processor has the instructions; there is room for `SLACK` elements, and no vector has more, as was checked.
            unsafe { sum.store(lanes.as_mut_ptr()) };
            for &lane in &lanes[..L::N] {
                *total += lane;
            }
        }
        totals
    }
}

fn work(g: &Geometry) -> usize {
    g.n * g.o * g.area_out() * g.taps()
}

/// `ys (n, o, oh, ow)`.
pub(in super::super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    let field = Field::of(g);
    let (starts, span, size) = (field.taps(g), field.span(g), field.size(g) + SLACK);
    let planes = per_task(g.area_out() * g.taps());
    each_part(ys, planes * g.area_out(), work(g), |part, ys| {
        lend::<T, _>(size + span, |scratch| {
            let (plane, results) = scratch.split_at_mut(size);
            plane.fill(T::zero());
            for (nth, ys) in ys.chunks_exact_mut(g.area_out()).enumerate() {
                let (sample, o) = ((part * planes + nth) / g.o, (part * planes + nth) % g.o);
                let channel = sample * g.c + o / g.o_group;
                field.put(g, &xs[channel * g.area_in()..(channel + 1) * g.area_in()], plane);
                let kernel = &weight[o * g.taps()..(o + 1) * g.taps()];
                let taps: Vec<(usize, T)> = starts.iter().copied().zip(kernel.iter().copied()).collect();
                let bias = bias.map_or(T::zero(), |bias| bias[o]);
                dispatch(Correlate { taps: &taps, bias, from: plane, to: results });
                for (ys, results) in ys.chunks_exact_mut(g.ow).zip(results.chunks(field.cols)) {
                    ys.copy_from_slice(&results[..g.ow]);
                }
            }
        });
    });
}

/// Lays the output's gradient out in rows as long as the field's; what lies between stays as it is.
fn spread<T: Real>(g: &Geometry, field: Field, grad: &[T], to: &mut [T]) {
    for (row, to) in grad.chunks_exact(g.ow).zip(to.chunks_mut(field.cols)) {
        to[..g.ow].copy_from_slice(row);
    }
}

/// The gradient of the input `(n, c, h, w)`.
pub(in super::super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T], dxs: &mut [T]) {
    let field = Field::of(g);
    let (starts, area, size) = (field.taps(g), field.area(), field.size(g));
    // Each picture of the field is a sum of gradients, shifted back by where its taps began. A gradient has room in front for the shift.
    let reach = starts.iter().map(|start| start % area).max().unwrap_or(0);
    let length = reach + area + 2 * SLACK;
    let pictures = g.conv.stride.0 * g.conv.stride.1;
    let planes = per_task(g.o_group * g.area_out() * g.taps());
    each_part(dxs, planes * g.area_in(), work(g), |part, dxs| {
        lend::<T, _>(size + g.o_group * length, |scratch| {
            let (plane, grads) = scratch.split_at_mut(size);
            grads.fill(T::zero());
            let mut taps = Vec::with_capacity(g.o_group * g.taps());
            for (nth, dxs) in dxs.chunks_exact_mut(g.area_in()).enumerate() {
                let (sample, channel) = ((part * planes + nth) / g.c, (part * planes + nth) % g.c);
                for (nth, to) in grads.chunks_exact_mut(length).enumerate() {
                    let from = (sample * g.o + channel * g.o_group + nth) * g.area_out();
                    spread(g, field, &grad[from..from + g.area_out()], &mut to[reach..]);
                }
                for picture in 0..pictures {
                    taps.clear();
                    for nth in 0..g.o_group {
                        let kernel = &weight[(channel * g.o_group + nth) * g.taps()..][..g.taps()];
                        let own = starts.iter().zip(kernel).filter(|&(start, _)| start / area == picture);
                        taps.extend(own.map(|(start, &weight)| (nth * length + reach - start % area, weight)));
                    }
                    let to = &mut plane[picture * area..(picture + 1) * area];
                    dispatch(Correlate { taps: &taps, bias: T::zero(), from: grads, to });
                }
                field.get(g, plane, dxs);
            }
        });
    });
}

/// The gradient of the weight `(o, 1, kh, kw)`: each channel sums over the samples in order.
pub(in super::super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    /// Taps taken together: the numbers of the gradient are read once for all of them.
    const TOGETHER: usize = 9;
    let field = Field::of(g);
    let (starts, size, length) = (field.taps(g), field.size(g) + SLACK, field.span(g) + SLACK);
    let of_channel = |channel: usize| {
        lend::<T, _>(size + length, |scratch| {
            let (plane, grads) = scratch.split_at_mut(size);
            plane.fill(T::zero());
            grads.fill(T::zero());
            let mut sums = vec![0.0; g.o_group * g.taps()];
            for sample in 0..g.n {
                field.put(g, &xs[(sample * g.c + channel) * g.area_in()..][..g.area_in()], plane);
                for (nth, sums) in sums.chunks_exact_mut(g.taps()).enumerate() {
                    let from = (sample * g.o + channel * g.o_group + nth) * g.area_out();
                    spread(g, field, &grad[from..from + g.area_out()], grads);
                    for (sums, starts) in sums.chunks_mut(TOGETHER).zip(starts.chunks(TOGETHER)) {
                        let (a, b) = (&*grads, &*plane);
                        if let Ok(starts) = <[usize; TOGETHER]>::try_from(starts) {
                            let dots = dispatch(Dots { a, b, starts });
                            sums.iter_mut().zip(dots).for_each(|(sum, dot)| *sum += dot.to_f64());
                        } else {
                            for (sum, &start) in sums.iter_mut().zip(starts) {
                                let [dot] = dispatch(Dots { a, b, starts: [start] });
                                *sum += dot.to_f64();
                            }
                        }
                    }
                }
            }
            sums
        })
    };
    let sums = each_index(g.c, work(g), of_channel).concat();
    dweight.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = T::from_f64(sum));
}
