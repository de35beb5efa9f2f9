//! Picture to picture: sizes and pixels of the reference programs, and what must hold for every draw.

use datasets::{Image, Normalize, Rng, Seed};
use expect_test::{Expect, expect};
use fast_image_resize::images::{Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use pipeline::augment::normalize::Constants;
use pipeline::augment::{self, Augment, Scratch, Transform};
use pipeline::decode::Window;
use proptest::prelude::*;
use serde_json::Value;

use crate::decoding::gradient;

mod pixels;

/// The picture that the golden numbers were taken from.
fn formula(width: usize, height: usize) -> Image {
    let pixel = |x: usize, y: usize, c: usize| ((3 * x + 5 * y + 40 * c + (x * y) % 17) % 256) as u8;
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c)))).collect();
    Image::new(height, width, 3, pixels)
}

/// `image` after `transforms`, drawn from the seed 5.
pub(crate) fn apply(transforms: &[Transform], image: &Image) -> Image {
    apply_with(transforms, None, image, &mut Seed(5).rng()).unwrap()
}

fn apply_with(
    transforms: &[Transform],
    normalize: Option<&Normalize>,
    image: &Image,
    rng: &mut Rng,
) -> Result<Image, augment::AugmentError> {
    let mut image = image.clone();
    Augment::new(transforms.to_vec(), normalize).unwrap().apply(&mut image, rng, &mut Scratch::default())?;
    assert_eq!(image.pixels.len(), image.height * image.width * image.channels);
    Ok(image)
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/preprocess/pillow.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// The picture has these eight pixels and, over all, these channel sums, each pixel within one grey level.
#[track_caller]
fn check_pixels(image: &Image, pixels: &Value, sums: &Value) {
    for pixel in pixels.as_array().unwrap() {
        let [x, y, rgb @ ..] = &numbers(pixel)[..] else { unreachable!("x, y and three channels") };
        let at = (*y as usize * image.width + *x as usize) * 3;
        for (&found, &wanted) in image.pixels[at..at + 3].iter().zip(rgb) {
            assert!(u64::from(found).abs_diff(wanted) <= 1, "({x}, {y}): wanted {rgb:?}, found {:?}", &image.pixels[at..at + 3]);
        }
    }
    check_sums(image, sums);
}

/// Errors of one level that do not lean to one side leave the mean where it is.
#[track_caller]
fn check_sums(image: &Image, sums: &Value) {
    let area = (image.height * image.width) as f64;
    for (channel, wanted) in numbers(sums).into_iter().enumerate() {
        let found: u64 = image.pixels.iter().skip(channel).step_by(3).map(|&pixel| u64::from(pixel)).sum();
        let off = (found as f64 - wanted as f64) / area;
        assert!(off.abs() < 0.05, "channel {channel}: the mean is off by {off} levels");
    }
}

#[test]
fn resizing_agrees_with_pillow() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let ([in_w, in_h], [out_w, out_h]) = (sides(&case["in_wh"]), sides(&case["out_wh"]));
        let name = case["name"].as_str().unwrap();
        let transform = if name.contains("((") {
            Transform::ResizeTo { height: out_h, width: out_w }
        } else {
            Transform::Resize { shorter: out_w.min(out_h) }
        };
        let image = apply(&[transform], &formula(in_w, in_h));
        assert_eq!([image.width, image.height], [out_w, out_h], "{name}");
        check_pixels(&image, &case["pixels_x_y_rgb"], &case["channel_sums"]);
    }
}

fn sides(value: &Value) -> [usize; 2] {
    let sides = numbers(value);
    [sides[0] as usize, sides[1] as usize]
}

#[test]
fn the_centre_crop_is_the_fifth_of_ten() {
    let golden = &golden()["tencrop"];
    let image = apply(&augment::imagenet_eval(224), &formula(500, 375));
    assert_eq!([image.width, image.height], [224, 224]);
    check_sums(&image, &golden["crop_channel_sums"][4]);
    for (&found, wanted) in image.pixels[..3].iter().zip(numbers(&golden["crop_first_pixel"][4])) {
        assert!(u64::from(found).abs_diff(wanted) <= 1);
    }
    // Normalised, too: a level is 1 / (255 × 0.225) wide.
    let constants = Constants::ImageNet.resolve(None, 3).unwrap().unwrap();
    for (channel, wanted) in golden["normalized_first_pixel"][4].as_array().unwrap().iter().enumerate() {
        let found = (f32::from(image.pixels[channel]) / 255.0 - constants.mean[channel]) / constants.std[channel];
        assert!((f64::from(found) - wanted.as_f64().unwrap()).abs() < 0.02);
    }
}

/// Rows of one channel, as text.
fn text(image: &Image) -> String {
    let row = |row: &[u8]| row.iter().step_by(image.channels).map(|p| format!("{p:02}")).collect::<Vec<_>>().join(" ");
    image.pixels.chunks(image.width * image.channels).map(row).collect::<Vec<_>>().join("\n")
}

fn counted(height: usize, width: usize, channels: usize) -> Image {
    Image::new(height, width, channels, (0..height * width).flat_map(|at| vec![at as u8 + 1; channels]).collect())
}

#[track_caller]
fn check(transform: Transform, want: Expect) {
    let [grey, colour] = [1, 3].map(|channels| text(&apply(std::slice::from_ref(&transform), &counted(4, 5, channels))));
    assert_eq!(grey, colour, "each channel is moved alike");
    want.assert_eq(&grey);
}

#[test]
fn steps_do_what_they_say() {
    check(
        Transform::Flip { p: 1.0 },
        expect![[r#"
            05 04 03 02 01
            10 09 08 07 06
            15 14 13 12 11
            20 19 18 17 16"#]],
    );
    check(
        Transform::Flip { p: 0.0 },
        expect![[r#"
            01 02 03 04 05
            06 07 08 09 10
            11 12 13 14 15
            16 17 18 19 20"#]],
    );
    check(
        Transform::CentreCrop { size: 3 },
        expect![[r#"
            02 03 04
            07 08 09
            12 13 14"#]],
    );
    check(
        Transform::PadCrop { size: 5, pad: 2 },
        expect![[r#"
            00 00 00 00 00
            02 03 04 05 00
            07 08 09 10 00
            12 13 14 15 00
            17 18 19 20 00"#]],
    );
    check(
        Transform::Cutout { length: 2 },
        expect![[r#"
            01 02 00 00 05
            06 07 00 00 10
            11 12 13 14 15
            16 17 18 19 20"#]],
    );
    // Colours stay with their pixel.
    let rgb = Image::new(1, 2, 3, vec![1, 2, 3, 4, 5, 6]);
    assert_eq!(apply(&[Transform::Flip { p: 1.0 }], &rgb).pixels, [4, 5, 6, 1, 2, 3]);
}

#[test]
fn half_a_pixel_goes_to_the_even_side() {
    let left = |width: usize, size: usize| apply(&[Transform::CentreCrop { size }], &counted(size, width, 1)).pixels[0] - 1;
    assert_eq!([left(6, 1), left(4, 1), left(8, 1), left(10, 1), left(7, 1)], [2, 2, 4, 4, 3]);
}

#[test]
fn cutout_blanks_what_normalisation_takes_to_zero() {
    let image = Image::new(8, 8, 3, vec![255; 192]);
    for (constants, want) in [(Constants::None, [0, 0, 0]), (Constants::ImageNet, [124, 116, 104]), (Constants::Mnist, [33, 33, 33])] {
        let normalize = constants.resolve(None, 3).unwrap();
        let image = apply_with(&[Transform::Cutout { length: 4 }], normalize.as_ref(), &image, &mut Seed(1).rng()).unwrap();
        let blank: Vec<&[u8]> = image.pixels.chunks(3).filter(|pixel| *pixel != [255; 3]).collect();
        assert!(blank.iter().all(|pixel| *pixel == want), "{constants:?}: {blank:?}");
        assert!(!blank.is_empty());
    }
}

#[test]
fn cutout_is_a_square_clipped_at_the_border() {
    let mut sizes = std::collections::BTreeMap::new();
    let mut rng = Seed(3).rng();
    for _ in 0..4000 {
        let image = apply_with(&[Transform::Cutout { length: 4 }], None, &Image::new(6, 6, 1, vec![9; 36]), &mut rng).unwrap();
        *sizes.entry(image.pixels.iter().filter(|&&pixel| pixel == 0).count()).or_insert(0) += 1;
    }
    // A centre 0, 1, .. 5 leaves 2, 3, 4, 4, 4, 3 rows of six: products of two of these, as often as chance has it.
    expect!["{4: 124, 6: 446, 8: 665, 9: 424, 12: 1328, 16: 1013}"].assert_eq(&format!("{sizes:?}"));
}

#[test]
fn chances_are_as_published() {
    let mut rng = Seed(0).rng();
    let rgb = counted(2, 2, 1);
    let mirrored = (0..2000).filter(|_| apply_with(&[Transform::Flip { p: 0.3 }], None, &rgb, &mut rng).unwrap() != rgb).count();
    assert!((540..660).contains(&mirrored), "{mirrored} of 2000 at probability 0.3");

    // Each of the nine offsets of a crop padded by one is as likely as the others.
    let mut offsets = std::collections::BTreeMap::new();
    for _ in 0..1800 {
        let image = apply_with(&[Transform::PadCrop { size: 2, pad: 1 }], None, &rgb, &mut rng).unwrap();
        *offsets.entry(image.pixels).or_insert(0) += 1;
    }
    assert_eq!(offsets.len(), 9);
    assert!(offsets.values().all(|count| (150..250).contains(count)), "{offsets:?}");
}

#[test]
fn a_list_reads_as_the_data_flows() {
    let list = r#"[{"resize":{"shorter":40}},{"pad_crop":{"size":32,"pad":4}},{"flip":{"p":0.5}},{"cutout":{"length":8}}]"#;
    let transforms: Vec<Transform> = serde_json::from_str(list).unwrap();
    assert_eq!(serde_json::to_string(&transforms).unwrap(), list);
    let published: Vec<Transform> = serde_json::from_str(r#"[{"random_resized_crop":{"size":224}},{"flip":{"p":0.5}}]"#).unwrap();
    assert_eq!(published, augment::imagenet_train(224));
    let image = apply(&transforms, &gradient(60, 50, 3));
    assert_eq!((image.height, image.width), (32, 32));
    assert_eq!(image, apply(&transforms, &gradient(60, 50, 3)), "the same seed, the same picture");
}

#[test]
fn numbers_that_make_no_sense_are_refused_by_name() {
    let check =
        |transform, want: Expect| want.assert_eq(&Augment::new(vec![Transform::Flip { p: 0.5 }, transform], None).unwrap_err().to_string());
    check(Transform::Flip { p: 1.5 }, expect!["transforms[1].flip.p: wanted a probability, 0 to 1, found 1.5"]);
    check(Transform::Flip { p: f64::NAN }, expect!["transforms[1].flip.p: wanted a probability, 0 to 1, found NaN"]);
    check(Transform::CentreCrop { size: 0 }, expect!["transforms[1].centre_crop.size: wanted 1 to 65535 pixels, found 0"]);
    check(Transform::PadCrop { size: 4, pad: 4 }, expect!["transforms[1].pad_crop.pad: wanted less than the size of 4, found 4"]);
    check(Transform::Cutout { length: 1 }, expect!["transforms[1].cutout.length: wanted at least 2 pixels, found 1"]);
    check(
        Transform::RandomResizedCrop { size: 9, area: [0.5, 0.1], ratio: [1.0, 1.0] },
        expect!["transforms[1].random_resized_crop.area: wanted 0 < least ≤ largest ≤ 1, found [0.5, 0.1]"],
    );
    check(
        Transform::RandomResizedCrop { size: 9, area: [0.5, 1.5], ratio: [1.0, 1.0] },
        expect!["transforms[1].random_resized_crop.area: wanted 0 < least ≤ largest ≤ 1, found [0.5, 1.5]"],
    );
    check(
        Transform::RandomResizedCrop { size: 9, area: [0.5, 1.0], ratio: [0.0, 1.0] },
        expect!["transforms[1].random_resized_crop.ratio: wanted 0 < least ≤ largest ≤ 100, found [0, 1]"],
    );
    let error = serde_json::from_str::<Transform>(r#"{"flip":{"p":0.5,"q":1}}"#).unwrap_err();
    expect!["unknown field `q`, expected `p` at line 1 column 20"].assert_eq(&error.to_string());
}

#[test]
fn pictures_that_do_not_fit_are_refused_by_size() {
    let check = |transform, want: Expect| {
        want.assert_eq(&apply_with(&[transform], None, &gradient(20, 30, 3), &mut Seed(0).rng()).unwrap_err().to_string());
    };
    check(Transform::CentreCrop { size: 24 }, expect!["centre_crop: wanted a picture of at least 24×24 pixels, found 20×30"]);
    check(Transform::PadCrop { size: 32, pad: 4 }, expect!["pad_crop: wanted a picture of at least 24×24 pixels, found 20×30"]);
    check(
        Transform::Resize { shorter: 60_000 },
        expect!["resize: wanted at most 65535 pixels on the longer side, 20×30 would become 90000"],
    );
}

#[test]
fn constants_fit_the_channels() {
    assert_eq!(Constants::Mnist.resolve(None, 3).unwrap(), Some(Normalize { mean: vec![0.1307; 3], std: vec![0.3081; 3] }));
    assert_eq!(Constants::None.resolve(None, 3).unwrap(), None);
    let own = Normalize { mean: vec![0.5], std: vec![0.25] };
    assert_eq!(Constants::Store.resolve(Some(&own), 1).unwrap(), Some(own));
    let check = |constants: Constants, channels, want: Expect| want.assert_eq(&constants.resolve(None, channels).unwrap_err().to_string());
    check(
        Constants::Store,
        3,
        expect!["normalize: wanted a store with means and deviations, or constants by name (`none`, `imagenet`), found a store without"],
    );
    check(Constants::ImageNet, 1, expect!["normalize.mean: wanted a number a channel (1), found 3 numbers"]);
    check(Constants::Given(Normalize { mean: vec![0.5], std: vec![0.0] }), 1, expect!["normalize.std: wanted positive numbers, found 0"]);
    assert_eq!(serde_json::to_string(&Constants::ImageNet).unwrap(), r#""imagenet""#);
    assert_eq!(serde_json::from_str::<Constants>(r#""cifar10_compat""#).unwrap(), Constants::Cifar10Compat);
}

proptest! {
    /// A grey picture stays the same whatever part of it is taken; and no part has other colours than the whole.
    #[test]
    fn a_random_resized_crop_stays_within_the_picture(
        height in 1usize..60, width in 1usize..60, size in 1usize..40, low in 0.01f64..1.0, seed: u64, channels in prop::sample::select(vec![1usize, 3]),
    ) {
        let crop = Transform::RandomResizedCrop { size, area: [low, 1.0], ratio: [0.75, 4.0 / 3.0] };
        let run = |image: &Image| apply_with(std::slice::from_ref(&crop), None, image, &mut Seed(seed).rng()).unwrap();
        let grey = run(&Image::new(height, width, channels, vec![77; height * width * channels]));
        prop_assert_eq!((grey.height, grey.width), (size, size));
        prop_assert!(grey.pixels.iter().all(|&pixel| pixel == 77));
        let whole = gradient(height, width, channels);
        let part = run(&whole);
        prop_assert!(part.pixels.iter().max() <= whole.pixels.iter().max() && part.pixels.iter().min() >= whole.pixels.iter().min());
    }

    /// Resized by another program, with the same numbers.
    #[test]
    fn resizing_agrees_with_a_library(
        from in (1usize..120, 1usize..120), to in (1usize..90, 1usize..90), channels in prop::sample::select(vec![1usize, 3]), seed: u64,
    ) {
        let (kind, mut rng) = (if channels == 1 { PixelType::U8 } else { PixelType::U8x3 }, Seed(seed).rng());
        let pixels: Vec<u8> = (0..from.0 * from.1 * channels).map(|_| rng.bits() as u8).collect();
        let source = ImageRef::new(from.1 as u32, from.0 as u32, &pixels, kind).unwrap();
        let mut wanted = Target::new(to.1 as u32, to.0 as u32, kind);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new().resize(&source, &mut wanted, &options).unwrap();
        let found = apply(&[Transform::ResizeTo { height: to.0, width: to.1 }], &Image::new(from.0, from.1, channels, pixels));
        prop_assert_eq!((found.height, found.width), to);
        prop_assert!(found.pixels == wanted.buffer());
    }

    /// Only the middle of a resize is made, from the pixels that it needs; it is what would be cut out of all of it.
    #[test]
    fn the_middle_of_a_resize_is_as_cut_from_the_whole(
        height in 1usize..90, width in 1usize..90, shorter in 1usize..60, size in 1usize..60, channels in prop::sample::select(vec![1usize, 3]), seed: u64,
    ) {
        prop_assume!(size <= shorter);
        let mut rng = Seed(seed).rng();
        let image = Image::new(height, width, channels, (0..height * width * channels).map(|_| rng.bits() as u8).collect());
        let steps = [Transform::Resize { shorter }, Transform::CentreCrop { size }];
        let wanted = apply(&steps[1..], &apply(&steps[..1], &image));
        prop_assert!(apply(&steps, &image) == wanted);

        // As a decoder leaves it that decodes no more.
        let augment = Augment::new(steps.to_vec(), None).unwrap();
        let window = augment.part([height, width], &mut rng);
        let rows = image.pixels.chunks(width * channels).skip(window.top).take(window.height);
        let pixels = rows.flat_map(|row| &row[window.left * channels..][..window.width * channels]).copied().collect();
        let mut part = Image::new(window.height, window.width, channels, pixels);
        let place = ([height, width], Window { top: 0, left: 0, ..window });
        augment.apply_to(place, &mut part, &mut rng, &mut Scratch::default()).unwrap();
        prop_assert!(part == wanted);
    }

    #[test]
    fn a_padded_crop_is_a_part_of_the_padded_picture(height in 1usize..9, width in 1usize..9, size in 1usize..9, pad in 0usize..9, seed: u64) {
        prop_assume!(pad < size && height + 2 * pad >= size && width + 2 * pad >= size);
        let image = counted(height, width, 3);
        let crop = apply_with(&[Transform::PadCrop { size, pad }], None, &image, &mut Seed(seed).rng()).unwrap();
        let padded = |y: isize, x: isize| {
            let (y, x) = (usize::try_from(y - pad as isize).ok(), usize::try_from(x - pad as isize).ok());
            let inside = y.zip(x).filter(|&(y, x)| y < height && x < width);
            inside.map_or([0; 3], |(y, x)| [image.pixels[(y * width + x) * 3]; 3])
        };
        let matches = |top: usize, left: usize| {
            crop.pixels.chunks(3).enumerate().all(|(at, pixel)| pixel == padded((top + at / size) as isize, (left + at % size) as isize))
        };
        let places = (0..=height + 2 * pad - size).flat_map(|top| (0..=width + 2 * pad - size).map(move |left| (top, left)));
        prop_assert!(places.into_iter().any(|(top, left)| matches(top, left)));
    }
}
