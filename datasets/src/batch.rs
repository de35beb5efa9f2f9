//! What training reads: batches, an epoch at a time.

use std::sync::Arc;

use crate::{Buffer, Rng, Seed};

/// The numbers of a batch, row after row.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Pixels, 0 to 255.
    U8(Buffer<u8>),
    /// Values ready for a network.
    F32(Buffer<f32>),
}

/// Per-channel normalisation: a pixel `p` of 0 to 255 becomes `(p / 255 − mean) / std`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalize {
    /// One per channel, on the scale 0 to 1.
    pub mean: Vec<f32>,
    /// One per channel, on the scale 0 to 1.
    pub std: Vec<f32>,
}

impl Normalize {
    /// Pixels brought to the scale 0 to 1, and no further.
    pub fn unit(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// What a pixel of a channel becomes.
    ///
    /// # Panics
    /// When there is no such channel.
    pub fn channel(&self, channel: usize) -> impl Fn(u8) -> f32 + Copy + use<> {
        let (mean, std) = (self.mean[channel], self.std[channel]);
        move |pixel| (f32::from(pixel) / 255.0 - mean) / std
    }

    /// The same, but for rounding, as one factor and one summand a channel.
    pub fn lines(&self) -> (Vec<f32>, Vec<f32>) {
        let factors = self.std.iter().map(|std| 1.0 / (255.0 * std)).collect();
        (factors, self.mean.iter().zip(&self.std).map(|(mean, std)| -mean / std).collect())
    }
}

/// The samples of one training step.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The product of `shape` numbers.
    pub values: Values,
    /// `[n, c, h, w]` for pictures, `[n, v, c, h, w]` for `v` views of each, `[n, d]` for vectors.
    pub shape: Vec<usize>,
    /// `n` class indices.
    pub labels: Vec<u32>,
    /// `n` positions in the split the batch was drawn from.
    pub indices: Vec<u64>,
    /// What the device does to `u8` pixels; without it they become `p / 255`.
    pub normalize: Option<Arc<Normalize>>,
    /// With what each sample was mixed, if it was.
    pub mixed: Option<Mixed>,
}

/// With what the samples of a batch were mixed (mix-up, Zhang et al. 2018): `share` of sample `k` is its own, of the class that its label
/// says; the rest is another's, of class `others[k]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mixed {
    /// In `0.5..=1.0`.
    pub share: f32,
    /// `n` class indices.
    pub others: Vec<u32>,
}

impl Mixed {
    /// The distributions over `classes` that samples labelled `labels` are to be taken for, `(n, classes)`; each sums to 1, of which
    /// `smoothing` goes to all classes alike.
    ///
    /// # Panics
    /// When a label is not below `classes`.
    pub fn targets(&self, labels: &[u32], classes: usize, smoothing: f64) -> Vec<f32> {
        let own = f64::from(self.share);
        let mut targets = vec![(smoothing / classes as f64) as f32; labels.len() * classes];
        for (row, (&label, &other)) in targets.chunks_exact_mut(classes).zip(labels.iter().zip(&self.others)) {
            for (label, share) in [(label, own), (other, 1.0 - own)] {
                row[label as usize] += ((1.0 - smoothing) * share) as f32;
            }
        }
        targets
    }
}

impl Batch {
    /// Number of samples `n`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of views of each sample; 1 where there are no views.
    pub fn views(&self) -> usize {
        if self.shape.len() == 5 { self.shape[1] } else { 1 }
    }

    /// The shape of a picture `[c, h, w]`, or of a vector `[d]`.
    pub fn picture(&self) -> &[usize] {
        let before = if self.shape.len() == 5 { 2 } else { 1 };
        self.shape.get(before..).unwrap_or_default()
    }
}

/// Why a batch could not be had; the cause says which file and record.
pub type BatchError = Box<dyn std::error::Error + Send + Sync>;

/// The batches of one epoch, in order.
pub type BatchIter = Box<dyn Iterator<Item = Result<Batch, BatchError>> + Send>;

/// Epochs of batches: a loader, a remote one, or a table in memory.
///
/// Batch `k` of epoch `e` is the same whenever and wherever it is asked for.
pub trait Batches: Send + Sync {
    /// Number of samples in an epoch.
    fn samples(&self) -> usize;

    /// Number of batches in an epoch.
    fn batches(&self) -> usize;

    /// The shape of one sample: `[c, h, w]`, `[v, c, h, w]` or `[d]`.
    fn sample_shape(&self) -> Vec<usize>;

    /// Number of classes.
    fn classes(&self) -> usize;

    /// The batches of epoch `epoch` from number `first` on.
    fn epoch(&self, epoch: u64, first: usize) -> BatchIter;
}

/// Samples in memory, as batches: the synthetic sets, and whatever a notebook computes.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Arc<Vec<f32>>,
    shape: Vec<usize>,
    labels: Arc<Vec<u32>>,
    classes: usize,
    batch: usize,
    shuffle: Option<Seed>,
}

impl Table {
    /// Samples of shape `shape` one after another, a label each, in batches of `batch`; in random order where a seed is given.
    /// The last batch may be smaller.
    ///
    /// # Panics
    /// When `rows` is not as many numbers as `labels.len()` samples have, a label is not below `classes`, or `batch` is 0.
    pub fn new(rows: Vec<f32>, shape: &[usize], labels: Vec<u32>, classes: usize, batch: usize, shuffle: Option<Seed>) -> Self {
        assert_eq!(rows.len(), labels.len() * shape.iter().product::<usize>(), "numbers of {} samples of {shape:?}", labels.len());
        assert!(labels.iter().all(|&label| (label as usize) < classes), "labels below {classes}");
        assert!(batch > 0, "a batch has at least one sample");
        Self { rows: Arc::new(rows), shape: shape.to_vec(), labels: Arc::new(labels), classes, batch, shuffle }
    }

    /// The first epoch of `source`, read into memory as vectors, in its order: pixels normalised, or divided by 255. For networks so
    /// small that reading would take longer than training.
    ///
    /// # Errors
    /// When a batch cannot be read.
    pub fn collect(source: &dyn Batches) -> Result<Self, BatchError> {
        let width = source.sample_shape().iter().product::<usize>();
        let (mut rows, mut labels) = (Vec::with_capacity(source.samples() * width), Vec::with_capacity(source.samples()));
        for batch in source.epoch(0, 0) {
            let batch = batch?;
            match &batch.values {
                Values::F32(values) => rows.extend_from_slice(values),
                Values::U8(pixels) => {
                    let channels = batch.picture().first().copied().unwrap_or(1);
                    let unit = Normalize::unit(channels);
                    let normalize = batch.normalize.as_deref().unwrap_or(&unit);
                    for (at, plane) in pixels.chunks_exact(width / channels / batch.views()).enumerate() {
                        rows.extend(plane.iter().copied().map(normalize.channel(at % channels)));
                    }
                }
            }
            labels.extend_from_slice(&batch.labels);
        }
        Ok(Self::new(rows, &[width], labels, source.classes(), 256, None))
    }

    /// The same samples in batches of `batch`, in random order where a seed is given; nothing is copied.
    ///
    /// # Panics
    /// When `batch` is 0.
    pub fn batched(&self, batch: usize, shuffle: Option<Seed>) -> Self {
        assert!(batch > 0, "a batch has at least one sample");
        Self { batch, shuffle, ..self.clone() }
    }
}

impl Batches for Table {
    fn samples(&self) -> usize {
        self.labels.len()
    }

    fn batches(&self) -> usize {
        self.labels.len().div_ceil(self.batch)
    }

    fn sample_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        let mut order: Vec<u64> = (0..self.labels.len() as u64).collect();
        if let Some(seed) = self.shuffle {
            Rng::shuffle(&mut seed.at(epoch).rng(), &mut order);
        }
        let table = self.clone();
        Box::new((first..self.batches()).map(move |k| {
            let indices = order[k * table.batch..((k + 1) * table.batch).min(order.len())].to_vec();
            let width = table.shape.iter().product::<usize>();
            let mut values = Vec::with_capacity(indices.len() * width);
            indices.iter().for_each(|&i| values.extend_from_slice(&table.rows[i as usize * width..][..width]));
            Ok(Batch {
                values: Values::F32(values.into()),
                shape: [&[indices.len()], table.shape.as_slice()].concat(),
                labels: indices.iter().map(|&i| table.labels[i as usize]).collect(),
                indices,
                normalize: None,
                mixed: None,
            })
        }))
    }
}
