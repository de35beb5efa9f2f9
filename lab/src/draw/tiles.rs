//! The nodes of a graph gathered into boxes that a person can take in: a layer with its batch norm and activation is one.

use std::collections::BTreeMap;

use crate::graph::{Graph, Node, NodeId, Op};
use crate::kernels::Pool;

/// What a box is about; decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Input,
    Conv,
    Depthwise,
    Linear,
    Pool,
    Join,
    Pick,
    Other,
}

impl Kind {
    fn of(graph: &Graph, node: &Node) -> Self {
        match &node.op {
            Op::Input => Self::Input,
            Op::Conv(conv) if conv.groups > 1 && conv.groups == graph.node(node.inputs[0]).shape[0] => Self::Depthwise,
            Op::Conv(_) => Self::Conv,
            Op::Linear(_) => Self::Linear,
            Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool | Op::AdaptiveAvgPool { .. } | Op::Upsample { .. } => Self::Pool,
            Op::Add | Op::Concat | Op::WeightedSum { .. } | Op::Multiply | Op::Matmul => Self::Join,
            Op::Pick { .. } | Op::Slice { .. } => Self::Pick,
            Op::BatchNorm { .. } | Op::InstanceNorm { .. } | Op::LayerNorm { .. } | Op::Activate(_) | Op::Softmax { .. } => Self::Other,
            Op::Flatten | Op::Reshape { .. } | Op::Permute { .. } | Op::Scale { .. } | Op::Dropout { .. } => Self::Other,
        }
    }

    /// In the legend.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Conv => "convolution",
            Self::Depthwise => "depthwise",
            Self::Linear => "linear",
            Self::Pool => "pooling, resampling",
            Self::Join => "sum, product, concatenation",
            Self::Pick => "choice of channels",
            Self::Other => "norm, activation, shape",
        }
    }

    /// Of the frame; Okabe & Ito 2008, as in the figures.
    pub(super) fn colour(self) -> &'static str {
        match self {
            Self::Input => "#444444",
            Self::Conv => "#0072b2",
            Self::Depthwise => "#56b4e9",
            Self::Linear => "#cc79a7",
            Self::Pool => "#009e73",
            Self::Join => "#e69f00",
            Self::Pick => "#d55e00",
            Self::Other => "#888888",
        }
    }
}

/// Some nodes in a row, drawn as one.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub(super) kind: Kind,
    /// What it does: `conv 3×3 /2 · bn · relu`.
    pub(super) title: String,
    /// Of the first node.
    pub(super) name: String,
    /// Of the last node's value: `64×32×32`.
    pub(super) shape: String,
}

/// A graph as it is drawn.
pub(super) struct Tiles {
    /// In execution order.
    pub(super) tiles: Vec<Tile>,
    /// From box to box.
    pub(super) edges: Vec<(usize, usize)>,
    /// The box with the result.
    pub(super) output: usize,
    /// Scopes of the builder, each with its boxes.
    pub(super) scopes: Vec<(String, Vec<usize>)>,
}

/// Scopes with more boxes are not drawn as one thing: a block is, a stage or a whole network is not.
const LARGEST_SCOPE: usize = 5;

/// Gathers the nodes of `graph`.
pub(super) fn gather(graph: &Graph) -> Tiles {
    let mut readers = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|input| readers[input.0] += 1);
    let mut tiles: Vec<Tile> = Vec::new();
    let mut home: Vec<usize> = Vec::new();
    let mut edges: Vec<(usize, usize)> = Vec::new();
    for node in &graph.nodes {
        let sizes: Vec<String> = node.shape.iter().map(usize::to_string).collect();
        let (kind, part, shape) = (Kind::of(graph, node), part(graph, node), sizes.join("×"));
        if let [NodeId(only)] = node.inputs[..] {
            let before = &mut tiles[home[only]];
            if readers[only] == 1 && only != graph.output.0 && joins(kind, &node.op, &graph.nodes[only].op, before.kind) {
                before.title = format!("{} · {part}", before.title);
                before.shape = shape;
                home.push(home[only]);
                continue;
            }
        }
        tiles.push(Tile { kind, title: part, name: node.name.clone(), shape });
        home.push(tiles.len() - 1);
        for input in &node.inputs {
            let edge = (home[input.0], tiles.len() - 1);
            if !edges.contains(&edge) {
                edges.push(edge);
            }
        }
    }
    let scopes = scopes(&tiles);
    Tiles { tiles, edges, output: home[graph.output.0], scopes }
}

/// Whether a node is drawn in the box of the one before it, which nothing else reads.
fn joins(kind: Kind, op: &Op, before: &Op, tile_kind: Kind) -> bool {
    let pointwise = matches!(op, Op::Conv(conv) if conv.kernel == (1, 1));
    let separable = pointwise && tile_kind == Kind::Depthwise && matches!(before, Op::Conv(_));
    separable || (kind == Kind::Other && tile_kind != Kind::Input)
}

/// What a node does, in a few words.
fn part(graph: &Graph, node: &Node) -> String {
    let square = |(a, b): (usize, usize)| format!("{a}×{b}");
    let top = |top: Option<usize>| top.map_or(String::new(), |top| format!(", top {top}"));
    // Nothing where it is 1.
    let beyond_one = |before: &str, sides: (usize, usize)| match sides {
        (1, 1) => String::new(),
        (a, b) if a == b => format!("{before}{a}"),
        (a, b) => format!("{before}({a}, {b})"),
    };
    let window = |pool: &Pool| format!("{}{}", square(pool.kernel), beyond_one(" /", pool.stride));
    match &node.op {
        Op::Conv(conv) => {
            let kind = if Kind::of(graph, node) == Kind::Depthwise { "depthwise" } else { "conv" };
            let grouped = if kind == "depthwise" || conv.groups == 1 { String::new() } else { format!(", {} groups", conv.groups) };
            let window = format!("{}{}{}", square(conv.kernel), beyond_one(" /", conv.stride), beyond_one(", dilation ", conv.dilation));
            format!("{kind} {window}{grouped}{}", top(conv.top))
        }
        Op::Linear(linear) => format!("linear{}", top(linear.top)),
        Op::MaxPool(pool) => format!("max pool {}", window(pool)),
        Op::AvgPool(pool) => format!("mean pool {}", window(pool)),
        Op::GlobalAvgPool => "global mean".to_owned(),
        Op::AdaptiveAvgPool { size } => format!("mean to {}", square(*size)),
        Op::Upsample { size, .. } => format!("upsample to {}", square(*size)),
        Op::BatchNorm { .. } => "bn".to_owned(),
        Op::Pick { channels } => {
            let of: usize = node.inputs.iter().map(|&input| graph.node(input).shape[0]).sum();
            format!("pick {} of {of}", channels.len())
        }
        other => other.label().replace('_', " "),
    }
}

/// For each box the widest scope that is small enough to be one thing; scopes of one box are none.
fn scopes(tiles: &[Tile]) -> Vec<(String, Vec<usize>)> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, own) in tiles.iter().enumerate() {
        own.name.match_indices('.').for_each(|(dot, _)| members.entry(&own.name[..dot]).or_default().push(at));
    }
    members.retain(|_, boxes| (2..=LARGEST_SCOPE).contains(&boxes.len()));
    let wider = |scope: &str| scope.match_indices('.').any(|(dot, _)| members.contains_key(&scope[..dot]));
    members.iter().filter(|(scope, _)| !wider(scope)).map(|(scope, boxes)| ((*scope).to_owned(), boxes.clone())).collect()
}
