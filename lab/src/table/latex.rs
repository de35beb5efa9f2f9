//! A table for a paper.

use super::datum::{self, Datum};
use crate::Table;
use crate::show::number;

/// A `tabular` with the rules of the package booktabs.
pub(super) fn latex(table: &Table) -> String {
    let columns: Vec<Vec<Datum>> = table.frame().columns().iter().map(|column| datum::read(column).collect()).collect();
    let is_text = |cells: &Vec<Datum>| cells.iter().any(|cell| matches!(cell, Datum::Text(_) | Datum::Bool(_)));
    let align: String = columns.iter().map(|cells| if is_text(cells) { 'l' } else { 'r' }).collect();
    let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let mut text = format!("\\begin{{tabular}}{{{align}}}\n\\toprule\n");
    text += &line(table.names().iter().map(|name| escaped(name)).collect());
    text += "\\midrule\n";
    for row in 0..table.len() {
        text += &line(columns.iter().map(|cells| cell(&cells[row])).collect());
    }
    text + "\\bottomrule\n\\end{tabular}\n"
}

fn cell(datum: &Datum) -> String {
    match datum {
        Datum::Missing => "--".to_owned(),
        Datum::Float(value) => match number::short(*value).split_once('e') {
            Some((digits, exponent)) => format!("${digits} \\times 10^{{{exponent}}}$"),
            None => format!("${}$", number::short(*value)),
        },
        other => escaped(&other.to_string()),
    }
}

/// Text that means itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', c]),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '\\' => escaped.push_str("\\textbackslash{}"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
