//! Matrix products of operands that are already packed into panels.
//!
//! A product's left matrix lies in panels of `ROWS` rows, its right matrix in panels of two vectors of columns; within a panel the
//! inner index comes first, so that the innermost loop reads both one after the other. Whoever makes an operand (a gather of pixels, a
//! Winograd transform) writes it like this at once, and nothing is copied again.
#![expect(unsafe_code, reason = "pointers into packed panels")]

use super::real::Real;
use super::simd::{Kernel, Lanes};

/// Numbers of the left matrix that are used for all columns before the next: a quarter of a megabyte of `f32`.
const BLOCK: usize = 1 << 16;

/// `dst (m, n) = lhs (m, k) · rhs (k, n)`, or added to what is there.
pub(super) struct Product<'a, T> {
    /// Rows, columns, and the inner dimension.
    pub(super) dims: [usize; 3],
    /// Panels of rows, the last one filled up: `⌈m / ROWS⌉ · k · ROWS` numbers.
    pub(super) lhs: &'a [T],
    /// Panels of columns, the last one filled up: `⌈n / (2 N)⌉ · k · 2 N` numbers.
    pub(super) rhs: &'a [T],
    /// First number of the result, and how far apart its rows are; columns are neighbours.
    pub(super) dst: *mut T,
    pub(super) row: usize,
    pub(super) add: bool,
}

impl<T: Real> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let [m, n, k] = self.dims;
        let cols = 2 * L::N;
        assert!(self.lhs.len() >= m.next_multiple_of(ROWS) * k && self.rhs.len() >= n.next_multiple_of(cols) * k);
        // As many rows at a time as stay in the second-level cache beside the columns.
        let block = (BLOCK / k.max(1)).max(ROWS).next_multiple_of(ROWS);
        for first in (0..m).step_by(block) {
            for right in (0..n).step_by(cols) {
                for top in (first..m.min(first + block)).step_by(ROWS) {
                    // SAFETY: the panels were just checked to be there; the result is the caller's promise.
                    unsafe {
                        let sums = tile::<L, ROWS>(k, self.lhs.as_ptr().add(top * k), self.rhs.as_ptr().add(right * k));
                        let dst = self.dst.add(top * self.row + right);
                        let (rows, width) = (ROWS.min(m - top), cols.min(n - right));
                        if rows == ROWS && width == cols {
                            put(&sums, dst, self.row, self.add);
                        } else {
                            put_part(&sums, (rows, width), dst, self.row, self.add);
                        }
                    }
                }
            }
        }
    }
}

/// The product of one panel with another: `ROWS` rows of two vectors.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, const ROWS: usize>(k: usize, lhs: *const L::T, rhs: *const L::T) -> [[L; 2]; ROWS] {
    // SAFETY: the caller has panels of that many numbers.
    unsafe {
        let mut sums = [[L::splat(L::T::ZERO); 2]; ROWS];
        let (mut lhs, mut rhs) = (lhs, rhs);
        for _ in 0..k {
            let right = [L::load(rhs), L::load(rhs.add(L::N))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = L::splat(*lhs.add(row));
                sums[0] = left.mul_add(right[0], sums[0]);
                sums[1] = left.mul_add(right[1], sums[1]);
            }
            lhs = lhs.add(ROWS);
            rhs = rhs.add(2 * L::N);
        }
        sums
    }
}

#[inline(always)]
unsafe fn put<L: Lanes, const ROWS: usize>(sums: &[[L; 2]; ROWS], dst: *mut L::T, row: usize, add: bool) {
    for (at, sums) in sums.iter().enumerate() {
        for (half, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller has a whole tile there.
            unsafe {
                let dst = dst.add(at * row + half * L::N);
                let sum = if add { L::load(dst).add(sum) } else { sum };
                sum.store(dst);
            }
        }
    }
}

/// Only the first rows and columns of a tile.
#[cold]
#[inline(never)]
unsafe fn put_part<L: Lanes, const ROWS: usize>(
    sums: &[[L; 2]; ROWS],
    (rows, width): (usize, usize),
    dst: *mut L::T,
    row: usize,
    add: bool,
) {
    for (at, sums) in sums.iter().enumerate().take(rows) {
        // SAFETY: vectors are plain numbers; the caller has these rows and columns of the tile.
        unsafe {
            let sums = std::slice::from_raw_parts(sums.as_ptr().cast::<L::T>(), 2 * L::N);
            let dst = std::slice::from_raw_parts_mut(dst.add(at * row), width);
            for (dst, &sum) in dst.iter_mut().zip(sums) {
                *dst = if add { *dst + sum } else { sum };
            }
        }
    }
}
