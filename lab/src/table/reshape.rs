//! Tables of another shape: rows to columns, columns to rows, lists to rows, several tables to one.

use std::collections::BTreeMap;

use super::{Column, Datum, rows};
use crate::{Error, Result, Table};

impl Table {
    /// One row for each combination of `rows`, one column for each value in `column`, named after it, and in each cell the `value` that
    /// stands there; missing where none does. Rows and columns come in the order of their first appearance.
    ///
    /// # Errors
    /// When there is no such column, or two values belong into one cell: [`mean`](Self::mean) makes one of them.
    pub fn pivot(&self, rows: &[&str], column: &str, value: &str) -> Result<Self> {
        let keys: Vec<Vec<Datum>> = rows.iter().map(|name| self.data(name)).collect::<Result<_>>()?;
        let (heads, values) = (self.data(column)?, self.data(value)?);
        let key = |row: usize| keys.iter().map(|cells| cells[row].key()).collect::<Vec<_>>();
        let (mut lines, mut names): (Vec<(Vec<String>, usize)>, Vec<String>) = (Vec::new(), Vec::new());
        let mut cells: BTreeMap<(usize, usize), Datum> = BTreeMap::new();
        for row in 0..self.len() {
            let (key, head) = (key(row), heads[row].key());
            let line = lines.iter().position(|(line, _)| *line == key).unwrap_or_else(|| {
                lines.push((key, row));
                lines.len() - 1
            });
            let name = names.iter().position(|name| *name == head).unwrap_or_else(|| {
                names.push(head.clone());
                names.len() - 1
            });
            if cells.insert((line, name), values[row].clone()).is_some() {
                let place = format!("pivot: row {}, column `{head}`", lines[line].0.join(", "));
                return Err(Error::mismatch(place, "one value", "another; take means first"));
            }
        }
        let mut columns: Vec<(String, Column)> = Vec::new();
        for (name, cells) in rows.iter().zip(&keys) {
            columns.push((name.to_string(), Column::of(lines.iter().map(|&(_, row)| cells[row].clone()).collect())));
        }
        for (at, name) in names.into_iter().enumerate() {
            let cell = |line: usize| cells.get(&(line, at)).cloned().unwrap_or(Datum::Missing);
            columns.push((name, Column::of((0..lines.len()).map(cell).collect())));
        }
        Self::new(columns)
    }

    /// One row for each row and each of `values`: the columns `keep`, then `variable`, which names the column, and `value`, what stood
    /// in it. So several columns become groups of one figure.
    ///
    /// # Errors
    /// When there is no such column, or one of `values` holds texts.
    pub fn melt(&self, keep: &[&str], values: &[&str]) -> Result<Self> {
        let kept = self.select(keep)?;
        let part = |name: &&str| {
            let value = self.column_f64(name)?;
            let names = Self::new([("variable", Column::from(vec![name.to_string(); value.len()])), ("value", value.into())])?;
            kept.frame.hstack(names.frame.columns()).map_err(|source| Error::mismatch("melt", "columns of different names", source))
        };
        let mut parts = values.iter().map(part).collect::<Result<Vec<_>>>()?.into_iter();
        let Some(mut melted) = parts.next() else { return Err(Error::mismatch("melt: values", "at least one column", "none")) };
        for part in parts {
            melted.vstack_mut(&part).map_err(|source| Error::mismatch("melt", "rows of one kind", source))?;
        }
        Ok(Self::from(melted))
    }

    /// One row for each element of the lists in `column`, which are JSON texts as [`from_rows`](Self::from_rows) leaves them. The element takes
    /// the list's place, a struct as columns `column.field`, after the other columns, which say the same in all rows of a list. An empty list has
    /// no row, nor has a missing one.
    ///
    /// # Errors
    /// When there is no such column, or it holds something else than lists.
    pub fn unfold(&self, column: &str) -> Result<Self> {
        let (from, elements) = rows::unfold(column, &self.data(column)?)?;
        let mut columns: Vec<(String, Column)> = Vec::new();
        for name in self.names().into_iter().filter(|name| name != column) {
            let cells = self.data(&name)?;
            columns.push((name, Column::of(from.iter().map(|&row| cells[row].clone()).collect())));
        }
        for name in elements.names() {
            columns.push((name.clone(), Column::of(elements.data(&name)?)));
        }
        Self::new(columns)
    }

    /// The rows of several tables below one another, after a column `name` that says by their names which table they are of. The columns of the
    /// first table come first; what another lacks is missing there.
    ///
    /// # Errors
    /// When a table has a column `name`.
    pub fn stack(name: &str, tables: &[(&str, &Self)]) -> Result<Self> {
        let mut names: Vec<String> = Vec::new();
        for (_, table) in tables {
            names.extend(table.names().into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        }
        let of = tables.iter().flat_map(|(name, table)| vec![name.to_string(); table.len()]);
        let mut columns = vec![(name.to_owned(), Column::from(of.collect::<Vec<_>>()))];
        for name in names {
            let cells = tables.iter().flat_map(|(_, table)| table.data(&name).unwrap_or_else(|_| vec![Datum::Missing; table.len()]));
            columns.push((name.clone(), Column::of(cells.collect())));
        }
        Self::new(columns)
    }

    /// Each column by the last word of its name, where no other ends in it: `run.architecture.depth` becomes `depth`.
    #[expect(clippy::missing_panics_doc, reason = "no two columns get one name")]
    pub fn short_names(&self) -> Self {
        let names = self.names();
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let alone = |name: &String| names.iter().filter(|other| last(other) == last(name)).count() == 1;
        let short: Vec<(String, String)> = names.iter().filter(|name| alone(name)).map(|name| (name.clone(), last(name))).collect();
        let short: Vec<(&str, &str)> = short.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        self.rename(&short).expect("a word that is the last of one name alone is no other name")
    }
}
