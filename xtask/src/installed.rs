//! `cargo xtask installed`: the program as a user has it, in an environment that knows nothing of this workspace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::{Workspace, call};

/// Installs `topolab` into a folder below the target folder and starts it there without any variable set.
///
/// # Errors
/// When it does not compile, or does not do its work.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = workspace.target.join("installed");
    let mut install = workspace.cargo(&["install", "--locked", "--path", "lab/cli", "--no-track", "--force", "--root"]);
    call(install.arg(&root))?;
    let program = root.join("bin/topolab");
    let folder = workspace.target.join("installed/try");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    images(&folder.join("images"))?;
    let said = run(&program, &folder, "--version")?;
    ensure!(said.starts_with("topolab "), "wanted a version, found {said:?}");
    run(&program, &folder, "data convert images a.lmdb")?;
    run(&program, &folder, "data verify a.lmdb")?;
    let said = run(&program, &folder, "profile resnet18 --json")?;
    ensure!(said.contains("11689512"), "wanted the parameters of ResNet-18, found {said:?}");
    println!("{} runs in an empty environment", program.display());
    Ok(())
}

/// Two classes of one grey image each, as PGM would have it, in the smallest PNG files there are.
fn images(folder: &Path) -> Result<()> {
    // One pixel, 8 bits, grey: signature, IHDR, IDAT, IEND, with their checksums.
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0:~\x9bU\0\0\0\nIDATx\xdac`\0\0\0\x02\0\x01\xe5'\xde\xfc\0\0\0\0IEND\xaeB`\x82";
    for class in ["one", "two"] {
        let path = folder.join(class).join("a.png");
        fs::create_dir_all(folder.join(class)).and_then(|()| fs::write(&path, PNG)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn run(program: &Path, folder: &Path, arguments: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).current_dir(folder).env_clear().stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("start {}", program.display()))?;
    ensure!(output.status.success(), "topolab {arguments} failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
