//! Kernels for tensors on a CUDA card: what [`composed`](super::composed) would do slowly from candle's operations, or on the host.
//!
//! With the feature `cudnn`, convolutions (`conv`) and batch norm (`norm`) of `f32`, `f16` and `bf16` are cuDNN's; of our own (`own`) are
//! what a dropout keeps and the largest weights of a layer; all else, and `f64`, is composed. Sums are `f32` or wider. `f32` convolutions
//! may use TF32 (a mantissa of 10 bits in products), as PyTorch's do unless told otherwise; where that is too coarse, NVIDIA's variable
//! `NVIDIA_TF32_OVERRIDE=0` takes it away. Deterministic algorithms are taken wherever there is one.
//!
//! All is NCHW, which cuDNN turns round for its tensor cores; `ARCHITECTURE.md` says why. Algorithms come from cuDNN's rules of thumb, asked
//! anew each time, not from trials.
//!
//! A step of training on a card waits for nothing on the host. Every so many steps (`train::watch`) there is a look at what they gave, of
//! three numbers a step. What goes to the card is not waited for if it is small (CUDA sets it aside first, up to 64 KB), which all but the
//! first of these is:
//! - the batch, from ordinary memory, for which a copy may wait;
//! - targets of mixed samples, and whom each is mixed with;
//! - class numbers of a loss, the places of [`pick`](super::pick()), shares of interpolation, and the factors of averages whose
//!   windows are not all of one size: a few numbers each that the graph knows, made anew in every step;
//! - sizes and strides, where an operation of candle's reads what is not contiguous.
//!
//! The choice of [`top_k`](super::top_k()) in `f64` is made on the host.

#[cfg(feature = "cudnn")]
mod conv;
#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(feature = "cudnn")]
mod norm;
mod own;

#[cfg(feature = "cudnn")]
pub(super) use conv::{backward_data, backward_filter, forward};
#[cfg(feature = "cudnn")]
pub(super) use cudnn::takes;
#[cfg(feature = "cudnn")]
pub(super) use norm::{batch_norm, batch_norm_running};
pub(super) use own::{draw, selects, top_k};
