//! Matrix products of operands that lie as the innermost loop reads them.
//!
//! A product's left matrix lies in panels of `ROWS` rows, its right matrix in panels of two vectors of columns; within a panel the
//! inner index comes first, so that the innermost loop reads both one after the other. Whoever makes an operand (a gather of pixels, a
//! Winograd transform) writes it like this at once, and nothing is copied again.
#![expect(unsafe_code, reason = "pointers into packed panels")]

use std::marker::PhantomData;

use super::real::Real;
use super::simd::{Kernel, Lanes};

/// `dst (m, n) = lhs (m, k) · rhs (k, n)`, or added to what is there.
pub(super) struct Product<'a, T> {
    /// The inner dimension, `k`.
    pub(super) depth: usize,
    /// Panels of rows, the last one filled up: `⌈m / ROWS⌉ · k · ROWS` elements.
    pub(super) lhs: &'a [T],
    /// Panels of columns, the last one filled up: `⌈n / (2 N)⌉ · k · 2 N` elements.
    pub(super) rhs: &'a [T],
    pub(super) dst: Target<'a, T>,
    pub(super) add: bool,
}

/// A matrix to be written: rows that lie a fixed number of elements apart. Nobody else reads or writes its elements while it is there.
pub(super) struct Target<'a, T> {
    first: *mut T,
    rows: usize,
    cols: usize,
    row: usize,
    elements: PhantomData<&'a mut [T]>,
}

impl<'a, T> Target<'a, T> {
    /// The `[rows, cols]` matrix at the beginning of a slice, its rows `row` elements apart.
    ///
    /// # Panics
    /// When it does not lie within the slice, or its rows overlap.
    pub(super) fn of(elements: &'a mut [T], [rows, cols]: [usize; 2], row: usize) -> Self {
        assert!(rows < 2 || row >= cols, "rows of {cols} elements overlap, {row} apart");
        assert!(rows == 0 || (rows - 1) * row + cols <= elements.len(), "{rows} rows, {row} apart, in {} elements", elements.len());
        Self { first: elements.as_mut_ptr(), rows, cols, row, elements: PhantomData }
    }

    /// As [`Self::of`], of elements among which other tasks have theirs.
    ///
    /// # Safety
    /// From `first` on, every `row` elements, lie `rows` rows of `cols` elements that for `'a` nobody else reads or writes.
    pub(super) unsafe fn among(first: *mut T, [rows, cols]: [usize; 2], row: usize) -> Self {
        debug_assert!(rows < 2 || row >= cols, "rows of {cols} elements overlap, {row} apart");
        Self { first, rows, cols, row, elements: PhantomData }
    }
}

impl<T: Real> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let (m, n, k) = (self.dst.rows, self.dst.cols, self.depth);
        let cols = 2 * L::N;
        assert!(self.lhs.len() >= m.next_multiple_of(ROWS) * k && self.rhs.len() >= n.next_multiple_of(cols) * k);
        // A panel of rows meets all columns before the next: the result is then written in few long lines, which memory is quicker at.
        for top in (0..m).step_by(ROWS) {
            for right in (0..n).step_by(cols) {
                // SAFETY: the panels were just checked to be there, and the target has `m` rows of `n` elements.
                unsafe {
                    let sums = tile::<L, ROWS>(k, self.lhs.as_ptr().add(top * k), self.rhs.as_ptr().add(right * k));
                    let dst = self.dst.first.add(top * self.dst.row + right);
                    let (rows, width) = (ROWS.min(m - top), cols.min(n - right));
                    if rows == ROWS && width == cols {
                        put(&sums, dst, self.dst.row, self.add);
                    } else {
                        put_part(&sums, (rows, width), dst, self.dst.row, self.add);
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

/// Rows of numbers, `row` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    pub(super) numbers: &'a [T],
    pub(super) count: usize,
    pub(super) row: usize,
}

impl<T: Real> Rows<'_, T> {
    /// Where `R` rows from `first` on begin; behind the last, the last once more.
    #[inline(always)]
    fn starts<const R: usize>(&self, first: usize) -> [*const T; R] {
        let mut starts = [self.numbers.as_ptr(); R];
        for (nth, start) in starts.iter_mut().enumerate() {
            *start = self.numbers[(first + nth).min(self.count - 1) * self.row..].as_ptr();
        }
        starts
    }
}

/// `dst (m, n)`, every row of one with every row of the other, is the sum of products along the rows, or that is added to what is there.
///
/// Nothing is packed: vectors run along the rows, and are summed up at the end.
pub(super) struct Dots<'a, T> {
    pub(super) one: Rows<'a, T>,
    pub(super) other: Rows<'a, T>,
    /// The pieces that rows consist of: where they begin in one and in the other.
    pub(super) pieces: &'a [[usize; 2]],
    /// Numbers of a piece: whole vectors.
    pub(super) length: usize,
    pub(super) dst: &'a mut [T],
    pub(super) add: bool,
}

impl<T: Real> Kernel<T> for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        // As many sums as there are registers, but those for a column and one number.
        // SAFETY: this machine has these vectors.
        unsafe { if ROWS == 8 { self.tiles::<L, 4, 6>() } else { self.tiles::<L, 3, 4>() } }
    }
}

impl<T: Real> Dots<'_, T> {
    #[inline(always)]
    unsafe fn tiles<L: Lanes<T = T>, const M: usize, const N: usize>(self) {
        let Self { one, other, pieces, length, dst, add } = self;
        assert!(length.is_multiple_of(L::N) && dst.len() >= one.count * other.count);
        for &[a, b] in pieces {
            assert!(a + (one.count - 1) * one.row + length <= one.numbers.len());
            assert!(b + (other.count - 1) * other.row + length <= other.numbers.len());
        }
        for top in (0..one.count).step_by(M) {
            let lhs = one.starts::<M>(top);
            for left in (0..other.count).step_by(N) {
                let rhs = other.starts::<N>(left);
                // SAFETY: every piece of every row was just checked to be there.
                unsafe {
                    let mut sums = [[L::splat(T::ZERO); N]; M];
                    for &[a, b] in pieces {
                        for at in (0..length).step_by(L::N) {
                            let mut left = [L::splat(T::ZERO); M];
                            for m in 0..M {
                                left[m] = L::load(lhs[m].add(a + at));
                            }
                            for n in 0..N {
                                let right = L::load(rhs[n].add(b + at));
                                for m in 0..M {
                                    sums[m][n] = left[m].mul_add(right, sums[m][n]);
                                }
                            }
                        }
                    }
                    for (row, sums) in sums.iter().enumerate().take(one.count - top) {
                        let dst = &mut dst[(top + row) * other.count + left..];
                        for (dst, &sum) in dst.iter_mut().zip(sums).take(other.count - left) {
                            let sum = sum.sum();
                            *dst = if add { *dst + sum } else { sum };
                        }
                    }
                }
            }
        }
    }
}
