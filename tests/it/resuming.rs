//! A run that was killed, stopped or finished goes on as if it had not been, and only as itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use candle::Device;
use datasets::{Seed, Table};
use expect_test::{Expect, expect};
use lab::graph::{Builder, Unit};
use lab::train::{Checkpoint, Epoch, Event, Flow, Optimizer, Options, Stop, fit_with};
use lab::{Activation, Model, Recipe, Result, fit};

/// Batch norm and dropout in a perceptron: running statistics are part of what has to come back, and so is what is drawn.
fn model(width: usize) -> Model {
    let mut g = Builder::new("net", &[2]);
    let xs = g.input();
    let ys = g.linear("hidden", xs, width);
    let ys = g.batch_norm("norm", ys);
    let ys = g.activate(ys, Activation::Relu);
    let ys = g.dropout(ys, 0.1, Unit::Number);
    let ys = g.linear("out", ys, 2);
    Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap()
}

/// Points inside and outside a circle.
fn points(n: usize, shuffle: Option<Seed>) -> Table {
    let mut rng = Seed(9).rng();
    let rows: Vec<f32> = (0..2 * n).map(|_| rng.normal() as f32).collect();
    let labels = rows.chunks(2).map(|at| u32::from(at[0].hypot(at[1]) < 1.2)).collect();
    Table::new(rows, &[2], labels, 2, 8, shuffle)
}

/// Everything that a step can depend on: momentum, an average, mixtures, clipping, parts of batches, a rate that moves.
fn recipe() -> Recipe {
    let optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-3 };
    Recipe {
        optimizer,
        warm_up: 1.5,
        mix_up: Some(0.4),
        label_smoothing: 0.1,
        clip: Some(1.0),
        micro_batch: Some(5),
        average: Some(0.95),
        seed: 3,
        ..Recipe::sgd(0.1, EPOCHS)
    }
}

/// After which a test gives up that waits for a program.
const DEADLINE: Duration = Duration::from_secs(60);

const EPOCHS: usize = 10;
const STEPS: usize = EPOCHS * 13;

/// The run of these tests, 13 batches an epoch, kept in `folder` after each step.
fn run(folder: &Path, on_event: impl FnMut(Event<'_>) -> Flow) -> Result<(Model, Vec<Epoch>)> {
    let (model, train, test) = (model(6), points(100, Some(Seed(4))), points(40, None));
    let options = Options { checkpoint: Some(Checkpoint { folder: folder.to_owned(), every: 1 }), ..Options::default() };
    let history = fit_with(&model, &train, Some(&test), &recipe(), &options, on_event)?;
    Ok((model, history))
}

/// Weights and history, to the last bit.
fn outcome((model, history): &(Model, Vec<Epoch>)) -> String {
    let bits = |var: &candle::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let weights: BTreeMap<&str, Vec<u32>> = model.params.iter().map(|(parameter, var)| (parameter.name.as_str(), bits(var))).collect();
    let number = |number: f64| number.to_bits();
    let row = |row: &Epoch| {
        (row.epoch, [row.lr, row.train_loss, row.train_accuracy].map(number), [row.test_loss, row.test_accuracy].map(|x| x.map(number)))
    };
    format!("{weights:?} {:?}", history.iter().map(row).collect::<Vec<_>>())
}

/// Without a checkpoint.
fn uninterrupted() -> String {
    let (model, train, test) = (model(6), points(100, Some(Seed(4))), points(40, None));
    let history = fit(&model, &train, Some(&test), &recipe(), |_| {}).unwrap();
    assert!(history[EPOCHS - 1].test_accuracy.unwrap() > 0.8, "{history:?}");
    outcome(&(model, history))
}

/// Says to this program, started again, where to keep the run that is to be killed.
const FOLDER: &str = "RESUMING_FOLDER";

/// Says to it after which step to wait: whoever kills it then is never too late.
const HELD: &str = "RESUMING_HELD";

/// Not a test by itself: what [`a_killed_run_goes_on`] starts as a program of its own.
#[test]
fn the_run_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let held: Option<usize> = std::env::var(HELD).ok().map(|step| step.parse().unwrap());
    let done = run(folder, |event| {
        if matches!(event, Event::Step { done, .. } if held.is_some_and(|held| done >= held)) {
            std::thread::sleep(DEADLINE);
            panic!("nobody has killed it");
        }
        Flow::Go
    })
    .unwrap();
    std::fs::write(folder.with_extension("outcome"), outcome(&done)).unwrap();
}

/// Steps done, as the checkpoint says: whenever one looks there is none, or a whole one.
fn kept(folder: &Path) -> u64 {
    let Ok(text) = std::fs::read_to_string(folder.join("checkpoint.json")) else { return 0 };
    let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
    saved["state"]["done"].as_u64().unwrap()
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    let (parent, mut rng) = (tempfile::tempdir().unwrap(), Seed(7).rng());
    let folder = parent.path().join("run");
    let start = |held: Option<u64>| {
        let arguments = ["--exact", "resuming::the_run_that_is_killed", "--test-threads", "1"];
        let mut program = Command::new(std::env::current_exe().unwrap());
        if let Some(step) = held {
            program.env(HELD, step.to_string());
        }
        program.args(arguments).env(FOLDER, &folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // Killed at a random moment of each tenth of the run but the last: while it computes, writes, renames or removes.
    let tenth = STEPS / 10;
    for part in 0..9 {
        let until = (part * tenth + rng.below(tenth)) as u64;
        let (mut child, begin) = (start(Some(until + 12)), Instant::now());
        while kept(&folder) < until {
            assert!(begin.elapsed() < DEADLINE && child.try_wait().unwrap().is_none(), "{} of {until} steps", kept(&folder));
            std::thread::sleep(Duration::from_micros(50));
        }
        std::thread::sleep(Duration::from_micros(rng.below(2000) as u64));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        if until > 0 {
            let text = std::fs::read_to_string(folder.join("checkpoint.json")).unwrap();
            let saved: serde_json::Value = serde_json::from_str(&text).unwrap();
            candle::safetensors::load(folder.join(saved["tensors"].as_str().unwrap()), &Device::Cpu).unwrap();
        }
    }
    assert!(kept(&folder) > 0, "the last run goes on");
    assert!(start(None).wait().unwrap().success());
    assert!(std::fs::read_to_string(folder.with_extension("outcome")).unwrap() == uninterrupted());
    let mut left: Vec<String> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["checkpoint.json".to_owned(), "lock".to_owned(), format!("step-{STEPS}.safetensors")]);
}

/// Whoever follows a run may end it, in the middle of an epoch or after one; the next call goes on there, and one more does nothing.
#[test]
fn a_stopped_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = Vec::new();
    for stop in [7, 13, 14, 40] {
        let mut last = 0;
        let (_, history) = run(folder.path(), |event| match event {
            Event::Step { done, of, .. } => {
                assert_eq!(of, STEPS);
                last = done;
                if done == stop { Flow::Stop } else { Flow::Go }
            }
            Event::Epoch { row, .. } => {
                rows.push(row.epoch);
                Flow::Go
            }
        })
        .unwrap();
        assert_eq!((last, history.len(), kept(folder.path()) as usize), (stop, stop / 13, stop));
    }
    let done = run(folder.path(), |event| {
        if let Event::Epoch { row, .. } = event {
            rows.push(row.epoch);
        }
        Flow::Go
    });
    assert_eq!(rows, (1..=EPOCHS).collect::<Vec<_>>());
    assert!(outcome(&done.unwrap()) == uninterrupted());
    let again = run(folder.path(), |event| panic!("{event:?}")).unwrap();
    assert!(outcome(&again) == uninterrupted());
}

/// A run that its recipe ends early has ended, also for the next call.
#[test]
fn a_run_that_reached_its_target_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { checkpoint: Some(Checkpoint { folder: folder.path().to_owned(), every: 100 }), ..Options::default() };
    let recipe = Recipe { stop: Stop { accuracy: Some(0.6), patience: None }, ..recipe() };
    let run = |follow: fn(Event<'_>)| {
        let model = model(6);
        let history = fit_with(&model, &points(100, Some(Seed(4))), Some(&points(40, None)), &recipe, &options, follow).unwrap();
        outcome(&(model, history))
    };
    let first = run(|_| {});
    assert!(first == run(|event| panic!("{event:?}")));
}

/// `change` is made to a checkpoint of step 5; what does the run say?
#[track_caller]
fn check_refused(change: impl FnOnce(&Path), continued: impl FnOnce(&Options) -> Result<Vec<Epoch>>, want: Expect) {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), |event| if matches!(event, Event::Step { done: 5, .. }) { Flow::Stop } else { Flow::Go }).unwrap();
    change(folder.path());
    let options = Options { checkpoint: Some(Checkpoint { folder: folder.path().to_owned(), every: 1 }), ..Options::default() };
    let error = continued(&options).unwrap_err();
    want.assert_eq(&error.to_string().replace(&folder.path().display().to_string(), "DIR"));
}

#[test]
fn the_checkpoint_of_another_run_is_refused() {
    let with = |width: usize, recipe: Recipe, samples: usize| {
        move |options: &Options| fit_with(&model(width), &points(samples, Some(Seed(4))), Some(&points(40, None)), &recipe, options, |_| {})
    };
    let rate = Recipe { lr: 0.2, ..recipe() };
    check_refused(|_| {}, with(6, rate, 100), expect!["DIR/checkpoint.json: recipe.lr: wanted 0.2, found 0.1"]);
    let unmixed = Recipe { mix_up: None, ..recipe() };
    check_refused(|_| {}, with(6, unmixed, 100), expect![[r#"DIR/checkpoint.json: recipe.mix_up: wanted "nothing", found 0.4"#]]);
    check_refused(|_| {}, with(6, recipe(), 101), expect!["DIR/checkpoint.json: samples: wanted 101, found 100"]);
    let edit = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("checkpoint.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replace(from, to)).unwrap();
        }
    };
    check_refused(
        edit("\"format\": 1", "\"format\": 2"),
        with(6, recipe(), 100),
        expect!["DIR/checkpoint.json: format: wanted 1, found 2"],
    );
    check_refused(
        edit("\"graph\": \"net\"", "\"graph\": \"ten\""),
        with(6, recipe(), 100),
        expect![[r#"DIR/checkpoint.json: graph: wanted "net", found "ten""#]],
    );
    check_refused(
        edit("}", ""),
        with(6, recipe(), 100),
        expect!["DIR/checkpoint.json: text: wanted a checkpoint, found EOF while parsing an object at line 40 column 0"],
    );
    check_refused(
        |folder| std::fs::remove_file(folder.join("step-5.safetensors")).unwrap(),
        with(6, recipe(), 100),
        expect!["DIR/step-5.safetensors: cannot read the checkpoint"],
    );
}

/// A network of the same name that is wired otherwise.
#[test]
fn the_checkpoint_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), |_| Flow::Stop).unwrap();
    let options = Options { checkpoint: Some(Checkpoint { folder: folder.path().to_owned(), every: 1 }), ..Options::default() };
    let other = fit_with(&model(7), &points(100, Some(Seed(4))), Some(&points(40, None)), &recipe(), &options, |_| {});
    let error = other.unwrap_err().to_string();
    assert!(error.contains("checkpoint.json: structure: wanted"), "{error}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    run(folder.path(), |_| {
        said = run(folder.path(), |_| Flow::Stop).unwrap_err().to_string();
        Flow::Stop
    })
    .unwrap();
    let said = said.replace(&folder.path().display().to_string(), "DIR");
    expect!["DIR: wanted one run at a time, found another that keeps its checkpoints here"].assert_eq(&said);
}
