//! Where the tiles of a convolution lie.

use std::ops::Range;

use super::super::conv::Geometry;
use super::super::real::Real;
use super::OUT;

/// The tiles of a convolution's output, counted through all samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiles {
    pub(super) down: usize,
    pub(super) across: usize,
    pub(super) count: usize,
}

impl Tiles {
    pub(super) fn of(g: &Geometry) -> Self {
        let (down, across) = (g.oh.div_ceil(OUT), g.ow.div_ceil(OUT));
        Self { down, across, count: g.n * down * across }
    }

    /// Sample, and row and column among the sample's tiles.
    pub(super) fn place(&self, tile: usize) -> (usize, usize, usize) {
        (tile / (self.down * self.across), tile / self.across % self.down, tile % self.across)
    }
}

/// The planes of some tiles of one channel, laid out with their padding, so that no tile asks where a picture ends.
#[derive(Debug)]
pub(super) struct Field {
    tiles: Tiles,
    pub(super) block: Range<usize>,
    /// Height and width of a plane, and how far into the field it begins.
    size: (usize, usize),
    padding: (usize, usize),
    /// Side of what a tile covers: 6 of the input, 4 of the output.
    side: usize,
    /// Numbers of a row, and of a sample.
    pub(super) row: usize,
    area: usize,
}

impl Field {
    pub(super) fn new(tiles: Tiles, block: Range<usize>, size: (usize, usize), padding: (usize, usize), side: usize) -> Self {
        // Columns are read four at a time.
        let row = tiles.across * OUT + OUT;
        Self { tiles, block, size, padding, side, row, area: (tiles.down * OUT + side - OUT) * row }
    }

    fn first_sample(&self) -> usize {
        self.tiles.place(self.block.start).0
    }

    pub(super) fn len(&self) -> usize {
        (self.tiles.place(self.block.end - 1).0 - self.first_sample() + 1) * self.area
    }

    /// Where a tile begins.
    pub(super) fn start(&self, tile: usize) -> usize {
        let (sample, row, col) = self.tiles.place(tile);
        (sample - self.first_sample()) * self.area + row * OUT * self.row + col * OUT
    }

    /// Copies the rows that the tiles cover; what is outside the planes stays as it is. `plane` gives a sample's.
    #[inline(always)]
    pub(super) fn fill<'x, T: Real>(&self, plane: impl Fn(usize) -> &'x [T], field: &mut [T]) {
        let ((first, top, _), (last, bottom, _)) = (self.tiles.place(self.block.start), self.tiles.place(self.block.end - 1));
        let ((h, w), (up, left)) = (self.size, self.padding);
        for sample in first..=last {
            let start = if sample == first { top * OUT } else { 0 };
            let end = if sample == last { bottom * OUT + self.side } else { (self.tiles.down - 1) * OUT + self.side };
            let plane = plane(sample);
            let field = &mut field[(sample - first) * self.area..][..self.area];
            for y in start.max(up)..end.min(h + up) {
                field[y * self.row + left..][..w].copy_from_slice(&plane[(y - up) * w..][..w]);
            }
        }
    }
}
