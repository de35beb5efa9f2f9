//! The operations of a graph beyond layers and pooling: gradients against central differences, laws, and what is refused.

use candle::{DType, Result, Tensor, Var};
use datasets::Seed;
use lab::exec::{self, Mode};
use lab::graph::{Builder, Op, Unit};
use lab::kernels::{self, Affine, Interpolation, composed};
use lab::{Conv, Params};

use crate::differentiating::{CPU, Op as Kernel, check_gradient, check_twins, distance, fill, numbers};

#[test]
fn norms_of_single_samples_have_the_gradient_of_their_output() {
    let affine = |t: &[Tensor]| (t[1].clone(), t[2].clone());
    for (shape, dims) in [(&[3, 7][..], 1), (&[2, 3, 5, 1], 2), (&[1, 2, 2, 3], 3), (&[2, 3, 1], 1)] {
        let inner = &shape[shape.len() - dims..];
        check_gradient("layer_norm", &[shape], |t| kernels::layer_norm(&t[0], dims, None, 1e-2));
        let ours: Kernel<'_> = &|t| {
            let (weight, bias) = affine(t);
            kernels::layer_norm(&t[0], dims, Some(Affine { weight: &weight, bias: &bias }), 1e-2)
        };
        check_gradient("layer_norm, affine", &[shape, inner, inner], ours);
        check_twins("layer_norm", &[shape, inner, inner], ours, &|t| {
            composed::layer_norm(&t[0], dims, Some(Affine { weight: &t[1], bias: &t[2] }), 1e-2)
        });
    }
    for shape in [[2, 3, 5, 1], [1, 1, 2, 3], [3, 2, 7, 7]] {
        let c = &shape[1..2];
        check_gradient("instance_norm", &[&shape], |t| kernels::instance_norm(&t[0], None, 1e-2));
        let ours: Kernel<'_> = &|t| kernels::instance_norm(&t[0], Some(Affine { weight: &t[1], bias: &t[2] }), 1e-2);
        check_gradient("instance_norm, affine", &[&shape, c, c], ours);
        check_twins("instance_norm", &[&shape, c, c], ours, &|t| {
            composed::instance_norm(&t[0], Some(Affine { weight: &t[1], bias: &t[2] }), 1e-2)
        });
    }
}

#[test]
fn softmax_has_the_gradient_of_its_output() {
    for (shape, dim) in [(&[3, 7][..], 1), (&[2, 5, 1, 3], 1), (&[2, 3, 5], 2), (&[4, 1], 1)] {
        let ours: Kernel<'_> = &|t| kernels::softmax(&(&t[0] * 3.0)?, dim);
        check_gradient("softmax", &[shape], ours);
        check_twins("softmax", &[shape], ours, &|t| composed::softmax(&(&t[0] * 3.0)?, dim));
    }
    let large = Tensor::new(&[[1e4f32, 1e4, -1e4], [f32::NEG_INFINITY, 0.0, 0.0]], CPU).unwrap();
    assert_eq!(numbers(&kernels::softmax(&large, 1).unwrap()), [0.5, 0.5, 0.0, 0.0, 0.5, 0.5]);
}

#[test]
fn upsampling_has_the_gradient_of_its_output() {
    for (shape, size) in
        [([2, 2, 3, 5], (6, 10)), ([1, 2, 5, 3], (7, 11)), ([1, 3, 1, 1], (2, 3)), ([2, 1, 7, 5], (3, 1)), ([1, 1, 2, 3], (2, 3))]
    {
        for by in [Interpolation::Nearest, Interpolation::Bilinear] {
            let name = format!("upsample2d to {size:?}, {by:?}");
            check_gradient(&name, &[&shape], |t| kernels::upsample2d(&t[0], size, by));
            // Two readers of one picture: candle's own gradient overwrites what is there.
            check_gradient(&name, &[&shape], |t| kernels::upsample2d(&t[0].sqr()?, size, by)? + kernels::upsample2d(&t[0], size, by)?);
            check_twins(&name, &[&shape], &|t| kernels::upsample2d(&t[0], size, by), &|t| composed::upsample2d(&t[0], size, by));
        }
    }
}

/// A picture whose values rise evenly still does in another resolution, away from its border.
#[test]
fn bilinear_upsampling_keeps_a_slope() {
    let slope: Vec<f64> = (0..35).map(|at| f64::from(at / 7) * 3.0 + f64::from(at % 7)).collect();
    let xs = Tensor::from_vec(slope, (1, 1, 5, 7), CPU).unwrap();
    let ys = kernels::upsample2d(&xs, (20, 28), Interpolation::Bilinear).unwrap();
    let ys = ys.reshape((20, 28)).unwrap().to_vec2::<f64>().unwrap();
    for (row, column) in (2..18).flat_map(|row| (2..26).map(move |column| (row, column))) {
        let place = |at: usize| (at as f64 + 0.5) / 4.0 - 0.5;
        assert!((ys[row][column] - 3.0 * place(row) - place(column)).abs() < 1e-12, "{row}, {column}");
    }
}

#[test]
fn gates_and_weighted_sums_have_the_gradient_of_their_output() {
    for (xs, gate) in [
        (&[2, 3, 4, 5][..], &[2, 3][..]),
        (&[2, 3, 4, 5], &[2, 3, 1, 1]),
        (&[2, 3, 4, 5], &[2, 1, 4, 5]),
        (&[2, 3, 1, 1], &[2, 3]),
        (&[2, 3], &[2, 3]),
        (&[3, 5, 2], &[3, 1, 2]),
    ] {
        check_gradient(&format!("multiply by {gate:?}"), &[xs, gate], |t| kernels::multiply(&t[0], &t[1]));
    }
    check_twins("multiply", &[&[3, 2, 4, 5], &[3, 2]], &|t| kernels::multiply(&t[0], &t[1]), &|t| composed::times(&t[0], &t[1]));
    let sum = |t: &[Tensor]| kernels::weighted_sum(&[&t[0], &t[1], &t[0]], &t[2]);
    check_gradient("weighted_sum", &[&[2, 3, 2, 2], &[2, 3, 2, 2], &[3]], sum);
    check_gradient("weighted_sum of one", &[&[3, 5], &[1]], |t| kernels::weighted_sum(&[&t[0]], &t[1]));
}

#[test]
fn dropping_planes_depends_on_seed_and_place_alone() {
    for drop in [kernels::dropout_channels, kernels::dropout_samples] {
        check_gradient("dropout of planes", &[&[3, 4, 2, 3]], |t| drop(&t[0], 0.4, Seed(5)));
        let xs = Tensor::ones((300, 10, 2, 2), DType::F32, CPU).unwrap();
        let of = |seed| numbers(&drop(&xs, 0.25, Seed(seed)).unwrap());
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(of(1)[..40 * 7], numbers(&drop(&xs.narrow(0, 0, 7).unwrap(), 0.25, Seed(1)).unwrap()));
        assert!(of(3).iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-6));
        let kept = of(3).iter().filter(|&&y| y != 0.0).count();
        assert!((8400..9600).contains(&kept), "{kept} kept of 12000");
    }
    let ys = numbers(&kernels::dropout_channels(&Tensor::ones((50, 4, 3), DType::F64, CPU).unwrap(), 0.5, Seed(2)).unwrap());
    let whole = |unit: usize| ys.chunks(unit).all(|plane| plane.iter().all(|&y| y == plane[0]));
    assert!(whole(3) && !whole(12), "whole channels, not whole samples");
    let ys = numbers(&kernels::dropout_samples(&Tensor::ones((50, 4, 3), DType::F64, CPU).unwrap(), 0.5, Seed(2)).unwrap());
    assert!(ys.chunks(12).all(|sample| sample.iter().all(|&y| y == sample[0])), "whole samples");
}

/// The largest magnitudes stay; of equals the later; the gradient reaches all.
#[test]
fn the_largest_weights_are_used_and_all_learn() {
    for top_k in [kernels::top_k, composed::top_k] {
        let weight = Var::from_tensor(&Tensor::new(&[[1.0, -3.0, 2.0], [-1.0, 1.0, -0.5]], CPU).unwrap()).unwrap();
        let of = |count| numbers(&top_k(&weight, count).unwrap());
        assert_eq!(of(2), [0.0, -3.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(of(3), [0.0, -3.0, 2.0, 0.0, 1.0, 0.0]);
        assert_eq!(of(4), [0.0, -3.0, 2.0, -1.0, 1.0, 0.0]);
        assert_eq!(of(6), numbers(&weight));
        let back = Tensor::new(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], CPU).unwrap();
        let gradients = (top_k(&weight, 2).unwrap() * &back).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(numbers(gradients.get(&weight).unwrap()), numbers(&back));
    }
    // Against sorting, on numbers with many ties.
    let weight = ((fill(3, &[7, 5, 3, 3]) * 8.0).unwrap().round().unwrap() / 8.0).unwrap();
    let values = numbers(&weight);
    for count in [1, 17, 100, 314] {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()));
        let mut want = values.clone();
        order[..values.len() - count].iter().for_each(|&at| want[at] = 0.0);
        assert_eq!(numbers(&kernels::top_k(&weight, count).unwrap()), want);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let xs = fill(1, &[2, 3, 1, 1]);
    let empty = Tensor::zeros((0, 3, 2, 2), DType::F64, CPU).unwrap();
    let refused: [(&str, Result<Tensor>); 9] = [
        ("instance_norm: wanted at least 2 pixels", kernels::instance_norm(&xs, None, 1e-5)),
        ("layer_norm: wanted 1 to 3 dimensions, found 4", kernels::layer_norm(&xs, 4, None, 1e-5)),
        ("layer_norm: wanted at least one number", kernels::layer_norm(&empty, 1, None, 1e-5)),
        ("softmax: wanted numbers and a dimension below 4, found dimension 4", kernels::softmax(&xs, 4)),
        ("upsample2d: wanted pixels", kernels::upsample2d(&xs, (0, 2), Interpolation::Nearest)),
        ("multiply: wanted a second factor [2, 3, 1, 1]", kernels::multiply(&xs, &fill(2, &[2, 2]))),
        ("multiply: wanted at least one number", kernels::multiply(&empty, &Tensor::zeros((0, 3), DType::F64, CPU).unwrap())),
        ("weighted_sum: weights: wanted (1), found [2]", kernels::weighted_sum(&[&xs], &fill(2, &[2]))),
        ("top_k: wanted 1 to 6 weights, found 7", kernels::top_k(&xs, 7)),
    ];
    for (message, result) in refused {
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(kernels::dropout_channels(&xs, 1.5, Seed(0)).is_err());
}

/// In a graph, each node drops by its own name, each step anew, and nothing in evaluation.
#[test]
fn dropout_in_a_graph_is_named_by_step_and_node() {
    let mut g = Builder::new("drop", &[8, 3, 3]);
    let xs = g.input();
    let one = g.dropout(xs, 0.5, Unit::Number);
    let other = g.dropout(xs, 0.5, Unit::Number);
    let channels = g.dropout(xs, 0.5, Unit::Channel);
    let samples = g.dropout(xs, 0.5, Unit::Sample);
    let ys = g.concat(&[one, other, channels, samples]);
    let graph = g.finish(ys).unwrap();
    let params = Params::init(&graph, Seed(0), CPU).unwrap();
    let xs = Tensor::ones((6, 8, 3, 3), DType::F32, CPU).unwrap();
    let run = |mode| exec::forward(&graph, &params, &xs, mode).unwrap().value;
    let part = |ys: &Tensor, at: usize| numbers(&ys.narrow(1, 8 * at, 8).unwrap());
    let train = run(Mode::Train(Seed(1)));
    assert_eq!(numbers(&train), numbers(&run(Mode::Train(Seed(1)))));
    assert_ne!(numbers(&train), numbers(&run(Mode::Train(Seed(2)))));
    assert_ne!(part(&train, 0), part(&train, 1));
    assert!(part(&train, 2).chunks(9).all(|channel| channel.iter().all(|&y| y == channel[0])));
    assert!(part(&train, 3).chunks(72).all(|sample| sample.iter().all(|&y| y == sample[0])));
    assert!(numbers(&run(Mode::Eval)).iter().all(|&y| y == 1.0));
}

/// Without scale and shift, a batch norm has running statistics alone, and evaluation uses them.
#[test]
fn a_plain_batch_norm_keeps_its_running_statistics() {
    let mut g = Builder::new("plain", &[3, 2, 2]);
    let ys = g.node("bn", Op::BatchNorm { eps: 1e-3, momentum: 0.1, affine: false, frozen: false }, &[g.input()]);
    let graph = g.finish(ys).unwrap();
    let params = Params::init(&graph, Seed(0), CPU).unwrap().to_dtype(DType::F64).unwrap();
    assert_eq!(params.iter().map(|(parameter, _)| parameter.name.as_str()).collect::<Vec<_>>(), ["bn.running_mean", "bn.running_var"]);
    let (mean, var) = (fill(2, &[3]), (fill(3, &[3]) + 1.5).unwrap());
    params.set("bn.running_mean", &mean).unwrap();
    params.set("bn.running_var", &var).unwrap();
    let xs = fill(1, &[4, 3, 2, 2]);
    let ys = exec::forward(&graph, &params, &xs, Mode::Eval).unwrap().value;
    let want = composed::batch_norm_running(&xs, &mean, &var, None, 1e-3).unwrap();
    assert!(distance(&numbers(&ys), &numbers(&want)) < 1e-14);
    let trained = exec::forward(&graph, &params, &xs, Mode::Train(Seed(0))).unwrap();
    assert!(distance(&numbers(&trained.statistics[0].mean), &numbers(&xs.mean((0, 2, 3)).unwrap())) < 1e-14);
}

/// A squeeze-excitation gate and an attention, written with single operations, differentiated as wholes.
#[test]
fn small_nets_of_these_operations_have_the_gradient_of_their_output() {
    let mut g = Builder::new("gated", &[4, 3, 2]);
    let xs = g.input();
    let ys = g.conv("conv", xs, Conv::k3(4).top(50));
    let ys = g.node("norm", Op::InstanceNorm { eps: 1e-2, affine: true }, &[ys]);
    let gate = g.global_avg_pool(ys);
    let gate = g.linear("gate", gate, 4);
    let gate = g.softmax(gate, 0);
    let ys = g.multiply(ys, gate);
    let ys = g.weighted_sum("mix", &[xs, ys]);
    // [4, 3, 2] to six tokens of four features.
    let tokens = g.reshape(ys, &[4, 6]);
    let queries = g.permute(tokens, &[1, 0]);
    let queries = g.layer_norm("tokens", queries, 1);
    let queries = g.linear("query", queries, 4);
    let scores = g.matmul(queries, tokens);
    let scores = g.scale(scores, 0.5);
    let scores = g.softmax(scores, 1);
    let values = g.permute(tokens, &[1, 0]);
    let ys = g.matmul(scores, values);
    let ys = g.slice(ys, 0, 1, 3);
    let graph = g.finish(ys).unwrap();
    assert_eq!(graph.output_shape(), [3, 4]);

    let params = Params::init(&graph, Seed(4), CPU).unwrap().to_dtype(DType::F64).unwrap();
    let net: Kernel<'_> = &|t| Ok(exec::forward(&graph, &params, &t[0], Mode::Eval).unwrap().value);
    check_gradient("net", &[&[2, 4, 3, 2]], net);
    for (parameter, var) in params.iter() {
        let gradients = net(&[fill(1, &[2, 4, 3, 2])]).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(var).map(numbers).unwrap_or_default();
        if parameter.name == "conv.weight" {
            // Straight through: not the gradient of the output.
            assert!(gradient.iter().all(|&slope| slope != 0.0), "a weight out of use does not learn");
            continue;
        }
        let original = numbers(var);
        let slopes: Vec<f64> = (0..original.len())
            .map(|at| {
                let value = |step: f64| {
                    let mut moved = original.clone();
                    moved[at] += step;
                    params.set(&parameter.name, &Tensor::from_vec(moved, var.shape(), CPU).unwrap()).unwrap();
                    numbers(&net(&[fill(1, &[2, 4, 3, 2])]).unwrap()).iter().map(|y| y * y).sum::<f64>()
                };
                (value(1e-5) - value(-1e-5)) / 2e-5
            })
            .collect();
        params.set(&parameter.name, &Tensor::from_vec(original, var.shape(), CPU).unwrap()).unwrap();
        assert!(distance(&gradient, &slopes) < 1e-7, "{}", parameter.name);
    }
}
