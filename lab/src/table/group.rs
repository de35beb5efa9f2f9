//! Rows that agree in some columns: groups of one table, partners of two.
//!
//! polars has both, in its lazy half, which would bring six more crates and a tenth of the build.

use std::collections::BTreeMap;

use polars::prelude::{self as pl, DataFrame, IdxCa, IdxSize};

use super::datum::{self, Datum};
use crate::{Error, Result, Table};

/// One cell as a key: equal where the values are equal, not where they only look so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Missing,
    Bool(bool),
    Int(i64),
    /// The bits of a value, the same for all NaN and for both zeros.
    Float(u64),
    Text(String),
}

impl From<Datum> for Key {
    fn from(datum: Datum) -> Self {
        match datum {
            Datum::Missing => Self::Missing,
            Datum::Bool(truth) => Self::Bool(truth),
            Datum::Int(count) => Self::Int(count),
            Datum::Float(number) if number.is_nan() => Self::Float(f64::NAN.to_bits()),
            Datum::Float(number) => Self::Float((number + 0.0).to_bits()),
            Datum::Text(text) => Self::Text(text),
        }
    }
}

/// The key of each row.
fn keys(table: &Table, by: &[&str]) -> Result<Vec<Vec<Key>>> {
    let columns = by.iter().map(|name| Ok(datum::read(table.column(name)?).map(Key::from).collect())).collect::<Result<Vec<Vec<Key>>>>()?;
    Ok((0..table.len()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

/// The rows of each group, in the order of their first rows; without columns, all rows are one group, even if there are none.
///
/// # Errors
/// When there is no such column.
pub(super) fn groups(table: &Table, by: &[&str]) -> Result<Vec<Vec<usize>>> {
    if by.is_empty() {
        return Ok(vec![(0..table.len()).collect()]);
    }
    let (mut groups, mut known): (Vec<Vec<usize>>, BTreeMap<Vec<Key>, usize>) = Default::default();
    for (row, key) in keys(table, by)?.into_iter().enumerate() {
        let group = *known.entry(key).or_insert(groups.len());
        if group == groups.len() {
            groups.push(vec![]);
        }
        groups[group].push(row);
    }
    Ok(groups)
}

/// Pairs of rows, of the left table and the right one, that agree in `on`, in the order of the left table's rows. A missing cell agrees
/// with none.
///
/// # Errors
/// When there is no such column, or it has another type in the other table.
pub(super) fn partners(left: &Table, right: &Table, on: &[&str]) -> Result<Vec<(usize, usize)>> {
    for name in on {
        let (left, right) = (left.column(name)?.dtype(), right.column(name)?.dtype());
        if left != right {
            return Err(Error::mismatch(format!("join: column `{name}`"), format!("{left} in both tables"), format!("{right}")));
        }
    }
    let mut rows: BTreeMap<Vec<Key>, Vec<usize>> = BTreeMap::new();
    for (row, key) in keys(right, on)?.into_iter().enumerate() {
        rows.entry(key).or_default().push(row);
    }
    let mut pairs = vec![];
    for (row, key) in keys(left, on)?.into_iter().enumerate() {
        if !key.contains(&Key::Missing) {
            pairs.extend(rows.get(&key).into_iter().flatten().map(|&partner| (row, partner)));
        }
    }
    Ok(pairs)
}

/// These rows of a frame, in this order.
///
/// # Errors
/// When polars cannot take them.
pub(super) fn take(frame: &DataFrame, rows: impl IntoIterator<Item = usize>) -> pl::PolarsResult<DataFrame> {
    frame.take(&IdxCa::from_vec("rows".into(), rows.into_iter().map(|row| row as IdxSize).collect()))
}
