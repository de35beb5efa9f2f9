//! Where a run works: what it asks for, and what it tells.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::train::{Checkpoint, Epoch};

/// The memory that runs share.
#[derive(Debug)]
pub(super) struct Room {
    limit: Option<u64>,
    taken: Mutex<u64>,
    freed: Condvar,
}

impl Room {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until so many bytes are free, or all are.
    fn take(&self, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut u64| *taken > 0 && *taken + bytes > limit;
        let mut taken = self.freed.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
    }

    fn give(&self, bytes: u64) {
        if self.limit.is_some() {
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
            self.freed.notify_all();
        }
    }
}

/// What a run of a sweep has of the sweep.
pub struct Desk<'a> {
    room: &'a Room,
    taken: Cell<u64>,
    checkpoint: Option<(PathBuf, usize)>,
    tell: &'a dyn Fn(&Epoch),
}

impl<'a> Desk<'a> {
    pub(super) fn new(room: &'a Room, checkpoint: Option<(PathBuf, usize)>, tell: &'a dyn Fn(&Epoch)) -> Self {
        Self { room, taken: Cell::new(0), checkpoint, tell }
    }

    /// Bytes that the runs at once may take together.
    pub fn memory(&self) -> Option<u64> {
        self.room.limit
    }

    /// Waits until `bytes` are free beside what the other runs took; they are free again when the run is over. A run takes once, before it
    /// has anything: one that held something while it waits could be waited for by another that does the same. What no limit
    /// allows is given to a run that is alone.
    ///
    /// # Panics
    /// When this run has taken before.
    pub fn take(&self, bytes: u64) {
        assert_eq!(self.taken.get(), 0, "a run takes memory once");
        self.room.take(bytes);
        self.taken.set(bytes);
    }

    /// Where the run may keep itself, for the case that it is killed.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint.clone().map(|(folder, every)| Checkpoint { folder, every })
    }

    /// Tells whoever follows the sweep that an epoch is done.
    pub fn epoch(&self, row: &Epoch) {
        (self.tell)(row);
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        self.room.give(self.taken.get());
    }
}
