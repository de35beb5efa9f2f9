//! Tests that skip, because this machine lacks something: each is counted, and fails where it must not lack it.
//!
//! `cargo xtask test` names a file in `TOPOLAB_SKIPPED`; each skip appends a line to it, and the command counts them when all tests have run.
//! Without the variable a skip is a line on standard error, past the capture of the test harness. `TOPOLAB_NO_SKIP` lists what is known to be
//! there, by the names of [`Lacks`] with commas between them; `cargo xtask ci` sets it. A skip for the lack of one of these is a failure.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// The file that each skip appends a line to: what is lacking, the test, the reason, with tabs between them.
const SKIPPED: &str = "TOPOLAB_SKIPPED";

/// What must not be lacking.
const NO_SKIP: &str = "TOPOLAB_NO_SKIP";

/// What a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// The vector instructions of AVX-512.
    Avx512,
    /// A CUDA device, and a build for it.
    Cuda,
    /// The real data sets, in `shared/data` beside the workspace.
    Data,
    /// The program `openssl`.
    Openssl,
    /// The Python environment of the tests; see [`crate::python`].
    Python,
    /// A file system that can be mounted read-only, or a user who minds permissions.
    ReadOnly,
    /// The program `notebook-runner`, which `cargo xtask test` builds.
    Runner,
    /// `tar` and `zstd`.
    Zstd,
}

impl Lacks {
    const ALL: [Self; 8] = [Self::Avx512, Self::Cuda, Self::Data, Self::Openssl, Self::Python, Self::ReadOnly, Self::Runner, Self::Zstd];

    /// Its name in the variable and in the count.
    fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Cuda => "cuda",
            Self::Data => "data",
            Self::Openssl => "openssl",
            Self::Python => "python",
            Self::ReadOnly => "read-only",
            Self::Runner => "runner",
            Self::Zstd => "zstd",
        }
    }
}

/// Records that the test that calls this skips.
///
/// # Panics
/// When `TOPOLAB_NO_SKIP` has what is lacking.
#[track_caller]
pub(crate) fn skip(lacks: Lacks, reason: impl Display) {
    let thread = std::thread::current();
    let (name, test, reason) = (lacks.name(), thread.name().unwrap_or("a test"), reason.to_string().replace(['\n', '\t'], " "));
    let must = listed(std::env::var(NO_SKIP).ok().as_deref());
    assert!(!must.contains(&lacks), "{test} skips, and {NO_SKIP} has `{name}`: {reason}");
    match std::env::var_os(SKIPPED) {
        // One write of a short line at the end of a file is not torn by those of other processes.
        Some(path) => {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(format!("{name}\t{test}\t{reason}\n").as_bytes()).unwrap();
        }
        // Not by `eprintln!`: of a test that passes nobody sees what that prints.
        None => {
            let _ = writeln!(std::io::stderr(), "skipped {test}, without {name}: {reason}");
        }
    }
}

/// What the variable lists.
///
/// # Panics
/// At a name that is none of [`Lacks`]: it would make nothing a failure.
fn listed(names: Option<&str>) -> Vec<Lacks> {
    let names = names.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = |name: &str| Lacks::ALL.into_iter().find(|lacks| lacks.name() == name);
    names
        .map(|name| known(name).unwrap_or_else(|| panic!("{NO_SKIP}: wanted names of {:?}, found `{name}`", Lacks::ALL.map(Lacks::name))))
        .collect()
}

/// Also where nothing skips, a name that is misspelt is told.
#[test]
fn what_must_not_be_lacking_is_known() {
    listed(std::env::var(NO_SKIP).ok().as_deref());
    assert_eq!(listed(Some("python, read-only,")), [Lacks::Python, Lacks::ReadOnly]);
    assert_eq!(listed(None), []);
    assert!(std::panic::catch_unwind(|| listed(Some("pyton"))).is_err());
}

/// Says to this program, started again, that a test is to skip.
const SKIPS: &str = "SKIPS_ONE";

/// Not a test by itself: what [`a_skip_is_counted_or_a_failure`] starts.
#[test]
fn the_test_that_skips() {
    if std::env::var_os(SKIPS).is_some() {
        skip(Lacks::Zstd, "no\nzstd");
    }
}

#[test]
fn a_skip_is_counted_or_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("skipped");
    let run = |file: bool, listed: &str| {
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        program
            .args(["--exact", "skips::the_test_that_skips", "--test-threads", "2"])
            .env(SKIPS, "")
            .env(NO_SKIP, listed)
            .env_remove(SKIPPED);
        if file {
            program.env(SKIPPED, &path);
        }
        let output = program.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    assert!(run(true, "").0 && run(true, "python").0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "zstd\tskips::the_test_that_skips\tno zstd\n".repeat(2));
    let (passes, said) = run(false, "data");
    assert!(passes && said.contains("skipped skips::the_test_that_skips, without zstd: no zstd\n"), "{said}");
    let (passes, said) = run(true, "python,zstd");
    assert!(!passes && said.contains("TOPOLAB_NO_SKIP has `zstd`: no zstd"), "{said}");
}
