//! Is a forward and backward pass of ours faster than candle's own? One group an operation, at sizes of CIFAR networks.
//!
//! Run it by `cargo bench -p lab -p tests --bench kernels --profile dev`: the profile that notebooks run with, and the same selection of
//! packages as the tests, so that cargo does not build the dependencies anew with other features. Give `RAYON_NUM_THREADS=1` for one core against one core.

use std::hint::black_box;

use candle::{DType, Device, Result, Tensor, Var};
use criterion::{Criterion, criterion_group, criterion_main};
use datasets::Seed;
use lab::kernels::{self, Activation, Affine, Conv, Pool};

fn var(seed: u64, shape: &[usize]) -> Var {
    let mut rng = Seed(seed).rng();
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0) as f32).collect();
    Var::from_tensor(&Tensor::from_vec(numbers, shape, &Device::Cpu).expect("as many numbers as the shape says")).expect("a copy")
}

type Op<'a> = &'a dyn Fn(&[Var]) -> Result<Tensor>;

/// Times forward and backward of each implementation; the gradient that comes back is the output itself.
fn compare(bench: &mut Criterion, name: &str, shapes: &[&[usize]], implementations: &[(&str, Op<'_>)]) {
    let vars: Vec<Var> = shapes.iter().zip(1..).map(|(shape, seed)| var(seed, shape)).collect();
    let mut group = bench.benchmark_group(name);
    group.sample_size(10);
    for (name, f) in implementations {
        let step = || -> Result<()> {
            let ys = f(&vars)?;
            let loss = (&ys * ys.detach())?.sum_all()?;
            black_box(loss.backward()?);
            Ok(())
        };
        group.bench_function(*name, |bencher| bencher.iter(|| step().expect("sizes that fit")));
    }
    group.finish();
}

fn all(bench: &mut Criterion) {
    let conv = Conv { padding: (1, 1), ..Conv::default() };
    let depthwise = Conv { groups: 64, ..conv };
    let picture: &[usize] = &[32, 64, 32, 32];
    compare(bench, "nothing", &[picture], &[("candle", &|v| v[0].affine(1.0, 0.0))]);
    compare(
        bench,
        "conv 3x3",
        &[picture, &[64, 64, 3, 3]],
        &[("ours", &|v| kernels::conv2d(&v[0], &v[1], None, &conv)), ("candle", &|v| v[0].conv2d(&v[1], 1, 1, 1, 1))],
    );
    compare(
        bench,
        "conv 1x1",
        &[picture, &[64, 64, 1, 1]],
        &[("ours", &|v| kernels::conv2d(&v[0], &v[1], None, &Conv::default())), ("candle", &|v| v[0].conv2d(&v[1], 0, 1, 1, 1))],
    );
    compare(
        bench,
        "depthwise 3x3",
        &[picture, &[64, 1, 3, 3]],
        &[("ours", &|v| kernels::conv2d(&v[0], &v[1], None, &depthwise)), ("candle", &|v| v[0].conv2d(&v[1], 1, 1, 1, 64))],
    );
    let norm = |v: &[Var]| Ok(kernels::batch_norm(&v[0], Some(Affine { weight: &v[1], bias: &v[2] }), 1e-5)?.ys);
    let theirs = |v: &[Var]| {
        let zeros = Tensor::zeros(64, DType::F32, &Device::Cpu)?;
        let layer =
            candle_nn::BatchNorm::new(64, zeros.clone(), zeros.ones_like()?, v[1].as_tensor().clone(), v[2].as_tensor().clone(), 1e-5)?;
        candle_nn::ModuleT::forward_t(&layer, &v[0], true)
    };
    compare(bench, "batch norm", &[picture, &[64], &[64]], &[("ours", &norm), ("candle", &theirs)]);
    compare(bench, "relu", &[picture], &[("ours", &|v| kernels::activate(&v[0], Activation::Relu)), ("candle", &|v| v[0].relu())]);
    compare(bench, "swish", &[picture], &[("ours", &|v| kernels::activate(&v[0], Activation::Swish)), ("candle", &|v| v[0].silu())]);
    let pool = Pool { kernel: (2, 2), stride: (2, 2), padding: (0, 0), ceil_mode: false };
    #[expect(clippy::disallowed_methods, reason = "its gradient is wrong, and takes the time that it takes")]
    let theirs = |v: &[Var]| v[0].max_pool2d(2);
    compare(bench, "max pool", &[picture], &[("ours", &|v| kernels::max_pool2d(&v[0], &pool)), ("candle, wrong gradient", &theirs)]);
    let linear = |v: &[Var]| v[0].matmul(&v[1].t()?)?.broadcast_add(&v[2]);
    for (name, n, d, o) in [("linear, tiny", 64, 8, 8), ("linear, large", 128, 1024, 1024)] {
        let ours = |v: &[Var]| kernels::linear(&v[0], &v[1], Some(&v[2]));
        compare(bench, name, &[&[n, d], &[o, d], &[o]], &[("ours", &ours), ("candle", &linear)]);
    }
    let labels = Tensor::from_vec((0..128u32).collect(), 128, &Device::Cpu).expect("128 labels");
    compare(
        bench,
        "cross-entropy",
        &[&[128, 1000]],
        &[
            ("ours", &|v| kernels::cross_entropy(&v[0], &labels, 0.0)),
            ("candle", &|v| candle_nn::loss::cross_entropy(v[0].as_tensor(), &labels)),
        ],
    );
}

criterion_group!(benches, all);
criterion_main!(benches);
