//! Where things are, and how cargo is called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The workspace as cargo sees it.
pub(crate) struct Workspace {
    /// Its folder.
    pub(crate) root: PathBuf,
    /// The target folder, wherever the user has put it.
    pub(crate) target: PathBuf,
    /// The packages of the workspace, as `cargo metadata` describes them.
    pub(crate) packages: Vec<Value>,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        // As `cargo run` says it: where several clones share a target folder, this program may have been compiled in another.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").context("wanted `cargo xtask`, found no CARGO_MANIFEST_DIR")?;
        let root = Path::new(&here).parent().expect("xtask is a folder of the workspace").to_owned();
        let mut cargo = cargo(&root);
        let output =
            cargo.args(["metadata", "--format-version=1", "--no-deps"]).stderr(Stdio::inherit()).output().context("start cargo")?;
        ensure!(output.status.success(), "cargo metadata failed");
        let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo's metadata")?;
        let target = metadata["target_directory"].as_str().context("cargo's metadata has no target_directory")?;
        let packages = metadata["packages"].as_array().context("cargo's metadata has no packages")?;
        Ok(Self { root, target: target.into(), packages: packages.clone() })
    }

    /// `cargo` with these arguments, in the workspace.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = cargo(&self.root);
        cargo.args(args);
        cargo
    }

    /// Builds `notebook-runner` where that is needed, and says where it is.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn runner(&self) -> Result<PathBuf> {
        self.built(&["--bin=notebook-runner"], "notebook-runner")
    }

    /// Builds all that notebooks use in one call of cargo, which keeps all cores busy; the path of `notebook-runner`.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn notebooks(&self, features: &[String]) -> Result<PathBuf> {
        let features: Vec<String> = features.iter().map(|feature| format!("--features=topolab/{feature}")).collect();
        let mut what = vec!["--lib", "--bin=notebook-runner"];
        what.extend(features.iter().map(String::as_str));
        self.built(&what, "notebook-runner")
    }

    /// Builds the program `pipeline` where that is needed, and says where it is.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn pipeline(&self) -> Result<PathBuf> {
        self.built(&["--bin=pipeline"], "pipeline")
    }

    /// Builds the program `lab` where that is needed, and says where it is.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn lab(&self) -> Result<PathBuf> {
        self.built(&["--bin=lab"], "lab")
    }

    /// Builds the program `topolab` where that is needed, and says where it is.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn topolab(&self) -> Result<PathBuf> {
        self.built(&["--bin=topolab"], "topolab")
    }

    fn built(&self, what: &[&str], name: &str) -> Result<PathBuf> {
        call(self.cargo(&["build"]).args(what))?;
        let program = self.target.join("debug").join(name);
        ensure!(program.is_file(), "{}: not there after it was built", program.display());
        Ok(program)
    }

    /// `cargo bench` in the profile of the tests: what counts is optimised there, and compiled already.
    pub(crate) fn cargo_bench(&self) -> Command {
        self.cargo(&["bench", "--profile=dev"])
    }

    /// Builds a benchmark where that is needed, and says where it is.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn benchmark(&self, name: &str, features: &[&str]) -> Result<PathBuf> {
        let mut cargo = self.cargo_bench();
        cargo.args(["--bench", name, "--no-run", "--message-format=json-render-diagnostics"]);
        cargo.args(features.iter().map(|feature| format!("--features={feature}")));
        let output = cargo.stderr(Stdio::inherit()).output().context("start cargo")?;
        ensure!(output.status.success(), "{} failed ({})", shown(&cargo), output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut built = messages.filter(|message| message["target"]["name"] == name);
        let program = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
        program.with_context(|| format!("cargo built the benchmark {name}, and does not say where"))
    }
}

/// How variables begin that cargo sets for a program that it runs.
const OF_A_RUN: [&str; 6] = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"];

fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Flags from outside would compile candle and polars once more, and then once more for notebooks.
    cargo.current_dir(root).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // What cargo tells the program that it runs. A build script that asks for one of these (ring's does) would run again whenever another
    // program calls cargo, and all that stands on it would be compiled again.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| OF_A_RUN.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Runs a command to its end; it talks to the terminal itself.
///
/// # Errors
/// When it does not start, or fails.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if status.success() {
        return Ok(());
    }
    bail!("{} failed ({status})", shown(command))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(program, |text, arg| format!("{text} {}", arg.to_string_lossy()))
}
