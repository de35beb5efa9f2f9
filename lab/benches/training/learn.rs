//! ResNet-18 on the real CIFAR-10: does it learn what PyTorch learns of it?

use std::sync::Arc;
use std::time::Instant;

use candle::Device;
use datasets::{Batch, BatchIter, Batches, Cifar, Dataset, Normalize, Picture, Rng, Seed, Values};
use lab::models::resnet;
use lab::train::{Event, Optimizer, Precision};
use lab::{Model, Recipe, fit};

/// Trains on pictures below `folder`, and prints the accuracy on test pictures and the seconds since the beginning after each epoch.
///
/// On the CPU these are the first 4,000, tested on the first 2,000, in 4 epochs as they are; elsewhere all of them in 30 epochs, shifted and
/// mirrored, from which a ResNet-18 learns 94 %.
pub(crate) fn learn(folder: &str, seed: Seed, device: &Device) -> lab::Result<()> {
    let cifar = Cifar::open(folder).unwrap_or_else(|error| panic!("{error:?}"));
    let (train, test, recipe) = if device.is_cpu() {
        let few = |split, count| Pictures::read(&cifar, split, count, 64);
        (few(0, 4_000).shuffled(seed), few(1, 2_000), Recipe { warm_up: 1.0, ..Recipe::sgd(0.05, 4) })
    } else {
        let all = |split: usize| Pictures::read(&cifar, split, cifar.info().splits[split].len, 128);
        let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 };
        (all(0).shuffled(seed).moved(seed), all(1), Recipe { optimizer, warm_up: 5.0, precision: Precision::Mixed, ..Recipe::sgd(0.1, 30) })
    };
    let model = Model::new(resnet::Config::r18(10).cifar().graph()?, seed, device)?;
    let start = Instant::now();
    let history = fit(&model, &train, Some(&test), &Recipe { seed: seed.0, ..recipe }, |event| {
        if let Event::Epoch { row, .. } = event {
            println!("{} {:.1}", row.test_accuracy.unwrap_or_default(), start.elapsed().as_secs_f64());
        }
    });
    history.map(|_| ())
}

/// The first pictures of a split: in order and as they are, unless seeds say otherwise.
#[derive(Clone)]
struct Pictures {
    /// Planes, and the class.
    samples: Arc<Vec<(Vec<u8>, u32)>>,
    batch: usize,
    shuffle: Option<Seed>,
    shift: Option<Seed>,
    normalize: Arc<Normalize>,
}

/// Of a picture, in pixels.
const SIDE: usize = 32;

impl Pictures {
    fn read(cifar: &Cifar, split: usize, count: usize, batch: usize) -> Self {
        let sample = |at: usize| {
            let sample = cifar.get(split, at).unwrap_or_else(|error| panic!("{error:?}"));
            let Picture::Raw(image) = sample.picture else { panic!("CIFAR's pictures are pixels") };
            (image.to_planes(), sample.label)
        };
        let normalize = Normalize { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] };
        let samples = Arc::new((0..count).map(sample).collect());
        Self { samples, batch, shuffle: None, shift: None, normalize: Arc::new(normalize) }
    }

    fn shuffled(self, seed: Seed) -> Self {
        Self { shuffle: Some(seed), ..self }
    }

    fn moved(self, seed: Seed) -> Self {
        Self { shift: Some(seed.named("shift")), ..self }
    }

    fn batch(&self, epoch: u64, indices: &[u64]) -> Batch {
        let mut pixels = Vec::with_capacity(indices.len() * 3 * SIDE * SIDE);
        for &at in indices {
            let planes = &self.samples[at as usize].0;
            match self.shift {
                Some(seed) => moved(planes, &mut seed.at(epoch).at(at).rng(), &mut pixels),
                None => pixels.extend_from_slice(planes),
            }
        }
        Batch {
            values: Values::U8(pixels.into()),
            shape: vec![indices.len(), 3, SIDE, SIDE],
            labels: indices.iter().map(|&at| self.samples[at as usize].1).collect(),
            indices: indices.to_vec(),
            normalize: Some(self.normalize.clone()),
            mixed: None,
        }
    }
}

/// Adds a picture shifted by up to 4 pixels each way, black where nothing was, and perhaps mirrored.
fn moved(planes: &[u8], rng: &mut Rng, pixels: &mut Vec<u8>) {
    let (down, right, mirror) = (rng.below(9), rng.below(9), rng.chance(0.5));
    let source = |to: usize, shift: usize| (to + shift).checked_sub(4).filter(|&from| from < SIDE);
    for plane in planes.chunks_exact(SIDE * SIDE) {
        for row in 0..SIDE {
            let row = source(row, down).map(|from| &plane[from * SIDE..][..SIDE]);
            let pixel = |column: usize| row.zip(source(column, right)).map_or(0, |(row, from)| row[from]);
            pixels.extend((0..SIDE).map(|column| pixel(if mirror { SIDE - 1 - column } else { column })));
        }
    }
}

impl Batches for Pictures {
    fn samples(&self) -> usize {
        self.samples.len()
    }
    fn batches(&self) -> usize {
        self.samples.len().div_ceil(self.batch)
    }
    fn sample_shape(&self) -> Vec<usize> {
        vec![3, SIDE, SIDE]
    }
    fn classes(&self) -> usize {
        10
    }
    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        let mut order: Vec<u64> = (0..self.samples.len() as u64).collect();
        if let Some(seed) = self.shuffle {
            seed.at(epoch).rng().shuffle(&mut order);
        }
        let pictures = self.clone();
        let batch = move |nth: usize| {
            let indices = &order[nth * pictures.batch..order.len().min((nth + 1) * pictures.batch)];
            Ok(pictures.batch(epoch, indices))
        };
        Box::new((first..self.batches()).map(batch))
    }
}
