//! The folders in which cells are compiled, and the one build that all of them share.
//!
//! evcxr compiles a notebook's cells as a crate `ctx` in a folder of its own. Left alone, it would compile candle and polars
//! there again, for 20 minutes, in the newest versions instead of ours, and two notebooks in one folder would overwrite each
//! other's cells. So the dependencies are compiled here in the workspace's own target folder (where `cargo test` has left
//! most of them: same versions, flags, profile and features), and every session gets a folder beside it, `evcxr/<process>`,
//! whose `target` holds the finished artefacts as hard links. That takes half a second and no disk.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The package that holds everything; a dynamic library.
const LIBRARY: &str = "topolab";

/// Whether a file or folder that cargo made belongs to [`LIBRARY`].
fn is_library(name: &str) -> bool {
    name.trim_start_matches("lib").strip_prefix(LIBRARY).is_some_and(|rest| rest.starts_with(['-', '.']))
}

/// Where things are: found from this program's own place, `<target>/<triple>/debug/notebook-runner`.
pub(crate) struct Places {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Its target folder.
    pub(crate) target: PathBuf,
    /// The host, as rustc names it.
    pub(crate) triple: String,
}

impl Places {
    pub(crate) fn find() -> Result<Self> {
        let program = env::current_exe().context("find this program's own path")?;
        let folders: Vec<&Path> = program.ancestors().skip(1).take(3).collect();
        let [debug, triple, target] = folders[..] else { bail!("{}: expected <target>/<triple>/debug/ above it", program.display()) };
        ensure!(debug.ends_with("debug"), "{}: expected <target>/<triple>/debug/ above it", program.display());
        let triple = triple.file_name().and_then(|name| name.to_str()).context("a target folder above this program")?.to_owned();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this package is two folders below the workspace");
        ensure!(root.join("Cargo.lock").is_file(), "{}: the workspace is gone; build notebook-runner again", root.display());
        Ok(Self { root: root.to_owned(), target: target.to_owned(), triple })
    }

    /// Which library the cells would link: its size and time.
    fn library_stamp(&self) -> Option<String> {
        let name = format!("{}{LIBRARY}{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        let metadata = fs::metadata(self.target.join(&self.triple).join("debug/deps").join(name)).ok()?;
        Some(format!("{} {:?}", metadata.len(), metadata.modified().ok()?))
    }

    /// Lets cargo compile the library again.
    fn forget_library(&self) {
        let Ok(entries) = fs::read_dir(self.target.join(&self.triple).join("debug/.fingerprint")) else { return };
        for entry in entries.flatten().filter(|entry| is_library(&entry.file_name().to_string_lossy())) {
            // What stays only costs a stale library, which the compiler will name.
            let _ = fs::remove_dir_all(entry.path());
        }
    }

    /// Waits until no other session compiles or takes what cells link, and keeps others from it while it is held: one would otherwise
    /// remove what cargo compiles for another.
    fn alone(&self) -> Result<File> {
        let path = self.kitchen().join("lock");
        let lock = fs::create_dir_all(self.kitchen()).and_then(|()| File::create(&path)).and_then(|file| file.lock().map(|()| file));
        lock.with_context(|| format!("lock {}", path.display()))
    }

    /// Where cells are compiled, and what belongs to it.
    fn kitchen(&self) -> PathBuf {
        self.target.join("evcxr")
    }
}

/// What cells may use, from `notebooks/evcxr.toml`: names, and TOML values with absolute paths.
///
/// # Errors
/// When the file cannot be read, or is not what evcxr reads.
pub(crate) fn dependencies(root: &Path) -> Result<Vec<(String, String)>> {
    let folder = root.join("notebooks");
    let path = folder.join("evcxr.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let config: toml::Table = text.parse().with_context(|| format!("parse {}", path.display()))?;
    let dependencies = config.get("dependencies").and_then(toml::Value::as_table);
    let dependencies = dependencies.with_context(|| format!("{}: no [dependencies]", path.display()))?;
    let absolute = |(name, value): (&String, &toml::Value)| {
        let mut value = value.clone();
        if let Some(toml::Value::String(path)) = value.get_mut("path") {
            *path = folder.join(&*path).canonicalize().with_context(|| format!("{name}: find {path}"))?.display().to_string();
        }
        Ok((name.clone(), value.to_string()))
    };
    dependencies.iter().map(absolute).collect()
}

/// Compiles everything that cells link, as far as it is not compiled yet.
///
/// # Errors
/// When cargo fails.
pub(crate) fn prepare() -> Result<()> {
    let places = Places::find()?;
    let _alone = places.alone()?;
    compile(&places).map(drop)
}

/// As [`prepare`], for whoever is alone already; the hashes by which cargo names the artefacts.
fn compile(places: &Places) -> Result<BTreeSet<String>> {
    let folder = places.kitchen().join("base");
    write_crate(places, &folder, "cdylib", "//! What a notebook's first cell finds compiled.\n")?;
    let stamp = folder.join("stamp");
    if fs::read_to_string(&stamp).ok() != places.library_stamp() {
        // A dynamic library has no hash in its name: `cargo build --workspace` has put another in the place of ours.
        places.forget_library();
    }
    let output =
        build(places, &folder).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "the packages that notebooks use did not compile");
    if let Some(text) = places.library_stamp() {
        write(&stamp, &text)?;
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages.flat_map(|message| hashes(&message)).collect())
}

/// The hashes in the names of what a message of cargo's says was made.
fn hashes(message: &Value) -> Vec<String> {
    let files = message["filenames"].as_array().into_iter().flatten().chain(Some(&message["out_dir"]));
    let paths = files.filter_map(Value::as_str).map(Path::new);
    // `deps/libname-HASH.rlib`, `build/name-HASH/build-script-build`, `build/name-HASH/out`
    let named = paths.flat_map(|path| [Some(path), path.parent()]).flatten();
    named.filter_map(|path| hash(path.file_name()?.to_str()?)).map(str::to_owned).collect()
}

/// The hash at the end of a name such as `libname-HASH.rlib`.
fn hash(name: &str) -> Option<&str> {
    let stem = name.split('.').next()?;
    let (_, hash) = stem.rsplit_once('-')?;
    (hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hash)
}

/// Writes a crate that depends on what cells depend on.
pub(crate) fn write_crate(places: &Places, folder: &Path, kind: &str, source: &str) -> Result<()> {
    let dependencies: String = dependencies(&places.root)?.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    let manifest = format!(
        "[package]\nname = \"ctx\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"{kind}\"]\n\n[dependencies]\n{dependencies}"
    );
    write(&folder.join("Cargo.toml"), &manifest)?;
    write(&folder.join("src/lib.rs"), source)?;
    lend_settings(places, folder)
}

/// Our lock file, so that cells get our versions; our flags and profile, for target folders outside the workspace.
pub(crate) fn lend_settings(places: &Places, folder: &Path) -> Result<()> {
    copy(&places.root.join("Cargo.lock"), &folder.join("Cargo.lock"))?;
    copy(&places.root.join(".cargo/config.toml"), &places.kitchen().join(".cargo/config.toml"))
}

/// The cargo command that compiles the crate in `folder` as evcxr does, but in the shared target folder.
pub(crate) fn build(places: &Places, folder: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--target", &places.triple]).current_dir(folder);
    cargo.env("CARGO_TARGET_DIR", &places.target).env("RUSTFLAGS", "-Cprefer-dynamic");
    cargo
}

/// The compile folder of one session.
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Held while the session lives; the folders of sessions that were killed are found by it.
    _lock: File,
}

impl Folder {
    /// The folder of this process, with all that cells link.
    ///
    /// # Errors
    /// When the dependencies do not compile, or the folder cannot be made.
    pub(crate) fn make() -> Result<PathBuf> {
        let places = Places::find()?;
        let _alone = places.alone()?;
        let hashes = compile(&places)?;
        let wanted = |name: &str| hash(name).is_some_and(|hash| hashes.contains(hash)) || is_library(name);
        let kitchen = places.kitchen();
        sweep(&kitchen);
        let path = kitchen.join(std::process::id().to_string());
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        for platform in [Path::new("debug").to_owned(), Path::new(&places.triple).join("debug")] {
            for part in [".fingerprint", "build", "deps"] {
                let from = places.target.join(&platform).join(part);
                let to = path.join("target").join(&platform).join(part);
                link_tree(&from, &to, &wanted).with_context(|| format!("link {} to {}", from.display(), to.display()))?;
            }
        }
        lend_settings(&places, &path)?;
        Ok(path)
    }

    /// Takes a folder that [`Folder::make`] made, before this process became the engine.
    ///
    /// # Errors
    /// When the folder is gone.
    pub(crate) fn take(path: PathBuf) -> Result<Self> {
        let lock = File::create(path.join("lock")).with_context(|| format!("lock {}", path.display()))?;
        lock.lock().with_context(|| format!("lock {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Removes the folder; what cannot be removed is swept when another session starts.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of sessions that ended without doing so: nobody holds their lock.
fn sweep(kitchen: &Path) {
    let Ok(entries) = fs::read_dir(kitchen) else { return };
    for entry in entries.flatten() {
        let is_session = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        // A session that is being made has no lock yet.
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed().unwrap_or_default());
        let settled = age.is_ok_and(|age| age > Duration::from_secs(60));
        let free = match File::open(entry.path().join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if is_session && settled && free {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Links what compilers write once; copies, with its times, what cargo writes again in place. Of the folder itself, takes
/// what is `wanted`; of folders in it, everything.
fn link_tree(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if !wanted(&name.to_string_lossy()) {
            continue;
        }
        // Another cargo may be at work beside us: what it has taken away is none of ours.
        match link_entry(&entry, &entry.path(), &to.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

fn link_entry(entry: &fs::DirEntry, source: &Path, copy: &Path) -> io::Result<()> {
    if entry.file_type()?.is_dir() {
        return link_tree(source, copy, &|_| true);
    }
    let compiled = source.extension().is_some_and(|extension| ["rlib", "rmeta", "so", "dylib", "a", "o"].iter().any(|e| extension == *e));
    if compiled && fs::hard_link(source, copy).is_ok() {
        return Ok(());
    }
    let metadata = entry.metadata()?;
    if metadata.len() > 1 << 20 && fs::hard_link(source, copy).is_ok() {
        return Ok(()); // a build script
    }
    fs::copy(source, copy)?;
    File::options().write(true).open(copy)?.set_modified(metadata.modified()?)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(()); // cargo compares times
    }
    let folder = path.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).with_context(|| format!("write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    write(to, &text)
}

#[cfg(test)]
mod tests {
    use super::{hash, is_library};

    #[test]
    fn cargo_names_artefacts_by_hash() {
        assert_eq!(hash("libpolars_core-0123456789abcdef.rlib"), Some("0123456789abcdef"));
        assert_eq!(hash("serde-derive-0123456789abcdef"), Some("0123456789abcdef"));
        assert_eq!([hash("libtopolab.so"), hash("build-script-build"), hash("out")], [None; 3]);
    }

    #[test]
    fn the_library_is_known_by_its_name() {
        for name in ["libtopolab.so", "topolab.d", "topolab-0123456789abcdef", "libtopolab-0123456789abcdef.rmeta"] {
            assert!(is_library(name), "{name}");
        }
        assert!(!is_library("topolab_extra.d"));
    }
}
