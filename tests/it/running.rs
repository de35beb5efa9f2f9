//! Running a graph: logits against the original's, modes, traces, checkpoints.

use candle::{DType, Device, Tensor};
use datasets::Seed;
use expect_test::expect;
use lab::exec::{self, Mode, Pass};
use lab::graph::{Builder, Init, NodeId};
use lab::models::dense_mlp;
use lab::{Activation, Conv, Model};
use serde_json::Value;

use crate::{golden, nets};

fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

fn matrix(value: &Value) -> Tensor {
    let rows = value.as_array().unwrap().len();
    let values = numbers(value);
    let columns = values.len() / rows;
    Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
}

/// Golden: the four published perceptrons give the original's logits. The original computes in f32; 1e-5 leaves room for
/// another order of summation in sums of at most 16 products.
#[test]
fn perceptrons_give_the_published_logits() {
    let golden = golden::json("nnmass/mlp_forward_ldi_fixture.json");
    for case in golden["cases"].as_array().unwrap() {
        let number = |field: &str| case[field].as_u64().unwrap() as usize;
        let wiring: Vec<Vec<usize>> = serde_json::from_value(case["links"].clone()).unwrap();
        for (name, activation) in [("relu", Activation::Relu), ("elu", Activation::Elu)] {
            let config = dense_mlp::Config {
                inputs: number("input_dim"),
                classes: number("classes"),
                width: number("width"),
                depth: number("depth"),
                max_links: number("tc"),
                activation,
                init: Init::Uniform,
            };
            let model = Model::new(config.graph_with(&wiring).unwrap(), Seed(0), &Device::Cpu).unwrap();
            for layer in 0..config.depth {
                model.params.set(&format!("layers.{layer}.weight"), &matrix(&case["weights"][layer])).unwrap();
                let bias = numbers(&case["biases"][layer]);
                let bias = Tensor::from_slice(&bias, bias.len(), &Device::Cpu).unwrap();
                model.params.set(&format!("layers.{layer}.bias"), &bias).unwrap();
            }
            let logits = model.forward(&matrix(&case["x"])).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (found, wanted) in logits.iter().zip(numbers(&case["out"][name])) {
                assert!((found - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{name} {config:?}: {found} for {wanted}");
            }
        }
    }
}

fn small() -> Model {
    let mut g = Builder::new("small", &[2, 6, 6]);
    let xs = g.input();
    let ys = g.conv("conv", xs, Conv::k3(4));
    let ys = g.batch_norm("bn", ys);
    let ys = g.activate(ys, Activation::Relu);
    let ys = g.global_avg_pool(ys);
    let ys = g.linear("fc", ys, 3);
    Model::new(g.finish(ys).unwrap(), Seed(3), &Device::Cpu).unwrap()
}

fn pictures(n: usize) -> Tensor {
    let mut rng = Seed(11).rng();
    let values: Vec<f32> = (0..n * 72).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, (n, 2, 6, 6), &Device::Cpu).unwrap()
}

#[test]
fn weights_depend_on_seed_and_name_alone() {
    let (one, other) = (small(), small());
    for ((parameter, a), (_, b)) in one.params.iter().zip(other.params.iter()) {
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(a.as_tensor()), flat(b.as_tensor()), "{}", parameter.name);
    }
    // PyTorch's default: uniform within ±1/√fan_in, so variance 1/(3·fan_in).
    let model = Model::new(dense_mlp::Config::mnist(64, 4, 0).graph(Seed(0)).unwrap(), Seed(0), &Device::Cpu).unwrap();
    let weight = model.params.get("layers.0.weight").unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let variance = weight.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / weight.len() as f64;
    assert!((variance * 3.0 * 784.0 - 1.0).abs() < 0.02, "{variance}");
    assert!(weight.iter().all(|w| w.abs() <= 1.0 / 28.0));
}

/// In training each channel leaves batch norm with mean 0; in evaluation with fresh running statistics it does not.
#[test]
fn batch_norm_trains_in_training() {
    let model = small();
    let xs = pictures(16);
    let train = exec::forward(&model.graph, &model.params, &xs, Mode::Train(Seed(0))).unwrap();
    assert_eq!(train.statistics.len(), 1);
    let eval = exec::forward(&model.graph, &model.params, &xs, Mode::Eval).unwrap();
    assert!(eval.statistics.is_empty());
    let apart = (train.value - eval.value).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(apart > 1e-3, "{apart}");
}

/// A trace computes what a run computes, and the gradient at a node times its value sums as the chain rule says.
#[test]
fn a_trace_agrees_with_a_run() {
    let model = small();
    let xs = pictures(3);
    let trace = model.trace(&xs).unwrap();
    let logits = trace.value(model.graph.output);
    let run = model.forward(&xs).unwrap();
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(logits), flat(&run));
    let gradients = logits.narrow(1, 0, 1).unwrap().sum_all().unwrap().backward().unwrap();
    let pooled = model.graph.find("global_avg_pool").unwrap();
    let at_pool = trace.gradient(&gradients, pooled).unwrap();
    // The logit is linear in the pooled features, so the gradient is a row of the weight.
    let row = model.params.get("fc.weight").unwrap().narrow(0, 0, 1).unwrap();
    for sample in 0..3 {
        assert_eq!(flat(&at_pool.narrow(0, sample, 1).unwrap()), flat(&row));
    }
}

#[test]
fn a_checkpoint_gives_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let model = small();
    model.save(&path).unwrap();
    let again = Model::load(model.graph.clone(), &path, &Device::Cpu).unwrap();
    let xs = pictures(2);
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(&model.forward(&xs).unwrap()), flat(&again.forward(&xs).unwrap()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let mut g = Builder::new("other", &[2, 6, 6]);
    let ys = g.conv("conv", g.input(), Conv::k3(5));
    let other = g.finish(ys).unwrap();
    let error = Model::load(other, &path, &Device::Cpu).unwrap_err().to_string();
    let misfit = "conv.weight [4, 2, 3, 3] instead of [5, 2, 3, 3]; \
                  unknown bn.bias, bn.running_mean, bn.running_var, bn.weight, fc.bias, fc.weight";
    assert!(error.ends_with(&format!("small.safetensors: wanted the parameters of other, found {misfit}")), "{error}");
}

#[test]
fn a_wrong_input_is_named() {
    let xs = Tensor::zeros((2, 3, 6, 6), DType::F32, &Device::Cpu).unwrap();
    let error = small().forward(&xs).unwrap_err().to_string();
    expect!["small: input: wanted (n, [2, 6, 6]) with n at least 1, found [2, 3, 6, 6]"].assert_eq(&error);
}

#[test]
fn cuda_where_there_is_none_is_an_error() {
    let [cuda, auto] = [lab::device::Want::Cuda, lab::device::Want::Auto].map(lab::device::pick);
    if candle::utils::cuda_is_available() {
        // A build for CUDA, on a machine with a card or without one.
        assert_eq!(auto.unwrap().is_cuda(), cuda.is_ok());
        return;
    }
    let error = cuda.unwrap_err().to_string();
    expect!["device cuda: this build has no CUDA; build with `--features cuda`, or ask for `cpu`"].assert_eq(&error);
    assert!(auto.unwrap().is_cpu());
}

/// Whoever measures a step hears of each operation once on the way there and once, in reverse, on the way back. What is done as one is
/// told as one: 20 convolutions, 20 batch norms with what follows them, a mean and a linear layer.
#[test]
fn a_followed_step_goes_there_and_back() {
    let graph = nets::resnet18(2);
    let model = Model::new(graph.clone(), Seed(0), &Device::Cpu).unwrap();
    let labels = Tensor::new(&[3u32, 5], &Device::Cpu).unwrap();
    let mut done = Vec::new();
    exec::follow((&graph, &model.params), (&nets::samples(&graph, 2), &labels), 1, |step| done.push(step)).unwrap();

    let of = |pass: Pass| done.iter().filter(move |step| step.pass == pass).map(|step| (step.node, step.last));
    let there: Vec<_> = of(Pass::Forward).collect();
    let mut back: Vec<_> = of(Pass::Backward).collect();
    back.reverse();
    assert_eq!(there, back);
    assert_eq!(there.len(), 20 + 20 + 1 + 1);
    assert_eq!(done[there.len()].pass, Pass::Loss);
    let label = |(node, last): (NodeId, NodeId)| format!("{}..{}", graph.node(node).op.label(), graph.node(last).op.label());
    let first: Vec<String> = there[..5].iter().map(|&step| label(step)).collect();
    assert_eq!(first, ["conv..conv", "batch_norm..relu", "conv..conv", "batch_norm..relu", "conv..conv"]);
}
