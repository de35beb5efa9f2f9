//! The program `pipeline`, from a shell: help, results, errors, kills, a full disk.

use std::path::Path;

use expect_test::{Expect, expect};
use pipeline::store;

use crate::converting::{bad_files, dump};
use crate::golden;
use crate::programs::{idx, limited, pipeline, render};

#[track_caller]
fn check(folder: &Path, arguments: &[&str], want: Expect) {
    want.assert_eq(&render(folder, &pipeline(folder, arguments)));
}

#[test]
fn help() {
    let folder = tempfile::tempdir().unwrap();
    check(
        folder.path(),
        &["--help"],
        expect![[r#"
            0
            Makes, shows, checks and serves stores: picture data sets in one LMDB file

            Usage: pipeline <COMMAND>

            Commands:
              convert  Copy a data set into a new store
              inspect  Show what is in a store
              verify   Read and decode every record of a store, and compare with its own account of itself
              serve    Serve stores to other processes and machines, over Arrow Flight
              help     Print this message or the help of the given subcommand(s)

            Options:
              -h, --help     Print help
              -V, --version  Print version

            Exit codes:
              0  done
              1  something is wrong with the data, a run or the machine; standard error says what
              2  something is wrong with what was typed
            ---
        "#]],
    );
    check(
        folder.path(),
        &["convert", "--help"],
        expect![[r#"
            0
            Copy a data set into a new store

            Pictures stay as they are, byte for byte, unless an option says otherwise (CMYK becomes RGB in any
            case). The store grows under the name TARGET.partial and gets its own name at the end. Killed or out
            of disk, the same command goes on where it stopped.

            Usage: pipeline convert [OPTIONS] <SOURCE> <TARGET>

            Arguments:
              <SOURCE>
                      A folder, or an archive (.zip, .tar, .tar.gz, .tar.xz): idx files, CIFAR, TinyImageNet,
                      ImageNet, or class folders of pictures; or what folder2lmdb.py wrote. Or the name of a
                      public data set, which is downloaded: mnist, fashion-mnist, kmnist, cifar10, cifar100,
                      tiny-imagenet

              <TARGET>
                      The file to make; must not exist

            Options:
                  --as <KIND>
                      What SOURCE is, where its file names do not tell: mnist, fashion-mnist, kmnist, idx,
                      cifar10, cifar100, tiny-imagenet, imagenet or folder

                  --shorter <PIXELS>
                      Reduce larger pictures until their shorter side has so many pixels

                  --longer <PIXELS>
                      Reduce larger pictures until their longer side has so many pixels

                  --raw
                      Store pixels instead of files: more bytes, nothing to decode

                  --index-rows
                      Keep beside each JPEG file where its rows begin, so that a crop is decoded without what
                      lies above it and at its right; 0.2 % more bytes, and a store that only programs of this
                      version and later read

                  --upright
                      Turn pictures as their EXIF data say; without it they stay as they lie, as in PyTorch's
                      and TensorFlow's loaders

                  --quality <Q>
                      The quality of JPEG files that have to be written, 1 to 100; 95 by default

                  --check <WHAT>
                      What is looked at in each file: its headers and markers (header, the default), which shows
                      cuts and other files, or, at a hundred times the cost, all its pixels (decode)

                  --json
                      Write what was made as JSON

                  --strict
                      Stop at the first picture that cannot be used, instead of leaving it out and saying so

                  --threads <N>
                      Threads that read and check pictures; all cores by default. The store does not depend on
                      it

                  --val-labels <FILE>
                      The classes of ImageNet's flat val folder: a synset a line, or the devkit's ground truth

                  --synsets <FILE>
                      The synsets that the numbers of the devkit's ground truth stand for, one a line

                  --downloads <FOLDER>
                      Where files of public data sets are kept; topolab/data in $XDG_CACHE_HOME or ~/.cache by
                      default

              -h, --help
                      Print help (see a summary with '-h')

            Exit codes:
              0  done
              1  something is wrong with the data, a run or the machine; standard error says what
              2  something is wrong with what was typed
            ---
        "#]],
    );
    check(
        folder.path(),
        &["inspect", "--help"],
        expect![[r#"
            0
            Show what is in a store

            Usage: pipeline inspect [OPTIONS] <STORE>

            Arguments:
              <STORE>  The store

            Options:
                  --json          Write it as JSON
                  --measure       Measure mean and deviation of each split on all of its pictures, which takes
                                  as long as to verify
                  --grid <PNG>    Draw pictures of the first split, at equal distances, into this PNG file
                  --split <NAME>  The split to draw
              -h, --help          Print help

            Exit codes:
              0  done
              1  something is wrong with the data, a run or the machine; standard error says what
              2  something is wrong with what was typed
            ---
        "#]],
    );
    check(
        folder.path(),
        &["verify", "--help"],
        expect![[r#"
            0
            Read and decode every record of a store, and compare with its own account of itself

            Usage: pipeline verify [OPTIONS] <STORE>

            Arguments:
              <STORE>  The store

            Options:
                  --json  Write what was found as JSON
              -h, --help  Print help

            Exit codes:
              0  done
              1  something is wrong with the data, a run or the machine; standard error says what
              2  something is wrong with what was typed
            ---
        "#]],
    );
}

#[test]
fn convert_inspect_and_verify() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 500, 28);
    check(
        folder.path(),
        &["convert", "mnist", "mnist.lmdb", "--threads", "1"],
        expect![[r#"
        0
        name       mnist
        source     DIR/mnist
        classes    10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
        file       548.9 kB, 1.167 of the pictures' 470.4 kB
        content    622258bcc00dbd161c6e65474931a904785e1473e5190260bb26e5d7c2a5e3df
        mean       0.5000
        std        0.2899

        train: 500 pictures
          encoding 500 raw, 500 of them grey
          height   28 px
          width    28 px
          labels   50 50 50 50 50 50 50 50 50 50
          size     392.0 kB

        test: 100 pictures
          encoding 100 raw, 100 of them grey
          height   28 px
          width    28 px
          labels   10 10 10 10 10 10 10 10 10 10
          size     78.4 kB
        ---
        64 of 600 pictures converted, 0 MB
        128 of 600 pictures converted, 0 MB
        192 of 600 pictures converted, 0 MB
        240 of 600 pictures converted, 0 MB
        304 of 600 pictures converted, 0 MB
        368 of 600 pictures converted, 0 MB
        432 of 600 pictures converted, 0 MB
        480 of 600 pictures converted, 0 MB
        548 of 600 pictures converted, 0 MB
        600 of 600 pictures converted, 0 MB
    "#]],
    );
    check(
        folder.path(),
        &["verify", "mnist.lmdb"],
        expect![[r#"
        0
        600 records, all good
        ---
        500 of 600 records verified, 0 MB
        600 of 600 records verified, 0 MB
    "#]],
    );
    let inspected = pipeline(folder.path(), &["inspect", "mnist.lmdb", "--grid", "grid.png", "--split", "test"]);
    assert!(inspected.status.success());
    let measured = pipeline(folder.path(), &["inspect", "mnist.lmdb", "--measure"]);
    let text = String::from_utf8(measured.stdout).unwrap();
    assert!(text.contains("\ntrain, measured: mean 0.") && text.contains("\ntest, measured: mean 0."), "{text}");
    let grid = image::open(folder.path().join("grid.png")).unwrap();
    // 100 pictures of 28 pixels in rows of 16, enlarged three times, and gaps of 2.
    assert_eq!((grid.height(), grid.width()), (7 * 86 + 2, 16 * 86 + 2));
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 20, 28);
    check(
        folder.path(),
        &["convert", "mnist"],
        expect![[r#"
        2
        ---
        error: the following required arguments were not provided:
          <TARGET>

        Usage: pipeline convert <SOURCE> <TARGET>

        For more information, try '--help'.
    "#]],
    );
    check(
        folder.path(),
        &["convert", "mnist", "a.lmdb", "--as", "imagnet"],
        expect![[r#"
        2
        ---
        error: invalid value 'imagnet' for '--as <KIND>': source: name: wanted mnist, fashion-mnist, kmnist, idx, cifar10, cifar100, tiny-imagenet, imagenet, folder, found imagnet

        For more information, try '--help'.
    "#]],
    );
    check(
        folder.path(),
        &["convert", "nowhere", "a.lmdb"],
        expect![[r#"
        1
        ---
        error: cannot open the data set nowhere
          caused by: nowhere: wanted a file or folder, or one of mnist, fashion-mnist, kmnist, cifar10, cifar100, tiny-imagenet, found none
    "#]],
    );
    check(
        folder.path(),
        &["convert", "mnist", "nowhere/a.lmdb"],
        expect![[r#"
        1
        ---
        error: nowhere/a.lmdb.partial: cannot create the store
          caused by: No such file or directory (os error 2)
    "#]],
    );
    check(
        folder.path(),
        &["inspect", "nowhere.lmdb"],
        expect![[r#"
        1
        ---
        error: nowhere.lmdb: cannot open the store
          caused by: No such file or directory (os error 2)
    "#]],
    );
    assert!(pipeline(folder.path(), &["convert", "mnist", "a.lmdb"]).status.success());
    check(
        folder.path(),
        &["convert", "mnist", "a.lmdb"],
        expect![[r#"
        1
        ---
        error: a.lmdb: exists already; delete it, or convert to another name
    "#]],
    );
    check(
        folder.path(),
        &["inspect", "a.lmdb", "--grid", "a.png", "--split", "val"],
        expect![[r#"
        1
        ---
        error: a.lmdb: no split "val"; there is "train", "test"
    "#]],
    );
}

#[test]
fn bad_pictures_in_class_folders() {
    let folder = tempfile::tempdir().unwrap();
    for sample in bad_files() {
        let datasets::Picture::Encoded(bytes) = sample.picture else { panic!("a file") };
        let path = folder.path().join("animals/train").join(sample.name.replace("file#0", "n02/good.jpg"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    check(
        folder.path(),
        &["convert", "animals", "a.lmdb", "--strict"],
        expect![[r#"
        1
        ---
        error: train/n01/cmyk.jpg: 4 channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)
    "#]],
    );
    std::fs::remove_file(folder.path().join("a.lmdb.partial")).unwrap();
    check(
        folder.path(),
        &["convert", "animals", "a.lmdb"],
        expect![[r#"
            0
            name       animals
            source     DIR/animals
            classes    2: n01, n02
            file       41.0 kB, 16.044 of the pictures' 2553 B
            content    d13184e5b5f288d76c6d934e349f631fb36b3eed03f38f47bfd7dfa5820d32f6
            mean       0.4975, 0.5011, 0.4894
            std        0.2938, 0.2910, 0.2937
            skipped    4 pictures of the source

            train: 1 pictures
              encoding 1 JPEG
              height   32 px
              width    48 px
              labels   0 1
              size     2553 B
              decoder  own for 1 (of 1 JPEG looked at)
            ---
            5 of 5 pictures converted, 0 MB, 4 bad
            skipped: train/n01/cmyk.jpg: 4 channels: wanted 1 or 3 (CMYK and YCCK are refused: what colours they mean depends on a printer)
            skipped: train/n01/cut.jpg: cut short: 1702 bytes without an end marker
            skipped: train/n02/empty.jpg: an empty file
            skipped: train/n02/text.jpg: neither JPEG nor PNG: starts with [3c, 68, 74, 6d]
                   1 left out   # channels: wanted # or # (CMYK and YCCK are refused: what colours they mean depends on a printer) (first: train/n01/cmyk.jpg)
                   1 left out   an empty file (first: train/n02/empty.jpg)
                   1 left out   cut short: # bytes without an end marker (first: train/n01/cut.jpg)
                   1 left out   neither JPEG nor PNG: starts with # (first: train/n02/text.jpg)
        "#]],
    );
}

#[test]
fn a_bad_record_fails_the_verification() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 20, 4);
    assert!(pipeline(folder.path(), &["convert", "mnist", "a.lmdb"]).status.success());
    let path = folder.path().join("a.lmdb");
    let mut file = std::fs::read(&path).unwrap();
    // The header of the eleventh training record: its label, and that it is raw, of one channel, four pixels a side.
    let header = [0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 4, 0, 0, 0];
    let places: Vec<_> = file.windows(14).enumerate().filter(|(_, window)| *window == header).map(|(at, _)| at).collect();
    file[places[1] + 4] = 9;
    std::fs::write(&path, file).unwrap();
    check(
        folder.path(),
        &["verify", "a.lmdb"],
        expect![[r#"
            1
            split "train", record 10: encoding: wanted 0 (raw), 1 (JPEG), 2 (PNG) or 3 (JPEG with index), found 9
            120 records, 1 bad, 0 differences
            ---
            20 of 120 records verified, 0 MB, 1 bad
            120 of 120 records verified, 0 MB, 1 bad
        "#]],
    );
}

/// Kills the program in the commit by which its half-made store would grow beyond so many bytes: by the signal of a limit on the size of files,
/// which ends it as SIGKILL does, and comes neither too early nor too late.
#[cfg(unix)]
fn kill_at(folder: &Path, size: u64) {
    use std::os::unix::process::ExitStatusExt;

    let output = limited(folder, size, "trap - XFSZ", "convert mnist killed.lmdb --threads 1");
    assert_eq!(output.status.signal(), Some(SIGXFSZ), "{output:?}");
    assert!(!folder.join("killed.lmdb").exists(), "nothing half-made under the final name");
}

/// The number of that signal.
#[cfg(unix)]
const SIGXFSZ: i32 = 25;

#[cfg(unix)]
#[test]
fn a_killed_conversion_goes_on_and_gives_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    // 100 MB of pictures are six commits.
    idx(folder.path(), 25_000, 64);
    assert!(pipeline(folder.path(), &["convert", "mnist", "whole.lmdb"]).status.success());
    for size in [64 << 10, 20 << 20, 60 << 20] {
        kill_at(folder.path(), size);
    }
    let last = pipeline(folder.path(), &["convert", "mnist", "killed.lmdb"]);
    assert!(last.status.success());
    let log = String::from_utf8(last.stderr).unwrap();
    assert!(!log.contains("2510 of 25100"), "the last run went on where the third was killed: {log}");
    assert!(dump(&folder.path().join("whole.lmdb")) == dump(&folder.path().join("killed.lmdb")));
    assert!(pipeline(folder.path(), &["verify", "killed.lmdb"]).status.success());
}

/// A limit on the size of files stands in for a full disk: the program hears of it in the same way.
#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_leaves_no_store() {
    let folder = tempfile::tempdir().unwrap();
    idx(folder.path(), 10_000, 64);
    // The signal that would end the program is ignored, and stays so.
    let output = limited(folder.path(), 10 << 20, "trap '' XFSZ", "convert mnist full.lmdb --threads 1");
    let text = render(folder.path(), &output);
    let (_, errors) = text.split_once("error: ").unwrap();
    expect![[r#"
        full.lmdb.partial: cannot write the store; what was committed stays, and the same command continues it
          caused by: File too large (os error 27)
    "#]]
    .assert_eq(errors);
    assert_eq!(output.status.code(), Some(1));
    assert!(!folder.path().join("full.lmdb").exists());
    // With room again, the same command goes on.
    assert!(pipeline(folder.path(), &["convert", "mnist", "full.lmdb"]).status.success());
    assert!(pipeline(folder.path(), &["verify", "full.lmdb"]).status.success());
}

/// The real data sets, where they are at hand.
#[test]
fn real_mnist() {
    let Some(source) = golden::real("mnist") else { return };
    let folder = tempfile::tempdir().unwrap();
    let converted = pipeline(folder.path(), &["convert", source.to_str().unwrap(), "mnist.lmdb"]);
    assert!(converted.status.success());
    let meta = pipeline::Store::open(folder.path().join("mnist.lmdb")).unwrap().meta().clone();
    let counts: Vec<_> = meta.pictures.iter().map(|pictures: &store::Pictures| pictures.per_class.clone()).collect();
    let normalize = meta.normalize.unwrap();
    // The counts of the published data set, and the mean and deviation that everybody normalises it by.
    expect!["[[5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]]"]
        .assert_eq(&format!("{counts:?}"));
    expect!["0.1307 0.3081 b53c96eb1ef368f7dadc17b891b1d30b2ec4ca6a2cd1204eabd198daab8175ce"]
        .assert_eq(&format!("{:.4} {:.4} {}", normalize.mean[0], normalize.std[0], meta.content));
    assert!(pipeline(folder.path(), &["verify", "mnist.lmdb"]).status.success());
}
