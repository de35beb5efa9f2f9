//! What pyarrow's `serialize` wrote until it was withdrawn: 16 bytes that count what we do not read, and a stream of Arrow messages, a
//! schema and one batch of one row. `format/Message.fbs` and `format/Schema.fbs` of Apache Arrow say what is in them.
//!
//! Only what pairs, lists of keys, and numbers need is read. Any bytes give a value or nothing.

use crate::flatbuffer::{Structs, Table, i64_at, u32_at};

/// A Python value; bytes are borrowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    None,
    Int(i64),
    Bytes(&'a [u8]),
    /// A list or a tuple.
    Sequence(Vec<Value<'a>>),
}

/// The value that was serialised.
pub(super) fn value(bytes: &[u8]) -> Option<Value<'_>> {
    // Numbers of tensors, sparse tensors, arrays and buffers beside the stream.
    let (beside, stream) = bytes.split_first_chunk::<16>()?;
    (*beside == [0; 16]).then_some(())?;
    let (schema, _, rest) = message(stream, SCHEMA)?;
    let (batch, body, _) = message(rest, BATCH)?;
    let fields = schema.header.tables(1)?;
    let [field] = fields.as_slice() else { return None };
    let mut parts = Parts { version: batch.version, nodes: batch.header.structs(1)?, buffers: batch.header.structs(2)?, body };
    column(*field, &mut parts, 0)?.row(0)
}

const SCHEMA: u8 = 1;
const BATCH: u8 = 3;

/// The description that a message begins with.
struct Head<'a> {
    version: i16,
    header: Table<'a>,
}

/// A message of this kind, its body, and what comes behind it.
fn message(stream: &[u8], kind: u8) -> Option<(Head<'_>, &[u8], &[u8])> {
    // Before version 0.15 the length came without a mark before it.
    let (mut len, mut rest) = (u32_at(stream, 0)?, stream.get(4..)?);
    if len == u32::MAX {
        (len, rest) = (u32_at(rest, 0)?, rest.get(4..)?);
    }
    let (head, rest) = rest.split_at_checked(len as usize)?;
    let table = Table::root(head)?;
    (table.u8(1)? == kind).then_some(())?;
    let (body, rest) = rest.split_at_checked(usize::try_from(table.i64(3).unwrap_or(0)).ok()?)?;
    Some((Head { version: table.i16(0).unwrap_or(0), header: table.table(2)? }, body, rest))
}

/// The parts of a batch that its columns take one after the other, in the order of the schema.
struct Parts<'a> {
    version: i16,
    nodes: Structs<'a>,
    buffers: Structs<'a>,
    body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn buffer(&mut self) -> Option<&'a [u8]> {
        let (offset, len) = self.buffers.next()?;
        self.body.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(len).ok()?)
    }
}

/// A column of values.
enum Column<'a> {
    None,
    Int(&'a [u8]),
    Bytes {
        offsets: &'a [u8],
        bytes: &'a [u8],
    },
    List {
        offsets: &'a [u8],
        items: Box<Column<'a>>,
    },
    /// Each row is one of another column, which its type names.
    Union {
        types: &'a [u8],
        offsets: &'a [u8],
        ids: Vec<i32>,
        columns: Vec<Column<'a>>,
    },
}

/// A pair is a column of unions of lists of unions of values: these four, so that no crafted file can name the same values many times.
const DEEPEST: usize = 4;

fn column<'a>(field: Table<'a>, parts: &mut Parts<'a>, depth: usize) -> Option<Column<'a>> {
    (depth < DEEPEST).then_some(())?;
    let children = field.tables(5).unwrap_or_default();
    parts.nodes.next()?;
    Some(match field.u8(2)? {
        1 => Column::None,
        2 if field.table(3)?.i32(0)? == 64 => {
            let _valid = parts.buffer()?;
            Column::Int(parts.buffer()?)
        }
        4 => {
            let _valid = parts.buffer()?;
            Column::Bytes { offsets: parts.buffer()?, bytes: parts.buffer()? }
        }
        12 => {
            let _valid = parts.buffer()?;
            let offsets = parts.buffer()?;
            // Each of its items has a byte for its type: a list is no longer than its message.
            let items = Box::new(column(*children.first()?, parts, depth + 1)?);
            matches!(*items, Column::Union { .. }).then_some(Column::List { offsets, items })?
        }
        14 if field.table(3)?.i16(0) == Some(1) => {
            // Before version 5 of the format (number 4) unions, too, had a map of what is null.
            if parts.version < 4 {
                parts.buffer()?;
            }
            let (types, offsets) = (parts.buffer()?, parts.buffer()?);
            let ids = field.table(3)?.ints(1).unwrap_or_else(|| (0..children.len() as i32).collect());
            let columns = children.into_iter().map(|child| column(child, parts, depth + 1)).collect::<Option<_>>()?;
            Column::Union { types, offsets, ids, columns }
        }
        _ => return None,
    })
}

impl<'a> Column<'a> {
    fn row(&self, row: usize) -> Option<Value<'a>> {
        let span = |offsets: &[u8]| Some(u32_at(offsets, 4 * row)? as usize..u32_at(offsets, 4 * row + 4)? as usize);
        Some(match self {
            Self::None => Value::None,
            Self::Int(numbers) => Value::Int(i64_at(numbers, 8 * row)?),
            Self::Bytes { offsets, bytes } => Value::Bytes(bytes.get(span(offsets)?)?),
            Self::List { offsets, items } => Value::Sequence(span(offsets)?.map(|row| items.row(row)).collect::<Option<_>>()?),
            Self::Union { types, offsets, ids, columns } => {
                let id = i32::from(*types.get(row)? as i8);
                let column = columns.get(ids.iter().position(|known| *known == id)?)?;
                column.row(u32_at(offsets, 4 * row)? as usize)?
            }
        })
    }
}
