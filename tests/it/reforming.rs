//! What a conversion makes of pictures: looks at them without decoding, turns, reduces and rewrites them where it is told to.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datasets::{Image, Picture, Sample, Seed, Values};
use expect_test::{Expect, expect};
use pipeline::augment::{self, normalize::Constants};
use pipeline::convert::{Check, Options, Report};
use pipeline::loader::Config;
use pipeline::store::{Form, Resize};
use pipeline::{Encoding, Loader, Store, decode, inspect, verify};
use serde_json::Value;

use crate::converting::{self, Memory, dump, encoded, noise, options};
use crate::decoding::{gradient, jpeg};
use crate::golden;

fn base(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn file(name: &str, bytes: Vec<u8>) -> Sample {
    Sample { picture: Picture::Encoded(bytes), label: 0, name: name.to_owned() }
}

/// The pixels that Pillow makes of a golden file.
fn pillow(value: &Value) -> Image {
    let side = |name: &str| value[name].as_u64().unwrap() as usize;
    Image::new(side("height"), side("width"), 3, base(&value["rgb"]))
}

/// Converts these files, checks the store against itself, and gives the report and the decoded pictures.
fn reform(files: Vec<Sample>, options: &Options) -> (Report, Vec<Image>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let report = pipeline::convert::convert(&Memory::new(vec![("train", files)]), &path, options, &mut |_| {}).unwrap();
    let verified = verify::verify(&Store::open(&path).unwrap(), &mut |_| {}).unwrap();
    assert!(verified.is_good(), "{verified}");
    let images = dump(&path).1.into_iter().map(|(_, encoding, bytes)| decode::image(encoding, &bytes).unwrap()).collect();
    (report, images)
}

fn with(form: Form) -> Options {
    Options { form, ..options(2) }
}

/// How far the pixels are apart at most.
fn apart(a: &Image, b: &Image) -> u8 {
    assert_eq!((a.height, a.width, a.channels), (b.height, b.width, b.channels));
    a.pixels.iter().zip(&b.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn files_of_every_kind_are_told_by_their_headers() {
    let golden = golden::json("converting/pictures.json");
    let progressive = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/decoding/progressive.jpg")).unwrap();
    let files = [
        ("progressive", progressive),
        ("turned", base(&golden["turned"][5]["file"])),
        ("deep", base(&golden["deep.png"])),
        ("profiled", base(&golden["profiled.jpg"])),
        ("restarting", base(&golden["restarting.jpg"])),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    // Two hundred more, so that most are not decoded.
    let files = files.into_iter().map(|(name, bytes)| file(name, bytes)).chain(encoded(noise(200, 8, 8, 1, 1), image::ImageFormat::Png));
    let data = Memory::new(vec![("val", noise(1, 8, 8, 1, 1)), ("test", files.collect())]);
    converting::convert(&data, &path);
    let store = Store::open(&path).unwrap();
    assert!(verify::verify(&store, &mut |_| {}).unwrap().is_good());
    let text = inspect::inspect(&store).to_string();
    expect![[r#"
        test: 205 pictures
          encoding 4 JPEG, 201 PNG, 201 of them grey
          height   4 to 48 px, median 8
          width    8 to 64 px, median 8
          labels   24 19 20 15 21 21 22 24 23 16
          size     31.8 kB
          noted    1 progressive, 1 turned by EXIF, 1 with ICC profile, 1 16-bit
          decoder  own for 3, general for 1 progressive (of 4 JPEG looked at)
    "#]]
    .assert_eq(text.split_once("\ntest").map(|(_, split)| format!("test{split}")).unwrap().as_str());
}

/// Files of every structure: one scan and several, grey and colour, with restart markers and without, with data before the pixels.
fn whole_files() -> Vec<Vec<u8>> {
    let golden = golden::json("converting/pictures.json");
    let progressive = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/decoding/progressive.jpg")).unwrap();
    let png = encoded(noise(1, 9, 7, 3, 1), image::ImageFormat::Png).remove(0);
    let Picture::Encoded(png) = png.picture else { panic!("a file") };
    let names = ["profiled.jpg", "restarting.jpg", "deep.png"].map(|name| base(&golden[name]));
    [vec![progressive, png, jpeg(&gradient(30, 41, 1)), jpeg(&gradient(30, 41, 3))], names.to_vec()].concat()
}

#[test]
fn a_file_that_was_cut_anywhere_is_left_out() {
    for whole in whole_files() {
        // Behind its pixels, a PNG has 16 bytes that a decoder does without.
        let end = whole.len() - if whole.starts_with(b"\x89PNG") { 16 } else { 0 };
        let cuts: Vec<usize> = (1..end).step_by(end / 150 + 1).chain([end - 2, end - 1]).collect();
        let mut files: Vec<_> = cuts.iter().map(|&cut| file(&format!("cut at {cut}"), whole[..cut].to_vec())).collect();
        files.push(file("whole", whole.clone()));
        // A training split would be decoded in part.
        let folder = tempfile::tempdir().unwrap();
        let report = converting::convert(&Memory::new(vec![("train", Vec::new()), ("test", files)]), &folder.path().join("a.lmdb"));
        assert_eq!((report.meta.skipped.len(), report.meta.splits[1].len), (cuts.len(), 1), "{:02x?}", &whole[..4]);
    }
}

#[test]
fn only_decoding_sees_wrong_bits() {
    let whole = jpeg(&gradient(64, 64, 3));
    let mut broken = whole.clone();
    let table = broken.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    // A table of more codes than there are.
    broken[table + 5..table + 21].fill(0xfe);
    assert!(decode::image(Encoding::Jpeg, &broken).is_err());
    let folder = tempfile::tempdir().unwrap();
    let data = || Memory::new(vec![("train", vec![file("whole", whole.clone())]), ("test", vec![file("broken", broken.clone())])]);
    let convert = |name: &str, check| {
        let path = folder.path().join(name);
        let report = pipeline::convert::convert(&data(), &path, &Options { check, ..options(1) }, &mut |_| {}).unwrap();
        (report.meta.skipped.len(), verify::verify(&Store::open(&path).unwrap(), &mut |_| {}).unwrap().bad.len())
    };
    assert_eq!(convert("header.lmdb", Check::Header), (0, 1));
    assert_eq!(convert("decode.lmdb", Check::Decode), (1, 0));
}

#[test]
fn what_the_headers_leave_in_doubt_is_decoded() {
    // Bytes between two segments: libjpeg warns and goes on.
    let whole = jpeg(&gradient(20, 30, 3));
    let tables = whole.windows(2).position(|pair| pair == [0xff, 0xc4]).unwrap();
    let doubtful = [&whole[..tables], &[0, 0, 0], &whole[tables..]].concat();
    let decodes = decode::image(Encoding::Jpeg, &doubtful).is_ok();
    let (report, _) = reform(vec![file("doubtful", doubtful)], &options(1));
    assert_eq!(report.meta.splits[0].len, usize::from(decodes));
}

#[test]
fn mean_and_deviation_of_many_files_are_measured_on_some() {
    let bright = |index: usize| Image::new(8, 8, 1, vec![if index.is_multiple_of(2) { 40 } else { 200 }; 64]);
    let files = |len| (0..len).map(|index| file("", jpeg(&bright(index)))).collect::<Vec<_>>();
    let measured = |len, options: &Options| {
        let meta = reform(files(len), options).0.meta;
        (meta.measured, format!("{:.2}", meta.normalize.unwrap().mean[0]))
    };
    assert_eq!(measured(20, &options(1)), (20, "0.47".to_owned()));
    let (some, mean) = measured(6401, &options(1));
    assert_eq!(some, 100);
    assert!((0.40..0.54).contains(&mean.parse::<f64>().unwrap()), "{mean}");
    assert_eq!(measured(6401, &options(3)).1, mean);
    assert_eq!(measured(500, &Options { check: Check::Decode, ..options(2) }), (500, "0.47".to_owned()));
}

#[test]
fn inks_become_rgb_as_pillow_has_it() {
    let golden = golden::json("converting/pictures.json");
    for name in ["cmyk", "ycck"] {
        let (report, images) = reform(vec![file(name, base(&golden[name]["file"]))], &options(1));
        assert_eq!(report.to_string(), "       1 rewritten  changed from CMYK to RGB\n");
        // Two decoders, and one more time through JPEG.
        let apart = apart(&images[0], &pillow(&golden[name]));
        assert!(apart <= 8, "{name}: {apart} grey levels");
        let (_, images) = reform(vec![file(name, base(&golden[name]["file"]))], &with(Form { raw: true, ..Form::default() }));
        let apart = self::apart(&images[0], &pillow(&golden[name]));
        assert!(apart <= 3, "{name} as pixels: {apart} grey levels");
    }
}

#[test]
fn upright_turns_as_exif_says_and_as_pillow_does() {
    let golden = golden::json("converting/pictures.json");
    let turned = golden["turned"].as_array().unwrap();
    let files = || turned.iter().enumerate().map(|(index, entry)| file(&index.to_string(), base(&entry["file"]))).collect::<Vec<_>>();
    let (report, images) = reform(files(), &with(Form { upright: true, raw: true, ..Form::default() }));
    for (entry, image) in turned.iter().zip(&images) {
        assert!(apart(image, &pillow(entry)) <= 3);
    }
    assert_eq!(report.to_string(), "       8 rewritten  decoded to pixels\n");
    let (report, images) = reform(files(), &with(Form { upright: true, ..Form::default() }));
    assert!(turned.iter().zip(&images).all(|(entry, image)| apart(image, &pillow(entry)) <= 8));
    assert_eq!(report.to_string(), "       7 rewritten  turned upright\n");
    assert_eq!(report.meta.pictures[0].turned, 0);
    // Without being told to, nothing is turned, and what lies turned is counted.
    let (report, images) = reform(files(), &options(1));
    assert!(images.iter().all(|image| (image.height, image.width) == (16, 24)));
    assert_eq!((report.to_string(), report.meta.pictures[0].turned), (String::new(), 7));
}

#[track_caller]
fn check_sizes(form: Form, want: Expect) {
    let sizes = [(30, 40), (40, 30), (16, 100), (16, 16), (8, 200)];
    let mut files: Vec<_> = sizes.iter().map(|&(height, width)| file("", jpeg(&gradient(height, width, 3)))).collect();
    files.push(file("", jpeg(&gradient(32, 48, 1))));
    files.extend(noise(1, 48, 64, 3, 1));
    let (report, images) = reform(files, &with(form));
    let sizes: Vec<_> = images.iter().map(|image| format!("{}x{}x{}", image.height, image.width, image.channels)).collect();
    let meta = report.meta;
    want.assert_eq(&format!("{}; {} raw, {} JPEG; {:?}", sizes.join(" "), meta.pictures[0].raw, meta.pictures[0].jpeg, meta.rewritten));
}

#[test]
fn larger_pictures_are_reduced_and_smaller_ones_stay() {
    let form = Form::default();
    check_sizes(
        Form { resize: Some(Resize::Shorter(16)), ..form },
        expect![[r#"16x21x3 21x16x3 16x100x3 16x16x3 8x200x3 16x24x1 16x21x3; 1 raw, 6 JPEG; {"reduced in size": 4}"#]],
    );
    check_sizes(
        Form { resize: Some(Resize::Longer(40)), ..form },
        expect![[r#"30x40x3 40x30x3 6x40x3 16x16x3 1x40x3 26x40x1 30x40x3; 1 raw, 6 JPEG; {"reduced in size": 4}"#]],
    );
    check_sizes(
        Form { resize: Some(Resize::Shorter(16)), raw: true, ..form },
        expect![[
            r#"16x21x3 21x16x3 16x100x3 16x16x3 8x200x3 16x24x1 16x21x3; 7 raw, 0 JPEG; {"decoded to pixels": 3, "reduced in size": 4}"#
        ]],
    );
}

#[test]
fn quality_is_paid_for_in_bytes() {
    let bytes = |quality| {
        let form = Form { resize: Some(Resize::Shorter(64)), quality, ..Form::default() };
        let (report, images) = reform(vec![file("", jpeg(&gradient(128, 128, 3)))], &with(form));
        assert!(apart(&images[0], &gradient(64, 64, 3)) < 30);
        report.meta.pictures[0].bytes
    };
    assert!(bytes(30) < bytes(75) && bytes(75) < bytes(98));
}

/// What real files are and have: every kind of sampling, some with EXIF data and profiles, some grey.
#[test]
fn real_pictures_pass_without_being_decoded() {
    for (name, archive) in [("ImageNet", "imagenet-sample-every10th"), ("TinyImageNet", "tiny-imagenet-200-train20-val10")] {
        let Some(unpacked) = crate::reading::unpacked(&format!("{archive}.tar.zst")) else { return };
        let folder = tempfile::tempdir().unwrap();
        let data = datasets::open(unpacked.path()).unwrap();
        let content = |check| {
            let path = folder.path().join(format!("{name} {check:?}"));
            pipeline::convert::convert(data.as_ref(), &path, &Options { check, ..options(2) }, &mut |_| {}).unwrap().meta
        };
        let (header, decode) = (content(Check::Header), content(Check::Decode));
        assert_eq!((&header.content, &header.pictures, header.skipped.len()), (&decode.content, &decode.pictures, 0));
        let (header, decode) = (header.normalize.unwrap().mean, decode.normalize.unwrap().mean);
        assert!(header.iter().zip(&decode).all(|(a, b)| (a - b).abs() < 0.06), "{name}: {header:?} for {decode:?}");
    }
}

#[test]
fn rows_are_indexed_and_no_pixel_changes() {
    let folder = tempfile::tempdir().unwrap();
    let data = Memory::new(vec![("train", encoded(noise(12, 300, 220, 3, 1), image::ImageFormat::Jpeg))]);
    let [plain, indexed] = [false, true].map(|indexed| {
        let path = folder.path().join(indexed.to_string());
        pipeline::convert::convert(&data, &path, &with(Form { indexed, ..Form::default() }), &mut |_| {}).unwrap();
        Store::open(path).unwrap()
    });
    assert_eq!([plain.meta().format, indexed.meta().format], [2, 3]);
    assert_eq!(plain.meta().content, indexed.meta().content);
    assert!(!serde_json::to_string(plain.meta()).unwrap().contains("indexed"), "a program that knows version 2 alone reads it");

    let reader = indexed.reader().unwrap();
    let index: usize = (0..12).map(|number| reader.record(0, number).unwrap().index.len()).sum();
    let bytes: usize = (0..12).map(|number| reader.record(0, number).unwrap().bytes.len()).sum();
    assert!(index > 12 * 20 && index < bytes / 200, "{index} bytes of indices for {bytes}");
    assert_eq!(dump(plain.path()).1, dump(indexed.path()).1);
    assert_eq!(crops(&plain), crops(&indexed));

    let damaged = reader.record(0, 5).unwrap().index.to_vec();
    let mut file = std::fs::read(indexed.path()).unwrap();
    let at = file.windows(damaged.len()).position(|window| window == damaged).unwrap();
    file[at + damaged.len() / 2] ^= 8;
    let path = folder.path().join("damaged");
    std::fs::write(&path, file).unwrap();
    let store = Store::open(path).unwrap();
    assert_eq!(crops(&plain), crops(&store));
    expect![[r#"
        split "train", record 5: index: not that of the file's rows
        12 records, 1 bad, 0 differences"#]]
    .assert_eq(&verify::verify(&store, &mut |_| {}).unwrap().to_string());
}

/// Random crops of all pictures.
fn crops(store: &Store) -> Vec<Values> {
    let config = Config { normalize: Constants::None, ..Config::train(5, augment::imagenet_train(64), Seed(0)) };
    let loader = Loader::new(store.clone(), config).unwrap();
    (0..4).flat_map(|epoch| loader.stream(epoch, 0)).map(|batch| batch.unwrap().values).collect()
}
