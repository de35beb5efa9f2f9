//! ResNet-18 on a part of the real CIFAR-10: does it learn what PyTorch learns of it?

use std::sync::Arc;
use std::time::Instant;

use candle::Device;
use datasets::{Batch, BatchIter, Batches, Cifar, Dataset, Normalize, Picture, Rng, Seed, Values};
use lab::models::resnet;
use lab::train::Event;
use lab::{Model, Recipe, fit};

const BATCH: usize = 64;

/// Trains on the first 4,000 pictures below `folder`, and prints the accuracy on the first 2,000 test pictures and the seconds since the
/// beginning after each epoch.
pub(crate) fn learn(folder: &str, seed: Seed, device: &Device) -> lab::Result<()> {
    let cifar = Cifar::open(folder).unwrap_or_else(|error| panic!("{error}"));
    let (train, test) = (First::read(&cifar, 0, 4_000, Some(seed)), First::read(&cifar, 1, 2_000, None));
    let model = Model::new(resnet::Config::r18(10).cifar().graph()?, seed, device)?;
    let recipe = Recipe { warm_up: 1.0, seed: seed.0, ..Recipe::sgd(0.05, 4) };
    let start = Instant::now();
    let history = fit(&model, &train, Some(&test), &recipe, |event| {
        if let Event::Epoch { row, .. } = event {
            println!("{} {:.1}", row.test_accuracy.unwrap_or_default(), start.elapsed().as_secs_f64());
        }
    });
    history.map(|_| ())
}

/// The first pictures of a split, in random order where a seed is given.
struct First {
    pictures: Vec<(Vec<u8>, u32)>,
    shuffle: Option<Seed>,
    normalize: Arc<Normalize>,
}

impl First {
    fn read(cifar: &Cifar, split: usize, count: usize, shuffle: Option<Seed>) -> Self {
        let picture = |at: usize| {
            let sample = cifar.get(split, at).unwrap_or_else(|error| panic!("{error}"));
            let Picture::Raw(image) = sample.picture else { panic!("CIFAR's pictures are pixels") };
            (image.to_planes(), sample.label)
        };
        let normalize = Normalize { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] };
        Self { pictures: (0..count).map(picture).collect(), shuffle, normalize: Arc::new(normalize) }
    }

    fn batch(&self, indices: &[u64]) -> Batch {
        let of = |&at: &u64| &self.pictures[at as usize];
        Batch {
            values: Values::U8(indices.iter().flat_map(|at| of(at).0.iter().copied()).collect()),
            shape: vec![indices.len(), 3, 32, 32],
            labels: indices.iter().map(|at| of(at).1).collect(),
            indices: indices.to_vec(),
            normalize: Some(self.normalize.clone()),
        }
    }
}

impl Batches for First {
    fn samples(&self) -> usize {
        self.pictures.len()
    }
    fn batches(&self) -> usize {
        self.pictures.len().div_ceil(BATCH)
    }
    fn sample_shape(&self) -> Vec<usize> {
        vec![3, 32, 32]
    }
    fn classes(&self) -> usize {
        10
    }
    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        let mut order: Vec<u64> = (0..self.pictures.len() as u64).collect();
        if let Some(seed) = self.shuffle {
            Rng::shuffle(&mut seed.at(epoch).rng(), &mut order);
        }
        let batches: Vec<_> = order.chunks(BATCH).skip(first).map(|indices| Ok(self.batch(indices))).collect();
        Box::new(batches.into_iter())
    }
}
