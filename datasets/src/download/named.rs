//! The public data sets by name: where their files are, how long they are, and what they hash to.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{SILENCE, Wanted, client, fetch_from};
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
    /// URLs of the folders that have it, without a slash at the end, in the order in which they are asked.
    pub mirrors: &'static [&'static str],
}

impl Published {
    const fn new(name: &'static str, size: u64, sha256: &'static str, mirrors: &'static [&'static str]) -> Self {
        Self { name, size, sha256, mirrors }
    }
}

const MNIST: &[&str] = &["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"];
const FASHION: &[&str] = &[
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
];
const KMNIST: &[&str] = &["https://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist/dataset/kmnist"];
const TORONTO: &[&str] = &["https://www.cs.toronto.edu/~kriz"];
const STANFORD: &[&str] = &["https://cs231n.stanford.edu", "http://cs231n.stanford.edu"];

/// The published files of a data set; none of ImageNet, which is not given to everybody, nor of data of one's own.
///
/// Where the sizes and digests are from: those of MNIST, Fashion-MNIST, and KMNIST's test images and all its labels are of the files
/// themselves, whose MD5 sums are the published ones. Several projects that know nothing of each other list those of KMNIST's training
/// images, CIFAR-10, CIFAR-100 and TinyImageNet alike.
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

/// What [`named`] knows: `mnist`, `fashion-mnist`, `kmnist`, `cifar10`, `cifar100`, `tiny-imagenet`.
pub fn names() -> Vec<&'static str> {
    Source::ALL.into_iter().filter(|source| !files(*source).is_empty()).map(Source::name).collect()
}

/// A public data set by its name: its files are downloaded to `folder/NAME`, as far as they are not there yet, and opened.
///
/// `progress` is told, for each file, its name, the bytes that are there, and the bytes there will be. A download that is interrupted is
/// taken up by the next call. Without a network, put the published files into `folder/NAME` by other means; they are checked likewise.
///
/// ```no_run
/// use datasets::{Dataset, download};
///
/// let cifar = download::named("cifar10", "data", |file, done, size| println!("{file}: {done} of {size} bytes"))?;
/// assert_eq!(cifar.info().splits[0].len, 50_000);
/// # Ok::<(), datasets::Error>(())
/// ```
///
/// # Errors
/// When there is no public data set of this name (the message lists all), when no server has a file, when a file is not what was
/// published, and as [`open_as`].
pub fn named(name: &str, folder: impl AsRef<Path>, progress: impl FnMut(&str, u64, u64)) -> Result<Box<dyn Dataset>> {
    let Some(source) = Source::ALL.into_iter().find(|source| source.name() == name && !files(*source).is_empty()) else {
        return Err(Error::config("public data set", "name", format!("one of {}", names().join(", ")), name));
    };
    published(source, files(source), folder.as_ref().join(name), progress)
}

/// As [`named`], of files that the caller lists: those of a mirror of one's own, or another edition. They are kept in `folder`. One file
/// alone is an archive, which is read as it is; several are files of a folder.
///
/// # Errors
/// As [`named`].
pub fn published(
    source: Source,
    files: &[Published],
    folder: impl AsRef<Path>,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<Box<dyn Dataset>> {
    let (folder, client) = (folder.as_ref(), client(SILENCE));
    for file in files {
        let urls: Vec<String> = file.mirrors.iter().map(|mirror| format!("{mirror}/{}", file.name)).collect();
        let wanted = Wanted { size: file.size, sha256: file.sha256 };
        fetch_from(&urls, &folder.join(file.name), &wanted, &client, |done, size| progress(file.name, done, size))?;
    }
    match files {
        [file] => open_as(source, folder.join(file.name)),
        _ => open_as(source, folder),
    }
}

/// Where downloads are kept unless the user names a folder: `topolab/data` in the user's cache, which is what `XDG_CACHE_HOME` says, or
/// `.cache` in the home folder where that is not set; none without either. The caller reads the environment, no library function does.
///
/// ```
/// use datasets::download::default_folder;
///
/// assert_eq!(default_folder(None, Some("/srv/ada".into())), Some("/srv/ada/.cache/topolab/data".into()));
/// assert_eq!(default_folder(Some("/big/cache".into()), None), Some("/big/cache/topolab/data".into()));
/// ```
pub fn default_folder(xdg_cache_home: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored.
    let cache = xdg_cache_home.map(PathBuf::from).filter(|cache| cache.is_absolute());
    Some(cache.or_else(|| Some(home?.join(".cache")))?.join("topolab/data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_digest_and_mirrors() {
        assert_eq!(names(), ["mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "tiny-imagenet"]);
        for file in Source::ALL.into_iter().flat_map(files) {
            assert!(file.sha256.len() == 64 && file.sha256.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()), "{file:?}");
            assert!(
                !file.mirrors.is_empty() && file.mirrors.iter().all(|mirror| mirror.starts_with("http") && !mirror.ends_with('/')),
                "{file:?}"
            );
        }
    }
}
