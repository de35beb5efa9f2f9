//! Training: it learns, it is reproducible, it says when it cannot go on; schedules.

use candle::{DType, Device, Tensor};
use datasets::{Batches, Seed, Table};
use expect_test::{Expect, expect};
use lab::graph::Unit;
use lab::metrics::accuracy::top1;
use lab::models::dense_mlp;
use lab::train::{self, Decayed, Epoch, Event, Optimizer, Precision, Recipe, Stop};
use lab::{Activation, Builder, Error, Model};

use crate::differentiating::{fill, numbers};
use crate::golden;

/// Two interleaved half-rings: not linearly separable, easily learnt.
pub(crate) fn rings(n: usize, batch: usize, shuffle: Option<Seed>) -> Table {
    let mut rng = Seed(5).rng();
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (label, angle) = ((i % 2) as u32, rng.range(0.0, std::f64::consts::PI));
        let (x, y) = if label == 0 { (angle.cos(), angle.sin()) } else { (1.0 - angle.cos(), 0.5 - angle.sin()) };
        rows.extend([x + 0.1 * rng.normal(), y + 0.1 * rng.normal()].map(|v| v as f32));
        labels.push(label);
    }
    Table::new(rows, &[2], labels, 2, batch, shuffle)
}

fn perceptron() -> Model {
    Model::new(dense_mlp::Config::points(8, 5, 6).graph(Seed(1)).unwrap(), Seed(1), &Device::Cpu).unwrap()
}

fn bits(model: &Model) -> Vec<u32> {
    let flat = |var: &candle::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    model.params.iter().flat_map(|(_, var)| flat(var)).map(f32::to_bits).collect()
}

#[test]
fn a_perceptron_learns_the_rings() {
    let (model, train) = (perceptron(), rings(400, 20, Some(Seed(2))));
    let before = train::evaluate(&model, &train).unwrap();
    let mut steps = 0;
    let history = train::fit(&model, &train, Some(&train), &Recipe::adam(0.01, 40), |event| {
        steps += usize::from(matches!(event, Event::Step { .. }));
    })
    .unwrap();
    let after = train::evaluate(&model, &train).unwrap();
    assert_eq!((history.len(), steps), (40, 800));
    assert_eq!(history[39].test_accuracy, Some(after.accuracy));
    assert!(before.accuracy < 0.9 && after.accuracy > 0.97, "{before:?} {after:?}");
}

#[test]
fn a_run_repeats_bit_for_bit() {
    let weights = [1, 2, 5].map(|threads| {
        let pool = rayon_pool(threads);
        pool.install(|| {
            let model = perceptron();
            train::fit(&model, &rings(200, 16, Some(Seed(2))), None, &Recipe::sgd(0.05, 3), |_| {}).unwrap();
            bits(&model)
        })
    });
    assert_eq!(weights[0], weights[1]);
    assert_eq!(weights[0], weights[2]);
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// A batch's share of an epoch's mean is its size: three samples in batches of two weigh alike.
#[test]
fn the_mean_loss_weighs_samples_not_batches() {
    let model = perceptron();
    let whole = train::evaluate(&model, &rings(33, 33, None)).unwrap();
    let parts = train::evaluate(&model, &rings(33, 10, None)).unwrap();
    assert!((whole.loss - parts.loss).abs() < 1e-6, "{whole:?} {parts:?}");
    assert_eq!(whole.accuracy, parts.accuracy);
}

/// Hits are counted where the logits are; they are those that [`lab::metrics::accuracy`] counts, and of equal logits the first wins.
#[test]
fn evaluation_counts_what_the_metric_does() {
    let (model, data) = (perceptron(), rings(33, 10, None));
    let batches: Vec<_> = data.epoch(0, 0).map(|batch| batch.unwrap()).collect();
    let labels: Vec<u32> = batches.iter().flat_map(|batch| batch.labels.clone()).collect();
    let logits = |model: &Model| {
        let of = |batch| model.forward(&train::to_tensors(batch, &[2], &Device::Cpu).unwrap().0).unwrap();
        Tensor::cat(&batches.iter().map(of).collect::<Vec<_>>(), 0).unwrap()
    };
    assert_eq!(train::evaluate(&model, &data).unwrap().accuracy, top1(&logits(&model), &labels).unwrap());
    for (_, var) in model.params.iter() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    let first = labels.iter().filter(|&&label| label == 0).count() as f64 / 33.0;
    assert_eq!(train::evaluate(&model, &data).unwrap().accuracy, first);
}

#[test]
fn what_cannot_be_trained_is_refused_before_the_first_step() {
    let refused = |model: &Model, recipe: &Recipe| train::fit(model, &rings(8, 4, None), None, recipe, |_| {}).unwrap_err().to_string();
    let recipe = Recipe::sgd(0.1, 1);
    let wide =
        Model::new(dense_mlp::Config { inputs: 3, ..dense_mlp::Config::points(4, 3, 2) }.graph(Seed(0)).unwrap(), Seed(0), &Device::Cpu);
    expect!["dense_mlp: samples: wanted [3], found [2]"].assert_eq(&refused(&wide.unwrap(), &recipe));
    let many =
        Model::new(dense_mlp::Config { classes: 3, ..dense_mlp::Config::points(4, 3, 2) }.graph(Seed(0)).unwrap(), Seed(0), &Device::Cpu);
    expect!["dense_mlp: output: wanted 2 classes, found [3]"].assert_eq(&refused(&many.unwrap(), &recipe));
    let recipes = [
        Recipe { label_smoothing: 1.5, ..recipe.clone() },
        Recipe { optimizer: Optimizer::Sgd { momentum: 1.0, nesterov: false, weight_decay: 0.0 }, ..recipe.clone() },
        Recipe { warm_up: -1.0, ..recipe.clone() },
        Recipe { mix_up: Some(0.0), ..recipe.clone() },
        Recipe { clip: Some(0.0), ..recipe.clone() },
        Recipe { micro_batch: Some(0), ..recipe.clone() },
        Recipe { average: Some(1.0), ..recipe.clone() },
        Recipe { rates: [("layers".to_owned(), f64::NAN)].into(), ..recipe.clone() },
        Recipe { rates: [("layer".to_owned(), 0.5)].into(), ..recipe.clone() },
        Recipe { stop: Stop { accuracy: Some(0.9), patience: None }, ..recipe.clone() },
        Recipe { precision: Precision::Mixed, ..recipe.clone() },
    ];
    expect![[r#"
        recipe: label_smoothing: wanted 0.0..1.0, found 1.5
        recipe: optimizer: momentum or betas: wanted 0.0..1.0, found 1
        recipe: warm_up: wanted at least 0, found -1
        recipe: mix_up: wanted more than 0, at most 1, found 0
        recipe: clip: wanted more than 0, found 0
        recipe: micro_batch: wanted at least 1, found 0
        recipe: average: wanted 0.0..1.0, found 1
        recipe: rates: layers: wanted at least 0, found NaN
        recipe: rates: wanted the beginning of a parameter's name, found `layer`
        recipe: stop: wanted test samples to stop by, found none
        recipe: precision: wanted full, or a CUDA card and a build with cuDNN, found mixed, and no card"#]]
    .assert_eq(&recipes.map(|recipe| refused(&perceptron(), &recipe)).join("\n"));
}

/// A chain of linear layers with these factors, no biases to speak of, and one step on one sample of ones.
fn chain(factors: &[f32], recipe: &Recipe) -> (Model, lab::Result<Vec<Epoch>>) {
    let mut g = Builder::new("chain", &[2]);
    let mut ys = g.input();
    for layer in 0..factors.len() {
        ys = g.linear(format!("fc{layer}"), ys, 2);
    }
    let model = Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap();
    for (layer, &factor) in factors.iter().enumerate() {
        let weight = Tensor::new(&[[factor, 0.0], [0.0, 0.5 * factor]], &Device::Cpu).unwrap();
        model.params.set(&format!("fc{layer}.weight"), &weight).unwrap();
        model.params.set(&format!("fc{layer}.bias"), &Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap();
    }
    let data = Table::new(vec![1.0; 4], &[2], vec![1, 0], 2, 2, None);
    let fitted = train::fit(&model, &data, None, recipe, |_| {});
    (model, fitted)
}

/// The run ends before the step that would ruin the weights, and says where the numbers were left first.
#[test]
fn a_step_out_of_the_numbers_is_not_made() {
    let check = |factors: &[f32], recipe: &Recipe, want: Expect| {
        let (model, fitted) = chain(factors, recipe);
        let (untouched, _) = chain(factors, &Recipe { lr: 0.0, ..Recipe::adam(0.0, 1) });
        want.assert_eq(&fitted.unwrap_err().to_string());
        assert_eq!(bits(&model), bits(&untouched));
    };
    let recipe = Recipe::adam(0.1, 1);
    // 1e20 · 1e20 is more than an f32 holds.
    check(
        &[1.0, 1e20, 1e20, 1.0],
        &recipe,
        expect!["epoch 0, step 0: the value of `fc2` is not finite (the loss is NaN); a smaller learning rate or a warm-up may help"],
    );
    check(
        &[1.0, 1e20, 1e20, 1.0],
        &Recipe { micro_batch: Some(1), ..recipe.clone() },
        expect!["epoch 0, step 0: the value of `fc2` is not finite (the loss is NaN); a smaller learning rate or a warm-up may help"],
    );
    // Forward 1e-30, 1e-5, 1e20; backward 1e25, then 1e50.
    check(
        &[1e-30, 1e25, 1e25],
        &recipe,
        expect![
            "epoch 0, step 0: the gradient at `fc0` is not finite (the loss is 43749998677765130000); a smaller learning rate or a warm-up may help"
        ],
    );
}

#[test]
fn a_rate_that_is_too_high_is_blamed_on_a_node() {
    let model = Model::new(
        dense_mlp::Config { activation: Activation::Relu, ..dense_mlp::Config::points(8, 5, 6) }.graph(Seed(1)).unwrap(),
        Seed(1),
        &Device::Cpu,
    );
    let error = train::fit(&model.unwrap(), &rings(200, 10, None), None, &Recipe::sgd(1e8, 3), |_| {}).unwrap_err();
    let Error::Diverged { epoch: 0, first, .. } = &error else { panic!("{error}") };
    assert!(first.contains("layers."), "{error}");
}

/// Golden: PyTorch's loop with groups, clipping, smoothing, warm-up and cosine. Twelve steps in `f32` against `f64`.
#[test]
fn a_recipe_makes_pytorchs_steps() {
    let golden = golden::json("training/training.json");
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.02 };
    let adam_w = Optimizer::AdamW { betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.02 };
    for (name, optimizer) in [("sgd", sgd), ("adam_w", adam_w)] {
        let wanted = &golden[name];
        let recipe = Recipe {
            optimizer,
            warm_up: 2.0,
            label_smoothing: 0.1,
            clip: Some(0.5),
            decayed: Decayed::Weights,
            rates: [("out".to_owned(), 3.0)].into(),
            ..Recipe::sgd(wanted["lr"].as_f64().unwrap(), 4)
        };
        let mut g = Builder::new("net", &[4]);
        let xs = g.input();
        let ys = g.linear("hidden", xs, 6);
        let ys = g.activate(ys, Activation::Relu);
        let ys = g.batch_norm("norm", ys);
        let ys = g.linear("out", ys, 3);
        let model = Model::new(g.finish(ys).unwrap(), Seed(0), &Device::Cpu).unwrap();
        for (k, (_, var)) in model.params.trainable().enumerate() {
            var.set(&fill(1 + k as u64, var.dims()).to_dtype(DType::F32).unwrap()).unwrap();
        }
        let rows = numbers(&fill(100, &[10, 4])).into_iter().map(|x| x as f32).collect();
        let data = Table::new(rows, &[4], (0..10).map(|i| i % 3).collect(), 3, 4, None);
        let number = |list: &str, at: usize| wanted[list][at].as_f64().unwrap();
        train::fit(&model, &data, None, &recipe, |event| {
            if let Event::Step { done, gradients, .. } = event {
                let (epoch, step) = ((done - 1) / 3, (done - 1) % 3);
                assert!((recipe.rate(epoch, (step, 3)) - number("lrs", done - 1)).abs() < 1e-12);
                assert!((gradients.norm().unwrap() - number("norms", done - 1).min(0.5)).abs() < 1e-5);
            }
        })
        .unwrap();
        for (parameter, var) in model.params.iter() {
            let found = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (at, found) in found.into_iter().enumerate() {
                let wanted = wanted["state"][&parameter.name][at].as_f64().unwrap();
                assert!((f64::from(found) - wanted).abs() < 1e-5, "{name}: {}: {found} for {wanted}", parameter.name);
            }
        }
    }
}

/// What no rate reaches stays, and the longest name counts.
#[test]
fn a_rate_of_zero_freezes() {
    let (model, fresh) = (perceptron(), perceptron());
    let rates = [("layers".to_owned(), 0.0), ("layers.4".to_owned(), 1.0)].into();
    train::fit(&model, &rings(60, 10, None), None, &Recipe { rates, ..Recipe::sgd(0.1, 1) }, |_| {}).unwrap();
    for ((parameter, now), (_, before)) in model.params.iter().zip(fresh.params.iter()) {
        let same = now.flatten_all().unwrap().to_vec1::<f32>().unwrap() == before.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(same, !parameter.name.starts_with("layers.4."), "{}", parameter.name);
    }
}

/// The average is made of the weights after each step, is what is tested, and is what the model has in the end.
#[test]
fn averaged_weights_are_tested_and_kept() {
    let (train, test, recipe) = (rings(100, 20, Some(Seed(2))), rings(50, 50, None), Recipe { average: Some(0.5), ..Recipe::sgd(0.1, 2) });
    let (model, mut seen) = (perceptron(), Vec::new());
    let values = |model: &Model| model.params.iter().flat_map(|(_, var)| numbers(&var.to_dtype(DType::F64).unwrap())).collect::<Vec<f64>>();
    let mut average = values(&model);
    let history = train::fit(&model, &train, Some(&test), &recipe, |event| match event {
        Event::Step { done, model, .. } => {
            let decay = (done as f64 / (done as f64 + 9.0)).min(0.5);
            average = average.iter().zip(values(model)).map(|(average, now)| decay * average + (1.0 - decay) * now).collect();
        }
        Event::Epoch { row, model, .. } => {
            assert_eq!(row.test_loss, Some(train::evaluate(model, &test).unwrap().loss));
            seen = values(model);
        }
    })
    .unwrap();
    assert!(average.iter().zip(&seen).all(|(wanted, found)| (wanted - found).abs() < 1e-6));
    assert_eq!(values(&model), seen);
    assert_eq!(history[1].test_accuracy, Some(train::evaluate(&model, &test).unwrap().accuracy));
}

/// A mixture lies between two samples, and the loss is that of its mixed target: on one-hot inputs of classes, both can be read off.
#[test]
fn mixed_samples_have_mixed_targets() {
    let mut shares = Vec::new();
    for seed in 0..200 {
        let mut g = Builder::new("mirror", &[2]);
        let xs = g.input();
        let ys = g.linear("fc", xs, 2);
        let model = Model::new(g.finish(ys).unwrap(), Seed(0), &Device::Cpu).unwrap();
        for (_, var) in model.params.iter() {
            var.set(&var.zeros_like().unwrap()).unwrap();
        }
        // Of logits 0, the gradient at a bias is ½ minus the mean target, and of a weight the mean of input times that.
        let data = Table::new(vec![1.0, 0.0, 0.0, 1.0], &[2], vec![0, 1], 2, 2, None);
        train::fit(&model, &data, None, &Recipe { mix_up: Some(1.0), seed, ..Recipe::adam(0.0, 1) }, |event| {
            let Event::Step { gradients, .. } = event else { return };
            let [weight, bias] =
                gradients.iter().map(|gradient| numbers(&gradient.to_dtype(DType::F64).unwrap())).collect::<Vec<_>>().try_into().unwrap();
            assert!(bias.iter().all(|x| x.abs() < 1e-7), "{bias:?}");
            // Inputs and targets (λ, 1 − λ) and the other way round: off the diagonal ½ − 2·λ·(1 − λ), halved.
            let product = 0.25 - weight[1];
            let share = 0.5 + (0.25 - product).max(0.0).sqrt();
            shares.push(share);
        })
        .unwrap();
    }
    assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)));
    // Half the time nobody is swapped, and of the rest λ is uniform, the larger share ¾ in the mean.
    let mixed: Vec<f64> = shares.into_iter().filter(|share| *share < 1.0 - 1e-6).collect();
    let mean = mixed.iter().sum::<f64>() / mixed.len() as f64;
    assert!((70..130).contains(&mixed.len()) && (mean - 0.75).abs() < 0.05, "{} {mean}", mixed.len());
}

/// What is dropped depends on the recipe's seed and the step, and on nothing else.
#[test]
fn dropout_follows_the_seed_of_the_recipe() {
    let run = |seed, micro_batch| {
        let mut g = Builder::new("dropping", &[2]);
        let xs = g.input();
        let ys = g.linear("hidden", xs, 8);
        let ys = g.dropout(ys, 0.5, Unit::Number);
        let ys = g.linear("out", ys, 2);
        let model = Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap();
        let mut losses = Vec::new();
        train::fit(&model, &rings(40, 20, None), None, &Recipe { seed, micro_batch, ..Recipe::adam(0.0, 2) }, |event| {
            if let Event::Epoch { row, .. } = event {
                losses.push(row.train_loss);
            }
        })
        .unwrap();
        losses
    };
    let losses = run(1, None);
    assert_eq!(losses, run(1, None));
    assert!(losses[0] != losses[1] && losses != run(2, None) && losses != run(1, Some(10)));
}

/// A target ends a run when it is reached; patience ends it when nothing gets better any more.
#[test]
fn a_run_stops_by_its_recipe() {
    let run = |stop, lr| {
        let recipe = Recipe { stop, lr, ..Recipe::adam(0.0, 30) };
        train::fit(&perceptron(), &rings(200, 20, Some(Seed(2))), Some(&rings(100, 100, None)), &recipe, |_| {}).unwrap()
    };
    let reached = run(Stop { accuracy: Some(0.9), patience: None }, 0.01);
    let (last, before) = reached.split_last().unwrap();
    assert!(reached.len() < 30 && last.test_accuracy >= Some(0.9));
    assert!(before.iter().all(|row| row.test_accuracy < Some(0.9)));
    // Nothing moves: the first epoch stays the best.
    assert_eq!(run(Stop { accuracy: None, patience: Some(3) }, 0.0).len(), 4);
    assert_eq!(run(Stop::default(), 0.0).len(), 30);
}
