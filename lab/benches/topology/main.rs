//! Do questions about an architecture cost nothing, and the singular values of its layers little?
//!
//! `cargo xtask bench topology`. 193 graphs are built and asked for mass, parameters and MACs, as a search over architectures would do;
//! the layers' singular values are those of one network for 100 samples, which `ldi.py` computes as the published program does.

use std::hint::black_box;

use candle::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use datasets::Seed;
use lab::metrics::ldi::{self, Slope};
use lab::metrics::{gaussian, nn_mass, profile};
use lab::models::{Spec, dense_cnn, dense_mlp};
use lab::{Activation, Model};

/// Perceptrons and convolutional networks in equal parts, of 8 to 31 layers a cell.
fn architectures() -> Vec<Spec> {
    let of = |at: usize| {
        let (depth, links) = (8 + at / 8, 1 + at % 16);
        match at % 4 {
            0 | 1 => Spec::DenseMlp(dense_mlp::Config::mnist(8 << (at % 3), depth, links)),
            2 => Spec::DenseCnn(dense_cnn::Config::cifar(dense_cnn::Layer::Regular, 32, depth, &[2 * links, 4 * links, 8 * links], 10)),
            _ => Spec::DenseCnn(dense_cnn::Config::cifar(dense_cnn::Layer::Depthwise, 32, depth, &[2 * links, 4 * links, 8 * links], 10)),
        }
    };
    (0..193).map(of).collect()
}

fn profiled(bench: &mut Criterion) {
    let specs = architectures();
    let all = |specs: &[Spec]| -> lab::Result<(f64, u64)> {
        specs.iter().try_fold((0.0, 0), |(mass, macs), spec| {
            let graph = spec.graph(Seed(0))?;
            Ok((mass + nn_mass::of(&graph)?, macs + profile::of(&graph).macs))
        })
    };
    bench.bench_function("193 graphs: build, mass, parameters, MACs", |bencher| {
        bencher.iter(|| black_box(all(&specs).expect("they add up")))
    });
}

fn conditioned(bench: &mut Criterion) {
    let mut rng = Seed(1).rng();
    let xs: Vec<f32> = (0..100 * 784).map(|_| rng.uniform() as f32).collect();
    let xs = Tensor::from_vec(xs, (100, 784), &Device::Cpu).expect("as many numbers as the shape says");
    for (name, activation) in [("ELU", Activation::Elu), ("ReLU", Activation::Relu)] {
        let config = dense_mlp::Config { activation, ..dense_mlp::Config::mnist(8, 16, 8) };
        let graph = config.graph(Seed(0)).expect("sizes that add up");
        let model = Model::new(graph, Seed(0), &Device::Cpu).expect("memory");
        let once = || ldi::of(&model, &xs, Slope::True).expect("a network with cells").mean;
        bench.bench_function(&format!("LDI: width 8, depth 16, {name}, 100 samples"), |bencher| bencher.iter(|| black_box(once())));
    }
    bench.bench_function("singular values of a Gaussian matrix 64×96", |bencher| {
        bencher.iter(|| black_box(gaussian::draw(64, 96, Seed(0))))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = profiled, conditioned
}
criterion_main!(benches);
