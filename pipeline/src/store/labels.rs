//! The classes of a split's records, all at once.

use std::sync::{Arc, OnceLock};

use super::Store;
use crate::Result;

/// Those of each split, once someone has asked for them.
#[derive(Debug)]
pub(super) struct Labels(Vec<OnceLock<Arc<[u32]>>>);

impl Labels {
    pub(super) fn new(splits: usize) -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(splits).collect())
    }
}

impl Store {
    /// The class of each record of a split. The first time, each record's head is read, from the first record to the last; they are kept.
    ///
    /// # Errors
    /// When a record cannot be read.
    ///
    /// # Panics
    /// When there is no split of this number.
    pub fn labels(&self, split: usize) -> Result<Arc<[u32]>> {
        let kept = &self.open.labels.0[split];
        if let Some(labels) = kept.get() {
            return Ok(Arc::clone(labels));
        }
        let reader = self.reader()?;
        let labels = (0..self.len(split)).map(|index| Ok(reader.record(split, index)?.label)).collect::<Result<_>>()?;
        // Two who ask at once find the same.
        Ok(Arc::clone(kept.get_or_init(|| labels)))
    }
}
