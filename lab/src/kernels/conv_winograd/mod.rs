//! 3×3 convolutions with stride 1 by Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray 2016): tiles of 4×4 outputs from 6×6
//! inputs cost 36 products a pair of channels instead of 144.
//!
//! The polynomials are evaluated at 0, ±1/√2, ±√2 and ∞. These points lie around 1 evenly, which keeps the transforms' factors small
//! (Barabasz et al. 2020 study the choice): in single precision a sum over 256 channels is off by 2.5 times less than with the usual
//! 0, ±1, ±2, ∞, and by about twelve times as much as one that multiplies directly.
#![expect(clippy::needless_range_loop, reason = "rows, columns and lanes by their numbers, as in the formulas")]
#![expect(unsafe_code, reason = "vectors, and tasks that write disjoint parts of one result")]

mod points;
mod tiles;

use std::ops::Range;

use rayon::prelude::*;

use points::{both_ways, give, give_back, see, square, weigh, weigh_back};
use tiles::{Field, Tiles};

use super::buffers::{fresh, lend};
use super::conv::Geometry;
use super::panels::{Product, Target};
use super::real::{Real, Shared};
use super::simd::{Kernel, Lanes, dispatch, shape};

/// Side of a tile of the output, side of what it sees, and the number of points.
const OUT: usize = 4;
const IN: usize = 6;
const POINTS: usize = IN * IN;

/// Whether this way is right, and faster: enough of the tiles is used, and there are channels enough to pay for the transforms.
pub(super) fn fits(g: &Geometry) -> bool {
    let plain = (g.kh, g.kw) == (3, 3) && g.conv.stride == (1, 1) && g.conv.dilation == (1, 1);
    let tiles = Tiles::of(g);
    plain && g.c_group >= 8 && g.o_group >= 8 && 9 * g.n * g.area_out() >= 4 * tiles.count * OUT * OUT
}

/// `ys (n, o, oh, ow)`.
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    assert_eq!(ys.len(), g.n * g.o * g.area_out(), "a convolution writes all of its result, and nothing else");
    let (simd, tiles) = (shape::<T>(), Tiles::of(g));
    let (cols, padded) = (2 * simd.lanes, g.o_group.next_multiple_of(simd.rows));
    let size = padded * g.c_group;
    // Two panels of tiles where the weight is read from far away.
    let block = if size > 1 << 15 { 2 * cols } else { cols };
    let blocks = tiles.count.div_ceil(block);
    // Few blocks: split the output channels too.
    let parts = 4usize.div_ceil(blocks * g.conv.groups).min(padded / simd.rows);
    let per_part = (padded / simd.rows).div_ceil(parts) * simd.rows;
    let shared = Shared::of(ys);
    lend::<T, _>(POINTS * size, |points| {
        for group in 0..g.conv.groups {
            let of_group = &weight[group * g.o_group * g.c_group * 9..][..g.o_group * g.c_group * 9];
            let (to, lot) = (Shared::of(points), simd.rows.max(simd.lanes));
            // Each task has a lot of output channels of its own, whose points nobody reads before all tasks are done.
            (0..padded.div_ceil(lot)).into_par_iter().for_each(|part| {
                dispatch::<T, _>(Weights { g, weight: of_group, first: part * lot, points: to, size });
            });
            let points = &*points;
            (0..blocks * parts).into_par_iter().for_each(|task| {
                let (at, part) = (task / parts, task % parts);
                let block = at * block..((at + 1) * block).min(tiles.count);
                let own = part * per_part..((part + 1) * per_part).min(g.o_group);
                if own.is_empty() {
                    return;
                }
                let width = block.len().next_multiple_of(cols);
                let layout = Field::new(tiles, block.clone(), (g.h, g.w), g.conv.padding, IN);
                lend::<T, _>(layout.len() + POINTS * (g.c_group + own.len()) * width, |scratch| {
                    let (field, scratch) = scratch.split_at_mut(layout.len());
                    let (inputs, products) = scratch.split_at_mut(POINTS * g.c_group * width);
                    dispatch::<T, _>(Inputs { g, group, xs, layout: &layout, field, points: inputs });
                    for point in 0..POINTS {
                        let dst = Target::of(&mut products[point * own.len() * width..], [own.len(), width], width);
                        let lhs = &points[point * size + own.start * g.c_group..];
                        let rhs = &inputs[point * g.c_group * width..];
                        dispatch::<T, _>(Product { depth: g.c_group, lhs, rhs, dst, add: false });
                    }
                    // Each task has channels and tiles of its own, and so pixels of the result.
                    let outputs = group * g.o_group + own.start..group * g.o_group + own.end;
                    dispatch::<T, _>(Outputs { g, tiles, products, outputs, block, bias, ys: shared });
                });
            });
        }
    });
}

/// The gradient of the weight `(o, c / groups, 3, 3)`.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    let (simd, tiles) = (shape::<T>(), Tiles::of(g));
    let (row, rows) = (g.c_group.next_multiple_of(2 * simd.lanes), g.o_group.next_multiple_of(simd.rows));
    // A part sums some of the tiles for some of the output channels: parts of tiles as long as their sums take little memory.
    let parts = ((1 << 23) / (POINTS * row * rows)).clamp(1, 8).min(tiles.count.div_ceil(32));
    let splits = 2usize.div_ceil(parts * g.conv.groups).min(rows / simd.rows);
    let per_split = (rows / simd.rows).div_ceil(splits) * simd.rows;
    let length = ((1 << 18) / (POINTS * (row + per_split))).clamp(32, 128);
    for group in 0..g.conv.groups {
        let one = |task: usize| {
            let (part, split) = (task % parts, task / parts);
            let own = split * per_split..((split + 1) * per_split).min(g.o_group);
            let size = per_split * row;
            let mut sums = fresh::<T>(POINTS * size);
            let outputs = group * g.o_group + own.start..group * g.o_group + own.end;
            let (start, end) = (part * tiles.count / parts, (part + 1) * tiles.count / parts);
            for first in (start..end).step_by(length) {
                if own.is_empty() {
                    break;
                }
                let block = first..(first + length).min(end);
                let seen = Field::new(tiles, block.clone(), (g.h, g.w), g.conv.padding, IN);
                let made = Field::new(tiles, block.clone(), (g.oh, g.ow), (0, 0), OUT);
                let fields = simd.lanes * seen.len().max(made.len());
                lend::<T, _>(fields + POINTS * (row + per_split) * block.len(), |scratch| {
                    let (fields, scratch) = scratch.split_at_mut(fields);
                    let (inputs, gradients) = scratch.split_at_mut(POINTS * row * block.len());
                    dispatch::<T, _>(InputsTurned { g, group, xs, layout: &seen, fields, points: inputs });
                    dispatch::<T, _>(Gradients { g, grad, outputs: outputs.clone(), layout: &made, fields, points: gradients });
                    for point in 0..POINTS {
                        let (lhs, rhs) = (&gradients[point * per_split * block.len()..], &inputs[point * row * block.len()..]);
                        let rows = own.len().next_multiple_of(simd.rows);
                        let dst = Target::of(&mut sums[point * size..], [rows, row], row);
                        dispatch::<T, _>(Product { depth: block.len(), lhs, rhs, dst, add: first > start });
                    }
                });
            }
            sums
        };
        let sums: Vec<Vec<T>> = (0..parts * splits).into_par_iter().map(one).collect();
        let of_group = &mut dweight[group * g.o_group * g.c_group * 9..][..g.o_group * g.c_group * 9];
        of_group.par_chunks_mut(g.c_group * 9).enumerate().for_each(|(o, dweight)| {
            let (split, output) = (o / per_split, o % per_split);
            let parts = &sums[split * parts..(split + 1) * parts];
            dispatch::<T, _>(WeightGradient { parts, channels: g.c_group, size: per_split * row, row, output, dweight });
        });
    }
}

/// The weight of one group at the 36 points: for each point panels of output channels, `(o / ROWS, c, ROWS)`.
struct Weights<'a, T> {
    g: &'a Geometry,
    /// `(o, c, 3, 3)` of the group.
    weight: &'a [T],
    /// The first of as many output channels as a vector or a panel has.
    first: usize,
    points: Shared<'a, T>,
    /// Numbers of one point.
    size: usize,
}

impl<T: Real> Kernel<T> for Weights<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let (c_group, o_group) = (self.g.c_group, self.g.o_group);
        assert_eq!(self.weight.len(), o_group * c_group * 9);
        assert!(o_group.next_multiple_of(ROWS) * c_group <= self.size && POINTS * self.size <= self.points.len());
        let mut starts = [0; 16];
        for first in (self.first..self.first + ROWS.max(L::N)).step_by(L::N) {
            // Channels that are not there fill their places with the last one's numbers; nobody reads them.
            for lane in 0..L::N {
                starts[lane] = (first + lane).min(o_group - 1) * c_group * 9;
            }
            for c in 0..c_group {
                let mut lanes = [T::zero(); 16];
                // SAFETY: the processor has the instructions, by the caller's promise. Every start is that of an output channel's weight, of which
                // nine elements from `c · 9` on are there, as was checked: they are read from the first, fifth and sixth on, four at a time.
                // The points were checked to have room for `size` elements each, of which whole panels of channels are the first; those of
                // the channels from `self.first` on are this task's alone, as `forward` splits them.
                unsafe {
                    let kernel = self.weight.as_ptr().add(c * 9);
                    let (low, high, end) =
                        (L::columns(kernel, &starts), L::columns(kernel.add(4), &starts), L::columns(kernel.add(5), &starts));
                    let taps = [[low[0], low[1], low[2]], [low[3], high[0], high[1]], [high[2], high[3], end[3]]];
                    let at_points: [[L; IN]; IN] = both_ways!(weigh, taps, 3, IN);
                    for (point, value) in at_points.as_flattened().iter().enumerate() {
                        value.store(lanes.as_mut_ptr());
                        for (nth, lanes) in lanes[..L::N].chunks_exact(ROWS.min(L::N)).enumerate() {
                            let o = first + nth * ROWS;
                            if o < o_group {
                                let at = point * self.size + (o / ROWS * c_group + c) * ROWS + o % ROWS;
                                self.points.slice(at, lanes.len()).copy_from_slice(lanes);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A square of what tiles or channels cover, 4 or 6 wide, from a field.
macro_rules! look {
    (4, $lanes:ident, $field:expr, $row:expr, $starts:expr) => {{
        let mut square = [[$lanes::splat($lanes::T::ZERO); OUT]; OUT];
        for row in 0..OUT {
            square[row] = $lanes::columns($field.add(row * $row), $starts);
        }
        square
    }};
    (6, $lanes:ident, $field:expr, $row:expr, $starts:expr) => {{
        let mut square = [[$lanes::splat($lanes::T::ZERO); IN]; IN];
        for row in 0..IN {
            let (left, right) = ($lanes::columns($field.add(row * $row), $starts), $lanes::columns($field.add(row * $row + 4), $starts));
            square[row] = [left[0], left[1], left[2], left[3], right[0], right[1]];
        }
        square
    }};
}

/// The input of some tiles at the 36 points: for each point panels of tiles, `(tiles / 2N, c, 2N)`.
struct Inputs<'a, T> {
    g: &'a Geometry,
    group: usize,
    xs: &'a [T],
    layout: &'a Field,
    field: &'a mut [T],
    points: &'a mut [T],
}

impl<T: Real> Kernel<T> for Inputs<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { g, layout, field, points, .. } = self;
        let (size, length) = (points.len() / POINTS, layout.block.len());
        // Tiles that are not there fill their places with the last one's numbers; nobody reads them.
        let starts: Vec<usize> =
            (0..length.next_multiple_of(2 * L::N)).map(|nth| layout.start(layout.block.start + nth.min(length - 1))).collect();
        field.fill(T::zero());
        assert!(points.len() == POINTS * g.c_group * starts.len() && field.len() >= layout.len());
        for c in 0..g.c_group {
            let channel = self.group * g.c_group + c;
            layout.fill(|sample| &self.xs[(sample * g.c + channel) * g.area_in()..][..g.area_in()], field);
            for first in (0..starts.len()).step_by(L::N) {
                let at = (first / (2 * L::N) * g.c_group + c) * 2 * L::N + first % (2 * L::N);
                debug_assert!(starts[first..first + L::N].iter().all(|start| start + (IN - 1) * layout.row + 8 <= field.len()));
                // SAFETY: the processor has the instructions, by the caller's promise. Starts are whole pairs of vectors, so `N` of them follow `first`.
                // A field has room for its last tile and two columns more (`Field::new`), up to which six rows are read. The points are as many
                // as was just checked: `at` is within one, and a vector ends with the panel.
                unsafe {
                    let square = look!(6, L, field.as_ptr(), layout.row, starts.get_unchecked(first..));
                    let at_points: [[L; IN]; IN] = both_ways!(see, square, IN, IN);
                    for (point, value) in at_points.as_flattened().iter().enumerate() {
                        value.store(points.as_mut_ptr().add(point * size + at));
                    }
                }
            }
        }
    }
}

/// From the products `(36, outputs, tiles)` to the output.
struct Outputs<'a, T> {
    g: &'a Geometry,
    tiles: Tiles,
    products: &'a [T],
    /// Output channels of the whole tensor, and tiles.
    outputs: Range<usize>,
    block: Range<usize>,
    bias: Option<&'a [T]>,
    ys: Shared<'a, T>,
}

impl<T: Real> Kernel<T> for Outputs<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { g, tiles, products, ref outputs, ref block, ys, .. } = self;
        let width = products.len() / POINTS / outputs.len();
        let size = outputs.len() * width;
        let place = |tile: usize| {
            let (sample, row, col) = tiles.place(tile);
            (sample * g.o * g.area_out() + row * OUT * g.ow + col * OUT, OUT.min(g.oh - row * OUT), OUT.min(g.ow - col * OUT))
        };
        let starts: Vec<usize> = block.clone().map(|tile| place(tile).0).collect();
        let whole = g.oh % OUT == 0 && g.ow % OUT == 0;
        let mut squares = [T::zero(); OUT * OUT * 16];
        for (nth, o) in outputs.clone().enumerate() {
            for first in (0..block.len()).step_by(L::N) {
                let at = nth * width + first;
                assert!((POINTS - 1) * size + at + L::N <= products.len());
                // SAFETY: the processor has the instructions, by the caller's promise. The last point's products were just checked to be there, hence
                // all. `squares` has room for sixteen vectors of sixteen. Tiles are inside `ys`, which has every pixel (`forward` checks it), where
                // all tiles are whole; these tiles of these channels are this task's alone, as `forward` splits them.
                unsafe {
                    let bias = L::splat(self.bias.map_or(T::zero(), |bias| bias[o]));
                    let square = square!(L, IN, |nth: usize| products.as_ptr().add(nth * size + at));
                    let mut results: [[L; OUT]; OUT] = both_ways!(give, square, IN, OUT);
                    for result in results.as_flattened_mut() {
                        *result = result.add(bias);
                    }
                    if whole && first + L::N <= starts.len() {
                        for (row, &results) in results.iter().enumerate() {
                            L::put_columns(results, ys.offset(o * g.area_out() + row * g.ow), starts.get_unchecked(first..));
                        }
                        continue;
                    }
                    for (place, result) in results.as_flattened().iter().enumerate() {
                        result.store(squares.as_mut_ptr().add(place * L::N));
                    }
                }
                for lane in 0..L::N.min(block.len() - first) {
                    let (start, rows, cols) = place(block.start + first + lane);
                    for row in 0..rows {
                        // SAFETY: of a row of this tile, `cols` pixels are inside `ys`; they are this task's alone, as above.
                        let ys = unsafe { ys.slice(start + o * g.area_out() + row * g.ow, cols) };
                        for (col, y) in ys.iter_mut().enumerate() {
                            *y = squares[(row * OUT + col) * L::N + lane];
                        }
                    }
                }
            }
        }
    }
}

/// The input of some tiles at the 36 points, the other way round: for each point panels of channels, `(c / 2N, tiles, 2N)`.
struct InputsTurned<'a, T> {
    g: &'a Geometry,
    group: usize,
    xs: &'a [T],
    layout: &'a Field,
    /// One for each lane of a vector.
    fields: &'a mut [T],
    points: &'a mut [T],
}

impl<T: Real> Kernel<T> for InputsTurned<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { g, layout, fields, points, .. } = self;
        let (size, length) = (points.len() / POINTS, layout.block.len());
        let starts: Vec<usize> = layout.block.clone().map(|tile| layout.start(tile)).collect();
        let mut lanes = [0; 16];
        for lane in 0..L::N {
            lanes[lane] = lane * layout.len();
        }
        fields.fill(T::zero());
        assert!(points.len() == POINTS * g.c_group.next_multiple_of(2 * L::N) * length && fields.len() >= L::N * layout.len());
        for first in (0..g.c_group.next_multiple_of(2 * L::N)).step_by(L::N) {
            for lane in 0..L::N.min(g.c_group.saturating_sub(first)) {
                let channel = self.group * g.c_group + first + lane;
                layout.fill(|sample| &self.xs[(sample * g.c + channel) * g.area_in()..][..g.area_in()], &mut fields[lanes[lane]..]);
            }
            for (nth, &start) in starts.iter().enumerate() {
                let at = (first / (2 * L::N) * length + nth) * 2 * L::N + first % (2 * L::N);
                debug_assert!(start + (IN - 1) * layout.row + 8 <= layout.len());
                // SAFETY: the processor has the instructions, by the caller's promise. There is a field for each lane, as was just checked, and each has
                // room for its last tile and two columns more, up to which six rows are read. The points are as many as was just checked: `at` is
                // within one, and a vector ends with the panel.
                unsafe {
                    let square = look!(6, L, fields.as_ptr().add(start), layout.row, &lanes);
                    let at_points: [[L; IN]; IN] = both_ways!(see, square, IN, IN);
                    for (point, value) in at_points.as_flattened().iter().enumerate() {
                        value.store(points.as_mut_ptr().add(point * size + at));
                    }
                }
            }
        }
    }
}

/// The output's gradient of some tiles at the 36 points: for each point panels of channels, `(outputs / ROWS, tiles, ROWS)`.
struct Gradients<'a, T> {
    g: &'a Geometry,
    grad: &'a [T],
    /// Output channels of the whole tensor.
    outputs: Range<usize>,
    layout: &'a Field,
    /// One for each lane of a vector.
    fields: &'a mut [T],
    points: &'a mut [T],
}

impl<T: Real> Kernel<T> for Gradients<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { g, layout, fields, points, .. } = self;
        let (size, length, count) = (points.len() / POINTS, layout.block.len(), self.outputs.len());
        let starts: Vec<usize> = layout.block.clone().map(|tile| layout.start(tile)).collect();
        let mut places = [0; 16];
        for lane in 0..L::N {
            places[lane] = lane * layout.len();
        }
        fields.fill(T::zero());
        assert!(fields.len() >= L::N * layout.len());
        let mut lanes = [T::zero(); 16];
        for first in (0..count).step_by(L::N) {
            for lane in 0..L::N.min(count - first) {
                let channel = self.outputs.start + first + lane;
                layout.fill(|sample| &self.grad[(sample * g.o + channel) * g.area_out()..][..g.area_out()], &mut fields[places[lane]..]);
            }
            for (nth, &start) in starts.iter().enumerate() {
                debug_assert!(start + (OUT - 1) * layout.row + 4 <= layout.len());
                // SAFETY: the processor has the instructions, by the caller's promise. There is a field for each lane, as was just checked, with all of
                // its tiles, of which four rows of four are read.
                let at_points: [[L; IN]; IN] = unsafe {
                    let square = look!(4, L, fields.as_ptr().add(start), layout.row, &places);
                    both_ways!(give_back, square, OUT, IN)
                };
                for (point, value) in at_points.as_flattened().iter().enumerate() {
                    // SAFETY: there is room for sixteen elements, and no vector has more.
                    unsafe { value.store(lanes.as_mut_ptr()) };
                    for (panel, lanes) in lanes[..L::N].chunks_exact(ROWS).enumerate() {
                        let panel = first / ROWS + panel;
                        if panel * ROWS < count {
                            let at = point * size + (panel * length + nth) * ROWS;
                            points[at..at + ROWS].copy_from_slice(lanes);
                        }
                    }
                }
            }
        }
    }
}

/// From the sums `(36, outputs, channels)` of each part to the gradient of the weight.
struct WeightGradient<'a, T> {
    parts: &'a [Vec<T>],
    channels: usize,
    /// Numbers of a point in each part, and of one output channel.
    size: usize,
    row: usize,
    /// Which output channel of the parts.
    output: usize,
    /// `(channels, 3, 3)`.
    dweight: &'a mut [T],
}

impl<T: Real> Kernel<T> for WeightGradient<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let mut taps = [T::zero(); 9 * 16];
        assert!(self.channels.next_multiple_of(L::N) <= self.row && (self.output + 1) * self.row <= self.size);
        assert!(self.parts.iter().all(|part| part.len() >= POINTS * self.size));
        for first in (0..self.channels).step_by(L::N) {
            let at = self.output * self.row + first;
            // SAFETY: the processor has the instructions, by the caller's promise. Each part has all points, and each point this row of whole vectors, as
            // was just checked. `taps` has room for nine vectors of sixteen.
            unsafe {
                let mut sums = square!(L, IN, |nth: usize| self.parts[0][nth * self.size + at..].as_ptr());
                for part in &self.parts[1..] {
                    let part = square!(L, IN, |nth: usize| part[nth * self.size + at..].as_ptr());
                    for (sum, part) in sums.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                        *sum = sum.add(*part);
                    }
                }
                let gradient: [[L; 3]; 3] = both_ways!(weigh_back, sums, IN, 3);
                for (tap, value) in gradient.as_flattened().iter().enumerate() {
                    value.store(taps.as_mut_ptr().add(tap * L::N));
                }
            }
            for (lane, dweight) in self.dweight[first * 9..].chunks_exact_mut(9).take(L::N).enumerate() {
                for (tap, dw) in dweight.iter_mut().enumerate() {
                    *dw = taps[tap * L::N + lane];
                }
            }
        }
    }
}
