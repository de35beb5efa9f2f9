//! Plain stacks of 3×3 convolutions, and three ways to end them.
//!
//! Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, arXiv:1409.1556; here
//! always with batch norm.

use serde::{Deserialize, Serialize};

use crate::graph::{Builder, Conv, Graph, Init, Linear, Op, Role, Unit, Value};
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
    /// Width of each convolution, block by block; after a block, rows and columns are halved.
    pub blocks: Vec<Vec<usize>>,
    /// Width of each hidden linear layer.
    pub hidden: Vec<usize>,
    /// Probability of 0 wherever the style drops.
    #[serde(default = "half")]
    pub dropout: f64,
    /// Names, biases and initialisation.
    pub style: Style,
}

/// Whose conventions a network follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// torchvision's: biases everywhere; 7×7 means before the first linear layer; dropout after each hidden one. Convolutions are
    /// drawn by fan-out, linear layers with standard deviation 0.01, biases are 0. Without hidden layers, the usual net for CIFAR.
    Torchvision,
    /// That of the layer-wise feature study (arXiv:1812.05836): no bias but the last; batch norm, with eps 1e-4, after hidden
    /// linear layers too; dropout once, before the last. All weights are drawn by fan-in.
    Layerwise,
}

fn half() -> f64 {
    0.5
}

impl Config {
    fn torchvision(last: usize, classes: usize) -> Self {
        let blocks = [(64, 2), (128, 2), (256, last), (512, last), (512, last)];
        let blocks = blocks.map(|(width, count)| vec![width; count]).to_vec();
        Self { input: [3, 224, 224], classes, blocks, hidden: vec![4096, 4096], dropout: half(), style: Style::Torchvision }
    }

    /// VGG-16 with batch norm.
    pub fn d16(classes: usize) -> Self {
        Self::torchvision(3, classes)
    }

    /// VGG-19 with batch norm.
    pub fn e19(classes: usize) -> Self {
        Self::torchvision(4, classes)
    }

    /// For pictures of 3×32×32, with a single linear layer.
    pub fn cifar(self) -> Self {
        Self { input: [3, 32, 32], hidden: Vec::new(), ..self }
    }

    /// A network of the layer-wise feature study for pictures of 3×32×32: two blocks of two convolutions, three of equally many, and
    /// two hidden linear layers, of these widths.
    ///
    /// # Errors
    /// When there are fewer than 9 widths, or no multiple of 3.
    pub fn layerwise(widths: &[usize], classes: usize) -> Result<Self> {
        if widths.len() < 9 || !widths.len().is_multiple_of(3) {
            return Err(Error::mismatch("vgg: widths", "9, 12, 15, .. of them", widths.len()));
        }
        let (convs, hidden) = widths.split_at(widths.len() - 2);
        let (first, rest) = convs.split_at(4);
        let blocks = first.chunks(2).chain(rest.chunks(rest.len() / 3)).map(<[usize]>::to_vec).collect();
        Ok(Self { input: [3, 32, 32], classes, blocks, hidden: hidden.to_vec(), dropout: half(), style: Style::Layerwise })
    }

    /// The network.
    ///
    /// # Errors
    /// When a size is 0, or the picture too small for so many blocks.
    pub fn graph(&self) -> Result<Graph> {
        let mut g = Builder::new("vgg", &self.input);
        let xs = g.input();
        let ys = match self.style {
            Style::Torchvision => self.as_torchvision(&mut g, xs),
            Style::Layerwise => self.as_layerwise(&mut g, xs),
        };
        g.finish(ys)
    }

    fn as_torchvision(&self, g: &mut Builder, xs: Value) -> Value {
        g.init(Role::Weight, Init::KaimingOut);
        g.init(Role::Bias, Init::Constant(0.0));
        let (mut ys, mut at) = (xs, 0);
        for widths in &self.blocks {
            for &width in widths {
                ys = g.conv(format!("features.{at}"), ys, Conv::k3(width).bias());
                ys = g.batch_norm(format!("features.{}", at + 1), ys);
                ys = g.activate(ys, Activation::Relu);
                at += 3;
            }
            ys = g.max_pool(ys, Pool::square(2, 2));
            at += 1;
        }
        g.init(Role::Weight, Init::Normal { std: 0.01 });
        if self.hidden.is_empty() {
            ys = g.flatten(ys);
            return g.linear("classifier", ys, self.classes);
        }
        ys = g.adaptive_avg_pool(ys, (7, 7));
        ys = g.flatten(ys);
        for (at, &width) in self.hidden.iter().enumerate() {
            ys = g.linear(format!("classifier.{}", 3 * at), ys, width);
            ys = g.activate(ys, Activation::Relu);
            ys = g.dropout(ys, self.dropout, Unit::Number);
        }
        g.linear(format!("classifier.{}", 3 * self.hidden.len()), ys, self.classes)
    }

    /// Names as in the checkpoints of the study's program.
    fn as_layerwise(&self, g: &mut Builder, xs: Value) -> Value {
        let norm = Op::BatchNorm { eps: 1e-4, momentum: 0.1, affine: true, frozen: false };
        g.init(Role::Weight, Init::KaimingIn);
        g.init(Role::Bias, Init::Constant(0.0));
        let mut ys = xs;
        for (block, widths) in (1..).zip(&self.blocks) {
            for (at, &width) in (1..).zip(widths) {
                ys = g.scope(format!("features.block{block}.block.conv_layer{at}.convlayer"), |g| {
                    let ys = g.conv(format!("conv{at}"), ys, Conv::k3(width));
                    let ys = g.node(format!("bn{at}"), norm.clone(), &[ys]);
                    g.activate(ys, Activation::Relu)
                });
            }
            ys = g.max_pool(ys, Pool::square(2, 2));
        }
        ys = g.flatten(ys);
        for (at, &width) in self.hidden.iter().enumerate() {
            ys = g.scope(format!("classifier.0.fc_block.fc_layer{at}.fclayer"), |g| {
                let ys = g.linear(format!("fc{}", at + 1), ys, Linear::plain(width));
                let ys = g.node(format!("bn{}", at + 1), norm.clone(), &[ys]);
                g.activate(ys, Activation::Relu)
            });
        }
        ys = g.dropout(ys, self.dropout, Unit::Number);
        g.linear("classifier.0.fc_block.final_layer", ys, self.classes)
    }
}
