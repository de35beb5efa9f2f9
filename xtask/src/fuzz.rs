//! `cargo xtask fuzz`: bytes that may be anyone's against the readers of `tests/fuzz`, by libFuzzer on a stable compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Workspace, call};

/// What libFuzzer wants of the compiler, as `cargo fuzz --sanitizer none` asks for it.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// Targets that run at once.
const AT_ONCE: usize = 2;

/// Builds all targets and runs those whose name contains `filter`, each for so many seconds; 0 builds them only.
///
/// Seeds are read where they are; what is found beside them stays in the target folder, so that the next run begins there. Bytes that a reader
/// does not survive are written to `tests/fuzz/artifacts`.
///
/// # Errors
/// When a target does not compile, or a reader does not survive.
pub(crate) fn fuzz(workspace: &Workspace, filter: Option<&str>, seconds: u64) -> Result<()> {
    let package = workspace.root.join("tests/fuzz");
    // Versions that are tested are those that are shipped.
    fs::copy(workspace.root.join("Cargo.lock"), package.join("Cargo.lock")).context("copy Cargo.lock to tests/fuzz")?;
    let target = workspace.target.join("fuzz");
    // A target is named, so that flags are not for build scripts and derive macros.
    let mut cargo = workspace.cargo(&["build", "--release", "--bins", "--target=host-tuple", "--manifest-path"]);
    cargo.arg(package.join("Cargo.toml")).env("CARGO_TARGET_DIR", &target).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    call(&mut cargo)?;
    let names = names(&package.join("src"))?;
    let chosen: Vec<&String> = names.iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect();
    ensure!(!chosen.is_empty(), "no fuzz target is called so; there are {}", names.join(", "));
    let mut failed = vec![];
    for together in chosen.chunks(AT_ONCE).filter(|_| seconds > 0) {
        let runs = together.iter().map(|name| Run::start(workspace, &target, name, seconds)).collect::<Result<Vec<Run>>>()?;
        for run in runs {
            failed.extend(run.end()?);
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!("readers that did not survive: {}; the bytes are in tests/fuzz/artifacts", failed.join(", ")),
    }
}

/// The targets, a file each.
fn names(sources: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(sources).with_context(|| format!("read {}", sources.display()))?;
    let files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let mut names: Vec<String> = files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// One target that runs.
struct Run {
    name: String,
    log: PathBuf,
    process: Child,
}

impl Run {
    fn start(workspace: &Workspace, target: &Path, name: &str, seconds: u64) -> Result<Self> {
        let corpus = target.join("corpus").join(name);
        let artifacts = workspace.root.join("tests/fuzz/artifacts").join(name);
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let program =
            fs::read_dir(target).context("read the target folder")?.flatten().map(|entry| entry.path().join("release").join(name));
        let program = program.filter(|path| path.is_file()).max().with_context(|| format!("{name}: not there after it was built"))?;
        let log = target.join(format!("{name}.log"));
        let mut command = Command::new(program);
        command.arg(corpus).args(Some(workspace.root.join("tests/fuzz/seeds").join(name)).filter(|seeds| seeds.is_dir()));
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.args(["-print_final_stats=1", "-rss_limit_mb=4096"]).stdin(Stdio::null());
        let file = fs::File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let process = command.stdout(Stdio::null()).stderr(file).spawn().with_context(|| format!("start the fuzz target {name}"))?;
        println!("{name}: {seconds} s");
        Ok(Self { name: name.to_owned(), log, process })
    }

    /// Its name, if its reader did not survive.
    fn end(mut self) -> Result<Option<String>> {
        let status = self.process.wait().context("wait for a fuzz target")?;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let said = |name: &str| log.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim().to_owned();
        println!("{}: {} inputs, {}", self.name, said("stat::number_of_executed_units:"), status);
        if status.success() {
            return Ok(None);
        }
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        println!("{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        Ok(Some(self.name))
    }
}
