//! The whole chain on real pictures: files, store, loader, network, accuracy.

use candle::Device;
use datasets::{Batches, Idx, Seed};
use lab::metrics::nn_mass;
use lab::models::dense_mlp;
use lab::train::{self, Recipe};
use lab::{Model, fit};
use pipeline::{Loader, convert, loader};

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
