//! Networks of random links: links, mass, costs and logits of the published program, its mistakes by choice, and the way back from a mass.

use candle::{DType, Device, Tensor};
use datasets::Seed;
use expect_test::{Expect, expect};
use lab::design::{Limits, Space, candidates, design_for_mass};
use lab::exec::{self, Mode};
use lab::graph::{Builder, Graph, Op};
use lab::metrics::nn_mass::{self, Cell, Shortcuts};
use lab::metrics::profile::{self, Convention};
use lab::models::dense_cnn::{Compat, Config, Layer};
use lab::models::{Spec, dense_mlp, resnet};
use lab::train::Event;
use lab::{Conv, Model, Params, Recipe, fit};
use serde_json::Value;

use crate::golden;

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn config(row: &Value) -> Config {
    let layer = match row["family"].as_str() {
        Some("regular_dense") => Layer::Regular,
        Some("depthwise_dense") | None => Layer::Depthwise,
        Some(other) => panic!("a family called {other}"),
    };
    let classes = row["classes"].as_u64().unwrap_or(10) as usize;
    Config::cifar(layer, 16 * number(&row["wm"]), number(&row["cell_depth"]), &list::<Vec<usize>>(&row["tc"]), classes)
}

fn close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 1e-12 * wanted.abs().max(1.0)
}

/// Golden: every convolutional network the original was asked about has its mass, counted from the edges, its densities, links, parameters
/// and MACs in both conventions.
#[test]
fn convolutional_networks_have_the_published_topology() {
    let golden = golden::json("nnmass/cnn_topology.json");
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 32);
    for row in rows {
        let config = config(row);
        let graph = config.graph(Seed(7)).unwrap();
        let cells: Vec<Cell> = lab::design::cells_of(&Spec::DenseCnn(config.clone())).unwrap();
        let mass = row["nn_mass"].as_f64().unwrap();
        assert!(close(nn_mass::of(&graph).unwrap(), mass), "{config:?}");
        assert!(close(cells.iter().map(|cell| cell.mass().unwrap()).sum(), mass), "{config:?}");
        for (cell, density) in cells.iter().zip(row["density"].as_array().unwrap()) {
            assert!(close(cell.density().unwrap(), density.as_f64().unwrap()), "{config:?}");
        }
        let links: Vec<Vec<usize>> = config.wiring(Seed(7)).iter().map(|cell| cell.iter().map(Vec::len).collect()).collect();
        assert_eq!(links, list::<Vec<Vec<usize>>>(&row["links_per_layer"]), "{config:?}");
        let (plain, thop) = (profile::of(&graph), profile::by(&graph, Convention::Thop31));
        assert_eq!(plain.params, number(&row["params"]), "{config:?}");
        assert_eq!(plain.macs, number(&row["macs_conv_linear"]) as u64, "{config:?}");
        assert_eq!(thop.macs, number(&row["macs_thop_0_0_31"]) as u64, "{config:?}");
    }
}

/// Golden: the links that Python draws after `random.seed(2)`, by both of its ways to sample.
#[test]
fn published_links_are_drawn_again() {
    let golden = golden::json("nnmass/cnn_links_seed2.json");
    for row in golden["models"].as_array().unwrap() {
        let compat = Compat { fixed_wiring: true, ..Compat::default() };
        let config = Config { compat, ..config(row) };
        for seed in [0, 1] {
            assert_eq!(config.wiring(Seed(seed)), list::<Vec<Vec<Vec<usize>>>>(&row["links"]), "{config:?}");
        }
    }
}

/// The published program's weights: of each parameter in its order, and each number in that.
fn fill(params: &Params, order: &Value) {
    for (k, entry) in order.as_array().unwrap().iter().enumerate() {
        let (name, shape): (String, Vec<usize>) = list(entry);
        let count: usize = shape.iter().product();
        let per_output = (count / shape[0]) as f64;
        let of = |i: usize| {
            let wave = (0.37 * i as f64 + 0.11 * k as f64).sin();
            match (shape.len(), name.ends_with("weight")) {
                (1, true) => 1.0 + 0.1 * wave,
                (1, false) => 0.1 * wave,
                _ => wave * 1.5 / per_output.sqrt(),
            }
        };
        let values: Vec<f32> = (0..count).map(|i| of(i) as f32).collect();
        // The original has norms that it does not use.
        if params.iter().any(|(parameter, _)| parameter.name == name) {
            params.set(&name, &Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap();
        }
    }
}

/// Golden: six convolutional networks give the original's logits, with frozen batch norm and with statistics of the batch. Its and our runs
/// are in double precision.
#[test]
fn convolutional_networks_give_the_published_logits() {
    let golden = golden::json("nnmass/cnn_forward_fixture.json");
    let pixel = |i: usize| (0.013 * i as f64 + 0.5 * (0.0007 * i as f64).cos()).sin() as f32;
    let xs = Tensor::from_vec((0..2 * 3 * 32 * 32).map(pixel).collect(), (2, 3, 32, 32), &Device::Cpu).unwrap();
    let xs = xs.to_dtype(DType::F64).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let frozen = Config { compat: Compat::published(), ..config(case) };
        let moving = Config { compat: Compat { frozen_norm: false, ..Compat::published() }, ..frozen.clone() };
        for (config, mode, name) in [
            (&frozen, Mode::Train(Seed(0)), "logits_bn_frozen"),
            (&frozen, Mode::Eval, "logits_bn_frozen"),
            (&moving, Mode::Eval, "logits_bn_frozen"),
            (&moving, Mode::Train(Seed(0)), "logits_bn_batch"),
        ] {
            let graph = config.graph_with(&list::<Vec<Vec<Vec<usize>>>>(&case["links"])).unwrap();
            let params = Params::init(&graph, Seed(0), &Device::Cpu).unwrap();
            fill(&params, &case["parameter_order"]);
            let logits = exec::forward(&graph, &params.to_dtype(DType::F64).unwrap(), &xs, mode).unwrap().value;
            let wanted: Vec<Vec<f64>> = list(&case[name]);
            for (found, wanted) in logits.to_vec2::<f64>().unwrap().concat().iter().zip(wanted.concat()) {
                assert!((found - wanted).abs() < 1e-10, "{name} {config:?}: {found} for {wanted}");
            }
        }
    }
}

/// Names and shapes of the parameters are the published program's, but for the norms that it does not use.
#[test]
fn parameters_are_named_as_published() {
    let golden = golden::json("nnmass/cnn_forward_fixture.json");
    for case in golden["cases"].as_array().unwrap() {
        let graph = config(case).graph(Seed(0)).unwrap();
        let mut found: Vec<(String, Vec<usize>)> =
            graph.parameters().into_iter().filter(|p| p.role.trainable()).map(|p| (p.name, p.shape)).collect();
        let mut wanted: Vec<(String, Vec<usize>)> = list(&case["parameter_order"]);
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
    }
}

/// What a published network links really: channels of the direct predecessor, never of the first layer. So its mass, counted from its edges,
/// is less than the formula says; in cells of three layers it has none.
#[test]
fn published_links_miss_what_the_paper_counts() {
    let compat = Compat { links_from_predecessor: true, ..Compat::default() };
    let right = Config::cifar(Layer::Regular, 8, 5, &[6, 10], 10);
    let published = Config { compat, ..right.clone() };
    let mass = |config: &Config| nn_mass::of(&config.graph(Seed(3)).unwrap()).unwrap();
    let formula = |config: &Config| -> f64 {
        lab::design::cells_of(&Spec::DenseCnn(config.clone())).unwrap().iter().map(|cell| cell.mass().unwrap()).sum()
    };
    assert!(close(mass(&right), formula(&right)));
    assert!(mass(&published) < formula(&published), "{}", mass(&published));
    assert_eq!(mass(&Config { depth: 3, ..published.clone() }), 0.0);
    let reached = |config: &Config| -> bool {
        let graphs = (0..20).map(|seed| config.graph(Seed(seed)).unwrap());
        graphs.into_iter().any(|graph| {
            let (first, last) = (graph.cells[0][0], graph.find("links.4").unwrap());
            graph.origins(last).iter().any(|&(from, _)| from == first)
        })
    };
    assert!(reached(&right) && !reached(&published));
    let linked = |config: &Config, seed: u64| config.graph(Seed(seed)).unwrap();
    let fixed = Config { compat: Compat { fixed_wiring: true, ..Compat::default() }, ..right.clone() };
    assert_ne!(linked(&right, 1), linked(&right, 2));
    assert_eq!(linked(&fixed, 1), linked(&fixed, 2));
}

fn norms(graph: &Graph) -> usize {
    graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. })).count()
}

/// Any number of cells, any size that fits, any channels of the picture; and a layer has its norm, linked or not.
#[test]
fn cells_are_as_many_as_asked_for() {
    for (input, cells, head) in
        [([3, 32, 32], 1, [8, 16, 16]), ([1, 28, 28], 2, [16, 7, 7]), ([3, 64, 64], 4, [64, 4, 4]), ([3, 33, 5], 3, [32, 4, 1])]
    {
        for layer in [Layer::Regular, Layer::Depthwise] {
            let config = Config { input, ..Config::cifar(layer, 8, 4, &vec![3; cells], 5) };
            let graph = config.graph(Seed(0)).unwrap();
            assert_eq!(graph.node(graph.find("avg_pool").unwrap()).shape, head, "{config:?}");
            assert_eq!((graph.cells.len(), graph.output_shape()), (cells, [5].as_slice()));
            assert!(close(nn_mass::of(&graph).unwrap(), cells as f64 * 2.0 * 3.0 * 4.0 / 3.0));
            let inner = if layer == Layer::Depthwise { 3 * (4 * cells - 1) } else { 0 };
            assert_eq!(norms(&graph), 4 * cells + inner);
        }
    }
    let unlinked = Config::cifar(Layer::Regular, 8, 4, &[0, 3], 5);
    let compat = Compat { norm_needs_links: true, ..Compat::default() };
    assert_eq!(norms(&unlinked.graph(Seed(0)).unwrap()), 8);
    assert_eq!(norms(&Config { compat, ..unlinked }.graph(Seed(0)).unwrap()), 6);
}

#[track_caller]
fn check_refused(config: &Config, want: Expect) {
    want.assert_eq(&config.graph(Seed(0)).unwrap_err().to_string());
}

#[test]
fn sizes_that_do_not_add_up_are_refused() {
    let config = Config::cifar(Layer::Regular, 8, 4, &[3, 3, 3], 10);
    check_refused(&Config { depth: 2, ..config.clone() }, expect!["dense_cnn: depth: wanted at least 3, found 2"]);
    check_refused(&Config { max_links: vec![], ..config.clone() }, expect!["dense_cnn: max_links: cells: wanted at least 1, found 0"]);
    check_refused(
        &Config { input: [3, 4, 32], ..config.clone() },
        expect!["dense_cnn: input: wanted at least 5×5 pixels for 3 cells, found 4×32"],
    );
    let error = config.graph_with(&[vec![vec![]; 4], vec![vec![]; 4]]).unwrap_err().to_string();
    expect!["dense_cnn: wiring: wanted cells of [4, 4, 4] layers, found [4, 4]"].assert_eq(&error);
    expect![[r#"{"family":"dense_cnn","input":[3,32,32],"classes":10,"layer":"regular","width":8,"depth":4,"max_links":[3,3,3]}"#]]
        .assert_eq(&serde_json::to_string(&Spec::DenseCnn(config)).unwrap());
}

/// Frozen batch norm keeps its statistics in training, and its scale and shift learn; what trains by our books trains by candle's.
#[test]
fn frozen_norms_learn_all_but_statistics() {
    let compat = Compat { frozen_norm: true, ..Compat::default() };
    let config = Config { input: [1, 8, 8], compat, ..Config::cifar(Layer::Depthwise, 4, 3, &[2], 2) };
    let model = Model::new(config.graph(Seed(1)).unwrap(), Seed(1), &Device::Cpu).unwrap();
    let before = model.params.to_dtype(DType::F32).unwrap();
    let mut rng = Seed(5).rng();
    let rows: Vec<f32> = (0..16 * 64).map(|_| rng.normal() as f32).collect();
    let labels = (0..16).map(|row| row % 2).collect();
    let samples = datasets::Table::new(rows, &[1, 8, 8], labels, 2, 8, None);
    let mut steps = 0;
    fit(&model, &samples, None, &Recipe::adam(1e-2, 3), |event| steps += usize::from(matches!(event, Event::Step { .. }))).unwrap();
    assert_eq!(steps, 6);
    for ((parameter, old), (_, new)) in before.iter().zip(model.params.iter()) {
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(old) != flat(new), parameter.role.trainable(), "{}", parameter.name);
    }
}

/// Golden: of each width and depth the limit of links whose mass is nearest to the target.
#[test]
fn a_mass_leads_back_to_its_links() {
    let golden = golden::json("nnmass/inverse_design.json");
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 153);
    for row in rows {
        let (width, depth) = (number(&row["width"]), number(&row["depth"]));
        let cell = Cell::with_mass(width, depth, row["target_mass"].as_f64().unwrap()).unwrap();
        assert_eq!(cell.max_links, number(&row["tc"]), "{row}");
        assert!(close(cell.mass().unwrap(), row["achieved"].as_f64().unwrap()), "{row}");
    }
}

/// No other limit comes nearer, and a mass that a limit has leads back to the smallest limit that has it.
#[test]
fn no_other_number_of_links_comes_nearer() {
    let mut rng = Seed(4).rng();
    for _ in 0..300 {
        let (width, depth) = (1 + rng.below(12), 3 + rng.below(9));
        let most = (width * depth) as f64;
        let mass = rng.range(0.0, most);
        let apart = |max_links| (Cell { width, depth, max_links }.mass().unwrap() - mass).abs();
        let found = Cell::with_mass(width, depth, mass).unwrap().max_links;
        for other in 0..=width * (depth - 2) {
            assert!(apart(found) <= apart(other) + 1e-9, "{width}×{depth}, mass {mass}: {found} or {other}");
        }
        let max_links = rng.below(width * (depth - 2) + 1);
        let cell = Cell { width, depth, max_links };
        assert_eq!(Cell::with_mass(width, depth, cell.mass().unwrap()).unwrap(), cell);
    }
    expect!["nn_mass: mass: wanted 0 to 64, of width 8 and depth 8, found 65"]
        .assert_eq(&Cell::with_mass(8, 8, 65.0).unwrap_err().to_string());
    expect!["nn_mass: depth: wanted at least 3 layers in a cell, found 2"].assert_eq(&Cell::with_mass(8, 2, 1.0).unwrap_err().to_string());
}

/// Golden: the families of networks of the default one's mass, in both kinds of layers.
#[test]
fn networks_of_equal_mass_are_found() {
    let golden = golden::json("nnmass/equal_mass_families.json");
    let mut checked = 0;
    for (name, layer) in [("regular_dense", Layer::Regular), ("depthwise_dense", Layer::Depthwise)] {
        let like = Spec::DenseCnn(Config::default_cifar(layer, 10));
        let mass = list::<Vec<f64>>(&golden["target_per_cell"]).iter().sum();
        let space = Space { like, widths: vec![32], depths: vec![7, 10, 13, 16, 21] };
        let found = candidates(mass, Limits::default(), &space).unwrap();
        let wanted = golden["rows"].as_array().unwrap().iter().filter(|row| row["family"] == name);
        for (found, row) in found.iter().zip(wanted) {
            let Spec::DenseCnn(config) = &found.architecture else { panic!("{found:?}") };
            assert_eq!((config.depth, &config.max_links), (number(&row["cell_depth"]), &list::<Vec<usize>>(&row["tc"])));
            assert!(close(found.nn_mass, row["nn_mass"].as_f64().unwrap()));
            assert_eq!((found.params, found.macs as usize), (number(&row["params"]), number(&row["macs_conv_linear"])));
            checked += 1;
        }
    }
    assert_eq!(checked, 10);
}

#[test]
fn a_design_keeps_within_its_limits() {
    let like = Spec::DenseCnn(Config::default_cifar(Layer::Regular, 10));
    let space = Space { like, widths: vec![16, 32], depths: vec![7, 10, 13] };
    let limits = Limits { params: Some(3_000_000), macs: Some(400_000_000) };
    let table = design_for_mass(526.1, limits, &space).unwrap();
    expect![[r#"
        width  depth  max_links    nn_mass     params         macs
           16      7  [45,90,129]    526.4    793,114  120,592,384
           16     10  [43,86,130]    525.0  1,255,390  192,587,776
           16     13  [43,85,131]    525.3  1,722,880  265,910,272
           32      7  [38,75,116]    526.4  2,210,938  330,911,744
        4 rows"#]]
    .assert_eq(&table.select(&["width", "depth", "max_links", "nn_mass", "params", "macs"]).unwrap().to_string());
    let error = |mass, space: &Space| design_for_mass(mass, limits, space).unwrap_err().to_string();
    expect!["design: mass 1000000: wanted a width and depth that can have it within the limits, found none among 2 widths and 3 depths"]
        .assert_eq(&error(1e6, &space));
    expect!["nn_mass: depth: wanted at least 3 layers in a cell, found 2"]
        .assert_eq(&error(10.0, &Space { depths: vec![2], ..space.clone() }));
    expect!["design: family: wanted dense_cnn or dense_mlp, found a network without cells of links"]
        .assert_eq(&error(10.0, &Space { like: Spec::Resnet(resnet::Config::r18(10)), ..space.clone() }));
    // Without links in the example, each cell gets the same density.
    let like = Spec::DenseCnn(Config::cifar(Layer::Regular, 16, 8, &[0, 0], 10));
    let even = candidates(60.0, Limits::default(), &Space { like, widths: vec![16], depths: vec![8] }).unwrap();
    let Spec::DenseCnn(config) = &even[0].architecture else { panic!("{even:?}") };
    assert_eq!(config.max_links, [9, 17], "17 and 18 are as near");
    let like = Spec::DenseMlp(dense_mlp::Config::mnist(8, 8, 0));
    let small = candidates(22.1, Limits::default(), &Space { like, widths: vec![8], depths: vec![8] }).unwrap();
    assert_eq!(small[0].architecture, Spec::DenseMlp(dense_mlp::Config::mnist(8, 8, 10)));
}

fn residual(build: impl FnOnce(&mut Builder) -> lab::graph::Value) -> String {
    let mut g = Builder::new("net", &[8, 6, 6]);
    let output = build(&mut g);
    let graph = g.finish(output).unwrap();
    match nn_mass::of_residual(&graph, Shortcuts::Compat) {
        Ok(mass) => mass.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A block by its definition: its units times the share of the links that its sum makes.
#[test]
fn residual_blocks_have_a_mass() {
    let plain = residual(|g| {
        let ys = g.conv("a", g.input(), Conv::k3(16));
        let ys = g.conv("b", ys, Conv::k3(8));
        g.add(&[g.input(), ys])
    });
    expect!["24"].assert_eq(&plain);
    let single = residual(|g| {
        let ys = g.conv("a", g.input(), Conv::k3(8));
        g.add(&[ys, g.input()])
    });
    expect!["net: nn_mass: add: wanted at least 2 layers in a residual block, found 1"].assert_eq(&single);
    let none = residual(|g| g.conv("a", g.input(), Conv::k3(8)));
    expect!["net: nn_mass: wanted at least one residual block, found none"].assert_eq(&none);
    let three = residual(|g| {
        let ys = g.conv("a", g.input(), Conv::k3(8));
        g.add(&[ys, ys, g.input()])
    });
    expect!["net: nn_mass: add: wanted a sum of two, found 3"].assert_eq(&three);
    let cells = resnet::Config::r18(10).graph().unwrap();
    expect!["resnet: nn_mass: wanted at least one cell, found none"].assert_eq(&nn_mass::of(&cells).unwrap_err().to_string());
}
