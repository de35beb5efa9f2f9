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
    records: Vec<(Head, Picture)>,
    bodies: usize,
}

/// The records of one value, not yet side by side: they are copied once, to where LMDB wants them.
#[derive(Debug)]
pub(crate) struct Value {
    records: Vec<(Head, Picture)>,
    len: usize,
}

/// A picture as it is stored.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) encoding: Encoding,
    /// Of a JPEG file, or empty.
    pub(crate) index: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
}

impl Picture {
    /// Bytes of its record, but for those that it begins with.
    fn len(&self) -> usize {
        self.index.len() + self.bytes.len()
    }
}

impl Packer {
    /// Whether a picture may join those already here.
    pub(crate) fn has_room(&self, picture: &Picture) -> bool {
        self.is_empty() || ends(self.records.len() + 1) + self.bodies + Head::of(0, picture).len + picture.len() <= VALUE_LIMIT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn push(&mut self, label: u32, picture: Picture) {
        let head = Head::of(label, &picture);
        self.bodies += head.len + picture.len();
        self.records.push((head, picture));
    }

    /// The value; leaves the packer empty.
    pub(crate) fn finish(&mut self) -> Value {
        let Self { records, bodies } = std::mem::take(self);
        Value { len: ends(records.len()) + bodies, records }
    }
}

impl Value {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Panics
    /// When `into` is not [`Value::len`] bytes long.
    pub(crate) fn write(&self, mut into: &mut [u8]) {
        let mut put = |bytes: &[u8]| into.split_off_mut(..bytes.len()).expect("as long as the value").copy_from_slice(bytes);
        put(&(self.records.len() as u32).to_le_bytes());
        let mut end = 0;
        for (head, picture) in &self.records {
            end += head.len + picture.len();
            put(&u32::try_from(end).expect("a value is one picture below PICTURE_LIMIT or shorter than VALUE_LIMIT").to_le_bytes());
        }
        for (head, picture) in &self.records {
            put(head);
            put(&picture.index);
            put(&picture.bytes);
        }
        assert!(into.is_empty(), "{} bytes too many for the value", into.len());
    }
}

/// Bytes of the list of where a value's records end.
fn ends(records: usize) -> usize {
    4 + 4 * records
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
    let mut index: &[u8] = &[];
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
        INDEXED_JPEG => {
            let parts =
                body.get(5..).and_then(|rest| rest.split_first_chunk()).map(|(len, rest)| (usize::from(u16::from_le_bytes(*len)), rest));
            let Some((len, rest)) = parts else { return flaw("indexed record", "at least 7 bytes", body.len()) };
            let Some((first, bytes)) = rest.split_at_checked(len) else {
                return flaw("indexed record", format!("an index of {len} bytes"), rest.len());
            };
            index = first;
            (Encoding::Jpeg, bytes)
        }
        other => return flaw("encoding", "0 (raw), 1 (JPEG), 2 (PNG) or 3 (JPEG with index)", other),
    };
    Ok(Record { label, encoding, index, bytes })
}

/// SHA-256 of a record: of its header and its bytes, and not of an index, which follows from them.
pub(crate) fn digest(label: u32, encoding: Encoding, bytes: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(&*Head::new(label, encoding)).chain_update(bytes).finalize().into()
}

/// The [`digest`] of each of these records, in less time than one after the other.
pub(crate) fn digests(records: &[(u32, Encoding, &[u8])]) -> Vec<[u8; 32]> {
    let heads: Vec<_> = records.iter().map(|&(label, encoding, _)| Head::new(label, encoding)).collect();
    let messages: Vec<(&[u8], &[u8])> = heads.iter().zip(records).map(|(head, &(.., bytes))| (&**head, bytes)).collect();
    super::digest::sha256(&messages)
}

/// The digest of a split once a record is appended. A chain rather than one running hash: its state is 32 bytes, which a
/// conversion writes down as it goes, and the long part, the digest of the record, is done by many threads.
pub(crate) fn chain(split: [u8; 32], record: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(split).chain_update(record).finalize().into()
}

const RAW: u8 = 0;
const JPEG: u8 = 1;
const PNG: u8 = 2;
const INDEXED_JPEG: u8 = 3;

/// What a record begins with.
#[derive(Debug)]
struct Head {
    bytes: [u8; 14],
    len: usize,
}

impl Head {
    fn of(label: u32, picture: &Picture) -> Self {
        let mut head = Self::new(label, picture.encoding);
        if !picture.index.is_empty() {
            let len = u16::try_from(picture.index.len()).expect("a decoder makes no longer one");
            head.bytes[4] = INDEXED_JPEG;
            head.bytes[5..7].copy_from_slice(&len.to_le_bytes());
            head.len = 7;
        }
        head
    }

    fn new(label: u32, encoding: Encoding) -> Self {
        let [l0, l1, l2, l3] = label.to_le_bytes();
        let file = |kind| Self { bytes: [l0, l1, l2, l3, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0], len: 5 };
        match encoding {
            Encoding::Raw { height, width, channels } => {
                let ([h0, h1, h2, h3], [w0, w1, w2, w3]) = (height.to_le_bytes(), width.to_le_bytes());
                Self { bytes: [l0, l1, l2, l3, RAW, channels, h0, h1, h2, h3, w0, w1, w2, w3], len: 14 }
            }
            Encoding::Jpeg => file(JPEG),
            Encoding::Png => file(PNG),
        }
    }
}

impl std::ops::Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
