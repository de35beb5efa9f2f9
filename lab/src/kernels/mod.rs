//! Differentiable tensor operations that candle lacks, has wrong, or has slow; CPU and CUDA.
//!
//! Every function takes and gives plain candle tensors, NCHW (or `(n, d)`), `f32` or `f64`, of any layout. On the CPU each is one
//! node of candle's graph with a forward and a backward pass of ours; on other devices it is [`composed`] from candle's own
//! operations, with those left out whose gradients are wrong. On a CUDA card what is random and the largest weights are kernels of ours,
//! and with the feature `cudnn` convolutions and batch norm are nodes of ours too (`cuda`), also of `f16` and `bf16`.
//!
//! **Invariant:** results do not depend on the number of threads. Work is split by shape alone, each number is written by one
//! task, and partial sums are added in a fixed order.
//!
//! **Invariant:** no random number, clock or global state; dropout takes a seed.
//!
//! Reading order: [`activate`] is the smallest whole example; [`conv2d`] the largest.

mod accumulate;
mod activation;
mod buffers;
mod channels;
pub mod composed;
mod conv;
mod conv_depthwise;
mod conv_gather;
mod conv_winograd;
#[cfg(feature = "cuda")]
#[expect(unsafe_code, reason = "cuDNN is a library of C, and so is what launches a kernel")]
mod cuda;
mod dropout;
mod gate;
mod linear;
mod loss;
mod norm;
mod optim;
mod panels;
mod pixels;
mod pool;
mod real;
mod rows;
mod scratch;
mod simd;
mod squares;
mod top;
mod upsample;

pub use activation::{Activation, activate};
pub use channels::{concat, pick};
pub use conv::{Conv, conv2d};
pub use dropout::dropout;
pub use gate::{dropout_channels, dropout_samples, multiply, weighted_sum};
pub use linear::linear;
pub use loss::{cross_entropy, soft_cross_entropy};
pub use norm::{Affine, Normed, batch_norm, batch_norm_running};
pub use optim::{Adam, Decay, Sgd, adam_step, sgd_step};
pub use pixels::normalize_u8;
pub use pool::{Divisor, Pool, adaptive_avg_pool2d, avg_pool2d, global_avg_pool, max_pool2d};
pub use rows::{instance_norm, layer_norm, softmax};
pub use squares::sum_of_squares;
pub use top::top_k;
pub use upsample::{Interpolation, upsample2d};

// What a training step calls that keeps its own books of values and gradients, instead of candle.
pub(crate) use accumulate::{add_to, copy};
pub(crate) use activation::activate_backward;
pub(crate) use buffers::{Pool as BufferPool, recycle};
pub(crate) use channels::{Source, pick_from, pick_from_backward};
pub(crate) use conv::{conv2d_backward_data, conv2d_backward_filter};
pub(crate) use gate::{gates_planes, multiply_backward_gate, scale};
pub(crate) use linear::{linear_backward_data, linear_backward_weight};
pub(crate) use norm::{Layer, Saved, bias_backward, fuses, layer_backward, layer_forward, layer_running};
pub(crate) use pool::{avg_pool2d_backward, global_avg_pool_backward, max_pool2d_backward};
pub(crate) use rows::softmax_backward;

// What they need meanwhile.
pub(crate) use scratch::{Scratch, conv2d_scratch, product_scratch};
