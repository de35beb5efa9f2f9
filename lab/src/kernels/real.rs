//! What the kernels stand on: `f32` and `f64` alike, slices of tensors, matrix products, and a fixed split of work.

use std::cell::Cell;
use std::marker::PhantomData;
use std::thread::LocalKey;

use candle::backend::BackendStorage;
use candle::{CpuStorage, Layout, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

use super::buffers;
use super::simd::{self, Kernel, Lanes};

/// `f32` or `f64`.
pub(super) trait Real: WithDType + std::ops::Neg<Output = Self> + std::iter::Sum {
    const ZERO: Self;
    const INFINITY: Self;
    /// To about the last bit, without a branch, so that loops of it become vectors.
    fn exp(self) -> Self;
    fn exp_m1(self) -> Self;
    fn tanh(self) -> Self;
    /// The numbers of a storage, to be changed; `None` where it holds another type.
    fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// See [`simd::dispatch`].
    fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output;
    /// What [`buffers::lend`] lends.
    fn scratch() -> &'static LocalKey<Cell<Vec<Self>>>;
    /// See [`buffers::fresh`].
    fn recycled(len: usize) -> Option<Vec<Self>>;
}

macro_rules! real {
    ($t:ident, $variant:ident, $dispatch:ident, $exp:expr, $exp_m1:expr, $tanh:expr, $recycled:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const INFINITY: Self = $t::INFINITY;
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn exp_m1(self) -> Self {
                $exp_m1(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            fn numbers_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(numbers) => Some(numbers),
                    _ => None,
                }
            }
            fn dispatch<K: Kernel<Self>>(kernel: K) -> K::Output {
                simd::$dispatch(kernel)
            }
            fn scratch() -> &'static LocalKey<Cell<Vec<Self>>> {
                thread_local!(static SCRATCH: Cell<Vec<$t>> = const { Cell::new(Vec::new()) });
                &SCRATCH
            }
            fn recycled(len: usize) -> Option<Vec<Self>> {
                $recycled(len)
            }
        }
    };
}
real!(f32, F32, dispatch_f32, exp_f32, exp_m1_f32, tanh_f32, buffers::from_pool);
real!(f64, F64, dispatch_f64, f64::exp, f64::exp_m1, f64::tanh, |_| None);

/// `2^n · p(r)` with `x = n · ln 2 + r` and `p` the exponential series to the seventh power: within 1.5 units of the last place.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    // Adding and taking away 1.5 · 2²³ rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    // The largest and smallest arguments whose results are numbers; NaN passes both.
    let y = if x > 88.722_84 { 88.722_84 } else { x };
    let y = if y < -87.336_54 { -87.336_54 } else { y };
    let n = (y * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (y - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // 2^n in two steps, because 2^128 is no number of its own.
    let half = (n * 0.5 + ROUND) - ROUND;
    // The conversion takes NaN to 0; `p` is then NaN.
    let power = |n: f32| f32::from_bits(((n as i32 + 127) << 23) as u32);
    let result = p * power(half) * power(n - half);
    let result = if x > 88.722_84 { f32::INFINITY } else { result };
    if x < -87.336_54 { 0.0 } else { result }
}

/// `exp(x) − 1`, by its series near 0 where the difference would lose digits.
#[inline(always)]
fn exp_m1_f32(x: f32) -> f32 {
    let series = 1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0 + x * (1.0 / 120.0 + x * (1.0 / 720.0)))));
    if x.abs() < 0.25 { x * series } else { exp_f32(x) - 1.0 }
}

/// `1 − 2 / (exp(2x) + 1)`, by its series near 0.
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    let square = x * x;
    let series = 1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0 + square * (62.0 / 2835.0))));
    if x.abs() < 0.3 { x * series } else { 1.0 - 2.0 / (exp_f32(2.0 * x) + 1.0) }
}

/// Runs a loop compiled for the vectors of this machine. The loop should stand in `f` itself, or in functions that are always inlined.
#[inline(always)]
pub(super) fn vectorised<T: Real, R>(f: impl FnOnce() -> R) -> R {
    struct Plain<F>(F);
    impl<T, R, F: FnOnce() -> R> Kernel<T> for Plain<F> {
        type Output = R;
        #[inline(always)]
        #[expect(unsafe_code, reason = "the trait's signature")]
        unsafe fn run<L: Lanes<T = T>, const ROWS: usize>(self) -> R {
            (self.0)()
        }
    }
    T::dispatch(Plain(f))
}

/// Runs `$body` with `$t` as the float type that `$storage` holds; an error naming the operation for other types.
macro_rules! for_real {
    ($op:expr, $storage:expr, $t:ident => $body:expr) => {
        $crate::kernels::real::for_dtype!(candle::backend::BackendStorage::dtype($storage), $op, $t => $body)
    };
}
pub(super) use for_real;

/// Runs `$body` with `$t` as the float type `$dtype`; an error naming the operation for other types.
macro_rules! for_dtype {
    ($dtype:expr, $op:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle::DType::F32 => {
                type $t = f32;
                $body
            }
            candle::DType::F64 => {
                type $t = f64;
                $body
            }
            other => candle::bail!("{}: wanted f32 or f64, found {}", $op, other.as_str()),
        }
    };
}
pub(super) use for_dtype;

/// The numbers of a contiguous operand.
pub(super) fn numbers<'a, T: WithDType>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{op}: wanted a contiguous operand, found strides {:?} for shape {:?}", layout.stride(), layout.dims())
    };
    if T::DTYPE != storage.dtype() {
        bail!("{op}: wanted {}, found {}", T::DTYPE.as_str(), storage.dtype().as_str())
    }
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// The numbers of a contiguous operand, to be changed.
pub(super) fn numbers_mut<'a, T: Real>(op: &str, storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{op}: wanted a contiguous operand, found strides {:?} for shape {:?}", layout.stride(), layout.dims())
    };
    let found = storage.dtype();
    match T::numbers_mut(storage) {
        Some(numbers) => Ok(&mut numbers[start..end]),
        None => bail!("{op}: wanted {}, found {}", T::DTYPE.as_str(), found.as_str()),
    }
}

/// An error unless both tensors are of one type and on one device.
pub(super) fn check_alike(op: &str, name: &str, tensor: &Tensor, like: &Tensor) -> Result<()> {
    if tensor.dtype() != like.dtype() {
        bail!("{op}: {name}: wanted {}, found {}", like.dtype().as_str(), tensor.dtype().as_str())
    }
    if !tensor.device().same_device(like.device()) {
        bail!("{op}: {name}: wanted device {:?}, found {:?}", like.device().location(), tensor.device().location())
    }
    Ok(())
}

/// As [`check_alike`], but a wider type will do too.
pub(super) fn check_beside(op: &str, name: &str, tensor: &Tensor, like: &Tensor) -> Result<()> {
    let wider = tensor.dtype().is_float() && tensor.dtype().size_in_bytes() > like.dtype().size_in_bytes();
    if wider && tensor.device().same_device(like.device()) { Ok(()) } else { check_alike(op, name, tensor, like) }
}

/// `(n, c, pixels)` of a tensor `(n, c, h, w)` or `(n, c)`.
pub(super) fn planes(op: &str, xs: &Tensor) -> Result<(usize, usize, usize)> {
    match *xs.dims() {
        [n, c, h, w] => Ok((n, c, h * w)),
        [n, c] => Ok((n, c, 1)),
        ref other => bail!("{op}: wanted a tensor (n, c, h, w) or (n, c), found {other:?}"),
    }
}

/// Below this many elementary steps, handing work to other threads costs more than it saves.
const SERIAL: usize = 1 << 15;

/// Calls `f(index, part)` for consecutive parts of `part` numbers; `work` is the number of elementary steps in all.
pub(super) fn each_part<T: Send>(data: &mut [T], part: usize, work: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let part = part.max(1);
    if work < SERIAL {
        data.chunks_mut(part).enumerate().for_each(|(i, chunk)| f(i, chunk));
    } else {
        data.par_chunks_mut(part).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
}

/// `(0..count).map(f)`, in order; `work` is the number of elementary steps in all.
pub(super) fn each_index<R: Send>(count: usize, work: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    if work < SERIAL { (0..count).map(f).collect() } else { (0..count).into_par_iter().map(f).collect() }
}

/// How many things of `size` steps each make one task worth its overhead: a function of the size alone.
pub(super) fn per_task(size: usize) -> usize {
    (SERIAL / 2).div_ceil(size.max(1))
}

/// Sum in an order that depends on the length alone, with many running sums so that the processor can add side by side.
#[inline(always)]
pub(super) fn sum_by<T: Real>(len: usize, f: impl Fn(usize) -> T) -> T {
    const LANES: usize = 32;
    let mut lanes = [T::zero(); LANES];
    let whole = len - len % LANES;
    let mut at = 0;
    while at < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(at + lane);
        }
        at += LANES;
    }
    let mut total = T::zero();
    for sum in lanes {
        total += sum;
    }
    for i in whole..len {
        total += f(i);
    }
    total
}

/// A matrix in memory: its first number, and how far apart rows and columns are.
#[derive(Clone, Copy)]
pub(super) struct Matrix<P> {
    pub(super) at: P,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl<'a, T> Matrix<&'a [T]> {
    /// Row after row, `width` numbers each.
    pub(super) fn rows(at: &'a [T], width: usize) -> Self {
        Self { at, row: width, col: 1 }
    }

    pub(super) fn transposed(self) -> Self {
        Self { at: self.at, row: self.col, col: self.row }
    }

    fn covers(&self, rows: usize, cols: usize) -> bool {
        let (Some(down), Some(right)) = (rows.checked_sub(1), cols.checked_sub(1)) else { return true };
        // A product that wrapped around would let a matrix reach beyond its slice.
        let last = down.checked_mul(self.row).and_then(|at| at.checked_add(right.checked_mul(self.col)?));
        last.is_some_and(|last| last < self.at.len())
    }
}

/// `dst (m, n) = lhs (m, k) · rhs (k, n)`, added to what is there where `add` says so. On the calling thread.
///
/// # Safety
/// `dst` points to a matrix of `m × n` different elements that nobody else reads or writes meanwhile.
#[expect(unsafe_code, reason = "the gemm crate takes pointers")]
pub(super) unsafe fn product_at<T: Real>([m, n, k]: [usize; 3], dst: Matrix<*mut T>, add: bool, lhs: Matrix<&[T]>, rhs: Matrix<&[T]>) {
    assert!(lhs.covers(m, k) && rhs.covers(k, n), "a matrix product reads inside its operands");
    // SAFETY: the operands were just checked to hold their last element, hence all; the caller vouches for `dst`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.at,
            dst.col as isize,
            dst.row as isize,
            add,
            lhs.at.as_ptr(),
            lhs.col as isize,
            lhs.row as isize,
            rhs.at.as_ptr(),
            rhs.col as isize,
            rhs.row as isize,
            if add { T::one() } else { T::zero() },
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `dst (m, n) = lhs (m, k) · rhs (k, n)` with `dst` row after row, added to what is there where `add` says so.
#[expect(unsafe_code, reason = "the gemm crate takes pointers")]
pub(super) fn product<T: Real>(dims: [usize; 3], dst: &mut [T], add: bool, lhs: Matrix<&[T]>, rhs: Matrix<&[T]>) {
    let [m, n, _] = dims;
    assert!(dst.len() >= m * n, "a matrix product writes inside its result");
    let dst = Matrix { at: dst.as_mut_ptr(), row: n, col: 1 };
    // SAFETY: `dst` is borrowed mutably and holds `m × n` numbers, row after row.
    unsafe { product_at(dims, dst, add, lhs, rhs) }
}

/// [`product`] on the thread pool: tiles of the result, each one product. The inner sum is never split.
#[expect(unsafe_code, reason = "tiles of a matrix are not slices")]
pub(super) fn product_parallel<T: Real>(dims: [usize; 3], dst: &mut [T], add: bool, lhs: Matrix<&[T]>, rhs: Matrix<&[T]>) {
    const ROWS: usize = 128;
    const COLS: usize = 256;
    let [m, n, k] = dims;
    let (down, across) = (m.div_ceil(ROWS), n.div_ceil(COLS));
    if down * across <= 1 || m * n * k < 4 * SERIAL {
        return product(dims, dst, add, lhs, rhs);
    }
    assert!(dst.len() >= m * n, "a matrix product writes inside its result");
    let shared = Shared::of(dst);
    (0..down * across).into_par_iter().for_each(|tile| {
        let (top, left) = (tile / across * ROWS, tile % across * COLS);
        let dims = [ROWS.min(m - top), COLS.min(n - left), k];
        // An empty inner sum reads nothing, so there may be nothing to cut from.
        let lhs = Matrix { at: lhs.at.get(top * lhs.row..).unwrap_or_default(), ..lhs };
        let rhs = Matrix { at: rhs.at.get(left * rhs.col..).unwrap_or_default(), ..rhs };
        // SAFETY: `dst` is borrowed mutably by this function and holds `m × n` elements, as was checked; the tiles are disjoint and inside it.
        unsafe { product_at(dims, Matrix { at: shared.offset(top * n + left), row: n, col: 1 }, add, lhs, rhs) }
    });
}

/// A result that several tasks fill, each its own places, and that nobody else reads or writes meanwhile.
pub(super) struct Shared<'a, T> {
    first: *mut T,
    len: usize,
    elements: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: it is the mutable borrow of a slice, which may go to another thread where the elements may.
#[expect(unsafe_code, reason = "see above")]
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: a reference to it gives pointers to elements and nothing else, by unsafe functions alone, whose callers promise that no two tasks use
// the same elements. So each element is on one thread at a time, for which `Send` is enough.
#[expect(unsafe_code, reason = "see above")]
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// All of a slice, which is borrowed as long as tasks may write to it.
    pub(super) fn of(elements: &'a mut [T]) -> Self {
        Self { first: elements.as_mut_ptr(), len: elements.len(), elements: PhantomData }
    }

    /// How many elements the result has.
    pub(super) fn len(self) -> usize {
        self.len
    }

    /// A pointer to element `offset`.
    ///
    /// # Safety
    /// `offset` is inside the result, or its end. What the pointer is used for is the caller's to argue.
    #[expect(unsafe_code, reason = "pointer arithmetic")]
    pub(super) unsafe fn offset(self, offset: usize) -> *mut T {
        debug_assert!(offset <= self.len, "{offset} of {} elements", self.len);
        // SAFETY: it stays within the slice that `first` came of, or at its end, by the caller's promise.
        unsafe { self.first.add(offset) }
    }

    /// `len` elements from `offset` on.
    ///
    /// # Safety
    /// They are inside the result, and no other task reads or writes them while the slice lives.
    #[expect(unsafe_code, reason = "pointer arithmetic")]
    pub(super) unsafe fn slice(self, offset: usize, len: usize) -> &'a mut [T] {
        debug_assert!(offset + len <= self.len, "{len} elements from {offset} of {}", self.len);
        // SAFETY: the elements are inside the slice that `first` came of, which `'a` keeps borrowed, and nobody else's, by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(offset), len) }
    }
}
