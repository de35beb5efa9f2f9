//! Residual networks.
//!
//! He, Zhang, Ren & Sun, "Deep residual learning for image recognition", CVPR 2016, arXiv:1512.03385; with grouped convolutions
//! (ResNeXt) Xie et al., arXiv:1611.05431; with wider bottlenecks (Wide ResNet) Zagoruyko & Komodakis, arXiv:1605.07146.
//!
//! Names, order and initialisation are torchvision's, and the stride of a bottleneck is that of its 3×3 convolution, as there.

use serde::{Deserialize, Serialize};

use crate::graph::{Builder, Conv, Graph, Init, Role, Value};
use crate::kernels::{Activation, Pool};
use crate::{Error, Result};

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels, rows and columns of a picture.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// How a picture enters.
    pub stem: Stem,
    /// What is stacked.
    pub block: Block,
    /// Blocks of each stage; a stage has twice the channels and half the pixels of the one before.
    pub blocks: [usize; 4],
    /// Into how many groups the 3×3 convolution of a bottleneck is split.
    #[serde(default = "one")]
    pub groups: usize,
    /// Channels of each of these groups in the first stage.
    #[serde(default = "sixty_four")]
    pub group_width: usize,
    /// From what the weights of convolutions are drawn.
    #[serde(default = "kaiming")]
    pub init: Init,
}

/// How a picture enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 7×7 convolution with stride 2 and 3×3 pooling with stride 2, for pictures of 224×224.
    Imagenet,
    /// 3×3 convolution, for pictures of 32×32.
    Cifar,
}

/// What is stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolution; the last has four times the channels.
    Bottleneck,
}

fn one() -> usize {
    1
}

fn sixty_four() -> usize {
    64
}

fn kaiming() -> Init {
    Init::KaimingOut
}

impl Config {
    fn imagenet(block: Block, blocks: [usize; 4], classes: usize) -> Self {
        let (groups, group_width, init) = (one(), sixty_four(), kaiming());
        Self { input: [3, 224, 224], classes, stem: Stem::Imagenet, block, blocks, groups, group_width, init }
    }

    /// ResNet-18.
    pub fn r18(classes: usize) -> Self {
        Self::imagenet(Block::Basic, [2, 2, 2, 2], classes)
    }

    /// ResNet-34.
    pub fn r34(classes: usize) -> Self {
        Self::imagenet(Block::Basic, [3, 4, 6, 3], classes)
    }

    /// ResNet-50.
    pub fn r50(classes: usize) -> Self {
        Self::imagenet(Block::Bottleneck, [3, 4, 6, 3], classes)
    }

    /// ResNet-101.
    pub fn r101(classes: usize) -> Self {
        Self::imagenet(Block::Bottleneck, [3, 4, 23, 3], classes)
    }

    /// ResNet-152.
    pub fn r152(classes: usize) -> Self {
        Self::imagenet(Block::Bottleneck, [3, 8, 36, 3], classes)
    }

    /// ResNeXt-50 32×4d.
    pub fn x50(classes: usize) -> Self {
        Self { groups: 32, group_width: 4, ..Self::r50(classes) }
    }

    /// ResNeXt-101 32×8d.
    pub fn x101(classes: usize) -> Self {
        Self { groups: 32, group_width: 8, ..Self::r101(classes) }
    }

    /// Wide ResNet-50-2.
    pub fn wide50(classes: usize) -> Self {
        Self { group_width: 128, ..Self::r50(classes) }
    }

    /// Wide ResNet-101-2.
    pub fn wide101(classes: usize) -> Self {
        Self { group_width: 128, ..Self::r101(classes) }
    }

    /// For pictures of 3×32×32.
    pub fn cifar(self) -> Self {
        Self { input: [3, 32, 32], stem: Stem::Cifar, ..self }
    }

    /// The network.
    ///
    /// # Errors
    /// When a size is 0, or the picture too small.
    pub fn graph(&self) -> Result<Graph> {
        if self.blocks.contains(&0) {
            return Err(Error::mismatch("resnet: blocks", "at least one a stage", format!("{:?}", self.blocks)));
        }
        if self.block == Block::Basic && (self.groups, self.group_width) != (one(), sixty_four()) {
            let found = format!("{} of {}", self.groups, self.group_width);
            return Err(Error::mismatch("resnet: groups", "one of 64 channels, without bottlenecks", found));
        }
        let mut g = Builder::new("resnet", &self.input);
        g.init(Role::Weight, self.init);
        let mut xs = self.stem(&mut g);
        for (stage, &blocks) in self.blocks.iter().enumerate() {
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                xs = g.scope(format!("layer{}.{block}", stage + 1), |g| self.block(g, xs, 64 << stage, stride));
            }
        }
        let ys = g.global_avg_pool(xs);
        g.init(Role::Weight, Init::Uniform);
        let ys = g.linear("fc", ys, self.classes);
        g.finish(ys)
    }

    fn stem(&self, g: &mut Builder) -> Value {
        let (conv, pooled) = match self.stem {
            Stem::Imagenet => (Conv::square(64, 7).stride(2), true),
            Stem::Cifar => (Conv::k3(64), false),
        };
        let ys = g.conv("conv1", g.input(), conv);
        let ys = g.batch_norm("bn1", ys);
        let ys = g.activate(ys, Activation::Relu);
        if pooled { g.max_pool(ys, Pool { padding: (1, 1), ..Pool::square(3, 2) }) } else { ys }
    }

    /// `[c, h, w]` to `[width, h / stride, w / stride]`, or four times the width.
    fn block(&self, g: &mut Builder, xs: Value, width: usize, stride: usize) -> Value {
        let inner = width * self.group_width / 64 * self.groups;
        let convs = match self.block {
            Block::Basic => vec![Conv::k3(width).stride(stride), Conv::k3(width)],
            Block::Bottleneck => vec![Conv::k1(inner), Conv::k3(inner).stride(stride).groups(self.groups), Conv::k1(4 * width)],
        };
        let mut ys = xs;
        for (at, conv) in convs.iter().enumerate() {
            ys = g.conv(format!("conv{}", at + 1), ys, *conv);
            ys = g.batch_norm(format!("bn{}", at + 1), ys);
            ys = if at + 1 < convs.len() { g.activate(ys, Activation::Relu) } else { ys };
        }
        let channels = g.channels(ys);
        let skip = if stride != 1 || g.channels(xs) != channels {
            let skip = g.conv("downsample.0", xs, Conv::k1(channels).stride(stride));
            g.batch_norm("downsample.1", skip)
        } else {
            xs
        };
        let sum = g.add(&[ys, skip]);
        g.activate(sum, Activation::Relu)
    }
}
