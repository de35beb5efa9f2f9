//! One file a number: from a graph, a trace, or predictions.

pub mod accuracy;
pub mod gaussian;
pub mod ldi;
pub mod memory;
pub mod nn_mass;
pub mod profile;
