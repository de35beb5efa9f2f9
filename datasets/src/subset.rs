//! A part of another data set, for trials that cannot take all of it.

use std::collections::BTreeMap;

use crate::{Dataset, Info, Result, Sample};

/// The first samples of each class of another data set, in its order. It has the name and the classes of the whole.
///
/// ```
/// use datasets::{Dataset, Seed, Shapes, Subset, synthetic::shapes};
///
/// let shapes = Shapes::new(shapes::Config::default(), Seed(0))?;
/// let few = Subset::per_class(shapes, &[20, 5])?;
/// assert_eq!(few.info().splits.iter().map(|split| split.len).collect::<Vec<_>>(), [160, 40]);
/// # Ok::<(), datasets::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Subset<D> {
    of: D,
    info: Info,
    /// For each split, which samples of the whole.
    chosen: Vec<Vec<usize>>,
}

impl<D: Dataset> Subset<D> {
    /// Of each class as many samples as `counts` has for the split, or all where there are fewer. Splits that `counts` does not reach stay
    /// whole. Samples are read until every class has enough.
    ///
    /// # Errors
    /// When a sample cannot be read.
    pub fn per_class(of: D, counts: &[usize]) -> Result<Self> {
        let mut info = of.info().clone();
        let mut chosen = Vec::new();
        for (at, split) in info.splits.iter_mut().enumerate() {
            let kept = match counts.get(at) {
                Some(&count) => first(&of, at, split.len, info.classes.len(), count)?,
                None => (0..split.len).collect(),
            };
            split.len = kept.len();
            chosen.push(kept);
        }
        Ok(Self { of, info, chosen })
    }
}

/// The first `count` samples of each class of a split.
fn first(of: &dyn Dataset, split: usize, len: usize, classes: usize, count: usize) -> Result<Vec<usize>> {
    let (mut left, mut kept) = (vec![count; classes], Vec::new());
    for index in 0..len {
        if left.iter().all(|&left| left == 0) {
            break;
        }
        let left = &mut left[of.get(split, index)?.label as usize];
        if *left > 0 {
            *left -= 1;
            kept.push(index);
        }
    }
    Ok(kept)
}

impl<D: Dataset> Dataset for Subset<D> {
    fn info(&self) -> &Info {
        &self.info
    }

    fn ignored(&self) -> BTreeMap<String, u64> {
        self.of.ignored()
    }

    fn stamp(&self, split: usize, index: usize) -> Option<[u64; 2]> {
        self.of.stamp(split, self.chosen[split][index])
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        self.of.get(split, self.chosen[split][index])
    }
}
