//! JPEG files to pixels, any rectangle of them: what lies outside is read over, and what lies below is not read.
//!
//! Reads what cameras and the web write and data sets are made of: sequential, 8 bits, Huffman codes, grey or YCbCr with whole or halved
//! chroma. The pixels are those of libjpeg-turbo, and so of Pillow and torchvision, to the bit. Of any other file, and of any damaged one,
//! it says `None`: `decode` has another decoder for these. All memory is used again for the next file.

mod colour;
mod entropy;
mod header;
mod huffman;
mod index;
mod transform;

use datasets::Image;

use crate::decode::Window;

use colour::{Plane, Row, mix};
use entropy::{Scan, ZIGZAG};
use header::{Header, Quantisers};
use huffman::Tables;
#[cfg(fuzzing)]
pub(crate) use index::sealed;
use index::{Index, Point};

/// A decoder, which is nothing but memory.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    header: Header,
    quantisers: Quantisers,
    tables: Tables,
    scan: Scan,
    index: Index,
    planes: [Plane; 3],
    rows: [Row; 2],
}

impl Decoder {
    /// Rows and columns of a picture that can be decoded here. [`Decoder::decode`] comes next.
    pub(crate) fn open(&mut self, bytes: &[u8]) -> Option<[usize; 2]> {
        self.header.read(bytes, &mut self.quantisers, &mut self.tables)?;
        Some([self.header.height, self.header.width])
    }

    /// The pixels of `window` of the picture in `bytes`, which was opened last. `index` is what [`Decoder::index`] made of it, or empty; a
    /// damaged one is of no use, and does no harm.
    pub(crate) fn decode(&mut self, bytes: &[u8], index: &[u8], window: Window, into: &mut Image) -> Option<()> {
        let rows = Grid::new(&self.header, window).down;
        if !index.is_empty()
            && self.header.restart == 0
            && self.index.read(index, bytes.len(), rows).is_some()
            && self.decode_here(bytes, window, into).is_some()
        {
            return Some(());
        }
        self.index.points.clear();
        self.decode_here(bytes, window, into)
    }

    /// As [`Decoder::decode_plain`], by what this processor has.
    fn decode_here(&mut self, bytes: &[u8], window: Window, into: &mut Image) -> Option<()> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") {
            #[expect(unsafe_code, reason = "the compiler cannot know on which processor this will run")]
            // SAFETY: this processor has what the function was compiled for.
            return unsafe { self.decode_wide(bytes, window, into) };
        }
        self.decode_plain(bytes, window, into)
    }

    /// As [`Decoder::decode_plain`], compiled for wide registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn decode_wide(&mut self, bytes: &[u8], window: Window, into: &mut Image) -> Option<()> {
        self.decode_plain(bytes, window, into)
    }

    #[inline(always)]
    fn decode_plain(&mut self, bytes: &[u8], window: Window, into: &mut Image) -> Option<()> {
        let Header { sampling: [across, down], .. } = self.header;
        let grid = Grid::new(&self.header, window);
        self.samples(bytes.get(self.header.scan..)?, &grid)?;

        let channels = self.header.components.len();
        (into.height, into.width, into.channels) = (window.height, window.width, channels);
        into.pixels.resize(window.height * window.width * channels, 0);
        let columns = window.left..window.left + window.width;
        let [luma, blue, red] = &self.planes;
        let [blue_row, red_row] = &mut self.rows;
        for (y, pixels) in (window.top..).zip(into.pixels.chunks_exact_mut(window.width * channels)) {
            let luma = luma.row(y, columns.clone());
            if channels == 1 {
                pixels.copy_from_slice(luma);
                continue;
            }
            let blue = blue.enlarged([down, across], y, columns.clone(), blue_row);
            let red = red.enlarged([down, across], y, columns.clone(), red_row);
            mix([luma, blue, red], pixels);
        }
        Some(())
    }

    /// Fills the planes from the entropy-coded bytes. Decoding begins where it can: at the start of a restart interval, or of a row of the index.
    #[inline(always)]
    fn samples(&mut self, coded: &[u8], grid: &Grid) -> Option<()> {
        let Self { header, quantisers, tables, scan, index, planes, .. } = self;
        let Header { components, restart, .. } = &*header;
        let mut parts = [Part::default(); 3];
        for (number, ((part, component), plane)) in parts.iter_mut().zip(components).zip(&mut *planes).enumerate() {
            *part = Part { blocks: if number == 0 { grid.blocks } else { [1, 1] }, dc: component.dc, ac: component.ac, ..*part };
            for (&at, &number) in ZIGZAG.iter().zip(&quantisers.0[component.quantiser]?) {
                part.quantiser[usize::from(at)] = number.into();
            }
            plane.lay(grid, part.blocks);
        }
        let parts = &mut parts[..components.len()];

        let indexed = !index.points.is_empty();
        if !indexed {
            scan.fill(coded)?;
        }
        // MCUs from one place where decoding can begin to the next.
        let stretch = match restart {
            0 if indexed => index.every * grid.across,
            0 => grid.down * grid.across,
            &restart => restart,
        };
        let (first, end) = (grid.rows.start * grid.across + grid.columns.start, grid.wanted_before(grid.rows.end * grid.across));
        let mut block = [0; 64];
        for number in first / stretch..end.div_ceil(stretch) {
            let mcus = number * stretch..grid.wanted_before(end.min((number + 1) * stretch));
            if mcus.end <= mcus.start.max(first) {
                continue;
            }
            let (mut bits, means) = if indexed {
                let Point { bit, means } = *index.points.get(number)?;
                // The next row begins within a byte, perhaps, and a zero may follow that.
                let end = index.points.get(number + 1).map_or(coded.len(), |next| coded.len().min(next.bit / 8 + 2));
                let end = end + usize::from(coded[..end].ends_with(&[0xff]));
                scan.fill(coded.get(bit / 8..end)?)?;
                (scan.bits_from(bit as u32 % 8), means)
            } else {
                (scan.interval(number)?, [0; 3])
            };
            for (part, mean) in parts.iter_mut().zip(means) {
                part.mean = mean;
            }
            let [mut y, mut x] = [mcus.start / grid.across, mcus.start % grid.across];
            for _ in mcus {
                let wanted = grid.rows.contains(&y) && grid.columns.contains(&x);
                for (part, plane) in parts.iter_mut().zip(&mut *planes) {
                    let (dc, ac) = (&tables.dc[part.dc], &tables.ac[part.ac]);
                    let [down, across] = part.blocks;
                    for at in 0..down * across {
                        part.mean = part.mean.wrapping_add(bits.difference(dc)?);
                        if !wanted {
                            bits.coefficients(ac, |_, _| Some(()))?;
                            continue;
                        }
                        let mut flat = true;
                        bits.coefficients(ac, |at, value| {
                            block[usize::from(*ZIGZAG.get(at)?)] = value;
                            flat = false;
                            Some(())
                        })?;
                        let top = 8 * ((y - grid.rows.start) * down + at / across);
                        let left = 8 * ((x - grid.columns.start) * across + at % across);
                        let to = top * plane.stride + left;
                        if flat {
                            transform::flat(part.mean.wrapping_mul(part.quantiser[0]), &mut plane.samples, to, plane.stride);
                        } else {
                            block[0] = part.mean as i16;
                            transform::inverse(&block, &part.quantiser, &mut plane.samples, to, plane.stride);
                            block = [0; 64];
                        }
                    }
                }
                x += 1;
                if x == grid.across {
                    [y, x] = [y + 1, 0];
                    if bits.overrun() {
                        return None;
                    }
                }
            }
            if bits.overrun() {
                return None;
            }
        }
        Some(())
    }

    /// Where rows of the picture in `bytes`, which was opened last, begin: for [`Decoder::decode`]. `None` where that is of no use or cannot be
    /// had: in small files, those with restart markers, and damaged ones.
    pub(crate) fn index(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let size = [self.header.height, self.header.width];
        let every = Index::spacing(Grid::new(&self.header, Window::whole(size)).down, bytes.len())?;
        self.index_every(every, bytes)
    }

    /// As [`Decoder::index`], with a point for so many rows of MCUs.
    fn index_every(&mut self, every: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let Self { header, tables, scan, .. } = self;
        let grid = Grid::new(header, Window::whole([header.height, header.width]));
        if header.restart > 0 {
            return None;
        }
        let coded = bytes.get(header.scan..)?;
        scan.fill(coded)?;
        let mut bits = scan.interval(0)?;
        let (mut starts, mut points, mut means) = (Vec::new(), Vec::new(), [0; 3]);
        for y in 0..grid.down {
            if y.is_multiple_of(every) {
                starts.push(bits.place());
                points.push(Point { bit: 0, means });
            }
            for _ in 0..grid.across {
                for (number, (component, mean)) in header.components.iter().zip(&mut means).enumerate() {
                    let [down, across] = if number == 0 { grid.blocks } else { [1, 1] };
                    for _ in 0..down * across {
                        *mean = mean.wrapping_add(bits.difference(&tables.dc[component.dc])?);
                        bits.coefficients(&tables.ac[component.ac], |_, _| Some(()))?;
                    }
                }
            }
            if bits.overrun() {
                return None;
            }
        }
        starts.push(8 * scan.len());
        let places = scan.places(&starts);
        // Where the file has something else than coded bytes and what is taken out of them, its end is not found here.
        if !matches!(coded.get(places.last()? / 8..)?, [0xff, 1..=0xfe, ..]) {
            return None;
        }
        for (point, place) in points.iter_mut().zip(places) {
            point.bit = place;
        }
        Some(Index { every, points }.write(bytes.len()))
    }
}

/// What decoding knows of one component.
#[derive(Clone, Copy)]
struct Part {
    /// Rows and columns of blocks in an MCU.
    blocks: [usize; 2],
    dc: usize,
    ac: usize,
    /// In rows, as a block is.
    quantiser: [i32; 64],
    /// Of the last block, before multiplication.
    mean: i32,
}

impl Default for Part {
    fn default() -> Self {
        Self { blocks: [1, 1], dc: 0, ac: 0, quantiser: [0; 64], mean: 0 }
    }
}

/// Which MCUs a window needs. An MCU is what the file interleaves: 8×8 samples of chroma, and of luma as many such blocks as lie there.
struct Grid {
    /// Rows and columns of the picture.
    size: [usize; 2],
    /// Rows and columns of luma's blocks in an MCU.
    blocks: [usize; 2],
    /// MCUs of a row of the picture, and rows of them.
    across: usize,
    down: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl Grid {
    fn new(header: &Header, window: Window) -> Self {
        let (size, blocks) = ([header.height, header.width], [header.sampling[1], header.sampling[0]]);
        let needed = |start: usize, length: usize, of: usize, blocks: usize| {
            // Enlarging asks the neighbours of a sample.
            let margin = 2 * (blocks - 1);
            start.saturating_sub(margin) / (8 * blocks)..(start + length + margin).min(of).div_ceil(8 * blocks)
        };
        Self {
            size,
            blocks,
            across: size[1].div_ceil(8 * blocks[1]),
            down: size[0].div_ceil(8 * blocks[0]),
            rows: needed(window.top, window.height, size[0], blocks[0]),
            columns: needed(window.left, window.width, size[1], blocks[1]),
        }
    }

    /// One more than the last MCU before MCU `end` that lies in the columns of the window and not below it; 0 where there is none.
    fn wanted_before(&self, end: usize) -> usize {
        let (y, x) = (end / self.across, end % self.across);
        match x {
            _ if y >= self.rows.end => (self.rows.end - 1) * self.across + self.columns.end,
            x if x > self.columns.start => y * self.across + x.min(self.columns.end),
            _ if y > 0 => (y - 1) * self.across + self.columns.end,
            _ => 0,
        }
    }
}

impl Plane {
    /// Makes room for the samples of a component with so many blocks in an MCU.
    fn lay(&mut self, grid: &Grid, [down, across]: [usize; 2]) {
        self.stride = 8 * across * grid.columns.len();
        self.origin = [8 * down * grid.rows.start, 8 * across * grid.columns.start];
        self.size = [grid.size[0].div_ceil(grid.blocks[0] / down), grid.size[1].div_ceil(grid.blocks[1] / across)];
        self.samples.resize(self.stride * 8 * down * grid.rows.len(), 0);
    }
}

#[cfg(test)]
mod tests;
