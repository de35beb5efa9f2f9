//! Depthwise convolution with neighbouring channels in the lanes of a vector.
//!
//! A picture's pixels lie one vector after another, each of the same pixel of as many channels. What meets what (an output, a tap, an
//! input) is written down once for any stride, padding and dilation; all three directions are then sums of products over these meetings,
//! and nothing is computed for the padding.
#![expect(unsafe_code, reason = "vectors")]

use super::super::buffers::lend;
use super::super::conv::Geometry;
use super::super::real::{Real, each_index, each_part, per_task};
use super::super::simd::{Kernel, Lanes, dispatch, shape};

/// No vector is longer.
const LONGEST: usize = 16;

/// For each result the pairs whose products it is the sum of.
struct Meetings {
    /// Where each result's pairs end.
    ends: Vec<usize>,
    /// Numbers of vectors, of which there are few.
    pairs: Vec<[u16; 2]>,
    /// How many vectors of each operand the pairs name.
    named: [usize; 2],
}

impl Meetings {
    /// Of `count` results; `all` gives (result, one, other) in any order.
    fn new(count: usize, all: impl Iterator<Item = [usize; 3]> + Clone) -> Self {
        let mut ends = vec![0; count];
        all.clone().for_each(|[to, ..]| ends[to] += 1);
        let mut sum = 0;
        ends.iter_mut().for_each(|end| sum = std::mem::replace(end, sum) + sum);
        let (mut pairs, mut named) = (vec![[0; 2]; sum], [0; 2]);
        for [to, one, other] in all {
            debug_assert!(one.max(other) <= usize::from(u16::MAX), "vector {one} with vector {other}");
            let pair = [one as u16, other as u16];
            named = [0, 1].map(|nth| named[nth].max(usize::from(pair[nth]) + 1));
            pairs[ends[to]] = pair;
            ends[to] += 1;
        }
        Self { ends, pairs, named }
    }
}

/// Every (output, tap, input) of a picture.
fn all(g: &Geometry) -> impl Iterator<Item = [usize; 3]> + Clone {
    let g = *g;
    let place = move |out: usize, step: usize, padding: usize, tap: usize, dilation: usize, limit: usize| {
        (out * step + tap * dilation).checked_sub(padding).filter(|&at| at < limit)
    };
    (0..g.area_out()).flat_map(move |out| {
        (0..g.taps()).filter_map(move |tap| {
            let conv = g.conv;
            let y = place(out / g.ow, conv.stride.0, conv.padding.0, tap / g.kw, conv.dilation.0, g.h)?;
            let x = place(out % g.ow, conv.stride.1, conv.padding.1, tap % g.kw, conv.dilation.1, g.w)?;
            Some([out, tap, y * g.w + x])
        })
    })
}

/// Numbers of each channel, one after another.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    numbers: &'a [T],
    /// Numbers of a row.
    length: usize,
    /// Channels that share a row.
    share: usize,
    /// From one sample's to the next; 0 where there is but one for all.
    sample: usize,
}

impl<T: Real> Rows<'_, T> {
    /// The rows of `N` channels from `first` on as `(length, N)`; where channels end, the last once more.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    unsafe fn turn<L: Lanes<T = T>>(&self, sample: usize, first: usize, channels: usize, to: &mut [T]) {
        let starts = starts(first, channels, |channel| sample * self.sample + channel / self.share * self.length);
        let whole = self.length - self.length % 4;
        assert!(to.len() >= self.length * L::N && starts.iter().all(|start| start + self.length <= self.numbers.len()));
        for at in (0..whole).step_by(4) {
            // SAFETY: the processor has the instructions, by the caller's promise. There are sixteen starts, and no vector has more lanes; every row has
            // four elements from here on, and there is room for them, as was just checked.
            unsafe {
                let columns = L::columns(self.numbers.as_ptr().add(at), &starts);
                for (nth, column) in columns.into_iter().enumerate() {
                    column.store(to.as_mut_ptr().add((at + nth) * L::N));
                }
            }
        }
        for at in whole..self.length {
            for lane in 0..L::N {
                to[at * L::N + lane] = self.numbers[starts[lane] + at];
            }
        }
    }
}

/// The other way: `from (length, N)` into the rows of `N` channels, `length` numbers each.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn turn_back<L: Lanes>(from: &[L::T], length: usize, rows: &mut [L::T], (first, channels): (usize, usize)) {
    let starts = starts(first, channels, |channel| channel * length);
    let whole = length - length % 4;
    assert!(from.len() >= length * L::N && starts.iter().all(|start| start + length <= rows.len()));
    for at in (0..whole).step_by(4) {
        // SAFETY: the processor has the instructions, by the caller's promise. There are sixteen starts, and no vector has more lanes; four vectors are
        // there from here on, and room for four elements in every row, as was just checked. Lanes behind the last channel hold what that one
        // does, and are written to the same places.
        unsafe {
            let from = from.as_ptr().add(at * L::N);
            let columns = [L::load(from), L::load(from.add(L::N)), L::load(from.add(2 * L::N)), L::load(from.add(3 * L::N))];
            L::put_columns(columns, rows.as_mut_ptr().add(at), &starts);
        }
    }
    for at in whole..length {
        for lane in 0..L::N {
            rows[starts[lane] + at] = from[at * L::N + lane];
        }
    }
}

#[inline(always)]
fn starts(first: usize, channels: usize, start: impl Fn(usize) -> usize) -> [usize; LONGEST] {
    let mut starts = [0; LONGEST];
    for (lane, at) in starts.iter_mut().enumerate() {
        *at = start((first + lane).min(channels - 1));
    }
    starts
}

/// `to[i] = start + Σ one[a] · other[b]` over the pairs (a, b) of each result, vectors all.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn meet<L: Lanes>(meetings: &Meetings, start: L, one: &[L::T], other: &[L::T], to: &mut [L::T]) {
    assert!(to.len() >= meetings.ends.len() * L::N);
    assert!(one.len() >= meetings.named[0] * L::N && other.len() >= meetings.named[1] * L::N);
    let mut first = 0;
    for (at, &end) in meetings.ends.iter().enumerate() {
        let (pairs, alone) = meetings.pairs[first..end].as_chunks::<2>();
        // SAFETY: the processor has the instructions, by the caller's promise. Operands have all vectors that pairs name, and the result has all of its
        // own, as was just checked.
        unsafe {
            let mut sums = [start, L::splat(L::T::ZERO)];
            for &[[a, b], [c, d]] in pairs {
                sums = [vector::<L>(one, a).mul_add(vector(other, b), sums[0]), vector::<L>(one, c).mul_add(vector(other, d), sums[1])];
            }
            for &[a, b] in alone {
                sums[0] = vector::<L>(one, a).mul_add(vector(other, b), sums[0]);
            }
            sums[0].add(sums[1]).store(to.as_mut_ptr().add(at * L::N));
        }
        first = end;
    }
}

/// The nth vector.
///
/// # Safety
/// The processor has the instructions of `L`, and `numbers` has more than `nth` vectors.
#[inline(always)]
unsafe fn vector<L: Lanes>(numbers: &[L::T], nth: u16) -> L {
    debug_assert!((usize::from(nth) + 1) * L::N <= numbers.len(), "vector {nth} of {} elements", numbers.len());
    // SAFETY: by the caller's promise.
    unsafe { L::load(numbers.as_ptr().add(nth as usize * L::N)) }
}

/// Some samples of a result with a row for each channel: from the weight's rows and a picture's.
struct Map<'a, T> {
    meetings: &'a Meetings,
    channels: usize,
    weight: Rows<'a, T>,
    pictures: Rows<'a, T>,
    /// The first sample.
    first: usize,
    bias: Option<&'a [T]>,
    to: &'a mut [T],
    scratch: &'a mut [T],
}

impl<T: Real> Kernel<T> for Map<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { meetings, channels, weight, pictures, first, bias, to, scratch } = self;
        let length = meetings.ends.len();
        let (weights, scratch) = scratch.split_at_mut(weight.length * L::N);
        let (picture, result) = scratch.split_at_mut(pictures.length * L::N);
        for channel in (0..channels).step_by(L::N) {
            let mut biases = [T::ZERO; LONGEST];
            if let Some(bias) = bias {
                for (lane, to) in biases.iter_mut().enumerate() {
                    *to = bias[(channel + lane).min(channels - 1)];
                }
            }
            // SAFETY: the processor has the instructions, by the caller's promise; each function checks its sizes. `biases` has sixteen elements, and no
            // vector has more.
            unsafe {
                weight.turn::<L>(0, channel, channels, weights);
                let start = L::load(biases.as_ptr());
                for (nth, to) in to.chunks_exact_mut(channels * length).enumerate() {
                    pictures.turn::<L>(first + nth, channel, channels, picture);
                    meet(meetings, start, weights, picture, result);
                    turn_back::<L>(result, length, to, (channel, channels));
                }
            }
        }
    }
}

/// As many channels' sums over the samples as a vector has lanes, of products of two pictures: `(channels, results)`.
struct Sum<'a, T> {
    meetings: &'a Meetings,
    /// The first channel, and how many there are.
    channels: (usize, usize),
    samples: usize,
    one: Rows<'a, T>,
    other: Rows<'a, T>,
    scratch: &'a mut [T],
}

impl<T: Real> Kernel<T> for Sum<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> Vec<f64> {
        let Self { meetings, channels: (channel, channels), samples, one, other, scratch } = self;
        let length = meetings.ends.len();
        let mut sums = vec![0.0; length * L::N];
        let (ones, scratch) = scratch.split_at_mut(one.length * L::N);
        let (others, results) = scratch.split_at_mut(other.length * L::N);
        for sample in 0..samples {
            // SAFETY: the processor has the instructions, by the caller's promise; each function checks its sizes.
            unsafe {
                one.turn::<L>(sample, channel, channels, ones);
                other.turn::<L>(sample, channel, channels, others);
                meet(meetings, L::splat(T::ZERO), ones, others, results);
            }
            sums.iter_mut().zip(&*results).for_each(|(sum, term)| *sum += term.to_f64());
        }
        let rows = L::N.min(channels - channel);
        (0..rows).flat_map(|lane| sums[lane..].iter().step_by(L::N).copied().collect::<Vec<_>>()).collect()
    }
}

/// Runs [`Map`] over all samples.
fn map<T: Real>(g: &Geometry, meetings: &Meetings, channels: usize, [weight, pictures]: [Rows<T>; 2], bias: Option<&[T]>, to: &mut [T]) {
    let (length, work) = (meetings.ends.len(), g.o * g.area_out() * g.taps());
    let samples = per_task(work).max(g.n / 16);
    each_part(to, samples * channels * length, g.n * work, |part, to| {
        lend((weight.length + pictures.length + length) * LONGEST, |scratch| {
            dispatch(Map { meetings, channels, weight, pictures, first: part * samples, bias, to, scratch });
        });
    });
}

/// `ys (n, o, oh, ow)`.
pub(in super::super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    let meetings = Meetings::new(g.area_out(), all(g));
    let weight = Rows { numbers: weight, length: g.taps(), share: 1, sample: 0 };
    let pictures = Rows { numbers: xs, length: g.area_in(), share: g.o_group, sample: g.c * g.area_in() };
    map(g, &meetings, g.o, [weight, pictures], bias, ys);
}

/// The gradient of the input `(n, c, h, w)`.
pub(in super::super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T], dxs: &mut [T]) {
    // A channel's row has all the pictures that it makes, and their kernels.
    let (taps, area) = (g.taps(), g.area_out());
    let made = (0..g.o_group).flat_map(|nth| all(g).map(move |[out, tap, seen]| [seen, nth * taps + tap, nth * area + out]));
    let meetings = Meetings::new(g.area_in(), made);
    let weight = Rows { numbers: weight, length: g.o_group * taps, share: 1, sample: 0 };
    let pictures = Rows { numbers: grad, length: g.o_group * area, share: 1, sample: g.o * area };
    map(g, &meetings, g.c, [weight, pictures], None, dxs);
}

/// The gradient of the weight `(o, 1, kh, kw)`: each channel sums over the samples in order.
pub(in super::super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    let meetings = &Meetings::new(g.taps(), all(g).map(|[out, tap, seen]| [tap, out, seen]));
    let one = Rows { numbers: grad, length: g.area_out(), share: 1, sample: g.o * g.area_out() };
    let other = Rows { numbers: xs, length: g.area_in(), share: g.o_group, sample: g.c * g.area_in() };
    let lanes = shape::<T>().lanes;
    let block = |at: usize| {
        lend((g.area_out() + g.area_in() + g.taps()) * LONGEST, |scratch| {
            dispatch(Sum { meetings, channels: (at * lanes, g.o), samples: g.n, one, other, scratch })
        })
    };
    let sums = each_index(g.o.div_ceil(lanes), g.n * g.o * g.area_out() * g.taps(), block).concat();
    dweight.iter_mut().zip(sums).for_each(|(dw, sum)| *dw = T::from_f64(sum));
}
