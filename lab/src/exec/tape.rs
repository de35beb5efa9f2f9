//! Runs a graph, and its gradient, with books of our own.
//!
//! candle's autograd keeps every value until the end, and adds every gradient to fresh zeros; that costs more than most of the operations
//! themselves. A graph says beforehand who reads what: a value goes when its last reader has run, its memory is used for the next result,
//! gradients are summed in place, and batch norm, the sum of a residual block and its activation are one pass over memory.

use candle::{D, Tensor, Var, bail};

use super::apply::{apply, used};
use super::plan::{Kept, Plan, Step, kept};
use super::{Done, Mode, Pass, Statistics};
use crate::Result;
use crate::graph::{Graph, NodeId, Op, Parameter};
use crate::kernels::{self, Divisor, Layer};
use crate::params::Params;

/// Values of a run, and what its gradient needs besides.
#[derive(Debug)]
pub(crate) struct Tape<'a> {
    plan: &'a Plan,
    graph: &'a Graph,
    params: &'a Params,
    mode: Mode,
    /// By home; gone when nobody will ask.
    values: Vec<Option<Tensor>>,
    saved: Vec<Option<kernels::Saved>>,
    /// The network's value, `(n, ...)`.
    pub(crate) output: Tensor,
    /// One per batch-norm node, in training.
    pub(crate) statistics: Vec<Statistics>,
}

impl<'a> Tape<'a> {
    /// Runs the graph on `xs` `(n, ...)`, contiguous, and tells `on_done` of each step. In training, what the gradient asks for is kept.
    pub(crate) fn record(
        plan: &'a Plan,
        (graph, params): (&'a Graph, &'a Params),
        xs: &Tensor,
        mode: Mode,
        on_done: &mut dyn FnMut(Done),
    ) -> Result<Self> {
        super::check_input(graph, xs)?;
        let mut tape = Self {
            plan,
            graph,
            params,
            mode,
            values: vec![None; graph.nodes.len()],
            saved: vec![None; graph.nodes.len()],
            output: xs.clone(),
            statistics: Vec::new(),
        };
        // The input is the caller's: its memory is never given away.
        tape.values[0] = Some(xs.clone());
        let mut readers = plan.readers.clone();
        for step in &plan.steps {
            let name = || format!("{}: {}", graph.name, graph.node(step.node).name);
            let value = tape.forward(step).map_err(|error| error.context(name()))?;
            on_done(Done { pass: Pass::Forward, node: step.node, last: step.out });
            if step.out == graph.output {
                tape.output = value.clone();
            }
            tape.values[step.out.0] = Some(value);
            for read in &step.reads {
                let home = plan.home[read.0];
                readers[home.0] -= 1;
                if readers[home.0] == 0 && plan.askers[home.0] == 0 {
                    tape.release(home)?;
                }
            }
        }
        Ok(tape)
    }

    fn value(&self, id: NodeId) -> &Tensor {
        self.values[id.0].as_ref().expect("a value is kept until its last reader ran")
    }

    /// Forgets the values that lie in a home, and gives its memory back.
    fn release(&mut self, home: NodeId) -> Result<()> {
        let taken = self.plan.names[home.0].iter().fold(None, |taken, name| self.values[name.0].take().or(taken));
        if let Some(value) = taken.filter(|_| self.plan.owned[home.0]) {
            kernels::recycle(value)?;
        }
        Ok(())
    }

    /// The parameters of a node, free of candle's graph.
    fn params_of(&self, id: NodeId) -> Vec<Tensor> {
        self.params.of(id).iter().map(|(_, var)| var.as_detached_tensor()).collect()
    }

    fn forward(&mut self, step: &Step) -> candle::Result<Tensor> {
        let node = self.graph.node(step.node);
        let own = self.params_of(step.node);
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&id| self.value(id)).collect();
        match &node.op {
            Op::BatchNorm { eps, affine, frozen, .. } => {
                let (weight, bias) = scale_and_shift(&own, *affine)?;
                let layer = Layer { weight: &weight, bias: &bias, activation: step.tail.activation };
                let skip = step.tail.skip.map(|skip| self.value(skip));
                let [.., mean, var] = own.as_slice() else { bail!("wanted running statistics, found none") };
                if *frozen || self.mode == Mode::Eval {
                    return kernels::layer_running(inputs[0], &layer, skip, (mean, var), *eps);
                }
                let (normed, saved) = kernels::layer_forward(inputs[0], &layer, skip, *eps)?;
                self.saved[step.node.0] = Some(saved);
                self.statistics.push(Statistics { node: step.node, mean: normed.mean, var: normed.var });
                Ok(normed.ys)
            }
            Op::Concat | Op::Pick { .. } | Op::Slice { dim: 0, .. } => kernels::pick_from(&inputs, &step.choice.sources),
            Op::Add => {
                let sum = kernels::copy(inputs[0])?;
                inputs[1..].iter().try_for_each(|term| kernels::add_to(&sum, term))?;
                Ok(sum)
            }
            _ => Ok(apply(node, &inputs, &own.iter().collect::<Vec<_>>(), self.mode)?.value),
        }
    }

    /// The gradient of the trained parameters, in their order, from that of the output; tells `on_done` of each step.
    ///
    /// # Errors
    /// When nothing reads a parameter's node, or an operation fails; the message names the node.
    pub(crate) fn backward(mut self, grad: Tensor, on_done: &mut dyn FnMut(Done)) -> Result<Vec<Tensor>> {
        let trains = self.plan.steps.last().map_or(0, |step| step.trains.end);
        let mut grads = Gradients { values: vec![None; self.graph.nodes.len()], params: vec![None; trains] };
        let mut askers = self.plan.askers.clone();
        grads.values[self.graph.output.0] = Some(grad);
        for step in self.plan.steps.iter().rev() {
            if let Some(grad) = grads.values[step.out.0].take()
                && self.plan.trained[step.out.0]
            {
                let name = || format!("{}: {}", self.graph.name, self.graph.node(step.node).name);
                self.back(step, grad, &mut grads).map_err(|error| error.context(name()))?;
                on_done(Done { pass: Pass::Backward, node: step.node, last: step.out });
            }
            for asked in &step.asks {
                let home = self.plan.home[asked.0];
                askers[home.0] -= 1;
                if askers[home.0] == 0 {
                    self.release(home)?;
                }
            }
        }
        let found = |((parameter, _), grad): ((&Parameter, &Var), Option<Tensor>)| {
            grad.ok_or_else(|| crate::Error::mismatch(&parameter.name, "a gradient", "none: nothing reads its node"))
        };
        self.params.trainable().zip(grads.params).map(found).collect()
    }

    fn back(&self, step: &Step, grad: Tensor, grads: &mut Gradients) -> candle::Result<()> {
        let node = self.graph.node(step.node);
        let own = self.params_of(step.node);
        let flows = |k: usize| self.plan.trained[node.inputs[k].0];
        let shape = |k: usize| -> Vec<usize> {
            [grad.dims()[0]].into_iter().chain(self.graph.node(node.inputs[k]).shape.iter().copied()).collect()
        };
        match &node.op {
            Op::Linear(layer) => {
                let xs = self.value(node.inputs[0]);
                // Of tokens, each is a sample.
                let (xs, flat) = (xs.reshape(((), xs.dim(D::Minus1)?))?, grad.reshape(((), layer.features))?);
                let mut of = vec![kernels::linear_backward_weight(&flat, &xs)?];
                if layer.bias {
                    of.push(kernels::bias_backward(&flat)?);
                }
                grads.learn(step, of);
                if flows(0) {
                    let dxs = kernels::linear_backward_data(&flat, &used(&own[0], layer.top)?)?;
                    grads.add(node.inputs[0], dxs.reshape(shape(0))?)?;
                }
                kernels::recycle(grad)
            }
            Op::Conv(conv) => {
                let xs = self.value(node.inputs[0]);
                let mut of = vec![kernels::conv2d_backward_filter(&grad, xs, own[0].dims(), &conv.window())?];
                if conv.bias {
                    of.push(kernels::bias_backward(&grad)?);
                }
                grads.learn(step, of);
                if flows(0) {
                    let weight = used(&own[0], conv.top)?;
                    grads.add(node.inputs[0], kernels::conv2d_backward_data(&grad, &weight, xs.dims(), &conv.window())?)?;
                }
                kernels::recycle(grad)
            }
            Op::BatchNorm { affine, .. } if !step.by_candle => {
                let (weight, bias) = scale_and_shift(&own, *affine)?;
                let layer = Layer { weight: &weight, bias: &bias, activation: step.tail.activation };
                let saved = self.saved[step.node.0].as_ref().expect("a normalisation in training leaves something");
                let ys = step.tail.skip.map(|_| self.value(step.out));
                let of = kernels::layer_backward(grad, self.value(node.inputs[0]), ys, &layer, saved)?;
                if *affine {
                    grads.learn(step, [of.weight, of.bias]);
                }
                grads.add(node.inputs[0], of.xs)?;
                match (step.tail.skip, of.skip) {
                    (Some(skip), Some(grad)) if self.plan.trained[skip.0] => grads.add(skip, grad),
                    _ => Ok(()),
                }
            }
            Op::Activate(activation) => {
                let kept = if kept(&node.op) == Kept::Output { step.out } else { node.inputs[0] };
                grads.add(node.inputs[0], kernels::activate_backward(grad, self.value(kept), *activation)?)
            }
            Op::MaxPool(pool) => {
                grads.add(node.inputs[0], kernels::max_pool2d_backward(&grad, self.value(node.inputs[0]), pool)?)?;
                kernels::recycle(grad)
            }
            Op::AvgPool(pool) => {
                grads.add(node.inputs[0], kernels::avg_pool2d_backward(&grad, &shape(0), pool, Divisor::Window)?)?;
                kernels::recycle(grad)
            }
            Op::GlobalAvgPool => {
                grads.add(node.inputs[0], kernels::global_avg_pool_backward(&grad, &shape(0))?)?;
                kernels::recycle(grad)
            }
            Op::Softmax { dim } => {
                grads.add(node.inputs[0], kernels::softmax_backward(&grad, self.value(step.out), dim + 1)?)?;
                kernels::recycle(grad)
            }
            Op::Flatten | Op::Reshape { .. } | Op::Dropout { p: 0.0, .. } => grads.add(node.inputs[0], grad.reshape(shape(0))?),
            Op::Scale { .. } | Op::Dropout { .. } => {
                // The same again: these are products with numbers that do not depend on what they are given.
                grads.add(node.inputs[0], apply(node, &[&grad], &[], self.mode)?.value)?;
                kernels::recycle(grad)
            }
            Op::Permute { order } => {
                let mut back = vec![0; order.len() + 1];
                order.iter().enumerate().for_each(|(to, from)| back[from + 1] = to + 1);
                grads.add(node.inputs[0], kernels::copy(&grad.permute(back)?)?)?;
                kernels::recycle(grad)
            }
            Op::Multiply if !step.by_candle => {
                let (xs, gate) = (self.value(node.inputs[0]), self.value(node.inputs[1]));
                if flows(0) {
                    grads.add(node.inputs[0], kernels::multiply(&grad, gate)?)?;
                }
                if flows(1) {
                    grads.add(node.inputs[1], kernels::multiply_backward_gate(&grad, xs, gate.dims())?)?;
                }
                kernels::recycle(grad)
            }
            Op::Concat | Op::Pick { .. } | Op::Slice { dim: 0, .. } => {
                for (&input, places) in node.inputs.iter().zip(&step.choice.places) {
                    if self.plan.trained[input.0] && !places.is_empty() {
                        grads.add(input, kernels::pick_from_backward(&grad, self.graph.node(input).shape[0], places)?)?;
                    }
                }
                kernels::recycle(grad)
            }
            Op::Add => {
                let mut inputs = node.inputs.iter().filter(|input| self.plan.trained[input.0]);
                let last = inputs.next_back();
                inputs.try_for_each(|&input| grads.add(input, kernels::copy(&grad)?))?;
                last.map_or(Ok(()), |&last| grads.add(last, grad))
            }
            _ => self.back_by_candle(step, &grad, grads),
        }
    }

    /// An operation without a gradient of its own here: run once more, in candle's books.
    fn back_by_candle(&self, step: &Step, grad: &Tensor, grads: &mut Gradients) -> candle::Result<()> {
        let node = self.graph.node(step.node);
        let vars = |tensors: Vec<Tensor>| tensors.iter().map(Var::from_tensor).collect::<candle::Result<Vec<Var>>>();
        let inputs = vars(node.inputs.iter().map(|&id| self.value(id).clone()).collect())?;
        let own = vars(self.params_of(step.node))?;
        let tensors = |vars: &[Var]| vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<Tensor>>();
        let (given, owned) = (tensors(&inputs), tensors(&own));
        let value = apply(node, &given.iter().collect::<Vec<_>>(), &owned.iter().collect::<Vec<_>>(), self.mode)?.value;
        let mut store = (value * grad)?.sum_all()?.backward()?;
        for (&id, var) in node.inputs.iter().zip(&inputs).filter(|(id, _)| self.plan.trained[id.0]) {
            if let Some(grad) = store.remove(var) {
                // Copied, because what candle hands out may be one tensor under two names.
                grads.add(id, kernels::copy(&grad)?)?;
            }
        }
        // What is not trained comes last.
        let of = own[..step.trains.len()].iter().map(|var| store.remove(var).map_or_else(|| var.zeros_like(), Ok));
        grads.learn(step, of.collect::<candle::Result<Vec<Tensor>>>()?);
        Ok(())
    }
}

/// What a batch norm multiplies by and adds; 1 and 0 where it has none.
fn scale_and_shift(own: &[Tensor], affine: bool) -> candle::Result<(Tensor, Tensor)> {
    if affine { Ok((own[0].clone(), own[1].clone())) } else { Ok((own[0].ones_like()?, own[0].zeros_like()?)) }
}

/// What has flowed back so far.
struct Gradients {
    /// Per node, none while nothing has.
    values: Vec<Option<Tensor>>,
    /// Per trained parameter, in the graph's order.
    params: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Takes those of a step's own parameters, in their order.
    fn learn(&mut self, step: &Step, of: impl IntoIterator<Item = Tensor>) {
        step.trains.clone().zip(of).for_each(|(at, grad)| self.params[at] = Some(grad));
    }

    /// Adds to the gradient of a value; `grad` is nobody else's.
    fn add(&mut self, id: NodeId, grad: Tensor) -> candle::Result<()> {
        match &self.values[id.0] {
            None => self.values[id.0] = Some(grad),
            Some(sum) => {
                kernels::add_to(sum, &grad)?;
                kernels::recycle(grad)?;
            }
        }
        Ok(())
    }
}
