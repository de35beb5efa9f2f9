//! Rows of our own structs, and of JSON lines, as columns.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::datum::{self, Column, Datum};
use crate::{Error, Result, Table};

pub(super) fn from_rows<T: serde::Serialize>(rows: &[T]) -> Result<Table> {
    let mut columns = Columns::default();
    for (index, row) in rows.iter().enumerate() {
        let name = || format!("row {index}");
        // Through text, because that keeps the order of a struct's fields and has one meaning for every kind of struct.
        let text = serde_json::to_string(row).map_err(|source| Error::mismatch(name(), "a row that JSON can hold", source))?;
        columns.push(&text).map_err(|wrong| Error::mismatch(name(), "a struct or a map", wrong))?;
    }
    columns.table()
}

pub(super) fn read(path: &Path) -> Result<Table> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, "read the rows", source))?;
    let mut columns = Columns::default();
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let whole = line.ends_with(b"\n");
        let pushed = match std::str::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => columns.push(text),
            Err(wrong) => Err(wrong.to_string()),
        };
        match pushed {
            Ok(()) => {}
            Err(_) if !whole => tracing::warn!(path = %path.display(), line = index + 1, "the last line is cut short and left out"),
            Err(wrong) => return Err(Error::mismatch(format!("{}: line {}", path.display(), index + 1), "a JSON object", wrong)),
        }
    }
    columns.table()
}

pub(super) fn write(table: &Table, path: &Path) -> Result<()> {
    let names = table.names();
    let columns: Vec<Vec<Datum>> = table.frame().columns().iter().map(|column| datum::read(column).collect()).collect();
    let mut text = String::new();
    for row in 0..table.len() {
        let cells: Vec<String> =
            names.iter().zip(&columns).map(|(name, column)| format!("{}:{}", quoted(name), json(&column[row]))).collect();
        text.push_str(&format!("{{{}}}\n", cells.join(",")));
    }
    std::fs::write(path, text).map_err(|source| Error::io(path, "write the rows", source))
}

fn json(datum: &Datum) -> String {
    match datum {
        Datum::Missing => "null".to_owned(),
        Datum::Bool(truth) => truth.to_string(),
        Datum::Int(count) => count.to_string(),
        Datum::Float(number) if number.is_finite() => format!("{number:?}"),
        Datum::Float(_) => "null".to_owned(),
        Datum::Text(text) => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The elements of lists as rows of their own, and which list each is from.
pub(super) fn unfold(column: &str, lists: &[Datum]) -> Result<(Vec<usize>, Table)> {
    let (mut from, mut columns) = (Vec::new(), Columns::default());
    for (row, cell) in lists.iter().enumerate().filter(|(_, cell)| **cell != Datum::Missing) {
        let wrong = |found: &str| Error::mismatch(format!("column `{column}`, row {row}"), "a list", found);
        let text = cell.to_string();
        let Ok(Json::List(items)) = serde_json::from_str(&text) else { return Err(wrong(&text)) };
        for item in items {
            columns.add(vec![(column.to_owned(), item)]).map_err(|twice| wrong(&twice))?;
            from.push(row);
        }
    }
    Ok((from, columns.table()?))
}

/// Columns that grow by a row, and learn of new names on the way.
#[derive(Default)]
struct Columns {
    rows: usize,
    place: BTreeMap<String, usize>,
    columns: Vec<(String, Vec<Datum>)>,
}

impl Columns {
    /// One more row from its JSON text; what is wrong with it where it is none.
    fn push(&mut self, text: &str) -> Result<(), String> {
        let row: Json = serde_json::from_str(text).map_err(|wrong| wrong.to_string())?;
        let Json::Map(fields) = row else {
            return Err(format!("`{}`", row.text()));
        };
        self.add(fields)
    }

    /// One more row of these fields.
    fn add(&mut self, fields: Vec<(String, Json)>) -> Result<(), String> {
        let mut cells = Vec::new();
        flatten("", fields, &mut cells);
        let mut names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("`{}` twice", twice[0]));
        }
        for (name, cell) in cells {
            let at = *self.place.entry(name).or_insert_with_key(|name| {
                self.columns.push((name.clone(), Vec::new()));
                self.columns.len() - 1
            });
            let column = &mut self.columns[at].1;
            column.resize(self.rows, Datum::Missing);
            column.push(cell);
        }
        self.rows += 1;
        Ok(())
    }

    fn table(self) -> Result<Table> {
        let rows = self.rows;
        Table::new(self.columns.into_iter().map(|(name, mut cells)| {
            cells.resize(rows, Datum::Missing);
            (name, Column::of(cells))
        }))
    }
}

fn flatten(prefix: &str, fields: Vec<(String, Json)>, cells: &mut Vec<(String, Datum)>) {
    for (name, value) in fields {
        let name = format!("{prefix}{name}");
        match value {
            Json::Map(inner) => flatten(&format!("{name}."), inner, cells),
            Json::Cell(cell) => cells.push((name, cell)),
            list @ Json::List(_) => cells.push((name, Datum::Text(list.text()))),
        }
    }
}

/// JSON whose objects keep the order of their fields, which `serde_json::Value` does not promise.
enum Json {
    Cell(Datum),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    fn text(&self) -> String {
        let join = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Cell(cell) => json(cell),
            Self::List(items) => format!("[{}]", join(items.iter().map(Self::text).collect())),
            Self::Map(fields) => {
                format!("{{{}}}", join(fields.iter().map(|(name, value)| format!("{}:{}", quoted(name), value.text())).collect()))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Cell(Datum::Missing))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(Json::Cell(Datum::Bool(truth)))
    }

    fn visit_i64<E>(self, count: i64) -> Result<Json, E> {
        Ok(Json::Cell(Datum::Int(count)))
    }

    fn visit_u64<E>(self, count: u64) -> Result<Json, E> {
        // Beyond 2⁶³ are hashes and seeds: names rather than quantities, so as texts they keep every digit.
        Ok(Json::Cell(i64::try_from(count).map_or_else(|_| Datum::Text(count.to_string()), Datum::Int)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Cell(Datum::Float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Cell(Datum::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Json::Map(map))
    }
}
