//! What a JPEG or PNG file says of itself, without decoding a pixel.
//!
//! The walk goes from the first byte over every segment, chunk and restart marker to the end marker, so a file that was cut short is
//! seen. It costs a hundredth of decoding. It is stricter than decoders are, who forgive much: that it doubts a file says only that a
//! decoder must be asked.

use crate::store::Encoding;
use crate::store::meta::Traits;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) height: u32,
    pub(crate) width: u32,
    /// As decoded: 1, 3, or 4 for the inks of a printer.
    pub(crate) channels: u8,
    /// EXIF's 1 to 8: how the picture lies; 1 is upright.
    pub(crate) orientation: u8,
    pub(crate) traits: Traits,
}

/// The header of a file that is whole as far as can be told without decoding; none where there is doubt.
pub(crate) fn header(encoding: Encoding, bytes: &[u8]) -> Option<Header> {
    let (header, most) = match encoding {
        // A block of 8×8 pixels costs at least one bit, whatever the coding.
        Encoding::Jpeg => (jpeg(bytes)?, bytes.len() as u64 * 512),
        // Deflate makes at most 1032 bytes of one.
        Encoding::Png => (png(bytes)?, bytes.len() as u64 * 1032),
        Encoding::Raw { .. } => return None,
    };
    let area = u64::from(header.height) * u64::from(header.width);
    (1..=most).contains(&area).then_some(header)
}

/// What is worth knowing of the bytes of a record; nothing of those that the walk doubts.
pub(crate) fn traits(encoding: Encoding, bytes: &[u8]) -> Traits {
    header(encoding, bytes).map_or_else(Traits::default, |header| header.traits)
}

/// What a walk through a JPEG file gathers.
#[derive(Default)]
struct Walk {
    frame: Option<Frame>,
    restart_interval: usize,
    /// The components that some scan codes, a bit for each.
    scanned: u8,
    orientation: u8,
    icc: bool,
}

/// The header of a frame.
struct Frame {
    height: usize,
    width: usize,
    /// What scans call the components.
    ids: Vec<u8>,
    progressive: bool,
    /// The largest sampling factors, vertical and horizontal.
    sampling: (usize, usize),
}

fn jpeg(bytes: &[u8]) -> Option<Header> {
    let mut walk = Walk { orientation: 1, ..Walk::default() };
    let mut at = bytes.starts_with(&[0xff, 0xd8]).then_some(2)?;
    loop {
        let &[0xff, marker] = bytes.get(at..)?.first_chunk()? else { return None };
        at += if marker == 0xff { 1 } else { 2 };
        match marker {
            0xff => continue, // a marker may be preceded by any number of these
            0xd9 => return walk.end(),
            0x00 | 0x01 | 0xd0..=0xd8 => return None,
            _ => {}
        }
        let end = at + usize::from(u16_at(bytes, at)?);
        let segment = bytes.get(at + 2..end)?;
        at = end;
        match marker {
            0xc0..=0xc2 => walk.frame(segment, marker == 0xc2)?,
            0xc3 | 0xc5..=0xcb | 0xcd..=0xcf => return None, // lossless and arithmetic coding, which decoders lack
            0xdd => walk.restart_interval = usize::from(u16_at(segment, 0)?),
            0xe1 if segment.starts_with(b"Exif\0\0") => walk.orientation = orientation(&segment[6..]).unwrap_or(walk.orientation),
            0xe2 if segment.starts_with(b"ICC_PROFILE\0") => walk.icc = true,
            0xda => at = walk.scan(segment, bytes, at)?,
            _ => {}
        }
    }
}

impl Walk {
    fn frame(&mut self, segment: &[u8], progressive: bool) -> Option<()> {
        let &[8, h1, h0, w1, w0, components, ref rest @ ..] = segment else { return None };
        let factors = rest.chunks_exact(3).map(|component| (usize::from(component[1] >> 4), usize::from(component[1] & 15)));
        let within = |factor: usize| (1..=4).contains(&factor);
        let known = matches!(components, 1 | 3 | 4) && rest.len() == 3 * usize::from(components);
        if self.frame.is_some() || !known || !factors.clone().all(|(x, y)| within(x) && within(y)) {
            return None;
        }
        self.frame = Some(Frame {
            height: usize::from(u16::from_be_bytes([h1, h0])),
            width: usize::from(u16::from_be_bytes([w1, w0])),
            ids: rest.chunks_exact(3).map(|component| component[0]).collect(),
            progressive,
            sampling: factors.fold((1, 1), |(y, x), (wide, high)| (y.max(high), x.max(wide))),
        });
        Some(())
    }

    /// Goes over coded pixels, from their start to the marker behind them.
    fn scan(&mut self, segment: &[u8], bytes: &[u8], start: usize) -> Option<usize> {
        let frame = self.frame.as_ref()?;
        let components = usize::from(*segment.first()?);
        if components == 0 || segment.len() != 4 + 2 * components {
            return None;
        }
        for component in segment[1..].chunks_exact(2).take(components) {
            self.scanned |= 1 << frame.ids.iter().position(|id| *id == component[0])?;
        }
        let (mut at, mut restarts) = (start, 0);
        loop {
            at = marker(bytes, at)?;
            match bytes[at + 1] {
                0xff => at += 1,
                number @ 0xd0..=0xd7 if usize::from(number - 0xd0) == restarts % 8 => {
                    restarts += 1;
                    at += 2;
                }
                0xd0..=0xd7 => return None,
                _ => break,
            }
        }
        // Of other scans it takes more to say how many restarts there are.
        let plain = !frame.progressive && components == frame.ids.len();
        let wanted = if self.restart_interval == 0 { 1 } else { frame.units().div_ceil(self.restart_interval) };
        (!plain || restarts + 1 == wanted).then_some(at)
    }

    fn end(self) -> Option<Header> {
        let frame = self.frame.filter(|frame| self.scanned.count_ones() as usize == frame.ids.len())?;
        Some(Header {
            height: frame.height as u32,
            width: frame.width as u32,
            channels: frame.ids.len() as u8,
            orientation: self.orientation,
            traits: Traits { progressive: frame.progressive, turned: self.orientation != 1, icc: self.icc, deep: false },
        })
    }
}

impl Frame {
    /// The units that an interleaved scan codes one after the other: so many blocks as the sampling factors say, or single blocks
    /// where there is one component.
    fn units(&self) -> usize {
        let (y, x) = if self.ids.len() == 1 { (1, 1) } else { self.sampling };
        self.height.div_ceil(8 * y) * self.width.div_ceil(8 * x)
    }
}

/// Where the next marker is: `ff` and anything but zero, which is how coded pixels escape an `ff` of their own.
fn marker(bytes: &[u8], start: usize) -> Option<usize> {
    /// Looked at together, by vector instructions.
    const STRETCH: usize = 64;
    let mut at = start;
    while let Some(stretch) = bytes.get(at..at + STRETCH + 1) {
        let pairs = stretch.iter().zip(&stretch[1..]);
        if pairs.fold(false, |found, (&a, &b)| found | ((a == 0xff) & (b != 0))) {
            break;
        }
        at += STRETCH;
    }
    bytes.get(at..)?.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0).map(|position| at + position)
}

fn png(bytes: &[u8]) -> Option<Header> {
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let (mut header, mut pixels) = (None, false);
    loop {
        let (&[l3, l2, l1, l0, ref kind @ ..], data) = rest.split_first_chunk::<8>()?;
        let len = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        let chunk = data.get(..len)?;
        // Behind it is a checksum.
        rest = data.get(len + 4..)?;
        match (kind, header.as_mut()) {
            (b"IHDR", None) => header = Some(png_header(chunk)?),
            (_, None) | (b"IHDR", _) => return None,
            (b"IDAT", _) => pixels = true,
            (b"iCCP", Some(header)) => header.traits.icc = true,
            (b"eXIf", Some(header)) => header.turn(orientation(chunk)),
            (b"IEND", Some(&mut header)) => return pixels.then_some(header),
            _ => {}
        }
    }
}

fn png_header(chunk: &[u8]) -> Option<Header> {
    let &[w3, w2, w1, w0, h3, h2, h1, h0, depth, colour, 0, 0, 0 | 1] = chunk else { return None };
    let side = |bytes| Some(u32::from_be_bytes(bytes)).filter(|side| (1..1 << 31).contains(side));
    let channels = match (colour, depth) {
        (0, 1 | 2 | 4 | 8 | 16) | (4, 8 | 16) => 1,
        (2 | 6, 8 | 16) | (3, 1 | 2 | 4 | 8) => 3,
        _ => return None,
    };
    let traits = Traits { deep: depth == 16, ..Traits::default() };
    Some(Header { height: side([h3, h2, h1, h0])?, width: side([w3, w2, w1, w0])?, channels, orientation: 1, traits })
}

impl Header {
    fn turn(&mut self, orientation: Option<u8>) {
        self.orientation = orientation.unwrap_or(self.orientation);
        self.traits.turned = self.orientation != 1;
    }
}

/// The orientation that EXIF data give, if they do: entry 0x0112, one short integer, of the first directory of a TIFF file.
fn orientation(tiff: &[u8]) -> Option<u8> {
    let big = match tiff.get(..4)? {
        [b'M', b'M', 0, 42] => true,
        [b'I', b'I', 42, 0] => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = *tiff.get(at..)?.first_chunk()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let bytes = *tiff.get(4..)?.first_chunk()?;
    let directory = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) } as usize;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|entry| directory + 2 + 12 * entry).find(|&entry| short(entry) == Some(0x0112))?;
    let value = (short(entry + 2)? == 3).then(|| short(entry + 8))??;
    u8::try_from(value).ok().filter(|value| (1..=8).contains(value))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
