//! The lists of steps that papers use, by name.

use super::Transform::{self, CentreCrop, Flip, PadCrop, RandomResizedCrop, Resize};
use super::crop;

/// 32×32 pictures for training: padded by 4, cropped, mirrored.
pub fn cifar_train() -> Vec<Transform> {
    vec![PadCrop { size: 32, pad: 4 }, Flip { p: 0.5 }]
}

/// 32×32 pictures as they are.
pub fn cifar_eval() -> Vec<Transform> {
    Vec::new()
}

/// TinyImageNet's 64×64 pictures for training: padded by 8, cropped, mirrored.
pub fn tiny_train() -> Vec<Transform> {
    vec![PadCrop { size: 64, pad: 8 }, Flip { p: 0.5 }]
}

/// TinyImageNet's 64×64 pictures as they are.
pub fn tiny_eval() -> Vec<Transform> {
    Vec::new()
}

/// Photographs for training at `size` pixels: random resized crop, mirrored.
pub fn imagenet_train(size: usize) -> Vec<Transform> {
    vec![RandomResizedCrop { size, area: crop::area(), ratio: crop::ratio() }, Flip { p: 0.5 }]
}

/// Photographs for evaluation at `size` pixels: the middle 7/8 (256 to 224).
pub fn imagenet_eval(size: usize) -> Vec<Transform> {
    vec![Resize { shorter: size * 8 / 7 }, CentreCrop { size }]
}
