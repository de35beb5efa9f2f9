//! Bytes to a picture: what is decoded, what is refused, and that any bytes end in one or the other.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datasets::{Image, Seed};
use expect_test::{Expect, expect};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pipeline::decode;
use pipeline::store::Encoding;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// A picture that changes slowly, so that JPEG keeps it nearly, and is nowhere symmetric.
pub(crate) fn gradient(height: usize, width: usize, channels: usize) -> Image {
    let pixel = |y: usize, x: usize, c: usize| (y * 150 / height + x * 70 / width + c * 15) as u8;
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| pixel(y, x, c)))).collect();
    Image::new(height, width, channels, pixels)
}

fn colour(image: &Image) -> ExtendedColorType {
    if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 }
}

pub(crate) fn jpeg(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(&image.pixels, image.width as u32, image.height as u32, colour(image))
        .unwrap();
    bytes
}

fn png(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&image.pixels, image.width as u32, image.height as u32, colour(image)).unwrap();
    bytes
}

#[test]
fn png_and_raw_are_exact_and_jpeg_is_near() {
    for channels in [1, 3] {
        let image = gradient(13, 21, channels);
        let raw = Encoding::Raw { height: 13, width: 21, channels: channels as u8 };
        assert_eq!(decode::image(raw, &image.pixels).unwrap(), image);
        assert_eq!(decode::image(Encoding::Png, &png(&image)).unwrap(), image);
        let near = decode::image(Encoding::Jpeg, &jpeg(&image)).unwrap();
        assert_eq!((near.height, near.width, near.channels), (13, 21, channels));
        let worst = near.pixels.iter().zip(&image.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst < Some(8), "JPEG at quality 95 is off by {worst:?}");
    }
}

#[test]
fn jpegs_are_decoded_as_by_libjpeg_turbo() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/decoding/pillow.json")).unwrap();
    let mut decoder = decode::Decoder::default();
    let mut image = Image::new(0, 0, 1, Vec::new());
    for case in golden["cases"].as_array().unwrap() {
        decoder.decode(Encoding::Jpeg, &BASE64_STANDARD.decode(case["jpeg"].as_str().unwrap()).unwrap(), &mut image).unwrap();
        assert_eq!(serde_json::json!([image.height, image.width, image.channels]), case["shape"], "{}", case["name"]);
        let digest: String = Sha256::digest(&image.pixels).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, case["sha256"].as_str().unwrap(), "{}", case["name"]);
    }
}

#[test]
fn png_of_other_kinds_becomes_8_bits_without_alpha() {
    let encode = |pixels: &[u8], colour| {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(pixels, 2, 1, colour).unwrap();
        decode::image(Encoding::Png, &bytes).unwrap()
    };
    assert_eq!(encode(&[1, 2, 3, 0, 4, 5, 6, 255], ExtendedColorType::Rgba8), Image::new(1, 2, 3, vec![1, 2, 3, 4, 5, 6]));
    assert_eq!(encode(&[9, 0, 8, 255], ExtendedColorType::La8), Image::new(1, 2, 1, vec![9, 8]));
    let sixteen: Vec<u8> = [0x1212u16, 0xfefe].iter().flat_map(|v| v.to_ne_bytes()).collect();
    assert_eq!(encode(&sixteen, ExtendedColorType::L16), Image::new(1, 2, 1, vec![0x12, 0xfe]));
}

/// Changes one byte of the frame header: the one `offset` bytes after its marker.
fn patched(mut bytes: Vec<u8>, offset: usize, with: &[u8]) -> Vec<u8> {
    let frame = bytes.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
    bytes[frame + offset..frame + offset + with.len()].copy_from_slice(with);
    bytes
}

/// A picture that makes a JPEG consist mostly of coded pixels.
fn noise(height: usize, width: usize) -> Image {
    let mut rng = Seed(2).rng();
    Image::new(height, width, 3, (0..height * width * 3).map(|_| rng.bits() as u8).collect())
}

/// Why these bytes are refused: the error and its causes.
#[track_caller]
fn refusal(encoding: Encoding, bytes: &[u8]) -> String {
    let error = decode::image(encoding, bytes).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[track_caller]
fn check_refused(encoding: Encoding, bytes: &[u8], want: Expect) {
    want.assert_eq(&refusal(encoding, bytes));
}

#[test]
fn what_is_no_picture_says_why() {
    // How long it is, is the encoder's affair.
    let good = jpeg(&noise(40, 40));
    check_refused(Encoding::Jpeg, b"", expect!["JPEG: I/O errors Not enough bytes, expected 2 but found 0"]);
    check_refused(Encoding::Jpeg, b"GIF89a..", expect!["JPEG: Error parsing image. Illegal start bytes:4749"]);
    for length in [good.len() / 2, good.len() - 2] {
        let want = format!("cut short: {length} bytes without an end marker");
        assert_eq!(refusal(Encoding::Jpeg, &good[..length]), want);
    }
    let want = format!("the header says 16383×16383 pixels, more than {} bytes can hold", good.len());
    assert_eq!(refusal(Encoding::Jpeg, &patched(good.clone(), 5, &[0x3f, 0xff, 0x3f, 0xff])), want);
    check_refused(
        Encoding::Jpeg,
        include_bytes!("../golden/decoding/cmyk.jpg"),
        expect!["4 channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)"],
    );
    check_refused(Encoding::Png, b"\x89PNG", expect!["PNG: unexpected end of file"]);
    check_refused(Encoding::Png, &png(&noise(40, 40))[..100], expect!["PNG: unexpected end of file"]);
    check_refused(
        Encoding::Raw { height: 4, width: 5, channels: 3 },
        &[0; 59],
        expect!["4×5 pixels of 3 channels: wanted 60 bytes, found 59"],
    );
    check_refused(
        Encoding::Raw { height: 2, width: 2, channels: 4 },
        &[0; 16],
        expect!["4 channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)"],
    );
    check_refused(Encoding::Raw { height: 0, width: 2, channels: 1 }, &[], expect!["0×2 pixels: wanted at least one"]);
    check_refused(
        Encoding::Raw { height: u32::MAX, width: u32::MAX, channels: 3 },
        &[0; 3],
        expect!["4294967295×4294967295 pixels of 3 channels: wanted 55340232195358851075 bytes, found 3"],
    );
}

#[test]
fn a_progressive_picture_is_decoded() {
    let image = decode::image(Encoding::Jpeg, include_bytes!("../golden/decoding/progressive.jpg")).unwrap();
    assert_eq!((image.height, image.width, image.channels), (48, 64, 3));
    let want = gradient(48, 64, 3);
    let worst = image.pixels.iter().zip(&want.pixels).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst < Some(8), "off by {worst:?}");
}

/// Any outcome is right but a panic, or a picture of another size than its bytes.
fn survive(bytes: &[u8]) {
    let raw = Encoding::Raw { height: 3, width: 5, channels: 3 };
    for encoding in [Encoding::Jpeg, Encoding::Png, raw] {
        if let Ok(image) = decode::image(encoding, bytes) {
            assert_eq!(image.pixels.len(), image.height * image.width * image.channels);
            assert!(image.pixels.len() <= 3 * 1032 * bytes.len(), "{} pixels of {} bytes", image.pixels.len(), bytes.len());
        }
    }
}

#[test]
fn no_truncation_panics() {
    for bytes in [
        jpeg(&gradient(17, 9, 3)),
        jpeg(&gradient(8, 8, 1)),
        png(&gradient(17, 9, 3)),
        include_bytes!("../golden/decoding/progressive.jpg").to_vec(),
    ] {
        (0..bytes.len()).for_each(|end| survive(&bytes[..end]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_flipped_bits_panic(which in 0usize..4, flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6)) {
        let mut bytes = match which {
            0 => jpeg(&gradient(33, 20, 3)),
            1 => jpeg(&gradient(16, 16, 1)),
            2 => png(&gradient(16, 16, 3)),
            _ => include_bytes!("../golden/decoding/progressive.jpg").to_vec(),
        };
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        survive(&bytes);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), head in prop::sample::select(vec![&b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b""])) {
        survive(&[head, &bytes].concat());
    }
}
