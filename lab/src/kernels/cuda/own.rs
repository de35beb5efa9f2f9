//! Kernels of our own (`own.cu`): what a dropout keeps, and the largest weights of a layer.
//!
//! They are compiled when a process first needs one, by NVRTC, a library of the CUDA toolkit that candle is linked with anyway.

use std::sync::OnceLock;

use candle::backend::BackendStorage;
use candle::cuda_backend::cudarc::driver::{CudaFunction, CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg};
use candle::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle::cuda_backend::{CudaStorageSlice, WrapErr};
use candle::op::BackpropOp;
use candle::{CudaDevice, CudaStorage, Layout, Result, Storage, Tensor, bail};
use datasets::Seed;

/// For each of `len` places whether it keeps its number, 1, or not, 0, which it does with probability `p`: `(len)` of `u8`.
pub(in crate::kernels) fn draw(device: &CudaDevice, len: usize, p: f64, seed: Seed) -> Result<Tensor> {
    // SAFETY: the kernel writes all of it.
    let mut kept = unsafe { device.alloc::<u8>(len) }?;
    let (kernel, stream) = (function(device, "draw")?, device.cuda_stream());
    let (count, Seed(seed)) = (len as u64, seed);
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut kept).arg(&count).arg(&seed).arg(&p);
    // SAFETY: the arguments are those of `own.cu`; it writes no further than `count`.
    unsafe { launch.launch(grid(len)) }.w()?;
    let kept = CudaStorage::wrap_cuda_slice(kept, device.clone());
    Ok(Tensor::from_storage(Storage::Cuda(kept), len, BackpropOp::none(), false))
}

/// Whether [`top_k`] does numbers like these.
pub(in crate::kernels) fn selects(numbers: &Tensor) -> bool {
    use candle::DType::{BF16, F16, F32};
    numbers.device().is_cuda() && matches!(numbers.dtype(), F32 | F16 | BF16) && u32::try_from(numbers.elem_count()).is_ok()
}

/// The `count` numbers of largest magnitude, and 0 for the others; see [`top_k`](crate::kernels::top_k()).
pub(in crate::kernels) fn top_k(numbers: &CudaStorage, layout: &Layout, count: usize) -> Result<CudaStorage> {
    let Some((from, to)) = layout.contiguous_offsets() else { bail!("top_k: wanted a contiguous operand, found {layout:?}") };
    let (device, below) = (numbers.device(), to - from - count);
    let slice = match &numbers.slice {
        CudaStorageSlice::F32(slice) => CudaStorageSlice::F32(select(device, &slice.slice(from..to), "u32", below)?),
        CudaStorageSlice::F16(slice) => CudaStorageSlice::F16(select(device, &slice.slice(from..to), "u16", below)?),
        CudaStorageSlice::BF16(slice) => CudaStorageSlice::BF16(select(device, &slice.slice(from..to), "u16", below)?),
        _ => bail!("top_k: wanted f32, f16 or bf16, found another type"),
    };
    Ok(CudaStorage { slice, device: device.clone() })
}

/// All but the `below` smallest numbers, whose bits are of type `bits`.
fn select<T: DeviceRepr>(device: &CudaDevice, numbers: &CudaView<'_, T>, bits: &str, below: usize) -> Result<CudaSlice<T>> {
    let (mut found, mut bins) = (device.alloc_zeros::<u64>(2)?, device.alloc_zeros::<u32>(256)?);
    let (count, settle, keep) =
        (function(device, &format!("count_{bits}"))?, function(device, "settle")?, function(device, &format!("keep_{bits}"))?);
    let (stream, len, below, grid) = (device.cuda_stream(), numbers.len() as u64, below as u64, grid(numbers.len()));
    // Of a key: the bytes of a number, and four of its place.
    for digit in (0..size_of::<T>() as u32 + 4).rev() {
        let mut launch = stream.launch_builder(&count);
        launch.arg(numbers).arg(&len).arg(&digit).arg(&found).arg(&mut bins);
        // SAFETY: the arguments are those of `own.cu`, which reads `len` elements, and writes to as many bins as a byte has values.
        unsafe { launch.launch(grid) }.w()?;
        let mut launch = stream.launch_builder(&settle);
        launch.arg(&mut found).arg(&mut bins).arg(&digit).arg(&below);
        let alone = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of `own.cu`, which reads and writes the two numbers and the bins that were made above.
        unsafe { launch.launch(alone) }.w()?;
    }
    // SAFETY: the kernel writes all of it.
    let mut kept = unsafe { device.alloc::<T>(numbers.len()) }?;
    let mut launch = stream.launch_builder(&keep);
    launch.arg(&mut kept).arg(numbers).arg(&len).arg(&found);
    // SAFETY: the arguments are those of `own.cu`, which reads and writes `len` elements.
    unsafe { launch.launch(grid) }.w()?;
    Ok(kept)
}

/// A kernel of `own.cu` by its name.
fn function(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    /// A function of the source alone, for any card.
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || compile_ptx(include_str!("own.cu")).map(|ptx| ptx.to_src()).map_err(|error| error.to_string());
    match PTX.get_or_init(compile) {
        Ok(ptx) => Ok(device.get_or_load_custom_func(name, "topolab", ptx)?.into_cuda_function()),
        Err(error) => bail!("own.cu: wanted NVRTC to compile it, found {error}"),
    }
}

/// Threads for so many numbers: at most a few for each core of a card, as every loop goes on over the grid.
fn grid(len: usize) -> LaunchConfig {
    let blocks = len.div_ceil(256).clamp(1, 1024) as u32;
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (256, 1, 1), shared_mem_bytes: 0 }
}
