//! Networks by name or from a file, for pictures of some size.

use anyhow::{Context, Result, bail};
use lab::models::{NAMES, Spec, mobilenet_v2, named, resnet};

/// All names, for people.
pub(crate) fn names() -> String {
    NAMES.join(", ")
}

/// The network called `name`, or in the JSON file of this name, for square pictures of `size` pixels. Up to 64 pixels the first two strides, and
/// pooling at the entrance, are left out, as is usual for small pictures.
///
/// # Errors
/// When there is no such network, or it has no width to multiply.
pub(crate) fn network(name: &str, classes: usize, width: Option<f64>, size: usize) -> Result<Spec> {
    if name.ends_with(".json") {
        let text = std::fs::read_to_string(name).with_context(|| format!("{name}: cannot be read"))?;
        return serde_json::from_str(&text).with_context(|| format!("{name}: wanted an architecture"));
    }
    let Ok(spec) = named(name, classes) else { bail!("--model {name}: wanted a JSON file, or one of {}", names()) };
    let input = [3, size, size];
    Ok(match spec {
        Spec::MobilenetV2(config) => {
            let config = if size <= SMALL { config.cifar() } else { config };
            Spec::MobilenetV2(mobilenet_v2::Config { input, width: width.unwrap_or(config.width), ..config })
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
pub(crate) const SMALL: usize = 64;
