//! What machines with fewer instructions compute.

use std::cell::Cell;

use candle::{Device, Tensor, Var};
use datasets::Seed;

use crate::kernels::{Activation, Affine, Conv, activate, batch_norm, conv2d};

thread_local!(pub(super) static ALLOWED: Cell<usize> = const { Cell::new(2) });

fn var(seed: u64, shape: &[usize]) -> Var {
    let mut rng = Seed(seed).rng();
    let numbers: Vec<f64> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
    Var::from_tensor(&Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()).unwrap()
}

/// Output and gradients, in double precision, of convolutions by each of their ways, with a norm and an activation behind.
fn everything() -> Vec<f64> {
    let conv = Conv { padding: (1, 1), ..Conv::default() };
    let mut all = Vec::new();
    for (xs, weight, conv) in [
        ([3, 9, 7, 5], [17, 9, 3, 3], conv),
        ([70, 12, 4, 4], [10, 12, 3, 3], conv),
        ([2, 5, 9, 8], [7, 5, 3, 3], Conv { stride: (2, 2), ..conv }),
        ([3, 33, 6, 7], [18, 33, 1, 1], Conv::default()),
        ([2, 6, 9, 8], [6, 1, 3, 3], Conv { groups: 6, ..conv }),
        ([2, 3, 9, 8], [6, 1, 5, 3], Conv { groups: 3, stride: (2, 1), padding: (2, 1), dilation: (1, 2) }),
    ] {
        let (xs, weight) = (var(1, &xs), var(2, &weight));
        let (scale, shift) = (var(3, &weight.dims()[..1]), var(4, &weight.dims()[..1]));
        let ys = conv2d(&xs, &weight, None, &conv).unwrap();
        let ys = batch_norm(&ys, Some(Affine { weight: &scale, bias: &shift }), 1e-5).unwrap().ys;
        let ys = activate(&ys, Activation::Swish).unwrap();
        let grads = (&ys * var(5, ys.dims()).as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
        let tensors = [&xs, &weight, &scale, &shift].map(|var| grads.get(var).unwrap().clone());
        for tensor in tensors.iter().chain([&ys]) {
            all.extend(tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap());
        }
    }
    all
}

#[test]
fn every_instruction_set_gives_the_same_numbers() {
    // All of it on one thread, whose setting is nobody else's.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let with = |allowed: usize| {
        alone.install(|| {
            ALLOWED.set(allowed);
            everything()
        })
    };
    let results = [0, 1, 2].map(with);
    for result in &results[..2] {
        assert_eq!(result.len(), results[2].len());
        for (one, other) in result.iter().zip(&results[2]) {
            assert!((one - other).abs() < 1e-11 * (1.0 + other.abs()), "{one} and {other}");
        }
    }
}
