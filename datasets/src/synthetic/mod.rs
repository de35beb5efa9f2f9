//! Data sets drawn from a seed: nothing to download, the same on every machine.

pub mod segments;
pub mod shapes;

pub use segments::Segments;
pub use shapes::Shapes;
