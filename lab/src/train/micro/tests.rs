//! What cannot be reached from outside without a card: memory that runs out.

use std::cell::RefCell;

use candle::{Device, Tensor};
use datasets::Seed;

use super::*;
use crate::exec::Workspace;
use crate::graph::Builder;
use crate::train::gradients;
use crate::{Activation, Model};

fn model() -> Model {
    let mut g = Builder::new("small", &[5]);
    let xs = g.input();
    let ys = g.linear("hidden", xs, 7);
    let ys = g.activate(ys, Activation::Elu);
    let ys = g.linear("out", ys, 3);
    Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap()
}

fn batch(n: usize) -> (Tensor, Targets) {
    let mut rng = Seed(2).rng();
    let xs: Vec<f32> = (0..5 * n).map(|_| rng.normal() as f32).collect();
    let labels: Vec<u32> = (0..n).map(|_| rng.below(3) as u32).collect();
    let labels = Tensor::new(labels, &Device::Cpu).unwrap();
    (Tensor::from_vec(xs, (n, 5), &Device::Cpu).unwrap(), Targets::Labels { labels, smoothing: 0.1 })
}

fn no_memory() -> Error {
    let source: Box<dyn std::error::Error + Send + Sync> = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into();
    candle::Error::Cuda(source).context("small: hidden").into()
}

fn numbers(computed: &Computed) -> Vec<f32> {
    let mut all = vec![computed.loss.to_scalar::<f32>().unwrap()];
    for tensor in [&computed.logits].into_iter().chain(computed.gradients.iter()) {
        all.extend(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    all
}

/// A device with room for so many samples: the run goes on in halves, gives what the whole batch would, and remembers.
#[test]
fn a_batch_that_does_not_fit_is_halved() {
    let (model, (xs, targets)) = (model(), batch(13));
    let workspace = Workspace::new(&model.graph, None);
    let compute =
        |xs: &Tensor, targets: &Targets, _: usize| gradients::compute(&workspace, (&model.graph, &model.params), (xs, targets), Seed(0));
    let whole = numbers(&compute(&xs, &targets, 0).unwrap());
    type Fails = fn(usize, usize) -> bool;
    let cases: [(Fails, usize, &[usize]); 4] = [
        (|_, _| false, usize::MAX, &[13]),
        (|n, _| n > 6, 4, &[4, 4, 3, 2]),
        (|n, part| n == 13 || (n > 5 && part > 0), 4, &[4, 4, 3, 2]), // the first part of seven still fits
        (|n, _| n > 1, 1, &[1; 13]),
    ];
    for (fails, wanted_size, wanted_parts) in cases {
        let (mut size, done) = (usize::MAX, RefCell::new(Vec::new()));
        let limited = |xs: &Tensor, targets: &Targets, part: usize| {
            let n = xs.dims()[0];
            if part == 0 {
                done.borrow_mut().clear();
            }
            if fails(n, part) {
                return Err(no_memory());
            }
            done.borrow_mut().push(n);
            compute(xs, targets, part)
        };
        let computed = fitting(&xs, &targets, &mut size, limited).unwrap();
        assert_eq!((size, done.borrow().as_slice()), (wanted_size, wanted_parts));
        for (found, wanted) in numbers(&computed).iter().zip(&whole) {
            assert!((found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0), "{found} for {wanted}");
        }
    }
}

#[test]
fn what_does_not_fit_sample_by_sample_and_other_failures_are_errors() {
    let (xs, targets) = batch(3);
    let mut size = 3;
    let error = fitting(&xs, &targets, &mut size, |_, _, _| Err(no_memory())).unwrap_err();
    assert!(out_of_memory(&error) && size == 1, "{error}");
    let other = || Error::mismatch("fc.weight", "a gradient", "none: out of memory is no reason");
    let mut size = 3;
    fitting(&xs, &targets, &mut size, |_, _, _| Err(other())).unwrap_err();
    assert_eq!(size, 3);
}

/// Every sample once, in order, never more than `size`, and no lonely one where that can be helped.
#[test]
fn parts_cover_a_batch() {
    for n in 1..40 {
        for size in 1..=n {
            let parts = parts(n, size);
            let mut next = 0;
            for &(from, len) in &parts {
                assert!(from == next && (1..=size).contains(&len), "{n} by {size}: {parts:?}");
                next += len;
            }
            assert_eq!(next, n);
            assert!(size < 3 || parts.iter().all(|part| part.1 > 1) || n == 1, "{n} by {size}: {parts:?}");
        }
    }
}
