//! Our programs as tests start them, and what they are given.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use datasets::Seed;

/// Set by `cargo xtask test --checked`: the configuration that cargo was given.
const CONFIG: &str = "TOPOLAB_CARGO_CONFIG";

/// The program itself.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("pipeline"))
}

/// A program of ours. Cargo builds binaries only for tests of the same package, so this asks it to; after `cargo build` it is there.
pub(crate) fn built(name: &str) -> PathBuf {
    let arguments = ["build", "--quiet", "--bin", name, "--message-format", "json"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // The build that these tests are of.
    let config = std::env::var_os(CONFIG).map(|config| ["--config".into(), config]);
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells a test, build scripts would take for a change, and compile again what was built for all.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_a_test)) {
        cargo.env_remove(name);
    }
    let output = cargo.args(config.into_iter().flatten()).args(arguments).current_dir(root).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{name} does not build");
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    let executables = messages.filter_map(|message| message.unwrap()["executable"].as_str().map(PathBuf::from));
    executables.last().expect("cargo says what it built")
}

/// Whether cargo sets this variable for the tests of one package.
fn of_a_test(name: &str) -> bool {
    ["CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_", "CARGO_TARGET_TMPDIR"].iter().any(|prefix| name.starts_with(prefix))
}

/// A folder of idx files: what MNIST is, of pictures of any size.
pub(crate) fn idx(folder: &Path, train: u32, side: u32) -> PathBuf {
    let root = folder.join("mnist");
    std::fs::create_dir(&root).unwrap();
    for (name, count) in [("train", train), ("t10k", 100)] {
        let mut pictures = [0x803, count, side, side].map(u32::to_be_bytes).concat();
        let mut rng = Seed(u64::from(count)).rng();
        pictures.extend((0..(count * side * side).div_ceil(8)).flat_map(|_| rng.bits().to_le_bytes()));
        pictures.truncate(16 + (count * side * side) as usize);
        let mut labels = [0x801, count].map(u32::to_be_bytes).concat();
        labels.extend((0..count).map(|index| (index % 10) as u8));
        std::fs::write(root.join(format!("{name}-images-idx3-ubyte")), pictures).unwrap();
        std::fs::write(root.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    root
}

pub(crate) fn pipeline(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).current_dir(folder).env("COLUMNS", "100").output().unwrap()
}

/// The program, after a command of the shell, where no file may become longer than `limit` bytes; whole blocks of the shell are taken from it.
#[cfg(unix)]
pub(crate) fn limited(folder: &Path, limit: u64, before: &str, arguments: &str) -> Output {
    // Blocks of 512 bytes or of 1024, as the shell has it.
    static BLOCK: OnceLock<u64> = OnceLock::new();
    let block = BLOCK.get_or_init(|| {
        let probe = tempfile::tempdir().unwrap();
        let script = "trap '' XFSZ; ulimit -f 1; head -c 100000 /dev/zero > probe 2>&-; wc -c < probe";
        let output = Command::new("sh").args(["-c", script]).current_dir(probe.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    });
    assert!([512, 1024].contains(block), "blocks of {block} bytes");
    let script = format!("ulimit -c 0; {before}; ulimit -f {}; exec '{}' {arguments}", limit / block, program().display());
    Command::new("sh").args(["-c", &script]).current_dir(folder).output().unwrap()
}

/// Exit code, standard output and standard error, the folder's name taken out.
pub(crate) fn render(folder: &Path, output: &Output) -> String {
    let text =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(&folder.canonicalize().unwrap().display().to_string(), "DIR");
    format!("{}\n{}---\n{}", output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}
