//! CIFAR-10 and CIFAR-100, the binary version: a folder of `.bin` files, or the archive as it is published.
//!
//! A record is the label (CIFAR-100: the coarse label, then the fine one, which is the class here) and 3,072 bytes: the red, the green
//! and the blue plane of a 32×32 picture, each row after row.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
};

use crate::{Dataset, Error, Info, Memory, Result, Sample, idx::check_labels, memory::Part, unpack};

/// CIFAR-10 or CIFAR-100, all in memory.
#[derive(Debug, Clone)]
pub struct Cifar(Memory);

/// CIFAR-10's classes, where no `batches.meta.txt` says them.
pub(crate) const CLASSES_10: &str = "airplane automobile bird cat deer dog frog horse ship truck";

/// CIFAR-100's fine classes, where no `fine_label_names.txt` says them.
const CLASSES_100: &str = "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can \
     castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest \
     fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse \
     mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray \
     road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank \
     telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm";

const PIXELS: usize = 3 * 32 * 32;

/// Ten times the records of the largest published file: where reading stops, whatever a compressed file claims to hold.
const LIMIT: u64 = 500_000 * (PIXELS as u64 + 2);

/// Which of the two data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ten,
    Hundred,
}

impl Cifar {
    /// Reads a folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or with `train.bin` and `test.bin`, each
    /// plain, `.gz` or `.xz`; or a `.tar`, `.tar.gz` or `.tar.xz` that holds them. Its name is `cifar10` or `cifar100`.
    ///
    /// # Errors
    /// When a file is missing, does not consist of whole records, or has a label that names no class.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (kind, mut files) = if path.is_dir() { read_folder(path)? } else { read_archive(path)? };
        let classes = match files.remove(kind.names_file()) {
            Some((path, bytes)) => class_names(&path, &bytes, kind)?,
            None => kind.classes().split_whitespace().map(str::to_owned).collect(),
        };
        let mut parts = Vec::new();
        for (split, names) in [("train", kind.train()), ("test", kind.test())] {
            let mut part = Part { name: split.to_owned(), ..Part::default() };
            for name in names {
                let (file, bytes) =
                    files.remove(*name).ok_or_else(|| Error::format(path, "contents", format!("{name}[.gz|.xz]"), "no such file"))?;
                append(&mut part, kind, &file, &bytes)?;
            }
            parts.push(part);
        }
        Ok(Self(Memory::new(kind.name(), classes, [3, 32, 32], parts)))
    }
}

impl Dataset for Cifar {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        self.0.get(split, index)
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ten => "cifar10",
            Self::Hundred => "cifar100",
        }
    }

    fn train(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
            Self::Hundred => &["train.bin"],
        }
    }

    fn test(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &["test_batch.bin"],
            Self::Hundred => &["test.bin"],
        }
    }

    fn names_file(self) -> &'static str {
        match self {
            Self::Ten => "batches.meta.txt",
            Self::Hundred => "fine_label_names.txt",
        }
    }

    fn classes(self) -> &'static str {
        match self {
            Self::Ten => CLASSES_10,
            Self::Hundred => CLASSES_100,
        }
    }

    fn count(self) -> usize {
        self.classes().split_whitespace().count()
    }

    /// Which data set has a file of this name, compressed or not.
    fn of(name: &str) -> Option<Self> {
        let name = unpack::plain(name);
        [Self::Ten, Self::Hundred].into_iter().find(|kind| kind.train().contains(&name) || kind.test().contains(&name))
    }
}

/// Which data set a folder with files of these names holds.
pub(crate) fn fits(names: &[String]) -> Option<Kind> {
    names.iter().find_map(|name| Kind::of(name))
}

/// By plain name: where a file was found, and its bytes.
type Found = BTreeMap<String, (PathBuf, Vec<u8>)>;

fn read_folder(folder: &Path) -> Result<(Kind, Found)> {
    let mut paths: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|source| Error::io(folder, "list", source))? {
        let path = entry.map_err(|source| Error::io(folder, "list", source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let plain = unpack::plain(name);
        // Where a file lies there both packed and unpacked, the unpacked one is quicker to read.
        if !paths.contains_key(plain) || plain == name {
            paths.insert(plain.to_owned(), path);
        }
    }
    let kind = only_kind(folder, paths.keys())?;
    paths.retain(|name, _| Kind::of(name) == Some(kind) || name == kind.names_file());

    // Unpacking takes seconds a file, and the files are few: a thread each.
    let files = thread::scope(|scope| {
        let readers: Vec<_> = paths.into_iter().map(|(name, path)| scope.spawn(move || read_file(name, path))).collect();
        readers.into_iter().map(|reader| reader.join().expect("reading does not panic")).collect::<Result<Found>>()
    })?;
    Ok((kind, files))
}

fn read_file(name: String, path: PathBuf) -> Result<(String, (PathBuf, Vec<u8>))> {
    let (bytes, cut) = unpack::read(&path, unpack::open(&path)?, LIMIT)?;
    check_whole(&path, &bytes, cut)?;
    Ok((name, (path, bytes)))
}

fn read_archive(path: &Path) -> Result<(Kind, Found)> {
    let mut files = Found::new();
    let mut archive = tar::Archive::new(unpack::open(path)?);
    for entry in archive.entries().map_err(|source| Error::io(path, "list", source))? {
        let entry = entry.map_err(|source| Error::io(path, "list", source))?;
        let Some(name) = base_name(&entry.path_bytes()) else { continue };
        if Kind::of(&name).is_none() && ![Kind::Ten, Kind::Hundred].iter().any(|kind| name == kind.names_file()) {
            continue;
        }
        let inner = path.join(&name);
        let size = entry.size();
        let (bytes, cut) = unpack::read(&inner, entry, LIMIT)?;
        check_whole(&inner, &bytes, cut || (bytes.len() as u64) < size)?;
        files.insert(name, (inner, bytes));
    }
    Ok((only_kind(path, files.keys())?, files))
}

fn only_kind<'a>(path: &Path, names: impl Iterator<Item = &'a String>) -> Result<Kind> {
    let names: Vec<String> = names.cloned().collect();
    let mut kinds = [Kind::Ten, Kind::Hundred].into_iter().filter(|&kind| names.iter().any(|name| Kind::of(name) == Some(kind)));
    let wanted = "data_batch_1.bin to data_batch_5.bin and test_batch.bin, or train.bin and test.bin, each plain, .gz or .xz";
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) => Ok(kind),
        (None, _) => Err(Error::format(path, "contents", wanted, "none of them")),
        (Some(_), Some(_)) => Err(Error::format(path, "contents", wanted, "some of both")),
    }
}

fn check_whole(path: &Path, bytes: &[u8], cut: bool) -> Result<()> {
    if cut {
        return Err(Error::format(path, "end of the file", "more records", format!("a cut after {} bytes", bytes.len())));
    }
    if bytes.len() as u64 == LIMIT {
        return Err(Error::format(path, "length", format!("less than {LIMIT} bytes"), "more"));
    }
    Ok(())
}

/// The last component of a path in an archive; none for the hidden files that some systems add.
fn base_name(path: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(path).ok()?.rsplit('/').next()?;
    (!name.starts_with('.')).then(|| name.to_owned())
}

fn append(part: &mut Part, kind: Kind, path: &Path, bytes: &[u8]) -> Result<()> {
    let header = if kind == Kind::Ten { 1 } else { 2 };
    let length = header + PIXELS;
    let records = bytes.chunks_exact(length);
    if records.len() == 0 || !records.remainder().is_empty() {
        let found = format!("{} bytes, then the end of the file", records.remainder().len());
        return Err(Error::format(path, format!("record {}", records.len()), format!("{length} bytes"), found));
    }
    let labels: Vec<u32> = records.clone().map(|record| u32::from(record[header - 1])).collect();
    check_labels(path, &labels, kind.count())?;
    part.planes.reserve_exact(labels.len() * PIXELS);
    records.for_each(|record| part.planes.extend_from_slice(&record[header..]));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    part.files.push((name, labels.len()));
    part.labels.extend(labels);
    Ok(())
}

fn class_names(path: &Path, bytes: &[u8], kind: Kind) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.len() != kind.count() {
        return Err(Error::format(path, "number of lines", format!("{}, one a class", kind.count()), names.len()));
    }
    Ok(names)
}
