//! Memory from the graph alone, against sums made by hand; batches that fit.

use candle::{DType, Device, Var};
use expect_test::{Expect, expect};
use lab::graph::{Builder, Graph, Op};
use lab::metrics::memory::{self, Kept, kept, plan_batch};
use lab::train::Optimizer;
use lab::{Activation, Conv, Pool};

use crate::nets::{every_op, resnet18};

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
const ADAM: Optimizer = Optimizer::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };

/// Counted in numbers, not in bytes.
#[track_caller]
fn check(graph: &Graph, want: Expect) {
    let memory = memory::of(graph, DType::F32);
    let row = |row: &memory::Row| {
        let [own, inference, forward, backward] = [row.bytes, row.inference, row.forward, row.backward].map(|bytes| bytes / 4);
        format!("{:<12}{own:>5}{inference:>5}{forward:>5}{backward:>5}\n", row.node)
    };
    let rows: String = memory.rows.iter().map(row).collect();
    want.assert_eq(&format!("{rows}peak {} {}\n", memory.inference / 4, memory.training / 4));
    let half = memory::of(graph, DType::BF16);
    assert_eq!((half.inference * 2, half.training * 2), (memory.inference, memory.training));
    assert_eq!((half.parameters, half.gradients), (memory.parameters, memory.gradients));
}

/// The ReLU is kept by its output, which the second layer keeps anyway; what the first layer gives is free after the ReLU.
#[test]
fn a_chain() {
    let mut g = Builder::new("chain", &[4]);
    let xs = g.linear("a", g.input(), 3);
    let xs = g.activate(xs, Activation::Relu);
    let logits = g.linear("b", xs, 2);
    check(
        &g.finish(logits).unwrap(),
        expect![[r#"
            input           4    4    4    0
            a               3    7    7    7
            relu            3    6   10   13
            b               2    5    9   12
            peak 7 13
        "#]],
    );
}

/// A swish is kept by its input. The sum keeps nothing, but its second side lives on beside the branch.
#[test]
fn a_residual() {
    let mut g = Builder::new("residual", &[2, 2, 2]);
    let xs = g.conv("a", g.input(), Conv::k1(4));
    let ys = g.activate(xs, Activation::Swish);
    let ys = g.conv("b", ys, Conv::k1(4));
    let ys = g.add(&[ys, xs]);
    let ys = g.flatten(ys);
    let logits = g.linear("fc", ys, 5);
    check(
        &g.finish(logits).unwrap(),
        expect![[r#"
            input           8    8    8    0
            a              16   24   24   24
            swish          16   32   40   56
            b              16   48   56   88
            add            16   48   72   88
            flatten         0   16   56   56
            fc              5   21   61   77
            peak 48 88
        "#]],
    );
}

/// Concatenation copies, and keeps nothing.
#[test]
fn a_dense_cell() {
    let mut g = Builder::new("dense", &[2, 3, 3]);
    let xs = g.conv("a", g.input(), Conv::k3(2));
    let both = g.concat(&[g.input(), xs]);
    let ys = g.conv("b", both, Conv::k3(2));
    let all = g.concat(&[both, ys]);
    let all = g.max_pool(all, Pool::square(3, 1));
    let all = g.pick("some", &[all], vec![0, 3]);
    let some = g.global_avg_pool(all);
    check(
        &g.finish(some).unwrap(),
        expect![[r#"
            input          18   18   18    0
            a              18   36   36   36
            concat         36   72   72   72
            b              18   54   72  108
            concat_1       54  108  126  162
            max_pool        6   60  114  168
            some            2    8  116  116
            global_avg_pool    2    4  112  112
            peak 108 168
        "#]],
    );
}

#[test]
fn what_is_trained_is_kept_and_nothing_else() {
    // Before the first layer that is trained no gradient flows, and nothing is kept for it.
    let mut g = Builder::new("frozen start", &[3, 4, 4]);
    let xs = g.max_pool(g.input(), Pool::square(2, 2));
    let xs = g.activate(xs, Activation::Tanh);
    let xs = g.global_avg_pool(xs);
    let logits = g.linear("fc", xs, 2);
    check(
        &g.finish(logits).unwrap(),
        expect![[r#"
            input          48   48   48    0
            max_pool       12   60   60    0
            tanh           12   24   24    0
            global_avg_pool    3   15   15    0
            fc              2    5    5    5
            peak 60 60
        "#]],
    );
}

#[test]
fn what_keeps_its_output_has_the_slope_of_its_input_there() {
    use Activation::*;
    let slopes = |xs: &Var, activation| {
        let ys = lab::kernels::activate(xs.as_tensor(), activation).unwrap();
        let gradients = ys.sum_all().unwrap().backward().unwrap();
        (Var::from_tensor(&ys.detach()).unwrap(), gradients.get(xs.as_tensor()).unwrap().to_vec1::<f64>().unwrap())
    };
    for activation in [Relu, Relu6, Elu, Sigmoid, Tanh, Swish, HardSwish, HardSigmoid] {
        let xs: Vec<f64> = (-800..=800).map(|i| f64::from(i) / 100.0).collect();
        let (ys, at_input) = slopes(&Var::new(xs, &Device::Cpu).unwrap(), activation);
        let (_, at_output) = slopes(&ys, activation);
        assert_eq!(at_input == at_output, kept(&Op::Activate(activation)) == Kept::Output, "{activation:?}");
    }
}

#[test]
fn more_is_needed_to_train_than_to_run_and_nothing_goes_below_the_values_of_a_node() {
    for graph in [every_op(), resnet18(64)] {
        let memory = memory::of(&graph, DType::F32);
        assert!(memory.training > memory.inference);
        for (row, node) in memory.rows.iter().zip(&graph.nodes) {
            let reads: u64 = node.inputs.iter().map(|input| memory.rows[input.0].bytes).max().unwrap_or(0);
            assert!(row.inference >= row.bytes + reads && row.forward >= row.inference, "{}", row.node);
        }
    }
    let memory = memory::of(&resnet18(64), DType::F32);
    // torchvision's ResNet-18 with this stem and ten classes: 11 173 962 trained, 9 600 running statistics.
    assert_eq!((memory.parameters, memory.gradients), (4 * (11_173_962 + 9_600), 4 * 11_173_962));
}

#[test]
fn a_batch_is_split_so_that_it_fits() {
    let graph = resnet18(64);
    let memory = memory::of(&graph, DType::F32);
    for (optimizer, states) in [(SGD, 1), (ADAM, 2)] {
        let fixed = memory.parameters + memory.gradients * (1 + states);
        assert_eq!(memory.fixed(&optimizer), fixed);
        let plan =
            |batch, samples: u64, spare| plan_batch(&graph, batch, fixed + samples * memory.training + spare, &optimizer, DType::F32);
        let found = |batch, samples, spare| {
            let plan = plan(batch, samples, spare).unwrap();
            assert_eq!(plan.bytes, fixed + memory.training * plan.micro_batch as u64);
            (plan.micro_batch, plan.accumulate, plan.largest)
        };
        assert_eq!(found(64, 100, 0), (64, 1, 100));
        assert_eq!(found(64, 64, 0), (64, 1, 64));
        assert_eq!(found(64, 63, memory.training - 1), (32, 2, 63));
        assert_eq!(found(100, 33, 5), (25, 4, 33));
        assert_eq!(found(7, 3, 0), (3, 3, 3));
        assert_eq!(found(5, 1, 0), (1, 5, 1));
        assert!(plan(64, 1, 0).is_ok() && plan(0, 1, 0).is_err());
    }
    let error = plan_batch(&graph, 64, 1 << 20, &SGD, DType::F32).unwrap_err().to_string();
    expect![
        "resnet18: bytes of a training step: wanted at most 1048576, found 138889592 (44734248 for parameters and statistics, 89391696 for gradients and the optimiser, 4763648 for a sample)"
    ]
    .assert_eq(&error);
}
