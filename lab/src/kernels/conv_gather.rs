//! Convolution as products of matrices whose columns are gathered, straight into panels, from what each position sees.
//!
//! Forward, a position of the output sees the taps of the kernel. Backward, a pixel of the input is seen by some positions of the output:
//! with stride s, pixels fall into s² classes, and each class is the output of a plain convolution over the gradient with some of the
//! taps. So both directions are one function, nothing is scattered or added twice, and no zero is multiplied.
#![expect(unsafe_code, reason = "tasks that write disjoint parts of one result")]

use std::ops::Range;

use rayon::prelude::*;

use super::buffers::{fresh, lend};
use super::conv::Geometry;
use super::panels::Product;
use super::real::{Real, Shared};
use super::simd::{Kernel, Lanes, dispatch, shape};

/// Numbers of gathered columns that a task keeps at once: they stay in the second-level cache.
const COLUMNS: usize = 1 << 17;

/// A tap: the place it sees, counted from the position's own, and its number in the kernel.
#[derive(Debug, Clone, Copy)]
struct Tap {
    down: isize,
    right: isize,
    number: usize,
}

/// A grid of positions, and what each of them sees.
#[derive(Debug)]
struct Grid {
    samples: usize,
    rows: usize,
    cols: usize,
    /// Pixels of what is seen from one position to the next.
    step: (usize, usize),
    taps: Vec<Tap>,
    /// Channels in all, channels of a group, height and width of what is seen.
    seen: (usize, usize, usize, usize),
    /// Channels in all, channels of a group, height and width of what is made.
    made: (usize, usize, usize, usize),
    /// The pixel that the first position makes, and how far apart the others' are.
    first: (usize, usize),
    apart: (usize, usize),
}

impl Grid {
    fn forward(g: &Geometry) -> Self {
        let tap = |number: usize| Tap {
            down: (number / g.kw * g.conv.dilation.0) as isize - g.conv.padding.0 as isize,
            right: (number % g.kw * g.conv.dilation.1) as isize - g.conv.padding.1 as isize,
            number,
        };
        let (seen, made) = ((g.c, g.c_group, g.h, g.w), (g.o, g.o_group, g.oh, g.ow));
        let taps = (0..g.taps()).map(tap).collect();
        Self { samples: g.n, rows: g.oh, cols: g.ow, step: g.conv.stride, taps, seen, made, first: (0, 0), apart: (1, 1) }.flat()
    }

    /// The classes of pixels, of which each is seen through taps of its own.
    fn backward(g: &Geometry) -> Vec<Self> {
        let (down, right) = g.conv.stride;
        // Output position = (pixel + padding − tap · dilation) / stride, where that is whole.
        let reach = |pixel: usize, padding: usize, tap: usize, dilation: usize, stride: usize| {
            let shift = (pixel + padding) as isize - (tap * dilation) as isize;
            (shift.rem_euclid(stride as isize) == 0).then(|| shift.div_euclid(stride as isize))
        };
        let class = |top: usize, left: usize| {
            let tap = |number: usize| {
                Some(Tap {
                    down: reach(top, g.conv.padding.0, number / g.kw, g.conv.dilation.0, down)?,
                    right: reach(left, g.conv.padding.1, number % g.kw, g.conv.dilation.1, right)?,
                    number,
                })
            };
            let (seen, made) = ((g.o, g.o_group, g.oh, g.ow), (g.c, g.c_group, g.h, g.w));
            let (rows, cols) = ((g.h - top).div_ceil(down), (g.w - left).div_ceil(right));
            let taps = (0..g.taps()).filter_map(tap).collect();
            Self { samples: g.n, rows, cols, step: (1, 1), taps, seen, made, first: (top, left), apart: (down, right) }.flat()
        };
        let classes = |left: usize| (0..down.min(g.h)).map(move |top| (top, left));
        (0..right.min(g.w)).flat_map(classes).map(|(top, left)| class(top, left)).collect()
    }

    /// Of a grid whose positions are the pixels themselves, the grid with a picture's rows in one row: its runs are longer.
    fn flat(self) -> Self {
        let (_, _, h, w) = self.seen;
        let here = matches!(*self.taps, [Tap { down: 0, right: 0, .. }]) && self.step == (1, 1) && (self.rows, self.cols) == (h, w);
        if !here || self.apart != (1, 1) {
            return self;
        }
        let line = |(channels, group, h, w): (usize, usize, usize, usize)| (channels, group, 1, h * w);
        Self { rows: 1, cols: h * w, seen: line(self.seen), made: line(self.made), ..self }
    }

    fn positions(&self) -> usize {
        self.samples * self.rows * self.cols
    }

    fn depth(&self) -> usize {
        self.seen.1 * self.taps.len()
    }

    /// Calls `f(sample, row, cols, at)` for the pieces of rows that `block` is made of; `at` counts from the block's first position.
    #[inline(always)]
    fn each_run(&self, block: &Range<usize>, mut f: impl FnMut(usize, usize, Range<usize>, usize)) {
        let mut position = block.start;
        while position < block.end {
            let (line, col) = (position / self.cols, position % self.cols);
            let length = (self.cols - col).min(block.end - position);
            f(line / self.rows, line % self.rows, col..col + length, position - block.start);
            position += length;
        }
    }

    /// What `gather` would copy, where it lies in one piece, of whole panels.
    #[inline(always)]
    fn line<'x, T: Real>(&self, tap: Tap, channel: usize, block: &Range<usize>, xs: &'x [T]) -> Option<&'x [T]> {
        let (channels, _, _, w) = self.seen;
        let (sample, first) = (block.start / self.cols, block.start % self.cols);
        let plain = self.rows == 1 && self.cols == w && (tap.down, tap.right) == (0, 0) && self.step == (1, 1);
        let start = (sample * channels + channel) * w + first;
        (plain && first + block.len() <= w && block.len().is_multiple_of(2 * shape::<T>().lanes)).then(|| &xs[start..start + block.len()])
    }

    /// As [`each_run`](Self::each_run) for what is made, which lies in one piece a sample where pixels are not apart.
    #[inline(always)]
    fn each_piece(&self, block: &Range<usize>, mut f: impl FnMut(usize, usize, Range<usize>, usize)) {
        if self.apart != (1, 1) {
            return self.each_run(block, f);
        }
        let area = self.rows * self.cols;
        let mut position = block.start;
        while position < block.end {
            let (sample, first) = (position / area, position % area);
            let length = (area - first).min(block.end - position);
            f(sample, 0, first..first + length, position - block.start);
            position += length;
        }
    }

    /// What the positions of `block` see of channel `channel` through `tap`, one after another.
    #[inline(always)]
    fn gather<T: Real>(&self, tap: Tap, channel: usize, block: &Range<usize>, xs: &[T], line: &mut [T]) {
        let (channels, _, h, w) = self.seen;
        self.each_run(block, |sample, row, cols, at| {
            let line = &mut line[at..at + cols.len()];
            let y = (row * self.step.0) as isize + tap.down;
            if y < 0 || y >= h as isize {
                return line.fill(T::zero());
            }
            let xs = &xs[((sample * channels + channel) * h + y as usize) * w..][..w];
            // Columns whose tap falls inside: 0 ≤ col · step + right < w.
            let step = self.step.1 as isize;
            let inside =
                |limit: isize| ((limit - tap.right + step - 1).div_euclid(step)).clamp(cols.start as isize, cols.end as isize) as usize;
            let (start, end) = (inside(0), inside(w as isize));
            let (before, rest) = line.split_at_mut(start - cols.start);
            let (middle, after) = rest.split_at_mut(end - start);
            before.fill(T::zero());
            after.fill(T::zero());
            if middle.is_empty() {
                return;
            }
            let xs = &xs[(start as isize * step + tap.right) as usize..];
            if step == 1 {
                middle.copy_from_slice(&xs[..middle.len()]);
            } else {
                middle.iter_mut().zip(xs.iter().step_by(step as usize)).for_each(|(to, &x)| *to = x);
            }
        });
    }
}

/// Gathers the columns of some positions into panels `(positions / 2N, depth, 2N)`.
struct Columns<'a, T> {
    grid: &'a Grid,
    group: usize,
    block: Range<usize>,
    xs: &'a [T],
    line: &'a mut [T],
    panels: &'a mut [T],
}

impl<T: Real> Kernel<T> for Columns<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let (grid, cols, depth) = (self.grid, 2 * L::N, self.grid.depth());
        let line = &mut self.line[..self.block.len().next_multiple_of(cols)];
        line[self.block.len()..].fill(T::zero());
        for c in 0..grid.seen.1 {
            for (nth, &tap) in grid.taps.iter().enumerate() {
                let (channel, inner) = (self.group * grid.seen.1 + c, c * grid.taps.len() + nth);
                if let Some(line) = grid.line(tap, channel, &self.block, self.xs) {
                    for (panel, line) in line.chunks_exact(cols).enumerate() {
                        let at = (panel * depth + inner) * cols;
                        self.panels[at..at + cols].copy_from_slice(line);
                    }
                    continue;
                }
                grid.gather(tap, channel, &self.block, self.xs, line);
                for (panel, line) in line.chunks_exact(cols).enumerate() {
                    let at = (panel * depth + inner) * cols;
                    self.panels[at..at + cols].copy_from_slice(line);
                }
            }
        }
    }
}

/// Puts rows `(count, length)` side by side into panels `(rows / width, length, width)`. Rows that are not there become copies of the
/// last; what is made of them is not read.
struct Turn<'a, T> {
    rows: &'a [T],
    count: usize,
    length: usize,
    width: usize,
    panels: &'a mut [T],
}

impl<T: Real> Kernel<T> for Turn<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let Self { rows, count, length, width, panels } = self;
        assert!(rows.len() >= count * length && count > 0);
        let whole = length - length % 4;
        let (mut starts, mut lanes) = ([0; 16], [T::zero(); 16]);
        for first in (0..panels.len() / length).step_by(L::N) {
            for (lane, start) in starts.iter_mut().enumerate() {
                *start = (first + lane).min(count - 1) * length;
            }
            let piece = width.min(L::N);
            let mut put = |col: usize, lanes: &[T; 16]| {
                for (nth, lanes) in lanes[..L::N].chunks_exact(piece).enumerate() {
                    let row = first + nth * piece;
                    let at = (row / width * length + col) * width + row % width;
                    if let Some(panel) = panels.get_mut(at..at + piece) {
                        panel.copy_from_slice(lanes);
                    }
                }
            };
            for col in (0..whole).step_by(4) {
                // SAFETY: each row has four numbers from here on.
                let columns = unsafe { L::columns(rows.as_ptr().add(col), &starts) };
                for (nth, column) in columns.into_iter().enumerate() {
                    // SAFETY: there is room for the longest vector.
                    unsafe { column.store(lanes.as_mut_ptr()) };
                    put(col + nth, &lanes);
                }
            }
            for col in whole..length {
                for lane in 0..L::N {
                    lanes[lane] = rows[starts[lane] + col];
                }
                put(col, &lanes);
            }
        }
    }
}

/// Runs one direction: `(made channels, depth)` weights, given by `weight(group, made, seen, tap)`, times gathered columns.
fn run<T: Real>(
    grid: &Grid,
    groups: usize,
    xs: &[T],
    weight: impl Fn(usize, usize, usize, usize) -> T + Sync,
    bias: Option<&[T]>,
    ys: &mut [T],
) {
    let (simd, depth, made) = (shape::<T>(), grid.depth(), grid.made.1);
    let cols = 2 * simd.lanes;
    let padded = made.next_multiple_of(simd.rows);
    // The weight in panels: (made / rows, depth, rows), group after group.
    let mut panels = vec![T::zero(); groups * padded * depth];
    panels.par_chunks_mut((simd.rows * depth).max(1)).enumerate().for_each(|(panel, to)| {
        let (group, first) = (panel / (padded / simd.rows), panel % (padded / simd.rows) * simd.rows);
        for row in 0..simd.rows.min(made - first) {
            for seen in 0..grid.seen.1 {
                for (nth, tap) in grid.taps.iter().enumerate() {
                    to[(seen * grid.taps.len() + nth) * simd.rows + row] = weight(group, first + row, seen, tap.number);
                }
            }
        }
    });
    let block = (COLUMNS / depth.max(1)).clamp(2 * cols, 16 * cols) / cols * cols;
    let blocks = grid.positions().div_ceil(block);
    let shared = Shared(ys.as_mut_ptr());
    let one = |task: usize, scratch: &mut [T]| {
        let (at, group) = (task / groups, task % groups);
        let (line, scratch) = scratch.split_at_mut(block);
        let block = at * block..((at + 1) * block).min(grid.positions());
        let width = block.len().next_multiple_of(cols);
        let (columns, results) = scratch.split_at_mut(depth * width);
        dispatch::<T, _>(Columns { grid, group, block: block.clone(), xs, line, panels: columns });
        let lhs = &panels[group * padded * depth..(group + 1) * padded * depth];
        dispatch::<T, _>(Product { dims: [made, width, depth], lhs, rhs: columns, dst: results.as_mut_ptr(), row: width, add: false });
        let (channels, _, h, w) = grid.made;
        grid.each_piece(&block, |sample, row, cols, at| {
            for nth in 0..made {
                let channel = group * made + nth;
                let bias = bias.map_or(T::zero(), |bias| bias[channel]);
                let start =
                    ((sample * channels + channel) * h + grid.first.0 + row * grid.apart.0) * w + grid.first.1 + cols.start * grid.apart.1;
                // SAFETY: these pixels of this channel are inside the result, and only this task's positions make them.
                let ys = unsafe { shared.slice(start, (cols.len() - 1) * grid.apart.1 + 1) };
                let results = &results[nth * width + at..][..cols.len()];
                if grid.apart.1 == 1 {
                    ys.iter_mut().zip(results).for_each(|(y, &result)| *y = result + bias);
                } else {
                    ys.iter_mut().step_by(grid.apart.1).zip(results).for_each(|(y, &result)| *y = result + bias);
                }
            }
        });
    };
    (0..blocks * groups).into_par_iter().for_each(|task| lend(block * (1 + depth + made), |scratch| one(task, scratch)));
}

/// `ys (n, o, oh, ow)`.
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    let at = |group: usize, o: usize, c: usize, tap: usize| weight[((group * g.o_group + o) * g.c_group + c) * g.taps() + tap];
    run(&Grid::forward(g), g.conv.groups, xs, at, bias, ys);
}

/// The gradient of the input `(n, c, h, w)`.
pub(super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T], dxs: &mut [T]) {
    let at = |group: usize, c: usize, o: usize, tap: usize| weight[((group * g.o_group + o) * g.c_group + c) * g.taps() + tap];
    for grid in Grid::backward(g) {
        run(&grid, g.conv.groups, grad, at, None, dxs);
    }
}

/// The gradient of the weight `(o, c / groups, kh, kw)`.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    let (simd, grid) = (shape::<T>(), Grid::forward(g));
    let (cols, depth) = (2 * simd.lanes, grid.depth());
    let (row, rows) = (depth.next_multiple_of(cols), g.o_group.next_multiple_of(simd.rows));
    let positions = grid.positions();
    let length = (COLUMNS / row).clamp(64, 512) / 8 * 8;
    // A part sums some of the positions for some of the columns; how many there are depends on sizes alone.
    let parts = ((1 << 21) / (rows * row)).clamp(1, 8).min(positions.div_ceil(length));
    let splits = 4usize.div_ceil(parts * g.conv.groups).min(row / cols);
    let per_split = (row / cols).div_ceil(splits) * cols;
    let one = |task: usize, scratch: &mut [T]| {
        let (group, part, split) = (task / splits / parts, task / splits % parts, task % splits);
        let own = split * per_split..((split + 1) * per_split).min(row);
        let mut sums = fresh(rows * per_split);
        let (lines, scratch) = scratch.split_at_mut(cols * length);
        let (columns, gradients) = scratch.split_at_mut(per_split * length);
        let (start, end) = (part * positions / parts, (part + 1) * positions / parts);
        for first in (start..end).step_by(length) {
            if own.is_empty() {
                break;
            }
            let block = first..(first + length).min(end);
            let length = block.len();
            for panel in (0..own.len()).step_by(cols) {
                let count = cols.min(depth.saturating_sub(own.start + panel));
                if count == 0 {
                    break;
                }
                for nth in 0..count {
                    let inner = own.start + panel + nth;
                    let (c, tap) = (inner / grid.taps.len(), grid.taps[inner % grid.taps.len()]);
                    grid.gather(tap, group * g.c_group + c, &block, xs, &mut lines[nth * length..(nth + 1) * length]);
                }
                let panels = &mut columns[panel * length..(panel + cols) * length];
                dispatch::<T, _>(Turn { rows: lines, count, length, width: cols, panels });
            }
            let lot = simd.lanes.max(simd.rows);
            for first in (0..rows).step_by(lot) {
                let count = lot.min(g.o_group - first.min(g.o_group - 1));
                grid.each_run(&block, |sample, row, cols, at| {
                    for nth in 0..count {
                        let from = ((sample * g.o + group * g.o_group + first + nth) * g.oh + row) * g.ow + cols.start;
                        lines[nth * length + at..][..cols.len()].copy_from_slice(&grad[from..from + cols.len()]);
                    }
                });
                let panels = &mut gradients[first * length..(first + lot).min(rows) * length];
                dispatch::<T, _>(Turn { rows: lines, count, length, width: simd.rows, panels });
            }
            let dims = [rows, own.len(), length];
            dispatch::<T, _>(Product { dims, lhs: gradients, rhs: columns, dst: sums.as_mut_ptr(), row: per_split, add: first > start });
        }
        sums
    };
    let scratch = (cols + per_split + rows) * length;
    let tasks = (0..g.conv.groups * parts * splits).into_par_iter();
    let sums: Vec<Vec<T>> = tasks.map(|task| lend(scratch, |scratch| one(task, scratch))).collect();
    for (o, dweight) in dweight.chunks_exact_mut(depth).enumerate() {
        let (group, nth) = (o / g.o_group, o % g.o_group);
        for (inner, dw) in dweight.iter_mut().enumerate() {
            let (split, col) = (inner / per_split, inner % per_split);
            let part = |part: usize| sums[(group * parts + part) * splits + split][nth * per_split + col];
            *dw = (1..parts).fold(part(0), |sum, at| sum + part(at));
        }
    }
}
