//! Networks for ImageNet by the names that torchvision and the NN-Mass study give them.

use super::{Spec, mobilenet_v2, resnet};
use crate::{Error, Result};

/// The names that [`named`] knows.
pub const NAMES: [&str; 11] = [
    "mobilenet_v2",
    "nn_mass_b",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
];

/// The network of that name, for pictures of 3×224×224. A mobile one has its plain width; its config takes another.
///
/// ```
/// use datasets::Seed;
/// use lab::metrics::profile;
///
/// let graph = lab::models::named("nn_mass_b", 1000)?.graph(Seed(0))?;
/// assert_eq!(profile::of(&graph).params, 3_701_560);
/// # Ok::<(), lab::Error>(())
/// ```
///
/// # Errors
/// When the name is none of [`NAMES`].
pub fn named(name: &str, classes: usize) -> Result<Spec> {
    Ok(match name {
        "mobilenet_v2" => Spec::MobilenetV2(mobilenet_v2::Config::imagenet(1.0, classes)),
        "nn_mass_b" => Spec::MobilenetV2(mobilenet_v2::Config::deeper(1.0, classes)),
        "resnet18" => Spec::Resnet(resnet::Config::r18(classes)),
        "resnet34" => Spec::Resnet(resnet::Config::r34(classes)),
        "resnet50" => Spec::Resnet(resnet::Config::r50(classes)),
        "resnet101" => Spec::Resnet(resnet::Config::r101(classes)),
        "resnet152" => Spec::Resnet(resnet::Config::r152(classes)),
        "resnext50_32x4d" => Spec::Resnet(resnet::Config::x50(classes)),
        "resnext101_32x8d" => Spec::Resnet(resnet::Config::x101(classes)),
        "wide_resnet50_2" => Spec::Resnet(resnet::Config::wide50(classes)),
        "wide_resnet101_2" => Spec::Resnet(resnet::Config::wide101(classes)),
        other => return Err(Error::mismatch("network", format!("one of {}", NAMES.join(", ")), other)),
    })
}
