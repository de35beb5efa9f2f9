//! Decoded pictures that stay in memory from one epoch to the next.
//!
//! The first that come and fit are kept, and none is given up for another. An epoch asks for each picture once, in an order of its own, so one
//! is as likely to be wanted soon as any other; a cache that made room for the latest would, at half the size of the split, throw out most
//! pictures before they are asked for again, and pay for a copy each time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use datasets::Image;

use crate::store::{Encoding, Record};

/// What a loader keeps of decoded pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cached {
    /// Pictures.
    pub pictures: usize,
    /// Bytes of their pixels, and of the table that finds them.
    pub bytes: u64,
}

/// Pictures of a split by index. Reading one is two loads; nobody waits for anybody.
#[derive(Debug)]
pub(super) struct Cache {
    table: Vec<OnceLock<Kept>>,
    pictures: AtomicUsize,
    bytes: AtomicU64,
    limit: u64,
}

/// Pixels with channels last.
#[derive(Debug)]
struct Kept {
    label: u32,
    height: u32,
    width: u32,
    channels: u8,
    pixels: Box<[u8]>,
}

/// Room for one picture; given back unless it is filled.
pub(super) struct Place<'c> {
    cache: &'c Cache,
    index: u64,
    bytes: u64,
}

impl Cache {
    /// For a split of `len` pictures, in at most `limit` bytes.
    pub(super) fn new(len: usize, limit: u64) -> Self {
        let table = (len * size_of::<OnceLock<Kept>>()) as u64;
        // A table that leaves no room for pictures is of no use.
        let (len, bytes) = if table < limit { (len, table) } else { (0, 0) };
        let table = std::iter::repeat_with(OnceLock::new).take(len).collect();
        Self { table, pictures: AtomicUsize::new(0), bytes: AtomicU64::new(bytes), limit }
    }

    /// The picture, if it is here, as a record of a store that keeps pixels.
    pub(super) fn get(&self, index: u64) -> Option<Record<'_>> {
        let Kept { label, height, width, channels, pixels } = self.table.get(index as usize)?.get()?;
        Some(Record {
            label: *label,
            encoding: Encoding::Raw { height: *height, width: *width, channels: *channels },
            index: &[],
            bytes: pixels,
        })
    }

    /// Room for a picture of so many bytes, if there is any and it comes in this encoding. Pixels need not be kept: they lie in the pages of the
    /// store, which the system keeps.
    pub(super) fn reserve(&self, encoding: Encoding, index: u64, bytes: usize) -> Option<Place<'_>> {
        if self.table.is_empty() || matches!(encoding, Encoding::Raw { .. }) {
            return None;
        }
        let bytes = bytes as u64;
        let more = |taken: u64| taken.checked_add(bytes).filter(|&taken| taken <= self.limit);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { cache: self, index, bytes })
    }

    pub(super) fn cached(&self) -> Cached {
        Cached { pictures: self.pictures.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

impl Place<'_> {
    /// Keeps a copy of this picture, unless another thread has just done so.
    pub(super) fn fill(mut self, label: u32, image: &Image) {
        let Image { height, width, channels, ref pixels } = *image;
        let kept = Kept { label, height: height as u32, width: width as u32, channels: channels as u8, pixels: pixels.as_slice().into() };
        if pixels.len() as u64 == self.bytes && self.cache.table[self.index as usize].set(kept).is_ok() {
            self.cache.pictures.fetch_add(1, Ordering::Relaxed);
            self.bytes = 0;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.cache.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
