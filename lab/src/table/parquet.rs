//! Apache Parquet, for other programs. polars has its own, which would bring an asynchronous runtime and object stores.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;

use super::datum::{self, Column};
use crate::{Error, Result, Table};

pub(super) fn write(table: &Table, path: &Path) -> Result<()> {
    let file = File::create(path).map_err(|source| Error::io(path, "write the table", source))?;
    let columns: Vec<Column> = table.frame().columns().iter().map(|column| Column::of(datum::read(column).collect())).collect();
    write_into(file, &table.names(), &columns).map_err(|error| match error {
        ParquetError::External(cause) => Error::io(path, "write the table", std::io::Error::other(cause)),
        other => Error::io(path, "write the table", std::io::Error::other(other)),
    })
}

fn write_into(file: File, names: &[String], columns: &[Column]) -> Result<(), ParquetError> {
    let field = |(name, column): (&String, &Column)| {
        let (physical, converted) = match column {
            Column::Bool(_) => (Physical::BOOLEAN, ConvertedType::NONE),
            Column::Int(_) => (Physical::INT64, ConvertedType::NONE),
            Column::Float(_) => (Physical::DOUBLE, ConvertedType::NONE),
            Column::Text(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
        };
        let field = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL).with_converted_type(converted);
        field.build().map(Arc::new)
    };
    let fields = names.iter().zip(columns).map(field).collect::<Result<_, _>>()?;
    let schema = Type::group_type_builder("table").with_fields(fields).build()?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default())?;
    let mut rows = writer.next_row_group()?;
    for column in columns {
        match column {
            Column::Bool(cells) => put::<BoolType, _>(&mut rows, cells, |&truth| truth)?,
            Column::Int(cells) => put::<Int64Type, _>(&mut rows, cells, |&count| count)?,
            Column::Float(cells) => put::<DoubleType, _>(&mut rows, cells, |&number| number)?,
            Column::Text(cells) => put::<ByteArrayType, _>(&mut rows, cells, |text| ByteArray::from(text.as_str()))?,
        }
    }
    rows.close()?;
    writer.close().map(drop)
}

/// The next column: its cells, and where there are none.
fn put<P: DataType, T>(
    rows: &mut SerializedRowGroupWriter<'_, File>,
    cells: &[Option<T>],
    value: impl Fn(&T) -> P::T,
) -> Result<(), ParquetError> {
    let mut column = rows.next_column()?.expect("as many as the schema has");
    let values: Vec<P::T> = cells.iter().flatten().map(value).collect();
    let present: Vec<i16> = cells.iter().map(|cell| cell.is_some().into()).collect();
    column.typed::<P>().write_batch(&values, Some(&present), None)?;
    column.close()
}
