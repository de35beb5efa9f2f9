//! Where tensors live.

use candle::Device;

use crate::{Error, Result};

/// The device a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// The processor.
    Cpu,
    /// The first CUDA card; an error where there is none.
    Cuda,
    /// The first CUDA card where there is one, else the processor; [`pick`] logs which.
    #[default]
    Auto,
}

impl std::str::FromStr for Want {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "auto" => Ok(Self::Auto),
            other => Err(Error::mismatch("device", "cpu, cuda or auto", format!("`{other}`"))),
        }
    }
}

/// The device wanted. Never another in silence.
///
/// # Errors
/// When CUDA is asked for and this build or this machine has none.
pub fn pick(want: Want) -> Result<Device> {
    match want {
        Want::Cpu => Ok(Device::Cpu),
        Want::Cuda => cuda(),
        Want::Auto => {
            let device = cuda().unwrap_or(Device::Cpu);
            tracing::info!(device = name(&device), "device picked");
            Ok(device)
        }
    }
}

/// `cpu` or `cuda`.
pub fn name(device: &Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

fn cuda() -> Result<Device> {
    let missing = |found: String| Error::Device { wanted: "cuda".to_owned(), found };
    if !candle::utils::cuda_is_available() {
        return Err(missing("this build has no CUDA; build with `--features cuda`, or ask for `cpu`".to_owned()));
    }
    Device::new_cuda(0).map_err(|error| missing(format!("no usable card ({error}); ask for `cpu`")))
}
