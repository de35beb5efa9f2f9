//! A batch as three columns of Arrow, and back: pictures, labels, indices.
//!
//! ```text
//! image  fixed_size_list<u8 or f32>[c·h·w], marked as arrow.fixed_shape_tensor of [c, h, w], or of [v, c, h, w] where samples have views
//! label  u32
//! index  u64
//! ```
//!
//! None has a null. A record batch is some metadata and a body of the three columns' numbers, one after the other, each from a multiple of
//! [`ALIGN`] on. The body goes out in pieces, of which the first is the loader's own buffer, and is read in one pass.

use std::ops::Range;
use std::sync::Arc;

use arrow_ipc::convert::{IpcSchemaEncoder, try_fb_to_schema, try_schema_from_ipc_buffer};
use arrow_ipc::{Buffer, FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use arrow_schema::{DataType, Field, Schema};
use bytes::{BufMut, Bytes, BytesMut};
use datasets::{Batch, Mixed, Normalize, Values};
use flatbuffers::FlatBufferBuilder;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::Loader;
use crate::loader::Output;

use super::grpc::{self, Failure, Messages, Pieces};
use super::protocol::{BODY, FlightData};
use super::ticket::Summary;

/// Bytes that the columns of a body are aligned to.
const ALIGN: usize = 64;
/// The key of our entry in a schema's metadata.
const KEY: &str = "topolab";

/// Which batch of the epoch a part of a flight is: its metadata, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its number in the epoch.
    pub(super) batch: usize,
    /// With what its samples were mixed, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mixed: Option<Mixed>,
}

/// The schema of a flight, as the metadata of an IPC message. What there is to know of the data stands in it as JSON, as `topolab`.
pub(super) fn schema(summary: &Summary, output: Output) -> Bytes {
    let mut builder = FlatBufferBuilder::new();
    let schema = IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, &columns(summary, output));
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(schema.as_union_value());
    let message = message.finish();
    builder.finish(message, None);
    Bytes::copy_from_slice(builder.finished_data())
}

fn columns(summary: &Summary, output: Output) -> Schema {
    let number = match output {
        Output::U8 => DataType::UInt8,
        Output::F32 => DataType::Float32,
    };
    let numbers: usize = summary.shape.iter().product();
    let names = &["V", "C", "H", "W"][4 - summary.shape.len()..];
    let tensor = serde_json::json!({ "shape": summary.shape, "dim_names": names }).to_string();
    let extension = [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", &tensor)];
    let item = Arc::new(Field::new("item", number, false));
    let about = serde_json::json!(summary).to_string();
    Schema::new_with_metadata(
        vec![
            Field::new("image", DataType::FixedSizeList(item, numbers as i32), false).with_metadata(extension),
            Field::new("label", DataType::UInt32, false),
            Field::new("index", DataType::UInt64, false),
        ],
        [(KEY, about)],
    )
}

/// An IPC message that stands for itself, as `FlightInfo` wants it: a mark, a length, and the metadata padded to eight bytes.
pub(super) fn encapsulated(metadata: &[u8]) -> Bytes {
    let padded = metadata.len().next_multiple_of(8);
    let mut message = BytesMut::with_capacity(8 + padded);
    message.put_u32_le(u32::MAX);
    message.put_u32_le(padded as u32);
    message.put_slice(metadata);
    message.put_bytes(0, padded - metadata.len());
    message.freeze()
}

/// The first part of a flight: its schema.
pub(super) fn beginning(schema: Bytes) -> Pieces {
    grpc::whole(&FlightData { header: schema, metadata: Bytes::new() })
}

/// The part of a flight that is batch `number`. The loader gets the batch's memory back once all of it is on its way.
pub(super) fn part(number: usize, mut batch: Batch, loader: &Loader) -> Pieces {
    let rows = batch.len();
    let labels: Vec<u8> = batch.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let indices: Vec<u8> = batch.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
    let (numbers, bytes) = match &batch.values {
        Values::U8(values) => (values.len(), values.len()),
        Values::F32(values) => (values.len(), size_of_val(&values[..])),
    };
    let layout = Layout::new(rows, bytes);

    let mut tail = BytesMut::with_capacity(layout.end() - bytes);
    for (column, values) in [(&layout.labels, &labels), (&layout.indices, &indices)] {
        tail.put_bytes(0, column.start - bytes - tail.len());
        tail.put_slice(values);
    }
    tail.put_bytes(0, layout.end() - bytes - tail.len());

    let place = serde_json::json!(Place { batch: number, mixed: batch.mixed.take() }).to_string();
    let mut head = BytesMut::from(&FlightData { header: layout.metadata(numbers), metadata: place.into() }.encode_to_vec()[..]);
    varint(&mut head, BODY);
    varint(&mut head, layout.end() as u64);
    let values = Bytes::from_owner(Lent { batch: Some(batch), loader: loader.clone() });
    grpc::framed(vec![head.freeze(), values, tail.freeze()])
}

fn varint(bytes: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

/// A batch whose numbers the network reads, and which then goes back to its loader.
struct Lent {
    batch: Option<Batch>,
    loader: Loader,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        match self.batch.as_ref().map(|batch| &batch.values) {
            Some(Values::U8(values)) => values,
            Some(Values::F32(values)) => bytemuck::cast_slice(values),
            None => &[],
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.loader.recycle(batch);
        }
    }
}

/// Where the columns of a record batch lie in its body.
#[derive(Debug, PartialEq)]
struct Layout {
    rows: usize,
    values: Range<usize>,
    labels: Range<usize>,
    indices: Range<usize>,
}

impl Layout {
    fn new(rows: usize, bytes: usize) -> Self {
        let after = |end: usize, length: usize| {
            let start = end.next_multiple_of(ALIGN);
            start..start + length
        };
        let labels = after(bytes, rows * size_of::<u32>());
        let indices = after(labels.end, rows * size_of::<u64>());
        Self { rows, values: 0..bytes, labels, indices }
    }

    fn end(&self) -> usize {
        self.indices.end.next_multiple_of(ALIGN)
    }

    /// The metadata of the record batch whose pictures have `numbers` numbers together.
    fn metadata(&self, numbers: usize) -> Bytes {
        let mut builder = FlatBufferBuilder::new();
        let nodes = [self.rows, numbers, self.rows, self.rows].map(|length| FieldNode::new(length as i64, 0));
        let nodes = builder.create_vector(&nodes);
        // Before the numbers of a column stands a map of what is null, which is empty; a list has nothing but that map.
        let buffer = |range: &Range<usize>| Buffer::new(range.start as i64, range.len() as i64);
        let empty = |range: &Range<usize>| Buffer::new(range.start as i64, 0);
        let [values, labels, indices] = [&self.values, &self.labels, &self.indices];
        let buffers = [empty(values), empty(values), buffer(values), empty(labels), buffer(labels), empty(indices), buffer(indices)];
        let buffers = builder.create_vector(&buffers);
        let mut batch = RecordBatchBuilder::new(&mut builder);
        batch.add_length(self.rows as i64);
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        let batch = batch.finish();
        let mut message = MessageBuilder::new(&mut builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(MessageHeader::RecordBatch);
        message.add_bodyLength(self.end() as i64);
        message.add_header(batch.as_union_value());
        let message = message.finish();
        builder.finish(message, None);
        Bytes::copy_from_slice(builder.finished_data())
    }

    /// The layout that this metadata describes.
    fn read(metadata: &[u8]) -> Result<Self, String> {
        let message = arrow_ipc::root_as_message(metadata).map_err(|error| format!("not an IPC message: {error}"))?;
        let batch = message.header_as_record_batch().ok_or("wanted a record batch")?;
        if batch.compression().is_some() {
            return Err("wanted a record batch that is not compressed".to_owned());
        }
        let buffers = batch.buffers().filter(|buffers| buffers.len() == 7).ok_or("wanted seven buffers")?;
        let range = |at: usize| {
            let (start, length) = (usize::try_from(buffers.get(at).offset()).ok()?, usize::try_from(buffers.get(at).length()).ok()?);
            Some(start..start.checked_add(length)?)
        };
        let rows = usize::try_from(batch.length()).ok();
        match (rows, range(2), range(4), range(6)) {
            (Some(rows), Some(values), Some(labels), Some(indices)) if values.end <= labels.start && labels.end <= indices.start => {
                Ok(Self { rows, values, labels, indices })
            }
            _ => Err("wanted columns one after the other".to_owned()),
        }
    }
}

/// What a schema says of its data: the metadata of an IPC message, or one that stands for itself.
pub(super) fn summary(schema: &[u8]) -> Result<Summary, String> {
    let schema = match arrow_ipc::root_as_message(schema).ok().and_then(|message| message.header_as_schema()) {
        Some(schema) => try_fb_to_schema(schema),
        None => try_schema_from_ipc_buffer(schema),
    };
    let schema = schema.map_err(|error| format!("not a schema: {error}"))?;
    let about = schema.metadata.get(KEY).ok_or_else(|| format!("wanted a schema with the metadata `{KEY}`"))?;
    serde_json::from_str(about).map_err(|error| format!("the schema's `{KEY}`: {error}"))
}

/// A part of a flight, read.
pub(super) enum Part {
    /// What the data are.
    Beginning(Summary),
    /// A batch, and its number in the epoch.
    Batch(usize, Batch),
}

/// The next part of a flight whose data are `summary`, or `None` after the last.
pub(super) async fn read(
    messages: &mut Messages,
    summary: &Summary,
    output: Output,
    normalize: Option<&Arc<Normalize>>,
) -> Result<Option<Part>, Failure> {
    if messages.next().await?.is_none() {
        return Ok(None);
    }
    let (mut header, mut place) = (Bytes::new(), Bytes::new());
    while messages.rest() > 0 {
        let key = messages.varint().await?;
        if key == BODY {
            let length = messages.varint().await? as usize;
            // What is aligned can be checked for being aligned.
            let layout = Layout::read(&header).map_err(Failure::protocol)?;
            let place: Place = serde_json::from_slice(&place).map_err(|error| Failure::protocol(format!("a batch's place: {error}")))?;
            let mut batch = body(messages, length, &layout, summary, output).await?;
            batch.normalize = normalize.cloned();
            batch.mixed = mixed(place.mixed, &batch.labels, summary)?;
            return Ok(Some(Part::Batch(place.batch, batch)));
        }
        if key & 7 != 2 {
            return Err(Failure::protocol(format!("wanted a field with a length, found the key {key}")));
        }
        let length = messages.varint().await? as usize;
        let value = messages.take(length).await?;
        match key >> 3 {
            2 => header = value,
            3 => place = value,
            _ => {}
        }
    }
    self::summary(&header).map(|summary| Some(Part::Beginning(summary))).map_err(Failure::protocol)
}

async fn body(messages: &mut Messages, length: usize, layout: &Layout, summary: &Summary, output: Output) -> Result<Batch, Failure> {
    let Summary { shape, .. } = summary;
    let (rows, size) = (layout.rows, shape.iter().product::<usize>());
    let width = match output {
        Output::U8 => size_of::<u8>(),
        Output::F32 => size_of::<f32>(),
    };
    let wanted = rows.checked_mul(size).and_then(|numbers| Some(Layout::new(rows, numbers.checked_mul(width)?)));
    if wanted.as_ref() != Some(layout) || length != messages.rest() || length != layout.end() {
        return Err(Failure::protocol(format!("wanted {rows} pictures of {shape:?}, found a body of {length} bytes")));
    }
    let numbers = rows * size;
    let values = match output {
        Output::U8 => {
            let mut values = Vec::with_capacity(numbers);
            while values.len() < numbers {
                values.extend_from_slice(&messages.chunk(numbers - values.len()).await?);
            }
            Values::U8(values)
        }
        Output::F32 => {
            let mut values = vec![0.0f32; numbers];
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
            let mut at = 0;
            while at < bytes.len() {
                let chunk = messages.chunk(bytes.len() - at).await?;
                bytes[at..at + chunk.len()].copy_from_slice(&chunk);
                at += chunk.len();
            }
            Values::F32(values)
        }
    };
    let tail = messages.take(layout.end() - layout.values.end).await?;
    let column = |range: &Range<usize>| &tail[range.start - layout.values.end..range.end - layout.values.end];
    let labels: Vec<u32> = column(&layout.labels).as_chunks().0.iter().map(|label| u32::from_le_bytes(*label)).collect();
    let indices = column(&layout.indices).as_chunks().0.iter().map(|index| u64::from_le_bytes(*index)).collect();
    check_labels(&labels, summary)?;
    Ok(Batch { values, shape: [&[rows], &shape[..]].concat(), labels, indices, normalize: None, mixed: None })
}

fn check_labels(labels: &[u32], summary: &Summary) -> Result<(), Failure> {
    match labels.iter().find(|&&label| label as usize >= summary.classes.len()) {
        Some(label) => Err(Failure::protocol(format!("wanted labels below {}, found {label}", summary.classes.len()))),
        None => Ok(()),
    }
}

/// What was said of the mixture of samples labelled `labels`, if it can be.
fn mixed(mixed: Option<Mixed>, labels: &[u32], summary: &Summary) -> Result<Option<Mixed>, Failure> {
    if let Some(Mixed { share, others }) = &mixed {
        check_labels(others, summary)?;
        if others.len() != labels.len() || !(0.5..=1.0).contains(share) {
            return Err(Failure::protocol(format!(
                "wanted {} others and a share of ½ to 1, found {} and {share}",
                labels.len(),
                others.len()
            )));
        }
    }
    Ok(mixed)
}
