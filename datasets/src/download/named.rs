//! The public data sets by name: where their files are, how long they are, and what they hash to.

use std::path::Path;

use super::fetch;
use crate::{Dataset, Error, Result, Source, open_as};

/// One published file of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 hexadecimal digits.
    pub sha256: &'static str,
    /// Folders on the web that have it; the first that answers is taken.
    pub places: &'static [&'static str],
}

impl Published {
    const fn new(name: &'static str, size: u64, sha256: &'static str, places: &'static [&'static str]) -> Self {
        Self { name, size, sha256, places }
    }
}

const MNIST: &[&str] = &["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"];
const FASHION: &[&str] = &["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"];
const KMNIST: &[&str] = &["https://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist/dataset/kmnist"];
const TORONTO: &[&str] = &["https://www.cs.toronto.edu/~kriz"];
const STANFORD: &[&str] = &["http://cs231n.stanford.edu"];

/// What is published of a data set; nothing of those that nobody may download without asking, or that are the user's own.
///
/// The digests are of files that independent collections list alike; those of MNIST and Fashion-MNIST were computed from the files, too.
pub fn files(source: Source) -> &'static [Published] {
    match source {
        Source::Mnist => {
            const {
                &[
                    Published::new(
                        "train-images-idx3-ubyte.gz",
                        9_912_422,
                        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                        MNIST,
                    ),
                    Published::new(
                        "train-labels-idx1-ubyte.gz",
                        28_881,
                        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                        MNIST,
                    ),
                    Published::new(
                        "t10k-images-idx3-ubyte.gz",
                        1_648_877,
                        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                        MNIST,
                    ),
                    Published::new(
                        "t10k-labels-idx1-ubyte.gz",
                        4_542,
                        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                        MNIST,
                    ),
                ]
            }
        }
        Source::FashionMnist => {
            const {
                &[
                    Published::new(
                        "train-images-idx3-ubyte.gz",
                        26_421_880,
                        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                        FASHION,
                    ),
                    Published::new(
                        "train-labels-idx1-ubyte.gz",
                        29_515,
                        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                        FASHION,
                    ),
                    Published::new(
                        "t10k-images-idx3-ubyte.gz",
                        4_422_102,
                        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                        FASHION,
                    ),
                    Published::new(
                        "t10k-labels-idx1-ubyte.gz",
                        5_148,
                        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                        FASHION,
                    ),
                ]
            }
        }
        Source::Kmnist => {
            const {
                &[
                    Published::new(
                        "train-images-idx3-ubyte.gz",
                        18_165_135,
                        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                        KMNIST,
                    ),
                    Published::new(
                        "train-labels-idx1-ubyte.gz",
                        29_497,
                        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                        KMNIST,
                    ),
                    Published::new(
                        "t10k-images-idx3-ubyte.gz",
                        3_041_136,
                        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
                        KMNIST,
                    ),
                    Published::new(
                        "t10k-labels-idx1-ubyte.gz",
                        5_120,
                        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
                        KMNIST,
                    ),
                ]
            }
        }
        Source::Cifar10 => {
            const {
                &[Published::new(
                    "cifar-10-binary.tar.gz",
                    170_052_171,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    TORONTO,
                )]
            }
        }
        Source::Cifar100 => {
            const {
                &[Published::new(
                    "cifar-100-binary.tar.gz",
                    168_513_733,
                    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                    TORONTO,
                )]
            }
        }
        Source::TinyImagenet => {
            // Stanford publishes no digest; this one is what many independent downloads have had since 2016.
            const {
                &[Published::new(
                    "tiny-imagenet-200.zip",
                    248_100_043,
                    "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
                    STANFORD,
                )]
            }
        }
        Source::Idx | Source::Imagenet | Source::Folder => &[],
    }
}

/// A public data set: its files are downloaded to `folder/NAME`, as far as they are not there yet, and opened.
///
/// `progress` is told, for each file, its name, the bytes that are there, and the bytes there will be. A download that is interrupted is
/// taken up by the next call.
///
/// ```no_run
/// use datasets::{Dataset, Source, download};
///
/// let cifar = download::named(Source::Cifar10, "data", |name, done, size| println!("{name}: {done} of {size} bytes"))?;
/// assert_eq!(cifar.info().name, "cifar10");
/// # Ok::<(), datasets::Error>(())
/// ```
///
/// # Errors
/// When nothing is published of that source, or as [`fetch`] and [`open_as`].
pub fn named(source: Source, folder: impl AsRef<Path>, progress: impl FnMut(&str, u64, u64)) -> Result<Box<dyn Dataset>> {
    let files = files(source);
    let folder = folder.as_ref().join(source.name());
    if files.is_empty() {
        let known: Vec<&str> = Source::ALL.into_iter().filter(|source| !self::files(*source).is_empty()).map(Source::name).collect();
        return Err(Error::config("download", "source", format!("one of {}", known.join(", ")), source));
    }
    fetch_all(files, &folder, progress)?;
    match files {
        // An archive is read as it is.
        [file] => open_as(source, folder.join(file.name)),
        _ => open_as(source, folder),
    }
}

/// Fetches files from the first of their places that has them.
fn fetch_all(files: &[Published], folder: &Path, mut progress: impl FnMut(&str, u64, u64)) -> Result<()> {
    for file in files {
        let mut last = None;
        for place in file.places {
            let url = format!("{place}/{}", file.name);
            match fetch(&url, folder.join(file.name), file.size, file.sha256, |done, size| progress(file.name, done, size)) {
                Ok(()) => {
                    last = None;
                    break;
                }
                // Another place may have what this one has not. What is wrong with this machine is wrong with all of them.
                Err(error @ (Error::Download { .. } | Error::Format { .. })) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = last {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// Serves `content` under the name `a` in the folder `good`, and nothing in others; where it is.
    fn serve(content: &'static [u8]) -> &'static str {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let request = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect::<Vec<_>>();
                let (status, body) = if request[0].starts_with("GET /good/a ") { ("200 OK", content) } else { ("404 Not Found", &b""[..]) };
                let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body)).unwrap();
            }
        });
        address.leak()
    }

    #[test]
    fn the_second_place_is_asked_when_the_first_has_nothing() {
        let server = serve(b"abc");
        let place = |name: &str| -> &'static str { format!("{server}/{name}").leak() };
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of `abc`, FIPS 180-2
        let folder = std::env::temp_dir().join(format!("topolab-download-{}", std::process::id()));
        let bad: &[&str] = vec![place("bad")].leak();
        let error = fetch_all(&[Published::new("a", 3, sha256, bad)], &folder, |_, _, _| {}).unwrap_err();
        assert!(matches!(&error, Error::Download { url, .. } if *url == format!("{server}/bad/a")), "{error}");
        let both: &[&str] = vec![place("bad"), place("good")].leak();
        let mut told = vec![];
        fetch_all(&[Published::new("a", 3, sha256, both)], &folder, |name, done, size| told.push((name.to_owned(), done, size))).unwrap();
        assert_eq!(std::fs::read(folder.join("a")).unwrap(), b"abc");
        assert_eq!(told.last(), Some(&("a".to_owned(), 3, 3)));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_nowhere_published_is_refused_with_what_is() {
        let error = named(Source::Imagenet, "nowhere", |_, _, _| {}).err().unwrap().to_string();
        assert_eq!(error, "download: source: wanted one of mnist, fashion-mnist, kmnist, cifar10, cifar100, tiny-imagenet, found imagenet");
        assert!(!Path::new("nowhere").exists());
    }

    #[test]
    fn every_digest_is_one() {
        for file in Source::ALL.into_iter().flat_map(files) {
            assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()), "{file:?}");
            assert!(
                !file.places.is_empty() && file.places.iter().all(|place| place.starts_with("http") && !place.ends_with('/')),
                "{file:?}"
            );
        }
    }
}
