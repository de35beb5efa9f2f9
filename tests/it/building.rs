//! Architectures as values: shapes, names, parameters, topology; and what a mistake says.

use datasets::Seed;
use expect_test::{Expect, expect};
use lab::graph::{Builder, Graph, Init, Linear, Op, Unit};
use lab::kernels::Interpolation;
use lab::metrics::{nn_mass, profile};
use lab::models::{Spec, dense_mlp};
use lab::{Activation, Conv, Pool};
use serde_json::Value;

use crate::golden;

fn tiny_cnn() -> Graph {
    let mut g = Builder::new("tiny_cnn", &[3, 9, 9]);
    let xs = g.input();
    let ys = g.conv("conv1", xs, Conv::k3(4).stride(2));
    let ys = g.batch_norm("bn1", ys);
    let ys = g.activate(ys, Activation::Relu);
    let zs = g.scope("layer1", |g| {
        let zs = g.conv("conv1", ys, Conv::k3(4).groups(2).bias());
        let zs = g.activate(zs, Activation::Relu);
        g.add(&[zs, ys])
    });
    let zs = g.max_pool(zs, Pool { padding: (1, 1), ..Pool::square(3, 2) });
    let zs = g.global_avg_pool(zs);
    let zs = g.linear("fc", zs, 5);
    g.finish(zs).unwrap()
}

/// Golden: every perceptron the original was asked about has its mass, links, parameters and MACs, counted from the edges.
#[test]
fn perceptrons_have_the_published_topology() {
    let golden = golden::json("nnmass/mlp_topology.json");
    let rows = golden["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 54);
    for row in rows {
        let number = |field: &str| row[field].as_u64().unwrap() as usize;
        let config = dense_mlp::Config {
            inputs: number("input_dim"),
            classes: number("classes"),
            width: number("width"),
            depth: number("depth"),
            max_links: number("tc"),
            activation: Activation::Elu,
            init: Init::Uniform,
        };
        let graph = config.graph(Seed(7)).unwrap();
        let mass = row["nn_mass"].as_f64().unwrap();
        let cell = nn_mass::Cell { width: config.width, depth: config.depth, max_links: config.max_links };
        let close = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-12 * wanted.max(1.0);
        assert!(close(nn_mass::of(&graph).unwrap(), mass), "{config:?}");
        assert!(close(cell.mass().unwrap(), mass), "{config:?}");
        assert!(close(cell.density().unwrap(), row["density"].as_f64().unwrap()), "{config:?}");
        let links: Vec<usize> = config.wiring(Seed(7)).iter().map(Vec::len).collect();
        assert_eq!(Value::from(links), row["links_per_layer"]);
        let profile = profile::of(&graph);
        assert_eq!((profile.params, profile.macs), (number("params_used"), number("macs") as u64), "{config:?}");
    }
}

#[test]
fn wiring_is_a_function_of_its_seed() {
    let config = dense_mlp::Config::mnist(8, 8, 10);
    assert_eq!(config.graph(Seed(1)).unwrap(), config.graph(Seed(1)).unwrap());
    assert_ne!(config.graph(Seed(1)).unwrap(), config.graph(Seed(2)).unwrap());
    for links in config.wiring(Seed(3)) {
        let mut distinct = links.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), links.len());
    }
}

/// A link may reach every layer but the direct predecessor, and never goes unseen: over many seeds each candidate is drawn.
#[test]
fn links_reach_every_layer_at_least_two_back() {
    let config = dense_mlp::Config::points(2, 5, 3);
    let mut seen = vec![false; config.candidates(4)];
    for seed in 0..60 {
        for link in &config.wiring(Seed(seed))[4] {
            seen[*link] = true;
        }
    }
    assert_eq!(seen, vec![true; 6]);
}

#[test]
fn a_graph_survives_its_file() {
    for graph in [tiny_cnn(), dense_mlp::Config::points(4, 6, 3).graph(Seed(5)).unwrap()] {
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
    }
    let spec = Spec::DenseMlp(dense_mlp::Config::mnist(8, 8, 10));
    let text = serde_json::to_string(&spec).unwrap();
    expect![[r#"{"family":"dense_mlp","inputs":784,"classes":10,"width":8,"depth":8,"max_links":10,"activation":"elu"}"#]].assert_eq(&text);
    assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
}

#[track_caller]
fn check_profile(graph: &Graph, want: Expect) {
    let profile = profile::of(graph);
    let row = |row: &profile::Row| format!("{:<18}{:<16}{:<10}{:>6}{:>8}\n", row.node, row.op, row.output, row.params, row.macs);
    let rows: String = profile.rows.iter().map(row).collect();
    want.assert_eq(&format!("{rows}params {} macs {}\n", profile.params, profile.macs));
}

#[test]
fn a_profile_counts_each_node() {
    check_profile(
        &tiny_cnn(),
        expect![[r#"
            input             input           3×9×9          0       0
            conv1             conv            4×5×5        108    2700
            bn1               batch_norm      4×5×5          8       0
            relu              relu            4×5×5          0       0
            layer1.conv1      conv            4×5×5         76    1800
            layer1.relu       relu            4×5×5          0       0
            layer1.add        add             4×5×5          0       0
            max_pool          max_pool        4×3×3          0       0
            global_avg_pool   global_avg_pool 4              0       0
            fc                linear          5             25      20
            params 217 macs 4520
        "#]],
    );
}

#[track_caller]
fn check_mistake(build: impl FnOnce(&mut Builder) -> lab::graph::Value, want: Expect) {
    let mut g = Builder::new("net", &[3, 8, 8]);
    let output = build(&mut g);
    want.assert_eq(&g.finish(output).unwrap_err().to_string());
}

#[test]
fn a_mistake_names_its_node_and_the_shapes() {
    check_mistake(
        |g| g.conv("stem", g.input(), Conv::k3(8).groups(2)),
        expect!["net: stem: wanted 2 groups that divide input and output channels, found 3 and 8"],
    );
    check_mistake(
        |g| g.conv("stem", g.input(), Conv::square(8, 11).padding(0)),
        expect![
            "net: stem: wanted a kernel that fits the padded picture, found Conv { channels: 8, kernel: (11, 11), stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1, bias: false, top: None } on 8×8"
        ],
    );
    check_mistake(|g| g.linear("fc", g.input(), 8), expect!["net: fc: wanted an input [d] or [t, d]; flatten it first, found [3, 8, 8]"]);
    check_mistake(
        |g| {
            let ys = g.conv("a", g.input(), Conv::k1(3));
            let zs = g.scope("b", |g| g.conv("a", ys, Conv::k1(4)));
            g.add(&[ys, zs])
        },
        expect!["net: add: wanted inputs of one shape [3, 8, 8], found [4, 8, 8]"],
    );
    check_mistake(
        |g| {
            let ys = g.conv("a", g.input(), Conv::k1(3));
            g.conv("a", ys, Conv::k1(3))
        },
        expect!["net: a: wanted a name of its own, found one taken before"],
    );
    check_mistake(|g| g.pick("links", &[g.input()], vec![0, 3]), expect!["net: links: wanted channels below 3, found 3"]);
}

#[test]
fn a_config_that_does_not_add_up_names_the_field() {
    let shallow = dense_mlp::Config { depth: 2, ..dense_mlp::Config::mnist(8, 8, 10) };
    expect!["dense_mlp: depth: wanted at least 3, found 2"].assert_eq(&shallow.graph(Seed(0)).unwrap_err().to_string());
    let cell = nn_mass::Cell { width: 8, depth: 2, max_links: 3 };
    expect!["nn_mass: depth: wanted at least 3 layers in a cell, found 2"].assert_eq(&cell.mass().unwrap_err().to_string());
    let unknown = r#"{"family":"dense_mlp","inputs":784,"classes":10,"width":8,"depth":8,"max_links":10,"tc":3}"#;
    let error = serde_json::from_str::<Spec>(unknown).unwrap_err().to_string();
    expect!["unknown field `tc`, expected one of `inputs`, `classes`, `width`, `depth`, `max_links`, `activation`, `init`"]
        .assert_eq(&error);
    let broken = serde_json::to_string(&tiny_cnn()).unwrap().replace(r#""shape":[5]"#, r#""shape":[6]"#);
    let error = serde_json::from_str::<Graph>(&broken).unwrap_err().to_string();
    expect!["tiny_cnn: fc: wanted shape [5], found [6]"].assert_eq(&error);
}

/// Shapes and costs of the operations beyond layers and pooling, and where their channels come from.
#[test]
fn operations_have_shapes_costs_and_origins() {
    let mut g = Builder::new("net", &[4, 6, 6]);
    let xs = g.input();
    let ys = g.conv("conv", xs, Conv::k3(8).top(50));
    let ys = g.node("norm", Op::InstanceNorm { eps: 1e-5, affine: true }, &[ys]);
    let ys = g.upsample(ys, (12, 12), Interpolation::Bilinear);
    let ys = g.adaptive_avg_pool(ys, (4, 3));
    let part = g.slice(ys, 0, 2, 3);
    let both = g.concat(&[part, ys]);
    let gate = g.global_avg_pool(both);
    let gate = g.linear("gate", gate, Linear::plain(11).top(20));
    let gated = g.multiply(both, gate);
    let rows = g.reshape(gated, &[11, 12]);
    let columns = g.permute(rows, &[1, 0]);
    let product = g.matmul(rows, columns);
    let tokens = g.linear("tokens", product, 5);
    let tokens = g.layer_norm("last", tokens, 1);
    let tokens = g.weighted_sum("sum", &[tokens, tokens]);
    let graph = g.finish(tokens).unwrap();
    check_profile(
        &graph,
        expect![[r#"
        input             input           4×6×6          0       0
        conv              conv            8×6×6        288    1800
        norm              instance_norm   8×6×6         16       0
        upsample          upsample        8×12×12        0       0
        adaptive_avg_pool adaptive_avg_pool8×4×3          0       0
        slice             slice           3×4×3          0       0
        concat            concat          11×4×3         0       0
        global_avg_pool   global_avg_pool 11             0       0
        gate              linear          11           121      20
        multiply          multiply        11×4×3         0       0
        reshape           reshape         11×12          0       0
        permute           permute         12×11          0       0
        matmul            matmul          11×11          0    1452
        tokens            linear          11×5          60     605
        last              layer_norm      11×5          10       0
        sum               weighted_sum    11×5           2       0
        params 497 macs 3877
    "#]],
    );
    let conv = graph.find("conv").unwrap();
    let passed: Vec<usize> = graph
        .origins(both.id())
        .into_iter()
        .map(|(node, channel)| {
            assert_eq!(node, conv);
            channel
        })
        .collect();
    assert_eq!(passed, [2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7]);
    assert!(graph.origins(product.id()).iter().all(|&(node, _)| node == product.id()));
}

#[test]
fn an_operation_that_does_not_fit_says_why() {
    check_mistake(
        |g| g.node("x", Op::LayerNorm { dims: 4, eps: 1e-5, affine: true }, &[g.input()]),
        expect!["net: x: wanted 1 to 3 dimensions, found 4"],
    );
    check_mistake(|g| g.softmax(g.input(), 3), expect!["net: softmax: wanted a dimension of [3, 8, 8], counted from 0, found 3"]);
    check_mistake(|g| g.slice(g.input(), 1, 7, 2), expect!["net: slice: wanted a part of 8 places, found 2 from place 7 on"]);
    check_mistake(|g| g.reshape(g.input(), &[3, 8]), expect!["net: reshape: wanted a shape of as many values as [3, 8, 8], found [3, 8]"]);
    check_mistake(|g| g.permute(g.input(), &[0, 1, 1]), expect!["net: permute: wanted each of the 3 dimensions once, found [0, 1, 1]"]);
    check_mistake(
        |g| g.upsample(g.input(), (0, 4), Interpolation::Nearest),
        expect!["net: upsample: wanted at least one row and column, found (0, 4)"],
    );
    check_mistake(|g| g.dropout(g.input(), 1.0, Unit::Channel), expect!["net: channel_dropout: wanted a probability below 1, found 1"]);
    check_mistake(|g| g.conv("conv", g.input(), Conv::k1(2).top(7)), expect!["net: conv: wanted 1 to 6 weights in use, found 7"]);
    check_mistake(
        |g| {
            let part = g.slice(g.input(), 1, 0, 3);
            g.matmul(g.input(), part)
        },
        expect!["net: matmul: wanted two inputs [.., m, k] and [.., k, n], found [[3, 8, 8], [3, 3, 8]]"],
    );
    check_mistake(
        |g| {
            let gate = g.slice(g.input(), 0, 0, 2);
            g.multiply(g.input(), gate)
        },
        expect!["net: multiply: wanted [3], or [3, 8, 8] with 1 in some places, found [2, 8, 8]"],
    );
    check_mistake(
        |g| {
            let one = g.adaptive_avg_pool(g.input(), (1, 1));
            g.node("x", Op::InstanceNorm { eps: 1e-5, affine: false }, &[one])
        },
        expect!["net: x: wanted more than one pixel to normalise by, found 1×1"],
    );
}
