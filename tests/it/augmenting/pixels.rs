//! Turned, recoloured and cropped tenfold: what Pillow and torchvision make of a picture, pixel by pixel, and the laws behind it.

use datasets::{Image, Seed};
use pipeline::augment::{self, Augment, Between, Transform};
use proptest::prelude::*;
use serde_json::Value;

use super::{apply, apply_with, check_sums, counted, formula, numbers};
use crate::decoding::gradient;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../golden/augmenting/pixels.json")).unwrap()
}

/// How many pixels are not as wanted, and by how much at most.
fn off(found: &Image, wanted: &Value) -> (usize, u64) {
    let wanted = numbers(wanted);
    assert_eq!(found.pixels.len(), wanted.len());
    let distances = found.pixels.iter().zip(wanted).map(|(&found, wanted)| u64::from(found).abs_diff(wanted));
    distances.filter(|&distance| distance > 0).fold((0, 0), |(count, most), distance| (count + 1, distance.max(most)))
}

fn rotate(degrees: f64, between: Between) -> Transform {
    Transform::Rotate { degrees: [degrees; 2], between, fill: [9, 8, 7] }
}

#[test]
fn pillow_turns_alike() {
    let golden = golden();
    for case in golden["rotations"].as_array().unwrap() {
        let degrees = case["degrees"].as_f64().unwrap();
        let between: Between = serde_json::from_value(case["between"].clone()).unwrap();
        let (count, most) = off(&apply(&[rotate(degrees, between)], &formula(17, 12)), &case["pixels"]);
        let allowed = if between == Between::Bilinear { 1 } else { 0 };
        assert!(most <= allowed, "{degrees}°, {between:?}: {count} pixels are off, by up to {most}");
    }
}

/// A quarter of a turn of a square is a transposition and a mirror, to the pixel, however pixels are guessed.
#[test]
fn a_quarter_of_a_turn_is_exact() {
    for (size, channels) in [(7, 3), (8, 1)] {
        let image = gradient(size, size, channels);
        let mut turned = image.clone();
        for (y, x, c) in (0..size).flat_map(|y| (0..size).flat_map(move |x| (0..channels).map(move |c| (y, x, c)))) {
            turned.pixels[((size - 1 - x) * size + y) * channels + c] = image.pixels[(y * size + x) * channels + c];
        }
        for between in [Between::Nearest, Between::Bilinear] {
            assert_eq!(apply(&[rotate(90.0, between)], &image), turned);
            assert_eq!(apply(&vec![rotate(-90.0, between); 4], &image), image);
            assert_eq!(apply(&vec![rotate(90.0, between); 3], &image), apply(&[rotate(-90.0, between)], &image));
        }
    }
}

#[test]
fn angles_are_drawn_within_their_bounds() {
    // A point right of the middle, turned by 0 to 90 degrees, stays in the upper right quarter.
    let mut dot = Image::new(21, 21, 1, vec![0; 441]);
    dot.pixels[10 * 21 + 18] = 255;
    let mut rng = Seed(1).rng();
    let transform = Transform::Rotate { degrees: [0.0, 90.0], between: Between::Bilinear, fill: [0; 3] };
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let turned = apply_with(std::slice::from_ref(&transform), None, &dot, &mut rng).unwrap();
        let brightest = (0..441).max_by_key(|&at| turned.pixels[at]).unwrap();
        assert!(brightest / 21 <= 10 && brightest % 21 >= 10);
        places.insert(brightest);
    }
    assert!(places.len() > 10, "{places:?}");
}

/// Only this step, by this factor.
fn jitter(step: &str, factor: f64) -> Vec<Transform> {
    serde_json::from_value(serde_json::json!([{ "colour_jitter": { step: [factor, factor] } }])).unwrap()
}

fn colourful() -> Image {
    let golden = golden();
    Image::new(12, 17, 3, numbers(&golden["colourful"]).into_iter().map(|pixel| pixel as u8).collect())
}

#[test]
fn torchvision_recolours_alike() {
    let golden = golden();
    for case in golden["jitters"].as_array().unwrap() {
        let (step, factor) = (case["step"].as_str().unwrap(), case["factor"].as_f64().unwrap());
        let (count, most) = off(&apply(&jitter(step, factor), &colourful()), &case["pixels"]);
        // torchvision rounds the hue's pixels down.
        let allowed = if step == "hue" { 1 } else { 0 };
        assert!(most <= allowed, "{step} by {factor}: {count} pixels are off, by up to {most}");
    }
}

#[test]
fn factors_of_nothing_change_nothing() {
    let nothing: Vec<Transform> = serde_json::from_str(r#"[{"colour_jitter":{}}]"#).unwrap();
    assert_eq!(nothing, [augment::colour_jitter(0.0, 0.0, 0.0, 0.0)]);
    assert_eq!(apply(&nothing, &colourful()), colourful());
    // A full turn of the circle of colours, in four parts, within what rounding costs.
    let mut turned = colourful();
    (0..4).for_each(|_| turned = apply(&jitter("hue", 0.25), &turned));
    let distance = turned.pixels.iter().zip(&colourful().pixels).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(distance <= Some(4), "{distance:?}");
    let grey = formula_grey();
    for step in ["saturation", "hue"] {
        assert_eq!(apply(&jitter(step, 0.3), &grey), grey, "grey has no {step}");
    }
}

fn formula_grey() -> Image {
    Image::new(12, 17, 1, formula(17, 12).pixels.into_iter().step_by(3).collect())
}

#[test]
fn the_four_are_done_in_any_order() {
    // Half the brightness and twice the contrast are another picture the other way round.
    let both: Vec<Transform> = serde_json::from_str(r#"[{"colour_jitter":{"brightness":[0.5,0.5],"contrast":[2,2]}}]"#).unwrap();
    let [one, other] = [["brightness", "contrast"], ["contrast", "brightness"]]
        .map(|steps| steps.map(|step| jitter(step, if step == "contrast" { 2.0 } else { 0.5 })).concat())
        .map(|steps| apply(&steps, &colourful()));
    assert_ne!(one, other);
    let mut rng = Seed(2).rng();
    let drawn: Vec<Image> = (0..400).map(|_| apply_with(&both, None, &colourful(), &mut rng).unwrap()).collect();
    let first = drawn.iter().filter(|&image| *image == one).count();
    assert!((150..250).contains(&first), "{first} of 400 brightness first");
    assert!(drawn.iter().all(|image| *image == one || *image == other));
}

#[test]
fn ten_crops_are_those_of_torchvision() {
    let golden = &super::golden()["tencrop"];
    let transforms = augment::imagenet_ten_crop(224);
    assert_eq!(Augment::new(transforms.clone(), None).unwrap().views(), 10);
    let image = apply(&transforms, &formula(500, 375));
    assert_eq!([image.width, image.height], [224, 2240], "one below the other");
    for (view, pixels) in image.pixels.chunks(224 * 224 * 3).enumerate() {
        check_sums(&Image::new(224, 224, 3, pixels.to_vec()), &golden["crop_channel_sums"][view]);
        for (&found, wanted) in pixels.iter().zip(numbers(&golden["crop_first_pixel"][view])) {
            assert!(u64::from(found).abs_diff(wanted) <= 1, "view {view}");
        }
    }
}

#[test]
fn ten_crops_are_corners_and_the_middle() {
    let image = apply(&[Transform::TenCrop { size: 2 }], &counted(4, 5, 1));
    let views: Vec<&[u8]> = image.pixels.chunks(4).collect();
    let upright = [[1, 2, 6, 7], [4, 5, 9, 10], [11, 12, 16, 17], [14, 15, 19, 20], [8, 9, 13, 14]];
    assert_eq!(views[..5], upright);
    let mirrored = [[5, 4, 10, 9], [2, 1, 7, 6], [15, 14, 20, 19], [12, 11, 17, 16], [8, 7, 13, 12]];
    assert_eq!(views[5..], mirrored);
}

#[test]
fn numbers_of_the_later_steps_are_checked_too() {
    let check = |list: &str, want: &str| {
        let transforms: Vec<Transform> = serde_json::from_str(list).unwrap();
        assert_eq!(Augment::new(transforms, None).unwrap_err().to_string(), want);
    };
    check(r#"[{"rotate":{"degrees":[10,-10]}}]"#, "transforms[0].rotate.degrees: wanted -360 ≤ least ≤ largest ≤ 360, found [10, -10]");
    check(
        r#"[{"colour_jitter":{"brightness":[-1,1]}}]"#,
        "transforms[0].colour_jitter.brightness: wanted 0 ≤ least ≤ largest ≤ 100, found [-1, 1]",
    );
    check(r#"[{"colour_jitter":{"hue":[0,0.6]}}]"#, "transforms[0].colour_jitter.hue: wanted -0.5 ≤ least ≤ largest ≤ 0.5, found [0, 0.6]");
    check(r#"[{"ten_crop":{"size":4}},{"flip":{"p":0.5}}]"#, "transforms[0]: wanted ten_crop as the last step, found 1 after it");
    check(r#"[{"ten_crop":{"size":0}}]"#, "transforms[0].ten_crop.size: wanted 1 to 65535 pixels, found 0");
    let small = apply_with(&[Transform::TenCrop { size: 24 }], None, &gradient(20, 30, 3), &mut Seed(0).rng()).unwrap_err();
    assert_eq!(small.to_string(), "ten_crop: wanted a picture of at least 24×24 pixels, found 20×30");
}

proptest! {
    /// Turning by no angle changes nothing; turned by any, a picture has no colours but its own and what fills the corners.
    #[test]
    fn turning_keeps_what_it_turns(height in 1usize..20, width in 1usize..20, degrees in -180f64..180.0, channels in prop::sample::select(vec![1usize, 3])) {
        let image = gradient(height, width, channels);
        for between in [Between::Nearest, Between::Bilinear] {
            prop_assert_eq!(&apply(&[rotate(0.0, between)], &image), &image);
            let flat = Image::new(height, width, channels, vec![9; height * width * channels]);
            let fill = Transform::Rotate { degrees: [degrees; 2], between, fill: [9; 3] };
            prop_assert_eq!(&apply(&[fill], &flat), &flat);
        }
        let colours: std::collections::BTreeSet<&[u8]> = image.pixels.chunks(channels).chain([&[9, 8, 7][..channels]]).collect();
        let turned = apply(&[rotate(degrees, Between::Nearest)], &image);
        prop_assert!(turned.pixels.chunks(channels).all(|pixel| colours.contains(pixel)));
    }
}
