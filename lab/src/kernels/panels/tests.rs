//! Products of packed operands against the sum that they are.

use super::super::simd::{dispatch, shape};
use super::*;

/// Small enough for Miri there.
const LARGEST: usize = if cfg!(miri) { 9 } else { 40 };

/// Whole numbers from -3 to 3, of which every sum here is exact.
fn matrix(rows: usize, cols: usize, salt: usize) -> Vec<Vec<f32>> {
    (0..rows).map(|row| (0..cols).map(|col| ((row * 31 + col * 17 + salt) % 7) as f32 - 3.0).collect()).collect()
}

/// `rows` in panels of `width`, the inner index first; what fills the last panel up is NaN, which must not show.
fn panels(rows: &[Vec<f32>], width: usize, depth: usize) -> Vec<f32> {
    let mut packed = vec![f32::NAN; rows.len().next_multiple_of(width) * depth];
    for (nth, row) in rows.iter().enumerate() {
        for (inner, &x) in row.iter().enumerate() {
            packed[(nth / width * depth + inner) * width + nth % width] = x;
        }
    }
    packed
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[test]
fn a_product_writes_its_matrix_and_nothing_else() {
    let simd = shape::<f32>();
    for (m, n, depth) in [(1, 1, 1), (4, 8, 3), (5, 9, 2), (8, LARGEST, 5), (LARGEST, 7, 0), (0, 3, 2), (3, 0, 2), (LARGEST, LARGEST, 4)] {
        let (one, other) = (matrix(m, depth, 1), matrix(n, depth, 2));
        let (lhs, rhs) = (panels(&one, simd.rows, depth), panels(&other, 2 * simd.lanes, depth));
        // Three elements lie between the rows, and some behind the last.
        let row = n + 3;
        let mut written = vec![0.5; m * row + 5];
        for (add, times) in [(false, 1.0), (true, 2.0)] {
            let dst = Target::of(&mut written, [m, n], row);
            dispatch::<f32, _>(Product { depth, lhs: &lhs, rhs: &rhs, dst, add });
            for (at, &found) in written.iter().enumerate() {
                let inside = at / row < m && at % row < n;
                let wanted = if inside { times * dot(&one[at / row], &other[at % row]) } else { 0.5 };
                assert_eq!(found, wanted, "({m}, {n}) of depth {depth}: element {at}");
            }
        }
    }
}

#[test]
fn rows_meet_rows_where_they_lie() {
    let length = 2 * shape::<f32>().lanes;
    for (m, n) in [(1, 1), (3, 5), (LARGEST / 2, 7)] {
        // Rows of two pieces, and one element between rows.
        let (one, other) = (matrix(m, 2 * length + 1, 3), matrix(n, 2 * length + 1, 4));
        let (a, b) = (one.concat(), other.concat());
        let rows = |numbers, count| Rows { numbers, count, row: 2 * length + 1 };
        let mut dst = vec![f32::NAN; m * n];
        let pieces = [[0, 0], [length, length]];
        dispatch::<f32, _>(Dots { one: rows(&a, m), other: rows(&b, n), pieces: &pieces, length, dst: &mut dst, add: false });
        for (at, &found) in dst.iter().enumerate() {
            assert_eq!(found, dot(&one[at / n][..2 * length], &other[at % n][..2 * length]), "({m}, {n}): element {at}");
        }
    }
}

#[test]
fn nothing_reaches_beyond() {
    assert!(within(10, 1, 3, 3, 3) && within(0, 5, 0, 7, 9) && within(4, 4, 1, 99, 0));
    assert!(!within(10, 1, 3, 3, 4) && !within(10, 8, 1, 0, 3));
    // Products and sums that would come out small by wrapping around.
    assert!(!within(10, 0, usize::MAX, 2, 2) && !within(10, usize::MAX, 2, 1, 1) && !within(10, 0, 3, usize::MAX / 2 + 1, 1));
}

#[test]
fn what_is_too_small_is_refused() {
    let refused = |f: &(dyn Fn() + std::panic::RefUnwindSafe)| std::panic::catch_unwind(f).is_err();
    assert!(refused(&|| _ = Target::of(&mut [0.0f32; 11], [3, 4], 4)), "a target that ends outside");
    assert!(refused(&|| _ = Target::of(&mut [0.0f32; 20], [3, 4], 3)), "rows that overlap");
    let product = |depth: usize| {
        let dst = &mut [0.0f32; 4];
        dispatch::<f32, _>(Product { depth, lhs: &[0.0; 64], rhs: &[0.0; 64], dst: Target::of(dst, [2, 2], 2), add: false });
    };
    assert!(!refused(&|| product(2)) && refused(&|| product(65)) && refused(&|| product(usize::MAX / 8 + 1)));
}
