//! Batch buffers that come back, and memory that others lend for a batch.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;
use datasets::Buffer;

/// At most `most` buffers nobody uses now. Locked twice a batch, never within one.
#[derive(Debug)]
pub(super) struct Pool<T> {
    idle: Mutex<Vec<Vec<T>>>,
    most: usize,
}

impl<T: Pod> Pool<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), most }
    }

    /// A buffer of `len` numbers, whichever.
    pub(super) fn take(&self, len: usize) -> Vec<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(mut buffer) => {
                buffer.resize(len, T::zeroed());
                buffer
            }
            None => vec![T::zeroed(); len],
        }
    }

    /// Keeps a buffer for later; what was lent goes back.
    pub(super) fn put(&self, buffer: Buffer<T>) {
        let Some(buffer) = buffer.into_own() else { return };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(buffer);
        }
    }
}

/// Memory that somebody lends for one batch, and has back when this is dropped.
pub(crate) trait Loan: AsRef<[u8]> + AsMut<[u8]> + Send + Sync {}

impl<L: AsRef<[u8]> + AsMut<[u8]> + Send + Sync> Loan for L {}

/// The numbers of a batch in the making.
pub(super) enum Space<T> {
    Own(Vec<T>),
    Lent(Lent<T>),
}

/// As many numbers as begin a loan.
pub(super) struct Lent<T> {
    loan: Box<dyn Loan>,
    len: usize,
    _numbers: PhantomData<T>,
}

impl<T: Pod> Space<T> {
    /// `len` numbers, whichever, of the loan if there is one.
    ///
    /// # Panics
    /// When the loan is too short, or not aligned for such numbers.
    pub(super) fn new(pool: &Pool<T>, loan: Option<Box<dyn Loan>>, len: usize) -> Self {
        match loan {
            None => Self::Own(pool.take(len)),
            Some(loan) => Self::Lent(Lent { loan, len, _numbers: PhantomData }),
        }
    }
}

impl<T: Pod> Deref for Space<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Own(values) => values,
            Self::Lent(lent) => lent.as_ref(),
        }
    }
}

impl<T: Pod> DerefMut for Space<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Own(values) => values,
            Self::Lent(Lent { loan, len, .. }) => bytemuck::cast_slice_mut(&mut (**loan).as_mut()[..*len * size_of::<T>()]),
        }
    }
}

impl<T: Pod> AsRef<[T]> for Lent<T> {
    fn as_ref(&self) -> &[T] {
        bytemuck::cast_slice(&(*self.loan).as_ref()[..self.len * size_of::<T>()])
    }
}

impl<T: Pod + Send + Sync> From<Space<T>> for Buffer<T> {
    fn from(space: Space<T>) -> Self {
        match space {
            Space::Own(values) => values.into(),
            Space::Lent(lent) => Self::lent(lent),
        }
    }
}
