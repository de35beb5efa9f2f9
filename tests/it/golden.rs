//! Files that reference programs wrote, below `tests/golden`.

use std::path::{Path, PathBuf};

use crate::skips::{Lacks, skip};

/// The JSON file of that name.
pub(crate) fn json(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The file or folder of that name among the real data beside the workspace; where it is not, the test skips.
pub(crate) fn real(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        skip(Lacks::Data, format!("no real data set `{name}` beside the workspace"));
        return None;
    }
    Some(path)
}
