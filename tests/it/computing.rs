//! The kernels compute the same on any number of threads, in `f32` what they do in `f64`, and refuse what makes no sense.

use candle::{DType, Device, IndexOp, Result, Tensor, Var};
use datasets::{Normalize, Seed};
use expect_test::{Expect, expect};
use lab::kernels::{self, Activation, Affine, Conv, Divisor, Interpolation, Pool, Sgd, composed};

use crate::differentiating::{CPU, Lie, distance, fill, forward_backward, numbers};
use crate::skips::{Lacks, skip};

pub(crate) type Op<'a> = &'a (dyn Fn(&[Tensor]) -> Result<Tensor> + Sync);

const POOL: Pool = Pool { kernel: (3, 3), stride: (2, 2), padding: (1, 1), ceil_mode: false };

/// A test of `lab`'s own holds all instruction sets to each other, and cannot tell when it compares one with itself.
#[test]
fn this_machine_has_every_instruction_set_that_is_compared() {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    if !has {
        skip(Lacks::Avx512, "kernels by AVX-512 are not compared with those by other instructions");
    }
}

fn labels() -> Tensor {
    Tensor::from_vec((0..3000u32).map(|i| i % 17).collect(), 3000, CPU).unwrap()
}

/// Each large enough that its work is split.
pub(crate) fn check_all(check: impl Fn(&str, &[&[usize]], Op<'_>)) {
    let conv = Conv { padding: (1, 1), ..Conv::default() };
    let strided = Conv { stride: (2, 2), ..conv };
    let depthwise = Conv { groups: 40, ..conv };
    let labels = labels();
    check("conv2d", &[&[9, 40, 20, 20], &[30, 40, 3, 3], &[30]], &|t| kernels::conv2d(&t[0], &t[1], Some(&t[2]), &conv));
    check("conv2d, strided", &[&[9, 40, 20, 20], &[30, 40, 3, 3]], &|t| kernels::conv2d(&t[0], &t[1], None, &strided));
    check("conv2d, small", &[&[50, 40, 4, 4], &[30, 40, 3, 3]], &|t| kernels::conv2d(&t[0], &t[1], None, &conv));
    check("conv2d, depthwise", &[&[9, 40, 20, 20], &[40, 1, 3, 3]], &|t| kernels::conv2d(&t[0], &t[1], None, &depthwise));
    check("linear", &[&[300, 270], &[290, 270], &[290]], &|t| kernels::linear(&t[0], &t[1], Some(&t[2])));
    let batch_norm = |t: &[Tensor]| Ok(kernels::batch_norm(&t[0], Some(Affine { weight: &t[1], bias: &t[2] }), 1e-5)?.ys);
    check("batch_norm", &[&[9, 40, 20, 20], &[40], &[40]], &batch_norm);
    check("batch_norm of vectors", &[&[900, 130], &[130], &[130]], &batch_norm);
    check("max_pool2d", &[&[9, 40, 20, 20]], &|t| kernels::max_pool2d(&t[0], &POOL));
    check("avg_pool2d", &[&[9, 40, 20, 20]], &|t| kernels::avg_pool2d(&t[0], &POOL, Divisor::Window));
    check("global_avg_pool", &[&[90, 40, 20, 20]], &|t| kernels::global_avg_pool(&t[0]));
    check("activate", &[&[9, 40, 20, 20]], &|t| kernels::activate(&t[0], Activation::Swish));
    check("pick", &[&[9, 40, 20, 20]], &|t| kernels::pick(&t[0], &[3, 1, 3, 39, 0]));
    check("cross_entropy", &[&[3000, 17]], &|t| kernels::cross_entropy(&t[0], &labels.to_device(t[0].device())?, 0.1));
    check("sum_of_squares", &[&[9, 40, 20, 20]], &|t| kernels::sum_of_squares(&t[0].transpose(0, 3)?));
    check("dropout", &[&[9, 40, 20, 20]], &|t| kernels::dropout(&t[0], 0.3, Seed(3)));
    check("dropout_channels", &[&[9, 40, 20, 20]], &|t| kernels::dropout_channels(&t[0], 0.3, Seed(3)));
    let layer_norm = |t: &[Tensor]| kernels::layer_norm(&t[0], 1, Some(Affine { weight: &t[1], bias: &t[2] }), 1e-5);
    check("layer_norm", &[&[9, 400, 20], &[20], &[20]], &layer_norm);
    check("instance_norm", &[&[9, 40, 20, 20]], &|t| kernels::instance_norm(&t[0], None, 1e-5));
    check("softmax", &[&[9, 40, 20, 20]], &|t| kernels::softmax(&t[0], 1));
    check("multiply", &[&[9, 40, 20, 20], &[9, 40]], &|t| kernels::multiply(&t[0], &t[1]));
    check("weighted_sum", &[&[9, 40, 20, 20], &[1]], &|t| kernels::weighted_sum(&[&t[0]], &t[1]));
    check("upsample2d, nearest", &[&[9, 40, 9, 11]], &|t| kernels::upsample2d(&t[0], (20, 25), Interpolation::Nearest));
    check("upsample2d, bilinear", &[&[9, 40, 9, 11]], &|t| kernels::upsample2d(&t[0], (20, 25), Interpolation::Bilinear));
    check("top_k", &[&[90, 40, 3, 3]], &|t| kernels::top_k(&t[0], 5000));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let pools: Vec<_> = [1, 2, 5].iter().map(|&threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()).collect();
    check_all(|name, shapes, f| {
        let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| fill(seed, shape).to_dtype(DType::F32).unwrap()).collect();
        let run = |pool: &rayon::ThreadPool| {
            pool.install(|| {
                let (ys, grads) = forward_backward(&f, &inputs, Lie::Contiguous).unwrap();
                (numbers(&ys), grads)
            })
        };
        let results: Vec<_> = pools.iter().map(run).collect();
        assert!(results[0].0.iter().any(|&y| y != 0.0), "{name} does nothing");
        assert!(results[0] == results[1] && results[0] == results[2], "{name} depends on the number of threads");
    });
}

#[test]
fn single_precision_is_double_precision_rounded() {
    check_all(|name, shapes, f| {
        let run = |dtype| {
            let inputs: Vec<Tensor> = shapes.iter().zip(1..).map(|(shape, seed)| fill(seed, shape).to_dtype(dtype).unwrap()).collect();
            forward_backward(&f, &inputs, Lie::Contiguous).unwrap()
        };
        let ((single, single_grads), (double, double_grads)) = (run(DType::F32), run(DType::F64));
        // Sums of a few thousand products of numbers of about 1: roundings of 1e-7 add up to a little more.
        assert!(distance(&numbers(&single), &numbers(&double)) < 1e-4, "{name}");
        for (single, double) in single_grads.iter().zip(&double_grads) {
            assert!(distance(single, double) < 1e-4, "{name}");
        }
    });
}

/// A step writes into the variable's own storage, so whatever looks at it sees the change.
#[test]
fn a_step_changes_the_variable_in_place() {
    let (param, velocity) = (Var::from_tensor(&fill(1, &[3, 2])).unwrap(), Var::zeros((3, 2), DType::F64, CPU).unwrap());
    let (alias, before) = (param.as_detached_tensor(), numbers(&param));
    let grad = fill(2, &[2, 3]).t().unwrap();
    let sgd = Sgd { lr: 0.5, momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    kernels::sgd_step(&param, &grad, &velocity, &sgd).unwrap();
    let want: Vec<f64> = before.iter().zip(numbers(&grad)).map(|(param, grad)| param - 0.5 * grad).collect();
    assert_eq!(numbers(&param), want);
    assert_eq!(numbers(&alias), want);
    assert_eq!(numbers(&velocity), numbers(&grad));
}

#[track_caller]
fn check_error<T>(result: Result<T>, want: Expect) {
    let error = result.err().expect("an error").to_string();
    want.assert_eq(error.lines().next().unwrap_or_default());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, CPU).unwrap();
    let conv = |xs: &[usize], weight: &[usize], conv: Conv| kernels::conv2d(&zeros(xs), &zeros(weight), None, &conv);
    let plain = Conv::default();
    check_error(
        conv(&[0, 3, 8, 8], &[4, 3, 3, 3], plain),
        expect!["conv2d: wanted at least one sample, channel and pixel, found an input [0, 3, 8, 8]"],
    );
    check_error(
        conv(&[1, 3, 8], &[4, 3, 3, 3], plain),
        expect!["conv2d: wanted an input (n, c, h, w) and a weight (o, c / groups, kh, kw), found [1, 3, 8] and [4, 3, 3, 3]"],
    );
    check_error(conv(&[1, 4, 8, 8], &[4, 3, 3, 3], plain), expect!["conv2d: the weight wanted 3 channels (1 groups of 3), found 4"]);
    check_error(
        conv(&[1, 4, 8, 8], &[6, 1, 3, 3], Conv { groups: 4, ..plain }),
        expect!["conv2d: wanted channels that 4 groups divide, found 4 in, 6 out"],
    );
    check_error(
        conv(&[1, 3, 8, 8], &[4, 3, 9, 3], plain),
        expect![
            "conv2d: wanted a kernel that fits the padded picture and a stride above 0, found Conv { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1 }, 9×3 on 8×8"
        ],
    );
    check_error(
        conv(&[1, 3, 8, 8], &[4, 3, 3, 3], Conv { stride: (1, 0), ..plain }),
        expect![
            "conv2d: wanted a kernel that fits the padded picture and a stride above 0, found Conv { stride: (1, 0), padding: (0, 0), dilation: (1, 1), groups: 1 }, 3×3 on 8×8"
        ],
    );
    let bias = zeros(&[3]);
    check_error(
        kernels::conv2d(&zeros(&[1, 3, 8, 8]), &zeros(&[4, 3, 3, 3]), Some(&bias), &plain),
        expect!["conv2d: bias: wanted (4), found [3]"],
    );
    let doubles = zeros(&[4, 3, 3, 3]).to_dtype(DType::F64).unwrap();
    check_error(kernels::conv2d(&zeros(&[1, 3, 8, 8]), &doubles, None, &plain), expect!["conv2d: weight: wanted f32, found f64"]);
    let bytes = |shape: &[usize]| Tensor::zeros(shape, DType::U8, &Device::Cpu).unwrap();
    check_error(kernels::activate(&bytes(&[2]), Activation::Relu), expect!["activate: wanted f32 or f64, found u8"]);
    check_error(kernels::linear(&zeros(&[2, 5]), &zeros(&[3, 4]), None), expect!["linear: the weight wanted 4 features, found 5"]);
    check_error(
        kernels::batch_norm(&zeros(&[1, 3]), None, 1e-5),
        expect!["batch_norm: wanted at least 2 numbers a channel to normalise by, found 1 (input [1, 3])"],
    );
    check_error(
        kernels::batch_norm_running(&zeros(&[1, 3]), &zeros(&[3]), &zeros(&[2]), None, 1e-5),
        expect!["batch_norm: running variance: wanted (3), found [2]"],
    );
    check_error(
        kernels::max_pool2d(&zeros(&[1, 1, 2, 2]), &POOL)
            .and_then(|_| kernels::max_pool2d(&zeros(&[1, 1, 1, 1]), &Pool { padding: (0, 0), ..POOL })),
        expect![
            "max_pool2d: wanted a window that fits the picture, a border of at most half a window, a stride above 0; found Pool { kernel: (3, 3), stride: (2, 2), padding: (0, 0), ceil_mode: false } on 1×1"
        ],
    );
    check_error(
        kernels::avg_pool2d(&zeros(&[1, 1, 4, 4]), &Pool { padding: (2, 2), ..POOL }, Divisor::Window),
        expect![
            "avg_pool2d: wanted a window that fits the picture, a border of at most half a window, a stride above 0; found Pool { kernel: (3, 3), stride: (2, 2), padding: (2, 2), ceil_mode: false } on 4×4"
        ],
    );
    check_error(kernels::pick(&zeros(&[1, 3]), &[0, 3]), expect!["pick: wanted channels below 3, found 3 at position 1"]);
    check_error(
        kernels::concat(&[&zeros(&[1, 3, 2, 2]), &zeros(&[1, 3, 2, 1])]),
        expect!["concat: wanted [1, 3, 2, 2] but for the channels, found [1, 3, 2, 1] at position 1"],
    );
    let labels = |labels: &[u32]| Tensor::new(labels, CPU).unwrap();
    check_error(
        kernels::cross_entropy(&zeros(&[2, 3]), &labels(&[2, 3]), 0.0),
        expect!["cross_entropy: row 1: wanted a label below 3, found 3"],
    );
    check_error(
        kernels::cross_entropy(&zeros(&[2, 3]), &labels(&[2]), 0.0),
        expect!["cross_entropy: labels: wanted (2) of u32, found [1] of u32"],
    );
    check_error(
        kernels::cross_entropy(&zeros(&[2, 3]), &labels(&[2, 2]), 1.5),
        expect!["cross_entropy: smoothing: wanted 0 to 1, found 1.5"],
    );
    check_error(
        kernels::normalize_u8(&bytes(&[1, 3, 2, 2]), &Normalize { mean: vec![0.5], std: vec![0.5] }),
        expect!["normalize_u8: wanted 3 means and 3 deviations, found 1 and 1"],
    );
    check_error(
        kernels::normalize_u8(&bytes(&[1, 1, 2, 2]), &Normalize { mean: vec![0.5], std: vec![0.0] }),
        expect!["normalize_u8: deviation of channel 0: wanted more than 0, found 0"],
    );
    check_error(kernels::dropout(&zeros(&[2]), 1.5, Seed(0)), expect!["dropout: wanted a probability, found 1.5"]);
    let var = |shape: &[usize]| Var::from_tensor(&zeros(shape)).unwrap();
    let nesterov = Sgd { lr: 0.1, momentum: 0.0, nesterov: true, weight_decay: 0.0 };
    check_error(
        kernels::sgd_step(&var(&[2]), &zeros(&[2]), &var(&[2]), &nesterov),
        expect!["sgd_step: wanted momentum for Nesterov's step, found 0"],
    );
    check_error(
        kernels::sgd_step(&var(&[2]), &zeros(&[3]), &var(&[2]), &Sgd { nesterov: false, ..nesterov }),
        expect!["sgd_step: gradient: wanted [2], found [3]"],
    );
}

/// In `f64` throughout: squares that no `f32` holds, in any layout; and not finite where a number is not.
#[test]
fn squares_are_summed_beyond_f32() {
    let xs = Tensor::new(&[[3e30f32, 1.0, 0.0], [4e30, 1.0, 0.0]], CPU).unwrap();
    let length = |xs: &Tensor| kernels::sum_of_squares(xs).unwrap().to_scalar::<f64>().unwrap().sqrt();
    assert!((length(&xs.i((.., 0)).unwrap()) / 5e30 - 1.0).abs() < 1e-6);
    assert_eq!(length(&xs.i((.., 1)).unwrap()), 2f64.sqrt());
    for stranger in [f32::NAN, f32::INFINITY] {
        assert!(!length(&Tensor::new(&[1.0, stranger], CPU).unwrap()).is_finite());
    }
}

/// candle adds up in the type of the numbers: in half precision a long sum of ones would stop at 256.
#[test]
fn composed_sums_of_half_precision_are_single() {
    let labels = Tensor::from_vec(vec![1u32; 900], 900, CPU).unwrap();
    type Named<'a> = (&'a str, &'a [usize], Op<'a>);
    let ops: [Named<'_>; 7] = [
        ("batch_norm", &[9, 4, 30, 30], &|t| Ok(composed::batch_norm(&t[0], None, 1e-5)?.ys)),
        ("its mean", &[9, 4, 30, 30], &|t| Ok(composed::batch_norm(&t[0], None, 1e-5)?.mean)),
        ("layer_norm", &[4, 3000], &|t| composed::layer_norm(&t[0], 1, None, 1e-5)),
        ("softmax", &[4, 3000], &|t| composed::softmax(&t[0], 1)),
        ("global_avg_pool", &[2, 3, 50, 50], &|t| composed::global_avg_pool(&t[0])),
        ("avg_pool2d", &[1, 2, 32, 32], &|t| {
            let pool = Pool { kernel: (32, 32), stride: (32, 32), padding: (0, 0), ceil_mode: false };
            composed::avg_pool2d(&t[0], &pool, Divisor::Window)
        }),
        ("cross_entropy", &[900, 7], &|t| composed::cross_entropy(&t[0], &labels, 0.1)),
    ];
    for (name, shape, f) in ops {
        // Around 1, so that no sum of them is small by chance.
        let half = (fill(1, shape) * 0.5).unwrap().affine(1.0, 1.0).unwrap().to_dtype(DType::BF16).unwrap();
        let found = f(std::slice::from_ref(&half)).unwrap();
        let wanted = f(&[half.to_dtype(DType::F64).unwrap()]).unwrap();
        let off = distance(&numbers(&found), &numbers(&wanted));
        assert!(off <= 2f64.powi(-8), "{name}: off by {off:e}, which no rounding of the result explains");
    }
}

/// What is dropped is 0 whatever it was, and so is its gradient.
#[test]
fn composed_dropout_chooses_instead_of_multiplying() {
    let xs = Var::from_tensor(&Tensor::new(&[1.0, f64::INFINITY, 3.0, f64::NAN], CPU).unwrap()).unwrap();
    for (kept, p, wanted) in [([1u8, 0, 1, 0], 0.5, [2.0, 0.0, 6.0, 0.0]), ([0; 4], 1.0, [0.0; 4])] {
        let ys = composed::dropout(&xs, &Tensor::new(&kept, CPU).unwrap(), p).unwrap();
        assert_eq!(numbers(&ys), wanted);
        let gradients = ys.sum_all().unwrap().backward().unwrap();
        assert_eq!(numbers(gradients.get(&xs).unwrap()), kept.map(|kept| f64::from(kept) * 2.0));
    }
}
