//! A batch in parts: the gradient of the whole, batch norm by parts, and the loop of the layer-wise study.

use std::cell::RefCell;

use candle::{Device, Tensor};
use datasets::{Rng, Seed, Table};
use lab::graph::{Builder, Linear, Op, Value};
use lab::metrics::memory::plan_batch;
use lab::train::{Event, Gradients, Optimizer, Options, Schedule, fit_with};
use lab::{Activation, Conv, Model, Pool, Recipe, fit};
use serde_json::Value as Json;

use crate::golden;

/// One step that changes nothing: the gradients (and the loss) that it would have been made of.
fn gradients(model: &Model, data: &Table, recipe: Recipe) -> (Gradients, f64) {
    let seen = RefCell::new(None);
    let still = Recipe { lr: 0.0, epochs: 1, ..recipe };
    fit(model, data, None, &still, |event| {
        if let Event::Step { gradients, loss, .. } = event {
            *seen.borrow_mut() = Some((gradients.clone(), loss));
        }
    })
    .unwrap();
    seen.into_inner().unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// A convolutional net without batch norm, and 13 pictures: a prime number, so that something is left over.
fn plain() -> (Model, Table) {
    let mut g = Builder::new("plain", &[2, 6, 6]);
    let xs = g.input();
    let ys = g.conv("conv", xs, Conv::k3(5).bias());
    let ys = g.activate(ys, Activation::Elu);
    let ys = g.global_avg_pool(ys);
    let ys = g.linear("fc", ys, 3);
    let mut rng = Seed(3).rng();
    let values = (0..13 * 72).map(|_| rng.normal() as f32).collect();
    let labels = (0..13).map(|_| rng.below(3) as u32).collect();
    let model = Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap();
    (model, Table::new(values, &[2, 6, 6], labels, 3, 13, None))
}

/// The law: without batch norm, any split gives the whole batch's loss and gradient; also of mixed samples.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let (model, data) = plain();
    for recipe in [Recipe { label_smoothing: 0.1, ..Recipe::sgd(0.1, 1) }, Recipe { mix_up: Some(0.4), ..Recipe::sgd(0.1, 1) }] {
        let (whole, loss) = gradients(&model, &data, recipe.clone());
        for micro_batch in 1..13 {
            let (parts, mean) = gradients(&model, &data, Recipe { micro_batch: Some(micro_batch), ..recipe.clone() });
            assert!((mean - loss).abs() < 1e-6, "{micro_batch}: {mean} for {loss}");
            for (part, whole) in parts.iter().zip(whole.iter()) {
                for (found, wanted) in numbers(part).into_iter().zip(numbers(whole)) {
                    assert!((found - wanted).abs() < 1e-6, "{micro_batch}: {found} for {wanted}");
                }
            }
        }
    }
}

/// A limit of memory splits a batch as planned: bit for bit as if its parts had been asked for, and to rounding as if there were none.
#[test]
fn a_limit_of_memory_splits_batches() {
    let (model, data) = plain();
    let recipe = Recipe::sgd(0.1, 2);
    let run = |recipe: &Recipe, memory: Option<u64>| -> lab::Result<Vec<f64>> {
        let (model, _) = plain();
        fit_with(&model, &data, None, recipe, &Options { memory, ..Options::default() }, |_| {})?;
        Ok(model.params.iter().flat_map(|(_, var)| numbers(var)).collect())
    };
    let whole = plan_batch(&model.graph, 13, u64::MAX, &recipe).unwrap();
    let free = run(&recipe, None).unwrap();
    assert_eq!(free, run(&recipe, Some(whole.bytes)).unwrap());
    let (mut limit, mut sizes) = (whole.bytes - 1, Vec::new());
    while let Ok(plan) = plan_batch(&model.graph, 13, limit, &recipe) {
        let limited = run(&recipe, Some(limit)).unwrap();
        assert_eq!(limited, run(&Recipe { micro_batch: Some(plan.micro_batch), ..recipe.clone() }, None).unwrap());
        assert_ne!(limited, free);
        assert!(limited.iter().zip(&free).all(|(found, wanted)| (found - wanted).abs() < 1e-5), "{limited:?} for {free:?}");
        sizes.push(plan.micro_batch);
        limit = plan.bytes - 1;
    }
    assert_eq!(sizes, [7, 5, 4, 3, 2, 1]);
    let error = run(&recipe, Some(limit)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("plain: bytes of a training step: wanted at most {limit}, found ")), "{error}");
}

/// `u` of the golden files' number stream.
fn stream(seed: u64) -> impl Iterator<Item = f64> {
    let mut rng: Rng = Seed(seed).rng();
    std::iter::repeat_with(move || ((rng.bits() >> 40) as f64 + 0.5) / (1u64 << 24) as f64)
}

/// The small net of the layer-wise study, with the golden files' names and weights.
fn tiny_vgg(golden: &Json) -> Model {
    let widths: Vec<usize> = serde_json::from_value(golden["filters"].clone()).unwrap();
    let mut g = Builder::new("tiny_vgg", &[3, 32, 32]);
    let mut ys = g.input();
    let norm = |g: &mut Builder, name: String, ys: Value| {
        let ys = g.batch_norm(name, ys);
        g.activate(ys, Activation::Relu)
    };
    let mut width = widths.iter().copied();
    for (block, layers) in [2, 2, 1, 1, 1].into_iter().enumerate() {
        for layer in 1..=layers {
            let scope = format!("features.block{}.block.conv_layer{layer}.convlayer", block + 1);
            ys = g.conv(format!("{scope}.conv{layer}"), ys, Conv::k3(width.next().unwrap()));
            ys = norm(&mut g, format!("{scope}.bn{layer}"), ys);
        }
        ys = g.max_pool(ys, Pool::square(2, 2));
    }
    ys = g.flatten(ys);
    for layer in 0..2 {
        let scope = format!("classifier.0.fc_block.fc_layer{layer}.fclayer");
        ys = g.linear(format!("{scope}.fc{}", layer + 1), ys, Linear::plain(width.next().unwrap()));
        ys = norm(&mut g, format!("{scope}.bn{}", layer + 1), ys);
    }
    ys = g.linear("classifier.0.fc_block.final_layer", ys, 10);
    let mut graph = g.finish(ys).unwrap();
    for node in &mut graph.nodes {
        if let Op::BatchNorm { eps, .. } = &mut node.op {
            *eps = golden["bn_eps"].as_f64().unwrap();
        }
    }
    let model = Model::new(graph, Seed(0), &Device::Cpu).unwrap();
    for (k, (wanted, (parameter, var))) in golden["params"].as_array().unwrap().iter().zip(model.params.trainable()).enumerate() {
        assert_eq!(wanted["name"], parameter.name.as_str());
        let value = |u: f64| match wanted["rule"].as_str().unwrap() {
            "weight" => (2.0 * u - 1.0) * (6.0 / parameter.fan_in as f64).sqrt(),
            "norm_scale" => 0.5 + u,
            _ => 0.1 * (2.0 * u - 1.0),
        };
        let values: Vec<f32> = stream(1000 + k as u64).take(parameter.len()).map(|u| value(u) as f32).collect();
        var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
    }
    model
}

fn tiny_pictures(samples: usize, [pictures, labels]: [u64; 2]) -> Table {
    let values = stream(pictures).take(samples * 3 * 32 * 32).map(|u| u as f32).collect();
    let labels = stream(labels).take(samples).map(|u| (10.0 * u) as u32).collect();
    Table::new(values, &[3, 32, 32], labels, 10, 8, None)
}

/// Sum, length, largest and first three numbers, within `tolerance`.
#[track_caller]
fn check_summary(name: &str, tensor: &Tensor, wanted: &Json, tolerance: f64) {
    let numbers = numbers(tensor);
    let length = numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    let largest = numbers.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    for (what, found) in [("l2", length), ("absmax", largest)] {
        let wanted = wanted[what].as_f64().unwrap();
        assert!((found - wanted).abs() <= tolerance, "{name}: {what}: {found} for {wanted}");
    }
    for (found, wanted) in numbers.iter().zip(wanted["first"].as_array().unwrap()) {
        assert!((found - wanted.as_f64().unwrap()).abs() <= tolerance, "{name}: {found} for {wanted}");
    }
}

/// Golden: losses and gradients of a batch of 8 and of two halves, where batch norm sees the halves. The tolerance is a share of the
/// largest gradient, as the golden data's own `f32` run has against its `f64` run; some gradients are 0 in theory.
#[test]
fn a_split_batch_gives_the_published_gradients() {
    let golden = golden::json("layerwise_features/tiny_vgg.json");
    let data = tiny_pictures(8, [7, 11]);
    for (name, micro_batch) in [("train_grads", None), ("train_grads_split4", Some(4))] {
        let model = tiny_vgg(&golden);
        let (found, loss) = gradients(&model, &data, Recipe { micro_batch, ..Recipe::sgd(0.1, 1) });
        if micro_batch.is_none() {
            assert!((loss - golden["f64"]["train_loss_mean"].as_f64().unwrap()).abs() < 1e-5, "{loss}");
        }
        let wanted = &golden["f64"][name];
        let largest = wanted.as_object().unwrap().values().map(|tensor| tensor["l2"].as_f64().unwrap()).fold(0.0, f64::max);
        for ((parameter, _), gradient) in model.params.trainable().zip(found.iter()) {
            check_summary(&parameter.name, gradient, &wanted[&parameter.name], 1e-3 * largest);
        }
    }
}

/// Golden: the study's own loop, three epochs of 8, 8 and 6 samples, whole and in fours: warm restarts that come late, weight decay on
/// everything, a last batch of less weight.
#[test]
fn the_published_loop_gives_the_published_weights() {
    let golden = golden::json("layerwise_features/tiny_vgg.json");
    let data = tiny_pictures(22, [21, 22]);
    for (name, micro_batch) in [("loop_split8", None), ("loop_split4", Some(4))] {
        let schedule = Schedule::WarmRestarts { first: 1, growth: 2, floor: 1e-5, late: Some(2) };
        let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
        let recipe = Recipe { schedule, optimizer, micro_batch, nominal_batch: Some(8), ..Recipe::sgd(0.01, 3) };
        let wanted = &golden["f64"][name];
        for (at, rate) in wanted["lrs"].as_array().unwrap().iter().enumerate() {
            assert!((recipe.rate(at / 3, (at % 3, 3)) - rate.as_f64().unwrap()).abs() < 1e-14);
        }
        let model = tiny_vgg(&golden);
        let history = fit(&model, &data, None, &recipe, |event| {
            if let Event::Epoch { row, model, .. } = event {
                let wanted = &wanted["epochs"][row.epoch - 1]["params"];
                // What f32 and f64 make of the same loop.
                let tolerance = if row.epoch == 1 { 1e-4 } else { 2e-3 };
                for (parameter, var) in model.params.trainable() {
                    let wanted = &wanted[&parameter.name];
                    check_summary(&parameter.name, var, wanted, tolerance * wanted["l2"].as_f64().unwrap());
                }
            }
        });
        assert_eq!(history.unwrap().len(), 3);
    }
}
