//! A notebook file (nbformat 4): its code cells are read and its outputs written; all else is kept as it is.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

/// The tag of the cell that holds the defaults.
const PARAMETERS: &str = "parameters";
/// The tag of the cell that we put behind it.
const INJECTED: &str = "injected-parameters";

/// A notebook.
pub(crate) struct Notebook {
    json: Value,
}

impl Notebook {
    /// Reads a notebook of nbformat 4.
    ///
    /// # Errors
    /// When the file cannot be read or is no such notebook.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{}: not a notebook", path.display()))?;
        let format = &json["nbformat"];
        ensure!(*format == 4, "{}: nbformat: wanted 4, found {format}", path.display());
        let Some(cells) = json["cells"].as_array() else { bail!("{}: no list of cells", path.display()) };
        for (k, cell) in cells.iter().enumerate() {
            ensure!(cell["cell_type"].is_string() && cell.is_object(), "{}: cell {}: no cell_type", path.display(), k + 1);
        }
        Ok(Self { json })
    }

    /// Writes it beside `path` and renames, so that a reader sees the old file or the new one, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let name = path.file_name().with_context(|| format!("{}: not a file name", path.display()))?.to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.{}", std::process::id()));
        self.write_to(&aside).and_then(|()| Ok(fs::rename(&aside, path)?)).with_context(|| format!("write {}", path.display())).inspect_err(
            |_| {
                let _ = fs::remove_file(&aside);
            },
        )
    }

    fn write_to(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        // As Jupyter writes it: sorted keys, one blank a level.
        let style = serde_json::ser::PrettyFormatter::with_indent(b" ");
        self.json.serialize(&mut serde_json::Serializer::with_formatter(&mut file, style))?;
        file.write_all(b"\n")?;
        Ok(file.flush()?)
    }

    /// The positions of the code cells.
    pub(crate) fn code_cells(&self) -> Vec<usize> {
        let is_code = |(_, cell): &(usize, &Value)| cell["cell_type"] == "code";
        self.cells().iter().enumerate().filter(is_code).map(|(k, _)| k).collect()
    }

    /// The text of cell `k`.
    pub(crate) fn source(&self, k: usize) -> String {
        match &self.cells()[k]["source"] {
            Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The position of the first code cell tagged `parameters`.
    pub(crate) fn parameters_cell(&self) -> Option<usize> {
        self.code_cells().into_iter().find(|&k| self.has_tag(k, PARAMETERS))
    }

    /// Puts a cell behind cell `defaults`; one that an earlier run put anywhere is taken out.
    pub(crate) fn inject(&mut self, defaults: usize, source: &str) {
        let mut cell = json!({
            "cell_type": "code", "execution_count": null, "id": INJECTED,
            "metadata": {"tags": [INJECTED]}, "outputs": [], "source": lines(source),
        });
        let ids = self.json["nbformat_minor"].as_u64().is_some_and(|minor| minor >= 5);
        if !ids {
            cell.as_object_mut().expect("made above").remove("id");
        }
        self.cells_mut().insert(defaults + 1, cell);
    }

    /// Takes out what [`Notebook::inject`] put in, and all outputs.
    pub(crate) fn clear(&mut self) {
        for k in (0..self.cells().len()).rev() {
            if self.has_tag(k, INJECTED) {
                self.cells_mut().remove(k);
            }
        }
        for k in self.code_cells() {
            let cell = &mut self.cells_mut()[k];
            cell["outputs"] = json!([]);
            cell["execution_count"] = Value::Null;
        }
    }

    /// Records that cell `k` was the `count`-th to run.
    pub(crate) fn start(&mut self, k: usize, count: usize) {
        self.cells_mut()[k]["execution_count"] = count.into();
    }

    /// Adds text that cell `k` printed on `stdout` or `stderr`.
    ///
    /// A line that begins with a carriage return takes the place of the line before it, as in a terminal: a progress bar
    /// leaves its last state.
    pub(crate) fn add_stream(&mut self, k: usize, name: &str, text: &str) {
        let outputs = self.outputs(k);
        let again = outputs.last().is_some_and(|last| last["output_type"] == "stream" && last["name"] == name);
        if !again {
            outputs.push(json!({"output_type": "stream", "name": name, "text": []}));
        }
        let text_lines = outputs.last_mut().and_then(|last| last["text"].as_array_mut()).expect("a stream holds lines");
        for line in text.split_inclusive('\n') {
            let replaces = line.starts_with('\r');
            if replaces {
                text_lines.pop();
            }
            text_lines.push(line.trim_start_matches('\r').into());
        }
    }

    /// Adds what cell `k` ended with: content by MIME type.
    pub(crate) fn add_result(&mut self, k: usize, data: &Value) {
        let text = |content: &Value| Value::from(lines(content.as_str().unwrap_or_default()));
        let data: Value = data.as_object().into_iter().flatten().map(|(mime, content)| (mime.clone(), text(content))).collect();
        let count = self.cells()[k]["execution_count"].clone();
        self.outputs(k).push(json!({"output_type": "execute_result", "execution_count": count, "data": data, "metadata": {}}));
    }

    /// Adds the error that ended cell `k`.
    pub(crate) fn add_error(&mut self, k: usize, name: &str, message: &str, traceback: &Value) {
        self.outputs(k).push(json!({"output_type": "error", "ename": name, "evalue": message, "traceback": traceback}));
    }

    /// Records how long cell `k` took.
    pub(crate) fn set_seconds(&mut self, k: usize, seconds: f64) {
        let cell = &mut self.cells_mut()[k];
        cell["metadata"]["seconds"] = ((seconds * 1000.0).round() / 1000.0).into();
    }

    fn outputs(&mut self, k: usize) -> &mut Vec<Value> {
        self.cells_mut()[k]["outputs"].as_array_mut().expect("cleared before the run")
    }

    fn has_tag(&self, k: usize, tag: &str) -> bool {
        self.cells()[k]["metadata"]["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == tag))
    }

    fn cells(&self) -> &[Value] {
        self.json["cells"].as_array().expect("checked when read")
    }

    fn cells_mut(&mut self) -> &mut Vec<Value> {
        self.json["cells"].as_array_mut().expect("checked when read")
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}
