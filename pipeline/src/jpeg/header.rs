//! What stands before the pixels of a JPEG file.

use super::huffman::Tables;

/// Frame and scan of a file that this decoder can read: sequential, 8 bits, Huffman codes, one scan of one or three components.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) height: usize,
    pub(super) width: usize,
    /// One, or luma and the two chroma.
    pub(super) components: Vec<Component>,
    /// Columns and rows of luma for each of chroma: 1 or 2.
    pub(super) sampling: [usize; 2],
    /// MCUs between two restart markers; 0 without such.
    pub(super) restart: usize,
    /// Where the entropy-coded bytes begin.
    pub(super) scan: usize,
}

/// One component of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Component {
    id: u8,
    sampling: [u8; 2],
    /// Numbers of its tables.
    pub(super) quantiser: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// Multipliers of the coefficients, in the order of the file; those of the four tables that it defines.
#[derive(Debug, Default)]
pub(super) struct Quantisers(pub(super) [Option<[u16; 64]>; 4]);

/// Which colours three components are, as far as markers say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colours {
    Unsaid,
    Ycc,
    Other,
}

impl Header {
    /// Reads up to the first entropy-coded byte, and the tables on the way. `None` where the file is of another kind, or broken.
    pub(super) fn read(&mut self, bytes: &[u8], quantisers: &mut Quantisers, tables: &mut Tables) -> Option<()> {
        self.components.clear();
        self.restart = 0;
        quantisers.0 = [None; 4];
        tables.defined = Default::default();
        let mut colours = Colours::Unsaid;
        let mut rest = bytes.strip_prefix(&[0xff, 0xd8])?;
        loop {
            rest = rest.strip_prefix(&[0xff])?;
            let (&marker, after) = rest.split_first()?;
            if marker == 0xff {
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
            let segment = after.get(2..length)?;
            rest = after.get(length..)?;
            match marker {
                0xc0 | 0xc1 => self.frame(segment)?,
                0xc4 => tables.define(segment)?,
                0xda => {
                    self.scan(segment)?;
                    self.scan = bytes.len() - rest.len();
                    self.check(colours)?;
                    let defined = |c: &Component| quantisers.0[c.quantiser].is_some() && tables.defined[0][c.dc] && tables.defined[1][c.ac];
                    return self.components.iter().all(defined).then_some(());
                }
                0xdb => define(quantisers, segment)?,
                0xdd => self.restart = usize::from(u16::from_be_bytes(*segment.first_chunk()?)),
                0xe0 if segment.starts_with(b"JFIF\0") => colours = Colours::Ycc,
                0xee if segment.starts_with(b"Adobe") && colours == Colours::Unsaid => {
                    colours = if *segment.get(11)? == 1 { Colours::Ycc } else { Colours::Other };
                }
                // What applications left there, and comments.
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }

    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let &[bits, h1, h0, w1, w0, count, ref components @ ..] = segment else { return None };
        if bits != 8 || !self.components.is_empty() || components.len() != 3 * usize::from(count) {
            return None;
        }
        (self.height, self.width) = (u16::from_be_bytes([h1, h0]).into(), u16::from_be_bytes([w1, w0]).into());
        for component in components.chunks_exact(3) {
            let (id, sampling, quantiser) = (component[0], [component[1] >> 4, component[1] & 15], usize::from(component[2]));
            self.components.push(Component { id, sampling, quantiser: (quantiser < 4).then_some(quantiser)?, dc: 0, ac: 0 });
        }
        Some(())
    }

    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let (tables, spectrum) = rest.split_at_checked(2 * usize::from(count))?;
        if usize::from(count) != self.components.len() || spectrum != [0, 63, 0] {
            return None;
        }
        for (component, tables) in self.components.iter_mut().zip(tables.chunks_exact(2)) {
            let [dc, ac] = [tables[1] >> 4, tables[1] & 15].map(usize::from);
            if tables[0] != component.id || dc > 3 || ac > 3 {
                return None;
            }
            (component.dc, component.ac) = (dc, ac);
        }
        Some(())
    }

    fn check(&mut self, colours: Colours) -> Option<()> {
        let sizes = self.height > 0 && self.width > 0;
        match &self.components[..] {
            // A scan of one component is a block after the other, whatever its sampling says.
            [_] => self.sampling = [1, 1],
            [luma, chroma @ ..] if chroma.len() == 2 => {
                let ycc = match colours {
                    Colours::Ycc => true,
                    Colours::Other => false,
                    Colours::Unsaid => [luma.id, chroma[0].id, chroma[1].id] == [1, 2, 3],
                };
                let halved = luma.sampling.iter().all(|factor| matches!(factor, 1 | 2)) && chroma.iter().all(|c| c.sampling == [1, 1]);
                if !ycc || !halved {
                    return None;
                }
                self.sampling = luma.sampling.map(usize::from);
            }
            _ => return None,
        }
        sizes.then_some(())
    }
}

fn define(quantisers: &mut Quantisers, mut segment: &[u8]) -> Option<()> {
    while let Some((&head, rest)) = segment.split_first() {
        let table = quantisers.0.get_mut(usize::from(head & 15))?;
        let wide = match head >> 4 {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (numbers, after) = rest.split_at_checked(if wide { 128 } else { 64 })?;
        for (at, number) in table.insert([0; 64]).iter_mut().enumerate() {
            *number = if wide { u16::from_be_bytes([numbers[2 * at], numbers[2 * at + 1]]) } else { numbers[at].into() };
        }
        segment = after;
    }
    Some(())
}
