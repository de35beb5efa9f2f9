//! Any window is that part of the whole, and any bytes are a picture or none.
#![allow(clippy::unwrap_used, reason = "a test may")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datasets::{Rng, Seed};
use serde_json::Value;

use super::*;

/// Files of all kinds of sampling, sizes that are no multiple of a block, restart markers; see their folder.
fn files() -> Vec<(String, Vec<u8>)> {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/decoding/pillow.json")).unwrap();
    let text = |case: &Value, field: &str| case[field].as_str().unwrap().to_owned();
    golden["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| (text(case, "name"), BASE64_STANDARD.decode(text(case, "jpeg")).unwrap()))
        .collect()
}

fn decode(decoder: &mut Decoder, bytes: &[u8], window: impl Fn([usize; 2]) -> Window) -> Option<Image> {
    let mut image = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };
    let size = decoder.open(bytes)?;
    // As `decode` does it: bytes that cannot be so many pixels are refused.
    if size[0] * size[1] > 512 * bytes.len() {
        return None;
    }
    decoder.decode(bytes, window(size), &mut image)?;
    Some(image)
}

fn some_window([height, width]: [usize; 2], rng: &mut Rng) -> Window {
    let (top, left) = (rng.below(height), rng.below(width));
    Window { top, left, height: 1 + rng.below(height - top), width: 1 + rng.below(width - left) }
}

#[test]
fn a_window_is_that_part_of_the_whole() {
    let (mut decoder, mut rng) = (Decoder::default(), Seed(0).rng());
    for (name, bytes) in files() {
        let whole = decode(&mut decoder, &bytes, Window::whole).unwrap();
        for _ in 0..200 {
            let window = some_window([whole.height, whole.width], &mut rng);
            let part = decode(&mut decoder, &bytes, |_| window).unwrap();
            let rows = whole.pixels.chunks(whole.width * whole.channels).skip(window.top).take(window.height);
            let columns = window.left * whole.channels..(window.left + window.width) * whole.channels;
            assert!(part.pixels.iter().eq(rows.flat_map(|row| &row[columns.clone()])), "{name}: {window:?}");
        }
    }
}

#[test]
fn any_bytes_are_a_picture_or_none() {
    let (mut decoder, mut rng) = (Decoder::default(), Seed(1).rng());
    let (mut pictures, mut none) = (0, 0);
    for (_, bytes) in files() {
        for _ in 0..200 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
            bytes.truncate(bytes.len() - rng.below(9).saturating_sub(4) * bytes.len() / 5);
            let seed = rng.bits();
            match decode(&mut decoder, &bytes, |size| some_window(size, &mut Seed(seed).rng())) {
                Some(image) => assert_eq!(image.pixels.len(), image.height * image.width * image.channels),
                None => none += 1,
            }
            pictures += 1;
        }
    }
    assert!(none > pictures / 10 && none < pictures, "{none} of {pictures} were seen to be damaged");
}

/// What a file does not say itself is not taken from the file before.
#[test]
fn a_file_without_its_tables_is_none() {
    let mut decoder = Decoder::default();
    for (name, bytes) in files() {
        assert!(decode(&mut decoder, &bytes, Window::whole).is_some(), "{name}");
        for tables in [0xc4, 0xdb] {
            let (mut less, mut at) = (bytes[..2].to_vec(), 2);
            while bytes[at + 1] != 0xda {
                let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
                if bytes[at + 1] != tables {
                    less.extend_from_slice(&bytes[at..end]);
                }
                at = end;
            }
            less.extend_from_slice(&bytes[at..]);
            assert!(decode(&mut decoder, &less, Window::whole).is_none(), "{name} without {tables:x}");
        }
    }
}

/// Before a marker there may be any number of `0xff`, even where pixels should begin.
#[test]
fn bytes_that_fill_are_no_pixels() {
    let mut scan = Scan::default();
    assert!(scan.fill(&[0xff, 0xff, 0xff, 0xd9]).is_some());
    assert!(scan.fill(&[0xff, 0xff, 0xff]).is_none());
}
