//! What is written is read as it was, and what is no such message is refused in words.
#![allow(clippy::unwrap_used, reason = "a test may")]

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn metadata() -> impl Strategy<Value = Metadata<'static>> {
    btree_map(".{0,9}".prop_map_into(), ".{0,40}".prop_map_into(), 0..4)
}

fn field(kind: impl Strategy<Value = Kind<'static>>) -> impl Strategy<Value = Field<'static>> {
    (".{0,9}", kind, metadata()).prop_map(|(name, kind, metadata)| Field { name: name.into(), kind, metadata })
}

fn kind() -> impl Strategy<Value = Kind<'static>> {
    let plain = || prop_oneof![Just(Kind::U8), Just(Kind::U32), Just(Kind::U64), Just(Kind::F32)];
    let list = (field(plain()), 0..=i32::MAX).prop_map(|(item, length)| Kind::FixedSizeList(Box::new(item), length));
    prop_oneof![plain(), list]
}

fn batch() -> impl Strategy<Value = RecordBatch> {
    let body = i64::MAX as usize;
    let buffer = (0..=body, 0..=body).prop_map(|(a, b)| a.min(b)..a.max(b));
    (0..=body, vec(0..=body, 0..6), vec(buffer, 0..8)).prop_map(move |(rows, lengths, buffers)| RecordBatch {
        rows,
        lengths,
        buffers,
        body,
    })
}

proptest! {
    #[test]
    fn a_schema_is_read_as_it_was_written(fields in vec(field(kind()), 0..6), metadata in metadata()) {
        let schema = Schema { fields, metadata };
        let message = schema.write();
        let alone = encapsulated(&message);
        prop_assert_eq!(Schema::read(&alone), Ok(schema.clone()));
        prop_assert_eq!(Schema::read(&message), Ok(schema));
        prop_assert!(RecordBatch::read(&message).is_err());
    }

    #[test]
    fn a_batch_is_read_as_it_was_written(batch in batch()) {
        let message = batch.write();
        prop_assert!(Schema::read(&message).is_err());
        prop_assert_eq!(RecordBatch::read(&message), Ok(batch));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let _ = (Schema::read(&bytes), RecordBatch::read(&bytes));
    }
}

/// A schema of one column, whose table the closure fills.
fn schema_of(fill: impl FnOnce(&mut Builder, Written, Written)) -> Result<(), String> {
    let builder = &mut Builder::new();
    let name = builder.create_string("x");
    let int = table(builder, |table| {
        put_unless(table, 0, 16, 0);
        put_unless(table, 1, true, false);
    });
    let field = table(builder, |table| {
        put(table, 0, name);
        fill(table, int, int);
    });
    let fields = builder.create_vector(&[field]);
    let schema = table(builder, |table| put(table, 1, fields));
    Schema::read(&message(builder, SCHEMA, schema, 0)).map(drop)
}

#[test]
fn what_no_flight_has_is_refused() {
    let typed = |kind: u8| {
        schema_of(|table, about, _| {
            put(table, 2, kind);
            put(table, 3, about);
        })
    };
    let refused = [
        (typed(INT), "column `x`: wanted unsigned integers of 8, 32 or 64 bits, found signed ones of 16"),
        (typed(FLOAT), "column `x`: wanted floats of 32 bits, found the precision 16"),
        (typed(FIXED_SIZE_LIST), "column `x`: wanted lists of one type of item"),
        (typed(5), "column `x`: wanted integers, floats, or lists of these of one length, found the type 5"),
        (schema_of(|table, _, _| put(table, 2, INT)), "column `x`: wanted a type"),
        (
            schema_of(|table, about, dictionary| {
                put(table, 3, about);
                put(table, 4, dictionary);
            }),
            "column `x`: wanted one without nulls and without a dictionary",
        ),
        (Schema::read(b"").map(drop), "wanted a schema as a message of Arrow, found 0 other bytes"),
        (Schema::read(&[0xff; 20]).map(drop), "wanted a message behind its length, found 20 bytes"),
    ];
    for (found, wanted) in refused {
        assert_eq!(found, Err(wanted.to_owned()));
    }
    let sound = RecordBatch { rows: 1, lengths: vec![1], buffers: vec![0..0, 0..4], body: 4 };
    assert_eq!(Schema::read(&sound.write()), Err("wanted a schema, found a message of kind 3".to_owned()));
    let short = RecordBatch { body: 3, ..sound.clone() };
    assert_eq!(RecordBatch::read(&short.write()), Err("wanted buffers within a body of 3 bytes, found 4 bytes from byte 0 on".to_owned()));
    let many = RecordBatch { lengths: vec![1; MOST + 1], ..sound };
    assert_eq!(RecordBatch::read(&many.write()), Err("wanted a record batch with at most 64 lengths of columns".to_owned()));
}
