//! The dynamic library that cells link: our crates, candle and polars, once.
//!
//! evcxr compiles a notebook's cells as a crate of their own. If that crate depended on ours by its manifest, cargo would look at
//! hundreds of packages for every cell, compile candle and polars again for `cargo check` and for each `:dep`, and link a second copy
//! of them (see the trap in ARCHITECTURE, "Notebooks and statics"). So cargo compiles our crates here, as for the tests and
//! nothing twice; this file links them into one dynamic library with one call of rustc; and cells find it by the flags in
//! [`Library::flags`]. cargo cannot link it, since it takes a flag (`prefer-dynamic`) for all packages or for none.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::places::{Places, write};
use crate::view;

/// The package that re-exports everything a cell may use, and the library that cells link.
const NAME: &str = "topolab";

/// Features of [`NAME`] to build with, such as `cuda`, separated by commas.
const FEATURES: &str = "TOPOLAB_FEATURES";

/// The program that runs cells, which links the same standard library as they do; compiled with the library.
const RUNTIME: &str = include_str!("runtime.rs");
const CELLS: &str = include_str!("cells.rs");

/// A linked library. Its folder stays as long as a process holds this.
pub(crate) struct Library {
    /// Holds the library, what it was linked from, [`Library::runtime`] and [`Library::view`].
    folder: PathBuf,
    /// Where cargo leaves the crates that the library was linked from; rustc reads what their types are.
    dependencies: PathBuf,
    in_use: File,
}

impl Library {
    /// The library, compiled and linked where that is needed.
    ///
    /// # Errors
    /// When the crates do not compile or link.
    pub(crate) fn make(places: &Places) -> Result<Self> {
        let _lock = places.lock()?;
        let built = Built::by_cargo(places)?;
        let folder = places.sessions().join(built.name()?);
        if !folder.is_dir() {
            // Beside its place, since the library says by a relative path where the standard library is.
            let part = places.sessions().join("part");
            if part.exists() {
                fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
            }
            link(places, &built, &part)?;
            fs::rename(&part, &folder).with_context(|| format!("rename to {}", folder.display()))?;
        }
        let lock = folder.join("lock");
        let in_use = File::create(&lock).and_then(|file| file.lock_shared().map(|()| file));
        let in_use = in_use.with_context(|| format!("lock {}", lock.display()))?;
        sweep(&places.sessions());
        let dependencies = built.rlib.parent().expect("a file is in a folder").to_owned();
        Ok(Self { folder, dependencies, in_use })
    }

    /// The program that runs cells.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.folder.join(RUNNER)
    }

    /// What rust-analyzer is told of our packages, as `cargo metadata` would tell it.
    pub(crate) fn view(&self) -> PathBuf {
        self.folder.join(VIEW)
    }

    /// Flags by which rustc finds the library.
    pub(crate) fn flags(&self) -> Vec<String> {
        // A path of its own, since rustc's `-Crpath` gives one relative to where it writes, and evcxr moves what it wrote.
        let mut flags = vec!["-Cprefer-dynamic".to_owned(), format!("-Clink-arg=-Wl,-rpath,{}", self.folder.display())];
        for folder in [&self.folder, &self.dependencies] {
            flags.extend(["-L".to_owned(), format!("dependency={}", folder.display())]);
        }
        flags.extend(["--extern".to_owned(), format!("{NAME}={}", file(&self.folder).display())]);
        flags
    }

    /// Lets the program that this process becomes hold the library, too.
    ///
    /// # Errors
    /// When the descriptor cannot be told so.
    pub(crate) fn keep_over_exec(&self) -> Result<()> {
        rustix::io::fcntl_setfd(&self.in_use, rustix::io::FdFlags::empty()).context("keep the library over exec")
    }
}

/// The name of the program that runs cells.
const RUNNER: &str = "cells";
/// The name of the file that says what rust-analyzer is told.
const VIEW: &str = "view.json";

fn file(folder: &Path) -> PathBuf {
    folder.join(format!("{}{NAME}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

/// Makes all that belongs to a library, in a folder.
fn link(places: &Places, built: &Built, folder: &Path) -> Result<()> {
    // Of an interrupted compiler nothing stays that looks whole: the folder gets its name at the end.
    write(&folder.join(VIEW), &view::of(places)?.to_string())?;
    // cargo writes our own crates again under the same names when a source changes. Sessions that run keep these.
    for rlib in &built.local {
        let copy = folder.join(rlib.file_name().expect("a file has a name"));
        fs::hard_link(rlib, &copy).or_else(|_| fs::copy(rlib, &copy).map(drop)).with_context(|| format!("keep {}", rlib.display()))?;
    }
    let sources = folder.join("src");
    write(&sources.join("cells.rs"), CELLS)?;
    write(&sources.join("runtime.rs"), RUNTIME)?;
    write(&sources.join("library.rs"), "//! All crates that cells may use.\npub use inner::*;\n")?;
    let rustc = |name: &str, kind: &str, source: &str, to: PathBuf| {
        let mut rustc = places.rustc();
        rustc.args(["--edition=2024", "-Cprefer-dynamic", "-Crpath", "--crate-name", name, "--crate-type", kind, "-o"]);
        rustc.arg(to).arg(sources.join(source));
        rustc
    };
    run(rustc("cells", "bin", "runtime.rs", folder.join(RUNNER)).arg("-Copt-level=1"))?;
    let mut library = rustc(NAME, "dylib", "library.rs", file(folder));
    library.arg("-Cmetadata=cells").args(built.native.iter().map(|path| format!("-L{path}")));
    library.args(["-L", &format!("dependency={}", built.rlib.parent().expect("a file is in a folder").display())]);
    run(library.args(["--extern", &format!("inner={}", built.rlib.display())]))
}

/// Runs rustc, which is silent unless it fails.
fn run(rustc: &mut Command) -> Result<()> {
    let done = rustc.output().context("start rustc")?;
    ensure!(done.status.success(), "the library that cells use did not link:\n{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// What cargo has built.
struct Built {
    /// The crate that re-exports everything.
    rlib: PathBuf,
    /// This, and all others of the workspace.
    local: BTreeSet<PathBuf>,
    /// Where libraries lie that are no crates, as rustc's `-L` wants it.
    native: BTreeSet<String>,
}

impl Built {
    /// Of the library: by when our last crate was written, which is whenever one below it is, and this program, which links it.
    fn name(&self) -> Result<String> {
        let time = |path: &Path| -> Result<u128> {
            let time = fs::metadata(path).and_then(|metadata| metadata.modified()).with_context(|| format!("find {}", path.display()))?;
            Ok(time.duration_since(UNIX_EPOCH).with_context(|| format!("{}: its time", path.display()))?.as_nanos())
        };
        let program = std::env::current_exe().context("find this program's own path")?;
        Ok(format!("library-{:x}-{:x}", time(&self.rlib)?, time(&program)?))
    }

    fn by_cargo(places: &Places) -> Result<Self> {
        let mut command = places.cargo();
        // All libraries of the workspace, so that the packages below have the features that tests give them.
        command.args(["build", "--lib", "--message-format=json-render-diagnostics"]);
        for feature in
            std::env::var_os(FEATURES).unwrap_or_default().to_string_lossy().split([',', ' ']).filter(|feature| !feature.is_empty())
        {
            command.arg(format!("--features={NAME}/{feature}"));
        }
        let output = command.stderr(Stdio::inherit()).output().context("start cargo")?;
        ensure!(output.status.success(), "the crates that notebooks use did not compile");
        let (mut rlib, mut local, mut native) = (None, BTreeSet::new(), BTreeSet::new());
        let text = String::from_utf8_lossy(&output.stdout);
        for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            native.extend(strings(&message["linked_paths"]).map(str::to_owned));
            let is_local = message["package_id"].as_str().is_some_and(|id| id.starts_with("path+"));
            if !is_local || message["reason"] != "compiler-artifact" {
                continue;
            }
            // Named are `<target>/debug/libNAME.rlib`, without a hash, and `deps/libNAME-HASH.rmeta`, whose rlib lies beside it.
            let Some(path) = strings(&message["filenames"]).find(|name| name.ends_with(".rmeta")) else { continue };
            let path = Path::new(path).with_extension("rlib");
            if message["target"]["name"] == NAME {
                rlib = Some(path.clone());
            }
            local.insert(path);
        }
        let Some(rlib) = rlib else { bail!("cargo built the package {NAME}, and does not say where") };
        Ok(Self { rlib, local, native })
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Removes libraries that have been replaced and that no session uses.
fn sweep(sessions: &Path) {
    let Ok(entries) = fs::read_dir(sessions) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("library-")) {
        // The one in use is locked by ourselves. What cannot be removed now is removed by a later session.
        if File::open(entry.path().join("lock")).is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
