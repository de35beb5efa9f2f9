//! The lists of steps that papers use, by name.

use super::Transform::{self, CentreCrop, Flip, PadCrop, RandomResizedCrop, Resize, TenCrop};
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

/// Photographs for evaluation at `size` pixels by ten crops, as in S3-Net: a shorter side of 8/7 (256 for 224), corners and middle, mirrored too.
pub fn imagenet_ten_crop(size: usize) -> Vec<Transform> {
    vec![Resize { shorter: size * 8 / 7 }, TenCrop { size }]
}

/// torchvision's `ColorJitter(brightness, contrast, saturation, hue)`: factors within so much of 1, but not below 0; turns of the colour circle
/// within `hue` of 0.
pub fn colour_jitter(brightness: f64, contrast: f64, saturation: f64, hue: f64) -> Transform {
    let around_one = |width: f64| [(1.0 - width).max(0.0), 1.0 + width];
    let [brightness, contrast, saturation] = [brightness, contrast, saturation].map(around_one);
    Transform::ColourJitter { brightness, contrast, saturation, hue: [-hue, hue] }
}
