//! Reads tables of [FlatBuffers](https://flatbuffers.dev/internals/), which Arrow describes its data with, by the numbers of their fields.
//!
//! Each access checks its bounds, and nothing is followed but what the caller asks for: any bytes give a value or `None`, in time that the
//! caller bounds.

/// A table: its fields lie at offsets that a table of offsets gives.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Table<'a> {
    /// The table that these bytes are.
    pub(crate) fn root(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { bytes, at: u32_at(bytes, 0)? as usize })
    }

    fn field(&self, number: usize) -> Option<usize> {
        let offsets = self.at.checked_add_signed(-(u32_at(self.bytes, self.at)? as i32 as isize))?;
        (4 + 2 * number < usize::from(u16_at(self.bytes, offsets)?)).then_some(())?;
        match u16_at(self.bytes, offsets + 4 + 2 * number)? {
            0 => None,
            offset => Some(self.at + usize::from(offset)),
        }
    }

    pub(crate) fn u8(&self, number: usize) -> Option<u8> {
        self.bytes.get(self.field(number)?).copied()
    }

    pub(crate) fn i16(&self, number: usize) -> Option<i16> {
        Some(u16_at(self.bytes, self.field(number)?)? as i16)
    }

    pub(crate) fn i32(&self, number: usize) -> Option<i32> {
        Some(u32_at(self.bytes, self.field(number)?)? as i32)
    }

    pub(crate) fn i64(&self, number: usize) -> Option<i64> {
        i64_at(self.bytes, self.field(number)?)
    }

    /// Where the offset in a field points to.
    fn target(&self, number: usize) -> Option<usize> {
        let field = self.field(number)?;
        field.checked_add(u32_at(self.bytes, field)? as usize)
    }

    pub(crate) fn table(&self, number: usize) -> Option<Self> {
        Some(Self { at: self.target(number)?, ..*self })
    }

    /// A string.
    #[cfg(feature = "flight")]
    pub(crate) fn text(&self, number: usize) -> Option<&'a str> {
        let at = self.target(number)?;
        let len = u32_at(self.bytes, at)? as usize;
        str::from_utf8(self.bytes.get(at + 4..)?.get(..len)?).ok()
    }

    /// The number of items of a list, and where the first is.
    fn list(&self, number: usize) -> Option<(usize, usize)> {
        let at = self.target(number)?;
        let len = u32_at(self.bytes, at)? as usize;
        // An item is at least 4 bytes long.
        (len <= self.bytes.len() / 4).then_some((len, at + 4))
    }

    pub(crate) fn tables(&self, number: usize) -> Option<Vec<Self>> {
        let (len, at) = self.list(number)?;
        (at..).step_by(4).take(len).map(|at| Some(Self { at: at + u32_at(self.bytes, at)? as usize, ..*self })).collect()
    }

    pub(crate) fn ints(&self, number: usize) -> Option<Vec<i32>> {
        let (len, at) = self.list(number)?;
        (at..).step_by(4).take(len).map(|at| Some(u32_at(self.bytes, at)? as i32)).collect()
    }

    pub(crate) fn structs(&self, number: usize) -> Option<Structs<'a>> {
        let (left, at) = self.list(number)?;
        Some(Structs { bytes: self.bytes, at, left })
    }
}

/// Pairs of long integers, one after the other. Ends early where the bytes do.
pub(crate) struct Structs<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl Structs<'_> {
    /// Number of pairs that were announced and not read yet.
    #[cfg(feature = "flight")]
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}

impl Iterator for Structs<'_> {
    type Item = (i64, i64);

    fn next(&mut self) -> Option<(i64, i64)> {
        let left = self.left.checked_sub(1)?;
        let pair = (i64_at(self.bytes, self.at)?, i64_at(self.bytes, self.at + 8)?);
        (self.at, self.left) = (self.at + 16, left);
        Some(pair)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
