//! Compiles the cells of notebooks without running them: no evcxr, seconds instead of minutes.
//!
//! Each notebook becomes one function, each cell a block inside the block of the cell before it, so that a later cell may
//! define a name again, as it may in evcxr. What is not seen here: values whose types evcxr cannot keep between cells.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use ra_ap_syntax::ast::{self, AstNode, HasModuleItem};
use ra_ap_syntax::{Edition, SourceFile};
use serde_json::Value;

use crate::library::Library;
use crate::notebook::Notebook;
use crate::places::{Places, write};
use crate::{parameters, say};

/// Where a line of the generated crate comes from.
struct Origin {
    notebook: usize,
    /// Counted from 1 over the code cells.
    cell: usize,
    /// Counted from 1.
    line: usize,
}

/// Compiles; exit code 1 when there are errors, each told with its notebook, cell and line.
///
/// # Errors
/// When a notebook cannot be read, or its parameters are none.
pub(crate) fn check(paths: &[PathBuf]) -> Result<ExitCode> {
    let mut source = Source::default();
    source.generated(HEAD);
    for (n, path) in paths.iter().enumerate() {
        let notebook = Notebook::read(path)?;
        if let Some(k) = notebook.parameters_cell() {
            parameters::parse(&notebook.source(k)).with_context(|| path.display().to_string())?;
        }
        let cells: Vec<String> = notebook.code_cells().into_iter().map(|k| notebook.source(k)).collect();
        source.notebook(n, &cells);
    }
    let places = Places::find()?;
    let library = Library::make(&places)?;
    let folder = places.sessions().join("check");
    write(&folder.join("src/lib.rs"), &source.text)?;
    let mut rustc = places.rustc();
    rustc.current_dir(&folder).args([
        "--edition=2024",
        "--crate-type=lib",
        "--emit=metadata",
        "--error-format=json",
        "--json=diagnostic-rendered-ansi",
    ]);
    let output = rustc.args(library.flags()).args(["--out-dir", ".", "src/lib.rs"]).output().context("start rustc")?;
    let mut errors = 0;
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        if message["level"] == "error" && message["spans"].as_array().is_some_and(|spans| !spans.is_empty()) {
            errors += 1;
            say!("{}{}", source.place(paths, &message), message["rendered"].as_str().unwrap_or_default());
        }
    }
    if errors == 0 && output.status.success() {
        say!("the cells of all notebooks compile ({})", paths.len());
        return Ok(ExitCode::SUCCESS);
    }
    say!("error: {errors} errors in notebooks");
    Ok(ExitCode::from(1))
}

/// What evcxr puts around cells, as far as the compiler sees it: `?` on every error that can be printed, and a display of
/// the last expression, by its own method or as `Debug`.
const HEAD: &str = "#![allow(unused, dropping_copy_types, dropping_references, path_statements)]
struct Failure;
impl<T: std::fmt::Debug> From<T> for Failure { fn from(_: T) -> Self { Failure } }
fn show<T: ?Sized>(_: &T) {}
";

#[derive(Default)]
struct Source {
    text: String,
    origins: Vec<Option<Origin>>,
}

impl Source {
    fn generated(&mut self, text: &str) {
        for line in text.lines() {
            let _ = writeln!(self.text, "{line}");
            self.origins.push(None);
        }
    }

    fn notebook(&mut self, notebook: usize, cells: &[String]) {
        self.generated(&format!("fn notebook_{notebook}() -> Result<(), Failure> {{"));
        for (k, cell) in cells.iter().enumerate() {
            self.generated("{");
            for (line, text) in shown(cell).lines().enumerate() {
                let _ = writeln!(self.text, "{text}");
                self.origins.push(Some(Origin { notebook, cell: k + 1, line: line + 1 }));
            }
        }
        self.generated(&"}".repeat(cells.len()));
        self.generated("Ok(()) }");
    }

    fn place(&self, paths: &[PathBuf], message: &Value) -> String {
        let spans = message["spans"].as_array().into_iter().flatten();
        let primary = spans.filter(|span| span["is_primary"] == true && span["file_name"] == "src/lib.rs");
        let lines = primary.filter_map(|span| span["line_start"].as_u64()).filter_map(|line| usize::try_from(line).ok());
        let mut origins = lines.filter_map(|line| self.origins.get(line - 1)?.as_ref());
        match origins.next() {
            Some(at) => format!("{}, code cell {}, line {}: ", paths[at.notebook].display(), at.cell, at.line),
            None => String::new(),
        }
    }
}

/// The cell with its last expression displayed, and its commands (`:dep`, `:opt`) and shell lines taken out.
fn shown(cell: &str) -> String {
    let is_command = |line: &str| line.starts_with([':', '!']);
    let cell: String = cell.lines().map(|line| if is_command(line) { "\n".to_owned() } else { format!("{line}\n") }).collect();
    let head = "fn f() {";
    let file = SourceFile::parse(&format!("{head}{cell}\n}}"), Edition::Edition2024).tree();
    let body = file.items().find_map(|item| match item {
        ast::Item::Fn(function) => function.body(),
        _ => None,
    });
    match body.and_then(|body| body.stmt_list()?.tail_expr()) {
        Some(last) => {
            let range = last.syntax().text_range();
            let (start, end) = (usize::from(range.start()) - head.len(), usize::from(range.end()) - head.len());
            format!("{}show(&({}));{}", &cell[..start], &cell[start..end], &cell[end..])
        }
        None => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn only_the_last_expression_is_shown() {
        assert_eq!(shown("let a = 1;\na + 1"), "let a = 1;\nshow(&(a + 1));\n");
        assert_eq!(shown("let a = 1;"), "let a = 1;\n");
        assert_eq!(shown(":dep x\nf(2)?"), "\nshow(&(f(2)?));\n");
        assert_eq!(shown("for x in 0..3 { f(x); }\nstruct A;"), "for x in 0..3 { f(x); }\nstruct A;\n");
    }
}
