//! Convolution and its two gradients by cuDNN.

use std::ffi::{c_int, c_void};
use std::rc::Rc;

use candle::backend::BackendStorage;
use candle::cuda_backend::cudarc::cudnn::result::CudnnResult;
use candle::cuda_backend::cudarc::cudnn::{result, sys};
use candle::{CudaStorage, DType, Layout, Result, bail};

use super::cudnn::{Dense, Filter, Handle, Moves, ONE, ZERO, fresh, read, write};
use crate::kernels::conv::Geometry;

/// An operand of an operation: numbers, and how they lie.
type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// `ys (n, o, oh, ow)`.
pub(in crate::kernels) fn forward(g: &Geometry, xs: Operand<'_>, weight: Operand<'_>) -> Result<CudaStorage> {
    let Described { handle, xs: x, weight: w, ys: y, moves: m } = &Described::new(g, xs.0)?;
    // SAFETY: the handle and the descriptions live; `choose` has room for what is written.
    let algorithm = choose(m, |most, found, guesses| unsafe {
        result::get_convolution_forward_algorithm(handle.0, x.0, w.0, m.0, y.0, most, found, guesses)
    })?;
    // SAFETY: the handle and the descriptions live, and the algorithm is cuDNN's for them.
    let bytes = unsafe { result::get_convolution_forward_workspace_size(handle.0, x.0, w.0, m.0, y.0, algorithm) }?;
    // SAFETY: the descriptions live and are of the operands and the result, which `launch` holds, with `bytes` of scratch, until the kernel is in the
    // stream.
    launch((g.n, g.o, g.oh, g.ow), bytes, [xs, weight], |[xs, weight], ys, scratch| unsafe {
        result::convolution_forward(handle.0, ONE, x.0, xs, w.0, weight, m.0, algorithm, scratch, bytes, ZERO, y.0, ys)
    })
}

/// The gradient of the input `(n, c, h, w)`.
pub(in crate::kernels) fn backward_data(g: &Geometry, grad: Operand<'_>, weight: Operand<'_>) -> Result<CudaStorage> {
    let Described { handle, xs: x, weight: w, ys: y, moves: m } = &Described::new(g, grad.0)?;
    // SAFETY: the handle and the descriptions live; `choose` has room for what is written.
    let algorithm = choose(m, |most, found, guesses| unsafe {
        result::get_convolution_backward_data_algorithm(handle.0, w.0, y.0, m.0, x.0, most, found, guesses)
    })?;
    // SAFETY: the handle and the descriptions live, and the algorithm is cuDNN's for them.
    let bytes = unsafe { result::get_convolution_backward_data_workspace_size(handle.0, w.0, y.0, m.0, x.0, algorithm) }?;
    // SAFETY: the descriptions live and are of the operands and the result, which `launch` holds, with `bytes` of scratch, until the kernel is in the
    // stream.
    launch((g.n, g.c, g.h, g.w), bytes, [grad, weight], |[grad, weight], dxs, scratch| unsafe {
        result::convolution_backward_data(handle.0, ONE, w.0, weight, y.0, grad, m.0, algorithm, scratch, bytes, ZERO, x.0, dxs)
    })
}

/// The gradient of the weight `(o, c / groups, kh, kw)`.
pub(in crate::kernels) fn backward_filter(g: &Geometry, grad: Operand<'_>, xs: Operand<'_>) -> Result<CudaStorage> {
    let Described { handle, xs: x, weight: w, ys: y, moves: m } = &Described::new(g, grad.0)?;
    // SAFETY: the handle and the descriptions live; `choose` has room for what is written.
    let algorithm = choose(m, |most, found, guesses| unsafe {
        result::get_convolution_backward_filter_algorithm(handle.0, x.0, y.0, m.0, w.0, most, found, guesses)
    })?;
    // SAFETY: the handle and the descriptions live, and the algorithm is cuDNN's for them.
    let bytes = unsafe { result::get_convolution_backward_filter_workspace_size(handle.0, x.0, y.0, m.0, w.0, algorithm) }?;
    // SAFETY: the descriptions live and are of the operands and the result, which `launch` holds, with `bytes` of scratch, until the kernel is in the
    // stream.
    launch((g.o, g.c_group, g.kh, g.kw), bytes, [grad, xs], |[grad, xs], dweight, scratch| unsafe {
        result::convolution_backward_filter(handle.0, ONE, x.0, xs, y.0, grad, m.0, algorithm, scratch, bytes, ZERO, w.0, dweight)
    })
}

/// A convolution in cuDNN's terms.
struct Described {
    handle: Rc<Handle>,
    xs: Dense,
    weight: Filter,
    ys: Dense,
    moves: Moves,
}

impl Described {
    /// For operands of the type and on the card of `like`.
    fn new(g: &Geometry, like: &CudaStorage) -> Result<Self> {
        let dtype = like.dtype();
        Ok(Self {
            handle: Handle::of(like.device())?,
            xs: Dense::new(dtype, [g.n, g.c, g.h, g.w])?,
            weight: Filter::new(dtype, [g.o, g.c_group, g.kh, g.kw])?,
            ys: Dense::new(dtype, [g.n, g.o, g.oh, g.ow])?,
            moves: Moves::new(dtype, &g.conv)?,
        })
    }
}

/// What cuDNN thinks of an algorithm: a type for each of the three operations, with the same fields.
trait Guess: Copy {
    type Algorithm;

    /// Nothing known of any algorithm, to be written over.
    fn blank() -> Self;

    /// Whether it can be had, with at most [`SCRATCH`].
    fn fits(&self) -> bool;

    /// Whether the same input gives the same bits.
    fn repeats(&self) -> bool;

    /// The algorithm and its kind of products.
    fn algorithm(self) -> (Self::Algorithm, sys::cudnnMathType_t);
}

/// Bytes of scratch memory that an algorithm may want.
const SCRATCH: usize = 1 << 30;

macro_rules! guess {
    ($guess:ty, $algorithm:ty) => {
        impl Guess for $guess {
            type Algorithm = $algorithm;

            fn blank() -> Self {
                // SAFETY: numbers, and enumerations that all have a variant 0.
                unsafe { std::mem::zeroed() }
            }

            fn fits(&self) -> bool {
                self.status.result().is_ok() && self.memory <= SCRATCH
            }

            fn repeats(&self) -> bool {
                self.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
            }

            fn algorithm(self) -> ($algorithm, sys::cudnnMathType_t) {
                (self.algo, self.mathType)
            }
        }
    };
}

guess!(sys::cudnnConvolutionFwdAlgoPerf_t, sys::cudnnConvolutionFwdAlgo_t);
guess!(sys::cudnnConvolutionBwdDataAlgoPerf_t, sys::cudnnConvolutionBwdDataAlgo_t);
guess!(sys::cudnnConvolutionBwdFilterAlgoPerf_t, sys::cudnnConvolutionBwdFilterAlgo_t);

/// The algorithm that cuDNN thinks fastest of those that fit and repeat, or of those that fit if none does both. `moves` is set to its
/// kind of products, without which it would be another one.
///
/// `ask` gets how many guesses there is room for, where to write how many there are, and where to write them, the best first.
fn choose<G: Guess>(moves: &Moves, ask: impl FnOnce(c_int, *mut c_int, *mut G) -> CudnnResult<()>) -> Result<G::Algorithm> {
    /// More than there are algorithms times kinds of products.
    const MOST: usize = 32;
    let (mut guesses, mut found) = ([G::blank(); MOST], 0);
    ask(MOST as c_int, &raw mut found, guesses.as_mut_ptr())?;
    let fitting = || guesses.iter().take(found as usize).filter(|guess| guess.fits());
    let Some(guess) = fitting().find(|guess| guess.repeats()).or_else(|| fitting().next()) else {
        bail!("conv2d: wanted an algorithm with at most {SCRATCH} bytes of scratch memory, found none among cuDNN's {found}")
    };
    let (algorithm, math) = guess.algorithm();
    // SAFETY: `moves` lives.
    unsafe { result::set_convolution_math_type(moves.0, math) }?;
    Ok(algorithm)
}

/// A new tensor written by `run`, which gets the operands, the result and so many bytes of scratch.
fn launch(
    dims: (usize, usize, usize, usize),
    bytes: usize,
    operands: [Operand<'_>; 2],
    run: impl FnOnce([*const c_void; 2], *mut c_void, *mut c_void) -> CudnnResult<()>,
) -> Result<CudaStorage> {
    let [(one, one_layout), (other, other_layout)] = operands;
    let (device, stream) = (one.device(), &one.device().cuda_stream());
    let (mut result, mut scratch) = (fresh(device, one.dtype(), dims)?, fresh(device, DType::U8, bytes.max(1))?);
    {
        let (one, other) = (read(one, one_layout, stream)?, read(other, other_layout, stream)?);
        let (result, scratch) = (write(&mut result, stream)?, write(&mut scratch, stream)?);
        run([one.at, other.at], result.at, scratch.at)?;
    }
    Ok(result)
}
