//! Networks that several tests look at, and weights for them that are not those of the first step.

use candle::{Device, Tensor};
use datasets::Seed;
use lab::graph::{Builder, Graph, Linear, Op, Unit, Value};
use lab::kernels::Interpolation;
use lab::{Activation, Conv, Model, Pool};

/// A perceptron for pictures of 3×12×12 and 8 classes.
pub(crate) fn classifier() -> Model {
    let mut g = Builder::new("net", &[3, 12, 12]);
    let xs = g.input();
    let ys = g.flatten(xs);
    let ys = g.linear("hidden", ys, 16);
    let ys = g.activate(ys, Activation::Relu);
    let ys = g.linear("out", ys, 8);
    Model::new(g.finish(ys).unwrap(), Seed(1), &Device::Cpu).unwrap()
}

/// A model whose scales, shifts, biases and running statistics are all drawn, so that none of them can be left out unseen.
pub(crate) fn drawn(graph: Graph, seed: u64) -> Model {
    drawn_on(graph, seed, &Device::Cpu)
}

/// The same on any device.
pub(crate) fn drawn_on(graph: Graph, seed: u64, device: &Device) -> Model {
    let model = Model::new(graph, Seed(seed), device).unwrap();
    let mut rng = Seed(seed).named("drawn").rng();
    for (parameter, var) in model.params.iter() {
        let (low, high) = match parameter.name.rsplit_once('.').unwrap().1 {
            "running_var" => (0.4, 2.0),
            "weight" if parameter.shape.len() == 1 => (0.5, 1.5),
            "weight" => continue,
            _ => (-0.5, 0.5),
        };
        let values: Vec<f32> = (0..parameter.len()).map(|_| rng.range(low, high) as f32).collect();
        var.set(&Tensor::from_vec(values, parameter.shape.as_slice(), device).unwrap()).unwrap();
    }
    model
}

/// `n` samples of a graph's input.
pub(crate) fn samples(graph: &Graph, n: usize) -> Tensor {
    let mut rng = Seed(11).rng();
    let shape: Vec<usize> = [n].into_iter().chain(graph.input_shape().iter().copied()).collect();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The largest difference of two tensors, relative to the largest number of the second.
pub(crate) fn apart(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.dims(), wanted.dims());
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (found, wanted) = (flat(found), flat(wanted));
    let scale = wanted.iter().fold(f32::MIN_POSITIVE, |most, number| most.max(number.abs()));
    // Unlike `f32::max`, this keeps a NaN, wherever it is.
    let far = |most: f32, apart: f32| if most.is_nan() || apart <= most { most } else { apart };
    f64::from(found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, far) / scale)
}

/// A ResNet-18 of any width for pictures of 32×32, with the names of the original, whose width is 64.
pub(crate) fn resnet18(width: usize) -> Graph {
    let mut g = Builder::new("resnet18", &[3, 32, 32]);
    let input = g.input();
    let mut xs = conv_bn(&mut g, "conv1", "bn1", input, Conv::k3(width));
    xs = g.activate(xs, Activation::Relu);
    for stage in 0..4 {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            xs = g.scope(format!("layer{}.{block}", stage + 1), |g| basic_block(g, xs, width << stage, stride));
        }
    }
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 10);
    g.finish(logits).unwrap()
}

fn basic_block(g: &mut Builder, xs: Value, width: usize, stride: usize) -> Value {
    let ys = conv_bn(g, "conv1", "bn1", xs, Conv::k3(width).stride(stride));
    let ys = g.activate(ys, Activation::Relu);
    let ys = conv_bn(g, "conv2", "bn2", ys, Conv::k3(width));
    let narrow = stride == 1 && g.channels(xs) == width;
    let skip = if narrow { xs } else { conv_bn(g, "downsample.0", "downsample.1", xs, Conv::k1(width).stride(stride)) };
    let sum = g.add(&[ys, skip]);
    g.activate(sum, Activation::Relu)
}

pub(crate) fn conv_bn(g: &mut Builder, conv: &str, bn: &str, xs: Value, with: Conv) -> Value {
    let ys = g.conv(conv, xs, with);
    g.batch_norm(bn, ys)
}

/// Every operation of plain convolutional networks, and each way in which channels run on.
pub(crate) fn every_op() -> Graph {
    let mut g = Builder::new("every_op", &[3, 13, 11]);
    let input = g.input();
    let xs = conv_bn(&mut g, "stem", "stem_bn", input, Conv { stride: (2, 1), ..Conv::k3(8).bias() });
    let xs = g.activate(xs, Activation::Swish);
    let dw = conv_bn(&mut g, "dw", "dw_bn", xs, Conv::square(16, 3).groups(8));
    let dw = g.activate(dw, Activation::HardSwish);
    let pw = conv_bn(&mut g, "pw", "pw_bn", dw, Conv::k1(8));
    let sum = g.add(&[pw, xs]);
    let sum = g.activate(sum, Activation::Relu6);
    let grouped = conv_bn(&mut g, "grouped", "grouped_bn", sum, Conv { dilation: (1, 2), ..Conv::k3(12).groups(4) });
    let grouped = g.activate(grouped, Activation::Elu);
    // The last window sticks out on the right.
    let pool = Pool { kernel: (3, 4), stride: (2, 2), padding: (1, 0), ceil_mode: true };
    let (most, mean) = (g.max_pool(sum, pool), g.avg_pool(sum, pool));
    let mean = g.activate(mean, Activation::HardSigmoid);
    let tall = g.conv("tall", grouped, Conv { kernel: (3, 3), stride: (2, 2), padding: (0, 1), ..Conv::k1(6) });
    let most = g.conv("most", most, Conv { kernel: (2, 3), padding: (0, 1), ..Conv::k1(5) });
    let mean = g.conv("mean", mean, Conv { kernel: (2, 1), ..Conv::k1(5) });
    let links = g.pick("links", &[most, tall, mean], vec![9, 0, 3, 15, 3, 12, 6]);
    let all = g.concat(&[links, mean, tall]);
    let all = g.batch_norm("all_bn", all);
    let all = g.activate(all, Activation::Sigmoid);
    let (map, global) = (g.conv("map", all, Conv::k1(4)), g.global_avg_pool(all));
    let map = g.flatten(map);
    let hidden = g.linear("hidden", map, 18);
    let hidden = g.batch_norm("hidden_bn", hidden);
    let hidden = g.activate(hidden, Activation::Tanh);
    let both = g.add(&[hidden, global, hidden]);
    let both = g.activate(both, Activation::Relu);
    let logits = g.linear("fc", both, 7);
    g.finish(logits).unwrap()
}

/// The operations of networks beyond plain convolutions: other norms, gates, resampling, tokens that look at one another.
pub(crate) fn further_ops() -> Graph {
    let mut g = Builder::new("further_ops", &[4, 9, 7]);
    let xs = g.conv("top", g.input(), Conv::k3(6).top(100));
    let plain = Op::BatchNorm { eps: 1e-3, momentum: 0.1, affine: false, frozen: false };
    let xs = g.node("plain_bn", plain, &[xs]);
    let ys = g.node("instance", Op::InstanceNorm { eps: 1e-5, affine: true }, &[xs]);
    let ys = g.dropout(ys, 0.3, Unit::Channel);
    let large = g.upsample(ys, (11, 10), Interpolation::Bilinear);
    let large = g.conv("large", large, Conv::k3(6).padding(0));
    let small = g.adaptive_avg_pool(ys, (5, 3));
    let small = g.upsample(small, (9, 8), Interpolation::Nearest);
    let sum = g.node("mix", Op::WeightedSum { through: Some(Activation::Sigmoid) }, &[large, small]);
    let squeezed = g.global_avg_pool(sum);
    let squeezed = g.linear("squeeze", squeezed, Linear::plain(6).top(20));
    let gate = g.activate(squeezed, Activation::Sigmoid);
    let gated = g.multiply(sum, gate);
    let place = g.conv("place", gated, Conv::k1(1).bias());
    let place = g.activate(place, Activation::Sigmoid);
    let gated = g.multiply(gated, place);
    let gated = g.node("alone", Op::InstanceNorm { eps: 1e-5, affine: false }, &[gated]);
    let half = g.slice(gated, 0, 1, 4);
    let half = g.slice(half, 1, 2, 6);
    let tokens = g.reshape(half, &[4, 48]);
    let tokens = g.permute(tokens, &[1, 0]);
    let tokens = g.layer_norm("norm", tokens, 1);
    let (query, key) = (g.linear("query", tokens, 5), g.linear("key", tokens, Linear::plain(5)));
    let key = g.permute(key, &[1, 0]);
    let scores = g.matmul(query, key);
    let scores = g.scale(scores, 0.4);
    let shares = g.softmax(scores, 1);
    let seen = g.matmul(shares, tokens);
    let seen = g.add(&[seen, tokens]);
    let seen = g.node("all_norm", Op::LayerNorm { dims: 2, eps: 1e-5, affine: false }, &[seen]);
    let seen = g.flatten(seen);
    let logits = g.linear("fc", seen, 3);
    g.finish(logits).unwrap()
}

/// Two stages of separable convolutions wired as random graphs (Xie et al. 2019): the edges of a ring, some of them bent elsewhere.
pub(crate) fn random_wired(nodes: usize, seed: u64) -> Graph {
    let mut g = Builder::new("random_wired", &[3, 32, 32]);
    let input = g.input();
    let xs = conv_bn(&mut g, "stem.conv", "stem.bn", input, Conv::k3(16).stride(2));
    let xs = stage(&mut g, "stage1", xs, 32, nodes, Seed(seed).at(1));
    let xs = stage(&mut g, "stage2", xs, 64, nodes, Seed(seed).at(2));
    let xs = g.activate(xs, Activation::Relu);
    let xs = conv_bn(&mut g, "head.conv", "head.bn", xs, Conv::k1(128));
    let xs = g.activate(xs, Activation::Relu);
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 10);
    g.finish(logits).unwrap()
}

fn stage(g: &mut Builder, name: &str, xs: Value, width: usize, nodes: usize, seed: Seed) -> Value {
    let mut rng = seed.rng();
    // Each node reads the two before it on the ring; three edges in four come from anywhere earlier instead.
    let mut bend = |to: usize, from: usize| if rng.chance(0.75) { rng.below(to) } else { from };
    let sources: Vec<Vec<usize>> = (0..nodes)
        .map(|to| {
            let mut from: Vec<usize> = (1..=2.min(to)).map(|back| bend(to, to - back)).collect();
            from.sort_unstable();
            from.dedup();
            from
        })
        .collect();
    let mut outputs: Vec<Value> = Vec::new();
    for (at, sources) in sources.iter().enumerate() {
        let read: Vec<Value> = if sources.is_empty() { vec![xs] } else { sources.iter().map(|&from| outputs[from]).collect() };
        let output = g.scope(format!("{name}.{at}"), |g| {
            let sum = if read.len() > 1 { g.add(&read) } else { read[0] };
            let sum = g.activate(sum, Activation::Relu);
            let (channels, stride) = (g.channels(sum), if sources.is_empty() { 2 } else { 1 });
            let ys = g.conv("depthwise", sum, Conv::k3(channels).groups(channels).stride(stride));
            conv_bn(g, "pointwise", "bn", ys, Conv::k1(width))
        });
        outputs.push(output);
    }
    let ends: Vec<Value> = (0..nodes).filter(|at| !sources.iter().flatten().any(|from| from == at)).map(|at| outputs[at]).collect();
    if ends.len() > 1 { g.add(&ends) } else { ends[0] }
}
