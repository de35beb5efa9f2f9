//! What kernels take of memory while they run, besides what they read and give: bounds, from sizes alone.
//!
//! The formulas are those by which the kernels cut their work; a measured training run (`tests/it/fitting.rs`) holds them to it.

use super::conv::{Conv, Geometry};
use super::simd::shape;
use super::{conv_depthwise, conv_winograd};

/// Numbers of `f32` that a kernel takes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scratch {
    /// Kept by the thread that calls it.
    caller: usize,
    /// Kept by each thread that helps.
    helper: usize,
    /// Given back when it is done.
    passing: usize,
}

impl Scratch {
    /// What is enough for either, one after the other.
    pub(crate) fn or(self, other: Self) -> Self {
        let Self { caller, helper, passing } = other;
        Self { caller: self.caller.max(caller), helper: self.helper.max(helper), passing: self.passing.max(passing) }
    }

    /// What is enough for both, each with memory of its own.
    pub(crate) fn and(self, other: Self) -> Self {
        let Self { caller, helper, passing } = other;
        Self { caller: self.caller + caller, helper: self.helper + helper, passing: self.passing.max(passing) }
    }

    /// All of it in bytes, on the threads there are.
    pub(crate) fn bytes(self) -> u64 {
        4 * (self.caller + self.helper * rayon::current_num_threads() + self.passing) as u64
    }
}

/// Forward and both backward passes of a convolution of `xs` `(n, c, h, w)`, given a picture `(o, oh, ow)`, with a kernel `(kh, kw)`.
pub(crate) fn conv2d_scratch(&[n, c, h, w]: &[usize; 4], &[o, oh, ow]: &[usize; 3], (kh, kw): (usize, usize), conv: &Conv) -> Scratch {
    let groups = conv.groups;
    let g = Geometry { n, c, c_group: c / groups, h, w, o, o_group: o / groups, kh, kw, oh, ow, conv: *conv };
    if g.c_group == 1 && groups > 1 {
        depthwise(&g)
    } else if conv_winograd::fits(&g) {
        winograd(&g)
    } else {
        gather(&g)
    }
}

/// A matrix product, whose panels `gemm` packs into as much as a second cache holds.
pub(crate) fn product_scratch() -> Scratch {
    const CACHE: usize = 1 << 19;
    Scratch { caller: CACHE, helper: CACHE, passing: 0 }
}

/// Small pictures: those of a vector of channels, with what meets what. Large ones: a plane with its padding, and gradients as long, of the
/// channels that one channel makes.
fn depthwise(g: &Geometry) -> Scratch {
    if conv_depthwise::small(g) {
        let vectors = g.area_in() + g.o_group * (g.area_out() + g.taps());
        return Scratch { helper: 16 * vectors, passing: g.o_group * g.area_out() * g.taps() + 2 * g.o * g.taps(), ..Scratch::default() };
    }
    let plane = (g.h + 2 * g.conv.padding.0 + g.kh) * (g.w + 2 * g.conv.padding.1 + g.kw);
    Scratch { helper: 2 * (1 + g.o_group) * plane, ..Scratch::default() }
}

fn winograd(g: &Geometry) -> Scratch {
    /// Points of a tile, 6×6, and its side in the output.
    const POINTS: usize = 36;
    const SIDE: usize = 4;
    let simd = shape::<f32>();
    let tiles = g.n * g.oh.div_ceil(SIDE) * g.ow.div_ceil(SIDE);
    let (seen, made) = (g.c_group.next_multiple_of(2 * simd.lanes), g.o_group.next_multiple_of(simd.rows));
    let size = POINTS * seen * made;
    let parts = ((1 << 23) / size).clamp(1, 8).min(tiles.div_ceil(32));
    let splits = 2usize.div_ceil(parts * g.conv.groups);
    let length = ((1 << 18) / (POINTS * (seen + made.div_ceil(splits)))).clamp(32, 128).min(tiles);
    let field = (g.h + 8) * (g.w + 8);
    let samples = |tiles: usize| (tiles.div_ceil((g.oh.div_ceil(SIDE) * g.ow.div_ceil(SIDE)).max(1)) + 1).min(g.n);
    let columns = if size > POINTS << 15 { 4 } else { 2 } * simd.lanes;
    let forward = POINTS * (seen + made) * columns.min(tiles.next_multiple_of(2 * simd.lanes)) + samples(columns) * field;
    let filter = POINTS * (seen + made.div_ceil(splits)) * length + simd.lanes * samples(length) * field;
    Scratch { caller: size, helper: forward.max(filter), passing: (parts * size).max(g.o * g.c_group * 9) }
}

fn gather(g: &Geometry) -> Scratch {
    /// Numbers of gathered columns that a task takes together.
    const COLUMNS: usize = 1 << 17;
    let simd = shape::<f32>();
    let cols = 2 * simd.lanes;
    let run = |seen: usize, made: usize| {
        let depth = seen * g.taps();
        let block = (COLUMNS / depth).clamp(2 * cols, 16 * cols);
        (g.conv.groups * made.next_multiple_of(simd.rows) * depth, block * (1 + depth + made))
    };
    let ((forward, own), (backward, other)) = (run(g.c_group, g.o_group), run(g.o_group, g.c_group));
    let (depth, lanes) = (g.c_group * g.taps(), simd.lanes);
    let length = (COLUMNS / depth).clamp(16 * lanes, 256 * lanes);
    let parts = ((1 << 21) / (g.o_group * depth)).clamp(1, 8).min((g.n * g.area_out()).div_ceil(length));
    let per_split = depth.div_ceil(4usize.div_ceil(parts * g.conv.groups));
    let splits = depth.div_ceil(per_split);
    let filter = (per_split + g.o_group) * length;
    let sums = g.conv.groups * parts * splits * g.o_group * per_split;
    Scratch { caller: 0, helper: own.max(other).max(filter), passing: forward.max(backward).max(sums) }
}
