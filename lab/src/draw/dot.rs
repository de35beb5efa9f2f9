//! A graph in the language of Graphviz, for whoever wants to lay it out otherwise: `dot -Tpdf net.dot -o net.pdf`.

use super::put;
use super::tiles::{self, Tile};
use crate::graph::Graph;

/// The graph as a Graphviz `digraph`: the boxes of [`network`](fn@super::network), one a line, then the edges.
pub fn dot(graph: &Graph) -> String {
    let drawn = tiles::gather(graph);
    let mut text = format!("digraph {} {{\n", quoted(&graph.name));
    text.push_str("  node [shape=box style=\"rounded,filled\" fillcolor=white fontname=Helvetica fontsize=11]\n");
    for (at, Tile { kind, title, name, shape }) in drawn.tiles.iter().enumerate() {
        let label = quoted(&format!("{title}\n{name}  {shape}"));
        put(&mut text, format_args!("  n{at} [label={label} color=\"{}\"]\n", kind.colour()));
    }
    for (from, to) in &drawn.edges {
        put(&mut text, format_args!("  n{from} -> n{to}\n"));
    }
    text.push_str("}\n");
    text
}

/// As Graphviz quotes: a quote and a backslash are escaped, a new line is `\n`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
