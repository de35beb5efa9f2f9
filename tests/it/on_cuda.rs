//! What a CUDA card computes is what the CPU computes: every kernel and whole networks, values and gradients.
//!
//! Distances are of norms: `‖card − CPU‖ / ‖CPU‖`. The CPU computes in `f64` what the card computes in `f64`, else in `f32`, from the
//! numbers as the card's type rounds them. By default this build has no CUDA, and each test skips:
//! `cargo test -p tests --features cudnn on_cuda` has.

use candle::{DType, Device, Result, Tensor, Var};
use datasets::{Normalize, Seed, Table};
use lab::device::{self, Want};
use lab::exec::{self, Mode, Output};
use lab::graph::{self, Builder, Graph};
use lab::kernels::{self, Activation, Adam, Affine, Conv, Decay, Pool, Sgd};
use lab::models::{mobilenet_v2, resnet};
use lab::train::{Event, Precision};
use lab::{Model, Params, Recipe, fit};

use crate::computing::check_all;
use crate::convolving::convolutions;
use crate::differentiating::{CPU, Lie, fill, forward_backward, numbers};
use crate::nets;
use crate::skips::{Lacks, skip};

/// The card, or `None` and a skip that says why.
fn card() -> Option<Device> {
    device::pick(Want::Cuda).inspect_err(|error| skip(Lacks::Cuda, error)).ok()
}

/// A type, how far apart sums of it may be, and how far apart convolutions: those of `f32` may round factors to TF32, whose unit
/// is 2⁻¹¹ as that of `f16` is.
const TYPES: [(DType, f64, f64); 4] =
    [(DType::F64, 1e-12, 1e-12), (DType::F32, 1e-5, 1e-3), (DType::F16, 5e-3, 5e-3), (DType::BF16, 4e-2, 4e-2)];

/// `‖found − wanted‖ / ‖wanted‖`.
fn distance(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let square = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let apart = square(&mut found.iter().zip(wanted).map(|(a, b)| a - b));
    if apart == 0.0 { 0.0 } else { (apart / square(&mut wanted.iter().copied())).sqrt() }
}

/// The card agrees with the CPU in value and gradients, in every type; inputs lie as `lie` says.
fn check(card: &Device, name: &str, shapes: &[&[usize]], f: &dyn Fn(&[Tensor]) -> Result<Tensor>, lie: Lie) {
    for (dtype, sums, convolutions) in TYPES {
        let tolerance = if name.starts_with("conv") { convolutions } else { sums };
        let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| fill(seed, shape).to_dtype(dtype).unwrap()).collect();
        let there: Vec<Tensor> = inputs.iter().map(|input| input.to_device(card).unwrap()).collect();
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let here: Vec<Tensor> = inputs.iter().map(|input| input.to_dtype(wide).unwrap()).collect();
        let found = forward_backward(f, &there, lie).unwrap_or_else(|error| panic!("{name} of {shapes:?} in {dtype:?}: {error}"));
        let wanted = forward_backward(f, &here, Lie::Contiguous).unwrap();
        assert_eq!(found.0.dims(), wanted.0.dims(), "{name} of {shapes:?} in {dtype:?}");
        let off = distance(&numbers(&found.0), &numbers(&wanted.0));
        assert!(off <= tolerance, "{name} of {shapes:?} in {dtype:?}: {off:e} from the CPU's");
        for (which, (found, wanted)) in found.1.iter().zip(&wanted.1).enumerate() {
            let off = distance(found, wanted);
            assert!(off <= tolerance, "{name} of {shapes:?} in {dtype:?}: the gradient of input {which} is {off:e} from the CPU's");
        }
    }
}

#[test]
fn every_kernel_computes_what_the_cpu_does() {
    let Some(card) = &card() else { return };
    check_all(|name, shapes, f| check(card, name, shapes, f, Lie::Contiguous));
}

#[test]
fn convolutions_of_any_geometry_do() {
    let Some(card) = &card() else { return };
    for (xs, weight, conv) in convolutions() {
        let bias = [weight[0]];
        for lie in [Lie::Contiguous, Lie::Strided] {
            check(card, "convolution", &[&xs, &weight, &bias], &|t| kernels::conv2d(&t[0], &t[1], Some(&t[2]), &conv), lie);
        }
    }
}

#[test]
fn normalisations_do_in_either_mode() {
    let Some(card) = &card() else { return };
    for shape in [&[4, 6, 5, 7][..], &[33, 6]] {
        for lie in [Lie::Contiguous, Lie::Strided] {
            let of = |t: &[Tensor]| kernels::batch_norm(&t[0], Some(Affine { weight: &t[1], bias: &t[2] }), 1e-3);
            check(card, "batch norm", &[shape, &[6], &[6]], &|t| Ok(of(t)?.ys), lie);
            check(card, "batch norm, plain", &[shape], &|t| Ok(kernels::batch_norm(&t[0], None, 1e-3)?.ys), lie);
            // Through which no gradient flows, so the input joins with a factor of 0.
            let join = |statistic: Tensor, t: &[Tensor]| &statistic + (t[1].to_dtype(statistic.dtype())? * 0.0)?;
            check(card, "its mean", &[shape, &[6]], &|t| join((kernels::batch_norm(&t[0], None, 1e-3)?.mean + 1.0)?, t), lie);
            check(card, "its variance", &[shape, &[6]], &|t| join(kernels::batch_norm(&t[0], None, 1e-3)?.var, t), lie);
            let running = |t: &[Tensor]| {
                let (mean, var) = (&t[3], (t[4].abs()? + 0.5)?);
                kernels::batch_norm_running(&t[0], mean, &var, Some(Affine { weight: &t[1], bias: &t[2] }), 1e-3)
            };
            check(card, "running batch norm", &[shape, &[6], &[6], &[6], &[6]], &running, lie);
        }
    }
}

#[test]
fn activations_and_the_rest_do() {
    let Some(card) = &card() else { return };
    use Activation::{Elu, HardSigmoid, HardSwish, Relu, Relu6, Sigmoid, Swish, Tanh};
    for activation in [Relu, Relu6, Elu, Sigmoid, Tanh, Swish, HardSwish, HardSigmoid] {
        check(card, activation.name(), &[&[3, 5, 7, 2]], &|t| kernels::activate(&(&t[0] * 8.0)?, activation), Lie::Strided);
    }
    check(card, "adaptive mean", &[&[2, 3, 7, 9]], &|t| kernels::adaptive_avg_pool2d(&t[0], (3, 4)), Lie::Strided);
    check(card, "concat", &[&[2, 3, 4, 5], &[2, 1, 4, 5]], &|t| kernels::concat(&[&t[0], &t[1]]), Lie::Strided);
    let soft = |t: &[Tensor]| kernels::soft_cross_entropy(&t[0], &kernels::softmax(&t[1], 1)?);
    check(card, "soft targets", &[&[30, 10], &[30, 10]], &soft, Lie::Strided);
    check(card, "dropout of samples", &[&[9, 4, 3]], &|t| kernels::dropout_samples(&t[0], 0.4, Seed(5)), Lie::Contiguous);
    let pixels = Tensor::from_vec((0..=239).collect::<Vec<u8>>(), (2, 3, 8, 5), CPU).unwrap();
    let normalize = Normalize { mean: vec![0.5, 0.4, 0.3], std: vec![0.5, 0.25, 0.125] };
    let of = |xs: &Tensor| numbers(&kernels::normalize_u8(xs, &normalize).unwrap());
    assert!(distance(&of(&pixels.to_device(card).unwrap()), &of(&pixels)) < 1e-6);
}

/// A parameter, its gradient, what is remembered, and the number of the step.
type Step<'a> = &'a dyn Fn(&Var, &Tensor, [&Var; 2], usize) -> Result<()>;

#[test]
fn optimisers_take_the_same_steps() {
    let Some(card) = &card() else { return };
    let sgd = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 1e-2 };
    let adam = |decay| Adam { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2, decay };
    let after = |device: &Device, step: Step<'_>| {
        let on = |seed| Var::from_tensor(&fill(seed, &[7, 5]).to_dtype(DType::F32).unwrap().to_device(device).unwrap()).unwrap();
        let (param, state) = (on(1), [on(2), on(3)]);
        state.iter().for_each(|var| var.set(&var.zeros_like().unwrap()).unwrap());
        (1..=3).for_each(|nth| step(&param, &on(3 + nth as u64), [&state[0], &state[1]], nth).unwrap());
        numbers(&param)
    };
    let steps: [Step<'_>; 3] = [
        &|param, grad, state, _| kernels::sgd_step(param, grad, state[0], &sgd),
        &|param, grad, state, nth| kernels::adam_step(param, grad, state[0], state[1], nth, &adam(Decay::Gradient)),
        &|param, grad, state, nth| kernels::adam_step(param, grad, state[0], state[1], nth, &adam(Decay::Parameter)),
    ];
    for (which, step) in steps.into_iter().enumerate() {
        let off = distance(&after(card, step), &after(CPU, step));
        assert!(off < 1e-6, "optimiser {which}: {off:e} from the CPU's");
    }
}

/// The same input gives the same bits.
#[test]
fn convolution_and_batch_norm_repeat_themselves() {
    let Some(card) = &card() else { return };
    let inputs: Vec<Tensor> = [&[16, 32, 14, 14][..], &[48, 32, 3, 3], &[48], &[48]]
        .into_iter()
        .zip(1..)
        .map(|(shape, seed)| fill(seed, shape).to_dtype(DType::F32).unwrap().to_device(card).unwrap())
        .collect();
    let layer = |t: &[Tensor]| {
        let ys = kernels::conv2d(&t[0], &t[1], None, &Conv { padding: (1, 1), ..Conv::default() })?;
        Ok(kernels::batch_norm(&ys, Some(Affine { weight: &t[2], bias: &t[3] }), 1e-5)?.ys)
    };
    let run = || forward_backward(&layer, &inputs, Lie::Contiguous).unwrap();
    let ((ys, gradients), (again, gradients_again)) = (run(), run());
    assert_eq!(numbers(&ys), numbers(&again));
    assert_eq!(gradients, gradients_again);
}

/// What a dropout keeps and which weights are the largest are the CPU's, to the last place, also among equals.
#[test]
fn a_card_draws_and_chooses_what_the_cpu_does() {
    let Some(card) = &card() else { return };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let ones = Tensor::ones((3, 1000, 7), dtype, card).unwrap();
        let here = Tensor::ones((3, 1000, 7), DType::F32, CPU).unwrap();
        for p in [0.1, 0.5, 1.0] {
            let kept =
                |xs: &Tensor| numbers(&kernels::dropout(xs, p, Seed(u64::MAX)).unwrap()).iter().map(|x| *x != 0.0).collect::<Vec<_>>();
            assert!(kept(&ones) == kept(&here), "dropout by {p} in {dtype:?}");
        }
        let mut rng = Seed(1).rng();
        for len in [1usize, 300, 70_000] {
            // Few different numbers, infinities and zeros of both signs among them.
            let weight = [0.0, -0.0, 0.5, -0.5, 1.0, f32::NEG_INFINITY];
            let weight: Vec<f32> = (0..len).map(|_| weight[rng.below(6)]).collect();
            let weight = Tensor::new(weight, CPU).unwrap();
            let there = weight.to_dtype(dtype).unwrap().to_device(card).unwrap();
            for count in [1, len.div_ceil(3), len] {
                let kept = |weight: &Tensor| numbers(&kernels::top_k(weight, count).unwrap());
                assert!(kept(&there) == kept(&weight), "the {count} largest of {len} in {dtype:?}");
            }
        }
    }
}

/// Name by name: logits in both modes, what batch norm learned, and the gradient of every parameter.
fn everything(model: &Model, params: &Params, xs: &Tensor) -> Vec<(String, Vec<f64>)> {
    everything_by(&|mode| exec::forward(&model.graph, params, xs, mode).unwrap(), (&model.graph, params), xs)
}

fn everything_by(forward: &dyn Fn(Mode) -> Output, (graph, params): (&Graph, &Params), xs: &Tensor) -> Vec<(String, Vec<f64>)> {
    let (logits, trained) = (forward(Mode::Eval).value, forward(Mode::Train(Seed(7))));
    let labels: Vec<u32> = (0..xs.dims()[0] as u32).map(|i| i % 10).collect();
    let labels = Tensor::from_vec(labels, xs.dims()[0], xs.device()).unwrap();
    let gradients = kernels::cross_entropy(&trained.value, &labels, 0.1).unwrap().backward().unwrap();
    let mut all = vec![("logits".to_owned(), numbers(&logits)), ("logits in training".to_owned(), numbers(&trained.value))];
    for statistics in &trained.statistics {
        let name = &graph.nodes[statistics.node.0].name;
        all.push((format!("{name}: mean"), numbers(&statistics.mean)));
        all.push((format!("{name}: variance"), numbers(&statistics.var)));
    }
    all.extend(params.trainable().map(|(parameter, var)| (parameter.name.clone(), numbers(gradients.get(var).unwrap()))));
    all
}

/// In `f64`, by composed operations, a net agrees to rounding; in `f32`, through cuDNN and TF32, to what depth makes of 2⁻¹¹.
#[test]
fn whole_networks_do() {
    let Some(card) = &card() else { return };
    let graphs = [
        resnet::Config::r18(10).cifar().graph().unwrap(),
        mobilenet_v2::Config { dropout: 0.2, ..mobilenet_v2::Config::imagenet(0.35, 10).cifar() }.graph().unwrap(),
    ];
    for graph in graphs {
        let (here, there) = (nets::drawn(graph.clone(), 3), nets::drawn_on(graph.clone(), 3, card));
        let xs = nets::samples(&graph, 8);
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 5e-2)] {
            let xs = xs.to_dtype(dtype).unwrap();
            let wanted = everything(&here, &here.params.to_dtype(dtype).unwrap(), &xs);
            let found = everything(&there, &there.params.to_dtype(dtype).unwrap(), &xs.to_device(card).unwrap());
            for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
                let off = distance(found, wanted);
                assert!(off <= tolerance, "{} in {dtype:?}: {name} is {off:e} from the CPU's", graph.name);
            }
        }
    }
}

/// A residual net with a depthwise layer, for rows of pictures of 16×16.
fn small() -> Graph {
    let mut g = Builder::new("small", &[768]);
    let layer = |g: &mut Builder, name: &str, xs, conv: graph::Conv| {
        let xs = g.conv(name, xs, conv);
        g.batch_norm(format!("{name}_bn"), xs)
    };
    let input = g.input();
    let input = g.reshape(input, &[3, 16, 16]);
    let stem = layer(&mut g, "stem", input, graph::Conv::k3(16));
    let stem = g.activate(stem, Activation::Relu);
    let xs = layer(&mut g, "depthwise", stem, graph::Conv::k3(16).groups(16));
    let xs = g.activate(xs, Activation::Relu);
    let xs = layer(&mut g, "pointwise", xs, graph::Conv::k1(16));
    let xs = g.add(&[xs, stem]);
    let xs = g.activate(xs, Activation::Relu);
    let xs = layer(&mut g, "down", xs, graph::Conv::k3(32).stride(2));
    let xs = g.activate(xs, Activation::Relu);
    let xs = g.max_pool(xs, Pool::square(2, 2));
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 10);
    g.finish(logits).unwrap()
}

/// Numbers of 8 bits, and what those of 24 give. Of a net like this one, in PyTorch under autocast to `bf16`, logits were off by 0.005 and
/// the gradient of a parameter by 0.23 at most (six seeds, batches of 32): an activation close to 0 falls to the other side.
#[test]
fn mixed_precision_computes_what_full_does_to_its_digits() {
    let Some(card) = &card() else { return };
    let (graph, n) = (small(), 32);
    let (here, there) = (nets::drawn(graph.clone(), 3), nets::drawn_on(graph.clone(), 3, card));
    let xs = nets::samples(&graph, n);
    let wanted = everything(&here, &here.params, &xs);
    let xs = xs.to_device(card).unwrap();
    let mixed = |mode| exec::forward_mixed(&graph, &there.params, &xs, mode, DType::BF16).unwrap();
    let found = everything_by(&mixed, (&graph, &there.params), &xs);
    for ((name, found), (_, wanted)) in found.iter().zip(&wanted) {
        let (off, most) = (distance(found, wanted), if there.params.get(name).is_ok() { 0.4 } else { 0.02 });
        assert!(off <= most, "{name} is {off:e} from the CPU's");
        assert!(!name.starts_with("logits") || off > 1e-4, "{name} is {off:e} from the CPU's: of more than 8 bits");
    }
}

#[test]
fn training_in_mixed_precision_learns() {
    let Some(card) = &card() else { return };
    // Ten pictures with noise on them.
    let (mut rng, pictures) = (Seed(4).rng(), numbers(&fill(1, &[10, 768])));
    let rows = (0..640).flat_map(|at| (0..768).map(|i| (pictures[at % 10 * 768 + i] + 0.3 * rng.normal()) as f32).collect::<Vec<_>>());
    let rows: Vec<f32> = rows.collect();
    let data = Table::new(rows, &[768], (0..640).map(|at| at % 10).collect(), 10, 32, Some(Seed(5)));
    let model = Model::new(small(), Seed(6), card).unwrap();
    let recipe = Recipe { precision: Precision::Mixed, clip: Some(5.0), ..Recipe::sgd(0.05, 3) };
    let mut steps = Vec::new();
    let history = fit(&model, &data, Some(&data), &recipe, |event| match event {
        Event::Step { done, .. } => steps.push(done),
        Event::Epoch { .. } => {}
    });
    let history = match history {
        Err(error) if !cfg!(feature = "cudnn") => return assert!(error.to_string().contains("cuDNN"), "{error}"),
        history => history.unwrap(),
    };
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());
    assert!(history[2].train_loss < 0.5 * history[0].train_loss, "{history:?}");
    assert!(history[2].test_accuracy > Some(0.9), "{history:?}");
    assert!(model.params.iter().all(|(_, var)| var.dtype() == DType::F32));
}
