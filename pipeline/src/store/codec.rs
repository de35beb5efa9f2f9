//! Records to the bytes of an LMDB value and back; `FORMAT.md` has the layout.
//!
//! Knows no file and no LMDB. Reading is total: any bytes give a record or a [`Flaw`].

use sha2::{Digest, Sha256};

use super::{Encoding, Record};

/// Bytes of a value that holds more than one record. With LMDB's 16 bytes of page header it fills 32 pages of 4 KiB, so that
/// packing wastes half a record in 128 KiB.
pub(crate) const VALUE_LIMIT: usize = 128 * 1024 - 16;

/// Bytes of the longest picture: far beyond any real one, and safe in the `u32` fields of a value.
pub(crate) const PICTURE_LIMIT: usize = 1 << 30;

/// What is wrong with the bytes of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) field: &'static str,
    pub(crate) wanted: String,
    pub(crate) found: String,
}

fn flaw<T>(field: &'static str, wanted: impl ToString, found: impl ToString) -> Result<T, Flaw> {
    Err(Flaw { field, wanted: wanted.to_string(), found: found.to_string() })
}

/// Collects records until they are a value.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    ends: Vec<u32>,
    bodies: Vec<u8>,
}

impl Packer {
    /// Whether a picture of so many bytes may join those already here.
    pub(crate) fn has_room(&self, encoding: Encoding, bytes: usize) -> bool {
        let index = 4 + 4 * (self.ends.len() + 1);
        self.is_empty() || index + self.bodies.len() + header(0, encoding).len() + bytes <= VALUE_LIMIT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn push(&mut self, label: u32, encoding: Encoding, bytes: &[u8]) {
        self.bodies.extend_from_slice(&header(label, encoding));
        self.bodies.extend_from_slice(bytes);
        self.ends.push(u32::try_from(self.bodies.len()).expect("a value is one picture below PICTURE_LIMIT or shorter than VALUE_LIMIT"));
    }

    /// The value; leaves the packer empty.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut value = Vec::with_capacity(4 + 4 * self.ends.len() + self.bodies.len());
        value.extend_from_slice(&(self.ends.len() as u32).to_le_bytes());
        self.ends.drain(..).for_each(|end| value.extend_from_slice(&end.to_le_bytes()));
        value.append(&mut self.bodies);
        value
    }
}

/// The record `from_last` places before the last of this value.
pub(crate) fn record(value: &[u8], from_last: u64) -> Result<Record<'_>, Flaw> {
    let Some(count) = u32_at(value, 0) else { return flaw("value", "at least 4 bytes", value.len()) };
    if from_last >= u64::from(count) {
        return flaw("number of records", format!("at least {}", from_last + 1), count);
    }
    let bodies = 4 + 4 * count as usize;
    let Some(bodies) = value.get(bodies..) else { return flaw("value", format!("an index of {bodies} bytes"), value.len()) };
    let place = count as usize - 1 - from_last as usize;
    let end_of = |place: usize| u32_at(value, 4 + 4 * place).map_or(0, |end| end as usize);
    let (start, end) = (if place == 0 { 0 } else { end_of(place - 1) }, end_of(place));
    if from_last == 0 && end != bodies.len() {
        return flaw("end of the last record", bodies.len(), end);
    }
    let Some(body) = bodies.get(start..end) else {
        return flaw("extent of the record", format!("within {} bytes", bodies.len()), format!("{start}..{end}"));
    };
    self::body(body)
}

fn body(body: &[u8]) -> Result<Record<'_>, Flaw> {
    let (Some(label), Some(&kind)) = (u32_at(body, 0), body.get(4)) else { return flaw("record", "at least 5 bytes", body.len()) };
    let (encoding, bytes) = match kind {
        RAW => {
            let (Some(&channels), Some(height), Some(width)) = (body.get(5), u32_at(body, 6), u32_at(body, 10)) else {
                return flaw("raw record", "at least 14 bytes", body.len());
            };
            if !matches!(channels, 1 | 3) {
                return flaw("channels", "1 or 3", channels);
            }
            let area = u128::from(height) * u128::from(width) * u128::from(channels);
            if area != body.len() as u128 - 14 {
                return flaw("pixels", format!("{height} x {width} x {channels} = {area} bytes"), body.len() - 14);
            }
            (Encoding::Raw { height, width, channels }, &body[14..])
        }
        JPEG => (Encoding::Jpeg, &body[5..]),
        PNG => (Encoding::Png, &body[5..]),
        other => return flaw("encoding", "0 (raw), 1 (JPEG) or 2 (PNG)", other),
    };
    Ok(Record { label, encoding, bytes })
}

/// SHA-256 of a record: of its header and its bytes.
pub(crate) fn digest(label: u32, encoding: Encoding, bytes: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(header(label, encoding)).chain_update(bytes).finalize().into()
}

/// The digest of a split once a record is appended. A chain rather than one running hash: its state is 32 bytes, which a
/// conversion writes down as it goes, and the long part, the digest of the record, is done by many threads.
pub(crate) fn chain(split: [u8; 32], record: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(split).chain_update(record).finalize().into()
}

const RAW: u8 = 0;
const JPEG: u8 = 1;
const PNG: u8 = 2;

fn header(label: u32, encoding: Encoding) -> Vec<u8> {
    let mut header = Vec::with_capacity(14);
    header.extend_from_slice(&label.to_le_bytes());
    match encoding {
        Encoding::Raw { height, width, channels } => {
            header.extend_from_slice(&[RAW, channels]);
            header.extend_from_slice(&height.to_le_bytes());
            header.extend_from_slice(&width.to_le_bytes());
        }
        Encoding::Jpeg => header.push(JPEG),
        Encoding::Png => header.push(PNG),
    }
    header
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
