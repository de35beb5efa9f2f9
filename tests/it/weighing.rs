//! Weights from the files of others: PyTorch's state dicts and safetensors, in every layout and type, or an error that tells all.

use std::path::PathBuf;

use candle::Device;
use expect_test::{Expect, expect};
use lab::graph::{Builder, Graph};
use lab::weights::{self, Names};
use lab::{Conv, Params};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/weights").join(name)
}

/// The network of `golden/weights/generate.py`, with its PyTorch names or others.
fn net(conv: &str, norm: &str, classes: usize) -> Graph {
    let mut g = Builder::new("net", &[2, 5, 5]);
    let xs = g.conv(conv, g.input(), Conv::k3(4).padding(0).bias());
    let xs = g.batch_norm(norm, xs);
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("classifier", xs, classes);
    g.finish(logits).unwrap()
}

fn torch_net() -> Graph {
    net("features.0", "features.1", 3)
}

/// `value` of `golden/weights/generate.py`.
fn value(name: &str, i: usize) -> f32 {
    let k: usize = name.bytes().map(usize::from).sum();
    (((7 * i + 13 * k) % 64) as f32 - 32.0) / 32.0
}

#[track_caller]
fn check_values(params: &Params, except: &[(&str, f32)]) {
    let mut seen = 0;
    for (parameter, var) in params.iter() {
        let name = parameter.name.replace("stem.conv", "features.0").replace("stem.norm", "features.1");
        let constant = except.iter().find(|(exception, _)| *exception == name).map(|(_, number)| *number);
        let wanted: Vec<f32> = (0..parameter.len()).map(|i| constant.unwrap_or_else(|| value(&name, i))).collect();
        assert_eq!(var.flatten_all().unwrap().to_vec1::<f32>().unwrap(), wanted, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn state_dicts_of_pytorch_load_in_every_layout_and_type() {
    for file in ["plain.pth", "parameters.pt", "mixed.pth", "mixed.safetensors"] {
        check_values(&Params::load(&torch_net(), path(file), &Device::Cpu).unwrap(), &[]);
    }
    let strided = Params::load(&torch_net(), path("strided.pth"), &Device::Cpu).unwrap();
    check_values(&strided, &[("features.0.bias", 0.25)]);
}

#[test]
fn names_are_translated_by_a_rule() {
    let rule = r#"{"strip": ["backbone.", "module."], "ignore": ["num_batches_tracked", "head.aux"]}"#;
    let names: Names = serde_json::from_str(rule).unwrap();
    let graph = net("stem.conv", "stem.norm", 3);
    check_values(&weights::load(&graph, path("renamed.safetensors"), &names, &Device::Cpu).unwrap(), &[]);
    let replace = vec![("stem.conv".to_owned(), "features.0".to_owned()), ("stem.norm".to_owned(), "features.1".to_owned())];
    let names = Names { replace, ..names };
    check_values(&weights::load(&torch_net(), path("renamed.safetensors"), &names, &Device::Cpu).unwrap(), &[]);
}

#[track_caller]
fn check_error(graph: &Graph, file: &str, names: &Names, want: Expect) {
    let error = weights::load(graph, path(file), names, &Device::Cpu).unwrap_err().to_string();
    let (before, told) = error.split_once(file).expect("the file is named");
    assert!(before.ends_with("golden/weights/"), "{error}");
    want.assert_eq(told);
}

#[test]
fn everything_that_does_not_fit_is_told_at_once() {
    let names = Names::default();
    check_error(
        &net("stem", "features.1", 5),
        "strided.pth",
        &names,
        expect![
            ": wanted the parameters of net, found module.classifier.bias [3] instead of [5], module.classifier.weight [3, 4] instead of [5, 4]; no stem.weight, stem.bias; unknown module.features.0.bias, module.features.0.weight"
        ],
    );
    let twice = Names { replace: vec![("features.0".to_owned(), "features.1".to_owned())], ..names.clone() };
    check_error(
        &net("features.1", "norm", 3),
        "renamed.safetensors",
        &twice,
        expect![
            ": wanted the parameters of net, found no features.1.weight, features.1.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, classifier.weight, classifier.bias; unknown backbone.classifier.bias, backbone.classifier.weight, backbone.stem.conv.bias, backbone.stem.conv.weight, backbone.stem.norm.bias, backbone.stem.norm.running_mean, backbone.stem.norm.running_var, backbone.stem.norm.weight, head.aux.weight"
        ],
    );
    let merged = Names { replace: vec![("stem.norm.running_mean".to_owned(), "stem.norm.running_var".to_owned())], ..names.clone() };
    let merged = Names { strip: vec!["backbone.".to_owned()], ignore: vec!["aux".to_owned(), "num_batches".to_owned()], ..merged };
    check_error(
        &net("stem.conv", "stem.norm", 3),
        "renamed.safetensors",
        &merged,
        expect![
            ": wanted the parameters of net, found two of one parameter: backbone.stem.norm.running_var for stem.norm.running_var; no stem.norm.running_mean"
        ],
    );
}

#[test]
fn what_holds_no_weights_says_what_it_is() {
    let (graph, names) = (torch_net(), Names::default());
    let check = |file: &str, want: Expect| check_error(&graph, file, &names, want);
    check("integers.pth", expect![": wanted the parameters of net, found classifier.bias in LongStorage instead of floats"]);
    check(
        "module.pth",
        expect![": wanted weights in safetensors, or a state dict of PyTorch, found a whole Python object; save `model.state_dict()`"],
    );
    check(
        "before_1_6.pth",
        expect![
            ": wanted weights in safetensors, or a state dict of PyTorch, found the format before PyTorch 1.6; `torch.save(torch.load(file), file)` renews it"
        ],
    );
    check(
        "no_weights.pth",
        expect![
            ": wanted weights in safetensors, or a state dict of PyTorch, found no tensors, nor one of state_dict, model_state_dict, model, net, weights among epoch, optimizer"
        ],
    );
    check("README.md", expect![": wanted weights in safetensors, or a state dict of PyTorch, found header too large"]);
}

/// Any cut through a good file is an error, not a panic.
#[test]
fn broken_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain.pth", "mixed.safetensors"] {
        let bytes = std::fs::read(path(name)).unwrap();
        for part in 0..40 {
            let file = folder.path().join(name);
            std::fs::write(&file, &bytes[..bytes.len() * part / 40]).unwrap();
            assert!(Params::load(&torch_net(), &file, &Device::Cpu).is_err(), "{name} cut at {part}/40");
        }
    }
}
