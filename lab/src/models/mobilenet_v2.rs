//! Inverted residuals with linear bottlenecks.
//!
//! Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, arXiv:1801.04381. Names, order and
//! initialisation are torchvision's.

use serde::{Deserialize, Serialize};

use crate::graph::{Builder, Conv, Graph, Init, Role, Unit, Value};
use crate::kernels::Activation;
use crate::{Error, Result};

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Channels, rows and columns of a picture.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// What all channels but those of input, output and a last layer narrower than 1280 are multiplied by.
    pub width: f64,
    /// Stride of the first convolution.
    pub stem_stride: usize,
    /// The stages, first to last.
    pub stages: Vec<Stage>,
    /// Probability of 0 before the last layer.
    #[serde(default = "a_fifth")]
    pub dropout: f64,
}

/// Equal blocks one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// By what a block multiplies its channels inside.
    pub expand: usize,
    /// Channels after each block, before the network's width.
    pub channels: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Stride of the first block; the others have 1.
    pub stride: usize,
}

fn a_fifth() -> f64 {
    0.2
}

impl Config {
    /// The published network.
    pub fn imagenet(width: f64, classes: usize) -> Self {
        let stage = |(expand, channels, blocks, stride)| Stage { expand, channels, blocks, stride };
        let stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
        let stages = stages.map(stage).to_vec();
        Self { input: [3, 224, 224], classes, width, stem_stride: 2, stages, dropout: a_fifth() }
    }

    /// The deeper one of the NN-Mass study (arXiv:1910.00780): one block more in each stage but the last two.
    pub fn deeper(width: f64, classes: usize) -> Self {
        let mut config = Self::imagenet(width, classes);
        config.stages[..5].iter_mut().for_each(|stage| stage.blocks += 1);
        config
    }

    /// For pictures of 3×32×32: the first two strides of 2 are 1, as is usual there.
    pub fn cifar(self) -> Self {
        let stride = |(at, stage): (usize, &Stage)| if at == 1 { Stage { stride: 1, ..*stage } } else { *stage };
        Self { input: [3, 32, 32], stem_stride: 1, stages: self.stages.iter().enumerate().map(stride).collect(), ..self }
    }

    /// The network.
    ///
    /// # Errors
    /// When a size is 0, or the width not positive.
    pub fn graph(&self) -> Result<Graph> {
        if !(self.width > 0.0 && self.width.is_finite()) {
            return Err(Error::mismatch("mobilenet_v2: width", "a positive number", self.width));
        }
        let mut g = Builder::new("mobilenet_v2", &self.input);
        g.init(Role::Weight, Init::KaimingOut);
        g.init(Role::Bias, Init::Constant(0.0));
        let conv = Conv::k3(rounded(32.0 * self.width)).stride(self.stem_stride);
        let mut xs = g.scope("features.0", |g| conv_bn_relu6(g, g.input(), conv));
        let blocks = self.stages.iter().flat_map(|stage| (0..stage.blocks).map(move |block| (stage, block)));
        let mut at = 1;
        for (stage, block) in blocks {
            let stride = if block == 0 { stage.stride } else { 1 };
            let channels = rounded(stage.channels as f64 * self.width);
            xs = g.scope(format!("features.{at}"), |g| inverted_residual(g, xs, stage.expand, channels, stride));
            at += 1;
        }
        let last = Conv::k1(rounded(1280.0 * self.width.max(1.0)));
        let ys = g.scope(format!("features.{at}"), |g| conv_bn_relu6(g, xs, last));
        let ys = g.global_avg_pool(ys);
        let ys = g.dropout(ys, self.dropout, Unit::Number);
        g.init(Role::Weight, Init::Normal { std: 0.01 });
        let ys = g.linear("classifier.1", ys, self.classes);
        g.finish(ys)
    }
}

/// The nearest multiple of 8, at least 8, but not less than nine tenths of `channels`.
fn rounded(channels: f64) -> usize {
    let nearest = ((channels + 4.0) / 8.0).floor().max(1.0) * 8.0;
    if nearest < 0.9 * channels { nearest as usize + 8 } else { nearest as usize }
}

fn conv_bn_relu6(g: &mut Builder, xs: Value, conv: Conv) -> Value {
    let ys = g.conv("0", xs, conv);
    let ys = g.batch_norm("1", ys);
    g.activate(ys, Activation::Relu6)
}

/// `[c, h, w]` to `[channels, h / stride, w / stride]`, through `c · expand` channels of which each is filtered alone.
fn inverted_residual(g: &mut Builder, xs: Value, expand: usize, channels: usize, stride: usize) -> Value {
    let inner = g.channels(xs) * expand;
    let ys = g.scope("conv", |g| {
        let (mut ys, mut at) = (xs, 0);
        if expand != 1 {
            ys = g.scope(at, |g| conv_bn_relu6(g, ys, Conv::k1(inner)));
            at += 1;
        }
        ys = g.scope(at, |g| conv_bn_relu6(g, ys, Conv::k3(inner).stride(stride).groups(inner)));
        ys = g.conv(at + 1, ys, Conv::k1(channels));
        g.batch_norm(at + 2, ys)
    });
    if stride == 1 && g.channels(xs) == channels { g.add(&[xs, ys]) } else { ys }
}
