//! The whole chain on real pictures: files, store, loader, network, accuracy.

use candle::Device;
use datasets::synthetic::shapes;
use datasets::{Batches, Idx, Seed, Shapes};
use expect_test::expect;
use lab::metrics::nn_mass;
use lab::models::dense_mlp;
use lab::train::{self, Recipe};
use lab::{Model, fit};
use pipeline::augment::{Contrast, Transform, normalize::Constants};
use pipeline::loader::Output;
use pipeline::{Loader, Store, convert, loader};
use tempfile::TempDir;

use crate::golden;

/// The published perceptron of width 8, depth 8 and 10 links, trained for one epoch of MNIST from a store. The original reaches some 94 %
/// after 60 epochs; a network that sees shuffled labels or torn pictures stays at 10 %.
#[test]
fn a_perceptron_learns_mnist_from_a_store() {
    let Some(data) = golden::real("mnist") else { return };
    let folder = tempfile::tempdir().unwrap();
    let store = convert::ensure(&Idx::open(data, "mnist").unwrap(), folder.path().join("mnist.lmdb"), "mnist").unwrap();
    let train = Loader::new(store.clone(), loader::Config::train(64, vec![], Seed(0))).unwrap();
    let test = Loader::new(store, loader::Config::eval("test", 500, vec![])).unwrap();
    assert_eq!((train.samples(), test.samples()), (60_000, 10_000));

    let graph = dense_mlp::Config::mnist(8, 8, 10).graph(Seed(0)).unwrap();
    assert_eq!(format!("{:.4}", nn_mass::of(&graph).unwrap()), "22.0952");
    let model = Model::new(graph, Seed(0), &Device::Cpu).unwrap();
    assert_eq!(model.profile().params, 7_286);
    let history = fit(&model, &train, Some(&test), &Recipe::adam(1e-3, 1), |_| {}).unwrap();
    let accuracy = history[0].test_accuracy.unwrap();
    assert!(accuracy > 0.87, "{accuracy}");

    // Read into memory, the same pictures give the same score.
    let memory = datasets::Table::collect(&test).unwrap();
    let (from_store, from_memory) = (train::evaluate(&model, &test).unwrap(), train::evaluate(&model, &memory).unwrap());
    assert_eq!(from_store.accuracy, from_memory.accuracy);
}

/// A store that is there is opened; one of something else is not taken for it.
#[test]
fn a_store_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stores/shapes.lmdb");
    let config = datasets::synthetic::shapes::Config { size: 8, train_per_class: 2, test_per_class: 1 };
    let shapes = datasets::Shapes::new(config, Seed(0)).unwrap();
    let made = convert::ensure(&shapes, &path, "tiny").unwrap();
    let again = convert::ensure(&shapes, &path, "tiny").unwrap();
    assert_eq!(made.meta().content, again.meta().content);
    let error = convert::ensure(&shapes, &path, "huge").unwrap_err().to_string();
    assert!(error.contains("shapes.lmdb: begun with another source: wanted huge, found tiny"), "{error}");
}

/// Drawn shapes of 16×16 pixels as a store, and a network for 12×12 of them.
fn shapes() -> (TempDir, Store, Model) {
    let folder = tempfile::tempdir().unwrap();
    let shapes = Shapes::new(shapes::Config { size: 16, train_per_class: 6, test_per_class: 3 }, Seed(0)).unwrap();
    let store = convert::ensure(&shapes, folder.path().join("shapes.lmdb"), "shapes").unwrap();
    let model = crate::nets::classifier();
    (folder, store, model)
}

/// The logits of each row of a batch, and minus the logarithm of the share that each class then has.
fn logits(model: &Model, batch: &datasets::Batch) -> Vec<Vec<f64>> {
    let xs = train::to_tensors(batch, model.graph.input_shape(), &model.device).unwrap().0;
    let rows = model.forward(&xs).unwrap().to_vec2::<f32>().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(f64::from).collect()).collect()
}

fn surprise(logits: &[f64], class: u32) -> f64 {
    logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[class as usize]
}

#[test]
fn the_logits_of_ten_crops_are_averaged() {
    let (_folder, store, model) = shapes();
    let config = loader::Config::eval("test", 7, vec![Transform::TenCrop { size: 12 }]);
    let ten = Loader::new(store.clone(), config.clone()).unwrap();
    let (mut loss, mut hits) = (0.0, 0);
    for batch in ten.epoch(0, 0) {
        let batch = batch.unwrap();
        for (views, &label) in logits(&model, &batch).chunks(10).zip(&batch.labels) {
            let mean: Vec<f64> = (0..8).map(|class| views.iter().map(|view| view[class]).sum::<f64>() / 10.0).collect();
            loss += surprise(&mean, label) / 24.0;
            hits += usize::from((0..8).all(|class| mean[class] <= mean[label as usize]));
        }
    }
    let score = train::evaluate(&model, &ten).unwrap();
    assert!((score.loss - loss).abs() < 1e-5 && score.accuracy == hits as f64 / 24.0, "{score:?}: {loss}, {hits}");
    // In parts of less than a sample's views, too; and from floats, read into memory or not.
    let train = Loader::new(store.clone(), loader::Config::train(8, vec![Transform::CentreCrop { size: 12 }], Seed(0))).unwrap();
    let recipe = Recipe { micro_batch: Some(3), ..Recipe::adam(0.0, 1) };
    let parts = fit(&model, &train, Some(&ten), &recipe, |_| {}).unwrap();
    assert!((parts[0].test_loss.unwrap() - loss).abs() < 1e-5);
    let floats = Loader::new(store, loader::Config { output: Output::F32, ..config }).unwrap();
    assert!((train::evaluate(&model, &floats).unwrap().loss - loss).abs() < 1e-5);
    let error = fit(&model, &ten, None, &recipe, |_| {}).unwrap_err().to_string();
    expect!["training samples: wanted one view of each, found 10"].assert_eq(&error);
}

#[test]
fn mixed_samples_of_a_loader_are_trained_on() {
    let (_folder, store, model) = shapes();
    let config = loader::Config { mix_up: Some(1.0), ..loader::Config::train(9, vec![Transform::CentreCrop { size: 12 }], Seed(2)) };
    let mixed = Loader::new(store.clone(), config.clone()).unwrap();
    let mut loss = 0.0;
    for batch in mixed.epoch(0, 0) {
        let batch = batch.unwrap();
        let how = batch.mixed.clone().unwrap();
        let share = f64::from(how.share);
        for ((logits, &own), &other) in logits(&model, &batch).iter().zip(&batch.labels).zip(&how.others) {
            loss += (share * surprise(logits, own) + (1.0 - share) * surprise(logits, other)) / 48.0;
        }
    }
    let still = fit(&model, &mixed, None, &Recipe::adam(0.0, 1), |_| {}).unwrap();
    assert!((still[0].train_loss - loss).abs() < 1e-5, "{} {loss}", still[0].train_loss);
    let learned = fit(&model, &mixed, None, &Recipe::adam(1e-2, 8), |_| {}).unwrap();
    assert!(learned[7].train_loss < 0.9 * loss, "{loss} {:?}", learned[7]);

    let twice = fit(&model, &mixed, None, &Recipe { mix_up: Some(0.2), ..Recipe::adam(0.0, 1) }, |_| {}).unwrap_err().to_string();
    expect!["recipe: mix_up: wanted samples that were not mixed before, found mixed ones"].assert_eq(&twice);
    let tested = train::evaluate(&model, &mixed).unwrap_err().to_string();
    expect!["samples to be tested with: wanted samples as they are, found mixed ones"].assert_eq(&tested);
}

#[test]
fn pictures_of_equal_contrast_are_trained_on() {
    let (_folder, store, model) = shapes();
    let transforms = vec![Transform::CentreCrop { size: 12 }, Transform::Flip { p: 0.5 }];
    let config = loader::Config {
        output: Output::F32,
        normalize: Constants::Contrast(Contrast::default()),
        ..loader::Config::train(8, transforms, Seed(0))
    };
    let train = Loader::new(store, config).unwrap();
    let history = fit(&model, &train, None, &Recipe::adam(1e-2, 6), |_| {}).unwrap();
    assert!(history[5].train_loss < 0.8 * history[0].train_loss);
}
