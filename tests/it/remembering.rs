//! Memory from the graph alone, against sums made by hand; batches that fit.

use candle::{DType, Device, Var};
use expect_test::{Expect, expect};
use lab::exec::{Kept, kept};
use lab::graph::{Builder, Graph, Op, Unit};
use lab::metrics::memory::{self, plan_batch};
use lab::train::Optimizer;
use lab::{Activation, Conv, Pool, Recipe};

use crate::nets::{every_op, resnet18};

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

/// The ReLU is kept by its output, which the second layer keeps anyway; what the first layer gives is free after the ReLU, and its
/// gradient is made in place. The input is the caller's, and there to the end.
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
            a               3    7    7   11
            relu            3   10   10   14
            b               2    9    9   16
            peak 10 19
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
            a              16   24   24   34
            swish          16   40   40   66
            b              16   56   56   98
            add            16   56   72   82
            flatten         0   24   56   66
            fc              5   29   61   87
            peak 56 98
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
            a              18   36   36   40
            concat         36   72   72   76
            b              18   72   72  148
            concat_1       54  126  126  166
            max_pool        6   78  114  172
            some            2   26  116  120
            global_avg_pool    2   22  112  116
            peak 126 172
        "#]],
    );
}

/// What is dropped is drawn again, so the layer before it is free at once; in inference there is nothing to it. A gate keeps both
/// factors, and shares keep themselves.
#[test]
fn a_gate_of_shares() {
    let mut g = Builder::new("gated", &[3]);
    let a = g.linear("a", g.input(), 5);
    let a = g.dropout(a, 0.5, Unit::Number);
    let shares = g.softmax(a, 0);
    let gated = g.multiply(a, shares);
    let logits = g.scale(gated, 2.0);
    check(
        &g.finish(logits).unwrap(),
        expect![[r#"
            input           3    3    3    0
            a               5    8    8   18
            dropout         5    8   13   23
            softmax         5   13   13   33
            multiply        5   18   18   38
            scale           5   13   23   33
            peak 18 43
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
            tanh           12   72   72    0
            global_avg_pool    3   63   63    0
            fc              2   53   53   57
            peak 72 72
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
            // Nothing is dropped in inference.
            let infers = if matches!(node.op, Op::Dropout { .. }) { reads } else { row.bytes + reads };
            assert!(row.inference >= infers && row.forward >= row.inference.max(row.bytes + reads), "{}", row.node);
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
    let adam = Optimizer::AdamW { betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0 };
    let sgd = Recipe::sgd(0.1, 1);
    let averaged = Recipe { average: Some(0.99), ..sgd.clone() };
    let fixed = memory.parameters + memory.gradients;
    assert_eq!(memory.fixed(&sgd), fixed);
    assert_eq!(memory.fixed(&Recipe { optimizer: adam, ..sgd.clone() }), fixed + memory.gradients);
    assert_eq!(memory.fixed(&averaged), fixed + memory.parameters);
    let plan = |batch, limit| plan_batch(&graph, batch, limit, &sgd);
    let whole = plan(100, u64::MAX).unwrap();
    assert_eq!((whole.micro_batch, whole.accumulate), (100, 1));
    assert!(whole.bytes > fixed + memory.training * 100);
    // Exactly as many as fit, and parts as even as can be: a limit is met, and one byte less is a part more.
    assert_eq!(plan(100, whole.bytes).unwrap(), whole);
    let mut before = plan(100, whole.bytes - 1).unwrap();
    while before.micro_batch > 1 {
        assert_eq!(before.micro_batch, 100_usize.div_ceil(before.accumulate));
        let next = plan(100, before.bytes - 1).unwrap();
        assert!(next.accumulate > before.accumulate && next.bytes < before.bytes, "{next:?} after {before:?}");
        before = next;
    }
    assert!(plan(100, before.bytes - 1).is_err() && plan(0, u64::MAX).is_err());
    let error = plan(64, 1 << 20).unwrap_err().to_string();
    let numbers: Vec<&str> = error.split(", found ").collect();
    assert_eq!(numbers[0], "resnet18: bytes of a training step: wanted at most 1048576");
    for part in [memory.fixed(&sgd), memory.gradients, memory.training] {
        assert!(numbers[1].contains(&format!("{part} for ")), "{error}");
    }
}
