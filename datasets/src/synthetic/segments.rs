//! The two sets that NN-Mass is measured on: segments of a line, and rings of a disc, that alternate between two classes.
//!
//! Bhardwaj, Li & Marculescu 2021, arXiv:1910.00780. The range 0 to 100 is cut into 120 bins; each gives 100 training and 10 test values, in
//! the order of the bins. A value `v` is the point `(v, v)` of the line, or a radius of the disc, at a random angle. The bins are gathered
//! into segments, and a point's class is its segment's number modulo 2. The inputs are handed out as they are, not normalised.

use std::collections::BTreeSet;

use crate::{Error, Result, Rng, Seed, Table};

/// The values end here; they begin at 0.
const END: f64 = 100.0;
const BINS: usize = 120;
const TRAIN_PER_BIN: usize = 100;
const TEST_PER_BIN: usize = 10;

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Line or disc.
    pub kind: Kind,
    /// Number of segments, 1 to 120. More are harder.
    pub segments: usize,
    /// Where a point's class comes from.
    #[serde(default)]
    pub labels: Labels,
}

/// Where the values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Points `(v, v)`, uniform in each bin.
    Linear,
    /// Points `(v cos φ, v sin φ)`: `φ` uniform, `v` normal about the bin's centre with half its width as standard deviation, cut off at its edges.
    Circular,
}

/// Where a point's class comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// From its value. The number of segments must divide 120, so that no bin is shared by two segments.
    #[default]
    Value,
    /// `compat`: from its place in the list, as published, for any number of segments. Where the number does not divide 120, a bin at a border
    /// of two segments holds both classes at random.
    Row,
}

/// Both splits of one drawing.
#[derive(Debug, Clone, PartialEq)]
pub struct Segments {
    train: Points,
    test: Points,
}

/// Points of the plane with their classes, in the order of the bins.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    /// `n × 2` coordinates, point after point.
    pub rows: Vec<f32>,
    /// `n` classes, 0 or 1.
    pub labels: Vec<u32>,
}

impl Config {
    /// `segments` of the line, labelled by value.
    pub fn linear(segments: usize) -> Self {
        Self { kind: Kind::Linear, segments, labels: Labels::Value }
    }

    /// `segments` rings of the disc, labelled by value.
    pub fn circular(segments: usize) -> Self {
        Self { kind: Kind::Circular, segments, labels: Labels::Value }
    }

    fn check(&self) -> Result<()> {
        let (fits, wanted) = match self.labels {
            Labels::Value => (self.segments > 0 && BINS.is_multiple_of(self.segments), "a divisor of 120, or labels by row"),
            Labels::Row => ((1..=BINS).contains(&self.segments), "1 to 120"),
        };
        if fits { Ok(()) } else { Err(Error::config("segments", "segments", wanted, self.segments)) }
    }
}

impl Segments {
    /// 12,000 training and 1,200 test points, all different.
    ///
    /// ```
    /// use datasets::{Seed, synthetic::{Segments, segments::Config}};
    ///
    /// let segments = Segments::new(Config::linear(20), Seed(0))?;
    /// assert_eq!(segments.train().labels.len(), 12_000);
    /// assert_eq!(segments.test().labels[..61], [[0; 60].as_slice(), &[1]].concat());
    /// # Ok::<(), datasets::Error>(())
    /// ```
    ///
    /// # Errors
    /// When this number of segments cannot be labelled in this way.
    pub fn new(config: Config, seed: Seed) -> Result<Self> {
        config.check()?;
        let mut seen = BTreeSet::new();
        let train = draw(&config, TRAIN_PER_BIN, seed.named("train"), &mut seen);
        let test = draw(&config, TEST_PER_BIN, seed.named("test"), &mut seen);
        Ok(Self { train, test })
    }

    /// 100 points a bin.
    pub fn train(&self) -> &Points {
        &self.train
    }

    /// 10 points a bin, none of them a training point.
    pub fn test(&self) -> &Points {
        &self.test
    }
}

impl Points {
    /// The points as batches `[n, 2]`; in random order where a seed is given.
    ///
    /// # Panics
    /// When `batch` is 0.
    pub fn batches(&self, batch: usize, shuffle: Option<Seed>) -> Table {
        Table::new(self.rows.clone(), &[2], self.labels.clone(), 2, batch, shuffle)
    }
}

/// `per_bin` points of each bin, with values that are not in `seen` yet.
fn draw(config: &Config, per_bin: usize, seed: Seed, seen: &mut BTreeSet<u32>) -> Points {
    let mut rng = seed.rng();
    let count = BINS * per_bin;
    let mut points = Points { rows: Vec::with_capacity(2 * count), labels: Vec::with_capacity(count) };
    for row in 0..count {
        let bin = row / per_bin;
        let value = loop {
            // What a network sees is an `f32`, so it is these that must differ and lie in the bin.
            let value = propose(config.kind, bin, &mut rng) as f32;
            if bin_of(value) == bin && seen.insert(value.to_bits()) {
                break value;
            }
        };
        points.rows.extend(match config.kind {
            Kind::Linear => [value, value],
            Kind::Circular => {
                let (sin, cos) = rng.range(0.0, std::f64::consts::TAU).sin_cos();
                [(f64::from(value) * cos) as f32, (f64::from(value) * sin) as f32]
            }
        });
        let segment = match config.labels {
            Labels::Value => bin_of(value) * config.segments / BINS,
            Labels::Row => row * config.segments / count,
        };
        points.labels.push((segment % 2) as u32);
    }
    points
}

fn propose(kind: Kind, bin: usize, rng: &mut Rng) -> f64 {
    let width = END / BINS as f64;
    let start = bin as f64 * width;
    match kind {
        Kind::Linear => rng.range(start, start + width),
        // `bin_of` rejects what falls outside, which cuts the distribution off at one standard deviation.
        Kind::Circular => start + width * (0.5 + 0.5 * rng.normal()),
    }
}

/// Which bin a value lies in; past the last for a value out of range.
fn bin_of(value: f32) -> usize {
    let place = (f64::from(value) * BINS as f64 / END).floor();
    if place < 0.0 { usize::MAX } else { place as usize }
}
