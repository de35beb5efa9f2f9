//! A whole network from top to bottom: boxes, edges, and skips that can be followed.

use std::collections::BTreeSet;

use super::layout::{self, Layout, RANK_GAP};
use super::tiles::{self, Kind, Tile, Tiles};
use super::{put, shade};
use crate::Figure;
use crate::figure::style::{cut, document, text_width};
use crate::graph::Graph;
use crate::metrics::profile;
use crate::show::escape;
use crate::show::number::count;

/// Around the picture, above it for title and legend, and around a scope.
const MARGIN: f64 = 24.0;
const HEAD: f64 = 62.0;
const INSET: f64 = 9.0;
/// A box: height, least and greatest width, room beside its text.
const HEIGHT: f64 = 36.0;
const WIDTH: (f64, f64) = (96.0, 300.0);
const PADDING: f64 = 9.0;
/// Sizes of text, in pixels.
const TITLE: f64 = 11.5;
const NOTE: f64 = 9.5;

/// The network as boxes from top to bottom. A layer with its batch norm and activation is one box, with its name and the shape of its
/// value; an edge that passes over others is coloured by how many it passes, from amber to violet; blocks of the builder are framed.
pub fn network(graph: &Graph) -> Figure {
    let drawn = tiles::gather(graph);
    let names = short_names(&drawn);
    let sizes: Vec<(f64, f64)> = drawn.tiles.iter().zip(&names).map(|(drawn, name)| (width(drawn, name), HEIGHT)).collect();
    let layout = layout::layered(&sizes, &drawn.edges);
    let frames = frames(&drawn, &layout, &sizes);

    let mut body = String::new();
    for (scope, [left, top, right, bottom]) in &frames {
        put(
            &mut body,
            format_args!(
                r##"<rect x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}" rx="8" fill="#f4f5f7" stroke="#dfe2e6"/>"##,
                right - left,
                bottom - top
            ),
        );
        let scope = escape(scope);
        put(
            &mut body,
            format_args!(r##"<text x="{:.1}" y="{:.1}" font-size="{NOTE}" fill="#889">{scope}</text>"##, left + 6.0, top + 10.0),
        );
    }
    let passes = |&(from, to): &(usize, usize)| layout.ranks[to] - layout.ranks[from] - 1;
    let longest = drawn.edges.iter().map(passes).max().unwrap_or(0);
    // The longest lie lowest.
    let mut order: Vec<usize> = (0..drawn.edges.len()).collect();
    order.sort_by_key(|&edge| std::cmp::Reverse(passes(&drawn.edges[edge])));
    for edge in order {
        let (from, to) = drawn.edges[edge];
        let (colour, width) = match passes(&drawn.edges[edge]) {
            0 => ("#7a828c".to_owned(), 1.2),
            over => (shade(over as f64 / longest as f64), 1.5),
        };
        let title = escape(&format!("{} to {}", drawn.tiles[from].name, drawn.tiles[to].name));
        let path = path(&layout, &sizes, edge, from, to);
        put(
            &mut body,
            format_args!(
                r##"<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" marker-end="url(#tip)"><title>{title}</title></path>"##
            ),
        );
    }
    for (at, drawn) in drawn.tiles.iter().enumerate() {
        put(&mut body, format_args!("{}", a_box(drawn, &names[at], layout.centres[at], sizes[at].0)));
    }
    let (x, y) = layout.centres[drawn.output];
    put(
        &mut body,
        format_args!(
            r##"<text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="{NOTE}" fill="#889">output</text>"##,
            y + HEIGHT / 2.0 + 13.0
        ),
    );

    let profile = profile::of(graph);
    let summary = format!("{} parameters · {} multiply-adds a sample", count(profile.params as i64), count(profile.macs as i64));
    let (legend, legend_width) = legend(&drawn, longest);
    let head = text_width(&graph.name, 15.0).max(text_width(&summary, 11.0)).max(legend_width);
    let (wide, high) = (layout.size.0.max(head) + 2.0 * MARGIN, layout.size.1 + HEAD + 2.0 * MARGIN);
    let content = format!(
        r##"<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5.5" markerHeight="5.5" orient="auto"><path d="M0,0.8 L7.5,4 L0,7.2 z" fill="#7a828c"/></marker></defs>
<g font-family="Helvetica, Arial, sans-serif" fill="#333"><text x="{MARGIN}" y="24" font-size="15" font-weight="bold">{}</text>
<text x="{MARGIN}" y="42" font-size="11" fill="#667">{summary}</text>
<g transform="translate({MARGIN}, 60)">{legend}</g>
<g transform="translate({:.1}, {:.1})">{body}</g></g>
"##,
        escape(&graph.name),
        (wide - layout.size.0) / 2.0,
        HEAD + MARGIN,
    );
    let size = (wide.ceil() as u32, high.ceil() as u32);
    Figure::from_svg(document(size, size, &content), size.0, size.1)
}

/// Names without the scope that a frame names already.
fn short_names(drawn: &Tiles) -> Vec<String> {
    let mut names: Vec<String> = drawn.tiles.iter().map(|drawn| drawn.name.clone()).collect();
    for (scope, members) in &drawn.scopes {
        for &at in members {
            names[at] = drawn.tiles[at].name[scope.len() + 1..].to_owned();
        }
    }
    names
}

fn width(drawn: &Tile, name: &str) -> f64 {
    let note = text_width(name, NOTE) + 12.0 + text_width(&drawn.shape, NOTE);
    // Rounded up, so that what fits is not cut for a rounding.
    (text_width(&drawn.title, TITLE).max(note) + 2.0 * PADDING).ceil().clamp(WIDTH.0, WIDTH.1)
}

fn a_box(drawn: &Tile, name: &str, (x, y): (f64, f64), width: f64) -> String {
    let colour = drawn.kind.colour();
    let (left, top) = (x - width / 2.0, y - HEIGHT / 2.0);
    let room = width - 2.0 * PADDING;
    let title = escape(&cut(&drawn.title, TITLE, room));
    let name_room = room - text_width(&drawn.shape, NOTE) - 8.0;
    let short = escape(&cut(name, NOTE, name_room));
    format!(
        r##"<g><title>{}</title><rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{HEIGHT}" rx="5" fill="#fff"/><rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{HEIGHT}" rx="5" fill="{colour}" fill-opacity="0.13" stroke="{colour}" stroke-width="1.2"/><text x="{x:.1}" y="{:.1}" text-anchor="middle" font-size="{TITLE}">{title}</text><text x="{:.1}" y="{:.1}" font-size="{NOTE}" fill="#667">{short}</text><text x="{:.1}" y="{:.1}" text-anchor="end" font-size="{NOTE}" fill="#667">{}</text></g>"##,
        escape(&format!("{}: {} → {}", drawn.name, drawn.title, drawn.shape)),
        top + 15.0,
        left + PADDING,
        top + 28.5,
        left + width - PADDING,
        top + 28.5,
        drawn.shape,
    )
}

/// From the lower side of a box, straight down through the ranks that it passes, to the upper side of another.
fn path(layout: &Layout, sizes: &[(f64, f64)], edge: usize, from: usize, to: usize) -> String {
    let ways = &layout.ways[edge];
    let ((x0, y0), (x1, y1)) = (layout.centres[from], layout.centres[to]);
    // Towards where it goes, so that edges fan out along the side.
    let port = |x: f64, other: f64, width: f64| x + ((other - x) * 0.35).clamp(-0.36 * width, 0.36 * width);
    let (next, last) = (ways.first().map_or(x1, |way| way.0), ways.last().map_or(x0, |way| way.0));
    let start = (port(x0, next, sizes[from].0), y0 + HEIGHT / 2.0);
    let end = (port(x1, last, sizes[to].0), y1 - HEIGHT / 2.0 - 1.0);
    let mut path = format!("M{:.1},{:.1}", start.0, start.1);
    let mut here = start;
    let mut curve = |path: &mut String, to: (f64, f64)| {
        let middle = (here.1 + to.1) / 2.0;
        put(path, format_args!(" C{:.1},{middle:.1} {:.1},{middle:.1} {:.1},{:.1}", here.0, to.0, to.0, to.1));
        here = to;
    };
    for &(x, top, bottom) in ways {
        curve(&mut path, (x, top));
        curve(&mut path, (x, bottom));
    }
    curve(&mut path, end);
    path
}

/// For each scope that nothing else comes into the way of: left, top, right, bottom.
fn frames(drawn: &Tiles, layout: &Layout, sizes: &[(f64, f64)]) -> Vec<(String, [f64; 4])> {
    let extent = |at: usize| {
        let ((x, y), (width, height)) = (layout.centres[at], sizes[at]);
        [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
    };
    let frame = |members: &[usize]| {
        let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        let all = members
            .iter()
            .map(|&at| extent(at))
            .fold(start, |all, own| [all[0].min(own[0]), all[1].min(own[1]), all[2].max(own[2]), all[3].max(own[3])]);
        [all[0] - INSET, all[1] - RANK_GAP / 2.0, all[2] + INSET, all[3] + INSET]
    };
    let meet = |a: [f64; 4], b: [f64; 4]| a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    let framed: Vec<(&String, &Vec<usize>, [f64; 4])> =
        drawn.scopes.iter().map(|(scope, members)| (scope, members, frame(members))).collect();
    let free = |(scope, members, own): &(&String, &Vec<usize>, [f64; 4])| {
        let strangers = (0..sizes.len()).filter(|at| !members.contains(at)).all(|at| !meet(*own, extent(at)));
        strangers && framed.iter().filter(|other| other.0 != *scope).all(|other| !meet(*own, other.2))
    };
    framed.iter().filter(|frame| free(frame)).map(|(scope, _, own)| ((*scope).clone(), *own)).collect()
}

/// Kinds that are there, and what coloured edges are; with its width.
fn legend(drawn: &Tiles, longest: usize) -> (String, f64) {
    let kinds: BTreeSet<Kind> = drawn.tiles.iter().map(|drawn| drawn.kind).collect();
    let mut legend = String::new();
    let mut x = 0.0;
    let mut entry = |symbol: String, label: &str, symbol_width: f64| {
        let text = x + symbol_width + 5.0;
        put(&mut legend, format_args!(r##"<g transform="translate({x:.1}, 0)">{symbol}</g>"##));
        put(&mut legend, format_args!(r##"<text x="{text:.1}" y="9" font-size="10" fill="#667">{label}</text>"##));
        x = text + text_width(label, 10.0) + 12.0;
    };
    for kind in kinds {
        let colour = kind.colour();
        entry(
            format!(r#"<rect width="10" height="10" rx="2" fill="{colour}" fill-opacity="0.13" stroke="{colour}"/>"#),
            kind.label(),
            10.0,
        );
    }
    if longest > 0 {
        let step = |k: usize| {
            let colour = shade((k + 1) as f64 / 4.0);
            format!(r#"<line x1="{}" y1="5" x2="{}" y2="5" stroke="{colour}" stroke-width="2"/>"#, 7 * k, 7 * k + 7)
        };
        let over = if longest == 1 { "one rank".to_owned() } else { format!("1 to {longest} ranks") };
        entry((0..4).map(step).collect(), &format!("skip over {over}"), 28.0);
    }
    (legend, x)
}
