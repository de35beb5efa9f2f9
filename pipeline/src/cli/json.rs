//! What `--json` writes: one document, whose fields keep their names.

use std::path::Path;

use datasets::Normalize;
use serde_json::{Value, json};

use crate::Store;
use crate::convert::Report;
use crate::inspect::inspect;
use crate::verify::Verification;

/// What is in a store; `measured` are mean and deviation of each split, where that was asked for.
pub(super) fn inspected(path: &Path, store: &Store, measured: &[Option<Normalize>]) -> String {
    text(&inspection(path, store, measured))
}

/// What a conversion made: as [`inspected`], with what was left out.
pub(super) fn converted(path: &Path, store: &Store, report: &Report) -> String {
    let mut document = inspection(path, store, &[]);
    document["continued"] = json!(report.continued);
    document["left_out"] = json!(report.meta.skipped);
    document["passed_over"] = json!(report.meta.ignored);
    text(&document)
}

/// What a verification found.
pub(super) fn verified(path: &Path, found: &Verification) -> String {
    let bad: Vec<Value> = found.bad.iter().map(|bad| json!({"split": bad.split, "index": bad.index, "reason": bad.reason})).collect();
    text(&json!({
        "store": path, "good": found.is_good(), "records": found.records, "bad": bad, "differences": found.differences,
    }))
}

fn inspection(path: &Path, store: &Store, measured: &[Option<Normalize>]) -> Value {
    let found = inspect(store);
    let split = |(number, (name, records, images)): (usize, &(String, usize, crate::store::Pictures))| {
        let readers = &found.readers[number];
        json!({
            "name": name, "records": records, "images": images, "own_decoder": readers.own, "general_decoder": readers.general,
            "measured": measured.get(number),
        })
    };
    json!({
        "store": path, "format": store.meta().format, "name": found.name, "source": found.source, "classes": found.classes,
        "splits": found.splits.iter().enumerate().map(split).collect::<Vec<_>>(), "normalize": found.normalize, "normalized_on": found.measured,
        "form": found.form, "rewritten": found.rewritten, "skipped": found.skipped, "bytes": found.file_bytes, "content": found.content,
    })
}

fn text(document: &Value) -> String {
    format!("{document:#}\n")
}
