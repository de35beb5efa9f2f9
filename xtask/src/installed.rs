//! The program `topolab` as its users have it: outside the workspace, with an empty environment.
//!
//! A program that links the toolchain's shared libstd, or finds a library by a path of the target folder, runs in the workspace and on no
//! other machine. No test in `tests/it` can see that, since cargo sets the search path of libraries for them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::workspace::{Workspace, call};

/// Puts `topolab` into an empty folder, and converts, verifies, trains and serves a small data set there, as `env -i` would start it.
///
/// With `release` it is installed by `cargo install`, which compiles everything in the release profile and takes many minutes. Without, it is
/// the program that tests start, copied: built by the same configuration in another profile, so that nothing is compiled for this alone.
///
/// # Errors
/// When it does not compile, needs a library that is not the system's, or a command does not do what it should.
pub(crate) fn check(workspace: &Workspace, release: bool) -> Result<()> {
    let folder = Folder::new()?;
    let program = folder.0.join("bin/topolab");
    if release {
        let mut cargo = workspace.cargo(&["install", "--locked", "--path", "lab/cli", "--bin", "topolab", "--no-track", "--root"]);
        call(cargo.arg(&folder.0))?;
    } else {
        fs::create_dir(folder.0.join("bin")).context("make the folder bin")?;
        let built = workspace.topolab()?;
        fs::copy(&built, &program).with_context(|| format!("copy {}", built.display()))?;
    }
    let installed = Installed { program, folder: &folder.0 };
    installed.needs_only_the_system(workspace)?;
    installed.has_its_version(workspace)?;
    installed.documents_itself()?;
    installed.converts()?;
    installed.trains()?;
    installed.serves()?;
    let bytes = fs::metadata(&installed.program).context("read the size of the program")?.len();
    println!("topolab ({:.1} MB) runs with an empty environment", bytes as f64 / 1e6);
    Ok(())
}

/// The program, and the folder that it works in.
struct Installed<'a> {
    program: PathBuf,
    folder: &'a Path,
}

impl Installed<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().current_dir(self.folder).stdin(Stdio::null());
        command
    }

    /// Standard output of a command that has to succeed.
    fn said(&self, arguments: &[&str]) -> Result<String> {
        let shown = || format!("topolab {}", arguments.join(" "));
        let output = self.command(arguments).output().with_context(|| format!("start {}", shown()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: wanted success, found {}\n{}", shown(), output.status, errors.trim_end());
        String::from_utf8(output.stdout).with_context(|| format!("{}: standard output is not UTF-8", shown()))
    }

    /// The one JSON document that such a command writes.
    fn document(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.said(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("topolab {}: wanted one JSON document, found {text}", arguments.join(" ")))
    }

    /// No library of the toolchain or of the target folder, where the dynamic linker lists them (glibc).
    fn needs_only_the_system(&self, workspace: &Workspace) -> Result<()> {
        if cfg!(not(all(target_os = "linux", target_env = "gnu"))) {
            println!("not checked: which shared libraries topolab needs; wanted Linux with glibc");
            return Ok(());
        }
        let listed = self.command(&[]).env("LD_TRACE_LOADED_OBJECTS", "1").output().context("list the libraries of topolab")?;
        let listed = String::from_utf8_lossy(&listed.stdout);
        ensure!(listed.contains("libc.so"), "topolab: wanted a list of shared libraries, found {listed}");
        match listed.lines().find(|line| foreign(line, &workspace.target)) {
            Some(line) => bail!("topolab: wanted only shared libraries of the system, found {}", line.trim()),
            None => Ok(()),
        }
    }

    fn has_its_version(&self, workspace: &Workspace) -> Result<()> {
        let package = workspace.packages.iter().find(|package| package["name"] == "topolab-cli").context("no package topolab-cli")?;
        let (wanted, found) = (format!("topolab {}", package["version"].as_str().unwrap_or_default()), self.said(&["--version"])?);
        ensure!(found.trim_end() == wanted, "topolab --version: wanted {wanted}, found {found}");
        Ok(())
    }

    fn documents_itself(&self) -> Result<()> {
        let completions = self.said(&["completions", "bash"])?;
        ensure!(completions.contains("convert"), "topolab completions bash: wanted one that names convert, found {completions}");
        self.said(&["man", "man1"])?;
        ensure!(self.folder.join("man1/topolab-data-serve.1").is_file(), "topolab man: wanted topolab-data-serve.1, found none");
        Ok(())
    }

    fn converts(&self) -> Result<()> {
        write_idx(self.folder).context("write idx files")?;
        self.said(&["data", "convert", "images", "images.lmdb"])?;
        let found = self.document(&["data", "inspect", "images.lmdb", "--json"])?;
        let records: Vec<Option<u64>> = found["splits"].as_array().into_iter().flatten().map(|split| split["records"].as_u64()).collect();
        let wanted: Vec<Option<u64>> = SPLITS.iter().map(|(_, count)| Some(u64::from(*count))).collect();
        ensure!(records == wanted, "topolab data inspect: records of the splits: wanted {wanted:?}, found {found}");
        let found = self.document(&["data", "verify", "images.lmdb", "--json"])?;
        ensure!(found["good"] == true, "topolab data verify: wanted a good store, found {found}");
        Ok(())
    }

    /// Candle and its kernels, which choose by the processor at run time.
    fn trains(&self) -> Result<()> {
        fs::write(self.folder.join("plan.toml"), PLAN).context("write plan.toml")?;
        self.said(&["sweep", "plan.toml", "--device", "cpu"])?;
        let row = self.document(&["table", "plan.jsonl", "--values", "test_accuracy", "--format", "jsonl"])?;
        let accuracy = row["test_accuracy"].as_f64();
        ensure!(accuracy.is_some_and(|share| (0.0..=1.0).contains(&share)), "topolab table: wanted test_accuracy, found {row}");
        Ok(())
    }

    /// Over a Unix socket, until SIGTERM.
    fn serves(&self) -> Result<()> {
        let mut command = self.command(&["data", "serve", "images.lmdb", "--listen", "unix:flight.sock"]);
        let mut server = Server(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("start topolab data serve")?);
        let mut url = String::new();
        BufReader::new(server.0.stdout.take().context("no standard output")?).read_line(&mut url).context("read the address")?;
        ensure!(url.trim_end().ends_with("flight.sock"), "topolab data serve: wanted its address on standard output, found {url:?}");
        let socket = self.folder.join("flight.sock");
        greet(&socket).with_context(|| format!("speak HTTP/2 over {}", socket.display()))?;
        server.end()?;
        ensure!(!socket.exists(), "{}: wanted no socket after the end of the server, found one", socket.display());
        Ok(())
    }
}

/// Whether a line of the dynamic linker's list, `NAME => PATH (ADDRESS)`, is of a library that other machines do not have.
fn foreign(line: &str, target: &Path) -> bool {
    let line = line.trim();
    let path = line.split_once("=> ").map_or(line, |(_, path)| path);
    path == "not found" || line.starts_with("libstd-") || Path::new(path).starts_with(target)
}

/// What a client sends first, its preface and an empty frame of settings; a server of HTTP/2 answers with a frame of settings.
fn greet(socket: &Path) -> Result<()> {
    const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
    const SETTINGS: u8 = 4;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&EMPTY_SETTINGS)?;
    let mut header = [0; EMPTY_SETTINGS.len()];
    stream.read_exact(&mut header)?;
    ensure!(header[3] == SETTINGS, "type of the first frame: wanted {SETTINGS}, found {}", header[3]);
    Ok(())
}

/// How long an answer, or the end of a server, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that does not outlive this value.
struct Server(Child);

impl Server {
    /// SIGTERM, and success within [`PATIENCE`].
    fn end(&mut self) -> Result<()> {
        call(Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]))?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait().context("wait for topolab data serve")? {
                ensure!(status.success(), "topolab data serve after SIGTERM: wanted exit code 0, found {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("topolab data serve: still runs {} s after SIGTERM", PATIENCE.as_secs());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// An empty folder outside the workspace, whose path is short enough for sockets. Removed with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("topolab-installed-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
        Ok(Self(folder.canonicalize().context("find the temporary folder")?))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Splits by the names of their files, and how many images they have.
const SPLITS: [(&str, u32); 2] = [("train", 40), ("t10k", 20)];

/// The folder `images`: files as MNIST has them, of 28×28 pixels.
fn write_idx(folder: &Path) -> std::io::Result<()> {
    const SIDE: u32 = 28;
    let images = folder.join("images");
    fs::create_dir(&images)?;
    for (name, count) in SPLITS {
        let mut pixels = [0x803, count, SIDE, SIDE].map(u32::to_be_bytes).concat();
        pixels.extend((0..count * SIDE * SIDE).map(|number| (number % 251) as u8));
        let mut labels = [0x801, count].map(u32::to_be_bytes).concat();
        labels.extend((0..count).map(|number| (number % 10) as u8));
        fs::write(images.join(format!("{name}-images-idx3-ubyte")), pixels)?;
        fs::write(images.join(format!("{name}-labels-idx1-ubyte")), labels)?;
    }
    Ok(())
}

const PLAN: &str = r#"
[run]
data = { store = "images.lmdb", train = { batch = 8, normalize = "none" }, test = { split = "test", batch = 20, normalize = "none" } }
architecture = { family = "dense_mlp", inputs = 784, classes = 10, width = 8, depth = 4, max_links = 2 }
recipe = { epochs = 1, lr = 1e-3, optimizer = { name = "adam_w", betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.0 } }
seed = 0
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_toolchain_and_the_target_folder_are_foreign() {
        let foreign = |line| foreign(line, Path::new("/me/target"));
        assert!(foreign("\tlibstd-1a2b.so => not found"));
        assert!(foreign("\tlibstd-1a2b.so => /me/.rustup/lib/libstd-1a2b.so (0x00007f00)"));
        assert!(foreign("\tlibtopolab.so => /me/target/debug/libtopolab.so (0x00007f00)"));
        assert!(foreign("\tlibother.so => not found"));
        assert!(!foreign("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f00)"));
        assert!(!foreign("\tlinux-vdso.so.1 (0x00007f00)"));
        assert!(!foreign("\t/lib64/ld-linux-x86-64.so.2 (0x00007f00)"));
    }
}
