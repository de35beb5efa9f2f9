//! Per-channel means and standard deviations.

use datasets::Normalize;
use serde::{Deserialize, Serialize};

use super::Contrast;
use crate::loader::Output;
use crate::{Error, Result};

/// Which constants bring pixels to mean 0 and standard deviation 1.
///
/// The right ones are the store's own. The others are what papers printed; where a paper divides by a standard deviation that was averaged over
/// single pictures, and so is too small, its choice is called `…Compat`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constants {
    /// Those of the store's `train` split.
    #[default]
    Store,
    /// None: pixels become `p / 255`.
    None,
    /// 0.1307, 0.3081.
    Mnist,
    /// 0.2860, 0.3530.
    FashionMnist,
    /// 0.1904, 0.3475.
    Kmnist,
    /// 0.4914 0.4822 0.4465, 0.2470 0.2435 0.2616.
    Cifar10,
    /// 0.4914 0.4822 0.4465, 0.2023 0.1994 0.2010: NN-Mass, layer-wise features.
    Cifar10Compat,
    /// 0.5071 0.4866 0.4409, 0.2673 0.2564 0.2762.
    Cifar100,
    /// 0.5071 0.4866 0.4409, 0.2009 0.1984 0.2023: NN-Mass.
    Cifar100Compat,
    /// 0.485 0.456 0.406, 0.229 0.224 0.225.
    #[serde(rename = "imagenet")]
    ImageNet,
    /// These.
    Given(Normalize),
    /// None for all pictures, but for each its own (global contrast normalisation). Only with [`Output::F32`].
    Contrast(Contrast),
}

impl Constants {
    pub(crate) fn check(&self, output: Output) -> Result<()> {
        match self {
            Self::Contrast(_) if output != Output::F32 => {
                Err(Error::config("output", "f32, since with `contrast` each picture has numbers of its own", "u8"))
            }
            Self::Contrast(contrast) => contrast.check(),
            _ => Ok(()),
        }
    }

    /// The numbers, one per channel of `channels`; one number for all channels is repeated.
    ///
    /// # Errors
    /// When the store, whose own are `stored`, has none; when there are more than one and not as many as channels; when a deviation is not positive.
    pub fn resolve(&self, stored: Option<&Normalize>, channels: usize) -> Result<Option<Normalize>> {
        let rgb = |mean: [f32; 3], std: [f32; 3]| Normalize { mean: mean.to_vec(), std: std.to_vec() };
        let grey = |mean: f32, std: f32| Normalize { mean: vec![mean], std: vec![std] };
        let Normalize { mean, std } = match self {
            Self::None | Self::Contrast(_) => return Ok(None),
            Self::Store => {
                let missing = || {
                    Error::config(
                        "normalize",
                        "a store with means and deviations, or constants by name (`none`, `imagenet`)",
                        "a store without",
                    )
                };
                stored.cloned().ok_or_else(missing)?
            }
            Self::Mnist => grey(0.1307, 0.3081),
            Self::FashionMnist => grey(0.2860, 0.3530),
            Self::Kmnist => grey(0.190_362_02, 0.347_463_2),
            Self::Cifar10 => rgb([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
            Self::Cifar10Compat => rgb([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            Self::Cifar100 => rgb([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762]),
            Self::Cifar100Compat => rgb([0.5071, 0.4866, 0.4409], [0.2009, 0.1984, 0.2023]),
            Self::ImageNet => rgb([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            Self::Given(given) => given.clone(),
        };
        let spread = |field: &str, numbers: Vec<f32>| match numbers.len() {
            n if n == channels => Ok(numbers),
            1 => Ok(vec![numbers[0]; channels]),
            n => Err(Error::config(format!("normalize.{field}"), format!("a number a channel ({channels})"), format!("{n} numbers"))),
        };
        let (mean, std) = (spread("mean", mean)?, spread("std", std)?);
        match std.iter().find(|&&std| !(std > 0.0 && std.is_finite())) {
            Some(std) => Err(Error::config("normalize.std", "positive numbers", std)),
            None => Ok(Some(Normalize { mean, std })),
        }
    }
}
