//! `cargo xtask miri`: unsafe code in an interpreter that sees what is read beyond its end, after its end, or by two at once.

use anyhow::{Context, Result, ensure};

use crate::workspace::{Workspace, call};

/// What Miri can run of our tests: no file in memory, no LMDB, no processor's own vectors (kernels then take their portable form), and small sizes.
const TESTS: [&str; 5] = [
    "kernels::panels::tests::",
    "kernels::buffers::tests::",
    "store::codec::tests::",
    "flight::memory::tests::sizes_do_not_wrap_around",
    "flight::memory::tests::places_lie_within",
];

/// Runs unit tests of matrix products, buffer pools, the record codec, and the arithmetic of shared memory.
///
/// # Errors
/// When the toolchain has no Miri, or a test fails.
pub(crate) fn miri(workspace: &Workspace) -> Result<()> {
    let version = workspace.cargo(&["miri", "--version"]).output().context("start cargo")?;
    ensure!(
        version.status.success(),
        "wanted a toolchain with Miri, found none; a nightly one has it: \
         `rustup toolchain install nightly --component miri`, then `cargo +nightly xtask miri`"
    );
    let mut cargo = workspace.cargo(&["miri", "test", "--lib", "--"]);
    // Tests that look at a clock or a folder want the host's; threads of a pool outlive the test.
    cargo.args(TESTS).env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
    call(cargo.env("CARGO_TARGET_DIR", workspace.target.join("miri")))
}
