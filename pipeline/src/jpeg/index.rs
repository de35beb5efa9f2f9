//! Where rows of MCUs begin among the entropy-coded bytes of a file, and what was decoded until there: kept beside the file, it lets a
//! window be decoded without what lies above it and at its right. Two in a thousand bytes more, and the file stays as it is.
//!
//! `FORMAT.md` has the layout. A checksum, which takes in the length of the file, tells an index that is damaged or another file's.

/// Where decoding can begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// Bits of the file between the first one that is entropy-coded and the first one of the row.
    pub(super) bit: usize,
    /// The mean of the last block before, of each component.
    pub(super) means: [i32; 3],
}

/// The index of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Rows of MCUs from one point to the next.
    pub(super) every: usize,
    /// The first is that of the first row.
    pub(super) points: Vec<Point>,
}

/// Most bytes of a picture's file for each byte of its index.
const WORTH: usize = 250;

/// Bytes of a point, about.
const POINT: usize = 7;

impl Index {
    /// How many rows of MCUs there should be from one point to the next, in a file of so many bytes; none where one point would be too many.
    pub(super) fn spacing(rows: usize, file: usize) -> Option<usize> {
        let every = (rows * POINT * WORTH).div_ceil(file);
        (every < rows && every <= usize::from(u8::MAX)).then_some(every)
    }

    /// As bytes, for a file of so many.
    pub(super) fn write(&self, file: usize) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.push(u8::try_from(self.every).expect("as spacing has it"));
        for (before, point) in self.points.iter().zip(self.points.iter().skip(1)) {
            put(&mut bytes, point.bit - before.bit);
            for (mean, before) in point.means.iter().zip(before.means) {
                let change = mean.wrapping_sub(before);
                put(&mut bytes, ((change << 1) ^ (change >> 31)) as u32 as usize);
            }
        }
        let sum = checksum(file, &bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads what [`Index::write`] wrote for a file of so many bytes and so many rows of MCUs. `None` where it did not.
    pub(super) fn read(&mut self, bytes: &[u8], file: usize, rows: usize) -> Option<()> {
        let (sum, mut rest) = bytes.split_first_chunk()?;
        if u32::from_le_bytes(*sum) != checksum(file, rest) {
            return None;
        }
        self.every = take(&mut rest, 1)?;
        self.points.clear();
        let mut point = Point::default();
        self.points.push(point);
        for _ in 1..rows.div_ceil((self.every > 0).then_some(self.every)?) {
            point.bit = point.bit.checked_add(take(&mut rest, 5)?).filter(|bit| bit / 8 < file)?;
            for mean in &mut point.means {
                let change = take(&mut rest, 5)? as u32;
                *mean = mean.wrapping_add((change >> 1) as i32 ^ -((change & 1) as i32));
            }
            self.points.push(point);
        }
        rest.is_empty().then_some(())
    }
}

/// These bytes as if [`Index::write`] had written them for a file of so many.
#[cfg(fuzzing)]
pub(crate) fn sealed(bytes: &[u8], file: usize) -> Vec<u8> {
    [&checksum(file, bytes).to_le_bytes(), bytes].concat()
}

/// Seven bits a byte, the lowest first; the highest bit of a byte says that another follows.
fn put(bytes: &mut Vec<u8>, mut number: usize) {
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A number of at most so many bytes.
fn take(bytes: &mut &[u8], most: u32) -> Option<usize> {
    let mut number = 0;
    for place in 0..most {
        let byte = *bytes.split_off_first()?;
        number |= usize::from(byte & 127) << (7 * place);
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

/// Fowler, Noll & Vo's FNV-1a, of the length of the file and these bytes.
fn checksum(file: usize, bytes: &[u8]) -> u32 {
    let length = (file as u64).to_le_bytes();
    length.iter().chain(bytes).fold(0x811c_9dc5, |sum, &byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
