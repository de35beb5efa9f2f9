//! Mixed precision, with `f64` for the wide type and `f32` for the narrow one, as the CPU has them: which operation computes in which
//! type, and that gradients come back to parameters in theirs.

use candle::{DType, Tensor};
use datasets::Seed;
use lab::exec::{self, Mode};
use lab::graph::{Builder, Graph, Op, Value};
use lab::kernels::{self, Activation, Pool};
use lab::{Conv, Params};

use crate::differentiating::numbers;
use crate::nets::{self, drawn};

/// `‖found − wanted‖ / ‖wanted‖`.
fn off(found: &[f64], wanted: &[f64]) -> f64 {
    let length = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    length(&mut found.iter().zip(wanted).map(|(a, b)| a - b)) / length(&mut wanted.iter().copied())
}

/// By name: the logits, what batch norm learns, and the gradient of every parameter.
fn everything(graph: &Graph, params: &Params, output: &exec::Output) -> Vec<(String, Tensor)> {
    let labels = Tensor::from_vec(vec![0u32, 2, 1, 0], 4, output.value.device()).unwrap();
    let gradients = kernels::cross_entropy(&output.value, &labels, 0.1).unwrap().backward().unwrap();
    let of = |(parameter, var): (&lab::graph::Parameter, &candle::Var)| (parameter.name.clone(), gradients.get(var).unwrap().clone());
    let learned = output.statistics.iter().map(|of| (format!("{}: variance", graph.nodes[of.node.0].name), of.var.clone()));
    std::iter::once(("logits".to_owned(), output.value.clone())).chain(learned).chain(params.trainable().map(of)).collect()
}

/// Values and gradients are those of full precision to the rounding of the narrow type, and of the wide type themselves.
#[test]
fn a_network_computes_the_same_to_the_digits_of_the_narrow_type() {
    for graph in [nets::every_op(), nets::further_ops(), nets::random_wired(6, 1)] {
        let params = drawn(graph.clone(), 3).params.to_dtype(DType::F64).unwrap();
        let xs = nets::samples(&graph, 4).to_dtype(DType::F64).unwrap();
        let mode = Mode::Train(Seed(4));
        let full = everything(&graph, &params, &exec::forward(&graph, &params, &xs, mode).unwrap());
        let mixed = everything(&graph, &params, &exec::forward_mixed(&graph, &params, &xs, mode, DType::F32).unwrap());
        let size = |numbers: &[f64]| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = full.iter().skip(1).map(|(_, wanted)| size(&numbers(wanted))).fold(0.0, f64::max);
        for ((name, found), (_, wanted)) in mixed.iter().zip(&full) {
            let (found, wanted, dtype) = (numbers(found), numbers(wanted), found.dtype());
            assert_eq!(dtype, DType::F64, "{}: {name}", graph.name);
            // What a normalisation behind a bias takes away again is noise on both sides.
            let apart = off(&found, &wanted);
            assert!(apart < 1e-4 || size(&wanted) < 1e-12 * scale, "{}: {name} is off by {apart:e}", graph.name);
        }
        let rounded = off(&numbers(&mixed[0].1), &numbers(&full[0].1));
        assert!(rounded > 1e-9, "{}: computed in the wide type: {rounded:e}", graph.name);
        let eval = |narrow: bool| {
            let output = match narrow {
                true => exec::forward_mixed(&graph, &params, &xs, Mode::Eval, DType::F32),
                false => exec::forward(&graph, &params, &xs, Mode::Eval),
            };
            numbers(&output.unwrap().value)
        };
        let apart = off(&eval(true), &eval(false));
        assert!((1e-9..1e-4).contains(&apart), "{}: evaluation is off by {apart:e}", graph.name);
    }
}

/// A convolution leaves narrow numbers. What `op` makes of them in mixed precision is, bit for bit, what it makes of them alone as `dtype`.
#[track_caller]
fn computes_in(dtype: DType, name: &str, op: impl Fn(&mut Builder, Value) -> Value) {
    let behind = |op: &dyn Fn(&mut Builder, Value) -> Value| {
        let mut g = Builder::new(name, &[3, 6, 6]);
        let xs = g.conv("conv", g.input(), Conv::k3(4));
        let ys = op(&mut g, xs);
        g.finish(ys).unwrap()
    };
    let alone = || {
        let mut g = Builder::new(name, &[4, 6, 6]);
        let xs = g.input();
        let ys = op(&mut g, xs);
        g.finish(ys).unwrap()
    };
    let params = |graph: &Graph, dtype| drawn(graph.clone(), 3).params.to_dtype(dtype).unwrap();
    let (plain, whole, alone) = (behind(&|_, xs| xs), behind(&op), alone());
    let xs = nets::samples(&plain, 4).to_dtype(DType::F64).unwrap();
    let mixed = |graph: &Graph| {
        let params = params(graph, DType::F64);
        exec::forward_mixed(graph, &params, &xs, Mode::Train(Seed(4)), DType::F32).unwrap().value
    };
    let narrow = mixed(&plain).to_dtype(dtype).unwrap();
    let wanted = exec::forward(&alone, &params(&alone, dtype), &narrow, Mode::Train(Seed(4))).unwrap().value;
    assert_eq!(numbers(&mixed(&whole)), numbers(&wanted), "{name}");
}

#[test]
fn each_operation_computes_in_its_type() {
    let pool = Pool { kernel: (3, 3), stride: (2, 2), padding: (1, 1), ceil_mode: false };
    computes_in(DType::F32, "conv", |g, xs| g.conv("next", xs, Conv::k3(5).bias()));
    computes_in(DType::F32, "top weights", |g, xs| g.conv("next", xs, Conv::k3(5).top(40)));
    computes_in(DType::F32, "batch norm", |g, xs| g.batch_norm("bn", xs));
    computes_in(DType::F32, "activation", |g, xs| g.activate(xs, Activation::Swish));
    computes_in(DType::F32, "max pool", |g, xs| g.max_pool(xs, pool));
    computes_in(DType::F32, "sum", |g, xs| g.add(&[xs, xs]));
    computes_in(DType::F32, "weighted sum", |g, xs| g.node("mix", Op::WeightedSum { through: None }, &[xs, xs]));
    computes_in(DType::F64, "softmax", |g, xs| g.softmax(xs, 0));
    computes_in(DType::F64, "layer norm", |g, xs| g.layer_norm("norm", xs, 1));
    computes_in(DType::F64, "instance norm", |g, xs| g.node("norm", Op::InstanceNorm { eps: 1e-5, affine: true }, &[xs]));
    // A wide and a narrow one come together, in either order, and a narrow one reads them.
    computes_in(DType::F64, "promotion", |g, xs| {
        let wide = g.softmax(xs, 0);
        g.add(&[xs, wide])
    });
    computes_in(DType::F64, "join", |g, xs| {
        let wide = g.softmax(xs, 0);
        g.concat(&[wide, xs])
    });
}
