//! A table as text and as HTML.

use super::datum::{self, Datum};
use crate::Table;
use crate::show::{escape, number};

/// Rows that are shown at the beginning and at the end of a table that is longer than both together.
const FIRST: usize = 20;
const LAST: usize = 5;

/// Characters of a text cell that are shown.
const WIDEST: usize = 60;

/// What is shown of a table: for each column its name, whether it is flush right, and its cells.
struct Shown {
    columns: Vec<(String, bool, Vec<String>)>,
    /// Rows left out after the first ones; 0 for a short table.
    hidden: usize,
}

fn shown(table: &Table, all: bool) -> Shown {
    let hidden = if !all && table.len() > FIRST + LAST { table.len() - FIRST - LAST } else { 0 };
    let rows: Vec<usize> = (0..table.len()).filter(|&row| hidden == 0 || row < FIRST || row >= FIRST + hidden).collect();
    let column = |column: &polars::prelude::Column| {
        let all: Vec<Datum> = datum::read(column).collect();
        // Numbers that happen to be whole look odd with decimals: a column of depths that a mean made numbers.
        let whole = all.iter().all(|datum| !matches!(datum, Datum::Float(number) if number.fract() != 0.0));
        let right = all.iter().all(|datum| !matches!(datum, Datum::Text(_) | Datum::Bool(_)));
        (column.name().to_string(), right, rows.iter().map(|&row| cell(&all[row], whole)).collect())
    };
    Shown { columns: table.frame().columns().iter().map(column).collect(), hidden }
}

fn cell(datum: &Datum, whole: bool) -> String {
    match datum {
        Datum::Missing => "–".to_owned(),
        Datum::Int(count) => number::count(*count),
        Datum::Float(value) if whole && value.abs() < 1e15 => number::count(*value as i64),
        Datum::Float(value) => number::short(*value),
        Datum::Bool(truth) => truth.to_string(),
        Datum::Text(text) => {
            let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            match line.char_indices().nth(WIDEST) {
                Some((end, _)) => format!("{}…", &line[..end]),
                None => line,
            }
        }
    }
}

/// `12 rows`.
fn footer(rows: usize) -> String {
    format!("{} row{}", number::count(rows as i64), if rows == 1 { "" } else { "s" })
}

pub(super) fn text(table: &Table) -> String {
    let Shown { columns, hidden } = shown(table, false);
    let width = |text: &String| text.chars().count();
    let widths: Vec<usize> = columns.iter().map(|(name, _, cells)| cells.iter().map(width).max().unwrap_or(0).max(width(name))).collect();
    let line = |row: Vec<&String>| {
        let padded: Vec<String> = row
            .into_iter()
            .zip(&columns)
            .zip(&widths)
            .map(|((text, (_, right, _)), &width)| if *right { format!("{text:>width$}") } else { format!("{text:<width$}") })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(columns.iter().map(|(name, _, _)| name).collect());
    let rows = columns.first().map_or(0, |(_, _, cells)| cells.len());
    for row in 0..rows {
        if hidden > 0 && row == FIRST {
            text.push_str("…\n");
        }
        text.push_str(&line(columns.iter().map(|(_, _, cells)| &cells[row]).collect()));
    }
    text + &footer(table.len())
}

pub(super) fn html(table: &Table, all: bool) -> String {
    // Colours come from the page (inherited, and half-transparent grey), so that a dark page stays readable.
    const TABLE: &str =
        "border-collapse:collapse;border:none;font-size:13px;line-height:1.35;font-variant-numeric:tabular-nums;margin:4px 0";
    const HEAD: &str = "padding:3px 12px 3px 4px;font-weight:600;border:none;border-bottom:1.5px solid rgba(128,128,128,.65)";
    const CELL: &str = "padding:2px 12px 2px 4px;border:none;border-bottom:1px solid rgba(128,128,128,.22)";
    const FOOT: &str = "font-size:12px;opacity:.65";
    let Shown { columns, hidden } = shown(table, all);
    let align = |right: bool| if right { "right" } else { "left" };
    let mut html = format!("<table style=\"{TABLE}\"><thead><tr>");
    for (name, right, _) in &columns {
        html.push_str(&format!("<th style=\"text-align:{};{HEAD}\">{}</th>", align(*right), escape(name)));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let rows = columns.first().map_or(0, |(_, _, cells)| cells.len());
    for row in 0..rows {
        if hidden > 0 && row == FIRST {
            html.push_str(&format!("<tr><td colspan=\"{}\" style=\"text-align:center;{CELL}\">⋮</td></tr>\n", columns.len()));
        }
        html.push_str("<tr>");
        for (_, right, cells) in &columns {
            html.push_str(&format!("<td style=\"text-align:{};{CELL}\">{}</td>", align(*right), escape(&cells[row])));
        }
        html.push_str("</tr>\n");
    }
    html + &format!("</tbody></table>\n<div style=\"{FOOT}\">{}</div>", footer(table.len()))
}
