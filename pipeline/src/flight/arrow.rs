//! The messages of Arrow's [IPC format](https://arrow.apache.org/docs/format/Columnar.html) that a flight is made of: a schema, and the metadata of
//! a record batch.
//!
//! `format/Message.fbs` and `format/Schema.fbs` of Apache Arrow number the fields of each table, and these numbers stand here. Of the types there are
//! only those that our columns have; a message with another is an error. What is written are the bytes that the crate `arrow-ipc` writes
//! (`tests/golden/flight`), which compiles for minutes, most of it for types and kernels that no flight has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Push, TableFinishedWIPOffset, VOffsetT, Vector, WIPOffset};

use crate::flatbuffer::Table;

/// A schema: its columns, and what else is known, by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schema<'a> {
    pub(super) fields: Vec<Field<'a>>,
    pub(super) metadata: Metadata<'a>,
}

/// Values by their keys. What is read is borrowed, so that a message that names the same text many times costs no more memory than others.
pub(super) type Metadata<'a> = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

/// A column that has no nulls, or the item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) kind: Kind<'a>,
    pub(super) metadata: Metadata<'a>,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    U8,
    U32,
    U64,
    F32,
    /// Lists of so many items each.
    FixedSizeList(Box<Field<'a>>, i32),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::FixedSizeList(item, length) => write!(f, "{} {length} × {item}", self.name),
            kind => write!(f, "{} {kind:?}", self.name),
        }
    }
}

/// What is said of a record batch before its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordBatch {
    /// Number of rows.
    pub(super) rows: usize,
    /// Length of each column and each list's items, in the order of the schema. None has a null.
    pub(super) lengths: Vec<usize>,
    /// Where each buffer lies in the body.
    pub(super) buffers: Vec<Range<usize>>,
    /// Bytes of the body.
    pub(super) body: usize,
}

/// Numbers of `MessageHeader` and of `Type`, and the version of the format, `V5`.
const SCHEMA: u8 = 1;
const RECORD_BATCH: u8 = 3;
const INT: u8 = 2;
const FLOAT: u8 = 3;
const FIXED_SIZE_LIST: u8 = 16;
const V5: i16 = 4;
/// `Precision`: 32 bits.
const SINGLE: i16 = 1;
/// Most columns, buffers, and entries of metadata: so that no crafted message can name the same bytes many times.
const MOST: usize = 64;
/// What stands before a message in a stream of them.
const MARK: [u8; 4] = [0xff; 4];

type Builder = FlatBufferBuilder<'static>;
type Written = WIPOffset<TableFinishedWIPOffset>;
type List<T> = WIPOffset<Vector<'static, T>>;

impl<'a> Schema<'a> {
    /// As a message.
    pub(super) fn write(&self) -> Bytes {
        let builder = &mut Builder::new();
        let fields: Vec<Written> = self.fields.iter().map(|field| write_field(builder, field)).collect();
        let fields = builder.create_vector(&fields);
        let metadata = write_metadata(builder, &self.metadata);
        let schema = table(builder, |table| {
            put(table, 1, fields);
            if let Some(metadata) = metadata {
                put(table, 2, metadata);
            }
        });
        message(builder, SCHEMA, schema, 0)
    }

    /// The schema that this message is, by itself or as [`encapsulated`] makes it.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, String> {
        let message = match message.strip_prefix(&MARK) {
            Some(rest) => stripped(rest).ok_or_else(|| format!("wanted a message behind its length, found {} bytes", message.len()))?,
            None => message,
        };
        let (schema, _) = header(message, SCHEMA, "a schema")?;
        if schema.i16(0).unwrap_or(0) != 0 {
            return Err("wanted a schema of little-endian values".to_owned());
        }
        let fields = schema.tables(1).filter(|fields| fields.len() <= MOST);
        let fields = fields.ok_or_else(|| format!("wanted a schema of at most {MOST} columns"))?;
        let fields = fields.into_iter().map(|field| read_field(field, true)).collect::<Result<_, _>>()?;
        Ok(Self { fields, metadata: read_metadata(schema, 2, "the schema")? })
    }
}

impl RecordBatch {
    /// As a message.
    pub(super) fn write(&self) -> Bytes {
        let builder = &mut Builder::new();
        let nodes = pairs(builder, self.lengths.iter().map(|&length| [length, 0]));
        let buffers = pairs(builder, self.buffers.iter().map(|buffer| [buffer.start, buffer.len()]));
        let batch = table(builder, |table| {
            put_unless(table, 0, self.rows as i64, 0);
            put(table, 1, nodes);
            put(table, 2, buffers);
        });
        message(builder, RECORD_BATCH, batch, self.body)
    }

    /// The metadata that this message is. Buffers lie in the body.
    pub(super) fn read(message: &[u8]) -> Result<Self, String> {
        let (batch, body) = header(message, RECORD_BATCH, "a record batch")?;
        if batch.table(3).is_some() {
            return Err("wanted a record batch that is not compressed".to_owned());
        }
        let list = |number, what| {
            let list = batch.structs(number).filter(|list| list.left() <= MOST);
            let mut list = list.ok_or_else(|| format!("wanted a record batch with at most {MOST} {what}"))?;
            let pairs: Vec<(i64, i64)> = list.by_ref().collect();
            match list.left() {
                0 => Ok(pairs),
                left => Err(format!("wanted {left} more {what}, found the end of the message")),
            }
        };
        let lengths = list(1, "lengths of columns")?.into_iter().map(|(length, nulls)| match (usize::try_from(length), nulls) {
            (Ok(length), 0) => Ok(length),
            _ => Err(format!("wanted a column without nulls, found {nulls} in {length} rows")),
        });
        let buffers = list(2, "buffers")?.into_iter().map(|(start, length)| {
            let range = usize::try_from(start).ok().zip(usize::try_from(length).ok());
            let range = range.and_then(|(start, length)| Some(start..start.checked_add(length)?));
            range
                .filter(|range| range.end <= body)
                .ok_or_else(|| format!("wanted buffers within a body of {body} bytes, found {length} bytes from byte {start} on"))
        });
        let rows = batch.i64(0).unwrap_or(0);
        let rows = usize::try_from(rows).map_err(|_| format!("wanted a number of rows, found {rows}"))?;
        Ok(Self { rows, lengths: lengths.collect::<Result<_, _>>()?, buffers: buffers.collect::<Result<_, _>>()?, body })
    }
}

/// A message that stands for itself, as `FlightInfo` wants it: a mark, a length, and the metadata padded to eight bytes.
pub(super) fn encapsulated(metadata: &[u8]) -> Bytes {
    let padded = metadata.len().next_multiple_of(8);
    let mut message = BytesMut::with_capacity(8 + padded);
    message.put_slice(&MARK);
    message.put_u32_le(padded as u32);
    message.put_slice(metadata);
    message.put_bytes(0, padded - metadata.len());
    message.freeze()
}

/// The message behind its mark.
fn stripped(rest: &[u8]) -> Option<&[u8]> {
    let (length, message) = rest.split_first_chunk()?;
    message.get(..u32::from_le_bytes(*length) as usize)
}

/// Where a table says at which offset it has the field of this number: behind two lengths, of two bytes each as it is itself.
fn slot(number: VOffsetT) -> VOffsetT {
    4 + 2 * number
}

fn put(builder: &mut Builder, number: VOffsetT, value: impl Push) {
    builder.push_slot_always(slot(number), value);
}

/// A value, left out where it is what a reader takes for one that is left out.
fn put_unless<T: Push + PartialEq>(builder: &mut Builder, number: VOffsetT, value: T, default: T) {
    builder.push_slot(slot(number), value, default);
}

fn table(builder: &mut Builder, fill: impl FnOnce(&mut Builder)) -> Written {
    let start = builder.start_table();
    fill(builder);
    builder.end_table(start)
}

/// A list of structs of two long integers.
fn pairs(builder: &mut Builder, pairs: impl DoubleEndedIterator<Item = [usize; 2]> + ExactSizeIterator) -> List<i64> {
    let count = pairs.len();
    builder.start_vector::<i64>(2 * count);
    // A builder writes from the end.
    for [first, second] in pairs.rev() {
        builder.push(second as i64);
        builder.push(first as i64);
    }
    builder.end_vector::<i64>(count)
}

fn message(builder: &mut Builder, kind: u8, header: Written, body: usize) -> Bytes {
    let message = table(builder, |table| {
        put_unless(table, 0, V5, 0);
        put_unless(table, 1, kind, 0);
        put_unless(table, 3, body as i64, 0);
        put(table, 2, header);
    });
    builder.finish(message, None);
    Bytes::copy_from_slice(builder.finished_data())
}

fn write_field(builder: &mut Builder, field: &Field<'_>) -> Written {
    let metadata = write_metadata(builder, &field.metadata);
    let name = builder.create_string(&field.name);
    let int = |builder: &mut Builder, bits: i32| {
        let children = builder.create_vector::<Written>(&[]);
        (INT, table(builder, |table| put_unless(table, 0, bits, 0)), children)
    };
    let (number, kind, children) = match &field.kind {
        Kind::U8 => int(builder, 8),
        Kind::U32 => int(builder, 32),
        Kind::U64 => int(builder, 64),
        Kind::F32 => {
            let children = builder.create_vector::<Written>(&[]);
            (FLOAT, table(builder, |table| put_unless(table, 0, SINGLE, 0)), children)
        }
        Kind::FixedSizeList(item, length) => {
            let item = write_field(builder, item);
            let list = table(builder, |table| put_unless(table, 0, *length, 0));
            (FIXED_SIZE_LIST, list, builder.create_vector(&[item]))
        }
    };
    table(builder, |table| {
        put(table, 0, name);
        put_unless(table, 2, number, 0);
        put(table, 5, children);
        put(table, 3, kind);
        if let Some(metadata) = metadata {
            put(table, 6, metadata);
        }
    })
}

fn write_metadata(builder: &mut Builder, metadata: &Metadata<'_>) -> Option<List<ForwardsUOffset<TableFinishedWIPOffset>>> {
    let mut entry = |(key, value): (&Cow<'_, str>, &Cow<'_, str>)| {
        let (key, value) = (builder.create_string(key), builder.create_string(value));
        table(builder, |table| {
            put(table, 0, key);
            put(table, 1, value);
        })
    };
    let entries: Vec<Written> = metadata.iter().map(&mut entry).collect();
    (!entries.is_empty()).then(|| builder.create_vector(&entries))
}

/// The header of a message of this kind, and the length of its body.
fn header<'a>(message: &'a [u8], kind: u8, what: &str) -> Result<(Table<'a>, usize), String> {
    let root = Table::root(message).and_then(|root| Some((root, root.u8(1)?)));
    let (root, found) = root.ok_or_else(|| format!("wanted {what} as a message of Arrow, found {} other bytes", message.len()))?;
    if found != kind {
        return Err(format!("wanted {what}, found a message of kind {found}"));
    }
    let body = root.i64(3).unwrap_or(0);
    let body = usize::try_from(body).map_err(|_| format!("wanted the length of a body, found {body}"))?;
    Ok((root.table(2).ok_or_else(|| format!("wanted {what}, found a message without one"))?, body))
}

fn read_field(field: Table<'_>, outermost: bool) -> Result<Field<'_>, String> {
    let name = field.text(0).ok_or("wanted a column with a name")?;
    let kind = field.u8(2).unwrap_or(0);
    let about = field.table(3).ok_or_else(|| format!("column `{name}`: wanted a type"))?;
    if field.u8(1).unwrap_or(0) != 0 || field.table(4).is_some() {
        return Err(format!("column `{name}`: wanted one without nulls and without a dictionary"));
    }
    let kind = match kind {
        INT => match (about.i32(0).unwrap_or(0), about.u8(1).unwrap_or(0)) {
            (8, 0) => Kind::U8,
            (32, 0) => Kind::U32,
            (64, 0) => Kind::U64,
            (bits, signed) => {
                let sign = if signed == 0 { "unsigned" } else { "signed" };
                return Err(format!("column `{name}`: wanted unsigned integers of 8, 32 or 64 bits, found {sign} ones of {bits}"));
            }
        },
        FLOAT => match about.i16(0).unwrap_or(0) {
            SINGLE => Kind::F32,
            other => return Err(format!("column `{name}`: wanted floats of 32 bits, found the precision {other}")),
        },
        FIXED_SIZE_LIST if outermost => {
            let length = about.i32(0).unwrap_or(0);
            match field.tables(5).as_deref() {
                Some(&[item]) => Kind::FixedSizeList(Box::new(read_field(item, false)?), length),
                _ => return Err(format!("column `{name}`: wanted lists of one type of item")),
            }
        }
        other => return Err(format!("column `{name}`: wanted integers, floats, or lists of these of one length, found the type {other}")),
    };
    let metadata = read_metadata(field, 6, name)?;
    Ok(Field { name: name.into(), kind, metadata })
}

/// The metadata of a field or a schema; none is written as nothing.
fn read_metadata<'a>(of: Table<'a>, number: usize, name: &str) -> Result<Metadata<'a>, String> {
    let entries = of.tables(number).unwrap_or_default();
    if entries.len() > MOST {
        return Err(format!("metadata of {name}: wanted at most {MOST} entries, found {}", entries.len()));
    }
    let entry = |entry: &Table<'a>| Some((entry.text(0)?.into(), entry.text(1)?.into()));
    let entries = entries.iter().map(entry).collect::<Option<_>>();
    entries.ok_or_else(|| format!("metadata of {name}: wanted pairs of keys and values in UTF-8"))
}

#[cfg(test)]
mod tests;
