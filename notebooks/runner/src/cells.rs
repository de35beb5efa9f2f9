//! The process in which the cells run: what it prints is put in order here, and how each cell ended is reported.
//!
//! evcxr reads this process's standard output, takes its own marker lines out, and drops two facts that a caller wants:
//! whether a cell panicked, and whether a `?` ended it early. So the output is read here first. Marker lines go on
//! to evcxr; the other lines join standard error, in the order in which they were printed, and each cell's last is
//! followed by a line that says how it ended.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;

/// Begins every line that this process adds to its standard error.
pub(crate) const MARK: char = '\u{1}';
/// After [`MARK`]: a line of standard output.
pub(crate) const STDOUT: &str = "out ";
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

/// In the process that evcxr starts for the cells: runs them, and never returns. Elsewhere: does nothing.
pub(crate) fn enter_if_runtime() {
    if std::env::var_os("EVCXR_IS_RUNTIME").is_some() {
        relay_stdout().expect("a pipe for the cells' output");
        std::panic::set_hook(Box::new(report_panic));
    }
    evcxr::runtime_hook();
}

/// The message alone: the backtrace that evcxr asks for shows its generated code and little else.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    let mut stderr = io::stderr();
    let _ = match info.location() {
        // Positions in the cell's own crate are positions in generated code.
        Some(at) if !at.file().ends_with("src/lib.rs") => writeln!(stderr, "panicked at {at}: {message}"),
        _ => writeln!(stderr, "panicked: {message}"),
    };
}

fn relay_stdout() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let to_evcxr = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdout(&writer)?;
    std::thread::spawn(move || {
        // When evcxr or the terminal is gone, so is the reason to relay.
        let _ = relay(BufReader::new(reader), to_evcxr, io::stderr());
    });
    Ok(())
}

/// What evcxr prints for itself.
const MARKERS: [&str; 5] = [
    "EVCXR_BEGIN_CONTENT ",
    "EVCXR_ERROR_OCCURRED",
    "EVCXR_EXECUTION_COMPLETE",
    "EVCXR_PANIC_NOTIFICATION",
    "EVCXR_VARIABLE_CHANGED_TYPE:",
];

fn relay(mut from: impl BufRead, mut to_evcxr: impl Write, mut to_stderr: impl Write) -> io::Result<()> {
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
