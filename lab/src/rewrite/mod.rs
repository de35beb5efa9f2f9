//! From one network to a smaller one that computes the same in evaluation.
//!
//! Both take a graph with its weights and give new ones; what they were given stays as it is. A rewritten network is meant to
//! be run, not trained on: batch norm is gone, or has lost channels that training could have revived.

mod constants;
mod fold;
mod prune;

pub use fold::fold;
pub use prune::{Pruned, Removed, prune};
