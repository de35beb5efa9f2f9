//! The kernels alone, with tensors and autograd of candle: a small convolutional classifier fitted to one batch.
//!
//! `cargo run --example kernels` prints the loss of one batch before and after each of ten steps; it has to fall.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use candle::{Device, Result, Tensor, Var};
use datasets::{Rng, Seed};
use lab::kernels::{self, Activation, Affine, Conv};

/// Images of a batch, classes, channels of the convolution.
const IMAGES: usize = 32;
const CLASSES: usize = 4;
const CHANNELS: usize = 16;

fn main() -> Result<()> {
    let device = Device::Cpu;
    let mut rng = Seed(0).rng();
    let xs = normal(&mut rng, 1.0, &[IMAGES, 3, 16, 16])?;
    let labels = Tensor::from_iter((0..IMAGES).map(|image| (image % CLASSES) as u32), &device)?;

    let kernel = Var::from_tensor(&normal(&mut rng, 0.2, &[CHANNELS, 3, 3, 3])?)?;
    let scale = Var::ones(CHANNELS, candle::DType::F32, &device)?;
    let shift = Var::zeros(CHANNELS, candle::DType::F32, &device)?;
    let weight = Var::from_tensor(&normal(&mut rng, 0.2, &[CLASSES, CHANNELS])?)?;

    for step in 0..=10 {
        let ys = kernels::conv2d(&xs, &kernel, None, &Conv { padding: (1, 1), ..Conv::default() })?;
        let normed = kernels::batch_norm(&ys, Some(Affine { weight: &scale, bias: &shift }), 1e-5)?;
        let ys = kernels::activate(&normed.ys, Activation::HardSwish)?;
        let logits = kernels::linear(&kernels::global_avg_pool(&ys)?, &weight, None)?;
        let loss = kernels::cross_entropy(&logits, &labels, 0.1)?;
        println!("step {step}: loss {:.4}", loss.to_scalar::<f32>()?);

        let gradients = loss.backward()?;
        for parameter in [&kernel, &scale, &shift, &weight] {
            if let Some(gradient) = gradients.get(parameter) {
                parameter.set(&(parameter.as_tensor() - (gradient * 0.5)?)?)?;
            }
        }
    }
    Ok(())
}

/// Draws of a normal distribution. candle's own cannot be seeded on the CPU.
fn normal(rng: &mut Rng, deviation: f64, shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let draws: Vec<f32> = (0..count).map(|_| (deviation * rng.normal()) as f32).collect();
    Tensor::from_vec(draws, shape, &Device::Cpu)
}
