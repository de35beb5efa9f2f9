//! Our messages are those of the crate arrow-ipc, byte for byte, and pyarrow's are read.
#![allow(clippy::unwrap_used, reason = "a test may")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::super::arrow;
use super::*;

const OURS: &str = include_str!("../../../../tests/golden/flight/arrow_ipc.json");
const PYARROW: &str = include_str!("../../../../tests/golden/flight/pyarrow.json");

fn cases(file: &str, what: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(file).unwrap();
    golden[what].as_array().unwrap().clone()
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(case[field].as_str().unwrap()).unwrap()
}

fn number(case: &Value, field: &str) -> Option<usize> {
    Some(case[field].as_u64()? as usize)
}

/// What the schema of a case is about, and the memory in which its images lie, if they do.
fn about(case: &Value) -> (Summary, Option<Offer>) {
    let read = |key| Some(case["metadata"][key].as_str()?.to_owned());
    let offer = read("topolab-memory").map(|offer| serde_json::from_str(&offer).unwrap());
    (serde_json::from_str(&read("topolab").unwrap()).unwrap(), offer)
}

fn output(case: &Value) -> Output {
    if case["values"] == "f32" { Output::F32 } else { Output::U8 }
}

#[test]
fn a_schema_has_the_bytes_of_arrow_ipc() {
    for case in cases(OURS, "schemas") {
        let (about, offer) = about(&case);
        let pictures = offer.as_ref().map_or(Pictures::Here(output(&case)), Pictures::There);
        assert_eq!(schema(&about, &pictures), bytes(&case, "message"), "{}", case["name"]);
    }
}

#[test]
fn a_batch_has_the_bytes_of_arrow_ipc() {
    for case in cases(OURS, "batches") {
        let layout = Layout::new(number(&case, "rows").unwrap(), number(&case, "images"));
        let message = bytes(&case, "message");
        assert_eq!(layout.metadata(number(&case, "numbers").unwrap()), message, "{}", case["name"]);
        assert_eq!(Layout::read(&message, layout.pictures), Ok(layout), "{}", case["name"]);
    }
}

#[test]
fn a_schema_of_pyarrow_is_read_as_ours() {
    for case in cases(OURS, "schemas").iter().chain(&cases(PYARROW, "schemas")) {
        let message = bytes(case, "message");
        assert_eq!(summary(&message), Ok(about(case)), "{}", case["name"]);
        assert_eq!(summary(&arrow::encapsulated(&message)).is_ok(), !message.starts_with(&[0xff; 4]), "a message in a message is none");
    }
}

/// The values that `generate.py` put there.
#[test]
fn a_batch_of_pyarrow_is_read() {
    for case in cases(PYARROW, "batches") {
        let [rows, size] = ["rows", "size"].map(|field| number(&case, field).unwrap());
        let body = bytes(&case, "body");
        let layout = Layout::read(&bytes(&case, "message"), case["values"] != "none").unwrap();
        assert_eq!(layout.rows, rows);
        let labels: Vec<u8> = (0..rows as u32).flat_map(|row| (3 * row).to_le_bytes()).collect();
        let indices: Vec<u8> = (0..rows as u64).flat_map(|row| ((1 << 40) + row).to_le_bytes()).collect();
        let values = (0..rows * size).map(|number| number % 251);
        let values: Vec<u8> = match output(&case) {
            Output::F32 => values.flat_map(|value| (value as f32).to_le_bytes()).collect(),
            Output::U8 => values.map(|value| value as u8).collect(),
        };
        assert_eq!((&body[layout.labels], &body[layout.indices], &body[layout.values]), (&labels[..], &indices[..], &values[..]));
    }
}

/// A schema that says one thing in its metadata and another in its columns is refused, and so is a shape that no batch has.
#[test]
fn a_schema_is_held_to_what_it_says() {
    let case = &cases(OURS, "schemas")[0];
    let changed = |change: &dyn Fn(&mut Summary, &mut Schema<'_>)| {
        let message = bytes(case, "message");
        let mut schema = Schema::read(&message).unwrap();
        let mut about = about(case).0;
        change(&mut about, &mut schema);
        schema.metadata.insert(KEY.into(), serde_json::json!(about).to_string().into());
        summary(&schema.write()).unwrap_err()
    };
    assert_eq!(
        changed(&|about, _| about.shape = vec![1, 12, 12]),
        "wanted columns that hold samples of shape [1, 12, 12], found image 432 × item U8, label U32, index U64"
    );
    assert_eq!(
        changed(&|_, schema| schema.fields.truncate(1)),
        "wanted columns that hold samples of shape [3, 12, 12], found image 432 × item U8"
    );
    let shape = "the schema's `topolab`: wanted a shape [c, h, w] or [v, c, h, w], found";
    for wrong in [vec![], vec![3, 12], vec![1; 5], vec![3, 1 << 20, 1 << 20]] {
        assert_eq!(changed(&|about, _| about.shape.clone_from(&wrong)), format!("{shape} {wrong:?}"));
    }
}

/// Each byte of a message changed, and each beginning of it, is read or refused, and does not panic.
#[test]
fn any_bytes_are_a_message_or_an_error() {
    for message in
        [&cases(OURS, "schemas")[3], &cases(OURS, "batches")[0], &cases(PYARROW, "schemas")[0]].map(|case| bytes(case, "message"))
    {
        let read = |message: &[u8]| (summary(message).is_ok(), Layout::read(message, true).is_ok());
        assert_ne!(read(&message), (false, false));
        for at in 0..message.len() {
            assert!(!read(&message[..at]).1, "cut at {at}");
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                read(&changed);
            }
        }
    }
}
