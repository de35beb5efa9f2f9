//! Planes of samples to pixels: halved chroma is enlarged, then all becomes red, green and blue, to the bit as libjpeg-turbo does it.

/// A rectangle of the samples of one component; rows and columns are counted from the component's own first.
#[derive(Debug, Default)]
pub(super) struct Plane {
    pub(super) samples: Vec<u8>,
    pub(super) stride: usize,
    /// The first row and column that it holds.
    pub(super) origin: [usize; 2],
    /// Rows and columns of the whole component.
    pub(super) size: [usize; 2],
}

/// Memory for a row of enlarged samples.
#[derive(Debug, Default)]
pub(super) struct Row {
    sums: Vec<u16>,
    samples: Vec<u8>,
}

impl Plane {
    /// Samples `columns` of row `y`.
    #[inline(always)]
    pub(super) fn row(&self, y: usize, columns: std::ops::Range<usize>) -> &[u8] {
        &self.samples[(y - self.origin[0]) * self.stride + columns.start - self.origin[1]..][..columns.len()]
    }

    /// Pixels `columns` of row `y` of a picture that has a sample for each `down × across` pixels: a pixel between two samples gets three
    /// parts of the nearer and one of the farther.
    #[inline(always)]
    pub(super) fn enlarged<'a>(
        &'a self,
        [down, across]: [usize; 2],
        y: usize,
        columns: std::ops::Range<usize>,
        row: &'a mut Row,
    ) -> &'a [u8] {
        let near = y / down;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(self.size[0] - 1) };
        match [down, across] {
            [1, 1] => self.row(y, columns),
            [_, 1] => {
                let rows = self.row(near, columns.clone()).iter().zip(self.row(far, columns));
                let round = 1 + (y % 2) as u16;
                row.samples.clear();
                row.samples.extend(rows.map(|(&near, &far)| ((3 * u16::from(near) + u16::from(far) + round) >> 2) as u8));
                &row.samples
            }
            _ => {
                let samples = columns.start / 2..(columns.end - 1) / 2 + 1;
                // With a neighbour at either side; where the picture ends, its last sample is its own neighbour.
                let known = samples.start.saturating_sub(1)..(samples.end + 1).min(self.size[1]);
                row.sums.clear();
                row.sums.resize(usize::from(samples.start == 0), 0);
                let near = self.row(near, known.clone());
                match down {
                    1 => row.sums.extend(near.iter().map(|&near| u16::from(near))),
                    _ => row.sums.extend(near.iter().zip(self.row(far, known)).map(|(&near, &far)| 3 * u16::from(near) + u16::from(far))),
                }
                if samples.start == 0 {
                    row.sums[0] = row.sums[1];
                }
                if samples.end == self.size[1] {
                    row.sums.extend_from_within(row.sums.len() - 1..);
                }
                row.samples.resize(2 * samples.len(), 0);
                match down {
                    1 => between::<2>(&row.sums, [1, 2], &mut row.samples),
                    _ => between::<4>(&row.sums, [8, 7], &mut row.samples),
                }
                &row.samples[columns.start % 2..][..columns.len()]
            }
        }
    }
}

/// Two pixels for each sum that has two neighbours, divided by 2^`SHIFT`.
#[inline(always)]
fn between<const SHIFT: u32>(sums: &[u16], round: [u16; 2], to: &mut [u8]) {
    let (before, after) = (sums, &sums[2..]);
    for (((pair, &sum), &before), &after) in to.chunks_exact_mut(2).zip(&sums[1..]).zip(before).zip(after) {
        pair[0] = ((3 * sum + before + round[0]) >> SHIFT) as u8;
        pair[1] = ((3 * sum + after + round[1]) >> SHIFT) as u8;
    }
}

/// A row of luma and chroma to pixels (JFIF's equations), in 1/65536.
#[inline(always)]
pub(super) fn mix([luma, blue, red]: [&[u8]; 3], pixels: &mut [u8]) {
    for (((pixel, &luma), &blue), &red) in pixels.chunks_exact_mut(3).zip(luma).zip(blue).zip(red) {
        let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
        let byte = |difference: i32| (luma + ((difference + 32_768) >> 16)).clamp(0, 255) as u8;
        pixel[0] = byte(91_881 * red);
        pixel[1] = byte(-22_554 * blue - 46_802 * red);
        pixel[2] = byte(116_130 * blue);
    }
}
