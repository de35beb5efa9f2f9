//! Executed copies of the notebooks in `notebooks/gallery`, so that a code host and the site show their figures.
//!
//! A copy holds the source of every cell beside its outputs, and the settings of its run. So whether a copy is current is a comparison of two
//! files, which runs no notebook.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::workspace::{Workspace, call};

/// Notebooks that have a copy, and the parameters with which they are executed, so that each takes a few minutes.
const SHOWN: [(&str, &[&str]); 3] =
    [("quickstart", &[]), ("nn_mass", &["epochs=10", "seeds=1"]), ("nn_mass_cnn", &["per_class=60", "epochs=2", "seeds=1"])];

/// The most bytes of one copy. A code host renders no longer notebooks well, and git keeps every version.
const MOST_BYTES: usize = 1_500_000;

/// The tag of the cell that the runner adds for parameters.
const INJECTED: &str = "injected-parameters";

/// The folder of the copies.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("notebooks/gallery")
}

/// Executes the notebooks whose name contains `filter`, or all, and writes their copies.
///
/// Each runs in a new folder below the target folder, so that no result of an earlier run is in its outputs.
///
/// # Errors
/// When a notebook fails, or its copy is too long.
pub(crate) fn write(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let runner = workspace.notebooks(&[])?;
    let work = workspace.target.join("gallery");
    for (name, settings) in SHOWN.into_iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        let here = work.join(name);
        if here.exists() {
            fs::remove_dir_all(&here).with_context(|| format!("remove {}", here.display()))?;
        }
        copy_folder(&workspace.root.join("notebooks/archive"), &here.join("archive"))?;
        let notebook = here.join(format!("{name}.ipynb"));
        fs::copy(source(workspace, name), &notebook).with_context(|| format!("write {}", notebook.display()))?;
        let out = here.join(format!("{name}.out.ipynb"));
        let set = settings.iter().map(|setting| format!("--set={setting}"));
        call(Command::new(&runner).current_dir(&workspace.root).arg("run").arg(&notebook).args(set).arg("--output").arg(&out))?;

        let text = finish(read(&out)?, settings)?;
        let copy = folder(workspace).join(format!("{name}.ipynb"));
        ensure!(text.len() <= MOST_BYTES, "{name}.ipynb: wanted a copy of at most {MOST_BYTES} bytes, found {}", text.len());
        fs::create_dir_all(folder(workspace)).with_context(|| format!("create {}", folder(workspace).display()))?;
        fs::write(&copy, text).with_context(|| format!("write {}", copy.display()))?;
        println!("wrote {}", copy.display());
    }
    Ok(())
}

/// Checks that every copy is there, short enough, and made from the notebook and the parameters of today.
///
/// # Errors
/// When one is not; all problems are in the message.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut problems = vec![];
    for (name, settings) in SHOWN {
        let copy = folder(workspace).join(format!("{name}.ipynb"));
        let length = fs::metadata(&copy).map_or(0, |file| usize::try_from(file.len()).unwrap_or(usize::MAX));
        if length == 0 {
            problems.push(format!("{name}.ipynb: no executed copy"));
            continue;
        }
        if length > MOST_BYTES {
            problems.push(format!("{name}.ipynb: wanted a copy of at most {MOST_BYTES} bytes, found {length}"));
        }
        problems.extend(stale(&read(&source(workspace, name))?, &read(&copy)?, settings).map(|why| format!("{name}.ipynb: {why}")));
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("notebooks/gallery: {}\n`cargo xtask notebook gallery` writes it anew", problems.join("; "))
}

/// Why `copy` is not an execution of `notebook` with these settings, if it is not.
fn stale(notebook: &Value, copy: &Value, settings: &[&str]) -> Option<String> {
    let recorded = &copy["metadata"]["topolab"]["set"];
    if *recorded != json!(settings) {
        return Some(format!("parameters: wanted {}, found {recorded}", json!(settings)));
    }
    let (wanted, found) = (sources(notebook), sources(copy));
    if wanted.len() != found.len() {
        return Some(format!("wanted {} cells, found {}", wanted.len(), found.len()));
    }
    let differs = wanted.iter().zip(&found).position(|(wanted, found)| wanted != found);
    if let Some(cell) = differs {
        return Some(format!("cell {} is not that of the notebook", cell + 1));
    }
    let cells = copy["cells"].as_array().into_iter().flatten();
    let mut skipped = cells.filter(|cell| cell["cell_type"] == "code" && !cell["execution_count"].is_number());
    skipped.next().map(|_| "a cell was not executed".to_owned())
}

/// Type and text of every cell that the author wrote.
fn sources(notebook: &Value) -> Vec<(String, String)> {
    let cells = notebook["cells"].as_array().into_iter().flatten();
    let own = cells.filter(|cell| !cell["metadata"]["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == INJECTED)));
    own.map(|cell| (cell["cell_type"].as_str().unwrap_or_default().to_owned(), text(&cell["source"]))).collect()
}

/// The copy as it is committed: with the settings in its metadata, and without what changes from run to run and shows nothing.
fn finish(mut notebook: Value, settings: &[&str]) -> Result<String> {
    notebook["metadata"]["topolab"] = json!({ "set": settings });
    let cells = notebook["cells"].as_array_mut().context("the executed notebook has no cells")?;
    for (at, cell) in cells.iter_mut().enumerate() {
        if let Some(metadata) = cell["metadata"].as_object_mut() {
            metadata.remove("seconds");
        }
        let Some(outputs) = cell["outputs"].as_array_mut() else { continue };
        ensure!(outputs.iter().all(|output| output["output_type"] != "error"), "cell {}: ended with an error", at + 1);
        // What went to stderr are progress bars, with times.
        outputs.retain(|output| output["name"] != "stderr");
    }
    Ok(format!("{notebook:#}\n"))
}

/// A field of a notebook that is a text or a list of lines.
pub(crate) fn text(field: &Value) -> String {
    match field {
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// A notebook as JSON.
///
/// # Errors
/// When the file cannot be read, or is not JSON.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a notebook", path.display()))
}

/// Copies all files of a folder, and of those in it.
///
/// # Errors
/// When one cannot be read or written.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).with_context(|| format!("write {}", target.display()))?;
        }
    }
    Ok(())
}

fn source(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.root.join(format!("notebooks/{name}.ipynb"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{finish, stale};

    fn notebook(code: &str) -> Value {
        json!({"cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# A\n", "b"]},
            {"cell_type": "code", "metadata": {}, "source": code, "outputs": [], "execution_count": null},
        ], "metadata": {}})
    }

    /// As the runner leaves it: a cell of parameters, counts, seconds, a progress bar.
    fn executed(code: &str, settings: &[&str]) -> Value {
        let mut copy = notebook(code);
        let cells = copy["cells"].as_array_mut().unwrap();
        cells[1]["execution_count"] = json!(2);
        cells[1]["metadata"]["seconds"] = json!(1.5);
        cells[1]["outputs"] = json!([{"output_type": "stream", "name": "stderr", "text": ["0:12"]}, {"output_type": "stream", "name": "stdout", "text": ["2"]}]);
        let injected = json!({"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "let a = 1;", "outputs": [], "execution_count": 1});
        cells.insert(1, injected);
        serde_json::from_str(&finish(copy, settings).unwrap()).unwrap()
    }

    #[test]
    fn a_copy_is_current_until_a_cell_or_a_parameter_changes() {
        let copy = executed("1 + 1", &["a=1"]);
        assert_eq!(stale(&notebook("1 + 1"), &copy, &["a=1"]), None);
        assert_eq!(stale(&notebook("1 + 2"), &copy, &["a=1"]).unwrap(), "cell 2 is not that of the notebook");
        assert_eq!(stale(&notebook("1 + 1"), &copy, &[]).unwrap(), r#"parameters: wanted [], found ["a=1"]"#);
        let mut longer = notebook("1 + 1");
        longer["cells"].as_array_mut().unwrap().push(json!({"cell_type": "markdown", "metadata": {}, "source": ""}));
        assert_eq!(stale(&longer, &copy, &["a=1"]).unwrap(), "wanted 3 cells, found 2");
    }

    #[test]
    fn what_was_not_executed_is_no_copy() {
        let copy: Value = serde_json::from_str(&finish(notebook("1"), &[]).unwrap()).unwrap();
        assert_eq!(stale(&notebook("1"), &copy, &[]).unwrap(), "a cell was not executed");
        let mut failed = notebook("1");
        failed["cells"][1]["outputs"] = json!([{"output_type": "error", "ename": "E", "evalue": "x", "traceback": []}]);
        assert_eq!(finish(failed, &[]).unwrap_err().to_string(), "cell 2: ended with an error");
    }

    #[test]
    fn a_copy_has_no_times() {
        let copy = executed("1 + 1", &[]);
        assert_eq!(copy["cells"][2]["metadata"], json!({}));
        assert_eq!(copy["cells"][2]["outputs"], json!([{"output_type": "stream", "name": "stdout", "text": ["2"]}]));
    }
}
