//! A batch as three columns of Arrow, and back: pictures, labels, indices.
//!
//! ```text
//! image  fixed_size_list<u8 or f32>[c·h·w], marked as arrow.fixed_shape_tensor of [c, h, w], or of [v, c, h, w] where samples have views
//! label  u32
//! index  u64
//! ```
//!
//! The metadata of each part are JSON: `{"batch": 3}`, and where samples were mixed `{"batch": 3, "mixed": {"share": 0.8, "others": [4, 0]}}`, one
//! class for each sample.
//!
//! Where server and client share [memory](super::memory), the pictures lie there, the column `image` is left out, and the metadata say from which
//! byte on: `{"batch": 3, "at": 16384}`. There a message with nothing but the metadata `"end"` is the last, since a client that still has something to
//! say must not find the call ended.
//!
//! None has a null. A record batch is some metadata and a body of the three columns' numbers, one after the other, each from a multiple of
//! [`ALIGN`] on. The body goes out in pieces, of which the first is the loader's own buffer, and is read in one pass.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use datasets::{Batch, Mixed, Normalize, Values};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::Loader;
use crate::loader::Output;

use super::arrow::{Field, Kind, RecordBatch, Schema};
use super::grpc::{self, Failure, Messages, Pieces};
use super::memory::{Mapping, Offer};
use super::protocol::{BODY, FlightData};
use super::ticket::Summary;

/// Bytes that the columns of a body are aligned to.
const ALIGN: usize = 64;
/// The key of our entry in a schema's metadata.
const KEY: &str = "topolab";
/// The key of what a schema says of shared memory.
const MEMORY: &str = "topolab-memory";
/// The metadata of the last message of an exchange.
const END: &[u8] = br#""end""#;

/// Which batch of the epoch a part of a flight is: its metadata, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its number in the epoch.
    pub(super) batch: usize,
    /// With what its samples were mixed, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mixed: Option<Mixed>,
    /// Where its pictures begin in the memory that server and client share, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<usize>,
}

/// Where a flight's pictures are.
pub(super) enum Pictures<'a> {
    /// In the flight.
    Here(Output),
    /// In this memory.
    There(&'a Offer),
}

/// The schema of a flight, as the metadata of an IPC message. What there is to know of the data stands in it as JSON, as `topolab`, and of the
/// memory that they lie in, if they do, as `topolab-memory`.
pub(super) fn schema(summary: &Summary, pictures: &Pictures<'_>) -> Bytes {
    let mut about = BTreeMap::from([(KEY.into(), serde_json::json!(summary).to_string().into())]);
    let output = match *pictures {
        Pictures::Here(output) => Some(output),
        Pictures::There(offer) => {
            about.insert(MEMORY.into(), serde_json::json!(offer).to_string().into());
            None
        }
    };
    Schema { fields: fields(summary, output), metadata: about }.write()
}

/// The columns of a flight, with pictures if these are in it.
fn fields(summary: &Summary, pictures: Option<Output>) -> Vec<Field<'static>> {
    let field = |name: &'static str, kind| Field { name: name.into(), kind, metadata: BTreeMap::new() };
    let image = pictures.map(|output| {
        let item = match output {
            Output::U8 => Kind::U8,
            Output::F32 => Kind::F32,
        };
        let numbers: usize = summary.shape.iter().product();
        let names = &["V", "C", "H", "W"][4 - summary.shape.len()..];
        let tensor = serde_json::json!({ "shape": summary.shape, "dim_names": names }).to_string();
        let extension = [("ARROW:extension:name", "arrow.fixed_shape_tensor".into()), ("ARROW:extension:metadata", tensor.into())];
        let metadata = extension.map(|(key, value)| (key.into(), value)).into();
        Field { metadata, ..field("image", Kind::FixedSizeList(Box::new(field("item", item)), numbers as i32)) }
    });
    image.into_iter().chain([field("label", Kind::U32), field("index", Kind::U64)]).collect()
}

/// The first part of a flight: its schema.
pub(super) fn beginning(schema: Bytes) -> Pieces {
    grpc::whole(&FlightData { header: schema, ..FlightData::default() })
}

/// The part of a flight that is batch `number`. The loader gets the batch's memory back once all of it is on its way.
pub(super) fn part(number: usize, mut batch: Batch, loader: &Loader) -> Pieces {
    let place = Place { batch: number, mixed: batch.mixed.take(), at: None };
    let layout = Layout::new(batch.len(), Some(bytes(&batch.values).len()));
    let head = layout.head(&place, batch.shape.iter().product());
    let tail = layout.tail(&batch);
    let values = Bytes::from_owner(Lent { batch: Some(batch), loader: loader.clone() });
    grpc::framed(vec![head, values, tail])
}

/// The same, but for the pictures, which the client finds from byte `at` on.
pub(super) fn part_in_memory(number: usize, at: usize, batch: &Batch) -> Pieces {
    let place = Place { batch: number, mixed: batch.mixed.clone(), at: Some(at) };
    let layout = Layout::new(batch.len(), None);
    grpc::framed(vec![layout.head(&place, 0), layout.tail(batch)])
}

/// The last message of an exchange.
pub(super) fn end() -> Pieces {
    grpc::whole(&FlightData { metadata: Bytes::from_static(END), ..FlightData::default() })
}

/// The numbers of a batch, as they lie in memory.
pub(super) fn bytes(values: &Values) -> &[u8] {
    match values {
        Values::U8(values) => values,
        Values::F32(values) => bytemuck::cast_slice(values),
    }
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
        self.batch.as_ref().map_or(&[], |batch| bytes(&batch.values))
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
    /// Empty where the pictures are elsewhere.
    values: Range<usize>,
    labels: Range<usize>,
    indices: Range<usize>,
    pictures: bool,
}

impl Layout {
    /// Of rows whose pictures are so many bytes together, if they are in the body.
    fn new(rows: usize, pictures: Option<usize>) -> Self {
        let after = |end: usize, length: usize| {
            let start = end.next_multiple_of(ALIGN);
            start..start + length
        };
        let values = 0..pictures.unwrap_or(0);
        let labels = after(values.end, rows * size_of::<u32>());
        let indices = after(labels.end, rows * size_of::<u64>());
        Self { rows, values, labels, indices, pictures: pictures.is_some() }
    }

    fn end(&self) -> usize {
        self.indices.end.next_multiple_of(ALIGN)
    }

    /// All before the body of the part that is a batch at `place`, whose pictures have `numbers` numbers together.
    fn head(&self, place: &Place, numbers: usize) -> Bytes {
        let metadata = serde_json::json!(place).to_string().into();
        let data = FlightData { descriptor: None, header: self.metadata(numbers), metadata };
        let mut head = BytesMut::from(&data.encode_to_vec()[..]);
        varint(&mut head, BODY);
        varint(&mut head, self.end() as u64);
        head.freeze()
    }

    /// The body behind the pictures.
    fn tail(&self, batch: &Batch) -> Bytes {
        let before = self.values.end;
        let mut tail = BytesMut::with_capacity(self.end() - before);
        tail.put_bytes(0, self.labels.start - before);
        batch.labels.iter().for_each(|&label| tail.put_u32_le(label));
        tail.put_bytes(0, self.indices.start - before - tail.len());
        batch.indices.iter().for_each(|&index| tail.put_u64_le(index));
        tail.put_bytes(0, self.end() - before - tail.len());
        tail.freeze()
    }

    /// The metadata of the record batch whose pictures have `numbers` numbers together.
    fn metadata(&self, numbers: usize) -> Bytes {
        // Before the numbers of a column stands a map of what is null, which is empty; a list has nothing but that map.
        let empty = |range: &Range<usize>| range.start..range.start;
        let [values, labels, indices] = [&self.values, &self.labels, &self.indices];
        let mut lengths = vec![self.rows, numbers, self.rows, self.rows];
        let mut buffers =
            [empty(values), empty(values), values.clone(), empty(labels), labels.clone(), empty(indices), indices.clone()].to_vec();
        if !self.pictures {
            lengths.drain(..2);
            buffers.drain(..3);
        }
        RecordBatch { rows: self.rows, lengths, buffers, body: self.end() }.write()
    }

    /// The layout that this metadata describes.
    fn read(metadata: &[u8], pictures: bool) -> Result<Self, String> {
        let RecordBatch { rows, buffers, .. } = RecordBatch::read(metadata)?;
        let (values, labels, indices) = match (&buffers[..], pictures) {
            ([_, _, values, _, labels, _, indices], true) => (values.clone(), labels, indices),
            ([_, labels, _, indices], false) => (0..0, labels, indices),
            _ => return Err(format!("wanted {} buffers, found {}", if pictures { 7 } else { 4 }, buffers.len())),
        };
        if values.end > labels.start || labels.end > indices.start {
            return Err(format!("wanted columns one after the other, found them at bytes {values:?}, {labels:?} and {indices:?}"));
        }
        Ok(Self { rows, values, labels: labels.clone(), indices: indices.clone(), pictures })
    }
}

/// What a schema says of its data, and of memory: a message, or one that stands for itself.
pub(super) fn summary(schema: &[u8]) -> Result<(Summary, Option<Offer>), String> {
    let schema = Schema::read(schema)?;
    let about = schema.metadata.get(KEY).ok_or_else(|| format!("wanted a schema with the metadata `{KEY}`"))?;
    let summary: Summary = serde_json::from_str(about).map_err(|error| format!("the schema's `{KEY}`: {error}"))?;
    let numbers = summary.shape.iter().try_fold(1i32, |numbers, &size| numbers.checked_mul(i32::try_from(size).ok()?));
    if !(3..=4).contains(&summary.shape.len()) || numbers.is_none() {
        return Err(format!("the schema's `{KEY}`: wanted a shape [c, h, w] or [v, c, h, w], found {:?}", summary.shape));
    }
    let offer: Option<Offer> = schema
        .metadata
        .get(MEMORY)
        .map(|offer| serde_json::from_str(offer))
        .transpose()
        .map_err(|error| format!("the schema's `{MEMORY}`: {error}"))?;
    let kinds: &[_] = if offer.is_some() { &[None] } else { &[Some(Output::U8), Some(Output::F32)] };
    // What stands in a column's metadata is for others.
    let columns = |fields: &[Field<'_>]| fields.iter().map(|field| field.to_string()).collect::<Vec<_>>();
    let found = columns(&schema.fields);
    if !kinds.iter().any(|&pictures| columns(&fields(&summary, pictures)) == found) {
        return Err(format!("wanted columns that hold samples of shape {:?}, found {}", summary.shape, found.join(", ")));
    }
    Ok((summary, offer))
}

/// A part of a flight, read.
pub(super) enum Part {
    /// What the data are, and the memory that is offered.
    Beginning(Summary, Option<Offer>),
    /// A batch, and its number in the epoch.
    Batch(usize, Batch),
}

/// What a reader knows of the flight it reads.
pub(super) struct Reading<'a> {
    pub(super) summary: &'a Summary,
    pub(super) output: Output,
    pub(super) normalize: Option<&'a Arc<Normalize>>,
    /// Where the pictures lie, if not in the flight.
    pub(super) memory: Option<&'a Arc<Mapping>>,
}

impl Reading<'_> {
    /// The next part of a flight, or `None` after the last.
    pub(super) async fn next(&self, messages: &mut Messages) -> Result<Option<Part>, Failure> {
        if messages.next().await?.is_none() {
            return Ok(None);
        }
        let (mut header, mut metadata) = (Bytes::new(), Bytes::new());
        while messages.rest() > 0 {
            let key = messages.varint().await?;
            if key == BODY {
                let length = messages.varint().await? as usize;
                // What is aligned can be checked for being aligned.
                let layout = Layout::read(&header, self.memory.is_none()).map_err(Failure::protocol)?;
                let place: Place =
                    serde_json::from_slice(&metadata).map_err(|error| Failure::protocol(format!("a batch's place: {error}")))?;
                return Ok(Some(Part::Batch(place.batch, self.batch(messages, length, &layout, place).await?)));
            }
            if key & 7 != 2 {
                return Err(Failure::protocol(format!("wanted a field with a length, found the key {key}")));
            }
            let length = messages.varint().await? as usize;
            let value = messages.take(length).await?;
            match key >> 3 {
                2 => header = value,
                3 => metadata = value,
                _ => {}
            }
        }
        if header.is_empty() && metadata == END {
            return Ok(None);
        }
        summary(&header).map(|(summary, offer)| Some(Part::Beginning(summary, offer))).map_err(Failure::protocol)
    }

    async fn batch(&self, messages: &mut Messages, length: usize, layout: &Layout, place: Place) -> Result<Batch, Failure> {
        let Summary { shape, .. } = self.summary;
        let (rows, size) = (layout.rows, shape.iter().product::<usize>());
        let bytes = rows.checked_mul(size).and_then(|numbers| numbers.checked_mul(self.output.bytes()));
        // What does not fit into the body has no layout.
        let bytes = bytes.filter(|&bytes| rows <= length && (!layout.pictures || bytes <= length));
        let wanted = bytes.map(|bytes| Layout::new(rows, layout.pictures.then_some(bytes)));
        if wanted.as_ref() != Some(layout) || length != messages.rest() || length != layout.end() {
            return Err(Failure::protocol(format!("wanted {rows} pictures of {shape:?}, found a body of {length} bytes")));
        }
        let numbers = rows * size;
        let values = match (self.memory.zip(place.at), self.output) {
            (None, _) if !layout.pictures => return Err(Failure::protocol("wanted the place of a batch")),
            (None, Output::U8) => Values::U8(pixels(messages, numbers).await?.into()),
            (None, Output::F32) => Values::F32(floats(messages, numbers).await?.into()),
            (Some((memory, at)), Output::U8) => Values::U8(memory.buffer(at, numbers).ok_or_else(|| outside(at))?),
            (Some((memory, at)), Output::F32) => Values::F32(memory.buffer(at, numbers).ok_or_else(|| outside(at))?),
        };
        let tail = messages.take(layout.end() - layout.values.end).await?;
        let column = |range: &Range<usize>| &tail[range.start - layout.values.end..range.end - layout.values.end];
        let labels: Vec<u32> = column(&layout.labels).as_chunks().0.iter().map(|label| u32::from_le_bytes(*label)).collect();
        let indices = column(&layout.indices).as_chunks().0.iter().map(|index| u64::from_le_bytes(*index)).collect();
        check_labels(&labels, self.summary)?;
        let mixed = mixed(place.mixed, &labels, self.summary)?;
        Ok(Batch { values, shape: [&[rows], &shape[..]].concat(), labels, indices, normalize: self.normalize.cloned(), mixed })
    }
}

async fn pixels(messages: &mut Messages, count: usize) -> Result<Vec<u8>, Failure> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        values.extend_from_slice(&messages.chunk(count - values.len()).await?);
    }
    Ok(values)
}

async fn floats(messages: &mut Messages, count: usize) -> Result<Vec<f32>, Failure> {
    let mut values = vec![0.0f32; count];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
    let mut at = 0;
    while at < bytes.len() {
        let chunk = messages.chunk(bytes.len() - at).await?;
        bytes[at..at + chunk.len()].copy_from_slice(&chunk);
        at += chunk.len();
    }
    Ok(values)
}

fn outside(at: usize) -> Failure {
    Failure::protocol(format!("wanted a batch within the server's memory, found it at byte {at}"))
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

/// Reads the metadata of a message as what a flight begins with, and as where its columns lie.
#[cfg(fuzzing)]
pub(super) fn fuzz(message: &[u8]) {
    let _ = summary(message);
    let _ = [true, false].map(|pictures| Layout::read(message, pictures));
}

#[cfg(test)]
mod tests;
