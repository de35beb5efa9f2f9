//! The kernels, and the nodes of a graph, give PyTorch's numbers, forward and backward; the optimisers take its steps.

use candle::{DType, Result, Tensor, Var};
use datasets::Seed;
use lab::Params;
use lab::exec::{self, Mode};
use lab::graph::{Builder, Op};
use lab::kernels::{self, Activation, Adam, Affine, Conv, Decay, Divisor, Pool, Sgd};
use serde_json::{Value, from_value};

use crate::differentiating::{CPU, Lie, distance, fill, forward_backward, numbers};

/// Both sides compute in `f64`; the file has twelve decimals.
const TOLERANCE: f64 = 1e-11;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../golden/kernels/kernels.json")).unwrap()
}

fn list(value: &Value) -> Vec<f64> {
    from_value(value.clone()).unwrap()
}

type Operation = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// The operation that a case names, as a function of its inputs.
fn operation(name: &str, config: &Value) -> Operation {
    let config = config.clone();
    match name {
        "conv2d" => {
            let conv: Conv = from_value(config).unwrap();
            Box::new(move |t| kernels::conv2d(&t[0], &t[1], Some(&t[2]), &conv))
        }
        "max_pool2d" => {
            let pool: Pool = from_value(config).unwrap();
            // Quarters make ties; the gradient passes through the rounding unchanged.
            Box::new(move |t| {
                let rounded = (((&t[0] * 4.0)?.floor()? / 4.0)?.detach() - t[0].detach())?;
                kernels::max_pool2d(&(&t[0] + rounded)?, &pool)
            })
        }
        "avg_pool2d" => {
            let (pool, divisor): (Pool, Divisor) =
                (from_value(config["pool"].clone()).unwrap(), from_value(config["divisor"].clone()).unwrap());
            Box::new(move |t| kernels::avg_pool2d(&t[0], &pool, divisor))
        }
        "adaptive_avg_pool2d" => {
            let windows: (usize, usize) = from_value(config).unwrap();
            Box::new(move |t| kernels::adaptive_avg_pool2d(&t[0], windows))
        }
        "batch_norm" => {
            let eps = config["eps"].as_f64().unwrap();
            Box::new(move |t| Ok(kernels::batch_norm(&t[0], Some(Affine { weight: &t[1], bias: &t[2] }), eps)?.ys))
        }
        "activate" => {
            let activation: Activation = from_value(config).unwrap();
            Box::new(move |t| kernels::activate(&(&t[0] * 8.0)?, activation))
        }
        "cross_entropy" => {
            let labels: Vec<u32> = from_value(config["labels"].clone()).unwrap();
            let smoothing = config["smoothing"].as_f64().unwrap();
            Box::new(move |t| kernels::cross_entropy(&(&t[0] * 5.0)?, &Tensor::new(labels.as_slice(), CPU)?, smoothing))
        }
        other => panic!("an operation called {other}"),
    }
}

#[test]
fn outputs_and_gradients() {
    let mut seen = 0;
    for case in cases().iter().filter(|case| case["shapes"].is_array()) {
        let (name, config) = (case["name"].as_str().unwrap(), &case["config"]);
        let shapes: Vec<Vec<usize>> = from_value(case["shapes"].clone()).unwrap();
        let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| fill(seed, shape)).collect();
        for lie in [Lie::Contiguous, Lie::Strided] {
            let (ys, grads) = forward_backward(&operation(name, config), &inputs, lie).unwrap();
            assert_eq!(ys.dims(), from_value::<Vec<usize>>(case["output_shape"].clone()).unwrap(), "{name} {config}");
            assert!(distance(&numbers(&ys), &list(&case["output"])) < TOLERANCE, "{name} {config} {lie:?}: output");
            for (which, grad) in grads.iter().enumerate() {
                assert!(distance(grad, &list(&case["gradients"][which])) < TOLERANCE, "{name} {config} {lie:?}: gradient {which}");
            }
        }
        if name == "batch_norm" {
            let normed = kernels::batch_norm(&inputs[0], None, 0.0).unwrap();
            assert!(distance(&numbers(&normed.mean), &list(&case["mean"])) < TOLERANCE);
            assert!(distance(&numbers(&normed.var), &list(&case["var"])) < TOLERANCE);
        }
        seen += 1;
    }
    assert_eq!(seen, 34);
}

/// One node of each operation, run in training; it reads slices of one flat input, so that any number of inputs can be given.
#[test]
fn nodes_of_a_graph() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/kernels/operations.json")).unwrap();
    assert_eq!(cases.len(), 39);
    for case in cases {
        let op: Op = from_value(case["config"]["op"].clone()).unwrap();
        let shapes: Vec<Vec<usize>> = from_value(case["shapes"].clone()).unwrap();
        let filled: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| fill(seed, shape)).collect();
        let (inputs, parameters) = filled.split_at(from_value(case["config"]["inputs"].clone()).unwrap());
        let flat: Vec<Tensor> = inputs.iter().map(|input| input.flatten_from(1).unwrap()).collect();
        let xs = Var::from_tensor(&Tensor::cat(&flat, 1).unwrap()).unwrap();

        let mut g = Builder::new("case", &xs.dims()[1..]);
        let (mut values, mut start) = (Vec::new(), 0);
        for input in inputs {
            let len = input.elem_count() / input.dims()[0];
            let part = g.slice(g.input(), 0, start, len);
            values.push(g.reshape(part, &input.dims()[1..]));
            start += len;
        }
        let ys = g.node("op", op.clone(), &values);
        let graph = g.finish(ys).unwrap();
        let params = Params::init(&graph, Seed(0), CPU).unwrap().to_dtype(DType::F64).unwrap();
        assert_eq!(params.trainable().count(), parameters.len(), "{op:?}");
        for ((parameter, _), value) in params.trainable().zip(parameters) {
            // Where the largest weights are chosen, quarters make ties.
            let ties = parameter.name == "op.weight" && serde_json::to_string(&op).unwrap().contains("top");
            let value = if ties { ((value * 4.0).unwrap().floor().unwrap() / 4.0).unwrap() } else { value.clone() };
            params.set(&parameter.name, &value).unwrap();
        }

        let ys = exec::forward(&graph, &params, &xs, Mode::Train(Seed(0))).unwrap().value;
        assert_eq!(ys.dims(), from_value::<Vec<usize>>(case["output_shape"].clone()).unwrap(), "{op:?}");
        assert!(distance(&numbers(&ys), &list(&case["output"])) < TOLERANCE, "{op:?}: output");
        let gradients = (&ys * fill(100, ys.dims())).unwrap().sum_all().unwrap().backward().unwrap();
        let mut start = 0;
        for (which, input) in inputs.iter().enumerate() {
            let len = input.elem_count() / input.dims()[0];
            let gradient = gradients.get(&xs).unwrap().narrow(1, start, len).unwrap();
            assert!(distance(&numbers(&gradient), &list(&case["gradients"][which])) < TOLERANCE, "{op:?}: input {which}");
            start += len;
        }
        for (which, (parameter, var)) in (inputs.len()..).zip(params.trainable()) {
            let gradient = numbers(gradients.get(var).unwrap());
            assert!(distance(&gradient, &list(&case["gradients"][which])) < TOLERANCE, "{op:?}: {}", parameter.name);
        }
    }
}

/// Five steps from the same start with the same gradients.
fn check_steps(case: &Value, step: impl Fn(usize, &Var, &Tensor, [&Var; 2])) {
    let zeros = || Var::from_tensor(&fill(1, &[7]).zeros_like().unwrap()).unwrap();
    let (param, state) = (Var::from_tensor(&fill(1, &[7])).unwrap(), [zeros(), zeros()]);
    for (at, want) in case["steps"].as_array().unwrap().iter().enumerate() {
        step(at, &param, &fill(10 + at as u64, &[7]), [&state[0], &state[1]]);
        assert!(distance(&numbers(&param), &list(want)) < TOLERANCE, "{} {}: step {at}", case["name"], case["config"]);
    }
}

#[test]
fn optimiser_steps() {
    let cases = cases();
    let named = |name: &'static str| cases.iter().filter(move |case| case["name"] == name);
    let number = |case: &Value, field: &str| case["config"][field].as_f64().unwrap();
    for case in named("sgd") {
        let sgd = Sgd {
            lr: number(case, "lr"),
            momentum: number(case, "momentum"),
            nesterov: case["config"]["nesterov"].as_bool().unwrap(),
            weight_decay: number(case, "weight_decay"),
        };
        check_steps(case, |_, param, grad, [velocity, _]| kernels::sgd_step(param, grad, velocity, &sgd).unwrap());
    }
    for case in named("adam") {
        let adam = Adam {
            lr: number(case, "lr"),
            beta1: number(case, "beta1"),
            beta2: number(case, "beta2"),
            eps: number(case, "eps"),
            weight_decay: number(case, "weight_decay"),
            decay: if case["config"]["decay"] == "parameter" { Decay::Parameter } else { Decay::Gradient },
        };
        check_steps(case, |at, param, grad, [first, second]| kernels::adam_step(param, grad, first, second, at + 1, &adam).unwrap());
    }
    assert_eq!((named("sgd").count(), named("adam").count()), (3, 3));
}
