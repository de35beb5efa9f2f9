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
use super::panels::{Dots, Product, Rows, Target};
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
        if !self.sees_itself() || self.apart != (1, 1) {
            return self;
        }
        let (_, _, h, w) = self.seen;
        let line = |(channels, group, h, w): (usize, usize, usize, usize)| (channels, group, 1, h * w);
        Self { rows: 1, cols: h * w, seen: line(self.seen), made: line(self.made), ..self }
    }

    /// Whether each position sees the pixel at its own place, and nothing else.
    fn sees_itself(&self) -> bool {
        let alone = matches!(*self.taps, [Tap { down: 0, right: 0, .. }]);
        alone && self.step == (1, 1) && (self.rows, self.cols) == (self.seen.2, self.seen.3)
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
                let line = match grid.line(tap, channel, &self.block, self.xs) {
                    Some(line) => line,
                    None => {
                        grid.gather(tap, channel, &self.block, self.xs, line);
                        &*line
                    }
                };
                for (panel, line) in line.chunks_exact(cols).enumerate() {
                    let at = (panel * depth + inner) * cols;
                    self.panels[at..at + cols].copy_from_slice(line);
                }
            }
        }
    }
}

/// A weight as one direction sees it: how far apart made channels lie, and seen ones; the taps of a pair are neighbours.
#[derive(Clone, Copy)]
struct Weight<'a, T> {
    numbers: &'a [T],
    /// From one group to the next, from one made channel, from one seen channel.
    group: usize,
    made: usize,
    seen: usize,
}

impl<T: Real> Weight<'_, T> {
    /// In panels `(made / rows, depth, rows)`, group after group.
    fn panels(&self, grid: &Grid, groups: usize) -> Vec<T> {
        let (rows, depth, made) = (shape::<T>().rows, grid.depth(), grid.made.1);
        let padded = made.next_multiple_of(rows);
        let mut panels = vec![T::zero(); groups * padded * depth];
        panels.par_chunks_mut((rows * depth).max(1)).enumerate().for_each(|(panel, to)| {
            let (group, first) = (panel / (padded / rows), panel % (padded / rows) * rows);
            let own = &self.numbers[group * self.group + first * self.made..];
            let places = (0..grid.seen.1).flat_map(|seen| grid.taps.iter().map(move |tap| seen * self.seen + tap.number));
            for (to, place) in to.chunks_exact_mut(rows).zip(places) {
                for (row, to) in to[..rows.min(made - first)].iter_mut().enumerate() {
                    *to = own[place + row * self.made];
                }
            }
        });
        panels
    }
}

/// Runs one direction: `(made channels, depth)` weights times gathered columns.
fn run<T: Real>(grid: &Grid, groups: usize, xs: &[T], weight: Weight<T>, bias: Option<&[T]>, ys: &mut [T]) {
    let (channels, _, h, w) = grid.made;
    assert_eq!(ys.len(), grid.samples * channels * h * w, "a convolution writes inside its result");
    let (simd, depth, made) = (shape::<T>(), grid.depth(), grid.made.1);
    let cols = 2 * simd.lanes;
    let padded = made.next_multiple_of(simd.rows);
    let panels = weight.panels(grid, groups);
    let area = grid.rows * grid.cols;
    // Where little of a picture's last panel is empty, a task keeps to one picture, and its results are written where they belong.
    let direct = grid.apart == (1, 1) && area.next_multiple_of(cols) <= area + area / 8;
    let (pieces, length) = if direct { (grid.samples, area) } else { (1, grid.positions()) };
    let most = (COLUMNS / depth.max(1)).clamp(2 * cols, 16 * cols);
    let block = length.div_ceil(length.div_ceil(most)).next_multiple_of(cols);
    let blocks = length.div_ceil(block);
    let shared = Shared::of(ys);
    let one = |task: usize, scratch: &mut [T]| {
        let (at, group) = (task / groups, task % groups);
        let (line, scratch) = scratch.split_at_mut(block);
        let start = at / blocks * length;
        let block = start + at % blocks * block..start + (at % blocks * block + block).min(length);
        let width = block.len().next_multiple_of(cols);
        let (columns, results) = scratch.split_at_mut(depth * width);
        dispatch::<T, _>(Columns { grid, group, block: block.clone(), xs, line, panels: columns });
        let lhs = &panels[group * padded * depth..(group + 1) * padded * depth];
        if direct {
            let start = (at / blocks * channels + group * made) * area + block.start - start;
            // SAFETY: pixels are not apart, so that a channel of a sample is `area` elements, of which the block is a part: `made` channels of it lie
            // within the result, whose length was checked. No other task has this group of this block, nor does anybody read it before all are done.
            let dst = unsafe { Target::among(shared.offset(start), [made, block.len()], area) };
            dispatch::<T, _>(Product { depth, lhs, rhs: columns, dst, add: false });
            for (nth, &bias) in bias.iter().flat_map(|bias| bias[group * made..(group + 1) * made].iter().enumerate()) {
                // SAFETY: as above; the target was given up when the product was done.
                let ys = unsafe { shared.slice(start + nth * area, block.len()) };
                ys.iter_mut().for_each(|y| *y += bias);
            }
            return;
        }
        dispatch::<T, _>(Product { depth, lhs, rhs: columns, dst: Target::of(results, [made, width], width), add: false });
        grid.each_piece(&block, |sample, row, cols, at| {
            for nth in 0..made {
                let channel = group * made + nth;
                let bias = bias.map_or(T::zero(), |bias| bias[channel]);
                let start =
                    ((sample * channels + channel) * h + grid.first.0 + row * grid.apart.0) * w + grid.first.1 + cols.start * grid.apart.1;
                // SAFETY: positions make pixels inside the result, whose length was checked. From the first of these to the last there are only pixels
                // of this row that this task makes, or that no task of this grid does: other grids, whose pixels lie between, run before or after.
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
    (0..pieces * blocks * groups).into_par_iter().for_each(|task| lend(block * (1 + depth + made), |scratch| one(task, scratch)));
}

/// `ys (n, o, oh, ow)`.
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>, ys: &mut [T]) {
    let of_made = g.c_group * g.taps();
    let weight = Weight { numbers: weight, group: g.o_group * of_made, made: of_made, seen: g.taps() };
    run(&Grid::forward(g), g.conv.groups, xs, weight, bias, ys);
}

/// The gradient of the input `(n, c, h, w)`.
pub(super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T], dxs: &mut [T]) {
    let of_seen = g.c_group * g.taps();
    let weight = Weight { numbers: weight, group: g.o_group * of_seen, made: g.taps(), seen: of_seen };
    for grid in Grid::backward(g) {
        run(&grid, g.conv.groups, grad, weight, None, dxs);
    }
}

/// The gradient of the weight `(o, c / groups, kh, kw)`: products of a row of gradients and a row of what they saw, along positions.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T], dweight: &mut [T]) {
    let (lanes, grid) = (shape::<T>().lanes, Grid::forward(g));
    let (depth, area) = (grid.depth(), g.area_out());
    // Where a position sees itself, rows are read where they lie, a picture at a time; else gathered.
    let direct = grid.sees_itself() && area.is_multiple_of(lanes);
    let unit = if direct { area } else { 1 };
    let units = grid.positions() / unit;
    let length = ((if direct { 4 } else { 1 } * COLUMNS / depth).clamp(16 * lanes, 256 * lanes) / unit).max(1);
    // A part sums some of the positions for some of the columns; how many there are depends on sizes alone.
    let parts = ((1 << 21) / (g.o_group * depth)).clamp(1, 8).min(units.div_ceil(length));
    let per_split = depth.div_ceil(4usize.div_ceil(parts * g.conv.groups));
    let splits = depth.div_ceil(per_split);
    let one = |task: usize, scratch: &mut [T]| {
        let (group, part, split) = (task / splits / parts, task / splits % parts, task % splits);
        let own = split * per_split..((split + 1) * per_split).min(depth);
        let mut sums = fresh(g.o_group * own.len());
        for first in (part * units / parts..(part + 1) * units / parts).step_by(length) {
            let block = first..(first + length).min((part + 1) * units / parts);
            let add = first > part * units / parts;
            let dst = sums.as_mut_slice();
            if direct {
                let pieces: Vec<[usize; 2]> = block.map(|sample| [sample * g.o * area, sample * g.c * area]).collect();
                let one = Rows { numbers: &grad[group * g.o_group * area..], count: g.o_group, row: area };
                let other = Rows { numbers: &xs[(group * g.c_group + own.start) * area..], count: own.len(), row: area };
                dispatch::<T, _>(Dots { one, other, pieces: &pieces, length: area, dst, add });
                continue;
            }
            let row = block.len().next_multiple_of(lanes);
            let (columns, gradients) = scratch.split_at_mut(own.len() * row);
            for (inner, line) in own.clone().zip(columns.chunks_exact_mut(row)) {
                let (c, tap) = (inner / grid.taps.len(), grid.taps[inner % grid.taps.len()]);
                grid.gather(tap, group * g.c_group + c, &block, xs, line);
                line[block.len()..].fill(T::zero());
            }
            for (nth, line) in gradients.chunks_exact_mut(row).take(g.o_group).enumerate() {
                grid.each_piece(&block, |sample, row, cols, at| {
                    let from = (sample * g.o + group * g.o_group + nth) * area + row * g.ow + cols.start;
                    line[at..at + cols.len()].copy_from_slice(&grad[from..from + cols.len()]);
                });
                line[block.len()..].fill(T::zero());
            }
            let one = Rows { numbers: gradients, count: g.o_group, row };
            let other = Rows { numbers: columns, count: own.len(), row };
            dispatch::<T, _>(Dots { one, other, pieces: &[[0, 0]], length: row, dst, add });
        }
        sums
    };
    let scratch = if direct { 0 } else { (per_split + g.o_group) * length.next_multiple_of(lanes) };
    let tasks = (0..g.conv.groups * parts * splits).into_par_iter();
    let sums: Vec<Vec<T>> = tasks.map(|task| lend(scratch, |scratch| one(task, scratch))).collect();
    for (o, dweight) in dweight.chunks_exact_mut(depth).enumerate() {
        let (group, nth) = (o / g.o_group, o % g.o_group);
        for (split, dweight) in dweight.chunks_mut(per_split).enumerate() {
            for part in 0..parts {
                let own = &sums[(group * parts + part) * splits + split][nth * dweight.len()..][..dweight.len()];
                if part == 0 {
                    dweight.copy_from_slice(own);
                } else {
                    dweight.iter_mut().zip(own).for_each(|(dw, &sum)| *dw += sum);
                }
            }
        }
    }
}
