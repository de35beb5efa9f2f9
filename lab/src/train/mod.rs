//! Changes parameters, and nothing else does.
//!
//! Reading order: [`Recipe`] is what is asked for; [`fit()`] is the loop; `gradients` is the one place that differentiates, and
//! is run by `micro` for as many samples at once as memory holds; `optimizer` and `average` are what follows; `checkpoint`
//! keeps all of it; `watch` says when a card is looked at; `blame` finds out where a run left the numbers.

mod average;
mod batch;
mod blame;
mod checkpoint;
mod fit;
mod gradients;
mod micro;
mod optimizer;
mod recipe;
mod schedule;
mod score;
mod watch;

pub use batch::to_tensors;
pub use checkpoint::Checkpoint;
pub use fit::{Epoch, Event, Flow, Options, fit, fit_with};
pub use gradients::Gradients;
pub use recipe::{Decayed, Optimizer, Precision, Recipe, Stop};
pub use schedule::Schedule;
pub use score::{Score, evaluate, evaluate_top5, predict};
