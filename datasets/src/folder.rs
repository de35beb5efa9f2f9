//! Trees of picture files, a folder a class: what ImageNet is, and what people make of their own pictures.
//!
//! ```text
//! root/train/<class>/**/*.jpg       root/<class>/**/*.jpg        root/train/<wnid>/*.JPEG
//! root/val/<class>/**/*.jpg         (one split, `train`)         root/val/ILSVRC2012_val_00000001.JPEG ..
//! root/test/<class>/**/*.jpg                                     root/<the classes of val, see `Folder::open`>
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    Dataset, Error, Info, Result, Sample,
    classes::{Classes, LabelFile},
    files::{Files, Listing},
};

/// Picture files in class folders; a picture is handed out as the bytes of its file.
#[derive(Debug, Clone)]
pub struct Folder(Listing);

/// A split, and the folders it may lie in.
const SPLITS: [(&str, &[&str]); 2] = [("val", &["val", "validation", "valid"]), ("test", &["test"])];

/// Where the classes of a flat `val/` may be written, in the root or in `val/`.
const LABELS: [&str; 5] = [
    "val_annotations.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
];

/// Where the list of synsets that numeric labels refer to may lie, beside the labels or in the root.
const SYNSETS: &str = "synsets.txt";

impl Folder {
    /// Lists the pictures (JPEG and PNG by the ending of their names; hidden files are left out) of a folder or an archive: a `.zip`, a
    /// `.tar`, `.tar.gz` or `.tar.xz` (also one of tars, a class each). Archives are read where they lie; one that has links, or names
    /// that lead out of it, is refused.
    ///
    /// A class's index is its place among the sorted folders of `train/`, or among the classes of `imagenet_synsets.txt`,
    /// `class_index.json` or `LOC_synset_mapping.txt` where one lies in the root. Pictures are sorted by class and file name, or, in a compressed tar,
    /// as they lie there: only so can they be read in one pass.
    /// The classes of a flat `val/` are looked for in the root and in `val/`: `imagenet_2012_validation_synset_labels.txt` (one
    /// identifier a picture, in the order of their numbers), `ILSVRC2012_validation_ground_truth.txt` with `synsets.txt` beside it (numbers, and the
    /// identifiers that they stand for), `LOC_val_solution.csv` or `*labels.csv` (a file and its class a line, below a header), `val_annotations.txt`.
    ///
    /// # Errors
    /// When there are no class folders, one of them has no picture, another split has a class that `train/` has not, or the pictures
    /// and labels of a flat `val/` do not match one to one.
    pub fn open(path: impl AsRef<Path>, name: &str) -> Result<Self> {
        Self::of(Files::open(path.as_ref())?, name)
    }

    pub(crate) fn of(files: Files, name: &str) -> Result<Self> {
        Self::list(files.around("train")?, name, None)
    }

    /// The ImageNet of ILSVRC2012 as it is published, where the file with the classes of `val/` lies anywhere: an identifier a line, or the
    /// devkit's ground truth with `synsets`, the identifiers in the order of the devkit's ids.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn ilsvrc2012(root: impl AsRef<Path>, labels: &Path, synsets: Option<&Path>) -> Result<Self> {
        let read = |path: &Path| fs::read_to_string(path).map_err(|source| Error::io(path, "read", source));
        let synsets = synsets.map(|path| Ok((path.to_owned(), read(path)?))).transpose()?;
        let labels = LabelFile { path: labels.to_owned(), text: read(labels)?, synsets };
        Self::list(Files::open(root.as_ref())?.around("train")?, "imagenet", Some(labels))
    }

    fn list(files: Files, name: &str, labels: Option<LabelFile>) -> Result<Self> {
        let mut ignored = BTreeMap::new();
        if !files.has_folder("train") {
            let classes = Classes::of_folders(&files, files.folders("")?)?;
            let train = by_class(&files, "", &classes, &mut ignored)?;
            return Ok(Self(Listing::new(name, classes.names(), files, vec![("train", train)], ignored)));
        }
        let classes = Classes::of_list(&files, files.folders("train")?)?;
        let mut splits = vec![("train", by_class(&files, "train", &classes, &mut ignored)?)];
        for (split, places) in SPLITS {
            let Some(place) = places.iter().find(|place| files.has_folder(place)) else { continue };
            let folders = files.folders(place)?;
            // TinyImageNet puts its flat pictures into a folder called images, which is no class.
            let flat = folders.is_empty() || folders == ["images"];
            if !flat {
                splits.push((split, by_class(&files, place, &classes, &mut ignored)?));
            } else if split == "val" {
                let labels = match &labels {
                    Some(labels) => labels.clone(),
                    None => find_labels(&files, place)?,
                };
                splits.push((split, labels.assign(&files.pictures(place, &mut ignored)?, &classes)?));
            } else {
                tracing::info!(folder = %files.path(place).display(), "left out: its pictures have no labels");
            }
        }
        Ok(Self(Listing::new(name, classes.names(), files, splits, ignored)))
    }
}

impl Dataset for Folder {
    fn info(&self) -> &Info {
        self.0.info()
    }

    fn ignored(&self) -> BTreeMap<String, u64> {
        self.0.ignored()
    }

    fn stamp(&self, split: usize, index: usize) -> Option<[u64; 2]> {
        self.0.stamp(split, index)
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        self.0.get(split, index)
    }
}

/// The pictures of a split's folder with the classes of the folders they are in.
pub(crate) fn by_class(files: &Files, split: &str, classes: &Classes, ignored: &mut BTreeMap<String, u64>) -> Result<Vec<(String, u32)>> {
    let folders = files.folders(split)?;
    let pictures = files.pictures(split, ignored)?;
    let mut samples = Vec::with_capacity(pictures.len());
    let depth = if split.is_empty() { 0 } else { split.len() + 1 };
    for folder in &folders {
        let label = classes.index(&files.path(split), || "folder".to_owned(), folder)?;
        // Sorted by bytes, so that what shares a prefix is adjacent; a folder's files are those that go on with a slash.
        let prefix = format!("{}{folder}/", if split.is_empty() { String::new() } else { format!("{split}/") });
        let first = pictures.partition_point(|picture| picture.as_str() < prefix.as_str());
        let mine = pictures[first..].iter().take_while(|picture| picture.starts_with(&prefix));
        let before = samples.len();
        samples.extend(mine.map(|picture| (picture.clone(), label)));
        if samples.len() == before {
            return Err(Error::format(
                files.path(prefix.trim_end_matches('/')),
                "contents",
                "at least one picture (.jpg, .jpeg, .png)",
                "none",
            ));
        }
    }
    if samples.is_empty() {
        return Err(Error::format(files.path(split), "contents", "a folder of pictures for each class", "no folder"));
    }
    if let Some(stray) = pictures.iter().find(|picture| !picture[depth..].contains('/')) {
        return Err(Error::format(files.path(stray), "place", "a picture in the folder of its class", "a picture beside the folders"));
    }
    Ok(samples)
}

fn find_labels(files: &Files, val: &str) -> Result<LabelFile> {
    let tables = files.top()?.into_iter().filter(|name| name.ends_with("labels.csv"));
    let mut places = LABELS.iter().flat_map(|name| [(*name).to_owned(), format!("{val}/{name}")]).chain(tables);
    let Some(labels) = places.find(|name| files.has_file(name)) else {
        let wanted = format!("the classes of its pictures in one of {}, or in *labels.csv", LABELS.join(", "));
        return Err(Error::format(files.path(val), "labels", wanted, "none of these files"));
    };
    let beside = labels.rsplit_once('/').map_or_else(|| SYNSETS.to_owned(), |(folder, _)| format!("{folder}/{SYNSETS}"));
    let synsets = [beside.as_str(), SYNSETS].into_iter().find(|name| files.has_file(name));
    let synsets = synsets.map(|name| Ok((files.path(name), files.text(name)?))).transpose()?;
    Ok(LabelFile { path: files.path(&labels), text: files.text(&labels)?, synsets })
}
