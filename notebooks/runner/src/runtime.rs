//! The program in which the cells run: loads each as a library, calls it, and puts in order what it prints.
//!
//! Not a module of the runner. It is compiled beside the library that cells link, against the same dynamic standard library, so that a
//! cell's panics come to the hook below and its open lines to the buffer that is flushed here. evcxr starts it, asks by lines
//! `LOAD_AND_RUN LIBRARY FUNCTION` on standard input, and reads its own marker lines from standard output.

#[path = "cells.rs"]
mod cells;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *mut c_char;
    fn dup2(from: c_int, to: c_int) -> c_int;
}

/// `RTLD_NOW` of every Unix: all symbols are looked up at once.
const NOW: c_int = 2;

fn main() {
    if std::env::var_os("EVCXR_WRAP_RUSTC").is_some() {
        // With `:cache`, evcxr takes this program for a wrapper of rustc.
        let mut args = std::env::args_os().skip(1);
        let error = Command::new(args.next().expect("rustc and its arguments")).args(args).exec();
        panic!("start rustc: {error}");
    }
    relay_stdout().expect("a pipe for the cells' output");
    std::panic::set_hook(Box::new(report_panic));
    let mut variables = std::ptr::null_mut();
    // A cell may read lines, too: none may lie in a buffer of ours.
    let mut line = String::new();
    while io::stdin().read_line(&mut line).is_ok_and(|length| length > 0) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["LOAD_AND_RUN", library, function] = words[..] else {
            eprintln!("not a request to run a cell: {line:?}");
            exit(99)
        };
        eprintln!("{}{}", cells::MARK, cells::BEGIN);
        match run(library, function, variables) {
            Ok(left) => variables = left,
            Err(error) => {
                eprintln!("{library}: cannot be loaded: {error}");
                exit(99)
            }
        }
        println!("EVCXR_EXECUTION_COMPLETE");
        line.clear();
    }
}

/// Loads a cell and runs it; takes and gives the variables that cells leave to one another.
fn run(library: &str, function: &str, variables: *mut c_void) -> Result<*mut c_void, String> {
    let (path, name) = (CString::new(library), CString::new(function));
    let (path, name) = (path.map_err(|error| error.to_string())?, name.map_err(|error| error.to_string())?);
    // SAFETY: both strings end with a zero and live until the calls return. The library stays loaded for good, as its code may be
    // called later: by values of its types, and by destructors of its thread's variables. evcxr wrote the library, and gives the
    // function of this name this type. `dlerror` gives null or a string that ends with a zero.
    unsafe {
        let handle = dlopen(path.as_ptr(), NOW);
        let symbol = if handle.is_null() { handle } else { dlsym(handle, name.as_ptr()) };
        if symbol.is_null() {
            let error = dlerror();
            return Err(if error.is_null() { "no reason given".to_owned() } else { CStr::from_ptr(error).to_string_lossy().into_owned() });
        }
        let cell = std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void) -> *mut c_void>(symbol);
        Ok(cell(variables))
    }
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
    // SAFETY: both descriptors are open; standard output is replaced before anything is printed.
    if unsafe { dup2(writer.as_raw_fd(), 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    std::thread::spawn(move || {
        // When evcxr or the terminal is gone, so is the reason to relay.
        let _ = cells::relay(BufReader::new(reader), to_evcxr, io::stderr());
    });
    Ok(())
}
