//! TinyImageNet as it is published: 200 classes of 64×64 JPEG files, in a folder or still in the `.zip` (or any other archive).
//!
//! Training pictures lie in `train/<wnid>/images/`; validation pictures lie flat in `val/images/`, with their classes in
//! `val/val_annotations.txt`. The published `test/` has no labels and is not read.

use std::{collections::BTreeMap, path::Path};

use crate::{
    Dataset, Error, Info, Result, Sample,
    classes::{Classes, LabelFile},
    files::{Files, Listing},
    folder::by_class,
};

/// TinyImageNet; a picture is handed out as the bytes of its file.
#[derive(Debug, Clone)]
pub struct TinyImagenet(Listing);

const ANNOTATIONS: &str = "val/val_annotations.txt";

impl TinyImagenet {
    /// Lists the pictures of a folder or archive that has `train/` in it, or has a folder in it that does.
    ///
    /// A class's index is its place among the sorted folders of `train/`; its name is the wnid, followed by the first of its words
    /// where `words.txt` is there. Training pictures are sorted by class and file name, validation pictures as the annotations list them.
    ///
    /// # Errors
    /// When `train/`, a class's pictures or the annotations are missing, or an annotation names a file that is not there or a class
    /// that is not in `train/`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Files::open(path.as_ref())?)
    }

    pub(crate) fn of(files: Files) -> Result<Self> {
        let files = files.around("train")?;
        let mut ignored = BTreeMap::new();
        let folders = files.folders("train")?;
        if folders.is_empty() {
            return Err(Error::format(files.path("train"), "contents", "a folder for each class", "none"));
        }
        if !files.has_file(ANNOTATIONS) {
            return Err(Error::format(
                files.path("val"),
                "contents",
                "val_annotations.txt, the classes of the validation pictures",
                "no such file",
            ));
        }
        let classes = Classes::of_folders(&files, folders)?;
        let train = by_class(&files, "train", &classes, &mut ignored)?;
        let labels = LabelFile { path: files.path(ANNOTATIONS), text: files.text(ANNOTATIONS)?, synsets: None };
        let val = labels.assign(&files.pictures("val/images", &mut ignored)?, &classes)?;
        Ok(Self(Listing::new("tiny-imagenet", classes.names(), files, vec![("train", train), ("val", val)], ignored)))
    }
}

impl Dataset for TinyImagenet {
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

/// Whether a tree has what tells TinyImageNet from other trees of class folders.
pub(crate) fn fits(files: &Files) -> bool {
    files.has_file("wnids.txt") || files.has_file(ANNOTATIONS) && files.has_folder("val/images")
}
