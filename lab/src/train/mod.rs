//! Changes parameters, and nothing else does.

mod fit;
mod recipe;
mod schedule;

pub use fit::{Epoch, Event, Score, evaluate, fit, to_tensors};
pub use recipe::{Optimizer, Recipe};
pub use schedule::Schedule;
