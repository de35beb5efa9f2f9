//! Vectors as wide as the processor has them.
//!
//! A [`Kernel`] is written once, over [`Lanes`], and compiled for each instruction set; [`dispatch`] picks one at run time. What it
//! computes may differ in the last bit between processors, never between runs on one.
#![expect(clippy::needless_range_loop, reason = "rows, columns and lanes by their numbers, as in the formulas")]
#![expect(unsafe_code, reason = "vector instructions, and pointers into packed panels")]

use super::real::Real;

/// A vector of [`N`](Self::N) numbers in a register.
///
/// # Safety
/// Every function wants a processor that has the vector's instructions, and pointers to `N` elements, aligned as one element is. [`columns`](Self::columns)
/// and [`put_columns`](Self::put_columns) want at least `N` starts, and four elements from each start on.
pub(super) trait Lanes: Copy {
    type T: Real;
    const N: usize;
    unsafe fn splat(x: Self::T) -> Self;
    unsafe fn load(at: *const Self::T) -> Self;
    unsafe fn store(self, at: *mut Self::T);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · factor + summand`.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;

    /// The sum of the lanes, half by half.
    #[inline(always)]
    unsafe fn sum(self) -> Self::T {
        let mut lanes = [Self::T::ZERO; 16];
        const { assert!(Self::N <= 16) };
        // SAFETY: there is room for sixteen elements, and no vector has more, as was just checked.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut len = Self::N;
        while len > 1 {
            len /= 2;
            for i in 0..len {
                lanes[i] += lanes[i + len];
            }
        }
        lanes[0]
    }

    /// Four columns of `N` rows: lane `i` of vector `j` is `at[starts[i] + j]`.
    #[inline(always)]
    unsafe fn columns(at: *const Self::T, starts: &[usize]) -> [Self; 4] {
        let mut lanes = [[Self::T::ZERO; 16]; 4];
        debug_assert!(starts.len() >= Self::N, "{} starts for {} lanes", starts.len(), Self::N);
        // SAFETY: the caller has `N` starts and four elements at each; `lanes` has room for sixteen, and no vector has more.
        unsafe {
            for i in 0..Self::N {
                for j in 0..4 {
                    lanes[j][i] = *at.add(*starts.get_unchecked(i) + j);
                }
            }
            [Self::load(lanes[0].as_ptr()), Self::load(lanes[1].as_ptr()), Self::load(lanes[2].as_ptr()), Self::load(lanes[3].as_ptr())]
        }
    }

    /// The other way: `at[starts[i] + j]` is lane `i` of vector `j`.
    #[inline(always)]
    unsafe fn put_columns(columns: [Self; 4], at: *mut Self::T, starts: &[usize]) {
        let mut lanes = [[Self::T::ZERO; 16]; 4];
        debug_assert!(starts.len() >= Self::N, "{} starts for {} lanes", starts.len(), Self::N);
        // SAFETY: the caller has `N` starts and room for four elements at each; `lanes` has room for sixteen, and no vector has more.
        unsafe {
            for j in 0..4 {
                columns[j].store(lanes[j].as_mut_ptr());
            }
            for i in 0..Self::N {
                for j in 0..4 {
                    *at.add(*starts.get_unchecked(i) + j) = lanes[j][i];
                }
            }
        }
    }
}

/// Something to compute with vectors.
pub(super) trait Kernel<T> {
    type Output;
    /// Computes it with vectors `L`, and tiles of `ROWS` rows where it multiplies matrices. Always inlined, so that it is compiled with
    /// the caller's instructions.
    ///
    /// # Safety
    /// The processor has the instructions of `L`.
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> Self::Output;
}

/// A vector without instructions of its own: what the compiler makes of it on any processor.
#[derive(Clone, Copy)]
#[repr(transparent)] // its elements are read as such
pub(super) struct Portable<T>([T; 4]);

impl<T: Real> Lanes for Portable<T> {
    type T = T;
    const N: usize = 4;
    #[inline(always)]
    unsafe fn splat(x: T) -> Self {
        Self([x; 4])
    }
    #[inline(always)]
    unsafe fn load(at: *const T) -> Self {
        // SAFETY: by the caller's promise.
        Self(unsafe { at.cast::<[T; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut T) {
        // SAFETY: by the caller's promise.
        unsafe { at.cast::<[T; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + summand.0[i]))
    }
}

/// The instruction sets that kernels are compiled for.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// In each quarter, four rows of four as four columns.
    #[inline(always)]
    unsafe fn turned512(rows: [__m512; 4]) -> [__m512; 4] {
        // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
        unsafe {
            let [a, b, c, d] = rows;
            let (ab, cd) = (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpacklo_ps(c, d)));
            let (ab2, cd2) = (_mm512_castps_pd(_mm512_unpackhi_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(c, d)));
            let (first, second) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            let (third, fourth) = (_mm512_unpacklo_pd(ab2, cd2), _mm512_unpackhi_pd(ab2, cd2));
            [_mm512_castpd_ps(first), _mm512_castpd_ps(second), _mm512_castpd_ps(third), _mm512_castpd_ps(fourth)]
        }
    }

    /// In each half, four rows of four as four columns.
    #[inline(always)]
    unsafe fn turned256(rows: [__m256; 4]) -> [__m256; 4] {
        // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
        unsafe {
            let [a, b, c, d] = rows;
            let (ab, cd) = (_mm256_castps_pd(_mm256_unpacklo_ps(a, b)), _mm256_castps_pd(_mm256_unpacklo_ps(c, d)));
            let (ab2, cd2) = (_mm256_castps_pd(_mm256_unpackhi_ps(a, b)), _mm256_castps_pd(_mm256_unpackhi_ps(c, d)));
            let (first, second) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
            let (third, fourth) = (_mm256_unpacklo_pd(ab2, cd2), _mm256_unpackhi_pd(ab2, cd2));
            [_mm256_castpd_ps(first), _mm256_castpd_ps(second), _mm256_castpd_ps(third), _mm256_castpd_ps(fourth)]
        }
    }

    macro_rules! lanes {
        ($name:ident($vector:ty) of $t:ty, $n:literal: $splat:ident $load:ident $store:ident $add:ident $sub:ident $mul:ident $mul_add:ident $($more:tt)*) => {
            #[derive(Clone, Copy)]
            #[repr(transparent)] // its elements are read as such
            pub(in super::super) struct $name($vector);

            // SAFETY: what each function wants is what the trait says: the processor has the instructions, pointers are good.
            impl Lanes for $name {
                type T = $t;
                const N: usize = $n;
                #[inline(always)]
                unsafe fn splat(x: $t) -> Self {
                    // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
                    Self(unsafe { $splat(x) })
                }
                #[inline(always)]
                unsafe fn load(at: *const $t) -> Self {
                    // SAFETY: the processor has the instructions, and `at` so many elements, by the caller's promise.
                    Self(unsafe { $load(at) })
                }
                #[inline(always)]
                unsafe fn store(self, at: *mut $t) {
                    // SAFETY: the processor has the instructions, and `at` room for so many elements, by the caller's promise.
                    unsafe { $store(at, self.0) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
                    Self(unsafe { $add(self.0, other.0) })
                }
                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
                    Self(unsafe { $sub(self.0, other.0) })
                }
                #[inline(always)]
                unsafe fn mul(self, other: Self) -> Self {
                    // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
                    Self(unsafe { $mul(self.0, other.0) })
                }
                #[inline(always)]
                unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
                    // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
                    Self(unsafe { $mul_add(self.0, factor.0, summand.0) })
                }
                $($more)*
            }
        };
    }
    lanes!(F32x16(__m512) of f32, 16: _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_fmadd_ps
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn columns(at: *const f32, starts: &[usize]) -> [Self; 4] {
        // SAFETY: the processor has the instructions, `starts` a start for each lane, and `at` four elements at each, by the caller's promise.
        unsafe {
            macro_rules! rows {
                ($i:expr) => {{
                    let rows = _mm512_castps128_ps512(_mm_loadu_ps(at.add(*starts.get_unchecked($i))));
                    let rows = _mm512_insertf32x4::<1>(rows, _mm_loadu_ps(at.add(*starts.get_unchecked($i + 4))));
                    let rows = _mm512_insertf32x4::<2>(rows, _mm_loadu_ps(at.add(*starts.get_unchecked($i + 8))));
                    _mm512_insertf32x4::<3>(rows, _mm_loadu_ps(at.add(*starts.get_unchecked($i + 12))))
                }};
            }
            let [a, b, c, d] = turned512([rows!(0), rows!(1), rows!(2), rows!(3)]);
            [Self(a), Self(b), Self(c), Self(d)]
        }
    }
    #[inline(always)]
    unsafe fn put_columns(columns: [Self; 4], at: *mut f32, starts: &[usize]) {
        // SAFETY: the processor has the instructions, `starts` a start for each lane, and `at` four elements at each, by the caller's promise.
        unsafe {
            let rows = turned512([columns[0].0, columns[1].0, columns[2].0, columns[3].0]);
            for i in 0..4 {
                _mm_storeu_ps(at.add(*starts.get_unchecked(i)), _mm512_castps512_ps128(rows[i]));
                _mm_storeu_ps(at.add(*starts.get_unchecked(i + 4)), _mm512_extractf32x4_ps::<1>(rows[i]));
                _mm_storeu_ps(at.add(*starts.get_unchecked(i + 8)), _mm512_extractf32x4_ps::<2>(rows[i]));
                _mm_storeu_ps(at.add(*starts.get_unchecked(i + 12)), _mm512_extractf32x4_ps::<3>(rows[i]));
            }
        }
    });
    lanes!(F64x8(__m512d) of f64, 8: _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_fmadd_pd
    #[inline(always)]
    unsafe fn sum(self) -> f64 {
        // SAFETY: the processor has the instructions, by the caller's promise; nothing is read or written.
        unsafe { _mm512_reduce_add_pd(self.0) }
    });
    lanes!(F32x8(__m256) of f32, 8: _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_fmadd_ps
    #[inline(always)]
    unsafe fn columns(at: *const f32, starts: &[usize]) -> [Self; 4] {
        // SAFETY: the processor has the instructions, `starts` a start for each lane, and `at` four elements at each, by the caller's promise.
        unsafe {
            macro_rules! rows {
                ($i:expr) => {{
                    let rows = _mm256_castps128_ps256(_mm_loadu_ps(at.add(*starts.get_unchecked($i))));
                    _mm256_insertf128_ps::<1>(rows, _mm_loadu_ps(at.add(*starts.get_unchecked($i + 4))))
                }};
            }
            let [a, b, c, d] = turned256([rows!(0), rows!(1), rows!(2), rows!(3)]);
            [Self(a), Self(b), Self(c), Self(d)]
        }
    }
    #[inline(always)]
    unsafe fn put_columns(columns: [Self; 4], at: *mut f32, starts: &[usize]) {
        // SAFETY: the processor has the instructions, `starts` a start for each lane, and `at` four elements at each, by the caller's promise.
        unsafe {
            let rows = turned256([columns[0].0, columns[1].0, columns[2].0, columns[3].0]);
            for i in 0..4 {
                _mm_storeu_ps(at.add(*starts.get_unchecked(i)), _mm256_castps256_ps128(rows[i]));
                _mm_storeu_ps(at.add(*starts.get_unchecked(i + 4)), _mm256_extractf128_ps::<1>(rows[i]));
            }
        }
    });
    lanes!(F64x4(__m256d) of f64, 4: _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_fmadd_pd);
}

/// How many numbers a vector holds, and the rows of a tile, on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) lanes: usize,
    pub(super) rows: usize,
}

struct Ask;

impl<T> Kernel<T> for Ask {
    type Output = Shape;
    #[inline(always)]
    unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> Shape {
        Shape { lanes: L::N, rows: ROWS }
    }
}

/// The shape of vectors and tiles that [`dispatch`] will use.
pub(super) fn shape<T: Real>() -> Shape {
    dispatch::<T, _>(Ask)
}

/// Computes `kernel` with the widest vectors of this machine.
#[inline]
pub(super) fn dispatch<T: Real, K: Kernel<T>>(kernel: K) -> K::Output {
    T::dispatch(kernel)
}

/// How many of the two instruction sets may be used: both, but in a test that tries what other machines do.
fn allowed() -> usize {
    #[cfg(test)]
    return tests::ALLOWED.get();
    #[cfg(not(test))]
    2
}

#[cfg(test)]
mod tests;

macro_rules! dispatcher {
    ($name:ident: $t:ty, $wide:ident, $narrow:ident) => {
        /// [`dispatch`] for one type.
        pub(super) fn $name<K: Kernel<$t>>(kernel: K) -> K::Output {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                unsafe fn wide<K: Kernel<$t>>(kernel: K) -> K::Output {
                    // SAFETY: this function has the instructions.
                    unsafe { kernel.run::<x86::$wide, 8>() }
                }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn narrow<K: Kernel<$t>>(kernel: K) -> K::Output {
                    // SAFETY: this function has the instructions.
                    unsafe { kernel.run::<x86::$narrow, 4>() }
                }
                if allowed() > 1
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor was just asked.
                    return unsafe { wide(kernel) };
                }
                if allowed() > 0 && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor was just asked.
                    return unsafe { narrow(kernel) };
                }
            }
            // SAFETY: these vectors need no instructions of their own.
            unsafe { kernel.run::<Portable<$t>, 4>() }
        }
    };
}
dispatcher!(dispatch_f32: f32, F32x16, F32x8);
dispatcher!(dispatch_f64: f64, F64x8, F64x4);
