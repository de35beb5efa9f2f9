//! Batches of which a sample is more or less than one picture: mixed, seen ten times, drawn by class; and normalised each by itself.

use datasets::{Batch, Batches, Image, Picture, Seed, Values};
use expect_test::expect;
use pipeline::augment::{self, Contrast, Transform, normalize::Constants};
use pipeline::loader::{Config, Output};
use pipeline::order::{Order, Per, Shard};
use pipeline::{Loader, decode};
use serde_json::Value;

use super::{Kept, augmented, epoch, pixels, raw, samples, store};
use crate::augmenting::apply;
use crate::decoding::{gradient, jpeg};

fn floats(batch: &Batch) -> &[f32] {
    match &batch.values {
        Values::F32(values) => values,
        Values::U8(_) => panic!("asked for floats"),
    }
}

#[test]
fn mixed_samples_are_the_stated_combination() {
    let store = store(raw(50, 8, 8, 3));
    let plain = epoch(&store.loader(augmented(12)), 1, 0);
    let mixed = epoch(&store.loader(Config { mix_up: Some(0.4), ..augmented(12) }), 1, 0);
    let floating = Config { mix_up: Some(0.4), output: Output::F32, ..augmented(12) };
    let shares: Vec<f32> = plain
        .iter()
        .zip(&mixed)
        .zip(epoch(&store.loader(floating), 1, 0))
        .map(|((plain, mixed), floating)| {
            assert_eq!((&plain.labels, &plain.indices, &plain.normalize), (&mixed.labels, &mixed.indices, &mixed.normalize));
            let how = mixed.mixed.as_ref().unwrap();
            assert_eq!((&floating.mixed, &floating.labels), (&mixed.mixed, &mixed.labels));
            assert_eq!(how.others.len(), plain.len());
            let size = 8 * 8 * 3;
            // Each sample was mixed with one of the batch, each of them once; which one is found by its pixels.
            let mut others: Vec<usize> = Vec::new();
            for (k, found) in pixels(mixed).chunks(size).enumerate() {
                let own = &pixels(plain)[k * size..][..size];
                let mean = |other: usize, at: usize| {
                    how.share * f32::from(own[at]) + (1.0 - how.share) * f32::from(pixels(plain)[other * size + at])
                };
                let fits =
                    |other: &usize| found.iter().enumerate().all(|(at, &pixel)| (mean(*other, at) - f32::from(pixel)).abs() <= 0.501);
                let other = (0..plain.len()).find(fits).unwrap();
                assert_eq!(plain.labels[other], how.others[k]);
                others.push(other);

                let normalize = plain.normalize.as_ref().unwrap();
                for (at, &value) in floats(&floating)[k * size..][..size].iter().enumerate() {
                    let channel = at / 64;
                    let wanted = (mean(other, at) / 255.0 - normalize.mean[channel]) / normalize.std[channel];
                    assert!((value - wanted).abs() < 1e-5);
                }
            }
            others.sort_unstable();
            others.dedup();
            assert!(others.len() == plain.len() || how.share == 1.0, "{others:?}");
            how.share
        })
        .collect();
    assert!(shares.iter().all(|share| (0.5..=1.0).contains(share)) && shares.windows(2).all(|two| two[0] != two[1]), "{shares:?}");
}

#[test]
fn targets_are_distributions() {
    let store = store(raw(20, 4, 4, 1));
    for batch in epoch(&store.loader(Config { mix_up: Some(1.0), ..Config::train(8, Vec::new(), Seed(3)) }), 0, 0) {
        let how = batch.mixed.clone().unwrap();
        for smoothing in [0.0, 0.1] {
            let targets = how.targets(&batch.labels, 3, smoothing);
            for ((row, &own), &other) in targets.chunks(3).zip(&batch.labels).zip(&how.others) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                let even = smoothing as f32 / 3.0;
                let wanted = even + (1.0 - smoothing as f32) * if own == other { 1.0 } else { how.share };
                assert!((row[own as usize] - wanted).abs() < 1e-6 && row[own as usize] >= row[other as usize]);
            }
        }
    }
}

#[test]
fn mixing_is_a_function_of_seed_epoch_and_batch() {
    let store = store(raw(50, 8, 8, 3));
    let config = |threads| Config { mix_up: Some(0.2), threads, ..augmented(7) };
    let want = epoch(&store.loader(config(1)), 4, 0);
    assert_eq!(epoch(&store.loader(config(3)), 4, 0), want);
    assert_eq!(epoch(&store.loader(config(2)), 4, 3), want[3..]);
    let share = |batches: &[Batch]| batches.iter().map(|batch| batch.mixed.as_ref().unwrap().share).collect::<Vec<_>>();
    assert_ne!(share(&epoch(&store.loader(config(2)), 5, 0)), share(&want));
    // The processes of a step take the same share, each of its own samples.
    let shard = |rank| Config { shard: Shard { rank, world: 2 }, ..config(1) };
    let [left, right] = [0, 1].map(|rank| epoch(&store.loader(shard(rank)), 4, 0));
    assert_eq!(share(&left), share(&right));
}

/// Three pictures of any size, seen ten times each.
#[test]
fn views_are_pictures_of_one_sample() {
    let files: Vec<Picture> = (0..3).map(|at| Picture::Encoded(jpeg(&gradient(40 + at, 50, 3)))).collect();
    let whole = decode::pictures(&samples(&files)).unwrap();
    let store = store(files);
    let transforms = vec![Transform::Resize { shorter: 32 }, Transform::TenCrop { size: 24 }];
    let config = Config { normalize: Constants::ImageNet, ..Config::eval("train", 2, transforms) };
    let loader = store.loader(config.clone());
    assert_eq!((loader.samples(), loader.batches(), loader.sample_shape()), (3, 2, vec![10, 3, 24, 24]));
    let batches = epoch(&loader, 0, 0);
    assert_eq!(batches.iter().map(|batch| batch.shape.clone()).collect::<Vec<_>>(), [[2, 10, 3, 24, 24], [1, 10, 3, 24, 24]]);
    assert_eq!((batches[0].len(), batches[0].views(), batches[0].picture()), (2, 10, &[3, 24, 24][..]));
    let found: Vec<u8> = batches.iter().flat_map(|batch| pixels(batch).to_vec()).collect();
    for (image, views) in whole.iter().zip(found.chunks(10 * 3 * 24 * 24)) {
        let resized = apply(&[Transform::Resize { shorter: 32 }], image);
        let middle = apply(&[Transform::CentreCrop { size: 24 }], &resized);
        assert_eq!(views.chunks(3 * 24 * 24).nth(4).unwrap(), middle.to_planes(), "the fifth is the middle");
        let mirrored = apply(&[Transform::Flip { p: 1.0 }, Transform::CentreCrop { size: 24 }], &resized);
        assert_eq!(views.chunks(3 * 24 * 24).nth(9).unwrap(), mirrored.to_planes(), "and the tenth that of the mirror image");
    }
    // As floats, each view is normalised like a picture.
    let floating = epoch(&store.loader(Config { output: Output::F32, ..config }), 0, 0);
    let normalize = Constants::ImageNet.resolve(None, 3).unwrap().unwrap();
    for (at, (&value, &pixel)) in floats(&floating[0]).iter().zip(pixels(&batches[0])).enumerate() {
        assert_eq!(value, normalize.channel(at / 576 % 3)(pixel));
    }
}

#[test]
fn each_picture_is_brought_to_its_own_contrast() {
    let store = store(raw(6, 9, 8, 3));
    let of = |contrast, transforms| {
        let config = Config { normalize: Constants::Contrast(contrast), output: Output::F32, ..Config::eval("train", 6, transforms) };
        epoch(&store.loader(config), 0, 0).remove(0)
    };
    let moments = |values: &[f32]| {
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    };
    for (values, scale) in
        [(of(Contrast::default(), Vec::new()), 1.0), (of(Contrast { scale: 7.0, ..Contrast::default() }, Vec::new()), 7.0)]
    {
        for picture in floats(&values).chunks(9 * 8 * 3) {
            let (mean, deviation) = moments(picture);
            assert!(mean.abs() < 1e-5 && (deviation / scale - 1.0).abs() < 1e-5, "{mean}, {deviation}");
        }
    }
    // λ as large as the variance of white noise, 1/12 of the range, leaves about 1/√2.
    let (_, deviation) = moments(floats(&of(Contrast { lambda: 1.0 / 12.0, ..Contrast::default() }, Vec::new())));
    assert!((0.65..0.75).contains(&deviation), "{deviation}");
    // A picture of one colour has no contrast.
    let flat = super::store(vec![Picture::Raw(Image::new(4, 4, 1, vec![200; 16]))]);
    let config =
        Config { normalize: Constants::Contrast(Contrast::default()), output: Output::F32, ..Config::eval("train", 1, Vec::new()) };
    assert_eq!(floats(&epoch(&flat.loader(config), 0, 0)[0]), [0.0; 16]);
    // Views are pictures, too.
    for view in floats(&of(Contrast::default(), vec![Transform::TenCrop { size: 5 }])).chunks(75) {
        assert!((moments(view).1 - 1.0).abs() < 1e-5);
    }
}

#[test]
fn contrast_is_that_of_pylearn2() {
    let golden: Value = serde_json::from_str(include_str!("../../golden/augmenting/pixels.json")).unwrap();
    let colourful =
        Image::new(12, 17, 3, golden["colourful"].as_array().unwrap().iter().map(|pixel| pixel.as_u64().unwrap() as u8).collect());
    let store = store(vec![Picture::Raw(colourful)]);
    let n = 12.0 * 17.0 * 3.0;
    for case in golden["contrasts"].as_array().unwrap() {
        let (scale, bias) = (case["scale"].as_f64().unwrap(), case["sqrt_bias"].as_f64().unwrap());
        // Its variance is that of a sample, or the sum of squares: what one of these is times ours, scale and bias are made up for.
        let ratio = if case["use_std"].as_bool().unwrap() { n / (n - 1.0) } else { n };
        let contrast = Contrast { scale: scale / f64::sqrt(ratio), lambda: bias / ratio / (255.0 * 255.0), ..Contrast::default() };
        let config = Config { normalize: Constants::Contrast(contrast), output: Output::F32, ..Config::eval("train", 1, Vec::new()) };
        let batch = epoch(&store.loader(config), 0, 0).remove(0);
        let wanted: Vec<f64> = case["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        for (at, &value) in floats(&batch).iter().enumerate() {
            let wanted = wanted[at % 204 * 3 + at / 204];
            assert!((f64::from(value) - wanted).abs() < 2e-6 * wanted.abs().max(1.0), "{value} is not {wanted}");
        }
    }
}

/// Labels of the store are 0, 1, 2, 0, 1, ...; of 50 samples, 17 are of class 0.
#[test]
fn classes_are_drawn_as_asked_for() {
    let store = store(raw(50, 4, 4, 1));
    let labels: Vec<u32> = (0..50).map(|index| index % 3).collect();
    assert_eq!(store.store.labels(0).unwrap()[..], labels);
    let classes = |order: Order| -> Vec<u32> {
        let batches = epoch(&store.loader(Config { order, ..Config::train(6, Vec::new(), Seed(1)) }), 0, 0);
        batches.iter().flat_map(|batch| batch.labels.clone()).collect()
    };
    assert!(
        classes(Order::Balanced)
            .chunks_exact(6)
            .all(|batch| (0..3).all(|class| batch.iter().filter(|&&label| label == class).count() == 2))
    );
    let only = Order::Weighted { weights: vec![0.0, 1.0, 0.0], per: Per::Class };
    assert_eq!(classes(only), [1; 50]);
    let first = Order::Weighted { weights: [vec![1.0], vec![0.0; 49]].concat(), per: Per::Sample };
    assert_eq!(classes(first), [0; 50]);
    let refused = Config { order: Order::Weighted { weights: vec![1.0; 49], per: Per::Sample }, ..Config::default() };
    expect!["order.weighted.weights: wanted one for each of 50 samples, found 49"]
        .assert_eq(&Loader::new(store.store.clone(), refused).unwrap_err().to_string());
}

#[test]
fn a_sample_drawn_again_is_augmented_anew() {
    let store = store(raw(4, 8, 8, 1));
    let config = Config { order: Order::Weighted { weights: vec![1.0, 0.0, 0.0, 0.0], per: Per::Sample }, ..augmented(4) };
    let batch = epoch(&store.loader(Config { transforms: vec![Transform::PadCrop { size: 8, pad: 4 }], ..config }), 0, 0).remove(0);
    assert_eq!(batch.indices, [0; 4]);
    let pictures: std::collections::BTreeSet<&[u8]> = pixels(&batch).chunks(64).collect();
    assert!(pictures.len() > 1);
}

#[test]
fn what_cannot_be_mixed_or_normalised_is_refused() {
    let store: Kept = store(raw(4, 8, 8, 1));
    let refused = |config: Config| Loader::new(store.store.clone(), config).unwrap_err().to_string();
    for alpha in [0.0, -1.0, 1.5, f64::NAN] {
        assert_eq!(
            refused(Config { mix_up: Some(alpha), ..Config::default() }),
            format!("mix_up: wanted more than 0, at most 1, found {alpha}")
        );
    }
    let contrast = |contrast, output| Config { normalize: Constants::Contrast(contrast), output, ..Config::default() };
    expect!["output: wanted f32, since with `contrast` each picture has numbers of its own, found u8"]
        .assert_eq(&refused(contrast(Contrast::default(), Output::U8)));
    expect!["normalize.contrast.epsilon: wanted a positive number, found 0"]
        .assert_eq(&refused(contrast(Contrast { epsilon: 0.0, ..Contrast::default() }, Output::F32)));
    let read: Constants = serde_json::from_str(r#"{"contrast": {"lambda": 0.5}}"#).unwrap();
    assert_eq!(read, Constants::Contrast(Contrast { lambda: 0.5, ..Contrast::default() }));
    assert_eq!(augment::imagenet_ten_crop(224).len(), 2);
}
