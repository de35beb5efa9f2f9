//! Sweeps: what finished stays and is not done again, what failed says why, plans are what they say.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use candle::Device;
use datasets::{Rng, Seed};
use expect_test::{Expect, expect};
use lab::models::{Spec, dense_mlp};
use lab::sweep::{self, Desk, Event, Failure, Options, Plan, Row, Run, Standing};
use lab::train::{self, Recipe};
use lab::{Error, Model, Result};

use crate::training::rings;

fn run(width: usize, seed: u64) -> Run {
    Run {
        architecture: Spec::DenseMlp(dense_mlp::Config::points(width, 4, 3)),
        data: "rings".to_owned(),
        recipe: Recipe::adam(0.01, 1),
        seed,
    }
}

fn plan() -> Vec<Run> {
    [(2, 0), (2, 1), (4, 0), (4, 1)].map(|(width, seed)| run(width, seed)).to_vec()
}

/// The ids in a file of lines, in order.
fn ids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut ids: Vec<String> = text.lines().map(|line| serde_json::from_str::<Row<serde_json::Value>>(line).unwrap().id).collect();
    ids.sort();
    ids
}

fn planned(plan: &[Run]) -> Vec<String> {
    let mut ids: Vec<String> = plan.iter().map(Run::id).collect();
    ids.sort();
    ids
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
    let work = |run: &Run, _: &Desk<'_>| Ok(run.seed);
    sweep::run(&plan()[..1], &path, 1, work, |_, _| {}).unwrap();
    // A kill in the middle of a line.
    let mut text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    text.push_str(r#"{"id":"half"#);
    std::fs::write(&path, text).unwrap();
    let mut told = Vec::new();
    let standing = sweep::run(&plan(), &path, 2, work, |_, standing| told.push(standing.done)).unwrap();
    assert_eq!(standing, Standing { done: 4, failed: 0, ran: 3, of: 4 });
    assert_eq!(told, [2, 3, 4]);
    let again = sweep::run(&plan(), &path, 2, |_: &Run, _: &Desk<'_>| -> Result<u64> { panic!("nothing is left") }, |_, _| {});
    assert_eq!(again.unwrap(), Standing { ran: 0, ..standing });
    assert_eq!(ids(&path), planned(&plan()));
}

/// A run that fails says why and stops nobody; it is left out from then on, until somebody wants it tried again.
#[test]
fn what_fails_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, failures) = (folder.path().join("rings.jsonl"), folder.path().join("rings.failed.jsonl"));
    let diverged = || Error::Diverged { loss: f64::NAN, epoch: 0, step: 3, first: "the loss".to_owned() };
    let tried = AtomicUsize::new(0);
    let sweep = |heal: u64, retry: bool| {
        let work = |run: &Run, _: &Desk<'_>| {
            tried.fetch_add(1, Ordering::Relaxed);
            match run.seed {
                seed if seed < heal => Ok(seed),
                0 => Err(diverged()),
                seed => panic!("seed {seed} is unlucky"),
            }
        };
        let mut told = Vec::new();
        let options = Options { workers: 2, retry, ..Options::default() };
        let standing = sweep::run(&plan(), &path, options, work, |event, _| {
            if let Event::Failed { reason, .. } = event {
                told.push(reason.to_owned());
            }
        });
        told.sort();
        (standing.unwrap(), told.join("\n"), tried.swap(0, Ordering::Relaxed))
    };
    let (standing, told, _) = sweep(0, false);
    assert_eq!(standing, Standing { done: 0, failed: 4, ran: 0, of: 4 });
    expect![[r"
        epoch 0, step 3: the loss is not finite (the loss is NaN); a smaller learning rate or a warm-up may help
        epoch 0, step 3: the loss is not finite (the loss is NaN); a smaller learning rate or a warm-up may help
        panicked: seed 1 is unlucky
        panicked: seed 1 is unlucky"]]
    .assert_eq(&told.lines().map(|line| line.to_owned()).collect::<Vec<_>>().join("\n"));
    let text = std::fs::read_to_string(&failures).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Failure>(line).unwrap().run.data == "rings"));
    assert_eq!(sweep(2, false), (standing, String::new(), 0));
    let (standing, told, tried) = sweep(1, true);
    assert_eq!((standing, told.lines().count(), tried), (Standing { done: 2, failed: 2, ran: 2, of: 4 }, 2, 4));
    let (standing, _, tried) = sweep(2, true);
    assert_eq!((standing, tried), (Standing { done: 4, failed: 0, ran: 2, of: 4 }, 2));
    assert_eq!(ids(&path), planned(&plan()));
}

/// The usual work of a sweep gives what its parts give.
#[test]
fn a_run_is_measured_as_its_parts_are() {
    let (train, test) = (rings(60, 10, Some(Seed(2))), rings(30, 30, None));
    let (folder, run) = (tempfile::tempdir().unwrap(), plan().remove(2));
    for (name, options) in [
        ("plain", Options::default()),
        ("kept", Options { checkpoint: Some(2), ..Options::default() }),
        ("limited", Options { memory: Some(1 << 30), ..Options::default() }),
    ] {
        let (path, mut epochs) = (folder.path().join(name).with_extension("jsonl"), 0);
        let work = |run: &Run, desk: &Desk<'_>| sweep::trained(run, desk, &Device::Cpu, &train, &test);
        let count = |event: Event<'_>, _| epochs += usize::from(matches!(event, Event::Epoch { .. }));
        sweep::run(std::slice::from_ref(&run), &path, options, work, count).unwrap();
        let row: Row<sweep::Outcome> = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let graph = run.architecture.graph(Seed(run.seed)).unwrap();
        assert_eq!(row.result.nn_mass, Some(lab::metrics::nn_mass::of(&graph).unwrap()));
        let model = Model::new(graph, Seed(run.seed), &Device::Cpu).unwrap();
        train::fit(&model, &train, None, &run.recipe, |_| {}).unwrap();
        let score = train::evaluate(&model, &test).unwrap();
        assert_eq!((row.result.test_loss, row.result.test_accuracy), (score.loss, score.accuracy), "{name}");
        assert_eq!((row.result.params, row.result.macs), (model.profile().params, model.profile().macs));
        assert_eq!(epochs, 1);
        assert!(!path.with_extension("under-way").exists(), "checkpoints go with the run");
    }
}

/// A followed run is the same run, and tells how it came to its outcome; a plan's table has its runs alone, in its order.
#[test]
fn a_plan_has_its_table_and_its_curves() {
    let (train, test) = (rings(60, 10, Some(Seed(2))), rings(30, 30, None));
    let (folder, two) = (tempfile::tempdir().unwrap(), |seed| Run { recipe: Recipe::adam(0.01, 2), ..run(2, seed) });
    let (path, plan) = (folder.path().join("rings.jsonl"), [two(0), two(1), two(2)]);
    for part in [&plan[2..], &plan[..1], &plan[1..2]] {
        sweep::run(part, &path, 1, |run, desk| sweep::followed(run, desk, &Device::Cpu, &train, &test), |_, _| {}).unwrap();
    }
    let table = sweep::table(&plan[1..], &path).unwrap();
    assert_eq!(table.column_f64("seed").unwrap(), [1.0, 2.0]);
    let curves = table.unfold("history").unwrap();
    assert_eq!(curves.column_f64("history.epoch").unwrap(), [1.0, 2.0, 1.0, 2.0]);
    for (at, run) in plan[1..].iter().enumerate() {
        let plain = sweep_one(run, &folder.path().join("plain.jsonl"), &train, &test);
        let last = |name: &str| curves.column_f64(name).unwrap()[2 * at + 1];
        assert_eq!((last("history.test_accuracy"), last("history.train_loss")), (plain.test_accuracy, plain.train_loss));
        assert_eq!((table.column_f64("test_loss").unwrap()[at], last("history.test_loss")), (plain.test_loss, plain.test_loss));
    }
    assert!(sweep::table(&plan, folder.path().join("none.jsonl")).is_err());
}

fn sweep_one(run: &Run, path: &Path, train: &dyn datasets::Batches, test: &dyn datasets::Batches) -> sweep::Outcome {
    let work = |run: &Run, desk: &Desk<'_>| sweep::trained(run, desk, &Device::Cpu, train, test);
    sweep::run(std::slice::from_ref(run), path, 1, work, |_, _| {}).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Row<sweep::Outcome>>(text.lines().last().unwrap()).unwrap().result
}

/// Those at once never have more than the limit, one alone may, and all get their turn.
#[test]
fn memory_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let plan: Vec<Run> = (0..24).map(|seed| run(2, seed)).collect();
    let (now, joined, most, together) = (Mutex::new((0u64, 0u64)), Condvar::new(), Mutex::new(0), AtomicUsize::new(0));
    let given_up = AtomicBool::new(false);
    let work = |run: &Run, desk: &Desk<'_>| {
        assert_eq!(desk.memory(), Some(100));
        let bytes = if run.seed == 5 { 300 } else { 30 + run.seed };
        desk.take(bytes);
        {
            let mut now = now.lock().unwrap();
            *now = (now.0 + bytes, now.1 + 1);
            if now.1 > 1 {
                assert!(now.0 <= 100, "{now:?}");
                together.fetch_add(1, Ordering::Relaxed);
                joined.notify_all();
            }
            let mut most = most.lock().unwrap();
            *most = now.0.max(*most);
        }
        let mut now = now.lock().unwrap();
        if bytes <= 100 {
            // The first small ones wait until there are two.
            let alone = |_: &mut (u64, u64)| together.load(Ordering::Relaxed) == 0 && !given_up.load(Ordering::Relaxed);
            let (again, waited) = joined.wait_timeout_while(now, DEADLINE, alone).unwrap();
            given_up.fetch_or(waited.timed_out(), Ordering::Relaxed);
            now = again;
        }
        *now = (now.0 - bytes, now.1 - 1);
        Ok(bytes)
    };
    let options = Options { workers: 6, memory: Some(100), ..Options::default() };
    let standing = sweep::run(&plan, folder.path().join("a.jsonl"), options, work, |_, _| {}).unwrap();
    assert_eq!((standing.done, standing.failed), (24, 0));
    assert_eq!(most.into_inner().unwrap(), 300);
    assert!(together.into_inner() > 0, "two small ones fit");
}

#[test]
fn a_results_file_that_is_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "dear diary\n").unwrap();
    let error = sweep::run(&plan(), &path, 1, |run, _| Ok(run.seed), |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("notes.txt: line 1: wanted a finished run, found "), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary\n");
}

/// Says to this program, started again, where the results of the sweep are that is to be killed.
const RESULTS: &str = "SWEEPING_RESULTS";

/// After which a test gives up that waits for another thread or program.
const DEADLINE: Duration = Duration::from_secs(60);

/// Forty short runs, two at once; if `held`, the last does not end, so that whoever kills the sweep is never too late.
fn forty(path: &Path, held: bool) -> Result<Standing> {
    let plan: Vec<Run> = (0..40).map(|seed| run(4, seed)).collect();
    let test = rings(30, 30, None);
    let work = |run: &Run, desk: &Desk<'_>| {
        if held && run.seed == 39 {
            std::thread::sleep(DEADLINE);
            panic!("nobody has killed it");
        }
        sweep::trained(run, desk, &Device::Cpu, &rings(400, 5, Some(Seed(run.seed))), &test)
    };
    sweep::run(&plan, path, 2, work, |_, _| {})
}

/// Not a test by itself: what [`a_killed_sweep_loses_and_repeats_nothing`] starts as a program of its own.
#[test]
fn the_sweep_that_is_killed() {
    if let Some(path) = std::env::var_os(RESULTS) {
        forty(Path::new(&path), true).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_killed_sweep_loses_and_repeats_nothing() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    let (folder, mut rng): (_, Rng) = (tempfile::tempdir().unwrap(), Seed(11).rng());
    let (path, whole) = (folder.path().join("killed.jsonl"), folder.path().join("whole.jsonl"));
    let start = || {
        let arguments = ["--exact", "sweeping::the_sweep_that_is_killed", "--test-threads", "1"];
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(arguments).env(RESULTS, &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let lines = || std::fs::read(&path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
    let mut kept = Vec::new();
    for part in 0..10 {
        let until = 3 * part + rng.below(4);
        let (mut child, begin) = (start(), Instant::now());
        while lines() < until {
            assert!(begin.elapsed() < DEADLINE && child.try_wait().unwrap().is_none(), "{} of {until} runs", lines());
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // What was finished is there, as it was.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let finished: Vec<String> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect();
        assert_eq!(finished[..kept.len()], kept[..]);
        kept = finished;
    }
    assert!(kept.len() >= 27 && kept.len() < 40, "{} runs", kept.len());
    assert_eq!(forty(&path, false).unwrap().ran, 40 - kept.len());
    assert_eq!(forty(&whole, false).unwrap().ran, 40);
    let sorted = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&path), sorted(&whole), "as if it had not been killed, and each run once");
}

pub(crate) const PLAN: &str = r#"
[run]
data = "rings"
recipe = { epochs = 1, lr = 0.01, optimizer = { name = "adam_w", betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.0 } }
architecture = { family = "dense_mlp", inputs = 2, classes = 2, width = 2, depth = 4, max_links = 3 }

[[grid]]
"architecture.width" = [2, 4]
seed = [0, 1]
"#;

/// A plan in a file, as the runs that the message names.
fn runs(text: &str) -> Result<Vec<Run>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, text).unwrap();
    Plan::read(&path)?.runs()
}

#[test]
fn a_plan_is_every_combination() {
    assert_eq!(runs(PLAN).unwrap(), plan());
    let more = format!("{PLAN}\n[[grid]]\nseed = [1, 7]\n\"recipe.epochs\" = [1, 2]\n");
    let names: Vec<_> = runs(&more).unwrap().iter().skip(4).map(|run| (run.recipe.epochs, run.seed)).collect();
    assert_eq!(names, [(1, 7), (2, 1), (2, 7)], "a run that another grid has is there once");
    let one = PLAN.split("[[grid]]").next().unwrap().replace("data", "seed = 1\ndata");
    assert_eq!(runs(&one).unwrap(), [run(2, 1)]);
}

#[track_caller]
fn check_wrong(from: &str, to: &str, want: Expect) {
    assert!(PLAN.contains(from));
    let error = runs(&PLAN.replace(from, to)).unwrap_err().to_string();
    let place = error.find("plan").unwrap();
    want.assert_eq(&error[place..]);
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    check_wrong(
        "\"architecture.width\"",
        "\"architecture.wide\"",
        expect![
            "plan: run with architecture.wide = 2, seed = 0: wanted architecture, data, recipe and seed, found unknown field `wide`, expected one of `inputs`, `classes`, `width`, `depth`, `max_links`, `activation`, `init`"
        ],
    );
    check_wrong("\"architecture.width\"", "\"recipe.lr.start\"", expect!["plan: grid: recipe.lr.start: `lr`: wanted a table, found 0.01"]);
    check_wrong("seed = [0, 1]", "seed = 3", expect!["plan: grid: seed: wanted a list of values, found 3"]);
    check_wrong(
        "[[grid]]",
        "[[grids]]",
        expect![[r#"
        plan.toml: wanted a plan, found TOML parse error at line 7, column 3
          |
        7 | [[grids]]
          |   ^^^^^
        unknown field `grids`, expected `run` or `grid`"#]],
    );
    check_wrong(
        "data = \"rings\"",
        "data = 3",
        expect![
            "plan: run with architecture.width = 2, seed = 0: wanted architecture, data, recipe and seed, found invalid type: integer `3`, expected a string"
        ],
    );
    check_wrong(
        "[2, 4]",
        "[2, 4",
        expect![[r#"
        plan.toml: wanted a plan, found TOML parse error at line 9, column 1
          |
        9 | seed = [0, 1]
          | ^
        missing comma between array elements, expected `,`"#]],
    );
}
