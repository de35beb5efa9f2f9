//! What the process of the cells prints is put in order here, and how each cell ended is reported.
//!
//! evcxr reads this process's standard output, takes its own marker lines out, and drops two facts that a caller wants:
//! whether a cell panicked, and whether a `?` ended it early. So the output is read here first. Marker lines go on
//! to evcxr; the other lines join standard error, in the order in which they were printed, and each cell's last is
//! followed by a line that says how it ended.

#![cfg_attr(not(test), allow(dead_code, reason = "the runner and the program that runs cells each use a part"))]

use std::io::{self, BufRead, Write};

/// Begins every line that this process adds to its standard error.
pub(crate) const MARK: char = '\u{1}';
/// After [`MARK`]: a line of standard output.
pub(crate) const STDOUT: &str = "out ";
/// After [`MARK`]: a cell was compiled, and begins to run.
pub(crate) const BEGIN: &str = "begin";
/// After [`MARK`]: the end of a cell, then one of [`Ending`]'s names.
pub(crate) const END: &str = "end ";

/// How a cell ended that was compiled and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Not yet: it is the last cell of ours, and says so before its own end. Those of the user follow.
    Loaded,
    /// It ran to its end.
    Done,
    /// A `?` met an error.
    Error,
    /// It panicked.
    Panic,
}

impl Ending {
    /// What stands after [`END`].
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ending::Loaded => "loaded",
            Ending::Done => "done",
            Ending::Error => "error",
            Ending::Panic => "panic",
        }
    }

    /// The ending of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Ending::Loaded, Ending::Done, Ending::Error, Ending::Panic].into_iter().find(|ending| ending.name() == name)
    }
}

/// What evcxr prints for itself.
const MARKERS: [&str; 5] = [
    "EVCXR_BEGIN_CONTENT ",
    "EVCXR_ERROR_OCCURRED",
    "EVCXR_EXECUTION_COMPLETE",
    "EVCXR_PANIC_NOTIFICATION",
    "EVCXR_VARIABLE_CHANGED_TYPE:",
];

/// Parts what cells print from what evcxr waits for, until the input ends.
///
/// # Errors
/// When one side cannot be read or written.
pub(crate) fn relay(mut from: impl BufRead, mut to_evcxr: impl Write, mut to_stderr: impl Write) -> io::Result<()> {
    let mut ending = Ending::Done;
    let mut repeated = false; // evcxr runs a cell again after a variable changed its type
    let mut content = false;
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes).into_owned();
        bytes.clear();
        let line = line.strip_suffix('\n').unwrap_or(&line);
        // A cell whose `print!` left its line open has a marker at the end of that line.
        let (text, marker) = match MARKERS.iter().filter_map(|marker| line.find(marker)).min() {
            _ if content => ("", line),
            Some(at) => line.split_at(at),
            None => (line, ""),
        };
        if !text.is_empty() || (marker.is_empty() && !content) {
            writeln!(to_stderr, "{MARK}{STDOUT}{text}")?;
        }
        match marker {
            "EVCXR_PANIC_NOTIFICATION" => (ending, content) = (Ending::Panic, false),
            "EVCXR_ERROR_OCCURRED" => ending = Ending::Error,
            "EVCXR_END_CONTENT" => content = false,
            "EVCXR_EXECUTION_COMPLETE" => {
                if !repeated {
                    writeln!(to_stderr, "{MARK}{END}{}", ending.name())?;
                }
                (ending, repeated) = (Ending::Done, false);
            }
            marker if marker.starts_with("EVCXR_VARIABLE_CHANGED_TYPE:") => repeated = true,
            marker if marker.starts_with("EVCXR_BEGIN_CONTENT ") => content = true,
            _ => {}
        }
        if content || !marker.is_empty() {
            writeln!(to_evcxr, "{marker}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(printed: &str, evcxr: &str, stderr: &str) {
        let (mut to_evcxr, mut to_stderr) = (Vec::new(), Vec::new());
        relay(printed.as_bytes(), &mut to_evcxr, &mut to_stderr).expect("memory takes every write");
        assert_eq!(String::from_utf8(to_evcxr).unwrap(), evcxr);
        assert_eq!(String::from_utf8(to_stderr).unwrap().replace(MARK, "·"), stderr);
    }

    #[test]
    fn lines_and_markers_part() {
        check("one\n\ntwo\nEVCXR_EXECUTION_COMPLETE\n", "EVCXR_EXECUTION_COMPLETE\n", "·out one\n·out \n·out two\n·end done\n");
    }

    #[test]
    fn an_open_line_before_a_marker_is_closed() {
        check("open EVCXR_EXECUTION_COMPLETE\n", "EVCXR_EXECUTION_COMPLETE\n", "·out open \n·end done\n");
    }

    #[test]
    fn endings_are_told_and_forgotten() {
        check(
            "EVCXR_ERROR_OCCURRED\nEVCXR_EXECUTION_COMPLETE\nEVCXR_PANIC_NOTIFICATION\nEVCXR_EXECUTION_COMPLETE\nEVCXR_EXECUTION_COMPLETE\n",
            "EVCXR_ERROR_OCCURRED\nEVCXR_EXECUTION_COMPLETE\nEVCXR_PANIC_NOTIFICATION\nEVCXR_EXECUTION_COMPLETE\nEVCXR_EXECUTION_COMPLETE\n",
            "·end error\n·end panic\n·end done\n",
        );
    }

    #[test]
    fn content_is_evcxrs_alone() {
        let block = "EVCXR_BEGIN_CONTENT text/html\n<b>\n\n</b>\nEVCXR_END_CONTENT\n";
        check(&format!("{block}after\n"), block, "·out after\n");
    }

    #[test]
    fn a_repeated_cell_ends_once() {
        check(
            "EVCXR_VARIABLE_CHANGED_TYPE:x\nEVCXR_EXECUTION_COMPLETE\nEVCXR_EXECUTION_COMPLETE\n",
            "EVCXR_VARIABLE_CHANGED_TYPE:x\nEVCXR_EXECUTION_COMPLETE\nEVCXR_EXECUTION_COMPLETE\n",
            "·end done\n",
        );
    }
}
