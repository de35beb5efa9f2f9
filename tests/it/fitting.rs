//! What training needs of memory, as the allocator saw it, against what was planned.

#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use candle::Device;
use datasets::{Batch, BatchIter, Batches, Seed, Values};
use lab::graph::Graph;
use lab::metrics::memory::plan_batch;
use lab::models::{alexnet, mobilenet_v2, vgg};
use lab::train::{Options, fit_with};
use lab::{Model, Recipe};
use serde::{Deserialize, Serialize};

use crate::alone;
use crate::nets::resnet18;

/// A run to be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Case {
    net: String,
    batch: usize,
    limit: Option<u64>,
}

const NETS: [&str; 4] = ["resnet18", "vgg16", "mobilenet_v2", "alexnet"];

/// Residuals; a plain stack; depthwise convolutions and inverted residuals; linear layers, dropout and no batch norm.
fn net(name: &str) -> Graph {
    match name {
        "resnet18" => resnet18(16),
        "vgg16" => {
            let blocks = [(16, 2), (32, 2), (64, 3), (128, 3), (128, 3)].map(|(width, count)| vec![width; count]).to_vec();
            vgg::Config { blocks, ..vgg::Config::d16(10).cifar() }.graph().unwrap()
        }
        "mobilenet_v2" => mobilenet_v2::Config::imagenet(0.25, 10).cifar().graph().unwrap(),
        "alexnet" => alexnet::Config::cifar(10).graph().unwrap(),
        other => panic!("no net `{other}`"),
    }
}

/// Two batches of noise, each drawn when it is wanted.
struct Noise {
    shape: Vec<usize>,
    batch: usize,
}

impl Batches for Noise {
    fn samples(&self) -> usize {
        2 * self.batch
    }

    fn batches(&self) -> usize {
        2
    }

    fn sample_shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn classes(&self) -> usize {
        10
    }

    fn epoch(&self, _: u64, first: usize) -> BatchIter {
        let (shape, n) = ([&[self.batch], self.shape.as_slice()].concat(), self.batch);
        Box::new((first..2).map(move |nth| {
            let mut rng = Seed(nth as u64).rng();
            let values = Values::F32((0..shape.iter().product()).map(|_| rng.normal() as f32).collect::<Vec<_>>().into());
            let labels = (0..n as u32).map(|at| at % 10).collect();
            Ok(Batch { values, shape: shape.clone(), labels, indices: (0..n as u64).collect(), normalize: None, mixed: None })
        }))
    }
}

/// The most bytes that two epochs of a run took at once, with the network's own, in a program where nothing else takes memory.
#[track_caller]
fn measured(case: &Case) -> u64 {
    alone::find("fitting::the_run_that_is_measured", &serde_json::to_string(case).unwrap()).parse().unwrap()
}

/// Not a test by itself: what [`alone::find`] starts.
#[test]
fn the_run_that_is_measured() {
    let Some((case, tell)) = alone::asked() else { return };
    let Case { net: name, batch, limit } = serde_json::from_str(&case).unwrap();
    let (graph, options) = (net(&name), Options { memory: limit, ..Options::default() });
    let data = Noise { shape: graph.input_shape().to_vec(), batch };
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let model = Model::new(graph, Seed(3), &Device::Cpu).unwrap();
    fit_with(&model, &data, Some(&data), &Recipe::sgd(0.01, 2), &options, |_| {}).unwrap();
    tell(&(MOST.load(Relaxed) - before).to_string());
}

/// The plan is never too small, and not much too large; also where it splits the batch, to keep a limit.
#[test]
fn training_takes_what_was_planned() {
    let recipe = Recipe::sgd(0.01, 2);
    for name in NETS {
        for batch in [32, 64] {
            let whole = plan_batch(&net(name), batch, u64::MAX, &recipe).unwrap();
            let found = measured(&Case { net: name.to_owned(), batch, limit: None });
            assert!(found <= whole.bytes && found as f64 >= 0.7 * whole.bytes as f64, "{name}, {batch}: {found} of {}", whole.bytes);
            let limit = whole.bytes - whole.bytes / 20;
            let parts = plan_batch(&net(name), batch, limit, &recipe);
            if let Ok(parts) = parts {
                let found = measured(&Case { net: name.to_owned(), batch, limit: Some(limit) });
                assert!(
                    parts.accumulate > 1 && found <= parts.bytes,
                    "{name}, {batch} in {}: {found} of {}",
                    parts.accumulate,
                    parts.bytes
                );
            } else {
                assert_eq!(name, "alexnet", "of these only this one is mostly parameters, of which a sum needs one more copy");
            }
        }
    }
}

/// The system's allocator, counting.
struct Counted;

/// How often memory was asked for.
pub(crate) static CALLS: AtomicUsize = AtomicUsize::new(0);
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl Counted {
    fn add(bytes: usize) {
        CALLS.fetch_add(1, Relaxed);
        MOST.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
    }
}

// SAFETY: every call is the system's; counting touches no memory of anybody.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the promises of this call, which are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the promises of this call, which are the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of this call, which are the system's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::add(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of this call, which are the system's.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;
