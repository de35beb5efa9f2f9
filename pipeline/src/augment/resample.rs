//! The two passes of a resize: each pixel of the result is a weighted mean of pixels of the source, first of a column, then of a row.
//!
//! The weights are those of Pillow's bilinear filter with antialiasing: they fall in a straight line from where the pixel lies in the source, to nothing
//! one pixel of the result away (of the source, where it is enlarged). They are rounded to 16 bits, and so many of them behind the point as the
//! largest leaves; the means between the passes to 8. All of a resize's memory is used again by the next.

use std::ops::Range;

/// One side of a resize: `from` pixels become `to`, of which those in `kept` are wanted.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kept: Range<usize>,
}

impl Side {
    /// All of the result.
    pub(super) fn whole(from: usize, to: usize) -> Self {
        Self { from, to, kept: 0..to }
    }

    /// The source's pixels that those which are wanted are made of.
    pub(super) fn needs(&self) -> Range<usize> {
        self.under(self.kept.start).0.start..self.under(self.kept.end - 1).0.end
    }

    /// The source's pixels that have a weight in a pixel, and where in the source it lies.
    fn under(&self, pixel: usize) -> (Range<usize>, f64) {
        let place = (pixel as f64 + 0.5) * self.scale();
        let (start, end) = ((place - self.radius()).floor().max(0.0), (place + self.radius()).ceil().min(self.from as f64));
        (start as usize..end as usize, place)
    }

    /// Pixels of the source that one of the result covers.
    fn scale(&self) -> f64 {
        self.from as f64 / self.to as f64
    }

    fn radius(&self) -> f64 {
        self.scale().max(1.0)
    }
}

/// Memory of resizes.
#[derive(Debug, Default)]
pub(crate) struct Resampler {
    rows: Weights,
    columns: Weights,
    /// What the first pass leaves to the second: rows of the result, columns of the source.
    between: Vec<u8>,
}

/// The pixels that a resize has at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) pixels: &'a [u8],
    /// Pixels in a row.
    pub(super) width: usize,
    /// 1 or 3.
    pub(super) channels: usize,
    /// The row and column at which those that are needed begin.
    pub(super) place: [usize; 2],
}

impl Resampler {
    /// Writes to `into` the pixels that `rows` and `columns` keep, channels last.
    pub(super) fn resample(&mut self, source: Source<'_>, rows: &Side, columns: &Side, into: &mut Vec<u8>) {
        self.rows.set(rows, 2);
        self.columns.set(columns, 4);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            #[expect(unsafe_code, reason = "the compiler cannot know on which processor this will run")]
            // SAFETY: this processor has what the function was compiled for.
            return unsafe { self.wide(source, rows, columns, into) };
        }
        self.passes(source, [rows, columns], into, blend, across);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn wide(&mut self, source: Source<'_>, rows: &Side, columns: &Side, into: &mut Vec<u8>) {
        let blend = |rows: Rows<'_>, by: By<'_>, into: &mut [u8]| wide::blend(rows, by, into);
        match source.channels {
            1 => self.passes(source, [rows, columns], into, blend, |four, weights, into| wide::across_grey(four, weights, into)),
            _ => self.passes(source, [rows, columns], into, blend, |four, weights, into| wide::across_colours(four, weights, into)),
        }
    }

    #[inline(always)]
    fn passes(
        &mut self,
        Source { pixels, width, channels, place: [top, left] }: Source<'_>,
        [rows, columns]: [&Side; 2],
        into: &mut Vec<u8>,
        blend: impl Fn(Rows<'_>, By<'_>, &mut [u8]),
        across: impl Fn(&[u8], &Weights, &mut [u8]),
    ) {
        // Rows are taken four at a time, and up to 16 bytes from where a pixel of a row begins, be its weight zero.
        const BEYOND: usize = 16;
        let (height, needed) = (rows.kept.len().next_multiple_of(4), columns.needs().len() * channels);
        let stride = needed + BEYOND;
        self.between.resize(height * stride, 0);
        let source = Rows { pixels: &pixels[(top * width + left) * channels..], stride: width * channels, last: rows.needs().len() - 1 };
        for (by, into) in self.rows.iter().zip(self.between.chunks_exact_mut(stride)) {
            blend(source, by, &mut into[..needed]);
        }
        let to = columns.kept.len() * channels;
        into.resize(height * to, 0);
        for (four, into) in self.between.chunks_exact(4 * stride).zip(into.chunks_exact_mut(4 * to)) {
            across(four, &self.columns, into);
        }
        into.truncate(rows.kept.len() * to);
    }
}

/// For each pixel that is wanted of a side, the weights of the source's.
#[derive(Debug, Default)]
struct Weights {
    /// The first of the source's pixels, counted from the first that any needs, and where in `values` the weights from there on end.
    spans: Vec<(usize, usize)>,
    values: Vec<i16>,
    /// Bits of a weight behind the point.
    precision: i32,
    exact: Vec<f64>,
}

/// Weights of a few pixels that follow one another.
#[derive(Clone, Copy)]
struct By<'a> {
    start: usize,
    weights: &'a [i16],
    precision: i32,
}

impl Weights {
    /// The weights of `side`; each pixel gets a multiple of `together` of them, the last of which may be zero.
    fn set(&mut self, side: &Side, together: usize) {
        let (first, steepness) = (side.needs().start, 1.0 / side.radius());
        self.spans.clear();
        self.exact.clear();
        let mut largest = 0.0_f64;
        // Those that are not wanted, too: what is kept of a result must not depend on how much that is.
        for pixel in 0..side.to {
            let (under, place) = side.under(pixel);
            let weight = |x: &usize| (1.0 - ((*x as f64 - (place - 0.5)) * steepness).abs()).max(0.0);
            let start = under.clone().find(|x| weight(x) > 0.0).unwrap_or(under.start);
            let at = self.exact.len();
            self.exact.extend((start..under.end).map(|x| weight(&x)).take_while(|weight| *weight > 0.0));
            let sum: f64 = self.exact[at..].iter().sum();
            for weight in &mut self.exact[at..] {
                *weight /= sum;
                largest = largest.max(*weight);
            }
            if side.kept.contains(&pixel) {
                self.exact.resize(at + (self.exact.len() - at).next_multiple_of(together), 0.0);
                self.spans.push((start - first, self.exact.len()));
            } else {
                self.exact.truncate(at);
            }
        }
        let fits = |bits: i32| (largest * f64::from(1 << bits)).round() < f64::from(1 << 15);
        self.precision = (1..22).find(|bits| !fits(*bits)).unwrap_or(22) - 1;
        let one = f64::from(1 << self.precision);
        self.values.clear();
        self.values.extend(self.exact.iter().map(|weight| (weight * one).round() as i16));
    }

    /// Those of each pixel, one after the other.
    fn iter(&self) -> impl Iterator<Item = By<'_>> {
        let mut from = 0;
        self.spans.iter().map(move |&(start, to)| {
            let weights = &self.values[from..to];
            from = to;
            By { start, weights, precision: self.precision }
        })
    }
}

/// Rows of a source; the number of the last is known, since weights of zero may lie beyond it.
#[derive(Clone, Copy)]
struct Rows<'a> {
    pixels: &'a [u8],
    stride: usize,
    last: usize,
}

impl<'a> Rows<'a> {
    fn row(&self, row: usize) -> &'a [u8] {
        &self.pixels[row.min(self.last) * self.stride..]
    }
}

/// The weighted mean of rows.
fn blend(rows: Rows<'_>, By { start, weights, precision }: By<'_>, into: &mut [u8]) {
    const BLOCK: usize = 32;
    for (block, into) in into.chunks_mut(BLOCK).enumerate() {
        let mut sums = [1 << (precision - 1); BLOCK];
        for (row, &weight) in (start..).zip(weights) {
            let row = &rows.row(row)[block * BLOCK..][..into.len()];
            sums.iter_mut().zip(row).for_each(|(sum, &pixel)| *sum += i32::from(pixel) * i32::from(weight));
        }
        into.iter_mut().zip(sums).for_each(|(pixel, sum)| *pixel = (sum >> precision).clamp(0, 255) as u8);
    }
}

/// The weighted means of pixels of four rows.
fn across(four: &[u8], weights: &Weights, into: &mut [u8]) {
    let pixels = weights.spans.len();
    let (stride, to) = (four.len() / 4, into.len() / 4);
    for (row, into) in four.chunks_exact(stride).zip(into.chunks_exact_mut(to)) {
        match to / pixels {
            1 => across_row::<1>(row, weights, into),
            _ => across_row::<3>(row, weights, into),
        }
    }
}

fn across_row<const C: usize>(row: &[u8], weights: &Weights, into: &mut [u8]) {
    for (into, By { start, weights, precision }) in into.as_chunks_mut::<C>().0.iter_mut().zip(weights.iter()) {
        let mut sums = [1 << (precision - 1); C];
        for (pixel, &weight) in row.as_chunks::<C>().0[start..].iter().zip(weights) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &pixel)| *sum += i32::from(pixel) * i32::from(weight));
        }
        *into = sums.map(|sum| (sum >> precision).clamp(0, 255) as u8);
    }
}

/// The same for registers of 32 bytes: two weights at once, each times a pixel of 16 bits, and their sum.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_cvtsi32_si128, _mm_set_epi32, _mm256_add_epi32, _mm256_cvtepu8_epi16, _mm256_madd_epi16, _mm256_packs_epi32,
        _mm256_packus_epi16, _mm256_set_epi64x, _mm256_set_m128i, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256,
        _mm256_shuffle_epi8, _mm256_sra_epi32, _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
    };

    use super::{By, Rows, Weights};

    /// As the function of this name outside.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn blend(rows: Rows<'_>, by: By<'_>, into: &mut [u8]) {
        const BLOCK: usize = 32;
        let len = into.len();
        if len < BLOCK {
            return super::blend(rows, by, into);
        }
        let (zero, half, precision) = (_mm256_setzero_si256(), _mm256_set1_epi32(1 << (by.precision - 1)), _mm_cvtsi32_si128(by.precision));
        let mut at = 0;
        loop {
            let mut sums = [half; 4];
            for (row, &weights) in (by.start..).step_by(2).zip(by.weights.as_chunks::<2>().0) {
                let weights = both(weights);
                let [one, other] = [row, row + 1].map(|row| bytemuck::pod_read_unaligned::<__m256i>(&rows.row(row)[at..at + BLOCK]));
                // A pixel of each, turn by turn.
                let (low, high) = (_mm256_unpacklo_epi8(one, other), _mm256_unpackhi_epi8(one, other));
                let pixels = [
                    _mm256_unpacklo_epi8(low, zero),
                    _mm256_unpackhi_epi8(low, zero),
                    _mm256_unpacklo_epi8(high, zero),
                    _mm256_unpackhi_epi8(high, zero),
                ];
                for (sum, pixels) in sums.iter_mut().zip(pixels) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pixels, weights));
                }
            }
            for sum in &mut sums {
                *sum = _mm256_sra_epi32(*sum, precision);
            }
            let [low, high] = [_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3])];
            into[at..at + BLOCK].copy_from_slice(bytemuck::bytes_of(&_mm256_packus_epi16(low, high)));
            if at + BLOCK == len {
                return;
            }
            // The last block may overlap the one before it.
            at = (at + BLOCK).min(len - BLOCK);
        }
    }

    /// As `across` outside, of grey pixels.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn across_grey(four: &[u8], weights: &Weights, into: &mut [u8]) {
        let (stride, to) = (four.len() / 4, into.len() / 4);
        let rows: [&[u8]; 4] = std::array::from_fn(|row| &four[row * stride..][..stride]);
        for (at, by) in weights.iter().enumerate() {
            // Two sums for each row, of every other pixel.
            let mut sums = _mm256_set1_epi64x(1 << (by.precision - 1));
            for (fours, weights) in by.weights.as_chunks::<4>().0.iter().enumerate() {
                let place = by.start + 4 * fours;
                let [r0, r1, r2, r3] = rows.map(|row| bytemuck::pod_read_unaligned::<i32>(&row[place..place + 4]));
                let pixels = _mm256_cvtepu8_epi16(_mm_set_epi32(r3, r2, r1, r0));
                let weights = _mm256_set1_epi64x(bytemuck::cast(*weights));
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pixels, weights));
            }
            let sums: [[i32; 2]; 4] = bytemuck::cast(sums);
            for (row, [one, other]) in sums.into_iter().enumerate() {
                into[row * to + at] = ((one + other) >> by.precision).clamp(0, 255) as u8;
            }
        }
    }

    /// As `across` outside, of colours.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn across_colours(four: &[u8], weights: &Weights, into: &mut [u8]) {
        let (stride, to) = (four.len() / 4, into.len() / 4);
        let rows: [&[u8]; 4] = std::array::from_fn(|row| &four[row * stride..][..stride]);
        let (half, precision) = (_mm256_set1_epi32(1 << (weights.precision - 1)), _mm_cvtsi32_si128(weights.precision));
        // Of 16 bytes, the pixels 0 and 1 and then 2 and 3: red of both, green of both, blue of both, nothing; 16 bits each.
        let pair = |a: i64, b: i64| _mm256_set_epi64x(b, a, b, a);
        let first = pair(0xff04_ff01_ff03_ff00_u64.cast_signed(), 0xffff_ffff_ff05_ff02_u64.cast_signed());
        let second = pair(0xff0a_ff07_ff09_ff06_u64.cast_signed(), 0xffff_ffff_ff0b_ff08_u64.cast_signed());
        for (at, by) in weights.iter().enumerate() {
            let mut sums = [half; 2];
            let mut place = 3 * by.start;
            for &[w0, w1, w2, w3] in by.weights.as_chunks::<4>().0 {
                let weights = [both([w0, w1]), both([w2, w3])];
                let pixels = rows.map(|row| bytemuck::pod_read_unaligned::<__m128i>(&row[place..place + 16]));
                for (sum, pixels) in sums.iter_mut().zip(pixels.as_chunks::<2>().0) {
                    let pixels = _mm256_set_m128i(pixels[1], pixels[0]);
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, first), weights[0]));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, second), weights[1]));
                }
                place += 12;
            }
            let [one, other] = sums.map(|sum| _mm256_sra_epi32(sum, precision));
            // Each half of a register has a pixel of the first two rows, and then of the others.
            let words = _mm256_packs_epi32(one, other);
            let bytes: [[u8; 4]; 8] = bytemuck::cast(_mm256_packus_epi16(words, words));
            for (row, pixel) in [bytes[0], bytes[4], bytes[1], bytes[5]].iter().enumerate() {
                into[row * to + 3 * at..][..3].copy_from_slice(&pixel[..3]);
            }
        }
    }

    /// Two weights, again and again.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn both([one, other]: [i16; 2]) -> __m256i {
        _mm256_set1_epi32(i32::from(other) << 16 | i32::from(one.cast_unsigned()))
    }
}
