//! Convolution as matrix products over tiles of the output.
//!
//! A tile is some rows of one picture, or several whole pictures where they are small. What its pixels see of the input is copied
//! into columns of a scratch matrix (`im2col`) that fits the cache; one product with the weight makes the tile. The scratch is
//! bounded by the tile, not by the batch. A 1×1 kernel with stride 1 needs no copy: the picture is the matrix.

use std::ops::Range;

use rayon::prelude::*;

use super::conv::{Conv, Geometry};
use super::real::{Matrix, Real, Shared, product, product_at};

/// Numbers of scratch a task aims at: half a megabyte of `f32`, so that it stays in the second-level cache.
const SCRATCH: usize = 1 << 17;
/// Fewest pixels a tile aims at: a product packs the whole weight anew, which fewer columns would not pay for.
const PIXELS: usize = 128;

/// Some rows of one picture, or all rows of several.
#[derive(Debug, Clone)]
struct Tile {
    samples: Range<usize>,
    rows: Range<usize>,
}

impl Tile {
    fn pixels(&self, g: &Geometry) -> usize {
        self.samples.len() * self.rows.len() * g.ow
    }

    /// The first pixel of the tile within its first picture.
    fn start(&self, g: &Geometry) -> usize {
        self.rows.start * g.ow
    }
}

/// A split of the output that depends on the sizes alone.
fn tiles(g: &Geometry) -> Vec<Tile> {
    let budget = (SCRATCH / (g.c_group * g.taps())).max(PIXELS);
    if 2 * g.area_out() <= budget {
        let together = budget / g.area_out();
        return (0..g.n).step_by(together).map(|at| Tile { samples: at..(at + together).min(g.n), rows: 0..g.oh }).collect();
    }
    let rows = if pointwise(g) { g.oh } else { (budget / g.ow).clamp(1, g.oh) };
    let of_sample = |sample| (0..g.oh).step_by(rows).map(move |at| Tile { samples: sample..sample + 1, rows: at..(at + rows).min(g.oh) });
    (0..g.n).flat_map(of_sample).collect()
}

/// Whether the picture itself is the matrix of what each output pixel sees.
fn pointwise(g: &Geometry) -> bool {
    g.taps() == 1 && g.conv.stride == (1, 1) && g.conv.padding == (0, 0)
}

/// The output positions `0..out` at which tap `tap` falls inside `0..size`.
fn inside(tap: usize, out: usize, size: usize, stride: usize, padding: usize, dilation: usize) -> Range<usize> {
    let shift = tap * dilation;
    let first = padding.saturating_sub(shift).div_ceil(stride).min(out);
    let end = (size + padding).saturating_sub(shift).div_ceil(stride).min(out);
    first..end.max(first)
}

/// Calls `f(tap, row, cols, at)` for every tap and every output row of `rows` (counted from their first): the output columns whose
/// tap falls inside plane `channel`, and where in the input the first of them falls. Taps in the padding are left out.
#[inline(always)]
pub(super) fn each_run(g: &Geometry, channel: usize, rows: &Range<usize>, mut f: impl FnMut(usize, usize, Range<usize>, usize)) {
    let Conv { stride, padding, dilation, .. } = g.conv;
    for ki in 0..g.kh {
        let valid = inside(ki, g.oh, g.h, stride.0, padding.0, dilation.0);
        let valid = valid.start.max(rows.start)..valid.end.min(rows.end);
        for kj in 0..g.kw {
            let cols = inside(kj, g.ow, g.w, stride.1, padding.1, dilation.1);
            if cols.is_empty() {
                continue;
            }
            let left = cols.start * stride.1 + kj * dilation.1 - padding.1;
            for oy in valid.clone() {
                let iy = oy * stride.0 + ki * dilation.0 - padding.0;
                f(ki * g.kw + kj, oy - rows.start, cols.clone(), (channel * g.h + iy) * g.w + left);
            }
        }
    }
}

/// Fills `columns` (channels of the group × taps, pixels of the tile) with what the tile sees of group `group`.
fn gather<T: Real>(g: &Geometry, tile: &Tile, group: usize, xs: &[T], columns: &mut [T]) {
    let pixels = tile.pixels(g);
    let per_sample = tile.rows.len() * g.ow;
    let padded = g.conv.padding != (0, 0);
    if padded {
        columns.fill(T::zero());
    }
    let stride = g.conv.stride.1;
    for (nth, sample) in tile.samples.clone().enumerate() {
        for c in 0..g.c_group {
            let channel = sample * g.c + group * g.c_group + c;
            each_run(g, channel, &tile.rows, |tap, row, cols, from| {
                let at = (c * g.taps() + tap) * pixels + nth * per_sample + row * g.ow;
                let to = &mut columns[at + cols.start..at + cols.end];
                if stride == 1 {
                    to.copy_from_slice(&xs[from..from + cols.len()]);
                } else {
                    for (to, &x) in to.iter_mut().zip(xs[from..].iter().step_by(stride)) {
                        *to = x;
                    }
                }
            });
        }
    }
}

/// Room for the columns of any tile, and for as many rows of results where a tile is more than one picture.
fn scratch<T: Real>(g: &Geometry, tiles: &[Tile], rows: usize) -> Vec<T> {
    let pixels = tiles.iter().map(|tile| tile.pixels(g)).max().unwrap_or(0);
    vec![T::zero(); pixels * rows]
}

/// The rows `channel..` of a tensor `(n, channels, area)` as a matrix (rows, pixels of the tile); in `copy` where the tile is several
/// pictures.
fn tile_rows<'a, T: Real>(
    (g, tile): (&Geometry, &Tile),
    values: &'a [T],
    channels: usize,
    rows: Range<usize>,
    area: usize,
    copy: &'a mut [T],
) -> Matrix<&'a [T]> {
    if tile.samples.len() == 1 {
        let at = (tile.samples.start * channels + rows.start) * area + tile.start(g);
        return Matrix::rows(&values[at..], area);
    }
    let pixels = tile.pixels(g);
    for (nth, sample) in tile.samples.clone().enumerate() {
        for row in rows.clone() {
            let at = (sample * channels + row) * area;
            let to = (row - rows.start) * pixels + nth * area;
            copy[to..to + area].copy_from_slice(&values[at..at + area]);
        }
    }
    Matrix::rows(copy, pixels)
}

/// `ys (n, o, oh, ow)`.
#[expect(unsafe_code, reason = "a tile of the output is not a slice")]
pub(super) fn forward<T: Real>(g: &Geometry, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
    let mut ys = vec![T::zero(); g.n * g.o * g.area_out()];
    let shared = Shared(ys.as_mut_ptr());
    let (tiles, depth, area) = (tiles(g), g.c_group * g.taps(), g.area_out());
    let several = tiles.iter().any(|tile| tile.samples.len() > 1);
    let buffers = || {
        let columns = if pointwise(g) && !several { Vec::new() } else { scratch::<T>(g, &tiles, depth) };
        (columns, if several { scratch::<T>(g, &tiles, g.o_group) } else { Vec::new() })
    };
    let task = |(columns, results): &mut (Vec<T>, Vec<T>), index: usize| {
        let (tile, group) = (&tiles[index / g.conv.groups], index % g.conv.groups);
        let (pixels, first) = (tile.pixels(g), group * g.o_group);
        let weight = Matrix::rows(&weight[first * depth..(first + g.o_group) * depth], depth);
        let columns = if pointwise(g) {
            let group = group * g.c_group..(group + 1) * g.c_group;
            tile_rows((g, tile), xs, g.c, group, area, columns)
        } else {
            gather(g, tile, group, xs, &mut columns[..depth * pixels]);
            Matrix::rows(&columns[..depth * pixels], pixels)
        };
        if tile.samples.len() == 1 {
            let start = (tile.samples.start * g.o + first) * area + tile.start(g);
            if let Some(bias) = bias {
                for row in 0..g.o_group {
                    // SAFETY: these rows of these channels of this sample are inside `ys` and belong to this task alone.
                    unsafe { shared.slice(start + row * area, pixels) }.fill(bias[first + row]);
                }
            }
            // SAFETY: as above; the matrix is just these places.
            unsafe {
                let ys = Matrix { at: shared.offset(start), row: area, col: 1 };
                product_at([g.o_group, pixels, depth], ys, bias.is_some(), weight, columns);
            }
        } else {
            product([g.o_group, pixels, depth], results, false, weight, columns);
            for (nth, sample) in tile.samples.clone().enumerate() {
                for row in 0..g.o_group {
                    // SAFETY: these channels of this sample are inside `ys` and belong to this task alone.
                    let ys = unsafe { shared.slice((sample * g.o + first + row) * area, area) };
                    let bias = bias.map_or(T::zero(), |bias| bias[first + row]);
                    for (y, &result) in ys.iter_mut().zip(&results[row * pixels + nth * area..]) {
                        *y = result + bias;
                    }
                }
            }
        }
    };
    (0..tiles.len() * g.conv.groups).into_par_iter().for_each_init(buffers, task);
    ys
}

/// The gradient of the input `(n, c, h, w)`.
pub(super) fn backward_data<T: Real>(g: &Geometry, grad: &[T], weight: &[T]) -> Vec<T> {
    let Conv { stride, padding, dilation, groups } = g.conv;
    let reach = (dilation.0 * (g.kh - 1), dilation.1 * (g.kw - 1));
    if stride == (1, 1) && padding.0 <= reach.0 && padding.1 <= reach.1 {
        // With stride 1 the gradient flows through a convolution with the kernels turned round and inputs and outputs exchanged.
        let conv = Conv { stride, padding: (reach.0 - padding.0, reach.1 - padding.1), dilation, groups };
        let turned = Geometry { c: g.o, c_group: g.o_group, h: g.oh, w: g.ow, o: g.c, o_group: g.c_group, oh: g.h, ow: g.w, conv, ..*g };
        return forward(&turned, grad, &turn(g, weight), None);
    }
    scatter_columns(g, grad, weight)
}

/// The weight `(o, c / groups, kh, kw)` as `(c, o / groups, kh, kw)`, each kernel turned by half a circle.
fn turn<T: Real>(g: &Geometry, weight: &[T]) -> Vec<T> {
    let mut turned = vec![T::zero(); weight.len()];
    let taps = g.taps();
    for (at, kernel) in weight.chunks_exact(taps).enumerate() {
        let (o, c) = (at / g.c_group, at % g.c_group);
        let (group, nth) = (o / g.o_group, o % g.o_group);
        let to = ((group * g.c_group + c) * g.o_group + nth) * taps;
        for (to, &value) in turned[to..to + taps].iter_mut().zip(kernel.iter().rev()) {
            *to = value;
        }
    }
    turned
}

/// Any stride: the columns' gradient by one product a tile, then each number added where it was copied from.
#[expect(unsafe_code, reason = "the channels of a group of several samples are not one slice")]
fn scatter_columns<T: Real>(g: &Geometry, grad: &[T], weight: &[T]) -> Vec<T> {
    let mut dxs = vec![T::zero(); g.n * g.area_in() * g.c];
    let shared = Shared(dxs.as_mut_ptr());
    let (tiles, taps, area) = (tiles(g), g.taps(), g.area_out());
    let depth = g.c_group * taps;
    // Tiles of one sample overlap in the input, so one task takes them all; few tasks are split again by channels.
    let runs: Vec<&[Tile]> = tiles.chunk_by(|a, b| a.samples == b.samples).collect();
    let parts = 16usize.div_ceil(runs.len() * g.conv.groups);
    let channels = g.c_group.div_ceil(parts).max(8).min(g.c_group);
    let parts = g.c_group.div_ceil(channels);
    let several = tiles.iter().any(|tile| tile.samples.len() > 1);
    let buffers = || (scratch::<T>(g, &tiles, channels * taps), if several { scratch::<T>(g, &tiles, g.o_group) } else { Vec::new() });
    let task = |(columns, copy): &mut (Vec<T>, Vec<T>), index: usize| {
        let (run, group, part) = (runs[index / parts / g.conv.groups], index / parts % g.conv.groups, index % parts);
        let (first, own) = (group * g.o_group, part * channels..((part + 1) * channels).min(g.c_group));
        let weight = &weight[first * depth + own.start * taps..(first + g.o_group) * depth];
        for tile in run {
            let pixels = tile.pixels(g);
            let per_sample = tile.rows.len() * g.ow;
            let grad = tile_rows((g, tile), grad, g.o, first..first + g.o_group, area, copy);
            let weight = Matrix { at: weight, row: 1, col: depth };
            product([own.len() * taps, pixels, g.o_group], columns, false, weight, grad);
            for (nth, sample) in tile.samples.clone().enumerate() {
                for c in own.clone() {
                    let plane = (sample * g.c + group * g.c_group + c) * g.area_in();
                    // SAFETY: this channel of this sample is inside `dxs` and belongs to this task alone.
                    let dx = unsafe { shared.slice(plane, g.area_in()) };
                    each_run(g, 0, &tile.rows, |tap, row, cols, to| {
                        let at = ((c - own.start) * taps + tap) * pixels + nth * per_sample + row * g.ow;
                        for (dx, &d) in dx[to..].iter_mut().step_by(g.conv.stride.1).zip(&columns[at + cols.start..at + cols.end]) {
                            *dx += d;
                        }
                    });
                }
            }
        }
    };
    (0..runs.len() * g.conv.groups * parts).into_par_iter().for_each_init(buffers, task);
    dxs
}

/// The gradient of the weight `(o, c / groups, kh, kw)`.
pub(super) fn backward_filter<T: Real>(g: &Geometry, grad: &[T], xs: &[T]) -> Vec<T> {
    let (tiles, depth, area) = (tiles(g), g.c_group * g.taps(), g.area_out());
    let size = g.o_group * depth;
    // Each part sums its tiles in a matrix of its own; how many parts depends on sizes alone, and they are added in order.
    let parts = ((1 << 23) / size).clamp(2, 16).min(tiles.len());
    let several = tiles.iter().any(|tile| tile.samples.len() > 1);
    let one = |index: usize| {
        let (group, part) = (index / parts, index % parts);
        let mut sum = vec![T::zero(); size];
        let mut columns = if pointwise(g) && !several { Vec::new() } else { scratch::<T>(g, &tiles, depth) };
        let mut copy = if several { scratch::<T>(g, &tiles, g.o_group) } else { Vec::new() };
        for tile in &tiles[part * tiles.len() / parts..(part + 1) * tiles.len() / parts] {
            let pixels = tile.pixels(g);
            let grad = tile_rows((g, tile), grad, g.o, group * g.o_group..(group + 1) * g.o_group, area, &mut copy);
            let columns = if pointwise(g) {
                tile_rows((g, tile), xs, g.c, group * g.c_group..(group + 1) * g.c_group, area, &mut columns)
            } else {
                gather(g, tile, group, xs, &mut columns[..depth * pixels]);
                Matrix::rows(&columns[..depth * pixels], pixels)
            };
            product([g.o_group, depth, pixels], &mut sum, true, grad, columns.transposed());
        }
        sum
    };
    let sums: Vec<Vec<T>> = (0..g.conv.groups * parts).into_par_iter().map(one).collect();
    let of_group = |sums: &[Vec<T>]| {
        let mut total = sums[0].clone();
        for sum in &sums[1..] {
            total.iter_mut().zip(sum).for_each(|(total, &part)| *total += part);
        }
        total
    };
    sums.chunks(parts).flat_map(of_group).collect()
}
