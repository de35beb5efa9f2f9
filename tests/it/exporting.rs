//! Networks as ONNX files: onnx's checker accepts them, and onnxruntime gives the same logits.

use std::path::Path;
use std::process::Command;

use candle::{Device, Tensor};
use datasets::Seed;
use lab::graph::{Builder, Graph};
use lab::models::{alexnet, dense_mlp, mobilenet_v2};
use lab::{Conv, Model, Pool, onnx, rewrite};

use crate::nets::{apart, drawn, every_op, further_ops, random_wired, resnet18, samples};
use crate::python::environment;

/// Another order of summation in every layer.
const TOLERANCE: f64 = 1e-4;

/// Pooling windows in every position to the border: inside, over it, beyond it, and stopping short of it.
fn pooling() -> Graph {
    let mut g = Builder::new("pooling", &[2, 11, 14]);
    let xs = g.conv("conv", g.input(), Conv::k3(3).bias());
    let mut ends = Vec::new();
    for (kernel, stride, padding) in
        [((3, 3), (2, 2), (1, 1)), ((2, 3), (3, 2), (1, 0)), ((4, 2), (3, 3), (2, 1)), ((1, 5), (1, 4), (0, 2))]
    {
        for ceil_mode in [false, true] {
            let pool = Pool { kernel, stride, padding, ceil_mode };
            for pooled in [g.max_pool(xs, pool), g.avg_pool(xs, pool)] {
                ends.push(g.flatten(pooled));
            }
        }
    }
    let all = g.concat(&ends);
    g.finish(all).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect()
}

fn read(path: &Path, shape: &[usize]) -> Tensor {
    let numbers = std::fs::read(path).unwrap().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    Tensor::from_vec::<_, f32>(numbers, shape, &Device::Cpu).unwrap()
}

#[test]
fn onnxruntime_gives_the_same_logits() {
    let Some(python) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mlp = dense_mlp::Config::points(6, 5, 4).graph(Seed(1)).unwrap();
    let identity = Builder::new("identity", &[3]);
    let xs = identity.input();
    let mobile = mobilenet_v2::Config::imagenet(0.25, 10).cifar().graph().unwrap();
    let alexnet = alexnet::Config::cifar(10).graph().unwrap();
    let identity = identity.finish(xs).unwrap();
    let graphs = [every_op(), further_ops(), resnet18(8), mobile, alexnet, random_wired(8, 2), pooling(), mlp, identity];
    let models: Vec<Model> = graphs.into_iter().map(|graph| drawn(graph, 5)).collect();
    for model in &models {
        let name = &model.graph.name;
        onnx::export(&model.graph, &model.params, folder.join(format!("{name}.onnx"))).unwrap();
        for n in [1, 3] {
            std::fs::write(folder.join(format!("{name}.{n}.in")), bytes(&samples(&model.graph, n))).unwrap();
        }
    }
    // A folded network, whose convolutions all have biases, gives the logits of the whole one.
    let mut folded = models[0].clone();
    folded.graph.name = "folded".to_owned();
    let (graph, params) = rewrite::fold(&folded.graph, &folded.params).unwrap();
    onnx::export(&graph, &params, folder.join("folded.onnx")).unwrap();
    std::fs::write(folder.join("folded.3.in"), bytes(&samples(&graph, 3))).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/exporting/check.py");
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.lines().count(), models.len() + 1);
    assert!(
        told.contains("resnet18 input ['n', 3, 32, 32] output ['n', 10] bn1.bias bn1.running_mean bn1.running_var bn1.weight conv1.weight")
    );
    for model in models.iter().chain([&folded]) {
        let name = &model.graph.name;
        for n in if name == "folded" { vec![3] } else { vec![1, 3] } {
            let wanted = model.forward(&samples(&model.graph, n)).unwrap();
            let apart = apart(&read(&folder.join(format!("{name}.{n}.out")), wanted.dims()), &wanted);
            assert!(apart < TOLERANCE, "{name}, {n} samples: {apart}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_an_error() {
    let model = drawn(pooling(), 1);
    let folder = tempfile::tempdir().unwrap();
    let error = onnx::export(&model.graph, &model.params, folder.path().join("nowhere/net.onnx")).unwrap_err().to_string();
    assert!(error.ends_with("nowhere/net.onnx: cannot write the file"), "{error}");
}
