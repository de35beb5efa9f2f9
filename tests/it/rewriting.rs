//! Rewritten networks compute what they did: batch norm folded, dead channels removed.

use candle::Tensor;
use datasets::Seed;
use expect_test::{Expect, expect};
use lab::graph::{Builder, Graph, Linear, Op};
use lab::models::{mobilenet_v2, resnet, vgg};
use lab::rewrite::{self, Pruned};
use lab::{Activation, Conv, Model, Pool, exec};

use crate::nets::{apart, conv_bn, drawn, every_op, further_ops, resnet18, samples};

/// Roundings of `f32`, layer after layer.
const TOLERANCE: f64 = 1e-5;

#[track_caller]
fn same_value(model: &Model, graph: &Graph, params: &lab::Params) {
    let xs = samples(&model.graph, 3);
    let found = exec::forward(graph, params, &xs, exec::Mode::Eval).unwrap().value;
    let apart = apart(&found, &model.forward(&xs).unwrap());
    assert!(apart < TOLERANCE, "{}: {apart}", graph.name);
    // Shapes, order and names are those of a graph that was built.
    let text = serde_json::to_string(graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), *graph);
}

fn count(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> usize {
    graph.nodes.iter().filter(|node| wanted(&node.op)).count()
}

#[track_caller]
fn check_fold(model: &Model, left: &[&str]) -> Graph {
    let before: Vec<_> = model.params.iter().map(|(_, var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect();
    let (graph, params) = rewrite::fold(&model.graph, &model.params).unwrap();
    same_value(model, &graph, &params);
    let norms = graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNorm { .. }));
    assert_eq!(norms.map(|node| node.name.as_str()).collect::<Vec<_>>(), left);
    let after: Vec<_> = model.params.iter().map(|(_, var)| var.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect();
    assert_eq!(before, after, "the weights it was given are as they were");
    graph
}

#[test]
fn folding_leaves_no_batch_norm_after_a_layer() {
    let graph = check_fold(&drawn(resnet18(8), 1), &[]);
    assert_eq!(graph.nodes.len(), resnet18(8).nodes.len() - 20);
    let families = [
        resnet::Config { blocks: [1, 1, 1, 1], ..resnet::Config::r50(10).cifar() }.graph(),
        mobilenet_v2::Config::imagenet(0.25, 10).cifar().graph(),
        vgg::Config::layerwise(&[8; 15], 10).unwrap().graph(),
    ];
    for family in families {
        check_fold(&drawn(family.unwrap(), 2), &[]);
    }
    // With and without bias, depthwise, grouped, after a linear layer; the one after the concatenation stays.
    let graph = check_fold(&drawn(every_op(), 2), &["all_bn"]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Conv(conv) if conv.bias)), 4);
    // Without scale and shift, after a layer that uses only its largest weights: these stay the ones, however channels are scaled.
    let graph = check_fold(&drawn(further_ops(), 3), &[]);
    assert_eq!(count(&graph, |op| matches!(op, Op::Conv(conv) if conv.top.is_some())), 0);
}

#[test]
fn folding_spares_what_others_read() {
    let mut g = Builder::new("spared", &[3, 6, 6]);
    let xs = g.conv("shared", g.input(), Conv::k3(4));
    let ys = g.batch_norm("bn_of_shared", xs);
    let zs = g.batch_norm("other_bn_of_shared", xs);
    let sum = g.add(&[ys, zs]);
    // A batch norm that two read folds; so does one behind another.
    let ys = conv_bn(&mut g, "conv", "bn", sum, Conv::k1(4));
    let ys = g.batch_norm("bn_again", ys);
    let twice = g.concat(&[ys, ys]);
    let ys = g.conv("last", twice, Conv::k1(2));
    let ys = g.batch_norm("last_bn", ys);
    g.cell(&[xs, ys]);
    let model = drawn(g.finish(ys).unwrap(), 3);
    let graph = check_fold(&model, &["bn_of_shared", "other_bn_of_shared"]);
    assert_eq!(graph.node(graph.output).name, "last");
    assert_eq!(graph.cells[0].iter().map(|&layer| graph.node(layer).name.as_str()).collect::<Vec<_>>(), ["shared", "last"]);

    // What the network gives is read too: the layer itself, not its batch norm.
    let mut g = Builder::new("unread", &[3, 6, 6]);
    let xs = g.conv("conv", g.input(), Conv::k3(4));
    g.batch_norm("bn", xs);
    check_fold(&drawn(g.finish(xs).unwrap(), 4), &["bn"]);
}

/// Zeros in place of some channels of a parameter, along `dim`.
fn zero(model: &Model, name: &str, dim: usize, channels: &[usize]) {
    put(model, name, dim, channels, 0.0);
}

fn put(model: &Model, name: &str, dim: usize, channels: &[usize], number: f32) {
    let var = model.params.get(name).unwrap();
    let size = var.dim(dim).unwrap();
    let (keep, fill): (Vec<f32>, Vec<f32>) =
        (0..size).map(|channel| if channels.contains(&channel) { (0.0, number) } else { (1.0, 0.0) }).unzip();
    let shape: Vec<usize> = (0..var.rank()).map(|d| if d == dim { size } else { 1 }).collect();
    let along = |numbers: Vec<f32>| Tensor::from_vec(numbers, shape.as_slice(), var.device()).unwrap();
    let changed = var.broadcast_mul(&along(keep)).unwrap().broadcast_add(&along(fill)).unwrap();
    model.params.set(name, &changed).unwrap();
}

#[track_caller]
fn check_prune(model: &Model, want: Expect) -> Pruned {
    let pruned = rewrite::prune(&model.graph, &model.params).unwrap();
    same_value(model, &pruned.graph, &pruned.params);
    let line = |removed: &rewrite::Removed| format!("{} {:?} of {}\n", removed.node, removed.channels, removed.of);
    want.assert_eq(&pruned.removed.iter().map(line).collect::<String>());
    pruned
}

#[test]
fn a_network_that_needs_everything_loses_nothing() {
    let model = drawn(resnet18(4), 1);
    let pruned = check_prune(&model, expect![""]);
    assert_eq!(pruned.graph, model.graph);
}

/// conv, batch norm, ReLU, then a layer that pads or not.
fn chain(reader: Conv) -> Model {
    let mut g = Builder::new("chain", &[3, 8, 8]);
    let input = g.input();
    let xs = conv_bn(&mut g, "a", "bn", input, Conv::k3(6));
    let xs = g.activate(xs, Activation::Relu);
    let xs = g.conv("b", xs, reader);
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 4);
    drawn(g.finish(logits).unwrap(), 5)
}

#[test]
fn a_channel_that_no_weight_reads_goes() {
    let model = chain(Conv::k3(5));
    zero(&model, "b.weight", 1, &[1, 4]);
    zero(&model, "fc.weight", 1, &[0]);
    let pruned = check_prune(
        &model,
        expect![[r#"
            a [1, 4] of 6
            bn [1, 4] of 6
            relu [1, 4] of 6
            b [0] of 5
            global_avg_pool [0] of 5
        "#]],
    );
    assert_eq!(pruned.params.get("b.weight").unwrap().dims(), [4, 4, 3, 3]);
}

/// Channel 0 is scaled to a constant that ReLU makes 0, channel 3 to one that stays.
#[test]
fn a_constant_goes_into_the_bias_of_its_reader_unless_padding_is_in_the_way() {
    let constants = |model: &Model| {
        zero(model, "bn.weight", 0, &[0, 3]);
        put(model, "bn.bias", 0, &[0], -0.7);
        put(model, "bn.bias", 0, &[3], 0.9);
    };
    let padded = chain(Conv::k3(5));
    constants(&padded);
    let pruned = check_prune(
        &padded,
        expect![[r#"
            a [0] of 6
            bn [0] of 6
            relu [0] of 6
        "#]],
    );
    assert!(pruned.params.get("b.bias").is_err());
    let bare = chain(Conv::k3(5).padding(0));
    constants(&bare);
    let pruned = check_prune(
        &bare,
        expect![[r#"
            a [0, 3] of 6
            bn [0, 3] of 6
            relu [0, 3] of 6
        "#]],
    );
    assert_eq!(pruned.params.get("b.bias").unwrap().dims(), [5]);
    // All channels constant: something still has to be read.
    let nothing = chain(Conv::k1(5).bias());
    zero(&nothing, "bn.weight", 0, &[0, 1, 2, 3, 4, 5]);
    let pruned = check_prune(
        &nothing,
        expect![[r#"
            a [1, 2, 3, 4, 5] of 6
            bn [1, 2, 3, 4, 5] of 6
            relu [1, 2, 3, 4, 5] of 6
            b [1, 2, 3, 4] of 5
            global_avg_pool [1, 2, 3, 4] of 5
        "#]],
    );
    assert_eq!(pruned.graph.output_shape(), [4]);
}

/// A sum loses a channel when nobody reads it, and then each side does; not when one side alone is 0.
#[test]
fn a_sum_and_its_sides_keep_the_same_channels() {
    let build = || {
        let mut g = Builder::new("residual", &[3, 8, 8]);
        let input = g.input();
        let xs = conv_bn(&mut g, "stem", "stem_bn", input, Conv::k3(6));
        let ys = conv_bn(&mut g, "conv", "bn", xs, Conv::k3(6));
        let sum = g.add(&[ys, xs]);
        let sum = g.activate(sum, Activation::Relu);
        let sum = g.max_pool(sum, Pool::square(2, 2));
        let sum = g.flatten(sum);
        let logits = g.linear("fc", sum, 4);
        drawn(g.finish(logits).unwrap(), 6)
    };
    let one_side = build();
    zero(&one_side, "bn.weight", 0, &[2]);
    zero(&one_side, "bn.bias", 0, &[2]);
    check_prune(&one_side, expect![""]);
    // Features 32..48 of the flattened map are channel 2; the convolution reads it still, so it stays on both sides.
    let read = build();
    zero(&read, "fc.weight", 1, &(32..48).collect::<Vec<_>>());
    check_prune(&read, expect![""]);
    zero(&read, "conv.weight", 1, &[2]);
    check_prune(
        &read,
        expect![[r#"
            stem [2] of 6
            stem_bn [2] of 6
            conv [2] of 6
            bn [2] of 6
            add [2] of 6
            relu [2] of 6
            max_pool [2] of 6
            flatten [32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47] of 96
        "#]],
    );
}

/// What a pick does not choose goes, as do branches that nothing reads; the numbers of the chosen follow.
#[test]
fn a_pick_asks_for_what_it_chose() {
    let mut g = Builder::new("links", &[3, 8, 8]);
    let a = g.conv("a", g.input(), Conv::k3(4).bias());
    let b = g.conv("b", g.input(), Conv::k3(4).bias());
    let c = g.conv("c", g.input(), Conv::k3(4).bias());
    let deep = conv_bn(&mut g, "deep", "deep_bn", c, Conv::k3(4));
    g.activate(deep, Activation::Relu);
    let c = g.avg_pool(c, Pool { padding: (1, 1), ..Pool::square(3, 1) });
    let links = g.pick("links", &[a, b, c], vec![9, 3, 3, 1, 11]);
    let all = g.concat(&[links, a]);
    let ys = g.conv("y", all, Conv::k3(4));
    let ys = g.global_avg_pool(ys);
    let model = drawn(g.finish(ys).unwrap(), 7);
    // Of the links the third (channel 3 of a, a second time), of a its channel 0.
    zero(&model, "y.weight", 1, &[2, 5]);
    let pruned = check_prune(
        &model,
        expect![[r#"
            a [0] of 4
            b [0, 1, 2, 3] of 4
            c [0, 2] of 4
            deep [0, 1, 2, 3] of 4
            deep_bn [0, 1, 2, 3] of 4
            relu [0, 1, 2, 3] of 4
            avg_pool [0, 2] of 4
            links [2] of 5
            concat [2, 5] of 9
        "#]],
    );
    assert_eq!(pruned.graph.node(pruned.graph.find("links").unwrap()).op, Op::Pick { channels: vec![3, 2, 0, 4] });
}

/// A gate has the channels of what it opens; a slice asks for its part, and becomes a choice where channels before it go.
#[test]
fn gates_and_slices_follow() {
    let mut g = Builder::new("gated", &[3, 8, 8]);
    let xs = g.conv("conv", g.input(), Conv::k3(6).bias());
    let mean = g.global_avg_pool(xs);
    let gate = g.linear("gate", mean, Linear::plain(6));
    let gate = g.activate(gate, Activation::Sigmoid);
    let xs = g.multiply(xs, gate);
    let part = g.slice(xs, 0, 2, 3);
    let part = g.global_avg_pool(part);
    let model = drawn(g.finish(part).unwrap(), 9);
    // The gate reads the mean of channel 0; channels 1 and 5 lead nowhere.
    zero(&model, "gate.weight", 1, &[1, 5]);
    let pruned = check_prune(
        &model,
        expect![[r#"
            conv [1, 5] of 6
            global_avg_pool [1, 5] of 6
            gate [1, 5] of 6
            sigmoid [1, 5] of 6
            multiply [1, 5] of 6
        "#]],
    );
    assert_eq!(pruned.graph.node(pruned.graph.find("slice").unwrap()).op, Op::Pick { channels: vec![1, 2, 3] });
}

/// Of a depthwise layer single channels go, of a grouped one whole groups.
#[test]
fn groups_leave_as_a_whole() {
    let build = |groups: usize| {
        let mut g = Builder::new("groups", &[3, 8, 8]);
        let input = g.input();
        let xs = conv_bn(&mut g, "stem", "stem_bn", input, Conv::k3(6));
        let xs = g.conv("grouped", xs, Conv::k3(12).groups(groups));
        let xs = g.conv("last", xs, Conv::k1(3));
        let xs = g.global_avg_pool(xs);
        let model = drawn(g.finish(xs).unwrap(), 8);
        zero(&model, "last.weight", 1, &[0, 1, 2, 3, 5]);
        model
    };
    check_prune(
        &build(6),
        expect![[r#"
            stem [0, 1] of 6
            stem_bn [0, 1] of 6
            grouped [0, 1, 2, 3] of 12
        "#]],
    );
    let pruned = check_prune(
        &build(3),
        expect![[r#"
            stem [0, 1] of 6
            stem_bn [0, 1] of 6
            grouped [0, 1, 2, 3] of 12
        "#]],
    );
    assert!(pruned.graph.nodes.iter().any(|node| matches!(node.op, Op::Conv(conv) if conv.groups == 2 && conv.channels == 8)));
    check_prune(&build(2), expect![""]);
}

/// Whatever is set to zero, the value stays; and pruning twice removes nothing more.
#[test]
fn any_zeros_leave_the_value_as_it_is() {
    let mut removed = 0;
    for seed in 0..36 {
        let model = drawn([every_op(), resnet18(6), further_ops()][seed as usize % 3].clone(), seed);
        let mut rng = Seed(seed).named("zeros").rng();
        for (parameter, _) in model.params.iter() {
            let (scale, weight) = (parameter.shape.len() == 1 && parameter.name.ends_with("bn.weight"), parameter.shape.len() > 1);
            let dim = usize::from(weight && seed % 4 > 0);
            if (scale || weight) && rng.below(3) > 0 {
                let some: Vec<usize> = (0..parameter.shape[dim]).filter(|_| rng.below(3) == 0).collect();
                zero(&model, &parameter.name, dim, &some);
                if scale && rng.below(2) == 0 {
                    put(&model, &parameter.name.replace("weight", "bias"), 0, &some, -0.1);
                }
            }
        }
        let pruned = rewrite::prune(&model.graph, &model.params).unwrap();
        same_value(&model, &pruned.graph, &pruned.params);
        removed += pruned.removed.len();
        assert_eq!(rewrite::prune(&pruned.graph, &pruned.params).unwrap().removed, [], "seed {seed}");
        let (graph, params) = rewrite::fold(&pruned.graph, &pruned.params).unwrap();
        same_value(&model, &graph, &params);
    }
    assert!(removed > 100, "{removed}");
}
