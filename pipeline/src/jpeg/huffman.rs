//! Huffman tables: from the next bits to a number of zeros and the coefficient after them, in one look-up where they are short.

/// Bits that a look-up sees.
const SEEN: u32 = 11;

/// The tables of a file, by number. Those of the last file stay, for the next that defines them alike.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) dc: [Table; 4],
    pub(super) ac: [Table; 4],
    /// Which of them this file has defined.
    pub(super) defined: [[bool; 4]; 2],
}

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    /// What the first bits say.
    entries: Box<[Entry; 1 << SEEN]>,
    /// For each length of a code: the first 16 bits beyond its last code, and what to add to a code for its place in `symbols`.
    beyond: [u32; 17],
    offset: [i32; 17],
    symbols: [u8; 256],
    /// The bytes of the file it was made of: most files have the same, and to make it takes as long as a small picture.
    made_of: Vec<u8>,
}

/// What the next bits say, from the lowest bit on: 6 bits for how many of them it read, 2 for its [`Kind`], 8 for the zeros before the
/// coefficient, 16 for the coefficient, or for the number of its bits where not all were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

/// How an [`Entry`] is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is all there.
    Whole,
    /// No coefficient follows the zeros; 64 of them end the block.
    Zeros,
    /// The bits of the coefficient are to be read still.
    Cut,
    /// The code is longer than what was seen, or none.
    Long,
}

impl Entry {
    const UNSEEN: Self = Self((Kind::Long as u32) << 6);

    fn new(kind: Kind, bits: u32, run: u8, value: i16) -> Self {
        Self(bits | (kind as u32) << 6 | u32::from(run) << 8 | u32::from(value as u16) << 16)
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0 & 63
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match self.0 >> 6 & 3 {
            0 => Kind::Whole,
            1 => Kind::Zeros,
            2 => Kind::Cut,
            _ => Kind::Long,
        }
    }

    #[inline(always)]
    pub(super) fn is_whole(self) -> bool {
        self.0 & 3 << 6 == 0
    }

    #[inline(always)]
    pub(super) fn run(self) -> usize {
        (self.0 >> 8 & 255) as usize
    }

    #[inline(always)]
    pub(super) fn value(self) -> i16 {
        (self.0 >> 16) as i16
    }
}

impl Default for Table {
    fn default() -> Self {
        let entries = Box::new([Entry::UNSEEN; 1 << SEEN]);
        Self { entries, beyond: [0; 17], offset: [0; 17], symbols: [0; 256], made_of: Vec::new() }
    }
}

impl Tables {
    /// Those of one `DHT` segment.
    pub(super) fn define(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let counts: &[u8; 16] = rest.first_chunk()?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let (definition, after) = rest.split_at_checked(16 + total)?;
            let (class, number) = (usize::from(head >> 4), usize::from(head & 15));
            *self.defined.get_mut(class)?.get_mut(number)? = true;
            match class {
                0 => self.dc[number].define(definition, true)?,
                _ => self.ac[number].define(definition, false)?,
            }
            segment = after;
        }
        Some(())
    }
}

impl Table {
    /// From the numbers of codes of each length, 1 to 16, and the symbols in the order of their codes (T.81, annex C).
    fn define(&mut self, definition: &[u8], dc: bool) -> Option<()> {
        if self.made_of == definition {
            return Some(());
        }
        self.made_of.clear();
        let (counts, symbols) = definition.split_at(16);
        self.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        self.entries.fill(Entry::UNSEEN);
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            self.offset[length as usize] = place as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 {
                    return None;
                }
                let symbol = symbols[place];
                if dc && symbol > 11 {
                    return None;
                }
                if length <= SEEN {
                    self.see(code, length, symbol, dc);
                }
                (code, place) = (code + 1, place + 1);
            }
            self.beyond[length as usize] = code << (16 - length);
            code <<= 1;
        }
        self.made_of.extend_from_slice(definition);
        Some(())
    }

    /// Fills in all entries that begin with `code`.
    fn see(&mut self, code: u32, length: u32, symbol: u8, dc: bool) {
        let free = SEEN - length;
        let first = (code << free) as usize;
        for (rest, entry) in self.entries[first..first + (1 << free)].iter_mut().enumerate() {
            *entry = match read(symbol, dc) {
                (run, None) => Entry::new(Kind::Zeros, length, run, 0),
                (run, Some(size)) if size <= free => {
                    let bits = rest as u32 >> (free - size);
                    Entry::new(Kind::Whole, length + size, run, extend(bits, size))
                }
                (run, Some(size)) => Entry::new(Kind::Cut, length, run, size as i16),
            };
        }
    }

    /// What bits, the first being the highest, begin with.
    #[inline(always)]
    pub(super) fn look(&self) -> impl Fn(u64) -> Entry {
        let entries = &*self.entries;
        move |bits| entries[(bits >> (64 - SEEN)) as usize]
    }

    /// As [`Table::look`], for a code that is longer than a look-up sees.
    #[cold]
    pub(super) fn search(&self, bits: u64, dc: bool) -> Option<Entry> {
        let seen = (bits >> 48) as u32;
        let length = (SEEN as usize + 1..=16).find(|&length| seen < self.beyond[length])?;
        let code = seen >> (16 - length);
        let symbol = *self.symbols.get(usize::try_from(code as i32 + self.offset[length]).ok()?)?;
        Some(match read(symbol, dc) {
            (run, None) => Entry::new(Kind::Zeros, length as u32, run, 0),
            (run, Some(size)) => Entry::new(Kind::Cut, length as u32, run, size as i16),
        })
    }
}

/// Zeros, and the number of bits of the coefficient after them, if there is one.
fn read(symbol: u8, dc: bool) -> (u8, Option<u32>) {
    match (symbol >> 4, symbol & 15) {
        (_, size) if dc => (0, Some(size.into())),
        (15, 0) => (16, None),
        // The end of the block.
        (_, 0) => (64, None),
        (run, size) => (run, Some(size.into())),
    }
}

/// The number that `size` bits stand for: the lower half of them are negative ones.
#[inline(always)]
pub(super) fn extend(bits: u32, size: u32) -> i16 {
    let negative = bits < (1 << size) >> 1;
    (bits as i32 - if negative { (1 << size) - 1 } else { 0 }) as i16
}
