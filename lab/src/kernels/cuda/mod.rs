//! Kernels by cuDNN, for tensors on a CUDA card: what [`composed`](super::composed) would do slowly from candle's operations.
//!
//! Convolutions ([`conv`]) and batch norm ([`norm`]) of `f32`, `f16` and `bf16`; all else, and `f64`, is composed. Sums are `f32` or
//! wider. `f32` convolutions may use TF32 (a mantissa of 10 bits in products), as PyTorch's do unless told otherwise; where that is too
//! coarse, NVIDIA's variable `NVIDIA_TF32_OVERRIDE=0` takes it away. Deterministic algorithms are taken wherever there is one.
//!
//! All is NCHW. Channels last, which tensor cores prefer, would want graphs that keep it from layer to layer; cuDNN turns the
//! tensors around by itself meanwhile. Algorithms come from cuDNN's rules of thumb, asked anew each time, not from trials.
//!
//! What the host waits for, in a step of training on a card:
//! - the loss and the norm of the gradients, one number each (`train::fit`), and where both are finite nothing more;
//! - the choice of [`top_k`](super::top_k()), which is made on the host: the weights are copied there and a mask back;
//! - copies from the host of what is small but not kept on the card: the masks of dropout, the places of [`pick`](super::pick())
//!   and of pooling windows, class numbers, shares of interpolation. A copy from ordinary memory may wait for the card.
//!
//! Convolution, batch norm, losses, `sum_of_squares` and the steps of optimisers wait for nothing.

mod conv;
mod cudnn;
mod norm;

pub(super) use conv::{backward_data, backward_filter, forward};
pub(super) use norm::{batch_norm, batch_norm_running};

use candle::{DType, Tensor};

/// Whether the kernels here do tensors like this one.
pub(super) fn takes(xs: &Tensor) -> bool {
    xs.device().is_cuda() && matches!(xs.dtype(), DType::F32 | DType::F16 | DType::BF16)
}
