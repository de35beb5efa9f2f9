//! Messages as the crates arrow-ipc and arrow-schema 60.1.0 write them, which `pipeline::flight` used until version 0.1.0: prints
//! `arrow_ipc.json`. It is no part of the workspace; README.md says how to run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::{Buffer, FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder};
use arrow_schema::{DataType, Field, Schema};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flatbuffers::FlatBufferBuilder;
use serde_json::{Value, json};

const ALIGN: usize = 64;

fn main() {
    let schemas = [
        schema("u8", "u8", &[3, 12, 12]),
        schema("f32", "f32", &[3, 4, 4]),
        schema("grey", "u8", &[1, 28, 28]),
        schema("views", "u8", &[2, 3, 12, 12]),
        schema("views of f32", "f32", &[10, 3, 224, 224]),
        schema("shared memory", "none", &[3, 12, 12]),
    ];
    let batches = [
        batch("u8", 5, 5 * 432, Some(5 * 432)),
        batch("f32", 3, 3 * 48, Some(3 * 48 * 4)),
        batch("one row", 1, 784, Some(784)),
        batch("views", 2, 2 * 864, Some(2 * 864)),
        batch("no rows", 0, 0, Some(0)),
        batch("256 MB", 1 << 16, 1 << 28, Some(1 << 28)),
        batch("shared memory", 5, 0, None),
        batch("shared memory, no rows", 0, 0, None),
    ];
    println!("{}", serde_json::to_string_pretty(&json!({ "schemas": schemas, "batches": batches })).unwrap());
}

fn schema(name: &str, values: &str, shape: &[usize]) -> Value {
    let summary = json!({
        "dataset": "shapes", "split": "train", "samples": 20, "batches": 4, "shape": shape, "classes": ["Würfel", "a \"b\"", ""],
        "normalize": {"mean": vec![0.5; shape[shape.len() - 3]], "std": vec![0.25; shape[shape.len() - 3]]}, "content": "0123",
    });
    let mut about = BTreeMap::from([("topolab".to_owned(), summary.to_string())]);
    let mut columns = vec![Field::new("label", DataType::UInt32, false), Field::new("index", DataType::UInt64, false)];
    let number = match values {
        "u8" => Some(DataType::UInt8),
        "f32" => Some(DataType::Float32),
        _ => None,
    };
    if let Some(number) = number {
        let names = &["V", "C", "H", "W"][4 - shape.len()..];
        let tensor = json!({ "shape": shape, "dim_names": names }).to_string();
        let extension = [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", &tensor)];
        let list = DataType::FixedSizeList(Arc::new(Field::new("item", number, false)), shape.iter().product::<usize>() as i32);
        columns.insert(0, Field::new("image", list, false).with_metadata(extension));
    } else {
        let offer = json!({ "process": 7, "file": 9, "boot": "b", "device": 1, "inode": 2, "bytes": 4096 });
        about.insert("topolab-memory".to_owned(), offer.to_string());
    }
    let mut builder = FlatBufferBuilder::new();
    let schema = Schema::new_with_metadata(columns, about.clone());
    let schema = IpcSchemaEncoder::new().schema_to_fb_offset(&mut builder, &schema);
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(schema.as_union_value());
    let message = message.finish();
    builder.finish(message, None);
    json!({ "name": name, "values": values, "shape": shape, "metadata": about, "message": text(&builder) })
}

fn batch(name: &str, rows: usize, numbers: usize, images: Option<usize>) -> Value {
    let labels = images.unwrap_or(0).next_multiple_of(ALIGN);
    let indices = (labels + 4 * rows).next_multiple_of(ALIGN);
    let end = (indices + 8 * rows).next_multiple_of(ALIGN);
    let buffer = |start: usize, length: usize| Buffer::new(start as i64, length as i64);
    let (mut nodes, mut buffers) = (vec![], vec![]);
    if let Some(images) = images {
        nodes.extend([rows, numbers].map(|length| FieldNode::new(length as i64, 0)));
        buffers.extend([buffer(0, 0), buffer(0, 0), buffer(0, images)]);
    }
    nodes.extend([rows, rows].map(|length| FieldNode::new(length as i64, 0)));
    buffers.extend([buffer(labels, 0), buffer(labels, 4 * rows), buffer(indices, 0), buffer(indices, 8 * rows)]);
    let mut builder = FlatBufferBuilder::new();
    let (nodes, buffers) = (builder.create_vector(&nodes), builder.create_vector(&buffers));
    let mut batch = RecordBatchBuilder::new(&mut builder);
    batch.add_length(rows as i64);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish();
    let mut message = MessageBuilder::new(&mut builder);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_bodyLength(end as i64);
    message.add_header(batch.as_union_value());
    let message = message.finish();
    builder.finish(message, None);
    json!({ "name": name, "rows": rows, "numbers": numbers, "images": images, "message": text(&builder) })
}

fn text(builder: &FlatBufferBuilder<'_>) -> String {
    BASE64_STANDARD.encode(builder.finished_data())
}
