//! Notebooks: executed without Jupyter, with parameters; and what all cells share (one copy of candle).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::golden;
use crate::skips::{Lacks, skip};

/// Set by `cargo xtask test`, which builds the runner first.
const RUNNER: &str = "TOPOLAB_NOTEBOOK_RUNNER";

/// A notebook of code cells, the first of them with parameters, in a folder of its own.
struct Case {
    folder: TempDir,
    runner: PathBuf,
}

impl Case {
    /// `None`, and a skip, where there is no runner.
    fn new(cells: &[&str]) -> Option<Self> {
        let Some(runner) = std::env::var_os(RUNNER) else {
            skip(Lacks::Runner, format!("{RUNNER} is not set; `cargo xtask test` sets it"));
            return None;
        };
        let cell = |(k, source): (usize, &&str)| {
            let tags = if k == 0 { json!(["parameters"]) } else { json!([]) };
            json!({"cell_type": "code", "id": format!("c{k}"), "metadata": {"tags": tags}, "execution_count": null, "outputs": [], "source": source})
        };
        let cells: Vec<Value> = cells.iter().enumerate().map(cell).collect();
        let notebook = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "rust"}}, "cells": cells});
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("case.ipynb"), notebook.to_string()).unwrap();
        Some(Self { folder, runner: runner.into() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, settings: &[&str]) -> Output {
        let mut command = Command::new(&self.runner);
        command.arg("run").arg(self.path("case.ipynb")).args(settings.iter().map(|setting| format!("--set={setting}")));
        command.output().unwrap()
    }
}

fn cells(path: &Path) -> Vec<Value> {
    let notebook: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    notebook["cells"].as_array().unwrap().clone()
}

/// The content of all outputs of a cell, streams and results alike.
fn text(cell: &Value) -> String {
    let outputs = cell["outputs"].as_array().unwrap().iter();
    let lines = outputs.flat_map(|output| [&output["text"], &output["data"]["text/plain"], &output["data"]["text/html"]]);
    lines.flat_map(|lines| lines.as_array().into_iter().flatten()).map(|line| line.as_str().unwrap()).collect()
}

/// What `nn_mass.ipynb` shows beside its own runs is what the golden file has of the authors' logs.
#[test]
fn the_archive_is_the_golden_one() {
    let table = lab::Table::read_csv(Path::new(env!("CARGO_MANIFEST_DIR")).join("../notebooks/archive/nn_mass.csv")).unwrap();
    let (mut rows, sets) = (0, &golden::json("nnmass/archived_runs.json")["sets"]);
    for set in ["mnist_accuracy", "mnist_ldi_at_init", "linear_seg20_elu", "linear_seg20_relu", "linear_seg30_relu"] {
        let part = table.filter(|row| row.text("set") == set).unwrap();
        let wanted = lab::Table::from_rows(sets[set]["rows"].as_array().unwrap()).unwrap();
        for (name, golden) in
            [("depth", "depth"), ("max_links", "tc"), ("nn_mass", "nn_mass"), ("params", "params"), ("mean", "mean"), ("n", "runs")]
        {
            let (found, wanted) = (part.column_f64(name).unwrap(), wanted.column_f64(golden).unwrap());
            assert_eq!(found.len(), wanted.len(), "{set}");
            // serde_json may read the last digit differently.
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-14 * b), "{set} {name}: {found:?} for {wanted:?}");
        }
        rows += part.len();
    }
    assert_eq!(table.len(), rows);
}

#[test]
fn two_cells_share_one_candle() {
    let Some(case) = Case::new(&[
        "let slope = 1.0; // of the linear part\nlet name = \"nobody\";",
        "use topolab::*;\nlet x = Var::new(&[3f32, 1., 4.], &Device::Cpu)?;",
        "let y = ((x.as_tensor() * x.as_tensor())? + (x.as_tensor() * slope)?)?.sum_all()?;\nlet grads = y.backward()?;\nprintln!(\"for {name}\");",
        "grads.get(x.as_tensor()).unwrap().to_vec1::<f32>()?",
        "println!(\"EVCXR_BEGIN_CONTENT text/html\\n<b>bold</b>\\nEVCXR_END_CONTENT\");",
        "std::env::current_dir()?.join(\"case.ipynb\").is_file()",
    ]) else {
        return;
    };
    let output = case.run(&["slope=5", "name=\"you\""]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cells = cells(&case.path("case.out.ipynb"));
    assert_eq!(cells[1]["metadata"]["tags"], json!(["injected-parameters"]));
    assert_eq!(text(&json!({"outputs": [{"text": cells[1]["source"]}]})), "// Parameters\nlet slope = 5.0;\nlet name = \"\\\"you\\\"\";\n");
    assert_eq!(text(&cells[3]), "for \"you\"\n");
    assert_eq!(text(&cells[4]), "[11.0, 7.0, 13.0]", "d(x² + 5x)/dx at (3, 1, 4)");
    assert_eq!(text(&cells[5]), "<b>bold</b>");
    assert_eq!(text(&cells[6]), "true", "cells run in the notebook's folder");
    assert_eq!(cells.iter().map(|cell| cell["execution_count"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
}

/// An error message needs no second build of what cells link, and a future of ours finds the runtime that it was made for.
#[test]
fn a_cell_that_awaits_runs_on_the_librarys_tokio() {
    let Some(case) = Case::new(&[
        "let seconds = 0;",
        "use topolab::*;\nlet waited = tokio::task::spawn(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await; 3 }).await?;",
        "topolab::tokio::runtime::Handle::try_current().is_ok() && waited == 3",
        "let wrong: i32 = \"text\";",
    ]) else {
        return;
    };
    let output = case.run(&[]);
    let cells = cells(&case.path("case.out.ipynb"));
    assert_eq!(text(&cells[2]), "true", "{}", String::from_utf8_lossy(&output.stderr));
    let error = &cells[3]["outputs"][0];
    assert_eq!((&error["ename"], &error["evalue"]), (&json!("compile"), &json!("mismatched types")));
}

#[test]
fn a_second_candle_is_refused() {
    let Some(case) = Case::new(&["let a = 1;", ":dep candle-core = \"0.11\""]) else { return };
    assert_eq!(case.run(&[]).status.code(), Some(1));
    let error = cells(&case.path("case.out.ipynb"))[1]["outputs"][0]["evalue"].clone();
    assert_eq!(
        error,
        "`:dep candle-core`: cells have it already, as `topolab::candle`; a second copy would not know the values of the first"
    );
}

#[test]
fn a_failing_cell_stops_the_run_and_is_reported() {
    let Some(case) = Case::new(&["let a = 1;", "let b = topolab::Table::read_csv(\"nowhere.csv\")?;", "println!(\"never\");"]) else {
        return;
    };
    let output = case.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let error = "nowhere.csv: cannot read the table\n  caused by: No such file or directory (os error 2)";
    assert!(told.contains(error) && told.ends_with("a cell failed\n"), "{told}");
    let cells = cells(&case.path("case.out.ipynb"));
    let last = cells[1]["outputs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["output_type"], &last["evalue"]), (&json!("error"), &json!(error)));
    assert_eq!(cells[2]["execution_count"], Value::Null);
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let Some(case) = Case::new(&["let epochs: usize = 3;\nlet name = \"mnist\";"]) else { return };
    let check = |setting: &str, want: &str| {
        let output = case.run(&[setting]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stderr).unwrap().replace(&*case.folder.path().to_string_lossy(), "DIR");
        assert_eq!(
            told,
            format!("error: DIR/case.ipynb: {want}; the notebook has:\n  epochs = 3 (integer)\n  name = \"mnist\" (string)\n")
        );
        assert!(!case.path("case.out.ipynb").exists(), "nothing was run");
    };
    check("epoch=3", "unknown parameter `epoch`");
    check("epochs=many", "parameter `epochs`: wanted an integer like `3`, found `many`");
    check("epochs=-1", "parameter `epochs`: wanted a usize, found `-1`");
}
