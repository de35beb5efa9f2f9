//! The program `lab`, from a shell: a plan becomes results, results become tables, and what is wrong is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use datasets::{Seed, Shapes, synthetic::shapes};
use expect_test::{Expect, expect};
use parquet::file::reader::{FileReader, SerializedFileReader};
use pipeline::convert;

use crate::programs::built;
use crate::sweeping;

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("lab"))
}

/// Exit code, standard output and standard error of `lab`, the latter without the lines that tell how far it is.
fn lab(folder: &Path, arguments: &str) -> (Option<i32>, String, String) {
    let output = Command::new(program()).args(arguments.split_whitespace()).current_dir(folder).env("COLUMNS", "100").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let told = err.lines().filter(|line| !line.starts_with("sweep  ")).map(|line| format!("{line}\n")).collect();
    (output.status.code(), out, told)
}

/// Four perceptrons for points of a line.
fn plan() -> String {
    sweeping::PLAN.replace("\"rings\"", POINTS)
}

const POINTS: &str = r#"{ points = { kind = "linear", segments = 2 }, batch = 600 }"#;

fn folder(plan: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plan.toml"), plan).unwrap();
    folder
}

#[test]
fn a_plan_becomes_results_and_these_a_table() {
    let folder = folder(&plan());
    let check = |arguments: &str, want: Expect| {
        let (code, out, err) = lab(folder.path(), arguments);
        want.assert_eq(&format!("{out}{err}"));
        assert_eq!(code, Some(0));
    };
    let (code, out, _) = lab(folder.path(), "sweep plan.toml -n");
    // What kernels take, in the last column, depends on the machine.
    let networks: Vec<&str> = out.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.trim_end())).collect();
    assert_eq!(code, Some(0));
    expect![[r#"
        family     inputs  classes  width  depth  max_links  activation  runs  params  macs  nn_mass
        dense_mlp       2        2      2      4          3  elu            2      34    26    6.667
        dense_mlp       2        2      4      4          3  elu            2      80    66    8.000
        2
        4"#]]
    .assert_eq(&networks.join("\n"));
    check(
        "sweep plan.toml -w 2 --memory 1G",
        expect![[r#"
        plan.jsonl: 4 of 4 runs (4 now), 0 failed
    "#]],
    );
    check(
        "sweep plan.toml",
        expect![[r#"
        plan.jsonl: 4 of 4 runs (0 now), 0 failed
    "#]],
    );
    check(
        "table plan.jsonl -b width -v params,nn_mass -s params",
        expect![[r#"
        width  params  params_std  params_low  params_high  nn_mass  nn_mass_std  nn_mass_low  nn_mass_high  n
            2      34           0          34           34    6.667            0        6.667         6.667  2
            4      80           0          80           80    8.000            0        8.000         8.000  2
        2 rows
    "#]],
    );
    check(
        "table plan.jsonl -b width,seed -v params --pivot seed -f csv",
        expect![[r#"
            width,0,1
            2,34.0,34.0
            4,80.0,80.0
        "#]],
    );
    let (code, out, _) = lab(folder.path(), "table plan.jsonl --where seed=1 -v width,params -s width --json");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let widths: Vec<u64> = rows.iter().map(|row| row["width"].as_u64().unwrap()).collect();
    assert!(code == Some(0) && widths.len() == 2 && widths.is_sorted() && rows.iter().all(|row| row["params"].is_u64()), "{out}");
    check(
        "table plan.jsonl --where seed=1 -v width,params -s width -f latex",
        expect![[r#"
        \begin{tabular}{rr}
        \toprule
        width & params \\
        \midrule
        2 & 34 \\
        4 & 80 \\
        \bottomrule
        \end{tabular}
    "#]],
    );
    check(
        "table plan.jsonl plan.jsonl -v params,family -o a.parquet",
        expect![[r#"
        a.parquet: 4 rows
    "#]],
    );
    let file = SerializedFileReader::try_from(folder.path().join("a.parquet").as_path()).unwrap();
    assert_eq!(file.metadata().file_metadata().num_rows(), 4, "a row of two files counts once");
    let texts: Vec<String> = file.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert!(texts.iter().all(|row| row.ends_with(r#"family: "dense_mlp"}"#)), "{texts:?}");
}

/// What runs fail of is said, and the next call leaves them out.
#[test]
fn failures_are_told() {
    let folder = folder(&plan().replace("lr = 0.01", "lr = 1e30").replace("[0, 1]", "[0]"));
    let (code, out, err) = lab(folder.path(), "sweep plan.toml");
    assert_eq!((code, out.as_str()), (Some(1), "plan.jsonl: 0 of 2 runs (0 now), 2 failed\n"), "{err}");
    assert!(err.lines().count() == 2 && err.lines().all(|line| line.starts_with("run ") && line.contains(" is not finite ")), "{err}");
    let (code, out, err) = lab(folder.path(), "sweep plan.toml");
    assert_eq!((code, out.as_str()), (Some(1), "plan.jsonl: 0 of 2 runs (0 now), 2 failed\n"));
    assert_eq!(err, "2 failed before; --retry tries them again\n");
}

/// Runs are known by what is in a store, not by where it lies.
#[test]
fn a_store_may_move() {
    let data = r#"{ store = "shapes.lmdb", train = { batch = 8, transforms = [{ flip = { p = 0.5 } }] }, test = { split = "test" } }"#;
    let plan = plan().replace(POINTS, data).replace("inputs = 2, classes = 2", "inputs = 192, classes = 8");
    let folder = folder(&plan);
    let shapes = Shapes::new(shapes::Config { size: 8, train_per_class: 2, test_per_class: 1 }, Seed(0)).unwrap();
    convert::convert(&shapes, &folder.path().join("shapes.lmdb"), &convert::Options::new("test"), &mut |_| {}).unwrap();
    let (code, out, err) = lab(folder.path(), "sweep plan.toml");
    assert_eq!((code, out.as_str()), (Some(0), "plan.jsonl: 4 of 4 runs (4 now), 0 failed\n"), "{err}");
    std::fs::rename(folder.path().join("shapes.lmdb"), folder.path().join("moved.lmdb")).unwrap();
    let missing = lab(folder.path(), "sweep plan.toml").2;
    assert!(missing.starts_with("error: shapes.lmdb: "), "{missing}");
    std::fs::write(folder.path().join("plan.toml"), plan.replace("shapes.lmdb", "moved.lmdb")).unwrap();
    assert_eq!(lab(folder.path(), "sweep plan.toml").1, "plan.jsonl: 4 of 4 runs (0 now), 0 failed\n");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = folder(&plan());
    std::fs::write(folder.path().join("deep.toml"), plan().replace("depth = 4", "depth = 2")).unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "{\"id\": \"a\", \"run\": {\"seed\": 1}}\nno\n{}\n").unwrap();
    std::fs::write(folder.path().join("two.jsonl"), "{\"a\": {\"n\": 1}, \"b\": {\"n\": 2}}\n").unwrap();
    let check = |arguments: &str, want: Expect| {
        let (code, out, err) = lab(folder.path(), arguments);
        want.assert_eq(&err);
        assert!(code == Some(1) || code == Some(2), "{code:?}");
        assert_eq!(out, "");
    };
    check(
        "sweep none.toml",
        expect![[r#"
        error: none.toml: cannot read the plan
          caused by: No such file or directory (os error 2)
    "#]],
    );
    check(
        "sweep deep.toml",
        expect![[r#"
        error: deep.toml
          caused by: dense_mlp: depth: wanted at least 3, found 2
    "#]],
    );
    check(
        "sweep plan.toml --memory 8X",
        expect![[r#"
        error: invalid value '8X' for '--memory <BYTES>': wanted a number with K, M, G or T, found `8X`

        For more information, try '--help'.
    "#]],
    );
    check(
        "table rows.jsonl",
        expect![[r#"
        error: rows.jsonl: line 2: wanted a JSON object, found expected ident at line 1 column 2
    "#]],
    );
    check(
        "table two.jsonl -v n",
        expect![[r#"
        error: column `n`: wanted one column, found a.n, b.n
    "#]],
    );
    check(
        "table two.jsonl -v m",
        expect![[r#"
        error: column `m`: wanted one of a.n, b.n, found no such column
    "#]],
    );
    check(
        "table two.jsonl -o a.doc",
        expect![[r#"
        error: ending .doc: wanted csv, jsonl, html, tex, parquet or txt
    "#]],
    );
}

/// What was trained is tested with the same result, a run that is done is not run again, and names and numbers that make no sense are refused.
#[test]
fn a_network_is_trained_and_tested() {
    let folder = tempfile::tempdir().unwrap();
    let shapes = Shapes::new(shapes::Config { size: 16, train_per_class: 8, test_per_class: 2 }, Seed(0)).unwrap();
    convert::convert(&shapes, &folder.path().join("shapes.lmdb"), &convert::Options::new("test"), &mut |_| {}).unwrap();
    let setting = "-a mobilenet_v2 --data shapes.lmdb --width-mult 0.1 -b 16 -j 1 --device cpu";
    let train = format!("train {setting} --epochs 2 --lr-decay cos --lr 0.05 --wd 4e-5 --warmup 1 -c run");
    let (code, first, err) = lab(folder.path(), &train);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.starts_with("mobilenet_v2: ") && err.contains("; 64 pictures of 16×16 to train with, 16 to test\n"), "{err}");
    assert_eq!(first.lines().count(), 2, "{first}");
    let history = std::fs::read_to_string(folder.path().join("run/history.csv")).unwrap();
    let accuracy: f64 = history.trim().rsplit(',').next().unwrap().parse().unwrap();
    let weights = std::fs::read(folder.path().join("run/model.safetensors")).unwrap();
    let (code, again, _) = lab(folder.path(), &train);
    assert_eq!((code, again.as_str()), (Some(0), ""));
    assert!(std::fs::read(folder.path().join("run/model.safetensors")).unwrap() == weights);
    let (_, told, err) = lab(folder.path(), &format!("eval {setting} --weight run/model.safetensors"));
    assert!(told.starts_with(&format!("mobilenet_v2 on 16 pictures of 16×16: top-1 {accuracy:.4}, top-5 ")), "{told}{err}");
    // The folder says what the network is.
    assert_eq!(lab(folder.path(), "eval --data shapes.lmdb -c run -b 16 -j 1 --device cpu").1, told);
    let (_, told, err) = lab(folder.path(), &format!("eval {setting} --weight run/model.safetensors --input-size 14 --ten-crop"));
    assert!(told.starts_with("mobilenet_v2 on 16 pictures of 14×14: top-1 "), "{told}{err}");

    let check = |arguments: &str, want: Expect| {
        let (code, _, err) = lab(folder.path(), arguments);
        want.assert_eq(&err);
        assert!(code == Some(1) || code == Some(2), "{code:?}");
    };
    check(
        &format!("eval {setting}"),
        expect![[r#"
        error: --weight: wanted a file with trained weights, or --checkpoint with the folder of a run, found none; --model knows mobilenet_v2, nn_mass_b, resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, resnext101_32x8d, wide_resnet50_2, wide_resnet101_2
    "#]],
    );
    check(
        &train.replace("0.05", "0.06"),
        expect![[r#"
        mobilenet_v2: 96328 parameters; 64 pictures of 16×16 to train with, 16 to test
        error: run/run/checkpoint.json: recipe.lr: wanted 0.06, found 0.05
    "#]],
    );
    check(
        "train -a resnet19 --data shapes.lmdb",
        expect![[r#"
        error: --model resnet19: wanted a JSON file, or one of mobilenet_v2, nn_mass_b, resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, resnext101_32x8d, wide_resnet50_2, wide_resnet101_2
    "#]],
    );
    let (_, _, err) = lab(folder.path(), "eval --data shapes.lmdb -c run --normalize imagenat");
    assert!(err.starts_with("error: invalid value 'imagenat' for '--normalize <NAME>': ") && err.contains("`imagenet`"), "{err}");
    check(
        "eval --data shapes.lmdb -c elsewhere",
        expect![[r#"
        error: elsewhere: wanted network.json, which is there after the first epoch of `topolab train`
    "#]],
    );
    check(
        "eval --data shapes.lmdb -c run --input-size 14",
        expect![[r#"
        error: --input-size: wanted 16, which the network was made for, found 14
    "#]],
    );
    check(
        "train -a resnet18 --width-mult 2 --data shapes.lmdb",
        expect![[r#"
        error: --width-mult: wanted one of the mobile networks, found resnet18
    "#]],
    );
    check(
        "train -a resnet18 --data shapes.lmdb --split holdout",
        expect![[r#"
        error: shapes.lmdb: no split "holdout"; there is "train", "test"
    "#]],
    );
    check(
        "train -a resnet18 --data shapes.lmdb --lr-decay schedule --schedule 20 10",
        expect![[r#"
        error: --schedule: wanted epochs in order, found [20, 10]
    "#]],
    );
}
