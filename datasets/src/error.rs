//! What can go wrong when samples are read.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a data set could not be read.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// A verb and its object: `open`, `read the header`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder is not what it should be.
    #[error("{}: {field}: wanted {wanted}, found {found}", path.display())]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// Which part of it, with a record's number where there is one.
        field: String,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A setting asks for something that cannot be.
    #[error("{what}: {field}: wanted {wanted}, found {found}")]
    Config {
        /// What is being set up.
        what: &'static str,
        /// Which field of its configuration.
        field: &'static str,
        /// What it may be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A server did not hand over what was asked for.
    #[error("{url}: cannot {action}")]
    Download {
        /// What was asked for.
        url: String,
        /// A verb and its object.
        action: &'static str,
        /// What the network or the server said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The result of reading.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }

    pub(crate) fn config(what: &'static str, field: &'static str, wanted: impl ToString, found: impl ToString) -> Self {
        Self::Config { what, field, wanted: wanted.to_string(), found: found.to_string() }
    }

    pub(crate) fn format(path: impl AsRef<Path>, field: impl Into<String>, wanted: impl ToString, found: impl ToString) -> Self {
        Self::Format { path: path.as_ref().to_owned(), field: field.into(), wanted: wanted.to_string(), found: found.to_string() }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        explain(self, f)
    }
}

/// An error and its causes, a line each. It is how our errors show themselves where `Debug` is asked for: by `unwrap` in a test, by
/// `main`, by `?` in a notebook cell.
///
/// # Errors
/// When the formatter has no room.
pub fn explain(error: &dyn std::error::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(f, "\n  caused by: {error}")?;
        cause = error.source();
    }
    Ok(())
}
