//! What can go wrong between a data set, its store, and a batch.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a store could not be made, opened or read.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// A verb and its object: `open`, `write the records`.
        action: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// LMDB refused.
    #[error("{}: cannot {action}", path.display())]
    Database {
        /// The store.
        path: PathBuf,
        /// A verb and its object.
        action: &'static str,
        /// What LMDB said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data set could not be read.
    #[error("the data set cannot be read")]
    Dataset(#[source] datasets::Error),
    /// The file is no store of ours.
    #[error("{}: not a store: wanted {wanted}, found {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What a store has.
        wanted: &'static str,
        /// What the file has.
        found: String,
    },
    /// The store was written by another version of this program.
    #[error("{}: the store has format version {found}, this program reads versions {} and {}; convert the data set again", path.display(), wanted[0], wanted[1])]
    Version {
        /// The store.
        path: PathBuf,
        /// The versions that this program reads.
        wanted: [u32; 2],
        /// The version of the store.
        found: u64,
    },
    /// A record, or the store around it, is damaged.
    #[error("{}: {place}: {field}: wanted {wanted}, found {found}", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// Where in it: `split "train", record 7`.
        place: String,
        /// Which field there.
        field: &'static str,
        /// What should be there.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// The store has no such split.
    #[error("{}: no split {wanted:?}; there is {found}", path.display())]
    Split {
        /// The store.
        path: PathBuf,
        /// The name asked for.
        wanted: String,
        /// The names there are.
        found: String,
    },
    /// A conversion would overwrite something.
    #[error("{}: exists already; delete it, or convert to another name", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// Another process converts to the same target.
    #[error("{}: another conversion is writing it; wait for it or end it", path.display())]
    Busy {
        /// The half-made store.
        path: PathBuf,
    },
    /// A half-made store was begun from something else.
    #[error("{}: begun with another {field}: wanted {wanted}, found {found}; delete this file to start anew, or repeat the first command to continue", path.display())]
    Changed {
        /// The half-made store.
        path: PathBuf,
        /// What differs: `source`, `split`.
        field: &'static str,
        /// What this conversion has.
        wanted: String,
        /// What the half-made store has.
        found: String,
    },
    /// A picture cannot be used, and the conversion is strict.
    #[error("{name}: {reason}")]
    Picture {
        /// The picture, as its data set names it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of a loader's configuration asks for what cannot be.
    #[error("{field}: wanted {wanted}, found {found}")]
    Config {
        /// The field, dotted.
        field: String,
        /// What would do.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A record could be read, but not be made a part of a batch.
    #[error("{}: split {split:?}, record {index}", path.display())]
    Record {
        /// The store.
        path: PathBuf,
        /// The split's name.
        split: String,
        /// Position in the split.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The network refused.
    #[cfg(feature = "flight")]
    #[error("{address}: cannot {action}")]
    Network {
        /// Where to, or from.
        address: String,
        /// A verb and its object: `listen`, `reach the server`.
        action: &'static str,
        /// What the network said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A server refused.
    #[cfg(feature = "flight")]
    #[error("{address}: {reason}")]
    Refused {
        /// The server.
        address: String,
        /// What it said.
        reason: String,
    },
    /// A thread of a loader failed for no fault of the data.
    #[error("batch {batch} was not made: {reason}")]
    Worker {
        /// Its number in the epoch.
        batch: usize,
        /// What the thread said.
        reason: String,
    },
}

/// Why a record cannot be a part of a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Its bytes are not a picture.
    #[error("not a picture that can be decoded")]
    Decode(#[from] crate::decode::DecodeError),
    /// A step of its augmentation does not fit it.
    #[error("cannot be augmented")]
    Augment(#[from] crate::augment::AugmentError),
    /// It is of another shape than the others.
    #[error("cannot be put into the batch")]
    Shape(#[from] crate::collate::ShapeError),
}

/// The result of an operation of the pipeline.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }

    #[cfg(feature = "flight")]
    pub(crate) fn network(
        address: impl fmt::Display,
        action: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Network { address: address.to_string(), action, source: source.into() }
    }

    pub(crate) fn config(field: impl Into<String>, wanted: impl ToString, found: impl ToString) -> Self {
        Self::Config { field: field.into(), wanted: wanted.to_string(), found: found.to_string() }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        datasets::explain(self, f)
    }
}
