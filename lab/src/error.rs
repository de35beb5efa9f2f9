//! What can go wrong in the lab.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a network could not be built, run, trained, or its results read.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle::Error),
    /// A graph or a config does not add up.
    #[error("{what}: wanted {wanted}, found {found}")]
    Mismatch {
        /// The node, field or argument, by its dotted name.
        what: String,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// The file system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// A verb and its object: `open`, `write the checkpoint`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The device asked for is not there.
    #[error("device {wanted}: {found}")]
    Device {
        /// What was asked for.
        wanted: String,
        /// What there is instead.
        found: String,
    },
    /// A batch could not be had.
    #[error("the next batch could not be read")]
    Batch(#[source] datasets::BatchError),
    /// Training left the numbers.
    #[error("epoch {epoch}, step {step}: {first} is not finite (the loss is {loss}); a smaller learning rate or a warm-up may help")]
    Diverged {
        /// Of the step that was not made, in nats.
        loss: f64,
        /// Counted from 0.
        epoch: usize,
        /// Counted from 0, within the epoch.
        step: usize,
        /// Where it began, in words: the value of a node, the gradient at a node or of a parameter.
        first: String,
    },
}

/// The result of an operation of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn mismatch(what: impl Into<String>, wanted: impl ToString, found: impl ToString) -> Self {
        Self::Mismatch { what: what.into(), wanted: wanted.to_string(), found: found.to_string() }
    }

    pub(crate) fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        datasets::explain(self, f)
    }
}
