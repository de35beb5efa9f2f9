//! Mixed precision: which operation computes in which type, after PyTorch's autocast.

use candle::{DType, Result, Tensor};

use crate::graph::Op;

/// The two types of a run in mixed precision. Parameters are kept in the wide one and cast where they are used, so that their gradients,
/// which flow back through the cast, are wide too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mixed {
    pub(super) narrow: DType,
    pub(super) wide: DType,
}

impl Mixed {
    /// The inputs of `op` in the type in which it computes them: sums of products in the narrow one, for which cards have their fastest
    /// units; exponentials and norms of single samples in the wide one; all else, batch norm and pooling too, as it comes, and where
    /// several come together in the widest of them.
    pub(super) fn cast(self, op: &Op, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        match op {
            Op::Conv(_) | Op::Linear(_) | Op::Matmul => inputs.iter().map(|input| input.to_dtype(self.narrow)).collect(),
            Op::Softmax { .. } | Op::LayerNorm { .. } | Op::InstanceNorm { .. } => {
                inputs.iter().map(|input| input.to_dtype(self.wide)).collect()
            }
            _ => alike(inputs),
        }
    }
}

/// All in the widest of their types.
pub(super) fn alike(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    let widest = inputs.iter().map(|input| input.dtype()).max_by_key(DType::size_in_bytes);
    inputs.iter().map(|input| input.to_dtype(widest.unwrap_or(input.dtype()))).collect()
}
