//! Public data sets by name: small files of the same kinds from a server on this machine, and the published files where they are.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write},
    net::TcpListener,
    path::Path,
    process::Command,
};

use datasets::{
    Dataset, Error, Source,
    download::{self, Published},
};
use expect_test::expect;
use flate2::{Compression, write::GzEncoder};

use super::{Answer, Server, partial, ranges, serve, sha256};
use crate::reading::check_error;
use crate::{golden, programs};

/// Serves these files below `/good`, at most `most` bytes a connection, files of as many zeros below `/other`, and nothing elsewhere.
fn serve_files(files: &[(&str, Vec<u8>)], most: usize) -> Server {
    let mut served = BTreeMap::new();
    for (name, content) in files {
        served.insert(format!("/good/{name}"), partial(content.clone(), most));
        served.insert(format!("/other/{name}"), partial(vec![0; content.len()], usize::MAX));
    }
    serve(move |count, request| match served.get(&request.path) {
        Some(answer) => answer(count, request),
        None => Answer { status: "404 Not Found", headers: vec![], body: vec![] },
    })
}

/// What is published, of files that a test has made and that these mirrors have.
fn published(files: &[(&str, Vec<u8>)], mirrors: &[String]) -> Vec<Published> {
    fn forever(text: &str) -> &'static str {
        text.to_owned().leak()
    }
    let mirrors: &[&str] = mirrors.iter().map(|mirror| forever(mirror)).collect::<Vec<_>>().leak();
    let file = |(name, content): &(&str, Vec<u8>)| Published {
        name: forever(name),
        size: content.len() as u64,
        sha256: forever(&sha256(content)),
        mirrors,
    };
    files.iter().map(file).collect()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

/// Images of 2×3, the label of each its number.
fn idx() -> Vec<(&'static str, Vec<u8>)> {
    let images = |count: u8| gz(&[&[0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 3][..], &(0..6 * count).collect::<Vec<_>>()].concat());
    let labels = |count: u8| gz(&[&[0, 0, 8, 1, 0, 0, 0, count][..], &(0..count).collect::<Vec<_>>()].concat());
    vec![
        ("train-images-idx3-ubyte.gz", images(4)),
        ("train-labels-idx1-ubyte.gz", labels(4)),
        ("t10k-images-idx3-ubyte.gz", images(2)),
        ("t10k-labels-idx1-ubyte.gz", labels(2)),
    ]
}

fn tar_gz(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, &content[..]).unwrap();
    }
    gz(&tar.into_inner().unwrap())
}

/// Two records a file, the labels in front.
fn cifar(folder: &str, files: &[&str], labels: usize) -> Vec<u8> {
    let record = |label: u8| [vec![label; labels], vec![label * 10; 3072]].concat();
    let files: Vec<(String, Vec<u8>)> =
        files.iter().map(|file| (format!("{folder}/{file}.bin"), [record(3), record(7)].concat())).collect();
    tar_gz(&files.iter().map(|(name, content)| (name.as_str(), content.clone())).collect::<Vec<_>>())
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Each data set that has a name, as small as it can be.
fn small(source: Source) -> Vec<(&'static str, Vec<u8>)> {
    match source {
        Source::Mnist | Source::FashionMnist | Source::Kmnist => idx(),
        Source::Cifar10 => {
            let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
            vec![("cifar-10-binary.tar.gz", cifar("cifar-10-batches-bin", &names, 1))]
        }
        Source::Cifar100 => vec![("cifar-100-binary.tar.gz", cifar("cifar-100-binary", &["train", "test"], 2))],
        Source::TinyImagenet => {
            let files: [(&str, &[u8]); 5] = [
                ("tiny-imagenet-200/wnids.txt", b"n01443537\nn01629819\n"),
                ("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG", b"a fish"),
                ("tiny-imagenet-200/train/n01629819/images/n01629819_0.JPEG", b"a salamander"),
                ("tiny-imagenet-200/val/images/val_0.JPEG", b"another salamander"),
                ("tiny-imagenet-200/val/val_annotations.txt", b"val_0.JPEG\tn01629819\t0\t0\t1\t1\n"),
            ];
            vec![("tiny-imagenet-200.zip", zip(&files))]
        }
        Source::Idx | Source::Imagenet | Source::Folder => unreachable!("{source} is not published"),
    }
}

/// Name, and each split with the label of its last sample.
fn summary(dataset: &dyn Dataset) -> String {
    let info = dataset.info();
    let splits = info.splits.iter().enumerate().map(|(split, part)| {
        let last = dataset.get(split, part.len - 1).unwrap();
        format!("{} of {}, the last {}", part.name, part.len, info.classes[last.label as usize])
    });
    format!("{}: {}", info.name, splits.collect::<Vec<_>>().join("; "))
}

#[test]
fn every_named_data_set_is_downloaded_once_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut summaries = String::new();
    for name in download::names() {
        let source: Source = name.parse().unwrap();
        let files = small(source);
        // The published files have the names of the small ones.
        assert!(download::files(source).iter().map(|file| file.name).eq(files.iter().map(|(name, _)| *name)), "{name}");
        let server = serve_files(&files, usize::MAX);
        let published = published(&files, &[format!("{}/good", server.address)]);
        let open = || download::published(source, &published, folder.path().join(name), |_, _, _| {}).unwrap();
        summaries += &format!("{}\n", summary(&*open()));
        assert_eq!(ranges(&server).len(), files.len());
        open();
        assert_eq!(ranges(&server).len(), files.len(), "the second time everything is there");
    }
    expect![[r#"
        mnist: train of 4, the last 3; test of 2, the last 1
        fashion-mnist: train of 4, the last dress; test of 2, the last trouser
        kmnist: train of 4, the last tsu; test of 2, the last ki
        cifar10: train of 10, the last horse; test of 2, the last horse
        cifar100: train of 2, the last beetle; test of 2, the last beetle
        tiny-imagenet: train of 2, the last n01629819; val of 1, the last n01629819
    "#]]
    .assert_eq(&summaries);
}

#[test]
fn the_next_mirror_has_what_the_first_has_not() {
    let files = small(Source::Cifar100);
    let server = serve_files(&files, usize::MAX);
    let mirrors = ["nothing", "other", "good"].map(|mirror| format!("{}/{mirror}", server.address));
    let folder = tempfile::tempdir().unwrap();
    let mut told = vec![];
    let progress = |name: &str, done, size| told.push((name.to_owned(), done, size));
    let dataset = download::published(Source::Cifar100, &published(&files, &mirrors), folder.path(), progress).unwrap();
    assert_eq!(dataset.info().splits[0].len, 2);
    let size = files[0].1.len() as u64;
    assert_eq!(told.last(), Some(&("cifar-100-binary.tar.gz".to_owned(), size, size)));
    let paths: Vec<String> = server.asked.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    let path = |mirror| format!("/{mirror}/cifar-100-binary.tar.gz");
    assert_eq!(paths, ["nothing", "other", "good"].map(path));
}

#[test]
fn the_next_mirror_goes_on_where_the_first_broke_off() {
    let files = small(Source::Cifar10);
    let content = &files[0].1;
    let whole = serve_files(&files, usize::MAX);
    // It breaks off, and is out of order when it is asked for the rest.
    let half = content.len() / 2;
    let first = partial(content.clone(), half);
    let broken = serve(move |count, request| match count {
        0 => first(count, request),
        _ => Answer { status: "503 Service Unavailable", headers: vec![], body: vec![] },
    });
    let folder = tempfile::tempdir().unwrap();
    let mirrors = [broken.address.clone(), format!("{}/good", whole.address)];
    let dataset = download::published(Source::Cifar10, &published(&files, &mirrors), folder.path(), |_, _, _| {}).unwrap();
    assert_eq!(dataset.info().splits[0].len, 10);
    let from_half = Some(format!("bytes={half}-"));
    assert_eq!((ranges(&broken), ranges(&whole)), (vec![None, from_half.clone()], vec![from_half]));
}

#[test]
fn where_no_server_has_a_file_each_of_them_is_named() {
    let files = [("a.gz", vec![1; 100])];
    let server = serve_files(&files, usize::MAX);
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there any more: what a machine without a network says is much the same.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let check = |mirrors: &[String], want: expect_test::Expect| {
        let error = download::published(Source::Mnist, &published(&files, mirrors), folder.path(), |_, _, _| {}).err().unwrap();
        let hide = |text: &str| text.replace(&server.address, "<server>").replace(&gone.to_string(), "<gone>");
        let Error::Download { url, action, source } = error else { panic!("{error}") };
        let error = Error::Download { url: hide(&url), action, source: hide(&source.to_string()).into() };
        check_error::<()>(folder.path(), Err(error), want);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    };
    check(&[format!("http://{gone}")], expect!["http://<gone>/a.gz: cannot download: io: Connection refused (os error 111)"]);
    check(
        &[format!("http://{gone}/mnist"), format!("{}/nothing", server.address), format!("{}/other", server.address)],
        expect![
            "<folder>/a.gz: cannot download from any server: http://<gone>/mnist/a.gz: io: Connection refused (os error 111); <server>/nothing/a.gz: http status: 404 Not Found; <server>/other/a.gz: sha256: wanted 80f93e8c7d0e1e083e6aab0b073011d858d092951eb4bb2d595cd43173e04704, found cd00e292c5970d3c5e2f0ffa5171e555bc46bfc4faddfb4a418b6840b86e79a3"
        ],
    );
}

#[test]
fn a_name_that_is_none_gets_the_list() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["imagenet", "MNIST", ""] {
        let error = download::named(name, folder.path().join("a"), |_, _, _| {}).err().unwrap().to_string();
        let known = "mnist, fashion-mnist, kmnist, cifar10, cifar100, tiny-imagenet";
        assert_eq!(error, format!("public data set: name: wanted one of {known}, found {name}"));
    }
    let error = pipeline::convert::ensure_public("../mnist", folder.path(), folder.path(), |_, _, _| {}).err().unwrap();
    assert!(format!("{error:?}").contains("name: wanted one of mnist, fashion-mnist, "), "{error:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Copies those of the published files that are beside the workspace, with the names that they are published under.
fn copy_published(source: Source, real: &Path, to: &Path) -> usize {
    fs::create_dir_all(to).unwrap();
    let there = download::files(source).iter().filter(|file| real.join(file.name).exists());
    let mut count = 0;
    for file in there {
        fs::copy(real.join(file.name), to.join(file.name)).unwrap();
        count += 1;
    }
    count
}

/// What is listed are the sizes and digests of the files themselves, as far as these are beside the workspace.
#[test]
fn the_listed_digests_are_of_the_published_files() {
    for (source, some) in [(Source::Mnist, 4), (Source::FashionMnist, 4), (Source::Kmnist, 3)] {
        let Some(real) = golden::real(source.name()) else { return };
        let listed = download::files(source).iter().filter(|file| real.join(file.name).exists());
        let mut count = 0;
        for file in listed {
            let bytes = fs::read(real.join(file.name)).unwrap();
            assert_eq!((bytes.len() as u64, sha256(&bytes).as_str()), (file.size, file.sha256), "{source}: {}", file.name);
            count += 1;
        }
        assert_eq!(count, some, "{source}");
    }
}

/// The published files are in the folder of downloads, so nothing is fetched; and what is a store already needs no files.
#[test]
fn public_data_sets_become_stores_by_name() {
    for source in [Source::Mnist, Source::FashionMnist] {
        let Some(real) = golden::real(source.name()) else { return };
        let (name, folder) = (source.name(), tempfile::tempdir().unwrap());
        let [stores, downloads] = ["stores", "downloads"].map(|folder_name| folder.path().join(folder_name));
        assert_eq!(copy_published(source, &real, &downloads.join(name)), 4);
        let ensure = || pipeline::convert::ensure_public(name, &stores, &downloads, |_, done, size| assert_eq!(done, size)).unwrap();
        let store = ensure();
        assert_eq!((store.meta().name.as_str(), store.len(0), store.len(1)), (name, 60_000, 10_000));
        drop(store);
        fs::remove_dir_all(&downloads).unwrap();
        assert_eq!(ensure().len(0), 60_000);
        assert!(!downloads.exists());
    }
}

/// By the program, which looks for the published files in its folder of downloads first.
#[test]
fn a_public_data_set_is_converted_by_its_name() {
    let Some(real) = golden::real("fashion-mnist") else { return };
    let folder = tempfile::tempdir().unwrap();
    let convert = |cache: &str, arguments: &[&str]| {
        let mut command = Command::new(programs::program());
        let output = command.args(["convert", "fashion-mnist"]).args(arguments).current_dir(folder.path()).env("XDG_CACHE_HOME", cache);
        output.output().unwrap()
    };
    let cache = folder.path().join("cache/topolab/data");
    for downloads in [&cache, &folder.path().join("elsewhere")] {
        fs::create_dir_all(downloads).unwrap();
        std::os::unix::fs::symlink(&real, downloads.join("fashion-mnist")).unwrap();
    }
    let by_default = convert(folder.path().join("cache").to_str().unwrap(), &["a.lmdb"]);
    let log = String::from_utf8(by_default.stderr).unwrap();
    assert!(by_default.status.success(), "{log}");
    assert!(log.starts_with(&format!("the files of fashion-mnist are kept in {}/fashion-mnist\n", cache.display())), "{log}");
    assert!(!log.contains("downloading"), "{log}");
    // With `--downloads` the cache is not looked at.
    let named = convert("/nowhere", &["b.lmdb", "--downloads", "elsewhere"]);
    assert!(named.status.success(), "{}", String::from_utf8_lossy(&named.stderr));
    let text = String::from_utf8(named.stdout).unwrap();
    assert_eq!(text, String::from_utf8(by_default.stdout).unwrap().replace("a.lmdb", "b.lmdb"));
    let store = pipeline::Store::open(folder.path().join("b.lmdb")).unwrap();
    assert_eq!((&*store.meta().source, store.len(0)), ("fashion-mnist", 60_000));
    assert!(
        programs::pipeline(folder.path(), &["convert", "mnist/", "c.lmdb"]).stderr.starts_with(b"error: cannot open the data set mnist/\n")
    );
}
