//! A network with its weights as an ONNX file, for runtimes without Rust: operator set 17, `f32`, evaluation.
//!
//! The input is called `input`, `(n, ...)` with any `n`; the result `output`. Weights are initialisers under their parameters'
//! names. Where PyTorch and ONNX count windows that stick out differently, the border is written out, so that no runtime has to
//! agree on a mode.

mod proto;

use std::path::Path;

use candle::DType;
use prost::Message;

use crate::graph::{Graph, NodeId, Op};
use crate::kernels::{Activation, Pool};
use crate::params::{Params, write_whole};
use crate::{Error, Result};

const OPERATOR_SET: i64 = 17;
/// The newest that goes with the operator set.
const IR_VERSION: i64 = 8;
/// Protocol buffers cannot be longer.
const LONGEST: usize = i32::MAX as usize;

/// Writes the network to an ONNX file, whole or not at all.
///
/// # Errors
/// When the file cannot be written, or would be of 2 GiB or more.
pub fn export(graph: &Graph, params: &Params, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let model = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "topolab".to_owned(),
        graph: Some(Writer::write(graph, params)?),
        opset_import: vec![proto::OperatorSet { domain: String::new(), version: OPERATOR_SET }],
    };
    if model.encoded_len() > LONGEST {
        return Err(Error::mismatch(path.display().to_string(), format!("at most {LONGEST} bytes"), model.encoded_len()));
    }
    write_whole(path, &model.encode_to_vec())
}

/// What has been written so far.
struct Writer<'g> {
    graph: &'g Graph,
    nodes: Vec<proto::Node>,
    tensors: Vec<proto::Tensor>,
}

impl<'g> Writer<'g> {
    fn write(graph: &'g Graph, params: &Params) -> Result<proto::Graph> {
        let mut writer = Self { graph, nodes: Vec::new(), tensors: Vec::new() };
        for (parameter, var) in params.iter() {
            let values = var.to_device(&candle::Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            writer.tensor(&parameter.name, &parameter.shape, proto::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        }
        for at in 0..graph.nodes.len() {
            writer.node(NodeId(at));
        }
        if graph.output == NodeId(0) {
            writer.put("Identity", "output", &["input".to_owned()], "output", vec![]);
        }
        Ok(proto::Graph {
            name: graph.name.clone(),
            input: vec![value_info("input", graph.input_shape())],
            output: vec![value_info("output", graph.output_shape())],
            node: writer.nodes,
            initializer: writer.tensors,
        })
    }

    /// Writes the operators of one node; the last of them gives the node's value.
    fn node(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let name = node.name.as_str();
        let read: Vec<String> = node.inputs.iter().map(|&input| self.value(input)).collect();
        let value = self.value(id);
        let first = || read[0].clone();
        let with =
            |parameters: &[&str]| [first()].into_iter().chain(parameters.iter().map(|own| format!("{name}.{own}"))).collect::<Vec<_>>();
        match &node.op {
            Op::Input => {}
            Op::Linear { .. } => self.put("Gemm", name, &with(&["weight", "bias"]), &value, vec![int("transB", 1)]),
            Op::Conv(conv) => {
                let inputs = if conv.bias { with(&["weight", "bias"]) } else { with(&["weight"]) };
                let attributes = vec![
                    pair("kernel_shape", conv.kernel),
                    pair("strides", conv.stride),
                    pair("dilations", conv.dilation),
                    pads(conv.padding, conv.padding),
                    int("group", conv.groups),
                ];
                self.put("Conv", name, &inputs, &value, attributes);
            }
            Op::BatchNorm { eps, .. } => {
                let inputs = with(&["weight", "bias", "running_mean", "running_var"]);
                self.put("BatchNormalization", name, &inputs, &value, vec![float("epsilon", *eps as f32)]);
            }
            Op::Activate(activation) => self.activation(*activation, name, first(), &value),
            Op::MaxPool(pool) => {
                let input = &self.graph.node(node.inputs[0]).shape;
                let attributes = vec![
                    pair("kernel_shape", pool.kernel),
                    pair("strides", pool.stride),
                    pads(pool.padding, overhang(pool, pool.padding, input, &node.shape)),
                ];
                self.put("MaxPool", name, &[first()], &value, attributes);
            }
            Op::AvgPool(pool) => {
                // The border counts in a mean, what sticks out over it does not.
                let input = &self.graph.node(node.inputs[0]).shape;
                let (p, q) = pool.padding;
                let bordered = if (p, q) == (0, 0) {
                    first()
                } else {
                    let border = self.whole_numbers(&format!("{name}.pads"), &[0, 0, p, q, 0, 0, p, q]);
                    self.then("Pad", &format!("{name}/pad"), &[first(), border], vec![])
                };
                let attributes = vec![
                    pair("kernel_shape", pool.kernel),
                    pair("strides", pool.stride),
                    pads((0, 0), overhang(pool, (2 * p, 2 * q), input, &node.shape)),
                    int("count_include_pad", 0),
                ];
                self.put("AveragePool", name, &[bordered], &value, attributes);
            }
            Op::GlobalAvgPool => {
                let mean = self.then("GlobalAveragePool", &format!("{name}/mean"), &[first()], vec![]);
                self.put("Flatten", name, &[mean], &value, vec![int("axis", 1)]);
            }
            Op::Flatten => self.put("Flatten", name, &[first()], &value, vec![int("axis", 1)]),
            Op::Concat => self.put("Concat", name, &read, &value, vec![int("axis", 1)]),
            Op::Pick { channels } => {
                let all = match read.as_slice() {
                    [only] => only.clone(),
                    _ => self.then("Concat", &format!("{name}/all"), &read, vec![int("axis", 1)]),
                };
                let channels = self.whole_numbers(&format!("{name}.channels"), channels);
                self.put("Gather", name, &[all, channels], &value, vec![int("axis", 1)]);
            }
            Op::Add => self.put("Sum", name, &read, &value, vec![]),
        }
    }

    fn activation(&mut self, activation: Activation, name: &str, xs: String, value: &str) {
        match activation {
            Activation::Relu => self.put("Relu", name, &[xs], value, vec![]),
            Activation::Relu6 => {
                let bounds = [("low", 0.0f32), ("high", 6.0)].map(|(bound, number)| {
                    let bound = format!("{name}.{bound}");
                    self.tensor(&bound, &[], proto::F32, number.to_le_bytes().to_vec());
                    bound
                });
                self.put("Clip", name, &[&[xs], bounds.as_slice()].concat(), value, vec![]);
            }
            Activation::Elu => self.put("Elu", name, &[xs], value, vec![float("alpha", 1.0)]),
            Activation::Sigmoid => self.put("Sigmoid", name, &[xs], value, vec![]),
            Activation::Tanh => self.put("Tanh", name, &[xs], value, vec![]),
            Activation::Swish => {
                let gate = self.then("Sigmoid", &format!("{name}/gate"), std::slice::from_ref(&xs), vec![]);
                self.put("Mul", name, &[xs, gate], value, vec![]);
            }
            Activation::HardSwish => self.put("HardSwish", name, &[xs], value, vec![]),
            Activation::HardSigmoid => {
                self.put("HardSigmoid", name, &[xs], value, vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)]);
            }
        }
    }

    /// What the value of a node is called: never as a parameter, nor as the value of another.
    fn value(&self, id: NodeId) -> String {
        match id {
            NodeId(0) => "input".to_owned(),
            id if id == self.graph.output => "output".to_owned(),
            id => format!("{}/value", self.graph.node(id).name),
        }
    }

    fn put(&mut self, op: &str, name: &str, inputs: &[String], output: &str, attribute: Vec<proto::Attribute>) {
        let (op_type, name) = (op.to_owned(), name.to_owned());
        self.nodes.push(proto::Node { input: inputs.to_vec(), output: vec![output.to_owned()], name, op_type, attribute });
    }

    /// An operator on the way to a node's value; gives the name of its own.
    fn then(&mut self, op: &str, name: &str, inputs: &[String], attributes: Vec<proto::Attribute>) -> String {
        self.put(op, name, inputs, name, attributes);
        name.to_owned()
    }

    fn whole_numbers(&mut self, name: &str, numbers: &[usize]) -> String {
        self.tensor(name, &[numbers.len()], proto::I64, numbers.iter().flat_map(|&number| (number as i64).to_le_bytes()).collect());
        name.to_owned()
    }

    fn tensor(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) {
        let dims = shape.iter().map(|&size| size as i64).collect();
        self.tensors.push(proto::Tensor { dims, data_type, name: name.to_owned(), raw_data });
    }
}

/// How many pixels the last windows stick out at the lower and right side, beyond the picture and so much border.
fn overhang(pool: &Pool, border: (usize, usize), input: &[usize], output: &[usize]) -> (usize, usize) {
    let over =
        |out: usize, size: usize, kernel: usize, stride: usize, border: usize| ((out - 1) * stride + kernel).saturating_sub(size + border);
    (over(output[1], input[1], pool.kernel.0, pool.stride.0, border.0), over(output[2], input[2], pool.kernel.1, pool.stride.1, border.1))
}

/// `f32` values, `(n, ...)`.
fn value_info(name: &str, shape: &[usize]) -> proto::ValueInfo {
    let batch = proto::Size::Name("n".to_owned());
    let sizes = [batch].into_iter().chain(shape.iter().map(|&size| proto::Size::Value(size as i64)));
    let shape = proto::Shape { dim: sizes.map(|size| proto::Dimension { size: Some(size) }).collect() };
    let tensor = proto::TensorType { elem_type: proto::F32, shape: Some(shape) };
    proto::ValueInfo { name: name.to_owned(), value_type: Some(proto::Type { tensor: Some(tensor) }) }
}

fn int(name: &str, value: usize) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), i: Some(value as i64), kind: proto::INT, ..Default::default() }
}

fn float(name: &str, value: f32) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), f: Some(value), kind: proto::FLOAT, ..Default::default() }
}

fn ints(name: &str, values: &[usize]) -> proto::Attribute {
    let ints = values.iter().map(|&value| value as i64).collect();
    proto::Attribute { name: name.to_owned(), ints, kind: proto::INTS, ..Default::default() }
}

fn pair(name: &str, (rows, columns): (usize, usize)) -> proto::Attribute {
    ints(name, &[rows, columns])
}

/// Borders above and left, below and right.
fn pads(start: (usize, usize), end: (usize, usize)) -> proto::Attribute {
    ints("pads", &[start.0, start.1, end.0, end.1])
}
