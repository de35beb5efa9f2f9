//! Batch buffers that come back.

use std::sync::{Mutex, PoisonError};

/// At most `most` buffers nobody uses now. Locked twice a batch, never within one.
#[derive(Debug)]
pub(super) struct Pool<T> {
    idle: Mutex<Vec<Vec<T>>>,
    most: usize,
}

impl<T: Copy + Default> Pool<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), most }
    }

    /// A buffer of `len` numbers, whichever.
    pub(super) fn take(&self, len: usize) -> Vec<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(mut buffer) => {
                buffer.resize(len, T::default());
                buffer
            }
            None => vec![T::default(); len],
        }
    }

    pub(super) fn put(&self, buffer: Vec<T>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(buffer);
        }
    }
}
