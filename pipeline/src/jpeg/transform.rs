//! Coefficients to samples: the inverse cosine transform in integers, to the bit as in libjpeg's `islow`, which Pillow and torchvision use.

/// What each coefficient of a row adds to its eight samples, in 1/2^`BITS`: the transform of Loeffler, Ligtenberg & Moschytz (1989) of each
/// unit vector. They take fewer steps to the same integers, which is worth less than that a table can be read by wide registers.
const BASIS: [[i32; 8]; 8] = [
    [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
    [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
    [9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633],
    [8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437],
    [4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433],
    [2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260],
];
const BITS: u32 = 13;

/// Bits behind the point that the columns keep for the rows.
const KEPT: u32 = 2;

/// The 8×8 samples of a block, times `quantiser`, into `plane` from `at` on, where rows are `stride` apart.
#[inline(always)]
pub(super) fn inverse(block: &[i16; 64], quantiser: &[i32; 64], plane: &mut [u8], at: usize, stride: usize) {
    let mut work = [0; 64];
    for (work, (&value, &by)) in work.iter_mut().zip(block.iter().zip(quantiser)) {
        *work = i32::from(value).wrapping_mul(by);
    }
    let work = rows(&columns(&work));
    let mut samples = [0; 64];
    for (sample, &value) in samples.iter_mut().zip(&work) {
        *sample = value.clamp(0, 255) as u8;
    }
    for (y, row) in samples.chunks_exact(8).enumerate() {
        plane[at + y * stride..][..8].copy_from_slice(row);
    }
}

/// A block whose only coefficient is its mean: what [`inverse`] makes of it.
#[inline(always)]
pub(super) fn flat(mean: i32, plane: &mut [u8], at: usize, stride: usize) {
    let value = ((mean.wrapping_add(4) >> 3).wrapping_add(128)).clamp(0, 255) as u8;
    for y in 0..8 {
        plane[at + y * stride..][..8].fill(value);
    }
}

/// The transform of each column. A sample and its mirror image differ in the sign of the odd coefficients.
#[inline(always)]
fn columns(work: &[i32; 64]) -> [i32; 64] {
    const SHIFT: u32 = BITS - KEPT;
    let mut done = [0; 64];
    for y in 0..4 {
        for x in 0..8 {
            let part = |k: usize| work[8 * k + x].wrapping_mul(BASIS[k][y]);
            let even = part(0).wrapping_add(part(2)).wrapping_add(part(4).wrapping_add(part(6))).wrapping_add(1 << (SHIFT - 1));
            let odd = part(1).wrapping_add(part(3)).wrapping_add(part(5).wrapping_add(part(7)));
            done[8 * y + x] = even.wrapping_add(odd) >> SHIFT;
            done[8 * (7 - y) + x] = even.wrapping_sub(odd) >> SHIFT;
        }
    }
    done
}

/// The transform of each row, to samples around 128.
#[inline(always)]
fn rows(work: &[i32; 64]) -> [i32; 64] {
    const SHIFT: u32 = BITS + KEPT + 3;
    let mut done = [0; 64];
    for (done, row) in done.chunks_exact_mut(8).zip(work.chunks_exact(8)) {
        let mut sums = [(128_i32 << SHIFT) + (1 << (SHIFT - 1)); 8];
        for (&value, basis) in row.iter().zip(&BASIS) {
            for (sum, &basis) in sums.iter_mut().zip(basis) {
                *sum = sum.wrapping_add(value.wrapping_mul(basis));
            }
        }
        for (done, sum) in done.iter_mut().zip(sums) {
            *done = sum >> SHIFT;
        }
    }
    done
}
