//! Data drawn from a seed: the sets of NN-Mass as published, and shapes that a network can learn from.

use std::{collections::BTreeSet, path::Path};

use datasets::{
    Batches, Dataset, Image, Picture, Seed, Segments, Shapes, Values,
    synthetic::{
        segments::{Config, Kind, Labels, Points},
        shapes,
    },
};
use expect_test::{Expect, expect};
use sha2::{Digest, Sha256};

fn golden() -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/nnmass_segments/synthetic_data_and_smoke_training.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn segments(kind: Kind, segments: usize, labels: Labels) -> Segments {
    Segments::new(Config { kind, segments, labels }, Seed(7)).unwrap()
}

/// The SHA-256 of the labels, one byte a row.
fn digest(points: &Points) -> String {
    let bytes: Vec<u8> = points.labels.iter().map(|&label| label as u8).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn test_labels_are_the_published_ones() {
    for (count, want) in golden()["labels_for_1200_rows"].as_object().unwrap() {
        let count: usize = count.parse().unwrap();
        let want = want["test_label_sha256"].as_str().unwrap();
        for kind in [Kind::Linear, Kind::Circular] {
            assert_eq!(digest(segments(kind, count, Labels::Row).test()), want, "{count} segments by row");
            if 120 % count == 0 {
                assert_eq!(digest(segments(kind, count, Labels::Value).test()), want, "{count} segments by value");
            }
        }
    }
}

#[test]
fn a_number_of_segments_that_splits_a_bin_is_refused() {
    check_refused(
        r#"{"kind": "linear", "segments": 7}"#,
        expect!["segments: segments: wanted a divisor of 120, or labels by row, found 7"],
    );
    check_refused(
        r#"{"kind": "linear", "segments": 0}"#,
        expect!["segments: segments: wanted a divisor of 120, or labels by row, found 0"],
    );
    check_refused(r#"{"kind": "linear", "segments": 121, "labels": "row"}"#, expect!["segments: segments: wanted 1 to 120, found 121"]);
    check_refused(
        r#"{"kind": "linear", "segment": 6}"#,
        expect!["unknown field `segment`, expected one of `kind`, `segments`, `labels` at line 1 column 28"],
    );
}

#[track_caller]
fn check_refused(config: &str, want: Expect) {
    let message = match serde_json::from_str::<Config>(config) {
        Ok(config) => Segments::new(config, Seed(0)).unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    want.assert_eq(&message);
}

#[test]
fn points_are_spread_as_in_the_published_files() {
    let drawn = [("linear", Kind::Linear), ("circle", Kind::Circular)];
    for (name, kind) in drawn {
        let set = segments(kind, 20, Labels::Value);
        for (split, points) in [("train", set.train()), ("test", set.test())] {
            let file = &golden()["files"][format!("{split}_{name}")];
            let n = points.labels.len();
            assert_eq!(n as u64, file["rows"].as_u64().unwrap());
            for axis in 0..2 {
                let column: Vec<f64> = points.rows.iter().skip(axis).step_by(2).map(|&x| f64::from(x)).collect();
                // Both are samples: each mean has a standard error of σ/√n, each σ about one of σ/√(2n). Five of both together.
                let tolerance = 5.0 * 41.0 * (2.0 / n as f64).sqrt();
                let (mean, std) = moments(&column);
                assert!((mean - file["mean"][axis].as_f64().unwrap()).abs() < tolerance, "{split} {name}: mean {mean}");
                assert!((std - file["std"][axis].as_f64().unwrap()).abs() < tolerance, "{split} {name}: std {std}");
            }
            let fractions: Vec<f64> = values(kind, points).map(|value| (value * 1.2).fract()).collect();
            let tolerance = 5.0 * 0.29 * (2.0 / n as f64).sqrt();
            let (mean, std) = moments(&fractions);
            assert!((mean - file["within_bin_fraction_mean"].as_f64().unwrap()).abs() < tolerance, "{split} {name}: {mean} of a bin");
            // The shape of the distribution within a bin: 0.289 if uniform, 0.270 if normal and cut off.
            assert!((std - if kind == Kind::Linear { 0.2887 } else { 0.2698 }).abs() < 0.3 * tolerance, "{split} {name}: {std} of a bin");
        }
    }
}

fn values(kind: Kind, points: &Points) -> impl Iterator<Item = f64> {
    points.rows.chunks(2).map(move |point| match kind {
        Kind::Linear => f64::from(point[0]),
        Kind::Circular => f64::from(point[0]).hypot(f64::from(point[1])),
    })
}

fn moments(column: &[f64]) -> (f64, f64) {
    let n = column.len() as f64;
    let mean = column.iter().sum::<f64>() / n;
    (mean, (column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[test]
fn every_value_lies_in_its_bin_once_and_is_labelled_by_its_segment() {
    let set = segments(Kind::Linear, 6, Labels::Value);
    let mut seen = BTreeSet::new();
    for (points, per_bin) in [(set.train(), 100), (set.test(), 10)] {
        for (row, value) in values(Kind::Linear, points).enumerate() {
            assert_eq!((value * 1.2).floor() as usize, row / per_bin, "bin of {value}");
            assert_eq!(points.labels[row], (value * 6.0 / 100.0).floor() as u32 % 2, "label of {value}");
            assert!(seen.insert(value.to_bits()), "{value} twice");
        }
        assert!(points.rows.chunks(2).all(|point| point[0] == point[1]));
    }
    assert_eq!(seen.len(), 13_200);
}

#[test]
fn a_seed_draws_the_same_points_again() {
    let draw = |seed| Segments::new(Config::circular(6), Seed(seed)).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn points_come_in_batches() {
    let set = segments(Kind::Linear, 2, Labels::Value);
    let batches = set.train().batches(100, Some(Seed(3)));
    assert_eq!((batches.samples(), batches.batches(), batches.sample_shape(), batches.classes()), (12_000, 120, vec![2], 2));
    let batch = batches.epoch(0, 5).next().unwrap().unwrap();
    assert_eq!(batch.shape, [100, 2]);
    let Values::F32(values) = batch.values else { panic!("vectors are f32") };
    for (k, &index) in batch.indices.iter().enumerate() {
        assert_eq!(values[2 * k..2 * k + 2], set.train().rows[2 * index as usize..][..2]);
        assert_eq!(batch.labels[k], set.train().labels[index as usize]);
    }
}

fn image(set: &Shapes, split: usize, index: usize) -> Image {
    match set.get(split, index).unwrap().picture {
        Picture::Raw(image) => image,
        Picture::Encoded(_) => panic!("shapes are drawn as pixels"),
    }
}

#[test]
fn shapes_are_a_function_of_seed_split_and_index() {
    let config = shapes::Config { size: 24, train_per_class: 3, test_per_class: 2 };
    let set = Shapes::new(config, Seed(5)).unwrap();
    let again = Shapes::new(shapes::Config { train_per_class: 900, ..config }, Seed(5)).unwrap();
    assert_eq!(image(&set, 0, 17), image(&again, 0, 17), "the number of samples changes none of them");
    assert_ne!(image(&set, 0, 1), image(&set, 1, 1), "splits differ");
    assert_ne!(image(&set, 0, 1), image(&set, 0, 9), "samples of a class differ");
    assert_ne!(image(&set, 0, 1), image(&Shapes::new(config, Seed(6)).unwrap(), 0, 1), "seeds differ");
    expect![[r#"{"name":"shapes","classes":["disc","ring","crescent","triangle","square","cross","star","heart"],"splits":[{"name":"train","len":24},{"name":"test","len":16}]}"#]]
        .assert_eq(&serde_json::to_string(set.info()).unwrap());
}

#[test]
fn a_mask_is_where_the_shape_is() {
    let set = Shapes::new(shapes::Config::default(), Seed(0)).unwrap();
    for index in 0..200 {
        let (picture, mask) = (image(&set, 0, index), set.mask(0, index));
        let inside: Vec<&[u8]> = pixels_where(&picture, &mask, 255);
        let outside: Vec<&[u8]> = pixels_where(&picture, &mask, 0);
        let area = inside.len() as f64 / 1024.0;
        assert!((0.015..0.4).contains(&area), "sample {index} covers {area} of its picture");
        // The shape has one colour but for the noise (σ about 9 levels), and differs in brightness from its ground.
        for channel in 0..3 {
            let levels: Vec<f64> = inside.iter().map(|pixel| f64::from(pixel[channel])).collect();
            assert!(moments(&levels).1 < 14.0, "sample {index}: one colour");
        }
        let contrast = brightness(&inside) - brightness(&outside);
        assert!(contrast.abs() > 20.0, "sample {index}: contrast {contrast}");
    }
}

fn pixels_where<'a>(picture: &'a Image, mask: &Image, level: u8) -> Vec<&'a [u8]> {
    picture.pixels.chunks(3).zip(&mask.pixels).filter(|(_, at)| **at == level).map(|(pixel, _)| pixel).collect()
}

fn brightness(pixels: &[&[u8]]) -> f64 {
    let sum: f64 = pixels.iter().map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).sum();
    sum / pixels.len() as f64
}

/// A classifier that measures the mask's outline tells most classes apart, and one that looks at raw pixels does not: learnable, not trivial.
#[test]
fn shapes_can_be_told_by_outline_and_not_by_pixels() {
    let set = Shapes::new(shapes::Config::default(), Seed(0)).unwrap();
    let by_outline = nearest_mean(|index, split| outline(&set.mask(split, index)));
    let by_pixels = nearest_mean(|index, split| image(&set, split, index).pixels.iter().map(|&level| f64::from(level)).collect());
    assert!(by_outline > 0.6, "accuracy by outline {by_outline}");
    assert!(by_pixels < 0.3, "accuracy by pixels {by_pixels}");
}

/// Test accuracy of the class whose mean feature vector is nearest.
fn nearest_mean(features: impl Fn(usize, usize) -> Vec<f64>) -> f64 {
    let mut means: Vec<Vec<f64>> = vec![Vec::new(); 8];
    for index in 0..1600 {
        let found = features(index, 0);
        let mean = &mut means[index % 8];
        mean.resize(found.len(), 0.0);
        mean.iter_mut().zip(found).for_each(|(sum, x)| *sum += x / 200.0);
    }
    let distance = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
    let right = (0..800).filter(|&index| {
        let found = features(index, 1);
        let nearest = (0..8).min_by(|&a, &b| distance(&found, &means[a]).total_cmp(&distance(&found, &means[b])));
        nearest == Some(index % 8)
    });
    right.count() as f64 / 800.0
}

/// The shares of a shape's area in rings about its centre of mass, the radius measured in square roots of the area; and its second moments' ratio.
fn outline(mask: &Image) -> Vec<f64> {
    let weight = |at: usize| f64::from(mask.pixels[at]) / 255.0;
    let all = 0..mask.pixels.len();
    let area: f64 = all.clone().map(weight).sum();
    let [x, y] = [|at: usize| (at % 32) as f64, |at: usize| (at / 32) as f64];
    let centre =
        [all.clone().map(|at| weight(at) * x(at)).sum::<f64>() / area, all.clone().map(|at| weight(at) * y(at)).sum::<f64>() / area];
    let mut rings = vec![0.0; 12];
    for at in all {
        let radius = (x(at) - centre[0]).hypot(y(at) - centre[1]) / area.sqrt();
        rings[((radius * 10.0) as usize).min(11)] += weight(at) / area;
    }
    rings
}

/// Golden: the published perceptrons' test accuracy after a few epochs, means over a few networks. Each of theirs differs from the next by links
/// and weights, so rough parity is all that there is; what they cannot do yet, ours cannot either.
#[test]
fn perceptrons_learn_the_points_as_published() {
    use lab::models::dense_mlp;
    use lab::{Model, Recipe, evaluate, fit};

    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let golden = golden();
    let rows: Vec<&serde_json::Value> = golden["smoke_training"].as_array().unwrap().iter().collect();
    for (row, room) in [(rows[0], 0.03), (rows[2], 0.04), (rows[3], 0.08)] {
        let number = |field: &str| row[field].as_u64().unwrap() as usize;
        let kind = if row["dataset"] == "linear" { Kind::Linear } else { Kind::Circular };
        let accuracy = |seed: u64| {
            let points = Segments::new(Config { kind, segments: number("num_seg"), labels: Labels::Value }, Seed(seed)).unwrap();
            let graph = dense_mlp::Config::points(number("width"), number("depth"), number("tc")).graph(Seed(seed)).unwrap();
            let model = Model::new(graph, Seed(seed), &candle::Device::Cpu).unwrap();
            fit(&model, &points.train().batches(number("batch"), Some(Seed(seed))), None, &Recipe::adam(1e-3, number("epochs")), |_| {})
                .unwrap();
            evaluate(&model, &points.test().batches(1200, None)).unwrap().accuracy
        };
        let found = mean(&(0..3).map(accuracy).collect::<Vec<_>>());
        let published: Vec<f64> = row["test_accuracy_percent"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() / 100.0).collect();
        assert!((found - mean(&published)).abs() < room, "{row}: {found}");
    }
}
