//! Training: it learns, it is reproducible, it says when it cannot go on; schedules; sweeps that resume.

use candle::Device;
use datasets::{Seed, Table};
use expect_test::expect;
use lab::models::{Spec, dense_mlp};
use lab::sweep::{self, Run};
use lab::train::{self, Event, Optimizer, Recipe, Schedule};
use lab::{Activation, Error, Model};

/// Two interleaved half-rings: not linearly separable, easily learnt.
fn rings(n: usize, batch: usize, shuffle: Option<Seed>) -> Table {
    let mut rng = Seed(5).rng();
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for i in 0..n {
        let (label, angle) = ((i % 2) as u32, rng.range(0.0, std::f64::consts::PI));
        let (x, y) = if label == 0 { (angle.cos(), angle.sin()) } else { (1.0 - angle.cos(), 0.5 - angle.sin()) };
        rows.extend([x + 0.1 * rng.normal(), y + 0.1 * rng.normal()].map(|v| v as f32));
        labels.push(label);
    }
    Table::new(rows, 2, labels, 2, batch, shuffle)
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

#[test]
fn schedules_follow_their_formulas() {
    let rates =
        |schedule: Schedule| -> Vec<String> { (0..6).map(|epoch| format!("{:.4}", schedule.rate(0.1, (epoch, 6), (0, 10)))).collect() };
    expect![[r#"["0.1000", "0.1000", "0.1000", "0.1000", "0.1000", "0.1000"]"#]].assert_eq(&format!("{:?}", rates(Schedule::Constant)));
    expect![[r#"["0.1000", "0.0933", "0.0750", "0.0500", "0.0250", "0.0067"]"#]].assert_eq(&format!("{:?}", rates(Schedule::Cosine)));
    let step = Schedule::Step { milestones: vec![2, 4], factor: 0.1 };
    expect![[r#"["0.1000", "0.1000", "0.0100", "0.0100", "0.0010", "0.0010"]"#]].assert_eq(&format!("{:?}", rates(step)));
    let restarts = Schedule::WarmRestarts { first: 2, growth: 2, floor: 0.0 };
    expect![[r#"["0.1000", "0.0500", "0.1000", "0.0854", "0.0500", "0.0146"]"#]].assert_eq(&format!("{:?}", rates(restarts)));
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
    let smooth = Recipe { label_smoothing: 1.5, ..recipe };
    expect!["recipe: label_smoothing: wanted 0.0..1.0, found 1.5"].assert_eq(&refused(&perceptron(), &smooth));
    let heavy = Recipe { optimizer: Optimizer::Sgd { momentum: 1.0, nesterov: false, weight_decay: 0.0 }, ..Recipe::sgd(0.1, 1) };
    expect!["recipe: optimizer: momentum or betas: wanted 0.0..1.0, found 1"].assert_eq(&refused(&perceptron(), &heavy));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run() {
    let model = Model::new(
        dense_mlp::Config { activation: Activation::Relu, ..dense_mlp::Config::points(8, 5, 6) }.graph(Seed(1)).unwrap(),
        Seed(1),
        &Device::Cpu,
    );
    let error = train::fit(&model.unwrap(), &rings(200, 10, None), None, &Recipe::sgd(1e8, 3), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Diverged { epoch: 0, .. }), "{error}");
}

fn plan() -> Vec<Run> {
    let run = |(width, seed)| Run {
        architecture: Spec::DenseMlp(dense_mlp::Config::points(width, 4, 3)),
        data: "rings".to_owned(),
        recipe: Recipe::adam(0.01, 1),
        seed,
    };
    [(2, 0), (2, 1), (4, 0), (4, 1)].map(run).to_vec()
}

/// Ids name results in files that outlive this version: they may not change by accident.
#[test]
fn a_run_has_an_id_of_its_own() {
    let ids: Vec<String> = plan().iter().map(Run::id).collect();
    expect![[r#"["99a199cf299efd7a", "451f25d570abed21", "92ef0b41d8402dcd", "132b909357d36652"]"#]].assert_eq(&format!("{ids:?}"));
}

#[test]
fn a_sweep_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/rings.jsonl");
    let fail_from = |count: u64| {
        move |run: &Run| if run.seed < count { Ok(run.seed) } else { Err(Error::Diverged { loss: f64::NAN, epoch: 0, step: 0 }) }
    };
    sweep::run(&plan(), &path, 1, fail_from(1), |_| {}).unwrap_err();
    // A kill in the middle of a line.
    let mut text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    text.push_str(r#"{"id":"half"#);
    std::fs::write(&path, text).unwrap();
    let mut told = Vec::new();
    assert_eq!(sweep::run(&plan(), &path, 2, fail_from(2), |done| told.push(done.done)).unwrap(), 3);
    assert_eq!(told, [2, 3, 4]);
    assert_eq!(sweep::run(&plan(), &path, 2, fail_from(0), |_| {}).unwrap(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut ids: Vec<String> = text.lines().map(|line| serde_json::from_str::<sweep::Row<u64>>(line).unwrap().id).collect();
    ids.sort();
    let mut planned: Vec<String> = plan().iter().map(Run::id).collect();
    planned.sort();
    assert_eq!(ids, planned);
}

/// The usual work of a sweep gives what its parts give.
#[test]
fn a_run_is_measured_as_its_parts_are() {
    let (run, train, test) = (plan().remove(2), rings(60, 10, Some(Seed(2))), rings(30, 30, None));
    let outcome = sweep::trained(&run, &Device::Cpu, &train, &test).unwrap();
    let graph = run.architecture.graph(Seed(run.seed)).unwrap();
    assert_eq!(outcome.nn_mass, Some(lab::metrics::nn_mass::of(&graph).unwrap()));
    let model = Model::new(graph, Seed(run.seed), &Device::Cpu).unwrap();
    train::fit(&model, &train, None, &run.recipe, |_| {}).unwrap();
    let score = train::evaluate(&model, &test).unwrap();
    assert_eq!((outcome.test_loss, outcome.test_accuracy), (score.loss, score.accuracy));
    assert_eq!((outcome.params, outcome.macs), (model.profile().params, model.profile().macs));
}

#[test]
fn a_results_file_that_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "dear diary\n").unwrap();
    let error = sweep::run(&plan(), &path, 1, |run| Ok(run.seed), |_| {}).unwrap_err().to_string();
    assert!(error.contains("notes.txt: line 1: wanted a finished run, found "), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary\n");
}
