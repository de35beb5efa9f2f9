//! Doors for the fuzz targets in `tests/fuzz`, which no other program sees.

use datasets::Image;

use crate::decode::Window;
use crate::flight::Ticket;
use crate::{jpeg, store};

/// Reads a value of a store, as one of its records.
pub fn record(value: &[u8], from_last: u64) {
    let _ = store::codec::record(value, from_last);
}

/// Reads a value of a store of `folder2lmdb.py`.
pub fn arrow(value: &[u8]) {
    store::folder2lmdb::fuzz(value);
}

/// Reads the metadata of a message that a server of batches sends.
pub fn flight(message: &[u8]) {
    crate::flight::fuzz(message);
}

/// Reads a ticket.
#[must_use]
pub fn ticket(bytes: &[u8]) -> Option<Ticket> {
    Ticket::parse(bytes).ok()
}

/// Decodes a rectangle of a JPEG file by any index at all, made to look sound, or without it.
pub fn rows(file: &[u8], index: &[u8], window: [u8; 4]) {
    let mut decoder = jpeg::Decoder::default();
    let Some([rows, columns]) = decoder.open(file).filter(|[rows, columns]| rows * columns <= 1 << 20) else { return };
    let mut into = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };
    let _ = decoder.decode(file, &jpeg::sealed(index, file.len()), part(window, [rows, columns]), &mut into);
}

/// The rectangle that four bytes stand for.
fn part([top, left, height, width]: [u8; 4], [rows, columns]: [usize; 2]) -> Window {
    let place = |share: u8, of: usize| of * usize::from(share) / 256;
    let (top, left) = (place(top, rows), place(left, columns));
    Window { top, left, height: 1 + place(height, rows - top), width: 1 + place(width, columns - left) }
}

/// Decodes a rectangle of a JPEG file, by its index where it gets one, and all of it.
///
/// # Panics
/// When the rectangle is not that part of the whole.
pub fn jpeg(bytes: &[u8], window: [u8; 4]) {
    let mut decoder = jpeg::Decoder::default();
    let Some([rows, columns]) = decoder.open(bytes) else { return };
    // What `decode` lets through at most, and less: this is run often.
    if rows * columns > 1 << 20 {
        return;
    }
    let part = part(window, [rows, columns]);
    let [mut whole, mut alone] = [(); 2].map(|()| Image { height: 0, width: 0, channels: 0, pixels: Vec::new() });
    let is_whole = decoder.decode(bytes, &[], Window::whole([rows, columns]), &mut whole).is_some();
    let index = decoder.index(bytes).unwrap_or_default();
    let is_part = decoder.open(bytes).is_some() && decoder.decode(bytes, &index, part, &mut alone).is_some();
    assert!(is_part || !is_whole, "a sound file has sound parts");
    if is_whole {
        assert_eq!((alone.height, alone.width, alone.channels), (part.height, part.width, whole.channels));
        let row = columns * whole.channels;
        for (line, pixels) in alone.pixels.chunks_exact(part.width * whole.channels).enumerate() {
            let start = (part.top + line) * row + part.left * whole.channels;
            assert_eq!(pixels, &whole.pixels[start..start + pixels.len()], "row {line} of {part:?}");
        }
    }
}
