//! What a store survives: processes killed at any moment, a full disk, a file system that cannot be written.

#![cfg(unix)]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use datasets::{Picture, Sample, Seed};
use expect_test::expect;
use pipeline::{Error, Store, convert, verify};

use crate::converting::{self, Memory, dump};
use crate::programs::{idx, pipeline, program, render};

/// Starts the program and kills it after a while; says whether it was still running then.
fn kill_after(folder: &Path, arguments: &[&str], delay: Duration) -> bool {
    let mut child =
        Command::new(program()).args(arguments).current_dir(folder).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_conversion_survives_kills_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    idx(folder.path(), 12_000, 64);
    let begin = Instant::now();
    assert!(pipeline(folder.path(), &["convert", "mnist", "whole.lmdb"]).status.success());
    let (took, mut rng, mut kills) = (begin.elapsed(), Seed(4).rng(), 0);
    for _ in 0..40 {
        // Each goes on where the last was killed, so most are to be short.
        let delay = took.mul_f64(rng.below(1000) as f64 / 2000.0);
        if !kill_after(folder.path(), &["convert", "mnist", "killed.lmdb"], delay) {
            break;
        }
        kills += 1;
        if path("killed.lmdb").exists() {
            // Killed between the last step and the end of the process.
            break;
        }
        let partial = convert::partial(&path("killed.lmdb"));
        assert!(!partial.exists() || Store::open(partial).is_err(), "nothing half-made can be read");
    }
    assert!(kills > 0);
    if !path("killed.lmdb").exists() {
        assert!(pipeline(folder.path(), &["convert", "mnist", "killed.lmdb"]).status.success());
    }
    assert!(dump(&path("whole.lmdb")) == dump(&path("killed.lmdb")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left over");
}

#[test]
fn a_killed_reader_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 6_000, 64);
    assert!(pipeline(folder.path(), &["convert", "mnist", "a.lmdb"]).status.success());
    // LMDB has 126 slots for readers where there is a lock file; a killed reader keeps its own.
    for kill in 0..30 {
        kill_after(folder.path(), &["verify", "a.lmdb"], Duration::from_millis(kill));
    }
    let readers: Vec<_> = (0..200).map(|_| Store::open(folder.path().join("a.lmdb")).unwrap()).collect();
    let open: Vec<_> = readers.iter().map(|store| store.reader().unwrap()).collect();
    assert!(open.iter().all(|reader| reader.record(0, 5999).is_ok()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no lock file");
}

/// The program in a folder that cannot be written: by its permissions, or, for root, who minds none, mounted so. None where neither can be.
fn in_read_only(folder: &Path, arguments: &str) -> Option<Output> {
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    let (program, shown) = (program().display(), folder.display());
    mode(0o555);
    let free = std::fs::write(folder.join("probe"), "").is_ok();
    let script = match free {
        false => format!("cd '{shown}' && '{program}' {arguments}"),
        true => format!(
            "mount --bind '{shown}' '{shown}' && mount -o remount,ro,bind '{shown}' && cd '{shown}' && ! touch probe && '{program}' {arguments}"
        ),
    };
    let mut command = if free { Command::new("unshare") } else { Command::new("sh") };
    let output = command.args(if free { &["-m", "sh"][..] } else { &[] }).args(["-c", &script]).stdin(Stdio::null()).output();
    mode(0o755);
    let _ = std::fs::remove_file(folder.join("probe"));
    match output {
        Ok(output) if free && !String::from_utf8_lossy(&output.stderr).contains("Read-only file system") => {
            eprintln!("skipped: root may write everywhere, and nothing can be mounted here");
            None
        }
        output => Some(output.unwrap()),
    }
}

#[test]
fn a_store_is_read_where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 500, 16);
    assert!(pipeline(folder.path(), &["convert", "mnist", "a.lmdb"]).status.success());
    let Some(output) = in_read_only(folder.path(), "verify a.lmdb") else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "600 records, all good\n");
    let Some(output) = in_read_only(folder.path(), "convert mnist b.lmdb") else { return };
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, text) = text.split_once("error: ").unwrap();
    let text = text.replace("Read-only file system (os error 30)", "REASON").replace("Permission denied (os error 13)", "REASON");
    expect![[r#"
        b.lmdb.partial: cannot create the store
          caused by: REASON
    "#]]
    .assert_eq(&text);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Limits on the size of files stand in for full disks: the program hears of them in the same way.
#[test]
fn a_disk_that_is_full_at_any_moment_costs_only_time() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 10_000, 64);
    assert!(pipeline(folder.path(), &["convert", "mnist", "whole.lmdb"]).status.success());
    // Before the first page, in the first commit, between commits, and in the last.
    for blocks in [1, 40, 9_000, 39_000, 60_000, 80_000] {
        // Blocks of 512 bytes, as dash has it; another shell's are 1024. The signal that would end the program is ignored, and stays so.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec '{}' convert mnist full.lmdb", program().display());
        let output = Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        if output.status.success() {
            break;
        }
        let text = render(folder.path(), &output);
        // LMDB says itself that there is no space where it could not write its first page.
        let reason = ["File too large", "No space left on device"].into_iter().any(|reason| text.contains(reason));
        assert!(text.contains("full.lmdb.partial: cannot") && reason, "{text}");
        assert!(!folder.path().join("full.lmdb").exists());
        assert!(Store::open(convert::partial(&folder.path().join("full.lmdb"))).is_err(), "nothing half-made can be read");
    }
    if !folder.path().join("full.lmdb").exists() {
        assert!(pipeline(folder.path(), &["convert", "mnist", "full.lmdb"]).status.success());
    }
    assert!(dump(&folder.path().join("whole.lmdb")) == dump(&folder.path().join("full.lmdb")));
}

#[test]
fn the_map_grows_with_what_is_to_be_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    // A list of bad files that is longer than the room that pictures would have taken, and then a picture of many pages.
    let bad = |index: usize| Sample { picture: Picture::Encoded(vec![0; 4]), label: 0, name: format!("{index:0>200}") };
    let samples = (0..20_000).map(bad).chain(converting::noise(1, 2000, 2000, 3, 1)).collect();
    let report = converting::convert(&Memory::new(vec![("train", samples)]), &path);
    assert_eq!((report.meta.skipped.len(), report.meta.splits[0].len), (20_000, 1));
    assert!(verify::verify(&Store::open(&path).unwrap(), &mut |_| {}).unwrap().is_good());
}

#[test]
fn a_store_that_is_cut_short_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    converting::convert(&Memory::new(vec![("train", converting::noise(200, 64, 64, 3, 1))]), &path);
    let len = path.metadata().unwrap().len();
    for cut in [len - 1, len / 2, 8192, 4096, 100, 0] {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        assert!(matches!(Store::open(&path), Err(Error::Corrupt { .. } | Error::Foreign { .. })), "cut to {cut} bytes");
    }
}
