//! Trains a perceptron of NN-Mass on points of a disc with ten rings, and prints and draws its learning curve.
//!
//! `cargo run --example train_points -- curve.svg` takes some seconds. The points are drawn from a seed, so that nothing is downloaded.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;

use datasets::{Seed, Segments, synthetic::segments};
use lab::metrics::nn_mass;
use lab::models::dense_mlp;
use lab::{Model, Recipe, Table, device, fit};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "curve.svg".to_owned());
    let points = Segments::new(segments::Config::circular(10), Seed(0))?;
    let train = points.train().batches(100, Some(Seed(1)));
    let test = points.test().batches(1200, None);

    // Eight layers of eight units, each with up to ten links to units of earlier layers.
    let graph = dense_mlp::Config::points(8, 8, 10).graph(Seed(0))?;
    println!("NN-Mass {:.2}", nn_mass::of(&graph)?);

    let model = Model::new(graph, Seed(0), &device::pick(device::Want::Cpu)?)?;
    let history = fit(&model, &train, Some(&test), &Recipe::adam(1e-3, 10), |_| ())?;
    let table = Table::from_rows(&history)?;
    println!("{table}");

    let accuracy = table.melt(&["epoch"], &["train_accuracy", "test_accuracy"])?;
    accuracy.lines("epoch", "value", Some("variable"))?.y_label("accuracy").title("A perceptron on ten rings").save(&file)?;
    println!("drawn in {file}");
    Ok(())
}
