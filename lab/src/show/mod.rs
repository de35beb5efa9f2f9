//! Showing values in a notebook: the one place that prints to it, and the one that asks where the program runs.
//!
//! evcxr runs cells in a child process and reads its standard output line by line. Lines from `EVCXR_BEGIN_CONTENT <mime>` to
//! `EVCXR_END_CONTENT` become an output of the cell; blocks of different types become one output, of which Jupyter shows the
//! richest it can, and a second block of the same type replaces the first. So a cell shows one value: its last. Any other
//! line is passed on at once as text.

mod follow;
pub(crate) mod number;
mod progress;

use std::io::Write;

use crate::draw;
use crate::figure::Figure;
use crate::graph::Graph;
use crate::metrics::memory::Memory;
use crate::metrics::profile::Profile;
use crate::table::Table;

pub use follow::{downloading, sweeping, training};
pub use progress::Progress;

/// Shows HTML, and `plain` where there is no HTML: in a terminal, in a diff, in a search.
pub fn html(html: &str, plain: &str) {
    blocks(&[("text/html", html), ("text/plain", plain)]);
}

/// Shows an SVG picture, and `plain` where there are no pictures.
pub fn svg(svg: &str, plain: &str) {
    blocks(&[("image/svg+xml", svg), ("text/plain", plain)]);
}

impl Table {
    /// Shows the table as what a notebook cell ends with.
    pub fn evcxr_display(&self) {
        html(&self.html(), &self.to_string());
    }
}

impl Figure {
    /// Shows the figure as what a notebook cell ends with.
    pub fn evcxr_display(&self) {
        svg(&self.svg(), &self.to_string());
    }
}

impl Graph {
    /// Shows the network as a picture, as what a notebook cell ends with.
    pub fn evcxr_display(&self) {
        let plain = format!("{}: {} nodes, input {:?}, output {:?}", self.name, self.nodes.len(), self.input_shape(), self.output_shape());
        svg(&draw::network(self).svg(), &plain);
    }
}

impl Profile {
    /// Shows the cost node by node, and the sums, as what a notebook cell ends with.
    pub fn evcxr_display(&self) {
        let sums = format!("{} parameters, {} multiply-adds a sample", number::count(self.params as i64), number::count(self.macs as i64));
        rows(&self.rows, &sums);
    }
}

impl Memory {
    /// Shows the memory node by node, and the peaks, as what a notebook cell ends with.
    pub fn evcxr_display(&self) {
        let [inference, training, parameters] = [self.inference, self.training, self.parameters].map(|bytes| number::count(bytes as i64));
        let sums = format!("bytes: {inference} a sample in inference, {training} in training, {parameters} for parameters");
        rows(&self.rows, &sums);
    }
}

/// A table with a line below it.
fn rows<R: serde::Serialize>(rows: &[R], sums: &str) {
    match Table::from_rows(rows) {
        Ok(table) => html(&format!("{}<p>{sums}</p>", table.html()), &format!("{table}\n{sums}")),
        Err(_) => html(&format!("<p>{sums}</p>"), sums),
    }
}

/// One output in several types, in one piece, so that lines of other threads cannot come between.
fn blocks(contents: &[(&str, &str)]) {
    let mut out = String::new();
    for (mime, content) in contents {
        out.push_str(&format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT\n"));
    }
    // A notebook that is gone has nobody left to tell.
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
}

/// A text as HTML and SVG want it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
