//! From one network to a smaller one that computes the same in evaluation.
//!
//! Both take a graph with its weights and give new ones; what they were given stays as it is. A rewritten network is meant to
//! be run, not trained on: batch norm is gone, or has lost channels that training could have revived.

mod constants;
mod fold;
mod prune;

pub use fold::fold;
pub use prune::{Pruned, Removed, prune};

use candle::Tensor;

use crate::graph::{Conv, Linear, Op};
use crate::kernels;

/// The weight of a layer as it is used: where only the largest count, these, and 0 for the others.
pub(crate) fn used(op: &Op, weight: &Tensor) -> candle::Result<Tensor> {
    match op {
        Op::Conv(Conv { top: Some(top), .. }) | Op::Linear(Linear { top: Some(top), .. }) => kernels::top_k(weight, *top),
        _ => Ok(weight.clone()),
    }
}
