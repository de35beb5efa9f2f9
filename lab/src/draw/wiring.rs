//! The wiring of dense cells, unit by unit.

use super::{put, shade};
use crate::graph::{Graph, NodeId};
use crate::metrics::nn_mass::{self, Link};
use crate::metrics::profile;
use crate::show::number::count;
use crate::{Error, Figure, Result};

/// Distance between layers, between units, and around the picture, in pixels.
const COLUMN: f64 = 74.0;
const ROW: f64 = 15.0;
const MARGIN: f64 = 34.0;
/// Layers with more units than this are drawn as a bar of this many rows.
const ROWS: usize = 24;

/// The layers of every cell as columns of units, the full connections between neighbours as grey bands, and each
/// long-range link as an arc from its unit to the layer that reads it, coloured by how many layers it spans.
///
/// # Errors
/// When the graph declares no cell.
pub fn wiring(graph: &Graph) -> Result<Figure> {
    let layers: Vec<NodeId> = graph.cells.iter().flatten().copied().collect();
    if layers.is_empty() {
        return Err(Error::mismatch(format!("{}: wiring", graph.name), "at least one cell", "none"));
    }
    // By columns, through all cells.
    let mut links: Vec<Link> = Vec::new();
    for (at, cell) in graph.cells.iter().enumerate() {
        let before: usize = graph.cells[..at].iter().map(Vec::len).sum();
        links.extend(nn_mass::links(graph, cell).into_iter().map(|link| Link { from: link.from + before, to: link.to + before, ..link }));
    }
    let rows = |layer: NodeId| graph.node(layer).shape[0].min(ROWS);
    let tallest = layers.iter().map(|&layer| rows(layer)).max().unwrap_or(1) as f64 * ROW;
    let longest = links.iter().map(|link| link.to - link.from).max().unwrap_or(0);
    // An arc rises with its span.
    let rise = |span: usize| 16.0 + 64.0 * (span as f64 / longest.max(1) as f64).sqrt();
    let top = MARGIN + if links.is_empty() { 0.0 } else { rise(longest) };
    let x = |at: usize| MARGIN + 40.0 + COLUMN * at as f64;
    let y = |layer: NodeId, unit: usize| top + (tallest - rows(layer) as f64 * ROW) / 2.0 + (unit.min(ROWS - 1) as f64 + 0.5) * ROW;
    let (width, height) = (x(layers.len() - 1) + MARGIN + 20.0, top + tallest + 64.0);

    let mut body = String::new();
    for (at, pair) in layers.windows(2).enumerate() {
        let ends =
            [(x(at) + 6.0, pair[0]), (x(at + 1) - 6.0, pair[1])].map(|(x, layer)| (x, y(layer, 0) - 6.0, y(layer, rows(layer) - 1) + 6.0));
        let [(x0, low0, high0), (x1, low1, high1)] = ends;
        put(
            &mut body,
            format_args!(
                r##"<polygon points="{x0:.1},{low0:.1} {x1:.1},{low1:.1} {x1:.1},{high1:.1} {x0:.1},{high0:.1}" fill="#8a8f98" opacity="0.16"/>"##
            ),
        );
    }
    for link in &links {
        let (x0, y0, x1) = (x(link.from), y(layers[link.from], link.channel), x(link.to));
        let y1 = y(layers[link.to], 0) - 10.0;
        let peak = y1.min(y(layers[link.from], 0)) - rise(link.to - link.from);
        let colour = shade((link.to - link.from) as f64 / longest.max(1) as f64);
        let title = format!("unit {} of layer {} to layer {}", link.channel, link.from, link.to);
        put(
            &mut body,
            format_args!(
                r#"<path d="M{x0:.1},{y0:.1} C{:.1},{peak:.1} {:.1},{peak:.1} {x1:.1},{y1:.1}" fill="none" stroke="{colour}" stroke-width="1.1" opacity="0.7"><title>{title}</title></path>"#,
                x0 + 14.0,
                x1 - 10.0,
            ),
        );
    }
    for (at, &layer) in layers.iter().enumerate() {
        let units = graph.node(layer).shape[0];
        for unit in 0..rows(layer) {
            put(
                &mut body,
                format_args!(r##"<circle cx="{:.1}" cy="{:.1}" r="4.2" fill="#1d4e89" stroke="white"/>"##, x(at), y(layer, unit)),
            );
        }
        let name = graph.node(layer).name.rsplit('.').next().unwrap_or_default();
        let base = top + tallest + 16.0;
        put(&mut body, format_args!(r##"<text x="{:.1}" y="{base:.1}" text-anchor="middle" font-weight="600">{name}</text>"##, x(at)));
        put(&mut body, format_args!(r##"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="#667">{units}</text>"##, x(at), base + 15.0));
    }
    let summary = format!(
        "{} · NN-Mass {:.2} · {} links · {} parameters",
        graph.name,
        nn_mass::of(graph)?,
        links.len(),
        count(profile::of(graph).params as i64),
    );
    put(&mut body, format_args!(r##"<text x="{MARGIN}" y="{:.1}" fill="#334">{summary}</text>"##, height - 12.0));
    let svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" font-family="Helvetica, Arial, sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>{body}</svg>"#
    );
    Ok(Figure::from_svg(svg, width as u32, height as u32))
}
