//! Tests, and all checks in a row.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::workspace::{Workspace, call};
use crate::{deny, docs, fuzz, gallery, installed, notebook, python, skips, tidy};

/// Tells the tests where the notebook runner is; without it they skip what needs one.
const RUNNER: &str = "TOPOLAB_NOTEBOOK_RUNNER";

/// Our crates with debug assertions and overflow checks.
const CHECKED: &str = ".cargo/checked.toml";

/// Tells the tests with which configuration to build the programs that they start.
const CONFIG: &str = "TOPOLAB_CARGO_CONFIG";

/// Builds and runs all tests: unit tests, `tests/it`, documentation; if `checked`, with debug assertions and overflow checks in our crates;
/// if `ci`, none may skip for the lack of what CI can have.
///
/// # Errors
/// When one does not compile or fails.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>, checked: bool, ci: bool) -> Result<()> {
    python::environment(workspace)?;
    let runner = workspace.runner()?;
    let mut tests = workspace.cargo(if checked { &["--config", CHECKED, "test"] } else { &["test"] });
    if checked {
        // Programs that tests start are of the same build.
        tests.env(CONFIG, CHECKED);
    }
    skips::call_counted(tests.args(filter).env(RUNNER, runner), workspace, ci)
}

/// All checks, quick ones first, the tests as a user runs them last.
///
/// # Errors
/// At the first that fails.
pub(crate) fn ci(workspace: &Workspace) -> Result<()> {
    let cargo = |args: &[&str]| call(&mut workspace.cargo(args));
    let step = |name: &str, run: &dyn Fn() -> Result<()>| {
        println!("── {name}");
        let start = Instant::now();
        let result = run().with_context(|| name.to_owned());
        println!("── {name}: {:.0} s", start.elapsed().as_secs_f64());
        result
    };
    step("format", &|| cargo(&["fmt", "--all", "--check"]))?;
    step("tidy", &|| tidy::tidy(workspace))?;
    step("licences and duplicates", &|| deny::check(workspace))?;
    step("lints", &|| cargo(&["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    step("documentation and its links", &|| docs::build(workspace))?;
    step("executed notebooks are current", &|| gallery::check(workspace))?;
    step("notebooks", &|| notebook::check(workspace, vec![]))?;
    step("build tests", &|| cargo(&["test", "--no-run"]))?;
    step("installed program", &|| installed::check(workspace, false))?;
    step("fuzzing, a minute each", &|| fuzz::fuzz(workspace, None, 60))?;
    step("tests with debug assertions and overflow checks", &|| test(workspace, None, true, true))?;
    step("tests", &|| test(workspace, None, false, true))
}
