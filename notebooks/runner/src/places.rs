//! Where the workspace, its target folder and the compiler are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// How variables begin that cargo sets for a program that it runs.
const OF_A_RUN: [&str; 6] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"];

/// Where things are: found from this program's own path, `<target>/debug/notebook-runner`.
pub(crate) struct Places {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Its target folder.
    pub(crate) target: PathBuf,
}

impl Places {
    pub(crate) fn find() -> Result<Self> {
        let program = env::current_exe().context("find this program's own path")?;
        let folders: Vec<&Path> = program.ancestors().skip(1).take(2).collect();
        let [debug, target] = folders[..] else { bail!("{}: expected <target>/debug/ above it", program.display()) };
        ensure!(debug.ends_with("debug"), "{}: expected <target>/debug/ above it", program.display());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("this package is two folders below the workspace");
        ensure!(root.join("Cargo.lock").is_file(), "{}: the workspace is gone; build notebook-runner again", root.display());
        Ok(Self { root: root.to_owned(), target: target.to_owned() })
    }

    /// Where sessions, and the library that their cells link, have their folders.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.target.join("evcxr")
    }

    /// Waits until no other process builds the library, and keeps others from it while the file is held.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.sessions().join("lock");
        let lock = fs::create_dir_all(self.sessions()).and_then(|()| File::create(&path)).and_then(|file| file.lock().map(|()| file));
        lock.with_context(|| format!("lock {}", path.display()))
    }

    /// `rustc`, as the workspace's toolchain file chooses it.
    pub(crate) fn rustc(&self) -> Command {
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.current_dir(&self.root);
        rustc
    }

    /// What `rustc` prints.
    ///
    /// # Errors
    /// When it does not start, or fails.
    pub(crate) fn ask_rustc(&self, args: &[&str]) -> Result<String> {
        let output = self.rustc().args(args).stderr(Stdio::inherit()).output().context("start rustc")?;
        ensure!(output.status.success(), "rustc {} failed ({})", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// `cargo` in the workspace, without flags from outside: they would compile candle and polars once more. And without what cargo
    /// tells a program that it runs: build scripts that ask for it (ring's does) would run again whenever another program calls cargo.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| OF_A_RUN.iter().any(|prefix| name.starts_with(prefix))) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// Writes a file where it would change: cargo compares times.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().expect("a file is in a folder");
    fs::create_dir_all(folder).and_then(|()| fs::write(path, text)).with_context(|| format!("write {}", path.display()))
}
