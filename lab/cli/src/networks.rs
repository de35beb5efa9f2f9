//! Networks by the names that other programs give them.

use std::path::Path;

use anyhow::{Context, Result, bail};
use lab::models::{Spec, mobilenet_v2, resnet};

/// Names, and what they stand for at `classes` classes and a multiple `width` of the channels, for pictures of 224×224.
type Named = (&'static str, fn(usize, f64) -> Spec);

const NAMES: [Named; 11] = [
    ("mobilenet_v2", |classes, width| Spec::MobilenetV2(mobilenet_v2::Config::imagenet(width, classes))),
    ("nn_mass_b", |classes, width| Spec::MobilenetV2(mobilenet_v2::Config::deeper(width, classes))),
    ("resnet18", |classes, _| Spec::Resnet(resnet::Config::r18(classes))),
    ("resnet34", |classes, _| Spec::Resnet(resnet::Config::r34(classes))),
    ("resnet50", |classes, _| Spec::Resnet(resnet::Config::r50(classes))),
    ("resnet101", |classes, _| Spec::Resnet(resnet::Config::r101(classes))),
    ("resnet152", |classes, _| Spec::Resnet(resnet::Config::r152(classes))),
    ("resnext50_32x4d", |classes, _| Spec::Resnet(resnet::Config::x50(classes))),
    ("resnext101_32x8d", |classes, _| Spec::Resnet(resnet::Config::x101(classes))),
    ("wide_resnet50_2", |classes, _| Spec::Resnet(resnet::Config::wide50(classes))),
    ("wide_resnet101_2", |classes, _| Spec::Resnet(resnet::Config::wide101(classes))),
];

/// All names, for people.
pub(crate) fn names() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

/// The network called `name`, or in the JSON file of this name, for square pictures of `size` pixels. Up to 64 pixels the first two strides, and
/// pooling at the entrance, are left out, as is usual for small pictures.
///
/// # Errors
/// When there is no such network, or it has no width to multiply.
pub(crate) fn network(name: &str, classes: usize, width: Option<f64>, size: usize) -> Result<Spec> {
    let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, spec)| spec(classes, width.unwrap_or(1.0)));
    let spec = match found {
        Some(spec) => spec,
        None if name.ends_with(".json") => {
            let text = std::fs::read_to_string(Path::new(name)).with_context(|| format!("{name}: cannot be read"))?;
            return serde_json::from_str(&text).with_context(|| format!("{name}: wanted an architecture"));
        }
        None => bail!("--model {name}: wanted a JSON file, or one of {}", names()),
    };
    let input = [3, size, size];
    Ok(match spec {
        Spec::MobilenetV2(config) => {
            let config = if size <= SMALL { config.cifar() } else { config };
            Spec::MobilenetV2(mobilenet_v2::Config { input, ..config })
        }
        Spec::Resnet(_) if width.is_some() => bail!("--width-mult: wanted one of the mobile networks, found {name}"),
        Spec::Resnet(config) => {
            let config = if size <= SMALL { config.cifar() } else { config };
            Spec::Resnet(resnet::Config { input, ..config })
        }
        other => other,
    })
}

/// Pictures of so many pixels a side, and fewer, are small.
const SMALL: usize = 64;
