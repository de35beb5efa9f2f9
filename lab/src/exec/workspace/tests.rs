//! What cannot be reached from outside: gradients by our own books in double precision.

use candle::{DType, Device};

use super::*;
use crate::graph::{Builder, Conv, Unit, Value};
use crate::{Activation, Pool};

/// Noise in double precision.
fn noise(shape: &[usize]) -> Tensor {
    let mut rng = Seed(shape.iter().product::<usize>() as u64).rng();
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Every number of every gradient is the slope of the loss there, while what is dropped stays the same.
#[track_caller]
fn check(name: &str, inside: impl FnOnce(&mut Builder, Value) -> Value) {
    let mut g = Builder::new(name, &[2, 5, 3]);
    let xs = g.conv("stem", g.input(), Conv::k3(4).bias());
    let xs = g.activate(xs, Activation::Tanh);
    let xs = inside(&mut g, xs);
    let xs = g.flatten(xs);
    let logits = g.linear("fc", xs, 3);
    let graph = g.finish(logits).unwrap();
    let params = Params::init(&graph, Seed(1), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let (workspace, xs, factors) = (Workspace::new(&graph, None), noise(&[3, 2, 5, 3]), noise(&[3, 3]));
    let step = || workspace.step((&graph, &params), &xs, Seed(5), |logits| Ok((logits * &factors)?.sum_all()?)).unwrap();
    for ((parameter, var), gradient) in params.trainable().zip(step().gradients) {
        let (before, gradient) = (var.as_detached_tensor().copy().unwrap(), gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap());
        for (at, &found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut values = before.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                values[at] += by;
                var.set(&Tensor::from_vec(values, before.shape(), &Device::Cpu).unwrap()).unwrap();
                step().loss.to_scalar::<f64>().unwrap()
            };
            let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - wanted).abs() < 1e-7 * wanted.abs().max(1.0), "{name}: {}[{at}]: {found} for {wanted}", parameter.name);
        }
        var.set(&before).unwrap();
    }
}

#[test]
fn what_is_dropped_is_dropped_again() {
    for unit in [Unit::Number, Unit::Channel, Unit::Sample] {
        check(&format!("{unit:?}"), |g, xs| {
            let ys = g.dropout(xs, 0.4, unit);
            let ys = g.conv("conv", ys, Conv::k1(4));
            let ys = g.dropout(ys, 0.3, unit);
            g.add(&[ys, xs])
        });
    }
}

#[test]
fn gates_and_scales() {
    check("a gate for channels, and one for numbers", |g, xs| {
        let gate = g.global_avg_pool(xs);
        let gate = g.linear("gate", gate, 4);
        let gate = g.activate(gate, Activation::Sigmoid);
        let ys = g.multiply(xs, gate);
        let ys = g.scale(ys, -1.5);
        let ys = g.multiply(ys, xs);
        g.multiply(ys, ys)
    });
    check("a gate for places", |g, xs| {
        let gate = g.conv("gate", xs, Conv::k1(1));
        g.multiply(xs, gate)
    });
}

#[test]
fn shares_tokens_and_parts() {
    check("attention", |g, xs| {
        let tokens = g.reshape(xs, &[4, 15]);
        let tokens = g.permute(tokens, &[1, 0]);
        let (query, key) = (g.linear("query", tokens, 3), g.linear("key", tokens, 3));
        let key = g.permute(key, &[1, 0]);
        let scores = g.matmul(query, key);
        let shares = g.softmax(scores, 1);
        g.matmul(shares, tokens)
    });
    check("shares of channels, and a shuffle of halves", |g, xs| {
        let shares = g.softmax(xs, 0);
        let (first, second) = (g.slice(shares, 0, 0, 2), g.slice(xs, 0, 1, 3));
        let second = g.slice(second, 1, 1, 4);
        let second = g.avg_pool(second, Pool::square(1, 1));
        let first = g.slice(first, 1, 0, 4);
        let both = g.concat(&[first, second]);
        let apart = g.reshape(both, &[5, 2, 2, 3]);
        let turned = g.permute(apart, &[2, 0, 3, 1]);
        g.reshape(turned, &[5, 4, 3])
    });
}

/// Whatever is given back was taken: the memory kept between steps, and between them and inference, does not grow.
#[test]
fn memory_is_taken_as_often_as_given_back() {
    let mut g = Builder::new("much", &[3, 8, 8]);
    let xs = g.conv("stem", g.input(), Conv::k3(8).bias());
    let ys = g.batch_norm("bn", xs);
    let ys = g.add(&[ys, xs]);
    let ys = g.activate(ys, Activation::Relu);
    let gate = g.global_avg_pool(ys);
    let gate = g.linear("squeeze", gate, 8);
    let gate = g.activate(gate, Activation::HardSigmoid);
    let ys = g.multiply(ys, gate);
    let ys = [Unit::Number, Unit::Channel, Unit::Sample].into_iter().fold(ys, |ys, unit| g.dropout(ys, 0.2, unit));
    let halves = [g.slice(ys, 0, 0, 4), g.slice(ys, 0, 4, 4)];
    let ys = g.multiply(halves[0], halves[1]);
    let ys = g.concat(&[ys, xs, halves[0]]);
    let ys = g.pick("pick", &[ys, xs], vec![0, 5, 9, 17]);
    let (most, mean) = (g.max_pool(ys, Pool::square(2, 2)), g.avg_pool(ys, Pool::square(2, 2)));
    let ys = g.add(&[most, mean]);
    let tokens = g.reshape(ys, &[4, 16]);
    let tokens = g.permute(tokens, &[1, 0]);
    let shares = (0..2).map(|dim| g.softmax(tokens, dim)).collect::<Vec<_>>();
    let tokens = g.add(&shares);
    let tokens = g.linear("tokens", tokens, 5);
    let tokens = g.scale(tokens, 3.0);
    let tokens = g.flatten(tokens);
    let logits = g.linear("fc", tokens, 3);
    let graph = g.finish(logits).unwrap();
    let params = Params::init(&graph, Seed(1), &Device::Cpu).unwrap();
    let (workspace, xs) = (Workspace::new(&graph, None), noise(&[5, 3, 8, 8]).to_dtype(DType::F32).unwrap());
    let kept = |round: u64| {
        workspace.step((&graph, &params), &xs, Seed(round), |logits| Ok(logits.sqr()?.sum_all()?)).unwrap();
        workspace.infer(&graph, &params, &xs.narrow(0, 0, 1 + round as usize % 5).unwrap()).unwrap();
        workspace.pool.borrow().len()
    };
    let most = (0..20).map(kept).max().unwrap();
    let later = (20..100).map(kept).max().unwrap();
    assert!(0 < later && later <= most, "{later} numbers after {most}");
}
