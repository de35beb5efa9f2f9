//! Pictures of networks: what is in them, and that nothing lies on anything else.

use std::path::Path;

use datasets::Seed;
use expect_test::expect;
use lab::draw;
use lab::graph::{Builder, Graph};
use lab::models::{alexnet, dense_mlp, mobilenet_v2, resnet, vgg};
use lab::{Activation, Conv};

use crate::drawing::well_formed;
use crate::nets::{every_op, further_ops, random_wired, resnet18};

fn graphs() -> Vec<Graph> {
    let families = [
        resnet::Config::r50(1000).graph(),
        mobilenet_v2::Config::imagenet(1.0, 1000).graph(),
        vgg::Config::d16(1000).graph(),
        alexnet::Config::cifar(10).graph(),
        dense_mlp::Config::mnist(8, 12, 10).graph(Seed(1)),
    ];
    let others = [resnet18(64), random_wired(16, 3), every_op(), further_ops()];
    families.into_iter().map(|family| family.unwrap()).chain(others).collect()
}

/// The numbers after each of some attributes, of every element that begins so.
fn attributes<const N: usize>(svg: &str, element: &str, names: [&str; N]) -> Vec<[f64; N]> {
    let number = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    svg.split('<').filter(|tag| tag.starts_with(element)).map(|tag| names.map(|name| number(tag, name))).collect()
}

/// Left, top, right and bottom of every box.
fn boxes(svg: &str) -> Vec<[f64; 4]> {
    let drawn =
        svg.split("<rect ").filter(|tag| tag.contains("rx=\"5\" fill=\"#fff\"")).map(|tag| format!("<rect {tag}")).collect::<String>();
    let sides = |[x, y, width, height]: [f64; 4]| [x, y, x + width, y + height];
    attributes(&drawn, "rect ", ["x", "y", "width", "height"]).into_iter().map(sides).collect()
}

/// Points along every edge.
fn edges(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let points = |path: &str| {
        let numbers: Vec<f64> =
            path.split(['M', 'C', ' ', ',']).filter(|text| !text.is_empty()).map(|text| text.parse().unwrap()).collect();
        let ends: Vec<(f64, f64)> = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let curve = |from: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|k| ends[3 * from + k]);
            (0..=16).map(move |k| {
                let t = f64::from(k) / 16.0;
                let mix = |a: f64, b: f64, c: f64, d: f64| {
                    a * (1.0 - t).powi(3) + 3.0 * b * t * (1.0 - t).powi(2) + 3.0 * c * t * t * (1.0 - t) + d * t.powi(3)
                };
                (mix(a.0, b.0, c.0, d.0), mix(a.1, b.1, c.1, d.1))
            })
        };
        (0..ends.len() / 3).flat_map(curve).collect()
    };
    svg.split("<path d=\"").skip(2).map(|path| points(path.split_once('"').unwrap().0)).collect()
}

#[test]
fn boxes_stand_apart_and_no_edge_runs_through_one() {
    for graph in graphs() {
        let figure = draw::network(&graph);
        let svg = figure.svg();
        well_formed(&svg);
        // For whoever wants to look.
        figure.save(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.svg", graph.name))).unwrap();
        let (boxes, edges) = (boxes(&svg), edges(&svg));
        assert!(boxes.len() > 10 && edges.len() >= boxes.len() - 1, "{}: {} boxes, {} edges", graph.name, boxes.len(), edges.len());
        for (at, a) in boxes.iter().enumerate() {
            for b in &boxes[..at] {
                assert!(a[0] > b[2] || b[0] > a[2] || a[1] > b[3] || b[1] > a[3], "{}: {a:?} lies on {b:?}", graph.name);
            }
        }
        for edge in &edges {
            for &(x, y) in edge {
                let inside = |own: &&[f64; 4]| x > own[0] && x < own[2] && y > own[1] && y < own[3];
                assert!(!boxes.iter().any(|own| inside(&own)), "{}: an edge at {x}, {y} runs through a box", graph.name);
            }
        }
        // Whatever runs beside a box keeps clear of it, and of the sides of the picture.
        let [[width, height]] = attributes(&svg, "svg ", ["width", "height"])[..] else { panic!("one picture") };
        let outside = |&(x, y): &(f64, f64)| x < 0.0 || y < 0.0 || x > width || y > height;
        assert!(!edges.iter().flatten().any(outside), "{}", graph.name);
    }
}

/// Every layer can be found by its name; blocks are framed, so that names in them are short.
#[test]
fn a_residual_network_shows_its_blocks() {
    let svg = draw::network(&resnet18(64)).svg();
    let boxes = boxes(&svg);
    // Input, stem, eight blocks of two layers and a sum, three shortcuts, pooling, classifier.
    assert_eq!(boxes.len(), 1 + 1 + 8 * 3 + 3 + 1 + 1);
    for block in ["layer1.0", "layer2.1", "layer4.1"] {
        assert!(svg.contains(&format!(">{block}</text>")), "{block}");
    }
    for text in ["conv 3×3 /2 · bn · relu", "add · relu", ">downsample.0<", ">512×4×4<", "11,173,962 parameters", "skip over 1 to"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("choice of channels"), "the legend tells what is there");
}

#[test]
fn graphviz_reads_the_same_boxes() {
    let mut g = Builder::new("a \"net\"", &[3, 8, 8]);
    let xs = g.conv("stem", g.input(), Conv::k3(4).stride(2));
    let xs = g.batch_norm("bn", xs);
    let ys = g.scope("block", |g| g.conv("grouped", xs, Conv::k3(4).groups(2)));
    let sum = g.add(&[ys, xs]);
    let sum = g.activate(sum, Activation::Relu);
    let all = g.flatten(sum);
    let some = g.pick("some", &[all], vec![1, 2, 3]);
    let logits = g.linear("fc", some, 2);
    expect![[r##"
        digraph "a \"net\"" {
          node [shape=box style="rounded,filled" fillcolor=white fontname=Helvetica fontsize=11]
          n0 [label="input\ninput  3×8×8" color="#444444"]
          n1 [label="conv 3×3 /2 · bn\nstem  4×4×4" color="#0072b2"]
          n2 [label="conv 3×3, 2 groups\nblock.grouped  4×4×4" color="#0072b2"]
          n3 [label="add · relu · flatten\nadd  64" color="#e69f00"]
          n4 [label="pick 3 of 64\nsome  3" color="#d55e00"]
          n5 [label="linear\nfc  2" color="#cc79a7"]
          n0 -> n1
          n1 -> n2
          n2 -> n3
          n1 -> n3
          n3 -> n4
          n4 -> n5
        }
    "##]]
    .assert_eq(&draw::dot(&g.finish(logits).unwrap()));
}
