//! The transforms of F(4×4, 3×3), and their transposes: small constant matrices, written out.
//!
//! Points 0, ±a, ±b and ∞ with a² b² = 1. `M(x) = x (x² − a²) (x² − b²)`; a row of `Bᵀ` has the coefficients of `M(x) / (x − p)`, a
//! row of `G` the powers of `p` over the product of its distances to the other points, a column of `Aᵀ` the powers of `p`.

use candle::WithDType;

use super::super::simd::Lanes;
use super::{IN, OUT};

/// `a` and `b` of the points 0, ±a, ±b, ∞.
const A: f64 = std::f64::consts::FRAC_1_SQRT_2;
const B: f64 = std::f64::consts::SQRT_2;

/// Constants as vectors.
macro_rules! constants {
    ($lanes:ident: $($name:ident = $value:expr),*) => {
        $(let $name = $lanes::splat($lanes::T::from_f64($value));)*
    };
}

/// What a weight at ±a and at ±b is divided by: the product of the distances to the other points.
const AT_A: f64 = 1.0 / (2.0 * A * A * (A * A - B * B));
const AT_B: f64 = 1.0 / (2.0 * B * B * (B * B - A * A));

// Each wants a processor that has the instructions of its vectors, and nothing else.
//
// No closures in here: one would be compiled without the vectors' instructions, and call each of them as a function.

/// `Bᵀ d`: six inputs at the six points. As a² b² = 1, 0 and ∞ need no factor for it.
#[inline(always)]
pub(super) unsafe fn see<L: Lanes>(d: [L; IN]) -> [L; IN] {
    // SAFETY: only arithmetic; the processor has the instructions, by the caller's promise.
    unsafe {
        constants!(L: a = A, b = B, a2 = -A * A, b2 = -B * B, sum = -(A * A + B * B));
        let zero = sum.mul_add(d[2], d[0].add(d[4]));
        let infinity = sum.mul_add(d[3], d[1].add(d[5]));
        let (even_a, odd_a) = (b2.mul_add(d[2], d[4]), b2.mul_add(d[1], d[3]).mul(a));
        let (even_b, odd_b) = (a2.mul_add(d[2], d[4]), a2.mul_add(d[1], d[3]).mul(b));
        [zero, even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), infinity]
    }
}

/// `G g`: three taps at the six points.
#[inline(always)]
pub(super) unsafe fn weigh<L: Lanes>(g: [L; 3]) -> [L; IN] {
    // SAFETY: only arithmetic; the processor has the instructions, by the caller's promise.
    unsafe {
        constants!(L: a0 = AT_A, a1 = AT_A * A, a2 = AT_A * A * A, b0 = AT_B, b1 = AT_B * B, b2 = AT_B * B * B);
        let (even_a, odd_a) = (g[2].mul_add(a2, g[0].mul(a0)), g[1].mul(a1));
        let (even_b, odd_b) = (g[2].mul_add(b2, g[0].mul(b0)), g[1].mul(b1));
        [g[0], even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), g[2]]
    }
}

/// `Aᵀ m`: from the six points to four outputs.
#[inline(always)]
pub(super) unsafe fn give<L: Lanes>(m: [L; IN]) -> [L; OUT] {
    // SAFETY: only arithmetic; the processor has the instructions, by the caller's promise.
    unsafe {
        constants!(L: a = A, b = B, a2 = A * A, b2 = B * B, a3 = A * A * A, b3 = B * B * B);
        let (even_a, odd_a, even_b, odd_b) = (m[1].add(m[2]), m[1].sub(m[2]), m[3].add(m[4]), m[3].sub(m[4]));
        let second = a2.mul_add(even_a, b2.mul(even_b));
        [m[0].add(even_a).add(even_b), a.mul_add(odd_a, b.mul(odd_b)), second, a3.mul_add(odd_a, b3.mul_add(odd_b, m[5]))]
    }
}

/// `A y`: four outputs' gradients at the six points; the transpose of [`give`].
#[inline(always)]
pub(super) unsafe fn give_back<L: Lanes>(y: [L; OUT]) -> [L; IN] {
    // SAFETY: only arithmetic; the processor has the instructions, by the caller's promise.
    unsafe {
        constants!(L: a = A, b = B, a2 = A * A, b2 = B * B, a3 = A * A * A, b3 = B * B * B);
        let (even_a, odd_a) = (a2.mul_add(y[2], y[0]), a3.mul_add(y[3], a.mul(y[1])));
        let (even_b, odd_b) = (b2.mul_add(y[2], y[0]), b3.mul_add(y[3], b.mul(y[1])));
        [y[0], even_a.add(odd_a), even_a.sub(odd_a), even_b.add(odd_b), even_b.sub(odd_b), y[3]]
    }
}

/// `Gᵀ u`: from the six points to three taps' gradients; the transpose of [`weigh`].
#[inline(always)]
pub(super) unsafe fn weigh_back<L: Lanes>(u: [L; IN]) -> [L; 3] {
    // SAFETY: only arithmetic; the processor has the instructions, by the caller's promise.
    unsafe {
        constants!(L: a0 = AT_A, a1 = AT_A * A, a2 = AT_A * A * A, b0 = AT_B, b1 = AT_B * B, b2 = AT_B * B * B);
        let (even_a, odd_a, even_b, odd_b) = (u[1].add(u[2]), u[1].sub(u[2]), u[3].add(u[4]), u[3].sub(u[4]));
        let first = a0.mul_add(even_a, b0.mul_add(even_b, u[0]));
        [first, a1.mul_add(odd_a, b1.mul(odd_b)), a2.mul_add(even_a, b2.mul_add(even_b, u[5]))]
    }
}

/// Applies a transform to the columns and then to the rows of a square.
macro_rules! both_ways {
    ($f:ident, $square:expr, $from:expr, $to:expr) => {{
        let square = $square;
        let some = square[0][0];
        let mut half = [[some; $from]; $to];
        for col in 0..$from {
            let mut column = [some; $from];
            for row in 0..$from {
                column[row] = square[row][col];
            }
            let column = $f(column);
            for row in 0..$to {
                half[row][col] = column[row];
            }
        }
        let mut both = [[some; $to]; $to];
        for row in 0..$to {
            both[row] = $f(half[row]);
        }
        both
    }};
}

/// Reads a square of vectors: row `i`, column `j` from `at(i · side + j)`.
macro_rules! square {
    ($lanes:ident, $side:expr, $at:expr) => {{
        let mut square = [[$lanes::splat($lanes::T::ZERO); $side]; $side];
        for row in 0..$side {
            for col in 0..$side {
                let nth: usize = row * $side + col;
                square[row][col] = $lanes::load($at(nth));
            }
        }
        square
    }};
}

pub(super) use {both_ways, square};
