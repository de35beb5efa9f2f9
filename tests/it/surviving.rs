//! What a store survives: processes killed at any moment, a full disk, a file system that cannot be written.

#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use datasets::{Picture, Sample, Seed};
use expect_test::expect;
use pipeline::{Error, Store, convert, verify};

use crate::converting::{self, Memory, dump};
use crate::programs::{idx, limited, pipeline, program, render};
use crate::skips::{Lacks, skip};

/// Starts the program, kills it once `ripe` says so, and tells whether it was still running then.
fn kill_when(folder: &Path, arguments: &[&str], ripe: impl FnOnce(&mut Child)) -> bool {
    let mut child =
        Command::new(program()).args(arguments).current_dir(folder).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    ripe(&mut child);
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_conversion_survives_kills_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    idx(folder.path(), 12_000, 64);
    let start = Instant::now();
    assert!(pipeline(folder.path(), &["convert", "mnist", "whole.lmdb"]).status.success());
    let took = start.elapsed().as_micros() as usize;
    let (whole, bytes, mut rng) = (dump(&path("whole.lmdb")), path("whole.lmdb").metadata().unwrap().len(), Seed(4).rng());
    let (target, partial) = (path("killed.lmdb"), convert::partial(&path("killed.lmdb")));
    let (mut kills, mut continued, mut finished) = (0, 0, 0);
    // Until enough were killed of which some were the second or a later part of a store; on a busy machine some end before they are killed.
    for start in 0..200 {
        if kills >= 12 && continued >= 4 && finished >= 2 {
            break;
        }
        let (before, share) = (partial.metadata().map_or(0, |file| file.len()), rng.below(1000) as u64);
        let wanted = before + (bytes - before.min(bytes)) * share / 1500;
        let killed = kill_when(folder.path(), &["convert", "mnist", "killed.lmdb"], |child| {
            while share >= 200 && partial.metadata().map_or(0, |file| file.len()) < wanted && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
            // Every fourth may last as long as a whole conversion and longer, or none would come to its end where the last step is a long one.
            let latest = if start % 4 == 3 { 2 * took } else { 20_000 };
            std::thread::sleep(Duration::from_micros(rng.below(latest) as u64));
        });
        kills += usize::from(killed);
        if target.exists() {
            // It ended, or was killed after its last step: from the beginning again.
            assert!(whole == dump(&target));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left over");
            std::fs::remove_file(&target).unwrap();
            finished += 1;
        } else {
            assert!(killed, "it ended without a store");
            continued += usize::from(before > 0);
            assert!(!partial.exists() || Store::open(&partial).is_err(), "nothing half-made can be read");
        }
    }
    assert!(kills >= 12 && continued >= 4 && finished >= 2, "{kills} killed, {continued} of these not the first, {finished} stores");
}

#[test]
fn a_killed_reader_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 60_000, 24);
    assert!(pipeline(folder.path(), &["convert", "mnist", "a.lmdb"]).status.success());
    // LMDB has 126 slots for readers where there is a lock file; a killed reader keeps its own. A first line of progress says that it reads; on
    // a busy machine some are at the end before they are killed.
    let read = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("of 60100 records verified"), "{line}");
    };
    let kills = (0..200).filter(|_| kill_when(folder.path(), &["verify", "a.lmdb"], read)).take(30).count();
    assert_eq!(kills, 30, "readers killed while they read");
    let readers: Vec<_> = (0..200).map(|_| Store::open(folder.path().join("a.lmdb")).unwrap()).collect();
    let open: Vec<_> = readers.iter().map(|store| store.reader().unwrap()).collect();
    assert!(open.iter().all(|reader| reader.record(0, 59_999).is_ok()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no lock file");
}

/// The program in a folder that cannot be written: by its permissions, or, for root, who minds none, mounted so, or without the right not to mind
/// them. None where none of these can be.
fn in_read_only(folder: &Path, arguments: &str) -> Option<Output> {
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    let (program, shown) = (program().display(), folder.display());
    mode(0o555);
    let free = std::fs::write(folder.join("probe"), "").is_ok();
    if free {
        std::fs::remove_file(folder.join("probe")).unwrap();
    }
    let run = format!("cd '{shown}' && ! touch probe 2>&- && echo cannot write >&2 && exec '{program}' {arguments}");
    let mounted = format!("mount --bind '{shown}' '{shown}' && mount -o remount,ro,bind '{shown}' && {run}");
    let ways: &[(&[&str], &str)] = match free {
        false => &[(&["sh", "-c"], &run)],
        true => &[(&["unshare", "-m", "sh", "-c"], &mounted), (&["setpriv", "--bounding-set=-dac_override", "sh", "-c"], &run)],
    };
    let tried = ways.iter().find_map(|(program, script)| {
        let output = Command::new(program[0]).args(&program[1..]).arg(script).stdin(Stdio::null()).output().ok()?;
        let mut output = Some(output).filter(|output| output.stderr.starts_with(CANNOT_WRITE))?;
        output.stderr.drain(..CANNOT_WRITE.len());
        Some(output)
    });
    mode(0o755);
    if tried.is_none() {
        skip(Lacks::ReadOnly, "this user may write everywhere, and nothing can be mounted");
    }
    tried
}

/// What the shell says before it starts the program, having tried.
const CANNOT_WRITE: &[u8] = b"cannot write\n";

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
    let (full, partial) = (folder.path().join("full.lmdb"), convert::partial(&folder.path().join("full.lmdb")));
    let bytes = folder.path().join("whole.lmdb").metadata().unwrap().len();
    // Before the first page, in the first commit, between commits, and in the last.
    for limit in [1024, 20 << 10, bytes / 9, bytes / 2, bytes * 3 / 4, bytes - bytes / 100] {
        // The signal that would end the program is ignored, and stays so.
        let output = limited(folder.path(), limit, "trap '' XFSZ", "convert mnist full.lmdb");
        assert!(!output.status.success(), "a limit of {limit} bytes is too small for {bytes}");
        let text = render(folder.path(), &output);
        // LMDB says itself that there is no space where it could not write its first page.
        let reason = ["File too large", "No space left on device"].into_iter().any(|reason| text.contains(reason));
        assert!(text.contains("full.lmdb.partial: cannot") && reason, "{text}");
        assert!(!full.exists());
        assert!(Store::open(&partial).is_err(), "nothing half-made can be read");
    }
    assert!(partial.metadata().unwrap().len() > bytes / 2, "what was committed stays");
    assert!(pipeline(folder.path(), &["convert", "mnist", "full.lmdb"]).status.success());
    assert!(dump(&folder.path().join("whole.lmdb")) == dump(&full));
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
