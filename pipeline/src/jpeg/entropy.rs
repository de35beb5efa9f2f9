//! Entropy-coded bytes to coefficients.

use super::huffman::{Entry, Kind, Table, extend};

/// The entropy-coded bytes of a scan without their markers: what decoding reads, and where it can begin anew.
#[derive(Debug, Default)]
pub(super) struct Scan {
    bytes: Vec<u8>,
    /// Where each restart interval ends.
    ends: Vec<usize>,
}

impl Scan {
    /// Takes out the zero that follows each `0xff`, and the restart markers, as far as another marker or the end of `bytes`. `None` where
    /// restart markers are not in order.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Option<()> {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.reserve(bytes.len() + PADDING);
        let mut at = 0;
        loop {
            // Eight at a time where none is 0xff.
            while let Some(eight) = bytes.get(at..at + 8).and_then(<[u8]>::first_chunk::<8>) {
                let inverse = !u64::from_ne_bytes(*eight);
                if inverse.wrapping_sub(0x0101_0101_0101_0101) & !inverse & 0x8080_8080_8080_8080 != 0 {
                    break;
                }
                self.bytes.extend_from_slice(eight);
                at += 8;
            }
            let rest = &bytes[at..];
            let length = rest.iter().position(|&byte| byte == 0xff).unwrap_or(rest.len());
            self.bytes.extend_from_slice(&rest[..length]);
            at += length;
            if at == bytes.len() {
                break;
            }
            match *bytes.get(at + 1)? {
                0 => self.bytes.push(0xff),
                // As many as one likes may stand before a marker.
                0xff => {
                    at += 1;
                    continue;
                }
                marker @ 0xd0..=0xd7 if usize::from(marker - 0xd0) == self.ends.len() % 8 => self.ends.push(self.bytes.len()),
                0xd0..=0xd7 => return None,
                _ => break,
            }
            at += 2;
        }
        self.ends.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; PADDING]);
        Some(())
    }

    /// The bits of restart interval `number`.
    pub(super) fn interval(&self, number: usize) -> Option<Bits<'_>> {
        let end = *self.ends.get(number)?;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        Some(Bits { bytes: &self.bytes, at: start, end, buffer: 0, left: 0 })
    }

    /// Bytes, without those that were taken out.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - PADDING
    }

    /// The bits from bit `skipped` of the first byte on.
    pub(super) fn bits_from(&self, skipped: u32) -> Bits<'_> {
        let mut bits = Bits { bytes: &self.bytes, at: 0, end: self.len(), buffer: 0, left: 0 };
        bits.refill();
        bits.skip(skipped);
        bits
    }

    /// Where in the file these places are, which come one after the other; both in bits from the first coded one on.
    pub(super) fn places(&self, bits: &[usize]) -> Vec<usize> {
        let (mut from, mut stuffed) = (0, 0);
        let place = |&bit: &usize| {
            stuffed += self.bytes[from..bit / 8].iter().filter(|&&byte| byte == 0xff).count();
            from = bit / 8;
            bit + 8 * stuffed
        };
        bits.iter().map(place).collect()
    }
}

/// Zeros after the last byte, so that eight can be read at once.
const PADDING: usize = 8;

/// A reader of bits, the highest of a byte first.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    /// The next bits from the highest on; `left` of them count.
    buffer: u64,
    left: u32,
}

impl Bits<'_> {
    /// At least 32 bits, which is more than a code and its coefficient have; zeros after the last.
    #[inline(always)]
    fn refill(&mut self) {
        if self.left >= 32 {
            return;
        }
        let eight = self.bytes.get(self.at..self.at + 8).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_be_bytes(*eight));
        self.buffer |= eight >> self.left;
        self.at += (63 - self.left as usize) >> 3;
        self.left |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.left -= count;
    }

    /// The coefficient of an entry that did not see all of its bits.
    #[inline(always)]
    fn take(&mut self, size: u32) -> i16 {
        // In two steps, since a shift by all 64 bits is none.
        let bits = (self.buffer >> 1 >> (63 - size)) as u32;
        self.skip(size);
        extend(bits, size)
    }

    /// Bits read so far.
    pub(super) fn place(&self) -> usize {
        8 * self.at - self.left as usize
    }

    /// Whether more was read than there is.
    pub(super) fn overrun(&self) -> bool {
        self.place() > 8 * self.end
    }

    /// What an entry that is not whole stands for: zeros, and perhaps a coefficient after them.
    #[inline(always)]
    fn rest(&mut self, mut entry: Entry, table: &Table, dc: bool) -> Option<(usize, Option<i16>)> {
        if entry.kind() == Kind::Long {
            entry = table.search(self.buffer, dc)?;
        }
        self.skip(entry.bits());
        Some((entry.run(), (entry.kind() == Kind::Cut).then(|| self.take(entry.value() as u32))))
    }

    /// The difference of a block's mean from that of the block before.
    #[inline(always)]
    pub(super) fn difference(&mut self, table: &Table) -> Option<i32> {
        self.refill();
        let entry = table.look()(self.buffer);
        if entry.is_whole() {
            self.skip(entry.bits());
            return Some(entry.value().into());
        }
        self.rest(entry, table, true)?.1.map(i32::from)
    }

    /// The other coefficients of a block, each given to `keep` with its place in the order of the file.
    #[inline(always)]
    pub(super) fn coefficients(&mut self, table: &Table, mut keep: impl FnMut(usize, i16) -> Option<()>) -> Option<()> {
        // In registers.
        let (mut bits, look) = (Bits { ..*self }, table.look());
        let mut at = 1;
        while at < 64 {
            bits.refill();
            let entry = look(bits.buffer);
            let value = if entry.is_whole() {
                bits.skip(entry.bits());
                at += entry.run();
                entry.value()
            } else {
                let (run, value) = bits.rest(entry, table, false)?;
                at += run;
                let Some(value) = value else { continue };
                value
            };
            keep(at, value)?;
            at += 1;
        }
        *self = bits;
        Some(())
    }
}

/// Where in a block, row after row, the coefficients of the file belong (T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35, 42, 49, 56,
    57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
