//! The processes below this one.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Kills all processes below this one, but for `spared` and those below it.
///
/// They are found in `/proc`; where there is none, nothing is killed.
pub(crate) fn kill_descendants(spared: u32) {
    let parents = parents();
    let own = getpid().as_raw_nonzero().get().unsigned_abs();
    for &process in parents.keys() {
        if is_below(process, own, spared, &parents)
            && let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether a process is below `own`, and neither `spared` nor below that.
fn is_below(process: u32, own: u32, spared: u32, parents: &BTreeMap<u32, u32>) -> bool {
    let mut at = process;
    while at != spared
        && let Some(&parent) = parents.get(&at)
    {
        if parent == own {
            return true;
        }
        at = parent;
    }
    false
}

/// The parent of each process.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter_map(|process: u32| Some((process, parent(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?))).collect()
}

/// The parent in a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT ...`, where the name may hold anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn parents_are_found_behind_any_name() {
        assert_eq!(parent("17 (a) b) S 4 17 17 0"), Some(4));
        assert_eq!(parent("17 (rustc"), None);
    }

    #[test]
    fn what_is_spared_is_spared_with_all_below_it() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 2), (5, 4), (9, 8)]);
        let below: Vec<u32> = parents.keys().copied().filter(|&process| is_below(process, 2, 4, &parents)).collect();
        assert_eq!(below, [3]);
    }

    #[test]
    fn children_are_killed() {
        let sleep = || Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let (mut spared, mut other) = (sleep(), sleep());
        kill_descendants(spared.id());
        assert!(!other.wait().unwrap().success());
        assert!(spared.try_wait().unwrap().is_none());
        spared.kill().unwrap();
        spared.wait().unwrap();
    }
}
