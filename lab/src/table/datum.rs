//! One cell, one column, one row; and their way into polars and out of it.

use std::cell::RefCell;
use std::fmt;

use polars::prelude::{self as pl, NamedFrom};

use crate::show::number;
use crate::{Error, Result, Table};

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// Not there.
    Missing,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
}

/// One column: cells of one type, any of which may be missing. Made by `vec![..].into()`.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Truth values.
    Bool(Vec<Option<bool>>),
    /// Whole numbers.
    Int(Vec<Option<i64>>),
    /// Numbers.
    Float(Vec<Option<f64>>),
    /// Texts.
    Text(Vec<Option<String>>),
}

/// One row, as closures of [`Table::filter`] and [`Table::with_column`] see it.
///
/// Asking for a column that is not there does not stop the closure: it gets NaN, an empty text or `false`, and the operation
/// it was given to returns the error.
#[derive(Debug)]
pub struct Row<'a> {
    table: &'a Table,
    index: usize,
    error: &'a RefCell<Option<Error>>,
}

impl Row<'_> {
    /// A cell as a number: NaN where it is missing, 0 and 1 for `false` and `true`.
    pub fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Datum::Float(number) => number,
            Datum::Int(count) => count as f64,
            Datum::Bool(truth) => f64::from(u8::from(truth)),
            Datum::Missing => f64::NAN,
            Datum::Text(text) => self.refuse(name, "a number", format!("the text \"{text}\""), f64::NAN),
        }
    }

    /// A cell as a text: numbers as they are shown, an empty text where it is missing.
    pub fn text(&self, name: &str) -> String {
        self.get(name).to_string()
    }

    /// A truth value; `false` where it is missing.
    pub fn is(&self, name: &str) -> bool {
        match self.get(name) {
            Datum::Bool(truth) => truth,
            Datum::Missing => false,
            other => self.refuse(name, "true or false", other, false),
        }
    }

    /// Whether the cell is missing.
    pub fn is_missing(&self, name: &str) -> bool {
        self.get(name) == Datum::Missing
    }

    fn get(&self, name: &str) -> Datum {
        match self.table.column(name) {
            Ok(column) => cell(column, self.index),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                Datum::Missing
            }
        }
    }

    fn refuse<V>(&self, name: &str, wanted: &str, found: impl ToString, instead: V) -> V {
        let what = format!("column `{name}`, row {}", self.index);
        self.error.borrow_mut().get_or_insert_with(|| Error::mismatch(what, wanted, found));
        instead
    }
}

/// What `f` gives for each row, or the first thing it asked for in vain.
pub(super) fn map_rows<V>(table: &Table, mut f: impl FnMut(&Row) -> V) -> Result<Vec<V>> {
    let error = RefCell::new(None);
    let values = (0..table.len()).map(|index| f(&Row { table, index, error: &error })).collect();
    match error.into_inner() {
        Some(error) => Err(error),
        None => Ok(values),
    }
}

/// The cells of a polars column.
pub(super) fn read(column: &pl::Column) -> impl Iterator<Item = Datum> {
    (0..column.len()).map(|index| cell(column, index))
}

fn cell(column: &pl::Column, index: usize) -> Datum {
    match column.get(index).expect("the index is below the column's length") {
        pl::AnyValue::Null => Datum::Missing,
        pl::AnyValue::Boolean(truth) => Datum::Bool(truth),
        pl::AnyValue::String(text) => Datum::Text(text.to_owned()),
        // A column whose cells are all the same may own its one text.
        pl::AnyValue::StringOwned(text) => Datum::Text(text.to_string()),
        pl::AnyValue::Float64(number) => Datum::Float(number),
        pl::AnyValue::Int64(count) => Datum::Int(count),
        // Frames that a notebook made with polars itself may hold its other types.
        other if column.dtype().is_float() => other.extract::<f64>().map_or(Datum::Missing, Datum::Float),
        other if column.dtype().is_integer() => match other.to_string().parse() {
            Ok(count) => Datum::Int(count),
            Err(_) => Datum::Text(other.to_string()),
        },
        other => Datum::Text(other.to_string()),
    }
}

impl Column {
    /// The narrowest column that holds these: whole numbers become numbers beside numbers, anything a text beside texts (and
    /// truth values beside numbers). A column with nothing in it holds numbers.
    pub fn of(data: Vec<Datum>) -> Self {
        let any = |is: fn(&Datum) -> bool| data.iter().any(is);
        let texts = any(|datum| matches!(datum, Datum::Text(_)));
        let truths = any(|datum| matches!(datum, Datum::Bool(_)));
        let floats = any(|datum| matches!(datum, Datum::Float(_)));
        let ints = any(|datum| matches!(datum, Datum::Int(_)));
        if texts || (truths && (floats || ints)) {
            let text = |datum| match datum {
                Datum::Missing => None,
                Datum::Text(text) => Some(text),
                Datum::Bool(truth) => Some(truth.to_string()),
                Datum::Int(count) => Some(count.to_string()),
                Datum::Float(number) => Some(format!("{number:?}")),
            };
            Self::Text(data.into_iter().map(text).collect())
        } else if truths {
            Self::Bool(data.iter().map(|datum| if let Datum::Bool(truth) = datum { Some(*truth) } else { None }).collect())
        } else if ints && !floats {
            Self::Int(data.iter().map(|datum| if let Datum::Int(count) = datum { Some(*count) } else { None }).collect())
        } else {
            let number = |datum: &Datum| match datum {
                Datum::Int(count) => Some(*count as f64),
                Datum::Float(number) => Some(*number),
                _ => None,
            };
            Self::Float(data.iter().map(number).collect())
        }
    }

    pub(super) fn into_polars(self, name: &str) -> pl::Column {
        let name = name.into();
        match self {
            Self::Bool(cells) => pl::Series::new(name, cells),
            Self::Int(cells) => pl::Series::new(name, cells),
            Self::Float(cells) => pl::Series::new(name, cells),
            Self::Text(cells) => pl::Series::new(name, cells),
        }
        .into()
    }
}

macro_rules! from_cells {
    ($($cell:ty => $column:ident, $into:expr;)*) => {$(
        impl From<Vec<$cell>> for Column {
            fn from(cells: Vec<$cell>) -> Self {
                Self::$column(cells.into_iter().map(|cell| Some($into(cell))).collect())
            }
        }

        impl From<Vec<Option<$cell>>> for Column {
            fn from(cells: Vec<Option<$cell>>) -> Self {
                Self::$column(cells.into_iter().map(|cell| cell.map($into)).collect())
            }
        }

        impl From<$cell> for Datum {
            fn from(cell: $cell) -> Self {
                Self::$column($into(cell))
            }
        }
    )*};
}

from_cells! {
    bool => Bool, |truth| truth;
    i32 => Int, i64::from;
    u32 => Int, i64::from;
    i64 => Int, |count| count;
    usize => Int, |count| i64::try_from(count).expect("nothing is counted beyond 2⁶³");
    f32 => Float, f64::from;
    f64 => Float, |number| number;
    &str => Text, |text: &str| text.to_owned();
    String => Text, |text| text;
}

impl Datum {
    /// As exact text: equal for equal cells of a column alone.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
            Self::Float(number) => number.to_string(),
            Self::Int(count) => count.to_string(),
            other => other.to_string(),
        }
    }
}

impl<T: Into<Datum>> From<Option<T>> for Datum {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Self::Missing, Into::into)
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => Ok(()),
            Self::Bool(truth) => truth.fmt(f),
            Self::Int(count) => count.fmt(f),
            Self::Float(value) => f.write_str(&number::short(*value)),
            Self::Text(text) => f.write_str(text),
        }
    }
}
