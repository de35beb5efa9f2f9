//! Results as a table: read, grouped, joined and shown. The only module that knows polars.
//!
//! A table is a function of files: rows of finished runs, one JSON object a line. A column holds whole numbers, numbers,
//! truth values or texts, and any cell may be missing. Every operation gives a new table and leaves the old one as it is.

mod csv;
mod datum;
mod group;
mod latex;
#[cfg(feature = "parquet")]
mod parquet;
mod render;
mod reshape;
mod rows;

use std::path::Path;

use polars::prelude::{self as pl, DataFrame};

use crate::stats::{self, Fit};
use crate::{Error, Result};
use datasets::Seed;

pub use datum::{Column, Datum, Row};

/// Rows by named columns.
///
/// ```
/// use lab::Table;
///
/// let table = Table::new([("depth", vec![8, 16, 16].into()), ("accuracy", vec![0.5, 0.75, 0.875].into())])?;
/// let means = table.mean(&["accuracy"], &["depth"])?;
/// assert_eq!(means.column_f64("accuracy")?, [0.5, 0.8125]);
/// # Ok::<(), lab::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    frame: DataFrame,
}

impl PartialEq for Table {
    /// Same names, types and cells in the same order; a missing cell equals a missing cell.
    fn eq(&self, other: &Self) -> bool {
        self.frame.equals_missing(&other.frame)
    }
}

impl From<DataFrame> for Table {
    fn from(frame: DataFrame) -> Self {
        Self { frame }
    }
}

impl Table {
    /// A table of these columns, in this order.
    ///
    /// # Errors
    /// When the columns are not equally long, or two have the same name.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Column)>) -> Result<Self> {
        let columns: Vec<pl::Column> = columns.into_iter().map(|(name, column)| column.into_polars(&name.into())).collect();
        if let Some(short) = columns.iter().find(|column| column.len() != columns[0].len()) {
            let (first, wanted) = (columns[0].name(), columns[0].len());
            return Err(Error::mismatch(format!("column `{}`", short.name()), format!("{wanted} rows, as in `{first}`"), short.len()));
        }
        DataFrame::new_infer_height(columns).map(Self::from).map_err(|source| Error::mismatch("columns", "different names", source))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.frame.height()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> Vec<String> {
        self.frame.get_column_names().iter().map(|name| name.to_string()).collect()
    }

    /// The polars frame inside, for whatever is not here.
    pub fn frame(&self) -> &DataFrame {
        &self.frame
    }

    /// The polars frame inside, taken out; back by `Table::from(frame)`.
    pub fn into_frame(self) -> DataFrame {
        self.frame
    }

    /// A column as numbers, a missing cell as NaN, `false` and `true` as 0 and 1.
    ///
    /// # Errors
    /// When there is no such column, or it holds texts.
    pub fn column_f64(&self, name: &str) -> Result<Vec<f64>> {
        Ok(self.column_numbers(name)?.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
    }

    /// A column as numbers, 0 and 1 for `false` and `true`.
    fn column_numbers(&self, name: &str) -> Result<Vec<Option<f64>>> {
        let number = |datum: Datum| match datum {
            Datum::Missing => Ok(None),
            Datum::Bool(truth) => Ok(Some(f64::from(u8::from(truth)))),
            Datum::Int(count) => Ok(Some(count as f64)),
            Datum::Float(number) => Ok(Some(number)),
            Datum::Text(text) => Err(Error::mismatch(format!("column `{name}`"), "numbers", format!("the text \"{text}\""))),
        };
        datum::read(self.column(name)?).map(number).collect()
    }

    /// A column as texts: numbers as they are shown, a missing cell as an empty text.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn column_text(&self, name: &str) -> Result<Vec<String>> {
        Ok(datum::read(self.column(name)?).map(|datum| datum.to_string()).collect())
    }

    /// These columns only, in this order.
    ///
    /// # Errors
    /// When there is no such column, or it is asked for twice.
    pub fn select(&self, names: &[&str]) -> Result<Self> {
        self.need(names)?;
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(Error::mismatch(format!("column `{twice}`"), "each column once", "it twice"));
        }
        let select = self.frame.select(names.iter().copied());
        select.map(Self::from).map_err(|source| Error::mismatch("select", "each column once", source))
    }

    /// The first `n` rows, or all where there are fewer.
    pub fn head(&self, n: usize) -> Self {
        Self { frame: self.frame.head(Some(n)) }
    }

    /// The rows for which `keep` is true.
    ///
    /// ```
    /// # let table = lab::Table::new([("depth", vec![8, 16].into())])?;
    /// let deep = table.filter(|row| row.number("depth") >= 16.0)?;
    /// # assert_eq!(deep.len(), 1);
    /// # Ok::<(), lab::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `keep` asked the row for a column that is not there, or is of another type.
    pub fn filter(&self, mut keep: impl FnMut(&Row) -> bool) -> Result<Self> {
        let kept = datum::map_rows(self, |row| keep(row))?;
        let mask: pl::BooleanChunked = kept.into_iter().collect();
        self.frame.filter(&mask).map(Self::from).map_err(|source| Error::mismatch("filter", "a table that polars can filter", source))
    }

    /// The table with one more column: what `value` gives for each row. A column of this name is replaced.
    ///
    /// ```
    /// # let table = lab::Table::new([("nn_mass", vec![2.0, 22.0].into())])?;
    /// let table = table.with_column("ln_mass", |row| row.number("nn_mass").ln())?;
    /// # assert_eq!(table.column_f64("ln_mass")?, [2.0_f64.ln(), 22.0_f64.ln()]);
    /// # Ok::<(), lab::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `value` asked the row for a column that is not there, or is of another type.
    pub fn with_column<V: Into<Datum>>(&self, name: &str, mut value: impl FnMut(&Row) -> V) -> Result<Self> {
        let column = Column::of(datum::map_rows(self, |row| value(row).into())?);
        let mut frame = self.frame.clone();
        frame
            .with_column(column.into_polars(name))
            .map_err(|source| Error::mismatch(format!("column `{name}`"), "a row for each", source))?;
        Ok(Self { frame })
    }

    /// The rows in ascending order of these columns, the first counting most; missing cells last, equal rows in their old order.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn sort(&self, by: &[&str]) -> Result<Self> {
        self.sorted(by, false)
    }

    /// As [`sort`](Self::sort), the largest first.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn sort_descending(&self, by: &[&str]) -> Result<Self> {
        self.sorted(by, true)
    }

    fn sorted(&self, by: &[&str], descending: bool) -> Result<Self> {
        self.need(by)?;
        let options = pl::SortMultipleOptions::new().with_order_descending(descending).with_nulls_last(true).with_maintain_order(true);
        let sorted = self.frame.sort(by.iter().copied(), options);
        sorted.map(Self::from).map_err(|source| Error::mismatch("sort", "columns that have an order", source))
    }

    /// One row a group: the columns of `by`, then for each `x` of `values` its mean `x` and its unbiased standard deviation
    /// `x_std` (missing in a group of one), then `n`, the rows of the group. Groups come in the order of their first rows;
    /// missing cells are left out of means.
    ///
    /// # Errors
    /// When there is no such column, or one of `values` holds texts.
    pub fn mean(&self, values: &[&str], by: &[&str]) -> Result<Self> {
        self.grouped(values, by, |name, cells| vec![(name.to_owned(), mean(cells)), (format!("{name}_std"), std(cells))])
    }

    /// One row a group: `by`, the named measures of each of `values`, whose cells that are not missing they are given, and `n`.
    fn grouped(&self, values: &[&str], by: &[&str], measures: impl Fn(&str, &[f64]) -> Vec<(String, Option<f64>)>) -> Result<Self> {
        self.need(by)?;
        let columns = values.iter().map(|name| self.column_numbers(name)).collect::<Result<Vec<_>>>()?;
        let groups = group::groups(self, by)?;
        let mut measured: Vec<(String, Vec<Option<f64>>)> = vec![];
        for (name, column) in values.iter().zip(&columns) {
            let mut of_value: Vec<(String, Vec<Option<f64>>)> = vec![];
            for rows in &groups {
                let cells: Vec<f64> = rows.iter().filter_map(|&row| column[row]).collect();
                for (k, (name, measure)) in measures(name, &cells).into_iter().enumerate() {
                    if k == of_value.len() {
                        of_value.push((name, vec![]));
                    }
                    of_value[k].1.push(measure);
                }
            }
            measured.extend(of_value);
        }
        let count = Column::Int(groups.iter().map(|rows| Some(rows.len() as i64)).collect());
        let measured = measured.into_iter().map(|(name, cells)| Column::Float(cells).into_polars(&name));
        let measured: Vec<pl::Column> = measured.chain([count.into_polars("n")]).collect();
        let keys = self
            .frame
            .select(by.iter().copied())
            .and_then(|keys| group::take(&keys, groups.iter().filter_map(|rows| rows.first().copied())));
        let rows = keys.and_then(|keys| DataFrame::new(groups.len(), keys.into_columns().into_iter().chain(measured).collect()));
        rows.map(Self::from).map_err(|source| Error::mismatch("mean", "columns of different names", source))
    }

    /// As [`mean`](Self::mean), with `x_low` and `x_high` after `x_std`: where the mean lies with a confidence of 95 %, as far as the rows of
    /// a group, usually seeds, are draws from one normal distribution ([`stats::mean_interval`]).
    ///
    /// # Errors
    /// As `mean`.
    pub fn summary(&self, values: &[&str], by: &[&str]) -> Result<Self> {
        self.grouped(values, by, |name, cells| {
            let (mean, std) = (mean(cells), std(cells));
            let interval = stats::around(mean.unwrap_or(f64::NAN), std.unwrap_or(f64::NAN), cells.len());
            let known = |end: f64| Some(end).filter(|end| !end.is_nan());
            vec![
                (name.to_owned(), mean),
                (format!("{name}_std"), std),
                (format!("{name}_low"), known(interval.low)),
                (format!("{name}_high"), known(interval.high)),
            ]
        })
    }

    /// The same table with other names for some columns: `(old, new)`.
    ///
    /// # Errors
    /// When there is no such column, or a new name is taken.
    pub fn rename(&self, names: &[(&str, &str)]) -> Result<Self> {
        self.need(&names.iter().map(|(old, _)| *old).collect::<Vec<_>>())?;
        let mut frame = self.frame.clone();
        for (old, new) in names {
            frame.rename(old, (*new).into()).map_err(|source| Error::mismatch("rename", "names of one column each", source))?;
        }
        Ok(Self::from(frame))
    }

    /// The rows of both tables that agree in the columns `on`: this table's columns, then the other's. A row that has no
    /// partner is left out; a name in both tables gets `_right` at the other's. Rows keep this table's order.
    ///
    /// # Errors
    /// When one of `on` is missing in either table, or has another type there.
    pub fn join(&self, other: &Self, on: &[&str]) -> Result<Self> {
        let pairs = group::partners(self, other, on)?;
        let right = other.frame.drop_many(on.iter().copied());
        let joined = group::take(&self.frame, pairs.iter().map(|pair| pair.0)).and_then(|left| {
            let right = group::take(&right, pairs.iter().map(|pair| pair.1))?.into_columns().into_iter().map(|mut column| {
                if left.column(column.name()).is_ok() {
                    column.rename(format!("{}_right", column.name()).into());
                }
                column
            });
            DataFrame::new(pairs.len(), left.columns().iter().cloned().chain(right).collect())
        });
        joined.map(Self::from).map_err(|source| Error::mismatch("join", "columns of different names", source))
    }

    /// The straight line of `y` against `x`, over the rows that have both.
    ///
    /// # Errors
    /// When there is no such column, it holds texts, or [`stats::fit`] refuses.
    pub fn fit(&self, x: &str, y: &str) -> Result<Fit> {
        let (xs, ys) = stats::finite(&self.column_f64(x)?, &self.column_f64(y)?);
        stats::fit(&xs, &ys)
    }

    /// How well each of `xs` alone predicts `y`: a row for `x`, and one for `ln x` over the rows where x is positive.
    ///
    /// Columns: `x`; `r2` with its 95 % bootstrap interval `r2_low` to `r2_high`; Spearman's `spearman`; the number of rows
    /// `n`. Compare rows of equal `n` only: leaving out the networks of mass 0 changes the question.
    ///
    /// # Errors
    /// When there is no such column, it holds texts, or [`stats::fit`] refuses.
    pub fn correlate(&self, y: &str, xs: &[&str], seed: Seed) -> Result<Self> {
        let ys = self.column_f64(y)?;
        let mut rows: Vec<(String, [f64; 4], usize)> = Vec::new();
        for name in xs {
            let plain = self.column_f64(name)?;
            let logs: Vec<f64> = plain.iter().map(|x| x.ln()).collect();
            for (name, xs) in [(name.to_string(), plain), (format!("ln {name}"), logs)] {
                let (xs, ys) = stats::finite(&xs, &ys);
                if name.starts_with("ln ") && xs.len() < 3 {
                    continue;
                }
                let interval = stats::r2_interval(&xs, &ys, seed)?;
                let numbers = [stats::fit(&xs, &ys)?.r2, interval.low, interval.high, stats::spearman(&xs, &ys)?];
                rows.push((name, numbers, xs.len()));
            }
        }
        let numbers = |at: usize| -> Column { rows.iter().map(|row| row.1[at]).collect::<Vec<_>>().into() };
        Self::new([
            ("x", rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>().into()),
            ("r2", numbers(0)),
            ("r2_low", numbers(1)),
            ("r2_high", numbers(2)),
            ("spearman", numbers(3)),
            ("n", rows.iter().map(|row| row.2).collect::<Vec<_>>().into()),
        ])
    }

    /// A table of these rows, in order. Fields of a struct within a row are named `outer.inner`; a list stays as its JSON
    /// text; `None` and NaN are missing cells. A column with whole numbers and others holds numbers; one with texts and
    /// anything else holds texts.
    ///
    /// # Errors
    /// When a row is not a struct or a map, or two of its fields come out with the same name.
    pub fn from_rows<T: serde::Serialize>(rows: &[T]) -> Result<Self> {
        rows::from_rows(rows)
    }

    /// The rows of a file with one JSON object a line, typed as by [`from_rows`](Self::from_rows). Empty lines do not count.
    /// A last line without a line's end that is no JSON was cut short by a kill: it is left out, with a warning to the log.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not a JSON object; the message has the line's number.
    pub fn read_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        rows::read(path.as_ref())
    }

    /// Writes one JSON object a line; numbers that JSON lacks (NaN, infinity) as `null`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_jsonl(&self, path: impl AsRef<Path>) -> Result<()> {
        rows::write(self, path.as_ref())
    }

    /// The rows of a CSV file with a line of names, comma-separated, quoted by RFC 4180. A column's type is what all its cells
    /// are; an empty cell is missing; a quoted cell is a text.
    ///
    /// # Errors
    /// When the file cannot be read, has no line of names, or a record has more or fewer cells than that line.
    pub fn read_csv(path: impl AsRef<Path>) -> Result<Self> {
        csv::read(path.as_ref())
    }

    /// Writes a CSV file that [`read_csv`](Self::read_csv) reads back as the same table: texts that could be taken for
    /// something else are quoted.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        csv::write(self, path.as_ref())
    }

    /// The table as HTML that reads well on a light and on a dark page. A long table shows its first and last rows.
    pub fn html(&self) -> String {
        render::html(self, false)
    }

    /// All rows as a page of HTML.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> Result<()> {
        let page = format!("<!doctype html><meta charset=\"utf-8\">\n{}\n", render::html(self, true));
        std::fs::write(&path, page).map_err(|source| Error::io(path, "write the table", source))
    }

    /// All rows as a `tabular` with the rules of LaTeX's package booktabs.
    pub fn latex(&self) -> String {
        latex::latex(self)
    }

    /// Writes an Apache Parquet file.
    ///
    /// # Errors
    /// When the file cannot be written.
    #[cfg(feature = "parquet")]
    pub fn write_parquet(&self, path: impl AsRef<Path>) -> Result<()> {
        parquet::write(self, path.as_ref())
    }

    /// The cells of a column.
    pub(crate) fn data(&self, name: &str) -> Result<Vec<Datum>> {
        Ok(datum::read(self.column(name)?).collect())
    }

    fn column(&self, name: &str) -> Result<&pl::Column> {
        self.frame.column(name).map_err(|_| self.no_column(name))
    }

    fn need(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.column(name).map(|_| ()))
    }

    fn no_column(&self, name: &str) -> Error {
        Error::mismatch(format!("column `{name}`"), format!("one of {}", self.names().join(", ")), "no such column")
    }
}

/// Of those that are there; `None` where none is.
fn mean(cells: &[f64]) -> Option<f64> {
    (!cells.is_empty()).then(|| stats::mean(cells))
}

/// The deviation of samples; `None` for fewer than two.
fn std(cells: &[f64]) -> Option<f64> {
    (cells.len() > 1).then(|| stats::std_dev(cells))
}

impl std::fmt::Display for Table {
    /// The table as aligned text. A long table shows its first and last rows.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&render::text(self))
    }
}
