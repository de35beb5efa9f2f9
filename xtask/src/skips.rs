//! Tests that skip: how many, and what they lack. `tests/it/skips.rs` is the other side.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, call};

/// Tells tests the file that each skip appends a line to.
const SKIPPED: &str = "TOPOLAB_SKIPPED";

/// Tells tests what this machine does not lack: a skip for the lack of it is a failure.
const NO_SKIP: &str = "TOPOLAB_NO_SKIP";

/// What every machine has that runs `cargo xtask ci`, or can get: the real data sets and a CUDA device are not among it.
const CI: &str = "openssl,python,read-only,runner";

/// Runs tests and says how many skipped, also when one fails. With `ci` none may skip for the lack of [`CI`], unless the user has set the
/// variable.
///
/// # Errors
/// When the command fails, or the file of the skips cannot be read.
pub(crate) fn call_counted(tests: &mut Command, workspace: &Workspace, ci: bool) -> Result<()> {
    let path = workspace.target.join(format!("skipped-{}", std::process::id()));
    remove(&path)?;
    if ci && std::env::var_os(NO_SKIP).is_none() {
        tests.env(NO_SKIP, CI);
    }
    let result = call(tests.env(SKIPPED, &path));
    match fs::read_to_string(&path) {
        Ok(lines) => println!("{}", summary(&lines)),
        Err(error) if error.kind() == ErrorKind::NotFound => println!("no test skipped"),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    remove(&path)?;
    result
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

/// The tests that lack one thing, each with its number among those of the same name, and the first reason.
type Skipped<'a> = (BTreeSet<(&'a str, usize)>, &'a str);

/// How many tests skipped, and then a line for each thing that is lacking, with the reason that the first of these tests gave.
fn summary(lines: &str) -> String {
    let mut lacking: BTreeMap<&str, Skipped<'_>> = BTreeMap::new();
    let mut all = BTreeSet::new();
    for (number, line) in lines.lines().enumerate() {
        let mut parts = line.splitn(3, '\t');
        let (Some(name), Some(test), Some(reason)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // Where tests run one at a time, all have the name of the main thread.
        let key = (test, if test == "main" { number } else { 0 });
        lacking.entry(name).or_insert_with(|| (BTreeSet::new(), reason)).0.insert(key);
        all.insert(key);
    }
    let count = |tests: &BTreeSet<(&str, usize)>| format!("{} test{}", tests.len(), if tests.len() == 1 { "" } else { "s" });
    let each = lacking.iter().map(|(name, (tests, reason))| format!("\n  {} without {name}: {reason}", count(tests)));
    each.fold(format!("{} skipped:", count(&all)), |text, line| text + &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_counts_once_for_each_thing_that_it_lacks() {
        let lines = "python\ta::b\tno pip\ndata\ta::c\tno `mnist`\npython\ta::b\tno pip\npython\ta::d\tno venv\ndata\ta::d\tno `kmnist`\n";
        assert_eq!(summary(lines), "3 tests skipped:\n  2 tests without data: no `mnist`\n  2 tests without python: no pip");
        assert!(summary("cuda\tmain\tno card\ncuda\tmain\tno card\n").starts_with("2 tests skipped:\n  2 tests without cuda"));
        assert_eq!(summary("cuda\ta\tno card\n"), "1 test skipped:\n  1 test without cuda: no card");
    }
}
