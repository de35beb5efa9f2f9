//! Comma-separated values by RFC 4180, both ways. polars has its own, which would bring a hundred crates and an HTTP client.

use std::path::Path;

use super::datum::{self, Column, Datum};
use crate::{Error, Result, Table};

pub(super) fn write(table: &Table, path: &Path) -> Result<()> {
    let columns: Vec<Vec<Datum>> = table.frame().columns().iter().map(|column| datum::read(column).collect()).collect();
    let mut text = table.names().iter().map(|name| written(name, name.is_empty())).collect::<Vec<_>>().join(",");
    text.push('\n');
    for row in 0..table.len() {
        let cells: Vec<String> = columns.iter().map(|column| cell(&column[row])).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|source| Error::io(path, "write the table", source))
}

fn cell(datum: &Datum) -> String {
    match datum {
        Datum::Missing => String::new(),
        Datum::Bool(truth) => truth.to_string(),
        Datum::Int(count) => count.to_string(),
        // Always with a point or an exponent, so that it is read back as a number and not as a whole number.
        Datum::Float(number) => format!("{number:?}"),
        Datum::Text(text) => written(text, guess(text) != Datum::Text(text.clone())),
    }
}

/// A cell with quotes where it needs them, or where they are asked for.
fn written(text: &str, quoted: bool) -> String {
    match quoted || text.contains(['"', ',', '\n', '\r']) || text.trim() != text {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// What an unquoted cell says.
fn guess(text: &str) -> Datum {
    if text.is_empty() {
        Datum::Missing
    } else if let Ok(truth) = text.parse() {
        Datum::Bool(truth)
    } else if let Ok(count) = text.parse() {
        Datum::Int(count)
    } else if let Ok(number) = text.parse() {
        Datum::Float(number)
    } else {
        Datum::Text(text.to_owned())
    }
}

pub(super) fn read(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, "read the table", source))?;
    let refuse = |line: usize, wanted: String, found: String| Error::mismatch(format!("{}: line {line}", path.display()), wanted, found);
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map_err(|line| refuse(line, "a closing quote".into(), "the file's end".into()))?
        .into_iter();
    let Some((_, header)) = records.next() else {
        return Err(refuse(1, "the columns' names".into(), "an empty file".into()));
    };
    let names: Vec<String> = header.into_iter().map(|cell| cell.text).collect();
    let mut columns: Vec<Vec<Datum>> = vec![Vec::new(); names.len()];
    for (line, record) in records {
        let blank = record.len() == 1 && record[0].text.is_empty() && !record[0].quoted;
        if blank && names.len() > 1 {
            continue;
        }
        if record.len() != names.len() {
            return Err(refuse(line, format!("{} cells", names.len()), record.len().to_string()));
        }
        for (column, cell) in columns.iter_mut().zip(record) {
            column.push(if cell.quoted { Datum::Text(cell.text) } else { guess(&cell.text) });
        }
    }
    Table::new(names.into_iter().zip(columns.into_iter().map(Column::of)))
}

struct Cell {
    text: String,
    quoted: bool,
}

/// The records with the lines they begin on; the line of a quote that nothing closes otherwise.
fn records(text: &str) -> Result<Vec<(usize, Vec<Cell>)>, usize> {
    let mut records = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while chars.peek().is_some() {
        let begins = line;
        let mut record = Vec::new();
        loop {
            let mut cell = Cell { text: String::new(), quoted: chars.next_if_eq(&'"').is_some() };
            if cell.quoted {
                let opened = line;
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => cell.text.push('"'),
                        Some('"') => break,
                        Some(other) => {
                            line += usize::from(other == '\n');
                            cell.text.push(other);
                        }
                        None => return Err(opened),
                    }
                }
            }
            let mut rest = String::new();
            while let Some(other) = chars.next_if(|&next| next != ',' && next != '\n') {
                rest.push(other);
            }
            let ends = chars.next() != Some(',');
            cell.text.push_str(if ends { rest.strip_suffix('\r').unwrap_or(&rest) } else { &rest });
            record.push(cell);
            if ends {
                break;
            }
        }
        line += 1;
        records.push((begins, record));
    }
    Ok(records)
}
