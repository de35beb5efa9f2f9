//! Networks of papers: counts, names, logits and gradients are those of the reference programs.
//!
//! The reference programs ran in `f32` and in `f64`. Rounding errors grow with the type's precision, so two `f64` programs may
//! differ by 2⁻²⁹ of what the reference's own two runs differ by; another order of summation is given 2¹⁰ times that. A `f32` run of
//! ours may be 8 times as far from the reference's `f64` as its own `f32` is: of logits, as the worst of these; of a gradient, as
//! the worst gradient of the net, in parts of its norm.

mod reference;

use candle::{DType, Device, Tensor};
use datasets::Seed;
use lab::exec::{self, Mode};
use lab::graph::{Graph, Init, Parameter, Role};
use lab::metrics::nn_mass::{self, Block, Shortcuts};
use lab::metrics::profile::{self, Convention};
use lab::models::{Spec, alexnet, dense_cnn, dense_mlp, mobilenet_v2, resnet, vgg};
use lab::{Activation, Params, kernels};
use serde_json::Value;

use crate::differentiating::numbers;
use crate::golden;
use reference::{Net, check, check_gradients, fill_by_splitmix, fill_by_stream, labels, largest, list, pictures, stream, summary, waves};

fn trained(graph: &Graph) -> Vec<Parameter> {
    graph.parameters().into_iter().filter(|parameter| parameter.role.trainable()).collect()
}

fn rwc_resnet(input: [usize; 3], classes: usize) -> Graph {
    resnet::Config { input, init: Init::Uniform, ..resnet::Config::r18(classes).cifar() }.graph().unwrap()
}

/// Golden: names (torchvision's, where the study has its own), shapes and counts of the nets of the relative-weight-change study.
#[test]
fn nets_of_the_weight_change_study_have_its_parameters() {
    let golden = golden::json("rwc/models.json");
    for (setting, channels, classes) in [("in3_classes10", 3, 10), ("in3_classes100", 3, 100), ("in1_classes10", 1, 10)] {
        let input = [channels, 32, 32];
        let graphs = [
            ("AlexNet", alexnet::Config { input, ..alexnet::Config::cifar(classes) }.graph().unwrap()),
            ("VGG19_bn", vgg::Config { input, ..vgg::Config::e19(classes).cifar() }.graph().unwrap()),
            ("ResNet18", rwc_resnet(input, classes)),
        ];
        for (name, graph) in graphs {
            let golden = &golden[name][setting];
            assert_eq!(profile::of(&graph).params as u64, golden["total_params"], "{name} {setting}");
            let weights: usize = trained(&graph).iter().filter(|p| p.role == Role::Weight).map(Parameter::len).sum();
            assert_eq!(weights as u64, golden["tracked_weights"], "{name} {setting}");
            let Some(wanted) = golden["all_parameters"].as_array() else { continue };
            let found = trained(&graph);
            assert_eq!(found.len(), wanted.len(), "{name}");
            for (found, wanted) in found.iter().zip(wanted) {
                let theirs = wanted["name"].as_str().unwrap().replace("shortcut", "downsample").replace("linear", "fc");
                assert_eq!((found.name.as_str(), serde_json::json!(found.shape)), (theirs.as_str(), wanted["shape"].clone()));
            }
        }
    }
}

/// Golden: parameters, MACs in both conventions, and the mass of each block, of 17 ImageNet nets.
#[test]
fn imagenet_nets_have_the_published_cost_and_mass() {
    let golden = golden::json("nnmass/imagenet_models.json");
    for row in golden["rows"].as_array().unwrap() {
        let width = || row["width_mult"].as_f64().unwrap();
        let graph = match row["model"].as_str().unwrap() {
            "mobilenet_v2" => mobilenet_v2::Config::imagenet(width(), 1000).graph(),
            "mobilenet_v2_deeper" => mobilenet_v2::Config::deeper(width(), 1000).graph(),
            "resnet18" => resnet::Config::r18(1000).graph(),
            "resnet34" => resnet::Config::r34(1000).graph(),
            "resnet50" => resnet::Config::r50(1000).graph(),
            "resnet101" => resnet::Config::r101(1000).graph(),
            "resnet152" => resnet::Config::r152(1000).graph(),
            "resnext50_32x4d" => resnet::Config::x50(1000).graph(),
            "resnext101_32x8d" => resnet::Config::x101(1000).graph(),
            "wide_resnet50_2" => resnet::Config::wide50(1000).graph(),
            "wide_resnet101_2" => resnet::Config::wide101(1000).graph(),
            other => panic!("a net called {other}"),
        };
        let graph = graph.unwrap();
        let profile = profile::of(&graph);
        let wanted = (row["params"].as_u64().unwrap() as usize, row["macs_conv_linear_224"].as_u64().unwrap());
        assert_eq!((profile.params, profile.macs), wanted, "{}", row["model"]);
        if let Some(macs) = row["macs_thop_0_0_31_224"].as_u64() {
            assert_eq!(profile::by(&graph, Convention::Thop31).macs, macs, "{}", row["model"]);
        }
        let mass = |shortcuts| nn_mass::of_residual(&graph, shortcuts).unwrap();
        let close = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-12 * wanted;
        assert!(close(mass(Shortcuts::Compat), row["nn_mass"].as_f64().unwrap()), "{}", row["model"]);
        // Of ResNets the original counts a stage's first block, which has no skip link, as if it had; of inverted residuals it does not.
        let blocks = nn_mass::blocks(&graph, Shortcuts::Compat).unwrap();
        let stages = row["per_stage_block_mass"].as_array().map(|stages| stages.iter().flat_map(|stage| stage.as_array().unwrap()));
        let projected = blocks.iter().filter(|block| block.projected).map(Block::mass).sum::<f64>();
        match stages {
            Some(stages) => {
                let wanted: Vec<f64> = stages.map(|mass| mass.as_f64().unwrap()).collect();
                assert_eq!(wanted.len(), blocks.len());
                assert!(blocks.iter().zip(wanted).all(|(block, wanted)| close(block.mass(), wanted)), "{}", row["model"]);
                assert!(projected > 0.0);
            }
            None => {
                for (at, wanted) in row["per_block_mass"].as_array().unwrap().iter().enumerate() {
                    let found = blocks.iter().find(|block| block.name.starts_with(&format!("features.{at}.")));
                    assert_eq!(found.map_or(0.0, Block::mass), wanted.as_f64().unwrap(), "{} {at}", row["model"]);
                }
                assert_eq!(projected, 0.0);
            }
        }
        assert!(close(mass(Shortcuts::ResidualOnly), mass(Shortcuts::Compat) - projected), "{}", row["model"]);
    }
    assert_eq!(golden["rows"].as_array().unwrap().len(), 17);
}

/// Golden: parameters and MACs of all variants of two depths of the layer-wise feature study.
#[test]
fn layerwise_variants_have_the_published_cost() {
    let tables = [
        include_str!("../golden/layerwise_features/variants_depth13.csv"),
        include_str!("../golden/layerwise_features/variants_depth16.csv"),
    ];
    let mut variants = 0;
    for (table, depth) in tables.into_iter().zip([13, 16]) {
        let (head, rows) = table.split_once('\n').unwrap();
        let column = |name: &str| head.split(',').position(|field| field == name).unwrap();
        for row in rows.lines() {
            let fields: Vec<&str> = row.split(',').collect();
            let number = |at: usize| fields[at].parse::<u64>().unwrap();
            let first = column("f1");
            let widths: Vec<usize> = (first..first + depth - 1).map(|at| number(at) as usize).collect();
            let profile = profile::of(&vgg::Config::layerwise(&widths, 10).unwrap().graph().unwrap());
            assert_eq!(
                (profile.params as u64, profile.macs),
                (number(column("trainable_params")), number(column("macs_per_sample"))),
                "{row}"
            );
            variants += 1;
        }
    }
    assert_eq!(variants, 194 + 193);
}

/// Golden: what torchvision's checkpoints hold, in their order.
#[test]
fn parameters_are_named_as_in_torchvision() {
    let golden = golden::json("torchvision/models.json");
    let classes = 20;
    for (name, graph) in [
        ("resnet18", resnet::Config::r18(classes).graph()),
        ("resnet50", resnet::Config::r50(classes).graph()),
        ("resnext50_32x4d", resnet::Config::x50(classes).graph()),
        ("wide_resnet50_2", resnet::Config::wide50(classes).graph()),
        ("vgg16_bn", vgg::Config::d16(classes).graph()),
        ("vgg19_bn", vgg::Config::e19(classes).graph()),
        ("mobilenet_v2", mobilenet_v2::Config::imagenet(1.0, classes).graph()),
    ] {
        let found: Vec<Value> = graph.unwrap().parameters().iter().map(|p| serde_json::json!([p.name, p.shape])).collect();
        assert_eq!(Value::from(found), golden[name]["state"], "{name}");
    }
}

/// Golden: logits in evaluation and training, and the gradients of one step.
#[test]
fn residual_nets_compute_what_torchvision_does() {
    let golden = golden::json("torchvision/models.json");
    for (name, config) in
        [("resnet18", resnet::Config::r18(20)), ("resnet50", resnet::Config::r50(20)), ("resnext50_32x4d", resnet::Config::x50(20))]
    {
        let (double, single) = (&golden[name]["f64"], &golden[name]["f32"]);
        let side = golden[name]["side"].as_u64().unwrap() as usize;
        let graph = resnet::Config { input: [3, side, side], ..config }.graph().unwrap();
        check_torchvision(name, graph, DType::F64, (double, single));
    }
    // The one whose gradients are not lost in single precision.
    let graph = resnet::Config { input: [3, 64, 64], ..resnet::Config::r18(20) }.graph().unwrap();
    check_torchvision("resnet18", graph, DType::F32, (&golden["resnet18"]["f64"], &golden["resnet18"]["f32"]));
}

#[test]
fn other_nets_compute_what_torchvision_does() {
    let golden = golden::json("torchvision/models.json");
    let mobilenet = mobilenet_v2::Config { input: [3, 64, 64], dropout: 0.0, ..mobilenet_v2::Config::imagenet(1.0, 20) };
    let blocks = [8, 16, 32, 64, 64].map(|width| vec![width; 2]).to_vec();
    let vgg = vgg::Config { input: [3, 72, 72], blocks, hidden: vec![24, 12], dropout: 0.0, ..vgg::Config::d16(20) };
    for (name, graph) in [("mobilenet_v2", mobilenet.graph()), ("narrow_vgg", vgg.graph())] {
        check_torchvision(name, graph.unwrap(), DType::F64, (&golden[name]["f64"], &golden[name]["f32"]));
    }
}

#[track_caller]
fn check_torchvision(name: &str, graph: Graph, dtype: DType, (double, single): (&Value, &Value)) {
    let net = Net::new(graph, dtype, fill_by_splitmix(1.0, false));
    let [c, h, w] = net.graph.input_shape() else { panic!("pictures") };
    let xs = waves([3, *c, *h, *w], dtype);
    for (field, mode) in [("eval_logits", Mode::Eval), ("train_logits", Mode::Train(Seed(0)))] {
        let logits = net.run(&xs, mode).value.narrow(1, 0, 10).unwrap();
        check(&format!("{name}: {field}"), dtype, &numbers(&logits), &list(&double[field]), &list(&single[field]));
    }
    let (_, gradients) = net.gradients(&net.run(&xs, Mode::Train(Seed(0))).value, &[0, 1, 2]);
    check_gradients(name, dtype, &gradients, |at, _| [double, single].map(|value| list(&value["gradients"][at])));
}

/// Golden: the published MobileNetV2 and its version for small pictures, with running statistics and without.
#[test]
fn mobilenets_give_the_published_logits() {
    for (file, side, classes) in [("mobilenet_v2", 224, 1000), ("quick_mobilenet_v2_64px", 64, 10)] {
        let golden = golden::json(&format!("s3net/{file}.json"));
        let config = mobilenet_v2::Config { input: [3, side, side], dropout: 0.0, ..mobilenet_v2::Config::imagenet(1.0, classes) };
        let graph = config.graph().unwrap();
        let profile = profile::of(&graph);
        let macs = golden["macs_per_image"]["conv"].as_u64().unwrap() + golden["macs_per_image"]["linear"].as_u64().unwrap();
        assert_eq!((profile.params as u64, profile.macs), (golden["param_count"].as_u64().unwrap(), macs));

        let (double, single) = (list(&golden["logits_f64_first10"]), list(&golden["logits_f32_first10"]));
        for dtype in [DType::F32, DType::F64] {
            let net = Net::new(graph.clone(), dtype, fill_by_splitmix(golden["weight_gain"].as_f64().unwrap(), true));
            let logits = numbers(&net.run(&waves([1, 3, side, side], dtype), Mode::Eval).value);
            check(file, dtype, &logits[..10], &double, &single);
            if dtype == DType::F64 {
                let mean = logits.iter().map(|x| x.abs()).sum::<f64>() / classes as f64;
                assert!((mean - golden["logits_f64_abs_mean"].as_f64().unwrap()).abs() < 1e-10);
            }
        }
        let golden = &golden["train_mode_f64"];
        let net = Net::new(graph, DType::F64, fill_by_splitmix(6.0, true));
        let shape: Vec<usize> = serde_json::from_value(golden["input_shape"].clone()).unwrap();
        let output = net.run(&waves(shape.try_into().unwrap(), DType::F64), Mode::Train(Seed(0)));
        // The reference trained in double precision alone: a few hundred roundings of 1e-16.
        let close = |found: &[f64], wanted: &Value| {
            let wanted = list(wanted);
            assert!(largest(found.iter().zip(&wanted).map(|(a, b)| a - b)) < 1e-11, "{file}: {found:?} for {wanted:?}");
        };
        let logits = numbers(&output.value);
        close(&logits[..10], &golden["logits_first10"]);
        close(&logits[classes..classes + 4], &golden["row1_first4"]);
        for (statistics, golden) in
            [(&output.statistics[0], &golden["first_bn"]), (&output.statistics[output.statistics.len() - 1], &golden["last_bn"])]
        {
            let name = &net.graph.node(statistics.node).name;
            assert_eq!(name, golden["name"].as_str().unwrap());
            for (suffix, new) in [("running_mean", &statistics.mean), ("running_var", &statistics.var)] {
                let old = net.params.get(&format!("{name}.{suffix}")).unwrap();
                let after = ((old.as_tensor() * 0.9).unwrap() + (new * 0.1).unwrap()).unwrap();
                close(&numbers(&after)[..4], &golden[format!("{suffix}_after")]);
            }
        }
    }
}

/// Golden: logits before, and logits, loss and gradients of, the first step of the relative-weight-change study.
#[test]
fn nets_of_the_weight_change_study_take_its_first_step() {
    let config = alexnet::Config { dropout: 0.0, ..alexnet::Config::cifar(10) };
    for (file, graph) in [("train_AlexNet", config.graph().unwrap()), ("train_ResNet18", rwc_resnet([3, 32, 32], 10))] {
        let golden = golden::json(&format!("rwc/{file}.json"));
        let (double, single) = (&golden["f64"], &golden["f32"]);
        for dtype in [DType::F64, DType::F32] {
            let net = Net::new(graph.clone(), dtype, fill_by_stream);
            let test = pictures(33, [8, 3, 32, 32], dtype).narrow(0, 0, 2).unwrap();
            let field = "initial_eval_logits_test2";
            check(
                &format!("{file}: {field}"),
                dtype,
                &numbers(&net.run(&test, Mode::Eval).value),
                &list(&double[field]),
                &list(&single[field]),
            );

            let (double, single) = (&double["one_step"], &single["one_step"]);
            let first = pictures(31, [12, 3, 32, 32], dtype).narrow(0, 0, 4).unwrap();
            let logits = net.run(&first, Mode::Train(Seed(0))).value;
            let (loss, gradients) = net.gradients(&logits, &labels(32, 12, 10)[..4]);
            let of = |value: &Value| list(&value["train_logits"]).into_iter().chain([value["loss"].as_f64().unwrap()]).collect::<Vec<_>>();
            let found: Vec<f64> = numbers(&logits).into_iter().chain([loss]).collect();
            check(&format!("{file}: logits and loss"), dtype, &found, &of(double), &of(single));
            check_gradients(file, dtype, &gradients, |_, name| {
                let theirs = name.replace("downsample", "shortcut").replace("fc.", "linear.");
                [double, single].map(|value| summary(&value["grads"][&theirs]))
            });
        }
    }
}

/// Golden: a small net of the layer-wise feature study: names, logits, statistics, and gradients with the batch's statistics and
/// with running ones.
#[test]
fn a_net_of_the_layerwise_study_computes_what_it_did() {
    let golden = golden::json("layerwise_features/tiny_vgg.json");
    let widths: Vec<usize> = serde_json::from_value(golden["filters"].clone()).unwrap();
    let graph = vgg::Config { dropout: 0.0, ..vgg::Config::layerwise(&widths, 10).unwrap() }.graph().unwrap();
    let found: Vec<Value> = trained(&graph).iter().map(|p| serde_json::json!([p.name, p.shape])).collect();
    let wanted: Vec<Value> = golden["params"].as_array().unwrap().iter().map(|p| serde_json::json!([p["name"], p["shape"]])).collect();
    assert_eq!(found, wanted);

    let (double, single) = (&golden["f64"], &golden["f32"]);
    for dtype in [DType::F64, DType::F32] {
        let net = Net::new(graph.clone(), dtype, fill_by_stream);
        let xs = pictures(7, [8, 3, 32, 32], dtype);
        let modes = [
            (Mode::Eval, ["eval_logits", "eval_loss_mean", "evalbn_grads"]),
            (Mode::Train(Seed(0)), ["train_logits", "train_loss_mean", "train_grads"]),
        ];
        for (mode, [logits, loss, gradients]) in modes {
            let output = net.run(&xs, mode);
            let of = |value: &Value| list(&value[logits]).into_iter().chain([value[loss].as_f64().unwrap()]).collect::<Vec<_>>();
            let (found_loss, found) = net.gradients(&output.value, &labels(11, 8, 10));
            let values: Vec<f64> = numbers(&output.value).into_iter().chain([found_loss]).collect();
            check(logits, dtype, &values, &of(double), &of(single));
            check_gradients(gradients, dtype, &found, |_, name| [double, single].map(|value| summary(&value[gradients][name])));
            for statistics in output.statistics {
                let name = &net.graph.node(statistics.node).name;
                for (suffix, new, old) in [("running_mean", &statistics.mean, 0.0), ("running_var", &statistics.var, 0.9)] {
                    let after: Vec<f64> = numbers(new).iter().map(|new| old + 0.1 * new).collect();
                    let norm = after.iter().map(|x| x * x).sum::<f64>().sqrt();
                    let found: Vec<f64> =
                        [after.iter().sum(), norm, largest(after.iter().copied())].into_iter().chain(after.into_iter().take(3)).collect();
                    let of = |value: &Value| summary(&value["bn_running_after_one_forward"][format!("{name}.{suffix}")]);
                    check(&format!("{name}.{suffix}"), dtype, &found, &of(double), &of(single));
                }
            }
        }
    }
}

/// Golden: logits of large nets of the layer-wise feature study, which has them in single precision alone. How far that is from
/// exact is what our own single precision is from our double, within a factor of 8.
#[test]
fn large_nets_of_the_layerwise_study_give_its_logits() {
    let golden = golden::json("layerwise_features/full_vgg_eval.json");
    for name in ["variant_192", "variant_96", "vgg_d_reference"] {
        let widths: Vec<usize> = serde_json::from_value(golden[name]["filters"].clone()).unwrap();
        let graph = vgg::Config::layerwise(&widths, 10).unwrap().graph().unwrap();
        let [single, double] = [DType::F32, DType::F64].map(|dtype| {
            let net = Net::new(graph.clone(), dtype, fill_by_stream);
            numbers(&net.run(&pictures(7, [2, 3, 32, 32], dtype), Mode::Eval).value)
        });
        let published = list(&golden[name]["logits"]);
        let noise = largest(single.iter().zip(&double).map(|(a, b)| a - b));
        let off = largest(published.iter().zip(&double).map(|(a, b)| a - b));
        assert!(off <= 8.0 * noise && noise < 1e-4, "{name}: off by {off:e}, our f32 by {noise:e}");
    }
}

/// One small network of each family; a new family does not compile here until it has one.
fn examples() -> Vec<Spec> {
    let example = |spec: &Spec| match spec {
        Spec::DenseCnn(_) | Spec::DenseMlp(_) | Spec::Alexnet(_) | Spec::MobilenetV2(_) | Spec::Resnet(_) | Spec::Vgg(_) => spec.clone(),
    };
    let tiny = resnet::Config { input: [3, 33, 33], blocks: [1, 1, 1, 1], ..resnet::Config::x50(7) };
    let dense_cnn = |layer| dense_cnn::Config { input: [2, 9, 12], ..dense_cnn::Config::cifar(layer, 6, 4, &[4, 20], 3) };
    [
        Spec::DenseCnn(dense_cnn(dense_cnn::Layer::Regular)),
        Spec::DenseCnn(dense_cnn(dense_cnn::Layer::Depthwise)),
        Spec::DenseMlp(dense_mlp::Config { activation: Activation::Relu, ..dense_mlp::Config::points(8, 6, 10) }),
        Spec::Alexnet(alexnet::Config::cifar(10)),
        Spec::MobilenetV2(mobilenet_v2::Config::imagenet(0.35, 10).cifar()),
        Spec::Resnet(resnet::Config::r18(10).cifar()),
        Spec::Resnet(tiny),
        Spec::Vgg(vgg::Config::d16(10).cifar()),
        Spec::Vgg(vgg::Config { input: [3, 40, 40], hidden: vec![24, 16], ..vgg::Config::d16(10) }),
        Spec::Vgg(vgg::Config::layerwise(&[4, 6, 8, 5, 7, 9, 6, 10, 12], 10).unwrap()),
    ]
    .iter()
    .map(example)
    .collect()
}

#[test]
fn every_family_runs_learns_and_survives_its_file() {
    for spec in examples() {
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
        let graph = spec.graph(Seed(3)).unwrap();
        let written = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&written).unwrap(), graph, "{text}");

        let params = Params::init(&graph, Seed(3), &Device::Cpu).unwrap();
        let shape: Vec<usize> = [4].into_iter().chain(graph.input_shape().iter().copied()).collect();
        let values: Vec<f32> = stream(5, shape.iter().product()).into_iter().map(|u| u as f32).collect();
        let xs = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let classes = graph.output_shape()[0];
        for mode in [Mode::Eval, Mode::Train(Seed(1))] {
            let logits = exec::forward(&graph, &params, &xs, mode).unwrap().value;
            assert_eq!(logits.dims(), [4, classes], "{text}");
            assert!(numbers(&logits).iter().all(|x| x.is_finite()), "{text}");
            let labels = Tensor::new(&[0u32, 1, 0, 1], &Device::Cpu).unwrap();
            let gradients = kernels::cross_entropy(&logits, &labels, 0.0).unwrap().backward().unwrap();
            for (parameter, var) in params.trainable() {
                let gradient = numbers(gradients.get(var).unwrap_or_else(|| panic!("{text}: {}: no gradient", parameter.name)));
                assert!(gradient.iter().all(|x| x.is_finite()), "{text}: {}", parameter.name);
                assert!(parameter.role != Role::Weight || gradient.iter().any(|&x| x != 0.0), "{text}: {}", parameter.name);
            }
        }
    }
}

/// Standard deviations of fresh parameters, by what each is drawn from.
#[test]
fn fresh_parameters_are_drawn_as_the_family_says() {
    let spread = |graph: &Graph, name: &str| {
        let params = Params::init(graph, Seed(1), &Device::Cpu).unwrap();
        let values = numbers(params.get(name).unwrap());
        (values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64).sqrt()
    };
    let close = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.03, "{found} for {wanted}");
    let resnet = resnet::Config::r18(1000).cifar().graph().unwrap();
    close(spread(&resnet, "layer3.0.conv1.weight"), (2.0f64 / (256.0 * 9.0)).sqrt());
    close(spread(&resnet, "fc.weight"), 1.0 / (3.0f64 * 512.0).sqrt());
    assert_eq!(spread(&resnet, "bn1.weight"), 1.0);
    let study = rwc_resnet([3, 32, 32], 10);
    close(spread(&study, "layer3.0.conv1.weight"), 1.0 / (3.0f64 * 128.0 * 9.0).sqrt());
    let mobilenet = mobilenet_v2::Config::imagenet(1.0, 1000).graph().unwrap();
    // As PyTorch counts: the outputs of all groups.
    close(spread(&mobilenet, "features.17.conv.1.0.weight"), (2.0f64 / (960.0 * 9.0)).sqrt());
    close(spread(&mobilenet, "classifier.1.weight"), 0.01);
    assert_eq!(spread(&mobilenet, "classifier.1.bias"), 0.0);
    let layerwise = vgg::Config::layerwise(&[64, 64, 128, 128, 256, 256, 256, 512, 512], 10).unwrap().graph().unwrap();
    close(spread(&layerwise, "features.block2.block.conv_layer2.convlayer.conv2.weight"), (2.0f64 / (128.0 * 9.0)).sqrt());
    close(spread(&layerwise, "classifier.0.fc_block.fc_layer1.fclayer.fc2.weight"), (2.0f64 / 512.0).sqrt());
}
