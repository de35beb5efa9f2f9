//! The learning rate over a run: formulas, and the rates of the published programs.

use expect_test::expect;
use lab::{Recipe, Schedule};
use serde_json::Value;

use crate::golden;

fn rates(recipe: &Recipe, steps: usize, at: impl IntoIterator<Item = (usize, usize)>) -> Vec<f64> {
    at.into_iter().map(|(epoch, step)| recipe.rate(epoch, (step, steps))).collect()
}

#[track_caller]
fn check_close(found: f64, wanted: &Value, tolerance: f64) {
    let wanted = wanted.as_f64().unwrap();
    assert!((found - wanted).abs() <= tolerance, "{found:e} for {wanted:e}");
}

#[test]
fn schedules_follow_their_formulas() {
    let text = |schedule, warm_up| {
        let recipe = Recipe { schedule, warm_up, ..Recipe::adam(0.1, 6) };
        let rates = rates(&recipe, 10, (0..6).map(|epoch| (epoch, 0)));
        rates.iter().map(|rate| format!("{rate:.4}")).collect::<Vec<_>>().join(" ")
    };
    expect!["0.1000 0.1000 0.1000 0.1000 0.1000 0.1000"].assert_eq(&text(Schedule::Constant, 0.0));
    expect!["0.1000 0.0933 0.0750 0.0500 0.0250 0.0067"].assert_eq(&text(Schedule::Cosine { floor: 0.0 }, 0.0));
    expect!["0.1000 0.0940 0.0775 0.0550 0.0325 0.0160"].assert_eq(&text(Schedule::Cosine { floor: 0.01 }, 0.0));
    expect!["0.1000 0.0833 0.0667 0.0500 0.0333 0.0167"].assert_eq(&text(Schedule::Linear { floor: 0.0 }, 0.0));
    expect!["0.0050 0.0550 0.1000 0.0775 0.0550 0.0325"].assert_eq(&text(Schedule::Linear { floor: 0.01 }, 2.0));
    let step = Schedule::Step { milestones: vec![2, 4], factor: 0.1 };
    expect!["0.1000 0.1000 0.0100 0.0100 0.0010 0.0010"].assert_eq(&text(step.clone(), 0.0));
    let restarts = Schedule::WarmRestarts { first: 2, growth: 2, floor: 0.0, late: None };
    expect!["0.1000 0.0500 0.1000 0.0854 0.0500 0.0146"].assert_eq(&text(restarts.clone(), 0.0));
    // A warm-up comes before; milestones stay where they are.
    expect!["0.0050 0.0550 0.1000 0.0854 0.0500 0.0146"].assert_eq(&text(Schedule::Cosine { floor: 0.0 }, 2.0));
    expect!["0.0050 0.0550 0.0100 0.0100 0.0010 0.0010"].assert_eq(&text(step, 2.0));
    expect!["0.0100 0.1000 0.0500 0.1000 0.0854 0.0500"].assert_eq(&text(restarts, 1.0));
}

/// A warm-up grows by the same amount at each step and is at the peak in its last, also where it ends within an epoch.
#[test]
fn a_warm_up_is_linear() {
    let recipe = Recipe { warm_up: 1.5, ..Recipe::adam(0.3, 3) };
    let rates = rates(&recipe, 4, (0..8).map(|at| (at / 4, at % 4)));
    for (at, rate) in rates.into_iter().enumerate() {
        assert!((rate - 0.3 * ((at + 1) as f64 / 6.0).min(1.0)).abs() < 1e-15, "{at}: {rate}");
    }
}

/// Golden: every step of the layer-wise study's program, its late restarts and its division by whole batches included.
#[test]
fn late_restarts_are_the_published_ones() {
    let golden = golden::json("layerwise_features/sgdr.json");
    let recipe = |late| Recipe { schedule: Schedule::WarmRestarts { first: 10, growth: 2, floor: 1e-5, late }, ..Recipe::sgd(0.01, 150) };
    // Where the rate is near its floor, five digits of it are what 1 + cos leaves.
    let tolerance = 1e-12 * 0.01;
    for (name, whole) in [("tiny_n40_b8_all_steps", 5), ("tiny_n45_b8_all_steps", 5)] {
        for epoch in 0..35 {
            let lrs = golden[name]["lrs"][epoch.to_string()].as_array().unwrap();
            for (step, wanted) in lrs.iter().enumerate() {
                check_close(recipe(Some(whole)).rate(epoch, (step, lrs.len())), wanted, tolerance);
            }
        }
    }
    for (name, whole) in [("n50000_b128", 390), ("n60000_b128", 468)] {
        for row in golden[name]["per_epoch"].as_array().unwrap() {
            let [epoch, steps] = ["epoch", "steps"].map(|field| row[field].as_u64().unwrap() as usize);
            let rates = rates(&recipe(Some(whole)), steps, (0..steps).map(|step| (epoch, step)));
            check_close(rates[0], &row["first"], tolerance);
            check_close(rates[1], &row["second"], tolerance);
            check_close(rates[steps - 1], &row["last"], tolerance);
            check_close(rates.iter().sum::<f64>() / steps as f64, &row["mean"], tolerance);
            check_close(rates.iter().copied().fold(0.0, f64::max), &row["max"], tolerance);
            check_close(rates.iter().copied().fold(1.0, f64::min), &row["min"], tolerance);
        }
    }
    // Restarts on time: the same waves, from the peak itself.
    for epoch in [0, 10, 30, 70] {
        assert_eq!(recipe(None).rate(epoch, (0, 391)), 0.01);
    }
}

/// Golden: the recipes of discovered neural wirings. Their cosine counts steps from 1, so it is ours one step on; their warm-up
/// moves once an epoch, to where ours is at its end.
#[test]
fn rates_of_discovered_wirings() {
    let golden = golden::json("dnw/schedules.json");
    let entries = |value: &Value| -> Vec<(usize, Value)> {
        value.as_object().unwrap().iter().map(|(at, rate)| (at.parse().unwrap(), rate.clone())).collect()
    };
    let step = Recipe { schedule: Schedule::Step { milestones: vec![80, 120], factor: 0.1 }, ..Recipe::sgd(0.1, 160) };
    for (epoch, wanted) in entries(&golden["multistep_small"]["lr_by_epoch"]) {
        check_close(step.rate(epoch, (97, 98)), &wanted, 1e-16);
    }
    for name in ["cifar_b128", "imagenet_b512"] {
        let case = &golden["cosine_iter"][name];
        let [steps, total] = ["iters_per_epoch", "T"].map(|field| case[field].as_u64().unwrap() as usize);
        let cosine = Recipe::sgd(0.1, total / steps);
        for (at, wanted) in entries(&case["lr_at_t"]) {
            check_close(cosine.rate(at / steps, (at % steps, steps)), &wanted, 1e-12 * 0.1);
        }
    }
    let warm = Recipe { warm_up: 5.0, ..Recipe::sgd(0.256, 100) };
    for (epoch, wanted) in entries(&golden["resnet50"]["lr_by_epoch"]) {
        let step = if epoch < 5 { 5003 } else { 0 };
        check_close(warm.rate(epoch, (step, 5004)), &wanted, 1e-12 * 0.256);
    }
}

/// What was written before there was a warm-up still says the same, and is written as it was.
#[test]
fn old_recipes_are_read_and_written_as_before() {
    let texts = [
        r#"{"epochs":3,"optimizer":{"name":"sgd","momentum":0.9,"nesterov":false,"weight_decay":0.0005},"lr":0.05,"schedule":{"name":"cosine"},"label_smoothing":0.0}"#,
        r#"{"epochs":9,"optimizer":{"name":"adam_w","betas":[0.9,0.999],"eps":1e-8,"weight_decay":0.0},"lr":0.001,"schedule":{"name":"warm_restarts","first":1,"growth":2,"floor":0.0},"label_smoothing":0.1}"#,
    ];
    for text in texts {
        let recipe: Recipe = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&recipe).unwrap(), text);
    }
    assert_eq!(serde_json::from_str::<Recipe>(texts[0]).unwrap(), Recipe::sgd(0.05, 3));
}
