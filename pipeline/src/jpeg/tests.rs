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
    decode_by(decoder, bytes, &[], window)
}

fn decode_by(decoder: &mut Decoder, bytes: &[u8], index: &[u8], window: impl Fn([usize; 2]) -> Window) -> Option<Image> {
    let mut image = Image { height: 0, width: 0, channels: 0, pixels: Vec::new() };
    let size = decoder.open(bytes)?;
    // As `decode` does it: bytes that cannot be so many pixels are refused.
    if size[0] * size[1] > 512 * bytes.len() {
        return None;
    }
    decoder.decode(bytes, index, window(size), &mut image)?;
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
            assert!(part.pixels == cut(&whole, window), "{name}: {window:?}");
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

/// The pixels of a window of `whole`.
fn cut(whole: &Image, window: Window) -> Vec<u8> {
    let rows = whole.pixels.chunks(whole.width * whole.channels).skip(window.top).take(window.height);
    rows.flat_map(|row| &row[window.left * whole.channels..(window.left + window.width) * whole.channels]).copied().collect()
}

#[test]
fn a_window_found_by_an_index_is_that_part_of_the_whole() {
    let (mut decoder, mut rng) = (Decoder::default(), Seed(2).rng());
    let mut indexed = 0;
    for (name, bytes) in files() {
        let whole = decode(&mut decoder, &bytes, Window::whole).unwrap();
        for every in 1..4 {
            decoder.open(&bytes).unwrap();
            let Some(index) = decoder.index_every(every, &bytes) else { continue };
            indexed += 1;
            for _ in 0..100 {
                let window = some_window([whole.height, whole.width], &mut rng);
                let part = decode_by(&mut decoder, &bytes, &index, |_| window).unwrap();
                assert!(part.pixels == cut(&whole, window), "{name}: {window:?} of an index of every {every}");
                assert!(!decoder.index.points.is_empty(), "{name}: the index was of no use");
            }
        }
    }
    assert!(indexed > 12, "{indexed} indices of files without restart markers");
}

#[test]
fn an_index_lets_a_window_do_without_what_lies_above_it() {
    let mut decoder = Decoder::default();
    let mut spared = 0;
    for (name, bytes) in files() {
        let whole = decode(&mut decoder, &bytes, Window::whole).unwrap();
        let Some(index) = decoder.open(&bytes).and_then(|_| decoder.index_every(1, &bytes)) else { continue };
        let grid = Grid::new(&decoder.header, Window::whole([whole.height, whole.width]));
        decoder.index.read(&index, bytes.len(), grid.down).unwrap();
        let last = decoder.index.points[grid.down - 1].bit / 8;
        if grid.down < 2 || grid.blocks[0] > 1 || last < 2 {
            continue;
        }
        let mut broken = bytes.clone();
        broken[decoder.header.scan..][..last - 1].fill(0);
        let window = Window { top: whole.height - 1, left: 0, height: 1, width: whole.width };
        let part = decode_by(&mut decoder, &broken, &index, |_| window).unwrap();
        assert!(part.pixels == cut(&whole, window), "{name}");
        spared += 1;
    }
    assert!(spared > 2, "{spared} files");
}

#[test]
fn a_damaged_index_changes_nothing_and_a_forged_one_does_no_harm() {
    let (mut decoder, mut rng) = (Decoder::default(), Seed(3).rng());
    for (name, bytes) in files() {
        let whole = decode(&mut decoder, &bytes, Window::whole).unwrap();
        let size = [whole.height, whole.width];
        let Some(index) = decoder.open(&bytes).and_then(|_| decoder.index_every(1, &bytes)) else { continue };
        for _ in 0..100 {
            let mut damaged = index.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(damaged.len());
                damaged[at] ^= 1 << rng.below(8);
            }
            damaged.truncate(damaged.len() - rng.below(3).saturating_sub(1) * rng.below(damaged.len()));
            let window = some_window(size, &mut rng);
            let part = decode_by(&mut decoder, &bytes, &damaged, |_| window).unwrap();
            assert!(part.pixels == cut(&whole, window) || damaged == index, "{name}: {window:?}");
        }
        for _ in 0..100 {
            let point = |_| Point { bit: rng.below(8 * bytes.len()), means: [0; 3].map(|_: i32| rng.bits() as i32) };
            let mut points: Vec<Point> = (0..1 + whole.height / 8).map(point).collect();
            points.sort_by_key(|point| point.bit);
            points[0] = Point::default();
            let forged = Index { every: 1 + rng.below(3), points }.write(bytes.len());
            let window = some_window(size, &mut rng);
            // Whatever it is.
            let _ = decode_by(&mut decoder, &bytes, &forged, |_| window);
        }
    }
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
