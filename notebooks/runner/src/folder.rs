//! The folder in which the cells of one session are compiled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::places::{Places, write};

/// The compile folder of one session.
pub(crate) struct Folder {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Held while the session lives; the folders of sessions that were killed are found by it.
    _lock: File,
}

impl Folder {
    /// An empty folder for this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make(places: &Places) -> Result<PathBuf> {
        let sessions = places.sessions();
        sweep(&sessions);
        let path = sessions.join(std::process::id().to_string());
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        lend_settings(places, &path)?;
        write_tokio(&path)?;
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

/// Our lock file, so that what a cell adds with `:dep` comes in our versions; our profile, for target folders outside the workspace.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn lend_settings(places: &Places, folder: &Path) -> Result<()> {
    copy(&places.root.join("Cargo.lock"), &folder.join("Cargo.lock"))?;
    copy(&places.root.join(".cargo/config.toml"), &places.sessions().join(".cargo/config.toml"))
}

/// A crate `tokio` that is the library's: evcxr adds one by this name to a cell with `.await`, and a second copy would have a
/// reactor of its own, of which our streams know nothing.
fn write_tokio(folder: &Path) -> Result<()> {
    let manifest = "[package]\nname = \"tokio\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[workspace]\n";
    write(&folder.join("tokio/Cargo.toml"), manifest)?;
    write(&folder.join("tokio/src/lib.rs"), "//! The library's tokio.\npub use topolab::tokio::*;\n")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
    write(to, &text)
}

/// Removes the folders of sessions that ended without doing so: nobody holds their lock.
fn sweep(sessions: &Path) {
    let Ok(entries) = fs::read_dir(sessions) else { return };
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
