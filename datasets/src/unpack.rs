//! Reads a file that may be compressed, never further than was asked for.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;

use crate::{Error, Result};

/// The decompressed bytes of a file: `.gz` and `.xz` by the ending of its name, anything else as it is.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let file = BufReader::with_capacity(1 << 16, File::open(path).map_err(|source| Error::io(path, "open", source))?);
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz" | "tgz") => Box::new(MultiGzDecoder::new(file)),
        Some("xz" | "txz") => Box::new(XzDecoder::new_multi_decoder(file)),
        _ => Box::new(file),
    })
}

/// A file's name without the ending that says how it is compressed.
pub(crate) fn plain(name: &str) -> &str {
    name.strip_suffix(".gz").or_else(|| name.strip_suffix(".xz")).unwrap_or(name)
}

/// Up to `limit` bytes, and whether a compressed file was cut short there, so that the caller can say which record is missing.
/// Memory grows with what arrives: a header that lies about a length costs nothing.
pub(crate) fn read(path: &Path, reader: impl Read, limit: u64) -> Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    match reader.take(limit).read_to_end(&mut bytes) {
        Ok(_) => Ok((bytes, false)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok((bytes, true)),
        Err(source) => Err(Error::io(path, "read", source)),
    }
}
