//! What cannot be reached from outside without a card: steps that nobody looks at until later.

use candle::Device;
use datasets::{Seed, Table};

use super::*;
use crate::graph::Builder;
use crate::{Activation, Recipe};

/// With batch norm, whose running statistics a bad step would ruin as well.
fn model() -> Model {
    let mut g = Builder::new("small", &[5]);
    let xs = g.input();
    let ys = g.linear("hidden", xs, 7);
    let ys = g.batch_norm("norm", ys);
    let ys = g.activate(ys, Activation::Elu);
    let ys = g.linear("out", ys, 3);
    Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap()
}

/// Eleven batches of four samples; one number of sample `bad` is infinite.
fn data(bad: Option<usize>) -> Table {
    let mut rng = Seed(2).rng();
    let mut rows: Vec<f32> = (0..5 * 44).map(|_| rng.normal() as f32).collect();
    let labels = (0..44).map(|_| rng.below(3) as u32).collect();
    if let Some(bad) = bad {
        rows[5 * bad] = f32::INFINITY;
    }
    Table::new(rows, &[5], labels, 3, 4, None)
}

/// A run's end, its weights and statistics, and the steps that it told of.
fn run(bad: Option<usize>, between: usize, stop: Option<usize>) -> (std::result::Result<Vec<Epoch>, String>, Vec<u32>, Vec<usize>) {
    let (model, data, mut told) = (model(), data(bad), Vec::new());
    let recipe = Recipe { clip: Some(0.5), average: Some(0.9), ..Recipe::adam(0.01, 2) };
    let outcome = fit_watched(&model, (&data, None), &recipe, &Options::default(), between, |event| {
        let Event::Step { done, .. } = event else { return Flow::Go };
        told.push(done);
        if stop == Some(done) { Flow::Stop } else { Flow::Go }
    });
    let numbers = |(_, var): (_, &candle::Var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let bits = model.params.iter().flat_map(numbers).map(f32::to_bits).collect();
    (outcome.map_err(|error| error.to_string()), bits, told)
}

#[test]
fn looking_less_often_changes_nothing() {
    for stop in [None, Some(7), Some(11)] {
        let wanted = run(None, 1, stop);
        assert!(wanted.0.is_ok());
        for between in [2, 3, 5, 16] {
            assert_eq!(run(None, between, stop), wanted, "a look every {between} steps");
        }
    }
}

/// The error names the same step and node, and the model is as the last whole step left it, wherever looks fall.
#[test]
fn a_step_out_of_the_numbers_is_found_later_and_undone() {
    for bad in [0, 3, 13, 31, 42] {
        let (wanted, weights, told) = run(Some(bad), 1, None);
        assert!(wanted.as_ref().is_err_and(|error| error.contains("is not finite")), "{wanted:?}");
        assert_eq!(told.len(), bad / 4);
        for between in [2, 3, 5, 16] {
            let (found, found_weights, told) = run(Some(bad), between, None);
            assert_eq!(found, wanted, "a look every {between} steps");
            assert!(found_weights == weights, "a look every {between} steps");
            assert!(told.len() >= bad / 4 && told.iter().copied().eq(1..=told.len()), "each step is told once: {told:?}");
        }
    }
}

/// Who stops after a bad step that nobody has seen yet gets the error, not the ruins.
#[test]
fn a_run_that_is_stopped_is_looked_at() {
    let wanted = run(Some(13), 1, None);
    let stopped = run(Some(13), 16, Some(6));
    assert_eq!((stopped.0, stopped.1), (wanted.0, wanted.1));
}
