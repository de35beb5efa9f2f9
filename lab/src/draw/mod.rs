//! Pictures of a graph.

mod dot;
mod layout;
mod network;
mod tiles;
mod wiring;

pub use dot::dot;
pub use network::network;
pub use wiring::wiring;

use std::fmt::Write;

/// The colour of an edge: from amber for the shortest to violet for the longest.
fn shade(part: f64) -> String {
    let (near, far) = ([230.0, 159.0, 0.0], [106.0, 27.0, 154.0]);
    let [r, g, b] = std::array::from_fn(|k| (near[k] + (far[k] - near[k]) * part) as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn put(body: &mut String, element: std::fmt::Arguments<'_>) {
    body.write_fmt(element).expect("a string takes everything");
}
