//! Files that one process at a time writes.

use std::fs::{File, TryLockError};
use std::time::Duration;

/// Locks a file unless another process has it locked.
///
/// Asked again for a tenth of a second: a process that another thread of this program is just starting has this program's open files, and so
/// their locks, until it has become its own program.
///
/// # Errors
/// When another process has it locked, or the file system knows no locks.
pub(crate) fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            done => return done,
        }
    }
    file.try_lock()
}
