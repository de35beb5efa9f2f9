//! A data set becomes a store: the same on any number of threads, after any interruption, or not at all.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use datasets::{Dataset, Image, Info, Picture, Sample, Seed, Split};
use expect_test::{Expect, expect};
use lmdb::Transaction;
use pipeline::convert::{self, Check, Options, Report};
use pipeline::store::Form;
use pipeline::{Error, Store, inspect};
use sha2::{Digest, Sha256};

/// Samples in memory; a stand-in for any reader. It can break, as a disk does.
pub(crate) struct Memory {
    info: Info,
    samples: Vec<Vec<Sample>>,
    /// Samples that can be had before reading fails.
    pub(crate) left: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(splits: Vec<(&str, Vec<Sample>)>) -> Self {
        let classes = (0..10).map(|class| format!("class {class}")).collect();
        let info = |(name, samples): &(&str, Vec<Sample>)| Split { name: (*name).to_owned(), len: samples.len() };
        let info = Info { name: "memory".to_owned(), classes, splits: splits.iter().map(info).collect() };
        Self { info, samples: splits.into_iter().map(|(_, samples)| samples).collect(), left: AtomicUsize::new(usize::MAX) }
    }

    pub(crate) fn sample(&self, split: usize, index: usize) -> &Sample {
        &self.samples[split][index]
    }
}

impl Dataset for Memory {
    fn info(&self) -> &Info {
        &self.info
    }

    fn get(&self, split: usize, index: usize) -> datasets::Result<Sample> {
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            let source = std::io::Error::other("the cable is out");
            return Err(datasets::Error::Io { path: "/media/disk".into(), action: "read", source });
        }
        Ok(self.samples[split][index].clone())
    }
}

/// Pictures of random pixels.
pub(crate) fn noise(count: usize, height: usize, width: usize, channels: usize, seed: u64) -> Vec<Sample> {
    let picture = |index: usize| {
        let mut rng = Seed(seed).at(index as u64).rng();
        let label = rng.below(10) as u32;
        let pixels = (0..height * width * channels).map(|_| rng.bits() as u8).collect();
        Sample { picture: Picture::Raw(Image::new(height, width, channels, pixels)), label, name: format!("noise#{index}") }
    };
    (0..count).map(picture).collect()
}

/// The same samples as files of an encoding.
pub(crate) fn encoded(samples: Vec<Sample>, format: image::ImageFormat) -> Vec<Sample> {
    let encode = |sample: Sample| {
        let Picture::Raw(image) = &sample.picture else { panic!("pixels") };
        let color = if image.channels == 1 { image::ColorType::L8 } else { image::ColorType::Rgb8 };
        let mut file = std::io::Cursor::new(Vec::new());
        image::write_buffer_with_format(&mut file, &image.pixels, image.width as u32, image.height as u32, color, format).unwrap();
        Sample { picture: Picture::Encoded(file.into_inner()), name: sample.name.replace("noise", "file"), ..sample }
    };
    samples.into_iter().map(encode).collect()
}

pub(crate) fn options(threads: usize) -> Options {
    Options { threads: NonZeroUsize::new(threads).unwrap(), ..Options::new("memory") }
}

pub(crate) fn convert(dataset: &dyn Dataset, target: &Path) -> Report {
    convert::convert(dataset, target, &options(2), &mut |_| {}).unwrap()
}

/// An error as `pipeline` prints it, its folder's name taken out.
pub(crate) fn text(error: &dyn std::error::Error, folder: &Path) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source()).map(|cause| format!("\n  caused by: {cause}"));
    (error.to_string() + &causes.collect::<String>()).replace(&folder.display().to_string(), "DIR")
}

/// All records and the meta record.
pub(crate) fn dump(path: &Path) -> (pipeline::Meta, Vec<(u32, pipeline::Encoding, Vec<u8>)>) {
    let store = Store::open(path).unwrap();
    let reader = store.reader().unwrap();
    let indices = (0..store.meta().splits.len()).flat_map(|split| (0..store.len(split)).map(move |index| (split, index)));
    let record = |(split, index)| {
        let record = reader.record(split, index).unwrap();
        (record.label, record.encoding, record.bytes.to_vec())
    };
    (store.meta().clone(), indices.map(record).collect())
}

/// Large enough for several commits.
fn large() -> Memory {
    Memory::new(vec![("train", noise(3000, 64, 64, 3, 1)), ("val", noise(1500, 64, 64, 3, 2))])
}

#[test]
fn threads_do_not_change_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let jpegs = encoded(noise(300, 40, 30, 3, 3), image::ImageFormat::Jpeg);
    let data = Memory::new(vec![("train", jpegs), ("val", noise(1000, 28, 28, 1, 4))]);
    let stores = [1, 2, 7].map(|threads| {
        let path = folder.path().join(format!("{threads}.lmdb"));
        convert::convert(&data, &path, &options(threads), &mut |_| {}).unwrap();
        (dump(&path), std::fs::read(&path).unwrap())
    });
    assert!(stores[0] == stores[1] && stores[0] == stores[2]);
}

#[test]
fn an_interrupted_conversion_goes_on_and_gives_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.lmdb");
    convert(&large(), &whole);
    let target = folder.path().join("broken.lmdb");
    let mut continued = Vec::new();
    // The cable comes out once before the first commit, then in the first split, then in the second.
    for left in [100, 2500, 1900, usize::MAX] {
        let data = large();
        data.left.store(left, Ordering::SeqCst);
        match convert::convert(&data, &target, &options(2), &mut |_| {}) {
            Ok(report) => continued.push(report.continued),
            Err(error) => {
                assert_eq!(
                    text(&error, folder.path()),
                    "the data set cannot be read\n  caused by: /media/disk: cannot read\n  caused by: the cable is out"
                );
                assert!(!target.exists(), "nothing half-made under the final name");
                assert!(matches!(Store::open(convert::partial(&target)), Err(Error::Foreign { .. })), "nor readable under another");
            }
        }
    }
    assert!(continued[0] >= 3000, "the last run went on in the second split, at {continued:?}");
    assert!(!convert::partial(&target).exists());
    assert!(dump(&whole) == dump(&target));
    assert!(pipeline::verify::verify(&Store::open(&target).unwrap(), &mut |_| {}).unwrap().is_good());
}

#[test]
fn progress_ends_at_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let data = Memory::new(vec![("train", noise(100, 8, 8, 1, 1)), ("test", noise(20, 8, 8, 1, 2))]);
    convert::convert(&data, &folder.path().join("a.lmdb"), &options(2), &mut |progress| seen.push(progress)).unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.done));
    expect!["Progress { done: 120, total: 120, bytes: 7680, bad: 0 }"].assert_eq(&format!("{:?}", seen.last().unwrap()));
}

#[test]
fn a_split_may_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    convert(&Memory::new(vec![("train", Vec::new()), ("test", noise(2, 8, 8, 1, 2))]), &path);
    let (meta, records) = dump(&path);
    assert_eq!((meta.normalize, records.len()), (None, 2));
    assert!(pipeline::verify::verify(&Store::open(&path).unwrap(), &mut |_| {}).unwrap().is_good());
}

/// The last sample of these files is good; all before are not.
pub(crate) fn bad_files() -> Vec<Sample> {
    let good = encoded(noise(1, 32, 48, 3, 5), image::ImageFormat::Jpeg).remove(0);
    let Picture::Encoded(jpeg) = &good.picture else { panic!("a file") };
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    // A frame header of four channels: what a CMYK file has.
    let mut cmyk = jpeg[..frame].to_vec();
    cmyk.extend_from_slice(&[0xff, 0xc0, 0, 20, 8, 0, 32, 0, 48, 4]);
    cmyk.extend_from_slice(&[1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0]);
    cmyk.extend_from_slice(&jpeg[frame + 19..]);
    let file = |name: &str, bytes: Vec<u8>| Sample { picture: Picture::Encoded(bytes), name: name.to_owned(), ..good.clone() };
    vec![
        file("n01/cut.jpg", jpeg[..jpeg.len() * 2 / 3].to_vec()),
        file("n01/cmyk.jpg", cmyk),
        file("n02/empty.jpg", Vec::new()),
        file("n02/text.jpg", b"<html>not found</html>".to_vec()),
        good.clone(),
    ]
}

#[test]
fn bad_pictures_are_left_out_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let report = convert(&Memory::new(vec![("train", bad_files())]), &path);
    let lines: Vec<_> =
        report.meta.skipped.iter().map(|skipped| format!("{} {}: {}\n", skipped.split, skipped.name, skipped.reason)).collect();
    expect![[r#"
        train n01/cut.jpg: cut short: 1702 bytes without an end marker
        train n01/cmyk.jpg: 4 channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)
        train n02/empty.jpg: an empty file
        train n02/text.jpg: neither JPEG nor PNG: starts with [3c, 68, 74, 6d]
    "#]]
    .assert_eq(&lines.concat());
    assert_eq!(report.meta.splits[0].len, 1);
    assert_eq!(dump(&path).0.skipped.len(), 4);
}

#[test]
fn a_strict_conversion_stops_at_a_bad_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let strict = Options { strict: true, ..options(2) };
    let data = Memory::new(vec![("train", bad_files())]);
    let error = convert::convert(&data, &path, &strict, &mut |_| {}).unwrap_err();
    expect!["n01/cut.jpg: cut short: 1702 bytes without an end marker"].assert_eq(&text(&error, folder.path()));
    assert!(!path.exists());
}

#[track_caller]
fn check_refused(prepare: impl FnOnce(&Path), data: &Memory, options: &Options, want: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    prepare(&path);
    let error = convert::convert(data, &path, options, &mut |_| {}).unwrap_err();
    want.assert_eq(&text(&error, folder.path()));
}

/// Leaves a half-made store at its second commit.
fn half(path: &Path, data: Memory) {
    data.left.store(2500, Ordering::SeqCst);
    convert::convert(&data, path, &options(1), &mut |_| {}).unwrap_err();
}

#[test]
fn nothing_is_overwritten() {
    let small = Memory::new(vec![("train", noise(2, 8, 8, 1, 1))]);
    check_refused(
        |path| std::fs::write(path, "thesis").unwrap(),
        &small,
        &options(1),
        expect!["DIR/a.lmdb: exists already; delete it, or convert to another name"],
    );
    check_refused(
        |path| std::fs::write(convert::partial(path), "thesis").unwrap(),
        &small,
        &options(1),
        expect!["DIR/a.lmdb.partial: not a store: wanted a half-made store, found something else; delete it to start anew"],
    );
}

#[test]
fn the_database_of_somebody_else_is_not_touched() {
    let small = Memory::new(vec![("train", noise(2, 8, 8, 1, 1))]);
    let theirs = |path: &Path| {
        let environment = lmdb::Environment::new().set_flags(lmdb::EnvironmentFlags::NO_SUB_DIR).open(&convert::partial(path)).unwrap();
        let mut transaction = environment.begin_rw_txn().unwrap();
        transaction.put(environment.open_db(None).unwrap(), b"thesis", b"all of it", lmdb::WriteFlags::empty()).unwrap();
        transaction.commit().unwrap();
    };
    check_refused(
        theirs,
        &small,
        &options(1),
        expect!["DIR/a.lmdb.partial: not a store: wanted a half-made store, found something else; delete it to start anew"],
    );
}

#[test]
fn a_conversion_killed_before_its_last_step_takes_only_that_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let data = || Memory::new(vec![("train", bad_files()), ("test", noise(20, 8, 8, 1, 1))]);
    let first = convert(&data(), &path);
    let whole = dump(&path);
    // All is written; the name is missing.
    std::fs::rename(&path, convert::partial(&path)).unwrap();
    let error = convert::convert(&data(), &path, &Options { source: "elsewhere".to_owned(), ..options(1) }, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Changed { field: "source", .. }));
    let untouched = data();
    untouched.left.store(0, Ordering::SeqCst);
    let second = convert(&untouched, &path);
    assert_eq!((first.meta, 25), (second.meta, second.continued));
    assert!(dump(&path) == whole && !convert::partial(&path).exists());
}

#[test]
fn a_half_made_store_is_continued_only_from_its_own_source() {
    let elsewhere = Options { source: "elsewhere".to_owned(), ..options(1) };
    check_refused(
        |path| half(path, large()),
        &large(),
        &elsewhere,
        expect![
            "DIR/a.lmdb.partial: begun with another source: wanted elsewhere, found memory; delete this file to start anew, or repeat the first command to continue"
        ],
    );
    let longer = Memory::new(vec![("train", noise(3001, 64, 64, 3, 1)), ("val", noise(1500, 64, 64, 3, 2))]);
    check_refused(
        |path| half(path, large()),
        &longer,
        &options(1),
        expect![
            "DIR/a.lmdb.partial: begun with another list of splits: wanted train 3001, val 1500, found train 3000, val 1500; delete this file to start anew, or repeat the first command to continue"
        ],
    );
}

#[test]
fn a_half_made_store_is_not_continued_with_other_pictures() {
    let mut changed = noise(3000, 64, 64, 3, 1);
    // Of 3000 samples each twelfth is looked at again.
    let Picture::Raw(image) = &mut changed[12].picture else { panic!("pixels") };
    image.pixels[0] ^= 1;
    check_refused(
        |path| half(path, large()),
        &Memory::new(vec![("train", changed), ("val", noise(1500, 64, 64, 3, 2))]),
        &options(1),
        expect![[
            r#"DIR/a.lmdb.partial: begun with another content: wanted ada7558c728f545e as sample 12 of split "train", found e4c40e445cf80ffc; delete this file to start anew, or repeat the first command to continue"#
        ]],
    );
}

#[test]
fn a_half_made_store_is_not_continued_in_another_form() {
    let form = Form { raw: true, ..Form::default() };
    check_refused(
        |path| half(path, large()),
        &large(),
        &Options { form, ..options(1) },
        expect![[
            r#"DIR/a.lmdb.partial: begun with another form: wanted {"resize":null,"raw":true,"upright":false,"quality":95}, found {"resize":null,"raw":false,"upright":false,"quality":95}; delete this file to start anew, or repeat the first command to continue"#
        ]],
    );
    check_refused(
        |path| half(path, large()),
        &large(),
        &Options { check: Check::Decode, ..options(1) },
        expect![[
            r#"DIR/a.lmdb.partial: begun with another check: wanted "decode", found "header"; delete this file to start anew, or repeat the first command to continue"#
        ]],
    );
}

#[test]
fn a_strict_conversion_does_not_go_on_from_one_that_left_pictures_out() {
    let with_bad = || {
        let train = bad_files().into_iter().chain(noise(3000, 64, 64, 3, 1)).collect();
        Memory::new(vec![("train", train)])
    };
    let strict = Options { strict: true, ..options(1) };
    check_refused(|path| half(path, with_bad()), &with_bad(), &strict, expect!["n01/cut.jpg: cut short: 1702 bytes without an end marker"]);
}

#[test]
fn two_conversions_to_one_target_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    let other = std::fs::File::create(convert::partial(&path)).unwrap();
    other.lock().unwrap();
    let small = Memory::new(vec![("train", noise(2, 8, 8, 1, 1))]);
    let error = convert::convert(&small, &path, &options(1), &mut |_| {}).unwrap_err();
    expect!["DIR/a.lmdb.partial: another conversion is writing it; wait for it or end it"].assert_eq(&text(&error, folder.path()));
    drop(other);
    convert(&small, &path);
}

#[test]
fn mean_and_deviation_are_those_of_the_training_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let color = noise(7, 5, 9, 3, 1);
    let grey = noise(3, 11, 2, 1, 2);
    let planes = |channel: usize| {
        let color = color.iter().map(move |sample| (sample, channel)).chain(grey.iter().map(|sample| (sample, 0)));
        let pixels = |(sample, channel): (&Sample, usize)| match &sample.picture {
            Picture::Raw(image) => {
                image.pixels.iter().skip(channel).step_by(image.channels).map(|&pixel| f64::from(pixel) / 255.0).collect::<Vec<_>>()
            }
            Picture::Encoded(_) => panic!("pixels"),
        };
        color.flat_map(pixels).collect::<Vec<_>>()
    };
    let train = color.iter().chain(&grey).cloned().collect();
    let data = Memory::new(vec![("val", noise(5, 4, 4, 3, 9)), ("train", train)]);
    let normalize = convert(&data, &folder.path().join("a.lmdb")).meta.normalize.unwrap();
    for channel in 0..3 {
        let pixels = planes(channel);
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|pixel| (pixel - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
        // Both are f32: seven digits.
        assert!((f64::from(normalize.mean[channel]) - mean).abs() < 1e-6, "{normalize:?} {mean}");
        assert!((f64::from(normalize.std[channel]) - variance.sqrt()).abs() < 1e-6, "{normalize:?} {variance}");
    }
    // Who wants them of a split, or of all of a store whose files were not all decoded, has them measured.
    let store = Store::open(folder.path().join("a.lmdb")).unwrap();
    assert_eq!(inspect::measure(&store, store.split("train").unwrap()).unwrap().as_ref(), Some(&normalize));
    assert_ne!(inspect::measure(&store, store.split("val").unwrap()).unwrap().as_ref(), Some(&normalize));
}

#[test]
fn a_half_made_store_is_not_continued_when_a_file_was_written_since() {
    let folder = tempfile::tempdir().unwrap();
    let (source, path) = (folder.path().join("pictures"), folder.path().join("a.lmdb"));
    for split in ["train", "val"] {
        std::fs::create_dir_all(source.join(split).join("one")).unwrap();
    }
    for (number, sample) in encoded(noise(600, 8, 8, 3, 1), image::ImageFormat::Png).into_iter().enumerate() {
        let Picture::Encoded(bytes) = sample.picture else { unreachable!() };
        std::fs::write(source.join(format!("train/one/{number:03}.png")), bytes).unwrap();
    }
    std::fs::write(source.join("val/one/bad.png"), "no picture").unwrap();
    let strict = Options { strict: true, ..options(2) };
    let error = || {
        let data = datasets::Folder::open(&source, "pictures").unwrap();
        text(&convert::convert(&data, &path, &strict, &mut |_| {}).unwrap_err(), folder.path())
    };
    let bad = "val/one/bad.png: neither JPEG nor PNG: starts with [6e, 6f, 20, 70]";
    assert_eq!([error(), error()], [bad, bad], "with the training pictures in the store");

    // Of as many bytes, and none of the witnesses.
    let changed = source.join("train/one/005.png");
    let mut bytes = std::fs::read(&changed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&changed, bytes).unwrap();
    expect![[r#"
        DIR/a.lmdb.partial: begun with another content: wanted the first 600 files of split "train" as long and as old as they are now, found others; delete this file to start anew, or repeat the first command to continue"#]]
    .assert_eq(&error());
}

/// Records of all lengths up to some blocks of the hash, in no order, and a long one among them.
#[test]
fn the_content_is_hashed_as_the_format_says() {
    let widths = (0..200).map(|k| 1 + 77 * k % 200).chain([5_000]).chain(1..20);
    let samples: Vec<Sample> = widths.enumerate().flat_map(|(k, width)| noise(1, 1, width, 1 + 2 * (k % 2), k as u64)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.lmdb");
    convert(&Memory::new(vec![("train", samples.clone())]), &path);

    let mut split = [0; 32];
    for Sample { picture, label, .. } in &samples {
        let Picture::Raw(Image { height, width, channels, pixels }) = picture else { unreachable!("noise is pixels") };
        let [label, height, width] = [*label, *height as u32, *width as u32].map(u32::to_le_bytes);
        let record = Sha256::digest([&label[..], &[0, *channels as u8], &height, &width, pixels].concat());
        split = Sha256::digest([&split[..], &record].concat()).into();
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let classes: String = (0..10).map(|class| format!("class class {class}\n")).collect();
    let lines = format!("{classes}split train {} {}\n", samples.len(), hex(&split));
    assert_eq!(Store::open(path).unwrap().meta().content, hex(&Sha256::digest(lines)));
}
