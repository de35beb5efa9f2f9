//! MNIST and its relatives: pairs of idx files, pictures and labels, plain or `.gz`.
//!
//! A pair is `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte`. A prefix with `t10k` or `test` in it is the split
//! `test`, any other (`train`, `train7011`) is `train`. Both files begin with a big-endian magic number and lengths.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{Dataset, Error, Info, Memory, Result, Sample, memory::Part, unpack};

/// A folder of idx pairs: grey pictures of one size, all in memory.
#[derive(Debug, Clone)]
pub struct Idx(Memory);

/// The names of Fashion-MNIST's classes.
pub(crate) const FASHION: [&str; 10] =
    ["t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// The ten hiragana of KMNIST, romanised: not every font that draws a figure has the characters.
const KMNIST: [&str; 10] = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"];

const IMAGES: u32 = 0x0000_0803;
const LABELS: u32 = 0x0000_0801;

impl Idx {
    /// Reads all pairs of a folder. `name` is what the data set is called, and decides the names of its classes: one with `fashion`
    /// or `kmnist` in it has theirs, one with `mnist` the ten digits, any other the numbers up to the largest training label.
    ///
    /// # Errors
    /// When the folder holds no pair or two for the same split, a label file is missing, a magic number or a length is wrong, pictures
    /// and labels differ in number, or a label names no class.
    pub fn open(folder: impl AsRef<Path>, name: &str) -> Result<Self> {
        let folder = folder.as_ref();
        let mut parts: Vec<(Part, PathBuf)> = Vec::new();
        let mut shape = None;
        for (split, pair) in pairs(folder)? {
            let (part, size) = read_pair(split, &pair)?;
            let wanted = *shape.get_or_insert(size);
            if size != wanted {
                return Err(Error::format(&pair.images, "size of a picture", show(wanted), show(size)));
            }
            parts.push((part, pair.labels));
        }
        let [height, width] = shape.ok_or_else(|| {
            Error::format(folder, "contents", "idx pairs such as train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]", "none")
        })?;
        let classes = class_names(name, &parts[0].0.labels);
        for (part, path) in &parts {
            check_labels(path, &part.labels, classes.len())?;
        }
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        Ok(Self(Memory::new(name, classes, [1, height, width], parts)))
    }
}

impl Dataset for Idx {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        self.0.get(split, index)
    }
}

/// Whether a folder has idx pictures in it.
pub(crate) fn fits(names: &[String]) -> bool {
    names.iter().any(|name| matches!(role(name), Some((_, Role::Images))))
}

struct Pair {
    images: PathBuf,
    labels: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Images,
    Labels,
}

/// The prefix of an idx file's name, and what it holds.
fn role(name: &str) -> Option<(&str, Role)> {
    let name = unpack::plain(name);
    // Some mirrors have a dot where the original has its last hyphen but one.
    let ends = |middle: &str, tail: &str| name.strip_suffix(tail).and_then(|rest| rest.strip_suffix(middle));
    let images = ends("-images", "-idx3-ubyte").or_else(|| ends("-images", ".idx3-ubyte"));
    let labels = ends("-labels", "-idx1-ubyte").or_else(|| ends("-labels", ".idx1-ubyte"));
    images.map(|prefix| (prefix, Role::Images)).or_else(|| labels.map(|prefix| (prefix, Role::Labels)))
}

/// The pairs of a folder, `train` before `test`.
fn pairs(folder: &Path) -> Result<Vec<(&'static str, Pair)>> {
    let mut found: BTreeMap<String, [Option<PathBuf>; 2]> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|source| Error::io(folder, "list", source))? {
        let path = entry.map_err(|source| Error::io(folder, "list", source))?.path();
        let Some((prefix, role)) = path.file_name().and_then(|name| name.to_str()).and_then(role) else { continue };
        let slot = &mut found.entry(prefix.to_owned()).or_default()[role as usize];
        // A file that lies there both packed and unpacked is the same file: the unpacked one is quicker to read.
        if slot.is_none() || path.extension().is_none_or(|ending| ending != "gz") {
            *slot = Some(path);
        }
    }

    let (mut train, mut test) = (None, None);
    let mut widowed = Vec::new();
    for (prefix, files) in found {
        let is_test = prefix.contains("t10k") || prefix.contains("test");
        let [images, labels] = files;
        let Some(images) = images else {
            widowed.extend(labels.map(|labels| (prefix, is_test, labels)));
            continue;
        };
        let Some(labels) = labels else {
            return Err(Error::format(folder, "contents", format!("{prefix}-labels-idx1-ubyte[.gz] beside its pictures"), "no such file"));
        };
        let slot = if is_test { &mut test } else { &mut train };
        if let Some(Pair { images: other, .. }) = slot.replace(Pair { images: images.clone(), labels }) {
            let both = format!("{} and {}", file_name(&other), file_name(&images));
            return Err(Error::format(folder, "contents", "one pair of files for each split", both));
        }
    }
    // Labels without pictures are harmless where the split has a pair (KMNIST's first part comes with all labels); else half is missing.
    for (prefix, is_test, labels) in widowed {
        if (if is_test { &test } else { &train }).is_none() {
            let wanted = format!("{prefix}-images-idx3-ubyte[.gz] beside {}", file_name(&labels));
            return Err(Error::format(folder, "contents", wanted, "no such file"));
        }
    }
    Ok(train.map(|pair| ("train", pair)).into_iter().chain(test.map(|pair| ("test", pair))).collect())
}

/// One split, and the height and width of its pictures.
fn read_pair(split: &str, pair: &Pair) -> Result<(Part, [usize; 2])> {
    let (pixels, [count, height, width]) = read_idx::<3>(&pair.images, IMAGES, "picture")?;
    let (labels, [labelled]) = read_idx::<1>(&pair.labels, LABELS, "label")?;
    if labelled != count {
        let wanted = format!("{count}, one for each picture of {}", file_name(&pair.images));
        return Err(Error::format(&pair.labels, "number of labels", wanted, labelled));
    }
    let part = Part {
        name: split.to_owned(),
        planes: pixels,
        labels: labels.into_iter().map(u32::from).collect(),
        files: vec![(file_name(&pair.images), count)],
    };
    Ok((part, [height, width]))
}

/// The bytes of an idx file of `D` dimensions, the first of which counts records, and those dimensions.
fn read_idx<const D: usize>(path: &Path, magic: u32, record: &str) -> Result<(Vec<u8>, [usize; D])> {
    let mut reader = unpack::open(path)?;
    let (header, _) = unpack::read(path, &mut reader, 4 + 4 * D as u64)?;
    if header.len() < 4 + 4 * D {
        return Err(Error::format(path, "header", format!("{} bytes", 4 + 4 * D), format!("{} bytes", header.len())));
    }
    let mut words = header.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    let found = words.next().expect("the header has 4 bytes and more");
    if found != magic {
        return Err(Error::format(path, "magic number", format!("{magic:#010x}"), format!("{found:#010x}")));
    }
    let mut dims = [0; D];
    dims.iter_mut().zip(words).for_each(|(dim, word)| *dim = word as usize);

    let one = dims[1..].iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)).filter(|&bytes| 0 < bytes && bytes < 1 << 24);
    let one = one.ok_or_else(|| Error::format(path, format!("size of a {record}"), "1 byte to 16 MiB", format!("{:?}", &dims[1..])))?;
    let wanted = dims[0] as u64 * one as u64;
    // One byte more than wanted: that finds a file too long, and makes the decoder compare the checksum behind a `.gz`'s last byte.
    let (bytes, cut) = unpack::read(path, &mut reader, wanted + 1)?;
    if (bytes.len() as u64) < wanted {
        let field = format!("{record} {} of {}", bytes.len() / one, dims[0]);
        let found = format!("{} bytes, then the end of the file", bytes.len() % one);
        return Err(Error::format(path, field, format!("{one} bytes"), found));
    }
    if bytes.len() as u64 > wanted {
        return Err(Error::format(path, format!("end of the file, after {} records", dims[0]), "no more bytes", "more bytes"));
    }
    if cut {
        return Err(Error::format(path, "end of the file", "a checksum", "nothing"));
    }
    Ok((bytes, dims))
}

/// Whether every label is the index of a class.
pub(crate) fn check_labels(path: &Path, labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= classes) {
        Some(at) => Err(Error::format(path, format!("label of record {at}"), format!("0 to {}", classes.saturating_sub(1)), labels[at])),
        None => Ok(()),
    }
}

fn class_names(name: &str, train: &[u32]) -> Vec<String> {
    let name = name.to_lowercase();
    let known = |names: [&str; 10]| names.map(str::to_owned).to_vec();
    if name.contains("fashion") {
        known(FASHION)
    } else if name.contains("kmnist") || name.contains("kuzushiji") {
        known(KMNIST)
    } else if name.contains("mnist") && !name.contains("emnist") {
        (0..10).map(|digit| digit.to_string()).collect()
    } else {
        (0..=train.iter().copied().max().unwrap_or(0)).map(|class| class.to_string()).collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn show([height, width]: [usize; 2]) -> String {
    format!("{height}×{width}")
}
