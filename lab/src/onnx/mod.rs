//! A network with its weights as an ONNX file, for runtimes without Rust: operator set 17, `f32`, evaluation.
//!
//! The input is called `input`, `(n, ...)` with any `n`; the result `output`. Weights are initialisers under their parameters'
//! names. Where PyTorch and ONNX count windows that stick out differently, the border is written out, so that no runtime has to
//! agree on a mode. Of layers that use only their largest weights, these alone are written.

mod proto;

use std::path::Path;

use candle::{DType, Device, Tensor};
use prost::Message;

use crate::graph::{Graph, NodeId, Op, Role};
use crate::kernels::{self, Activation, Pool};
use crate::params::{Params, write_whole};
use crate::{Error, Result, rewrite};

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
            let op = &graph.node(parameter.node).op;
            let value = var.as_detached_tensor();
            let value = if parameter.role == Role::Weight { rewrite::used(op, &value)? } else { value };
            let values = value.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            writer.numbers(&parameter.name, &parameter.shape, &values);
        }
        for at in 0..graph.nodes.len() {
            writer.node(NodeId(at))?;
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
    fn node(&mut self, id: NodeId) -> Result<()> {
        let node = self.graph.node(id);
        let name = node.name.as_str();
        let read: Vec<String> = node.inputs.iter().map(|&input| self.value(input)).collect();
        let value = self.value(id);
        let first = || read[0].clone();
        let with =
            |parameters: &[&str]| [first()].into_iter().chain(parameters.iter().map(|own| format!("{name}.{own}"))).collect::<Vec<_>>();
        match &node.op {
            Op::Input => {}
            Op::Linear(linear) if node.shape.len() == 1 => {
                let inputs = if linear.bias { with(&["weight", "bias"]) } else { with(&["weight"]) };
                self.put("Gemm", name, &inputs, &value, vec![int("transB", 1)]);
            }
            Op::Linear(linear) => {
                let across = self.then("Transpose", &format!("{name}/across"), &[format!("{name}.weight")], vec![ints("perm", &[1, 0])]);
                if linear.bias {
                    let product = self.then("MatMul", &format!("{name}/product"), &[first(), across], vec![]);
                    self.put("Add", name, &[product, format!("{name}.bias")], &value, vec![]);
                } else {
                    self.put("MatMul", name, &[first(), across], &value, vec![]);
                }
            }
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
            Op::BatchNorm { eps, affine, .. } => {
                let running = with(&["running_mean", "running_var"]);
                let inputs = [&[first()], self.affine(name, *affine, &node.shape[..1]).as_slice(), &running[1..]].concat();
                self.put("BatchNormalization", name, &inputs, &value, vec![float("epsilon", *eps)]);
            }
            Op::InstanceNorm { eps, affine } => {
                let inputs = [&[first()], self.affine(name, *affine, &node.shape[..1]).as_slice()].concat();
                self.put("InstanceNormalization", name, &inputs, &value, vec![float("epsilon", *eps)]);
            }
            Op::LayerNorm { dims, eps, affine } => {
                let from = node.shape.len() - dims;
                let inputs = [&[first()], self.affine(name, *affine, &node.shape[from..]).as_slice()].concat();
                self.put("LayerNormalization", name, &inputs, &value, vec![int("axis", from + 1), float("epsilon", *eps)]);
            }
            Op::Softmax { dim } => self.put("Softmax", name, &[first()], &value, vec![int("axis", dim + 1)]),
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
            Op::AdaptiveAvgPool { size } => {
                let input = &self.graph.node(node.inputs[0]).shape;
                self.resampled(name, first(), (input, *size), &value, kernels::adaptive_avg_pool2d)?;
            }
            Op::Upsample { size, by } => {
                let input = &self.graph.node(node.inputs[0]).shape;
                self.resampled(name, first(), (input, *size), &value, |xs, size| kernels::upsample2d(xs, size, *by))?;
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
            Op::Slice { dim, start, len } => {
                let [start, end, axis] = [("start", *start), ("end", start + len), ("axis", dim + 1)]
                    .map(|(what, place)| self.whole_numbers(&format!("{name}.{what}"), &[place]));
                self.put("Slice", name, &[first(), start, end, axis], &value, vec![]);
            }
            Op::Reshape { shape } => {
                let shape = self.shape(&format!("{name}.shape"), shape);
                self.put("Reshape", name, &[first(), shape], &value, vec![]);
            }
            Op::Permute { order } => {
                let order: Vec<usize> = [0].into_iter().chain(order.iter().map(|dim| dim + 1)).collect();
                self.put("Transpose", name, &[first()], &value, vec![ints("perm", &order)]);
            }
            Op::Add => self.put("Sum", name, &read, &value, vec![]),
            Op::WeightedSum { through } => {
                let weight = format!("{name}.weight");
                let factors = through.map_or(weight.clone(), |through| {
                    let factors = format!("{name}/factors");
                    self.activation(through, &factors, weight, &factors);
                    factors
                });
                let terms: Vec<String> = read
                    .iter()
                    .enumerate()
                    .map(|(k, xs)| {
                        let at = self.whole_numbers(&format!("{name}.at.{k}"), &[k]);
                        let factor = self.then("Gather", &format!("{name}/factor.{k}"), &[factors.clone(), at], vec![int("axis", 0)]);
                        self.then("Mul", &format!("{name}/term.{k}"), &[xs.clone(), factor], vec![])
                    })
                    .collect();
                self.put("Sum", name, &terms, &value, vec![]);
            }
            Op::Multiply => {
                let mut product = first();
                for (k, gate) in node.inputs.iter().enumerate().skip(1) {
                    // A number a channel stands before rows and columns.
                    let fitting = if self.graph.node(*gate).shape.len() == node.shape.len() {
                        read[k].clone()
                    } else {
                        let mut shape = vec![1; node.shape.len()];
                        shape[0] = node.shape[0];
                        let shape = self.shape(&format!("{name}.gate.{k}"), &shape);
                        self.then("Reshape", &format!("{name}/gate.{k}"), &[read[k].clone(), shape], vec![])
                    };
                    product = self.then("Mul", &format!("{name}/product.{k}"), &[product, fitting], vec![]);
                }
                self.put("Identity", name, &[product], &value, vec![]);
            }
            Op::Matmul => self.put("MatMul", name, &read, &value, vec![]),
            Op::Scale { by } => {
                self.numbers(&format!("{name}.by"), &[], &[*by as f32]);
                self.put("Mul", name, &[first(), format!("{name}.by")], &value, vec![]);
            }
            Op::Dropout { .. } => self.put("Identity", name, &[first()], &value, vec![]),
        }
        Ok(())
    }

    /// The names of a norm's scale and shift; where it has none, 1 and 0 are written.
    fn affine(&mut self, name: &str, has: bool, shape: &[usize]) -> [String; 2] {
        let names = ["weight", "bias"].map(|own| format!("{name}.{own}"));
        if !has {
            let count = shape.iter().product();
            self.numbers(&names[0], shape, &vec![1.0; count]);
            self.numbers(&names[1], shape, &vec![0.0; count]);
        }
        names
    }

    /// A picture in another resolution, where each new row is a mix of the old ones and each new column too: as two matrix products,
    /// since runtimes differ in where they think that pixels are. What `resample` makes of one pixel is a column of the matrix.
    fn resampled(
        &mut self,
        name: &str,
        xs: String,
        (input, size): (&[usize], (usize, usize)),
        value: &str,
        resample: impl Fn(&Tensor, (usize, usize)) -> candle::Result<Tensor>,
    ) -> Result<()> {
        let pixels = |n: usize| Tensor::eye(n, DType::F32, &Device::Cpu)?.reshape((1, n, n, 1));
        let mix = |n: usize, out: usize| resample(&pixels(n)?, (out, 1))?.reshape((n, out));
        let rows = mix(input[1], size.0)?.t()?.flatten_all()?.to_vec1::<f32>()?;
        let columns = mix(input[2], size.1)?.flatten_all()?.to_vec1::<f32>()?;
        let (row_names, column_names) = (format!("{name}.rows"), format!("{name}.columns"));
        self.numbers(&row_names, &[size.0, input[1]], &rows);
        self.numbers(&column_names, &[input[2], size.1], &columns);
        let tall = self.then("MatMul", &format!("{name}/rows"), &[row_names, xs], vec![]);
        self.put("MatMul", name, &[tall, column_names], value, vec![]);
        Ok(())
    }

    fn activation(&mut self, activation: Activation, name: &str, xs: String, value: &str) {
        match activation {
            Activation::Relu => self.put("Relu", name, &[xs], value, vec![]),
            Activation::Relu6 => {
                let bounds = [("low", 0.0f32), ("high", 6.0)].map(|(bound, number)| {
                    let bound = format!("{name}.{bound}");
                    self.numbers(&bound, &[], &[number]);
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

    fn numbers(&mut self, name: &str, shape: &[usize], numbers: &[f32]) {
        self.tensor(name, shape, proto::F32, numbers.iter().flat_map(|number| number.to_le_bytes()).collect());
    }

    /// For any number of samples: 0 is as it is.
    fn shape(&mut self, name: &str, shape: &[usize]) -> String {
        self.whole_numbers(name, &[&[0], shape].concat())
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

fn float(name: &str, value: f64) -> proto::Attribute {
    proto::Attribute { name: name.to_owned(), f: Some(value as f32), kind: proto::FLOAT, ..Default::default() }
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
