//! Checks that no compiler makes: the walls of the design, and what every file promises.
//!
//! Each check reads one file's name and text and returns what is wrong, so that its tests need no files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::markdown;
use crate::workspace::Workspace;

/// Longer files hide a second thing.
const MOST_LINES: usize = 500;

/// Packages, and which of ours they may depend on; `tests` and the notebooks' library may on all.
const PACKAGES: [(&str, &[&str]); 6] = [
    ("datasets", &[]),
    ("pipeline", &["datasets"]),
    ("lab", &["datasets"]),
    ("topolab-cli", &["datasets", "lab", "pipeline"]),
    ("xtask", &[]),
    ("notebook-runner", &[]),
];

/// A word, as code spells it; the places that may use it (path prefixes); and why no other may.
const WORDS: [(&str, &[&str], &str); 5] = [
    ("lmdb", &["pipeline/src/store", "pipeline/src/cli/serve.rs", "tests/"], "only pipeline::store knows LMDB"),
    ("polars", &["lab/src/table", "notebooks/src/lib.rs", "tests/"], "only lab::table knows polars"),
    ("prost", &["lab/src/onnx", "pipeline/src/flight"], "only lab::onnx and pipeline::flight know protocol buffers"),
    (
        "unsafe",
        &[
            "pipeline/src/store",
            "pipeline/src/jpeg/mod.rs",
            "pipeline/src/augment/resample.rs",
            "pipeline/src/collate.rs",
            "pipeline/src/flight/memory.rs",
            "lab/src/kernels",
            "notebooks/runner/src/runtime.rs",
            "tests/it/fitting.rs",
        ],
        "only pipeline::store, jpeg, collate, resampling and flight::memory, lab::kernels, and what loads cells may be unsafe",
    ),
    ("candle", &["datasets/src/hub", "lab/", "notebooks/src/lib.rs", "tests/"], "only lab, and downloads by candle's loaders, know candle"),
];

/// Rooms (path prefixes), words that they may not use, and why: what a room does not know is what it is for.
const ROOMS: [(&str, &[&str], &str); 3] = [
    ("lab/src/graph", &["candle", "Tensor"], "a graph knows no tensor"),
    ("lab/src/models", &["train", "metrics", "exec", "saliency"], "a model file says nothing about training, counting or explaining"),
    ("pipeline/src/order", &["Image", "Picture", "Store"], "order never sees a picture"),
];

/// Runs all checks.
///
/// # Errors
/// When there is something to tidy; each thing is printed with its file and line.
pub(crate) fn tidy(workspace: &Workspace) -> Result<()> {
    let mut problems = packages(&workspace.packages);
    let files = files(&workspace.root)?;
    for name in &files {
        let path = workspace.root.join(name);
        // Pictures and other binary files have nothing to check; deleted ones are listed until the commit.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        problems.extend(places(name, &text));
        if name.ends_with(".rs") {
            problems.extend(walls(name, &text));
            problems.extend(manners(name, &text));
        }
        if name.ends_with(".md") {
            let exists = |target: &str| path.parent().is_some_and(|folder| folder.join(target).exists());
            problems.extend(
                markdown::broken_links(&text, exists).into_iter().map(|(line, target)| format!("{name}:{line}: no such file: {target}")),
            );
        }
    }
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} things to tidy", problems.len());
    }
    println!("{} files are tidy", files.len());
    Ok(())
}

/// The files that are, or would be, committed.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output().context("start git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("a file's name is not UTF-8")?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// Dependencies of our packages on each other.
fn packages(packages: &[Value]) -> Vec<String> {
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut problems = vec![];
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = PACKAGES.iter().find(|(package, _)| *package == name) else { continue };
        let dependencies = package["dependencies"].as_array().into_iter().flatten().filter_map(|dependency| dependency["name"].as_str());
        for dependency in dependencies.filter(|dependency| names.contains(dependency) && !allowed.contains(dependency)) {
            problems.push(format!("{name}/Cargo.toml: {name} may not depend on {dependency}"));
        }
    }
    problems
}

/// Words in rooms where they have no business.
fn walls(name: &str, text: &str) -> Vec<String> {
    let mut problems = vec![];
    for (at, line) in code_lines(text) {
        for word in words(line) {
            let outside = WORDS.iter().filter(|(w, allowed, _)| *w == word && !allowed.iter().any(|prefix| name.starts_with(prefix)));
            problems.extend(outside.map(|(_, _, why)| format!("{name}:{at}: `{word}`: {why}")));
            let inside = ROOMS.iter().filter(|(room, words, _)| name.starts_with(room) && words.contains(&word));
            problems.extend(inside.map(|(_, _, why)| format!("{name}:{at}: `{word}`: {why}")));
        }
    }
    problems
}

/// What every source file owes its reader.
fn manners(name: &str, text: &str) -> Vec<String> {
    let mut problems = vec![];
    if !text.starts_with("//!") {
        problems.push(format!("{name}:1: a module opens with a `//!` that says what it is"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        problems.push(format!("{name}:{lines}: more than {MOST_LINES} lines; which second thing is in here?"));
    }
    for (at, line) in code_lines(text) {
        if line.contains(concat!("todo", "!(")) {
            problems.push(format!("{name}:{at}: unfinished"));
        }
    }
    problems
}

/// Paths that exist on one machine only.
fn places(name: &str, text: &str) -> Vec<String> {
    const ROOTS: [&str; 5] =
        [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/t", "mp/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    // A path begins where no path goes on.
    let begins = |line: &str, at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-)}/$~".contains(c));
    let has = |line: &str| ROOTS.iter().any(|root| line.match_indices(root).any(|(at, _)| begins(line, at)));
    let lines = text.lines().enumerate().filter(|(_, line)| has(line));
    lines.map(|(k, _)| format!("{name}:{}: a path of one machine", k + 1)).collect()
}

/// The lines that are not comments, from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(k, line)| (k + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The identifiers of a line, without what stands in string literals and after `//`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split(" //").next().unwrap_or(line);
    let mut escaped = false;
    let quote = move |c: char| {
        let quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        quote
    };
    let outside = code.split(quote).step_by(2);
    outside.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(problems: Vec<String>, want: &[&str]) {
        assert_eq!(problems, want);
    }

    #[test]
    fn crates_stay_in_their_rooms() {
        check(walls("pipeline/src/store.rs", "use lmdb::Environment;"), &[]);
        check(
            walls("pipeline/src/loader.rs", "use lmdb::Environment;"),
            &["pipeline/src/loader.rs:1: `lmdb`: only pipeline::store knows LMDB"],
        );
        check(walls("lab/src/figure.rs", "\nuse polars::prelude::*;"), &["lab/src/figure.rs:2: `polars`: only lab::table knows polars"]);
        check(walls("lab/src/figure.rs", "// polars would do\nlet s = \"polars\"; // polars"), &[]);
        check(
            walls("lab/src/graph/op.rs", "use candle::Tensor;"),
            &["lab/src/graph/op.rs:1: `candle`: a graph knows no tensor", "lab/src/graph/op.rs:1: `Tensor`: a graph knows no tensor"],
        );
        check(
            walls("lab/src/exec.rs", "unsafe { f() }"),
            &[
                "lab/src/exec.rs:1: `unsafe`: only pipeline::store, jpeg, collate, resampling and flight::memory, lab::kernels, and what loads cells may be unsafe",
            ],
        );
        check(walls("lab/src/kernels/conv.rs", "#[expect(unsafe_code)] unsafe { f() }"), &[]);
    }

    #[test]
    fn packages_depend_one_way() {
        let package =
            |name: &str, dependency: &str| serde_json::json!({"name": name, "dependencies": [{"name": dependency}, {"name": "serde"}]});
        check(
            packages(&[package("lab", "datasets"), package("datasets", "serde"), package("pipeline", "lab")]),
            &["pipeline/Cargo.toml: pipeline may not depend on lab"],
        );
    }

    #[test]
    fn files_have_manners() {
        check(manners("a.rs", "//! What it is.\n"), &[]);
        check(manners("a.rs", "use b;\n"), &["a.rs:1: a module opens with a `//!` that says what it is"]);
        check(manners("a.rs", &format!("//! a\n{}", "\n".repeat(500))), &["a.rs:501: more than 500 lines; which second thing is in here?"]);
        check(manners("a.rs", concat!("//! a\nto", "do!()\n").replace("to", "to").as_str()), &["a.rs:2: unfinished"]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let path = |root: &str| format!("see /{root}/x");
        check(places("a.md", &path("home")), &["a.md:1: a path of one machine"]);
        check(places("a.md", "see ../work/x and notebooks/home/x"), &[]);
    }
}
