//! Finds out which reader a path wants.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{
    Cifar, Dataset, Error, Folder, Idx, Result, TinyImagenet,
    cifar::{self, Kind},
    files::Files,
    idx, tiny_imagenet,
};

/// What a path can hold. As text, in serde and on command lines, it is the name that [`Source::name`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A folder of MNIST's idx files.
    Mnist,
    /// A folder of Fashion-MNIST's idx files.
    FashionMnist,
    /// A folder of KMNIST's idx files.
    Kmnist,
    /// A folder of other idx files; the data set takes the folder's name.
    Idx,
    /// CIFAR-10, binary version: a folder or an archive.
    Cifar10,
    /// CIFAR-100, binary version: a folder or an archive.
    Cifar100,
    /// TinyImageNet: a folder or an archive.
    TinyImagenet,
    /// ImageNet as ILSVRC2012 published it, or any part of it in that layout.
    Imagenet,
    /// Pictures in class folders; the data set takes the root's name.
    Folder,
}

impl Source {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Mnist,
        Self::FashionMnist,
        Self::Kmnist,
        Self::Idx,
        Self::Cifar10,
        Self::Cifar100,
        Self::TinyImagenet,
        Self::Imagenet,
        Self::Folder,
    ];

    /// What it is called: `mnist`, `fashion-mnist`, .., `folder`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Kmnist => "kmnist",
            Self::Idx => "idx",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::TinyImagenet => "tiny-imagenet",
            Self::Imagenet => "imagenet",
            Self::Folder => "folder",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|source| source.name() == name).ok_or_else(|| Error::config("source", "name", known(), name))
    }
}

/// The data set at `path`, whatever it is: [`guess`], then [`open_as`].
///
/// # Errors
/// When nothing that can be read is there, or it cannot be read.
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Dataset>> {
    let (source, path, files) = look_at(path.as_ref())?;
    open_files(source, &path, files)
}

/// The data set at `path`, read as what the caller says it is.
///
/// # Errors
/// When it is not that, or cannot be read.
pub fn open_as(source: Source, path: impl AsRef<Path>) -> Result<Box<dyn Dataset>> {
    open_files(source, &inner(path.as_ref())?, None)
}

/// The data set at `path`, whose files have been listed where they lie in an archive: a second time could take minutes.
fn open_files(source: Source, path: &Path, files: Option<Files>) -> Result<Box<dyn Dataset>> {
    let tree = || files.map_or_else(|| Files::open(path), Ok);
    Ok(match source {
        Source::Mnist | Source::FashionMnist | Source::Kmnist => Box::new(Idx::open(path, source.name())?),
        Source::Idx => Box::new(Idx::open(path, &name_of(path))?),
        Source::Cifar10 | Source::Cifar100 => {
            let cifar = Cifar::open(path)?;
            if cifar.info().name != source.name() {
                return Err(Error::format(path, "contents", source, &cifar.info().name));
            }
            Box::new(cifar)
        }
        Source::TinyImagenet => Box::new(TinyImagenet::of(tree()?)?),
        Source::Imagenet => Box::new(Folder::of(tree()?, source.name())?),
        Source::Folder => Box::new(Folder::of(tree()?, &name_of(path))?),
    })
}

/// What is at `path`, by the names of the files there: no picture is read.
///
/// # Errors
/// When it is nothing that can be read; the message lists what was looked for.
pub fn guess(path: impl AsRef<Path>) -> Result<Source> {
    Ok(look_at(path.as_ref())?.0)
}

/// What is at `path`, where exactly, and the files of an archive.
fn look_at(path: &Path) -> Result<(Source, PathBuf, Option<Files>)> {
    let path = inner(path)?;
    let (kind, files) = match path.is_dir() {
        true => (look(&path)?, None),
        false if ends(&path, ARCHIVES) => {
            let files = Files::open(&path)?;
            (look_into(&files)?, Some(files))
        }
        false => (path.metadata().map(|_| None).map_err(|source| Error::io(&path, "open", source))?, None),
    };
    let source = kind.ok_or_else(|| {
        let wanted = "a folder with idx files (train-images-idx3-ubyte[.gz]), CIFAR's .bin files or its .tar.gz, a TinyImageNet folder or \
                      archive, or class folders of .jpg, .jpeg or .png files (<class>/.. or train/<class>/..), also in a .zip or .tar[.gz]";
        Error::format(&path, "contents", wanted, listing(&path))
    })?;
    Ok((source, path, files))
}

/// The endings of what is an archive.
const ARCHIVES: &[&str] = &[".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz"];

/// What an archive holds, none if it is nothing known.
fn look_into(files: &Files) -> Result<Option<Source>> {
    let bases: Vec<String> = files.archived("").iter().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect();
    match cifar::fits(&bases) {
        Some(kind) => Ok(Some(of_cifar(kind))),
        None => look_at_tree(&files.clone().around("train")?),
    }
}

/// A folder that holds nothing known but one more folder is a wrapping, as archives and downloaders leave it.
fn inner(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() || look(path)?.is_some() {
        return Ok(path.to_owned());
    }
    let folders = Files::open(path)?.folders("")?;
    let [only] = folders.as_slice() else { return Ok(path.to_owned()) };
    let deeper = inner(&path.join(only))?;
    Ok(if look(&deeper)?.is_some() { deeper } else { path.to_owned() })
}

/// What a folder holds, none if it is nothing known.
fn look(path: &Path) -> Result<Option<Source>> {
    let files = Files::open(path)?;
    let names = files.top()?;
    if idx::fits(&names) {
        return Ok(Some(match name_of(path) {
            name if name.contains("fashion") => Source::FashionMnist,
            name if name.contains("kmnist") || name.contains("kuzushiji") => Source::Kmnist,
            name if name.contains("mnist") && !name.contains("emnist") => Source::Mnist,
            _ => Source::Idx,
        }));
    }
    match cifar::fits(&names) {
        Some(kind) => Ok(Some(of_cifar(kind))),
        None => look_at_tree(&files),
    }
}

fn look_at_tree(files: &Files) -> Result<Option<Source>> {
    let mut ignored = BTreeMap::new();
    if !files.has_folder("train") {
        // One folder alone is a wrapping rather than a class.
        let folders = files.folders("")?;
        let Some(last) = folders.last().filter(|_| folders.len() > 1) else { return Ok(None) };
        return Ok((!files.pictures(last, &mut ignored)?.is_empty()).then_some(Source::Folder));
    }
    if files.folders("train")?.is_empty() {
        return Ok(None);
    }
    if tiny_imagenet::fits(files) {
        return Ok(Some(Source::TinyImagenet));
    }
    // ILSVRC's validation pictures lie flat, under names that nobody else gives.
    let ilsvrc = files.has_folder("val")
        && files.folders("val")?.is_empty()
        && files.pictures("val", &mut ignored)?.iter().any(|name| name.contains("ILSVRC"));
    Ok(Some(if ilsvrc { Source::Imagenet } else { Source::Folder }))
}

fn of_cifar(kind: Kind) -> Source {
    match kind {
        Kind::Ten => Source::Cifar10,
        Kind::Hundred => Source::Cifar100,
    }
}

fn ends(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    endings.iter().any(|ending| name.ends_with(ending))
}

/// What to call the data set at a path: its last component in lower case, without the ending of an archive, spaces made hyphens.
/// A folder called `raw` (torchvision's habit) says nothing, so its parent is asked.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let path = if path.ends_with("raw") { path.parent().unwrap_or(&path) } else { &path };
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = ARCHIVES.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    plain.replace(char::is_whitespace, "-")
}

/// A few of the names at a path, for a message.
fn listing(path: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(path) else { return "a file of another kind".to_owned() };
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    match names.len() {
        0 => "an empty folder".to_owned(),
        len if len > 5 => format!("{} and {} more", names[..5].join(", "), len - 5),
        _ => names.join(", "),
    }
}
