//! Memory that may be somebody else's.

use std::fmt;
use std::ops::Deref;

/// Numbers in memory of their own, or in memory that somebody lends, who has it back when they are dropped: a server's, for one, that a
/// batch was made in and is read in. Read like a slice.
pub struct Buffer<T>(Held<T>);

enum Held<T> {
    Own(Vec<T>),
    Lent(Box<dyn AsRef<[T]> + Send + Sync>),
}

impl<T> Buffer<T> {
    /// Numbers in the memory of `lender`, which is dropped with them.
    pub fn lent(lender: impl AsRef<[T]> + Send + Sync + 'static) -> Self {
        Self(Held::Lent(Box::new(lender)))
    }

    /// The vector, to be used again; what was lent goes back instead.
    pub fn into_own(self) -> Option<Vec<T>> {
        match self.0 {
            Held::Own(values) => Some(values),
            Held::Lent(_) => None,
        }
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Held::Own(values))
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::Own(values) => values,
            Held::Lent(lender) => (**lender).as_ref(),
        }
    }
}

/// The copy is in memory of its own.
impl<T: Clone> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        self.to_vec().into()
    }
}

impl<T: PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl<T: fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}
