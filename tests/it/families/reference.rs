//! What the reference programs' numbers are compared with: filled parameters and pictures, and how far off is too far.

use candle::{DType, Device, Tensor};
use datasets::Seed;
use lab::exec::{self, Mode, Output};
use lab::graph::{Graph, Parameter, Role};
use lab::{Params, kernels};
use serde_json::Value;

use crate::differentiating::numbers;

/// All numbers in a value, depth first.
pub(super) fn list(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(list).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

pub(super) fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    // A NaN stays, wherever it is.
    numbers.fold(0.0, |worst: f64, x| if worst.is_nan() || x.abs() <= worst { worst } else { x.abs() })
}

/// How far the reference's two runs are apart; at least a rounding of its largest number.
fn noise(double: &[f64], single: &[f64]) -> f64 {
    let apart = largest(double.iter().zip(single).map(|(a, b)| a - b));
    apart.max(f64::from(f32::EPSILON) * largest(double.iter().copied()))
}

/// Whether the numbers found are the reference's, whose `f64` and `f32` runs these are; see the head of this file.
#[track_caller]
pub(super) fn check(what: &str, dtype: DType, found: &[f64], double: &[f64], single: &[f64]) {
    check_noisy(what, dtype, found, double, noise(double, single));
}

#[track_caller]
fn check_noisy(what: &str, dtype: DType, found: &[f64], double: &[f64], noise: f64) {
    assert_eq!(found.len(), double.len(), "{what}");
    let allowed = if dtype == DType::F64 { noise * 2f64.powi(-19) } else { noise * 8.0 };
    let off = largest(found.iter().zip(double).map(|(a, b)| a - b));
    assert!(off <= allowed, "{what} in {dtype:?}: off by {off:e}, allowed {allowed:e}; the reference's f32 is off by {noise:e}");
}

/// [`check`] of each parameter's gradient; `of` gives the reference's numbers for a name.
#[track_caller]
pub(super) fn check_gradients(what: &str, dtype: DType, found: &[(String, Vec<f64>)], of: impl Fn(usize, &str) -> [Vec<f64>; 2]) {
    let wanted: Vec<[Vec<f64>; 2]> = found.iter().enumerate().map(|(at, (name, _))| of(at, name)).collect();
    let worst = largest(wanted.iter().map(|[double, single]| noise(double, single) / double[NORM]));
    for ((name, found), [double, single]) in found.iter().zip(&wanted) {
        let noise = if dtype == DType::F64 { noise(double, single) } else { worst * double[NORM] };
        check_noisy(&format!("{what}: {name}"), dtype, found, double, noise);
    }
}

/// Where a summary has the Euclidean norm.
const NORM: usize = 1;

/// A graph with filled parameters.
pub(super) struct Net {
    pub(super) graph: Graph,
    pub(super) params: Params,
}

impl Net {
    /// `fill(parameter, j)`: `j` counts the trained ones; that of a running statistic is the scale's of its norm.
    pub(super) fn new(graph: Graph, dtype: DType, fill: impl Fn(&Parameter, usize) -> Option<Vec<f64>>) -> Self {
        let params = Params::init(&graph, Seed(0), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let mut trained = 0;
        for (parameter, _) in params.iter() {
            let j = if parameter.role.trainable() { trained } else { trained - 2 };
            if let Some(values) = fill(parameter, j) {
                let values = Tensor::from_vec(values, parameter.shape.as_slice(), &Device::Cpu).unwrap();
                params.set(&parameter.name, &values).unwrap();
            }
            trained += usize::from(parameter.role.trainable());
        }
        Self { graph, params }
    }

    pub(super) fn run(&self, xs: &Tensor, mode: Mode) -> Output {
        exec::forward(&self.graph, &self.params, xs, mode).unwrap()
    }

    /// Mean cross-entropy, and of each trained parameter's gradient: sum, norm, largest magnitude, first three.
    pub(super) fn gradients(&self, logits: &Tensor, labels: &[u32]) -> (f64, Vec<(String, Vec<f64>)>) {
        let loss = kernels::cross_entropy(logits, &Tensor::new(labels, &Device::Cpu).unwrap(), 0.0).unwrap();
        let gradients = loss.backward().unwrap();
        let of = |var: &candle::Var| {
            let gradient = numbers(gradients.get(var).unwrap());
            let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
            [gradient.iter().sum(), norm, largest(gradient.iter().copied())].into_iter().chain(gradient.iter().copied().take(3)).collect()
        };
        (numbers(&loss)[0], self.params.trainable().map(|(parameter, var)| (parameter.name.clone(), of(var))).collect())
    }
}

/// The number stream of `golden/layerwise_features` and `golden/rwc`, in 0..1.
pub(super) fn stream(seed: u64, len: usize) -> Vec<f64> {
    let mut rng = Seed(seed).rng();
    (0..len).map(|_| ((rng.bits() >> 40) as f64 + 0.5) / f64::from(1 << 24)).collect()
}

pub(super) fn fill_by_stream(parameter: &Parameter, j: usize) -> Option<Vec<f64>> {
    let bound = (6.0 * parameter.shape[0] as f64 / parameter.len() as f64).sqrt();
    let number = |u: f64| match (parameter.role, parameter.shape.len()) {
        (Role::Scale, _) => 0.5 + u,
        (_, 1) => 0.1 * (2.0 * u - 1.0),
        _ => (2.0 * u - 1.0) * bound,
    };
    parameter.role.trainable().then(|| stream(1000 + j as u64, parameter.len()).into_iter().map(number).collect())
}

pub(super) fn pictures(seed: u64, shape: [usize; 4], dtype: DType) -> Tensor {
    let values = stream(seed, shape.iter().product());
    Tensor::from_vec(values, &shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub(super) fn labels(seed: u64, len: usize, classes: usize) -> Vec<u32> {
    stream(seed, len).into_iter().map(|u| (u * classes as f64) as u32).collect()
}

/// The fill of `golden/s3net` and `golden/torchvision`: element `i` of stream `s`, in -1..1.
pub(super) fn splitmix(s: u64, len: usize) -> Vec<f64> {
    let mut rng = Seed((s << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rng();
    (0..len).map(|_| rng.range(-1.0, 1.0)).collect()
}

pub(super) fn fill_by_splitmix(gain: f64, statistics: bool) -> impl Fn(&Parameter, usize) -> Option<Vec<f64>> {
    move |parameter, j| {
        let fan_in = parameter.len() / parameter.shape[0];
        let (stream, scale, centre) = match parameter.role {
            Role::Weight => (j, (gain / fan_in as f64).sqrt(), 0.0),
            Role::Bias | Role::Shift => (j, 0.1, 0.0),
            Role::Scale | Role::Factor => (j, 0.2, 1.0),
            Role::RunningMean => (j + 1_000_000, 0.1, 0.0),
            Role::RunningVar => (j + 2_000_000, 0.25, 1.0),
        };
        let values = || splitmix(stream as u64, parameter.len()).into_iter().map(|u| centre + scale * u).collect();
        (statistics || parameter.role.trainable()).then(values)
    }
}

pub(super) fn waves(shape: [usize; 4], dtype: DType) -> Tensor {
    let wave = |i: usize| (0.001 * i as f64).sin() + 0.3 * (0.73 * i as f64).sin();
    let values: Vec<f64> = (0..shape.iter().product()).map(wave).collect();
    Tensor::from_vec(values, &shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// A gradient as the studies keep it: sum, norm, largest magnitude, first three.
pub(super) fn summary(value: &Value) -> Vec<f64> {
    ["sum", "l2", "absmax", "first"].into_iter().flat_map(|field| list(&value[field])).collect()
}
