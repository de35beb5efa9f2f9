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
        assert!(within(elements.len(), 0, rows, row, cols), "{rows} rows, {row} apart, in {} elements", elements.len());
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

/// Whether `rows` pieces of `length` elements, the first at `first` and each `row` behind the one before, lie within `len` elements. No sum here
/// can wrap around: what is read and written without a check relies on it.
fn within(len: usize, first: usize, rows: usize, row: usize, length: usize) -> bool {
    let Some(before) = rows.checked_sub(1) else { return true };
    before.checked_mul(row).and_then(|at| at.checked_add(first)?.checked_add(length)).is_some_and(|end| end <= len)
}

impl<T: Real> Kernel<T> for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) {
        let (m, n, k) = (self.dst.rows, self.dst.cols, self.depth);
        let cols = 2 * L::N;
        // Of a depth that no slice has, panels are too long rather than too short.
        let (left, right) = (k.saturating_mul(ROWS), k.saturating_mul(cols));
        assert!(within(self.lhs.len(), 0, m.div_ceil(ROWS), left, left), "{} elements for {m} rows of {k}", self.lhs.len());
        assert!(within(self.rhs.len(), 0, n.div_ceil(cols), right, right), "{} elements for {n} columns of {k}", self.rhs.len());
        // A panel of rows meets all columns before the next: the result is then written in few long lines, which memory is quicker at.
        for top in (0..m).step_by(ROWS) {
            for right in (0..n).step_by(cols) {
                // SAFETY: the processor has the instructions, by the caller's promise. Whole panels of both operands were just checked to be
                // there, and that of rows `top / ROWS` begins at `top · k`, that of columns likewise. The target has `m` rows of `n` elements,
                // which are its own: of a tile that reaches beyond them, `put_part` writes what is inside.
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
///
/// # Safety
/// The processor has the instructions of `L`; `lhs` points to `k · ROWS` elements and `rhs` to `k · 2 N`.
#[inline(always)]
pub(super) unsafe fn tile<L: Lanes, const ROWS: usize>(k: usize, lhs: *const L::T, rhs: *const L::T) -> [[L; 2]; ROWS] {
    // SAFETY: by the caller's promise. Step `i` reads `ROWS` elements from `i · ROWS` on, and two vectors from `i · 2 N` on; behind the last
    // step both pointers are at the ends of the panels, and are not read.
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

/// Writes a whole tile.
///
/// # Safety
/// The processor has the instructions of `L`; from `dst` on, every `row` elements, lie `ROWS` rows of `2 N` elements that are the caller's alone.
#[inline(always)]
unsafe fn put<L: Lanes, const ROWS: usize>(sums: &[[L; 2]; ROWS], dst: *mut L::T, row: usize, add: bool) {
    for (at, sums) in sums.iter().enumerate() {
        for (half, &sum) in sums.iter().enumerate() {
            // SAFETY: by the caller's promise; `half` is 0 or 1, so that the vector ends within the row.
            unsafe {
                let dst = dst.add(at * row + half * L::N);
                let sum = if add { L::load(dst).add(sum) } else { sum };
                sum.store(dst);
            }
        }
    }
}

/// Writes only the first rows and columns of a tile.
///
/// # Safety
/// From `dst` on, every `row` elements, lie `rows` rows of `width` elements that are the caller's alone; `width` is at most `2 N`.
#[cold]
#[inline(never)]
unsafe fn put_part<L: Lanes, const ROWS: usize>(
    sums: &[[L; 2]; ROWS],
    (rows, width): (usize, usize),
    dst: *mut L::T,
    row: usize,
    add: bool,
) {
    // A vector is its elements one after another, and nothing else.
    const { assert!(size_of::<[L; 2]>() == 2 * L::N * size_of::<L::T>() && align_of::<L>() >= align_of::<L::T>()) };
    for (at, sums) in sums.iter().enumerate().take(rows) {
        // SAFETY: two vectors are `2 N` elements, as was just checked, all of them set; the row is the caller's, by its promise.
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
    /// Whether every row has `length` elements from its element `at` on.
    fn has(&self, at: usize, length: usize) -> bool {
        within(self.numbers.len(), at, self.count, self.row, length)
    }

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
        // SAFETY: the processor has the instructions, by the caller's promise.
        unsafe { if ROWS == 8 { self.tiles::<L, 4, 6>() } else { self.tiles::<L, 3, 4>() } }
    }
}

impl<T: Real> Dots<'_, T> {
    /// # Safety
    /// The processor has the instructions of `L`.
    #[inline(always)]
    unsafe fn tiles<L: Lanes<T = T>, const M: usize, const N: usize>(self) {
        let Self { one, other, pieces, length, dst, add } = self;
        assert!(length.is_multiple_of(L::N) && dst.len() >= one.count * other.count);
        for &[a, b] in pieces {
            assert!(one.has(a, length) && other.has(b, length), "a piece of {length} elements at {a} and {b} is not in every row");
        }
        for top in (0..one.count).step_by(M) {
            let lhs = one.starts::<M>(top);
            for left in (0..other.count).step_by(N) {
                let rhs = other.starts::<N>(left);
                // SAFETY: the processor has the instructions, by the caller's promise. `starts` gives rows that are there, and every piece of each
                // was just checked to be; a piece is whole vectors, so that the last one ends where it does.
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

#[cfg(test)]
mod tests;
