//! cuDNN seen from Rust: a handle for each thread and card, descriptions that are given back when dropped, memory as pointers.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::rc::Rc;

use candle::backend::BackendDevice;
use candle::cuda_backend::cudarc::cudnn::{result, sys};
use candle::cuda_backend::cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use candle::cuda_backend::{CudaStorageSlice, DeviceId};
use candle::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Tensor, bail};

use sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;

/// A library context, bound to the stream of one card.
pub(super) struct Handle(pub(super) sys::cudnnHandle_t);

thread_local! {
    /// Neither to be shared by threads nor sent to others. Few, so a list will do.
    static HANDLES: RefCell<Vec<(DeviceId, Rc<Handle>)>> = const { RefCell::new(Vec::new()) };
}

impl Handle {
    /// This thread's handle for a card.
    pub(super) fn of(device: &CudaDevice) -> Result<Rc<Self>> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread()?;
        HANDLES.with_borrow_mut(|handles| {
            if let Some((_, handle)) = handles.iter().find(|(id, _)| *id == device.id()) {
                return Ok(handle.clone());
            }
            let handle = Rc::new(Self(result::create_handle()?));
            // SAFETY: the handle was made above; the stream lives as long as the device, whose number is never given out again.
            unsafe { result::set_stream(handle.0, stream.cu_stream().cast()) }?;
            handles.push((device.id(), handle.clone()));
            Ok(handle)
        })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `create_handle` and given back once. Where the driver is gone before the thread there is nothing to save.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

/// A type for something that cuDNN keeps: made empty, given back when dropped.
macro_rules! description {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $create:path, $destroy:path) => {
        $(#[$doc])*
        pub(super) struct $name(pub(super) $raw);

        impl $name {
            fn empty() -> Result<Self> {
                Ok(Self($create()?))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                // SAFETY: made by `empty` and given back once.
                let _ = unsafe { $destroy(self.0) };
            }
        }
    };
}

description!(
    /// Type and sizes of a contiguous tensor `(n, c, h, w)`.
    Dense, sys::cudnnTensorDescriptor_t, result::create_tensor_descriptor, result::destroy_tensor_descriptor
);
description!(
    /// Type and sizes of a contiguous weight `(o, c / groups, kh, kw)`.
    Filter, sys::cudnnFilterDescriptor_t, result::create_filter_descriptor, result::destroy_filter_descriptor
);
description!(
    /// How a kernel is moved, and in what precision.
    Moves, sys::cudnnConvolutionDescriptor_t, result::create_convolution_descriptor, result::destroy_convolution_descriptor
);

impl Dense {
    pub(super) fn new(dtype: DType, dims: [usize; 4]) -> Result<Self> {
        let dense = Self::empty()?;
        // SAFETY: made above.
        unsafe { result::set_tensor4d_descriptor(dense.0, CUDNN_TENSOR_NCHW, data_type(dtype)?, ints(dims)?) }?;
        Ok(dense)
    }
}

impl Filter {
    pub(super) fn new(dtype: DType, dims: [usize; 4]) -> Result<Self> {
        let filter = Self::empty()?;
        // SAFETY: made above.
        unsafe { result::set_filter4d_descriptor(filter.0, data_type(dtype)?, CUDNN_TENSOR_NCHW, ints(dims)?) }?;
        Ok(filter)
    }
}

impl Moves {
    pub(super) fn new(dtype: DType, conv: &crate::kernels::Conv) -> Result<Self> {
        let moves = Self::empty()?;
        let [pad_h, pad_w] = ints([conv.padding.0, conv.padding.1])?;
        let [stride_h, stride_w] = ints([conv.stride.0, conv.stride.1])?;
        let [dilation_h, dilation_w] = ints([conv.dilation.0, conv.dilation.1])?;
        let [groups] = ints([conv.groups])?;
        let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let sums = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        // For `f32` the default allows TF32; half precision wants tensor cores asked for.
        let math = match dtype {
            DType::F32 => sys::cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        // SAFETY: made above.
        unsafe {
            result::set_convolution2d_descriptor(moves.0, pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, mode, sums)?;
            result::set_convolution_group_count(moves.0, groups)?;
            result::set_convolution_math_type(moves.0, math)?;
        }
        Ok(moves)
    }
}

/// Whether cuDNN does tensors like this one.
pub(in crate::kernels) fn takes(xs: &Tensor) -> bool {
    xs.device().is_cuda() && data_type(xs.dtype()).is_ok()
}

fn data_type(dtype: DType) -> Result<sys::cudnnDataType_t> {
    match dtype {
        DType::F32 => Ok(sys::cudnnDataType_t::CUDNN_DATA_FLOAT),
        DType::F16 => Ok(sys::cudnnDataType_t::CUDNN_DATA_HALF),
        DType::BF16 => Ok(sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16),
        other => bail!("cuDNN: wanted f32, f16 or bf16, found {}", other.as_str()),
    }
}

fn ints<const N: usize>(numbers: [usize; N]) -> Result<[c_int; N]> {
    let mut ints = [0; N];
    for (int, number) in ints.iter_mut().zip(numbers) {
        let Ok(fits) = c_int::try_from(number) else { bail!("cuDNN: wanted sizes below 2³¹, found {number}") };
        *int = fits;
    }
    Ok(ints)
}

/// Numbers on a card that a kernel reads. Held until the kernel is in the stream.
pub(super) struct Read<'a> {
    pub(super) at: *const c_void,
    _until_launched: SyncOnDrop<'a>,
}

/// A contiguous operand.
pub(super) fn read<'a>(storage: &'a CudaStorage, layout: &Layout, stream: &'a CudaStream) -> Result<Read<'a>> {
    if !layout.is_contiguous() {
        bail!("cuDNN: wanted contiguous operands, found {layout:?}")
    }
    let (first, guard) = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(stream),
        CudaStorageSlice::F16(slice) => slice.device_ptr(stream),
        CudaStorageSlice::BF16(slice) => slice.device_ptr(stream),
        _ => bail!("cuDNN: wanted f32, f16 or bf16, found another type"),
    };
    let offset = layout.start_offset() * element_size(&storage.slice);
    Ok(Read { at: (first + offset as u64) as *const c_void, _until_launched: guard })
}

/// Numbers on a card that a kernel writes.
pub(super) struct Written<'a> {
    pub(super) at: *mut c_void,
    _until_launched: SyncOnDrop<'a>,
}

/// All of a storage.
pub(super) fn write<'a>(storage: &'a mut CudaStorage, stream: &'a CudaStream) -> Result<Written<'a>> {
    let (first, guard) = match &mut storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::F16(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::BF16(slice) => slice.device_ptr_mut(stream),
        CudaStorageSlice::U8(slice) => slice.device_ptr_mut(stream),
        _ => bail!("cuDNN: wanted f32, f16, bf16 or bytes, found another type"),
    };
    Ok(Written { at: first as *mut c_void, _until_launched: guard })
}

fn element_size(slice: &CudaStorageSlice) -> usize {
    if matches!(slice, CudaStorageSlice::F32(_)) { 4 } else { 2 }
}

/// Memory for a result that a kernel writes whole, or for its scratch. From the pool of the device's stream: nothing waits.
pub(super) fn fresh(device: &CudaDevice, dtype: DType, shape: impl Into<Shape>) -> Result<CudaStorage> {
    // SAFETY: whoever asks writes all of it before anything reads it.
    unsafe { device.alloc_uninit(&shape.into(), dtype) }
}

/// The factors that cuDNN wants beside every operation: the result as it is, nothing of what was there. `f32` for all types here.
pub(super) const ONE: *const c_void = (&raw const NUMBERS[0]).cast();
pub(super) const ZERO: *const c_void = (&raw const NUMBERS[1]).cast();
static NUMBERS: [f32; 2] = [1.0, 0.0];
