//! Training keeps its own books of values and gradients, joins nodes and uses memory again: the numbers are those of candle's books.

use std::cell::RefCell;

use candle::{Device, Tensor};
use datasets::{Seed, Table};
use lab::exec::{self, Mode};
use lab::graph::{Builder, Graph, Linear, Op, Unit, Value};
use lab::train::Event;
use lab::{Activation, Conv, Model, Pool, Recipe, fit, kernels};

use crate::nets::{self, apart, drawn};

/// One batch, again and again.
fn always(graph: &Graph, xs: &Tensor, labels: &[u32]) -> Table {
    let values = xs.flatten_all().unwrap().to_vec1().unwrap();
    Table::new(values, graph.input_shape(), labels.to_vec(), graph.output_shape()[0], labels.len(), None)
}

/// Three steps, because the second and third are made in memory of the ones before: the gradients of each step, and those of candle
/// for the weights before it.
#[track_caller]
fn check(graph: Graph) {
    let name = graph.name.clone();
    let (model, n) = (drawn(graph, 3), 4);
    let xs = nets::samples(&model.graph, n);
    let labels: Vec<u32> = (0..n as u32).map(|at| at * 2 % 3).collect();
    let data = always(&model.graph, &xs, &labels);
    let recipe = Recipe { seed: 5, ..Recipe::sgd(1e-3, 3) };
    let wanted = |step: u64| -> Vec<Tensor> {
        let mode = Mode::Train(Seed(recipe.seed).at(step).at(0));
        let output = exec::forward(&model.graph, &model.params, &xs, mode).unwrap();
        let labels = Tensor::new(labels.as_slice(), &Device::Cpu).unwrap();
        let store = kernels::cross_entropy(&output.value, &labels, 0.0).unwrap().backward().unwrap();
        model.params.trainable().map(|(_, var)| store.get(var).unwrap().clone()).collect()
    };
    let (next, step) = (RefCell::new(wanted(0)), RefCell::new(0));
    fit(&model, &data, None, &recipe, |event| {
        let Event::Step { gradients, .. } = event else { return };
        for (((parameter, _), found), wanted) in model.params.trainable().zip(gradients.iter()).zip(next.borrow().iter()) {
            // Sums in another order; what a normalisation behind a bias takes away again is noise on both sides.
            let (off, size) = (apart(found, wanted), wanted.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap().sqrt());
            assert!(off < 2e-4 || size < 1e-6, "{name}, step {}: {} is off by {off:e}", step.borrow(), parameter.name);
        }
        *step.borrow_mut() += 1;
        *next.borrow_mut() = wanted(*step.borrow());
    })
    .unwrap();
    assert_eq!(*step.borrow(), 3);
}

/// A network of 8 channels and pictures of 8×8 around `inside`.
fn around(name: &str, inside: impl FnOnce(&mut Builder, Value) -> Value) -> Graph {
    let mut g = Builder::new(name, &[3, 8, 8]);
    let input = g.input();
    let xs = g.conv("stem", input, Conv::k3(8).bias());
    let xs = inside(&mut g, xs);
    let xs = if g.shape(xs).len() == 3 { g.global_avg_pool(xs) } else { xs };
    let logits = g.linear("fc", xs, 10);
    g.finish(logits).unwrap()
}

#[test]
fn a_norm_joined_to_what_follows() {
    for activation in [Activation::Relu, Activation::Relu6, Activation::Swish] {
        check(around("norm and activation", |g, xs| {
            let xs = g.batch_norm("bn", xs);
            g.activate(xs, activation)
        }));
        check(around("a block whose skip is the input", |g, xs| {
            let ys = g.conv("conv", xs, Conv::k3(8));
            let ys = g.batch_norm("bn", ys);
            let sum = g.add(&[ys, xs]);
            g.activate(sum, activation)
        }));
        check(around("a block with two norms", |g, xs| {
            let ys = g.conv("conv", xs, Conv::k3(8).stride(2));
            let ys = g.batch_norm("bn", ys);
            let skip = g.conv("skip", xs, Conv::k1(8).stride(2));
            let skip = g.batch_norm("skip_bn", skip);
            let sum = g.add(&[ys, skip]);
            g.activate(sum, activation)
        }));
    }
    check(around("a block without activation", |g, xs| {
        let ys = g.batch_norm("bn", xs);
        g.add(&[xs, ys])
    }));
    check(around("a norm that two read", |g, xs| {
        let ys = g.batch_norm("bn", xs);
        let zs = g.activate(ys, Activation::Relu);
        g.add(&[ys, zs])
    }));
    check(around("a value added to itself", |g, xs| {
        let ys = g.batch_norm("bn", xs);
        g.add(&[ys, ys])
    }));
    check(around("a norm without scale and shift", |g, xs| {
        let ys = g.node("bn", Op::BatchNorm { eps: 1e-5, momentum: 0.1, affine: false, frozen: false }, &[xs]);
        g.activate(ys, Activation::Relu)
    }));
}

#[test]
fn values_that_several_read() {
    check(around("branches of a sum", |g, xs| {
        let a = g.conv("a", xs, Conv::k3(8));
        let b = g.conv("b", xs, Conv::k1(8));
        let c = g.activate(xs, Activation::Tanh);
        let sum = g.add(&[a, b, c, xs]);
        g.add(&[sum, xs])
    }));
    check(around("joins and choices", |g, xs| {
        let a = g.activate(xs, Activation::Relu);
        let all = g.concat(&[a, xs, a]);
        let some = g.pick("pick", &[all, xs], vec![3, 31, 3, 0, 17]);
        g.conv("conv", some, Conv::k3(8))
    }));
    check(around("a flat view and its picture", |g, xs| {
        let pooled = g.max_pool(xs, Pool::square(2, 2));
        let flat = g.flatten(pooled);
        let mean = g.avg_pool(pooled, Pool::square(2, 2));
        let mean = g.flatten(mean);
        let short = g.linear("short", flat, 32);
        g.add(&[short, mean])
    }));
    check(around("depthwise and pointwise, twice", |g, xs| {
        let ys = g.conv("dw1", xs, Conv::k3(8).groups(8).stride(2));
        let ys = g.conv("pw1", ys, Conv::k1(12));
        let ys = g.conv("dw2", ys, Conv::k3(12).groups(12));
        g.conv("pw2", ys, Conv::k1(8))
    }));
}

#[test]
fn what_is_dropped_scaled_and_gated() {
    for unit in [Unit::Number, Unit::Channel, Unit::Sample] {
        for p in [0.0, 0.4, 0.9] {
            check(around(&format!("{unit:?} dropped by {p}, also before a sum"), |g, xs| {
                let ys = g.activate(xs, Activation::Relu);
                let ys = g.dropout(ys, p, unit);
                let ys = g.conv("conv", ys, Conv::k3(8));
                let ys = g.dropout(ys, p, unit);
                g.add(&[ys, xs])
            }));
        }
        check(around("the last value dropped", |g, xs| {
            let xs = g.global_avg_pool(xs);
            g.dropout(xs, 0.3, unit)
        }));
    }
    check(around("squeezed and excited", |g, xs| {
        let gate = g.global_avg_pool(xs);
        let gate = g.linear("gate", gate, 8);
        let gate = g.activate(gate, Activation::HardSigmoid);
        let ys = g.multiply(xs, gate);
        let picture = g.reshape(gate, &[8, 1, 1]);
        let zs = g.multiply(ys, picture);
        let zs = g.scale(zs, -0.7);
        g.add(&[zs, xs])
    }));
    check(around("a gate for places, a square, three factors", |g, xs| {
        let place = g.conv("place", xs, Conv::k1(1));
        let ys = g.multiply(xs, place);
        let ys = g.multiply(ys, ys);
        g.node("three", Op::Multiply, &[ys, xs, place])
    }));
}

#[test]
fn shares_and_other_orders() {
    check(around("shares along each dimension", |g, xs| {
        let shares: Vec<Value> = (0..3).map(|dim| g.softmax(xs, dim)).collect();
        g.add(&shares)
    }));
    check(around("a shuffle of channels", |g, xs| {
        let (half, rest) = (g.slice(xs, 0, 0, 4), g.slice(xs, 0, 4, 4));
        let rest = g.conv("conv", rest, Conv::k1(4));
        let both = g.concat(&[half, rest]);
        let apart = g.reshape(both, &[2, 4, 64]);
        let turned = g.permute(apart, &[1, 0, 2]);
        let turned = g.permute(turned, &[0, 1, 2]);
        let picture = g.reshape(turned, &[8, 8, 8]);
        g.slice(picture, 1, 3, 4)
    }));
    check(around("a layer for each token", |g, xs| {
        let tokens = g.reshape(xs, &[8, 64]);
        let ys = g.linear("tokens", tokens, Linear::plain(32).top(700));
        g.flatten(ys)
    }));
}

#[test]
fn every_operation_and_a_residual_network() {
    for graph in [nets::every_op(), nets::further_ops(), nets::resnet18(8), nets::random_wired(12, 1)] {
        check(graph);
    }
}

/// What a batch does not fill does not show: a smaller one after a larger one, and evaluation between steps, in the same memory.
#[test]
fn evaluation_in_used_memory() {
    let model: Model = drawn(nets::resnet18(8), 1);
    let xs = nets::samples(&model.graph, 3);
    let before = model.forward(&xs).unwrap();
    let score = lab::evaluate(&model, &always(&model.graph, &xs, &[1, 2, 3])).unwrap();
    let labels = Tensor::new(&[1u32, 2, 3], &Device::Cpu).unwrap();
    let wanted = kernels::cross_entropy(&before, &labels, 0.0).unwrap().to_scalar::<f32>().unwrap();
    assert!((score.loss - f64::from(wanted)).abs() < 1e-5 * f64::from(wanted), "{} and {wanted}", score.loss);
}
