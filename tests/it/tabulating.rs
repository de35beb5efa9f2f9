//! Rows become tables, tables become other tables, and files give back what was written.

use std::path::Path;

use datasets::Seed;
use expect_test::{Expect, expect};
use lab::table::{Column, Datum};
use lab::{Error, Table, stats};
use proptest::prelude::*;
use serde::Serialize;

#[track_caller]
fn check(table: &Table, want: Expect) {
    want.assert_eq(&table.to_string());
}

#[track_caller]
fn check_error<T: std::fmt::Debug>(result: Result<T, Error>, want: Expect) {
    want.assert_eq(&result.unwrap_err().to_string());
}

#[derive(Serialize)]
struct Run {
    model: Model,
    seed: u64,
    accuracy: Option<f64>,
    done: bool,
}

#[derive(Serialize)]
struct Model {
    family: &'static str,
    depth: usize,
    widths: Vec<usize>,
}

fn runs() -> Table {
    let run = |family, depth, seed, accuracy| Run {
        model: Model { family, depth, widths: vec![8, depth] },
        seed,
        accuracy,
        done: accuracy.is_some(),
    };
    let rows =
        [run("dense", 16, 0, Some(0.9356)), run("plain", 8, 1, Some(0.912)), run("dense", 16, 2, Some(0.9412)), run("plain", 8, 3, None)];
    Table::from_rows(&rows).unwrap()
}

#[test]
fn rows_become_typed_columns_in_the_order_of_their_fields() {
    check(
        &runs(),
        expect![[r#"
            model.family  model.depth  model.widths  seed  accuracy  done
            dense                  16  [8,16]           0    0.9356  true
            plain                   8  [8,8]            1    0.9120  true
            dense                  16  [8,16]           2    0.9412  true
            plain                   8  [8,8]            3         –  false
            4 rows"#]],
    );
    let types: Vec<String> = runs().frame().columns().iter().map(|column| column.dtype().to_string()).collect();
    assert_eq!(types, ["str", "i64", "str", "i64", "f64", "bool"]);
}

#[test]
fn a_column_has_the_narrowest_type_that_holds_its_cells() {
    let of = |json: &str| {
        let rows: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
        let table = Table::from_rows(&rows).unwrap();
        (table.frame().columns()[0].dtype().to_string(), table.column_text("x").unwrap().join(" "))
    };
    let check = |json: &str, want: (&str, &str)| assert_eq!(of(json), (want.0.to_owned(), want.1.to_owned()), "{json}");
    check(r#"[{"x":1},{"x":2}]"#, ("i64", "1 2"));
    check(r#"[{"x":1},{"x":2.5}]"#, ("f64", "1.000 2.500"));
    check(r#"[{"x":null},{}]"#, ("f64", " "));
    check(r#"[{"x":true},{"x":null}]"#, ("bool", "true "));
    check(r#"[{"x":true},{"x":2}]"#, ("str", "true 2"));
    check(r#"[{"x":"a"},{"x":0.1}]"#, ("str", "a 0.1"));
    check(r#"[{"x":18446744073709551615}]"#, ("str", "18446744073709551615"));
}

#[test]
fn rows_that_are_no_rows_are_refused() {
    check_error(Table::from_rows(&[1, 2]), expect!["row 0: wanted a struct or a map, found `1`"]);
    let twice: serde_json::Value = serde_json::from_str(r#"{"a":{"b":1},"a.b":2}"#).unwrap();
    check_error(Table::from_rows(&[twice]), expect!["row 0: wanted a struct or a map, found `a.b` twice"]);
}

#[test]
fn tables_are_filtered_sorted_extended_and_cut() {
    let table = runs().filter(|row| row.text("model.family") == "dense" || row.number("seed") == 3.0).unwrap();
    let table = table.with_column("error", |row| 1.0 - row.number("accuracy")).unwrap();
    let table = table.with_column("kind", |row| if row.is("done") { "finished" } else { "open" }).unwrap();
    let table = table.sort_descending(&["accuracy"]).unwrap().select(&["seed", "error", "kind"]).unwrap();
    check(
        &table,
        expect![[r#"
            seed    error  kind
               2  0.05880  finished
               0  0.06440  finished
               3      NaN  open
            3 rows"#]],
    );
    assert_eq!(table.head(1).column_f64("seed").unwrap(), [2.0]);
    assert_eq!(table.head(9).len(), 3);
}

#[test]
fn sorting_keeps_equal_rows_in_order_and_puts_missing_cells_last() {
    let table = runs().sort(&["model.depth", "accuracy"]).unwrap();
    assert_eq!(table.column_f64("seed").unwrap(), [1.0, 3.0, 0.0, 2.0]);
    assert_eq!(runs().sort(&["model.family"]).unwrap().column_f64("seed").unwrap(), [0.0, 2.0, 1.0, 3.0]);
    assert_eq!(runs().sort_descending(&["accuracy"]).unwrap().column_f64("seed").unwrap(), [2.0, 0.0, 1.0, 3.0]);
}

#[test]
fn groups_have_means_and_spreads() {
    check(
        &runs().mean(&["accuracy"], &["model.family", "model.depth"]).unwrap(),
        expect![[r#"
            model.family  model.depth  accuracy  accuracy_std  n
            dense                  16    0.9384      0.003960  2
            plain                   8    0.9120             –  2
            2 rows"#]],
    );
    let all = runs().mean(&["accuracy", "seed"], &[]).unwrap();
    assert_eq!(all.names(), ["accuracy", "accuracy_std", "seed", "seed_std", "n"]);
    assert_eq!(all.column_f64("seed").unwrap(), [1.5]);
}

#[test]
fn joined_rows_keep_the_order_of_the_left_table() {
    let sizes = Table::new([("model.family", vec!["plain", "dense", "wide"].into()), ("params", vec![7286, 12_345, 1].into())]).unwrap();
    check(
        &runs().select(&["seed", "model.family"]).unwrap().join(&sizes, &["model.family"]).unwrap(),
        expect![[r#"
            seed  model.family  params
               0  dense         12,345
               1  plain          7,286
               2  dense         12,345
               3  plain          7,286
            4 rows"#]],
    );
    let same = runs().select(&["seed", "done"]).unwrap();
    assert_eq!(same.join(&same, &["seed"]).unwrap().names(), ["seed", "done", "done_right"]);
}

#[test]
fn what_is_asked_for_in_vain_is_named() {
    let table = runs().select(&["seed", "accuracy", "model.family"]).unwrap();
    check_error(table.column_f64("acuracy"), expect!["column `acuracy`: wanted one of seed, accuracy, model.family, found no such column"]);
    check_error(table.column_f64("model.family"), expect![[r#"column `model.family`: wanted numbers, found the text "dense""#]]);
    check_error(
        table.filter(|row| row.number("depth") > 8.0),
        expect!["column `depth`: wanted one of seed, accuracy, model.family, found no such column"],
    );
    check_error(
        table.with_column("x", |row| row.number("model.family")),
        expect![[r#"column `model.family`, row 0: wanted a number, found the text "dense""#]],
    );
    check_error(table.filter(|row| row.is("seed")), expect!["column `seed`, row 0: wanted true or false, found 0"]);
    check_error(table.mean(&["model.family"], &["seed"]), expect![[r#"column `model.family`: wanted numbers, found the text "dense""#]]);
    check_error(table.sort(&["x"]), expect!["column `x`: wanted one of seed, accuracy, model.family, found no such column"]);
    check_error(Table::new([("a", vec![1, 2].into()), ("b", vec![1.0].into())]), expect!["column `b`: wanted 2 rows, as in `a`, found 1"]);
    let a: Column = vec![1].into();
    assert!(Table::new([("a", a.clone()), ("a", a)]).is_err());
}

#[test]
fn json_lines_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.jsonl");
    let table = runs();
    table.write_jsonl(&path).unwrap();
    assert_eq!(Table::read_jsonl(&path).unwrap(), table);
}

#[test]
fn a_line_that_is_cut_short_is_left_out_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = folder.path().join("runs.jsonl");
        std::fs::write(&path, text).unwrap();
        Table::read_jsonl(&path).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "."))
    };
    assert_eq!(read("{\"a\":1}\n\n{\"a\":2}\n{\"a\":").unwrap().column_f64("a").unwrap(), [1.0, 2.0]);
    assert_eq!(read("{\"a\":1}\n{\"a\":2}").unwrap().len(), 2, "a last line that is whole counts");
    assert_eq!(read("").unwrap().len(), 0);
    let check = |text: &str, want: Expect| want.assert_eq(&read(text).unwrap_err());
    check(
        "{\"a\":1}\n{\"a\":\n{\"a\":3}\n",
        expect!["./runs.jsonl: line 2: wanted a JSON object, found EOF while parsing a value at line 2 column 0"],
    );
    check("[1]\n", expect!["./runs.jsonl: line 1: wanted a JSON object, found `[1]`"]);
    check("{\"a\":1}{\"a\":2}\n", expect!["./runs.jsonl: line 1: wanted a JSON object, found trailing characters at line 1 column 8"]);
    let missing = Table::read_jsonl(folder.path().join("none.jsonl")).unwrap_err();
    assert!(missing.to_string().ends_with("none.jsonl: cannot read the rows"), "{missing}");
}

#[test]
fn csv_is_read_as_others_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: &str| {
        let path = folder.path().join("runs.csv");
        std::fs::write(&path, text).unwrap();
        Table::read_csv(&path).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "."))
    };
    check(
        &read("\u{feff}name,depth,accuracy\r\n\"a, \"\"b\"\"\",8,0.5\r\nc,,1e-3\r\n\r\n").unwrap(),
        expect![[r#"
            name    depth  accuracy
            a, "b"      8    0.5000
            c           –  0.001000
            2 rows"#]],
    );
    let check = |text: &str, want: Expect| want.assert_eq(&read(text).unwrap_err());
    check("", expect!["./runs.csv: line 1: wanted the columns' names, found an empty file"]);
    check("a,b\n\"x\ny\",1\n1,2,3\n", expect!["./runs.csv: line 4: wanted 2 cells, found 3"]);
    check("a,b\n1,2\n1,\"2\n", expect!["./runs.csv: line 3: wanted a closing quote, found the file's end"]);
}

fn round_trip(table: &Table, folder: &Path) -> Table {
    let path = folder.join("t.csv");
    table.write_csv(&path).unwrap();
    Table::read_csv(&path).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_table_comes_back_from_csv(rows in prop::collection::vec((any::<Option<i64>>(), any::<f64>(), any::<bool>(), "[a-c1.,\"\n\r é]{0,6}"), 1..12)) {
        let folder = tempfile::tempdir().unwrap();
        let table = Table::new([
            ("i", rows.iter().map(|row| row.0).chain([Some(0)]).collect::<Vec<_>>().into()),
            ("a,\"b\"", rows.iter().map(|row| row.1).chain([0.5]).collect::<Vec<_>>().into()),
            ("", rows.iter().map(|row| row.2).chain([true]).collect::<Vec<_>>().into()),
            ("s", rows.iter().map(|row| row.3.clone()).chain(["1".to_owned()]).collect::<Vec<_>>().into()),
        ]).unwrap();
        prop_assert_eq!(round_trip(&table, folder.path()).to_string(), table.to_string());
        prop_assert_eq!(round_trip(&table, folder.path()), table);
    }
}

#[test]
fn a_single_column_keeps_its_missing_cells_in_csv() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::new([("x", vec![Some(1), None, Some(3), None].into())]).unwrap();
    assert_eq!(round_trip(&table, folder.path()), table);
}

#[test]
fn numbers_are_shown_with_four_digits() {
    let values = [0.0, 9.99996, -0.000123456, 0.5, 12.3456, 999.96, 7286.4, 1e7, 1.5e20, 3.2e-9, f64::NAN, f64::NEG_INFINITY];
    let table =
        Table::new([("x", Vec::from(values).into()), ("n", vec![0, 999, -1000, 1_234_567, 1, 1, 1, 1, 1, 1, 1, 1].into())]).unwrap();
    check(
        &table,
        expect![[r#"
                     x          n
                     0          0
                 10.00        999
            -0.0001235     -1,000
                0.5000  1,234,567
                 12.35          1
                 1,000          1
                 7,286          1
            10,000,000          1
              1.500e20          1
              3.200e-9          1
                   NaN          1
                    -∞          1
            12 rows"#]],
    );
}

#[test]
fn html_is_escaped_and_long_tables_are_cut() {
    let table = Table::new([("a<b", vec!["x & y".to_owned(), "long ".repeat(40)].into()), ("n", vec![1.0, 20_000.0].into())]).unwrap();
    let html = table.html();
    for part in ["<th style=\"text-align:left;", "a&lt;b", "x &amp; y", "<td style=\"text-align:right;", ">20,000<", "2 rows"] {
        assert!(html.contains(part), "{part} in {html}");
    }
    assert!(!html.contains(&"long ".repeat(20)));
    let long = Table::new([("n", (0..1000).collect::<Vec<i64>>().into())]).unwrap().to_string();
    assert_eq!(long.lines().count(), 1 + 20 + 1 + 5 + 1);
    assert!(long.ends_with("998\n999\n1,000 rows"), "{long}");
}

#[test]
fn r_squared_is_that_of_the_archived_runs() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/nnmass/archived_runs.json")).unwrap();
    let mut checked = 0;
    for (name, set) in golden["sets"].as_object().unwrap() {
        let rows = Table::from_rows(set["rows"].as_array().unwrap()).unwrap();
        let fits = [("fit_all", rows.clone()), ("fit_depth_ge_16", rows.filter(|row| row.number("depth") >= 16.0).unwrap())];
        for (fit, rows) in fits.iter().filter(|(fit, _)| !set[*fit].is_null()) {
            assert_eq!(rows.len() as u64, set[*fit]["configs"].as_u64().unwrap());
            let ln = |column: &'static str| move |row: &lab::table::Row| row.number(column).ln();
            let rows = rows.with_column("log_nn_mass", ln("nn_mass")).unwrap().with_column("log_params", ln("params")).unwrap();
            for against in ["nn_mass", "params", "log_nn_mass", "log_params"] {
                let (ours, theirs) = (rows.fit(against, "mean").unwrap().r2, set[*fit][format!("r2_{against}")].as_f64().unwrap());
                assert!((ours - theirs).abs() < 1e-12, "{name} {fit} {against}: {ours} and not {theirs}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 40);
}

#[test]
fn a_line_is_found_again() {
    let xs: Vec<f64> = (0..10).map(|x| 1e6 + f64::from(x)).collect();
    let ys: Vec<f64> = xs.iter().map(|x| 3.0 - 0.5 * x).collect();
    let fit = stats::fit(&xs, &ys).unwrap();
    assert!((fit.slope + 0.5).abs() < 1e-12 && (fit.at(1e6) - ys[0]).abs() < 1e-6 && (fit.r2 - 1.0).abs() < 1e-12, "{fit:?}");
    assert!((stats::pearson(&xs, &ys).unwrap() + 1.0).abs() < 1e-12);
    // By hand: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4 have covariance 4.5, and variances 4.5 and 5.
    let spearman = stats::spearman(&[1.0, 5.0, 5.0, 100.0], &[0.1, 0.3, 0.2, 0.4]).unwrap();
    assert!((spearman - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-12, "{spearman}");
    assert_eq!(stats::mean(&[1.0, 2.0, 6.0]), 3.0);
    assert_eq!(stats::std_dev(&[1.0, 2.0, 6.0]), 7.0f64.sqrt());
    assert!(stats::std_dev(&[1.0]).is_nan());
}

#[test]
fn where_no_line_is_defined_there_is_an_error() {
    check_error(stats::fit(&[1.0, 2.0], &[1.0, 2.0]), expect!["fit: wanted at least 3 points, found 2"]);
    check_error(stats::fit(&[1.0, 2.0, 3.0], &[1.0]), expect!["fit: ys: wanted 3 numbers, one for each of xs, found 1"]);
    check_error(stats::fit(&[1.0, 2.0, 3.0], &[5.0; 3]), expect!["fit: ys: wanted numbers that differ, found 3 times 5"]);
    check_error(stats::pearson(&[1.0, f64::NAN, 3.0], &[5.0, 6.0, 7.0]), expect!["fit: xs[1]: wanted a finite number, found NaN"]);
}

#[test]
fn the_interval_depends_on_the_seed_and_holds_the_estimate() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/nnmass/archived_runs.json")).unwrap();
    let rows = Table::from_rows(golden["sets"]["mnist_accuracy"]["rows"].as_array().unwrap()).unwrap();
    let table = rows.correlate("mean", &["nn_mass", "params"], Seed(0)).unwrap();
    check(
        &table,
        expect![[r#"
        x               r2   r2_low  r2_high  spearman   n
        nn_mass     0.7364   0.5385   0.9526    0.8455  11
        ln nn_mass  0.8936   0.8063   0.9653    0.8455  11
        params      0.5113  0.04847   0.8499    0.7364  11
        ln params   0.5227  0.04607   0.8560    0.7364  11
        4 rows"#]],
    );
    assert_eq!(rows.correlate("mean", &["nn_mass", "params"], Seed(0)).unwrap(), table);
    assert_ne!(rows.correlate("mean", &["nn_mass", "params"], Seed(1)).unwrap(), table);
    // Points on a line stay on it, however they are drawn.
    let (xs, ys) = ([1.0, 2.0, 3.0, 5.0], [2.0, 4.0, 6.0, 10.0]);
    let band = stats::fit_band(&xs, &ys, &[4.0], Seed(0)).unwrap();
    assert!((band[0].low - 8.0).abs() < 1e-9 && (band[0].high - 8.0).abs() < 1e-9);
}

#[test]
fn cells_may_be_missing() {
    let table = Table::new([("x", vec![1.0, 2.0].into())]).unwrap();
    let table = table.with_column("y", |row| (row.number("x") > 1.0).then_some("big")).unwrap();
    let table = table.with_column("z", |_| Datum::Missing).unwrap();
    check(
        &table,
        expect![[r#"
            x  y    z
            1  –    –
            2  big  –
            2 rows"#]],
    );
    assert_eq!(table.filter(|row| row.is_missing("y")).unwrap().len(), 1);
}

#[test]
fn columns_become_groups_and_get_other_names() {
    let table = Table::new([("epoch", vec![1i64, 2].into()), ("train", vec![0.5, 0.75].into()), ("test", vec![0.25, 0.5].into())]).unwrap();
    let melted = table.melt(&["epoch"], &["train", "test"]).unwrap();
    assert_eq!(melted.names(), ["epoch", "variable", "value"]);
    assert_eq!(melted.column_text("variable").unwrap(), ["train", "train", "test", "test"]);
    assert_eq!(melted.column_f64("value").unwrap(), [0.5, 0.75, 0.25, 0.5]);
    assert_eq!(melted.column_f64("epoch").unwrap(), [1.0, 2.0, 1.0, 2.0]);
    assert_eq!(table.rename(&[("train", "training"), ("epoch", "pass")]).unwrap().names(), ["pass", "training", "test"]);
    assert!(table.rename(&[("train", "test")]).is_err());
    assert!(table.melt(&["epoch"], &["loss"]).is_err());
}

#[test]
fn lists_become_rows() {
    let rows = [
        r#"{"id":"a","loss":[{"epoch":1,"of":{"train":0.5}},{"epoch":2}]}"#,
        r#"{"id":"b","loss":[]}"#,
        r#"{"id":"c"}"#,
        r#"{"id":"d","loss":[7]}"#,
    ];
    let rows: Vec<serde_json::Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let table = Table::from_rows(&rows).unwrap();
    check(
        &table.unfold("loss").unwrap(),
        expect![[r#"
            id  loss.epoch  loss.of.train  loss
            a            1         0.5000     –
            a            2              –     –
            d            –              –     7
            3 rows"#]],
    );
    check_error(table.unfold("id"), expect!["column `id`, row 0: wanted a list, found a"]);
    check_error(table.unfold("acc"), expect!["column `acc`: wanted one of id, loss, found no such column"]);
}

#[test]
fn tables_are_put_below_one_another() {
    let one = Table::new([("x", vec![1, 2].into()), ("y", vec!["a", "b"].into())]).unwrap();
    let two = Table::new([("z", vec![true].into()), ("x", vec![0.5].into())]).unwrap();
    check(
        &Table::stack("of", &[("one", &one), ("two", &two)]).unwrap(),
        expect![[r#"
            of        x  y  z
            one   1.000  a  –
            one   2.000  b  –
            two  0.5000  –  true
            3 rows"#]],
    );
    assert!(Table::stack("x", &[("one", &one)]).is_err(), "there would be two of that name");
    assert!(Table::stack("of", &[]).unwrap().is_empty());
}

#[test]
fn names_are_short_where_that_is_clear() {
    let cell = || Column::from(vec![1]);
    let table =
        Table::new(["id", "run.seed", "run.recipe.seed", "run.recipe.lr", "depth", "run.depth"].map(|name| (name, cell()))).unwrap();
    assert_eq!(table.short_names().names(), ["id", "run.seed", "run.recipe.seed", "lr", "depth", "run.depth"]);
}

/// Against tables of Student's t.
#[test]
fn a_mean_has_its_interval() {
    for (n, quantile) in [(2, 12.70620), (3, 4.302653), (4, 3.182446), (5, 2.776445), (11, 2.228139), (30, 2.045230), (101, 1.983972)] {
        let values: Vec<f64> = (0..n).map(|at| f64::from(at * at)).collect();
        let interval = lab::stats::mean_interval(&values);
        let half = quantile * lab::stats::std_dev(&values) / f64::from(n).sqrt();
        assert!((interval.high - lab::stats::mean(&values) - half).abs() < 1e-6 * half, "{n}: {interval:?}");
        assert!((lab::stats::mean(&values) - interval.low - half).abs() < 1e-6 * half, "{n}: {interval:?}");
    }
    assert!(lab::stats::mean_interval(&[1.0]).low.is_nan());
}

#[test]
fn groups_have_means_and_intervals() {
    let text = vec!["a", "b", "a", "c", "a"].into_iter().map(str::to_owned).collect::<Vec<String>>();
    let table = Table::new([("x", text.into()), ("y", vec![Some(1.0), Some(3.0), Some(2.0), None, Some(6.0)].into())]).unwrap();
    let summary = table.summary(&["y"], &["x"]).unwrap();
    expect![[r#"
        x  y  y_std   y_low  y_high  n
        a  3  2.646  -3.572   9.572  3
        b  3      –       –       –  1
        c  –      –       –       –  1
        3 rows"#]]
    .assert_eq(&summary.to_string());
}

#[test]
fn a_pivot_puts_one_value_into_a_cell() {
    let table = Table::new([
        ("depth", vec![8, 8, 16, 16].into()),
        ("width", vec![2.0, 4.5, 2.0, 8.0].into()),
        ("accuracy", vec![0.5, 0.6, 0.7, 0.8].into()),
    ])
    .unwrap();
    expect![[r#"
        depth       2     4.5       8
            8  0.5000  0.6000       –
           16  0.7000       –  0.8000
        2 rows"#]]
    .assert_eq(&table.pivot(&["depth"], "width", "accuracy").unwrap().to_string());
    let error = table.select(&["depth", "accuracy"]).unwrap().with_column("all", |_| 1).unwrap();
    let error = error.pivot(&["all"], "depth", "accuracy").unwrap_err();
    assert_eq!(error.to_string(), "pivot: row 1, column `8`: wanted one value, found another; take means first");
}

#[test]
fn a_paper_gets_its_table() {
    let name = vec!["a_b & 50 %".to_owned(), "{x}".to_owned()];
    let table = Table::new([("na_me", name.into()), ("p", vec![Some(1.5e-7), None].into()), ("n", vec![1234, 5].into())]).unwrap();
    expect![[r#"
        \begin{tabular}{lrr}
        \toprule
        na\_me & p & n \\
        \midrule
        a\_b \& 50 \% & $1.500 \times 10^{-7}$ & 1234 \\
        \{x\} & -- & 5 \\
        \bottomrule
        \end{tabular}
    "#]]
    .assert_eq(&table.latex());
}
