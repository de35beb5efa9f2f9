//! Which classes there are, and which one each picture of a flat folder belongs to.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{Error, Result, files::Files};

/// Lists of classes in use, the later ones with words: where several are there, they add up.
const LISTS: [&str; 4] = ["imagenet_synsets.txt", "class_index.json", "imagenet_class_index.json", "LOC_synset_mapping.txt"];

/// Class identifiers in alphabetical order, which is the order of their indices, and what people call them.
#[derive(Debug, Clone)]
pub(crate) struct Classes {
    ids: Vec<String>,
    words: BTreeMap<String, String>,
}

impl Classes {
    /// One class a folder; names from `words.txt` where it is there.
    pub(crate) fn of_folders(files: &Files, folders: Vec<String>) -> Result<Self> {
        let words = if files.has_file("words.txt") { pairs(&files.text("words.txt")?).into_iter().collect() } else { BTreeMap::new() };
        Ok(Self { ids: folders, words })
    }

    /// The classes that a list in the root names, or else one a folder. The list may have more than there are folders: a part of
    /// ImageNet keeps ImageNet's indices.
    pub(crate) fn of_list(files: &Files, folders: Vec<String>) -> Result<Self> {
        let mut listed = BTreeMap::new();
        for list in LISTS {
            if !files.has_file(list) {
                continue;
            }
            if list.ends_with(".json") {
                let index: BTreeMap<String, [String; 2]> = serde_json::from_slice(&files.read(list)?)
                    .map_err(|error| Error::format(files.path(list), "contents", "{\"0\": [identifier, words], ..}", error))?;
                listed.extend(index.into_values().map(|[id, words]| (id, words)));
            } else {
                listed.extend(pairs(&files.text(list)?));
            }
        }
        if listed.is_empty() {
            return Self::of_folders(files, folders);
        }
        let classes = Self { ids: listed.keys().cloned().collect(), words: listed };
        for folder in folders {
            classes.index(&files.path("train"), || "folder".to_owned(), &folder)?;
        }
        Ok(classes)
    }

    /// The index of class `id`.
    ///
    /// # Errors
    /// When there is no such class; `field` says where in the file at `path` it is named.
    pub(crate) fn index(&self, path: &Path, field: impl Fn() -> String, id: &str) -> Result<u32> {
        let wanted = || format!("one of the {} training classes", self.ids.len());
        let index = self.ids.binary_search_by(|known| known.as_str().cmp(id)).map_err(|_| Error::format(path, field(), wanted(), id))?;
        Ok(index as u32)
    }

    /// For people: the identifier, followed by the first of its names where they are known, as in `n01443537 goldfish`.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |id: &String| match self.words.get(id).and_then(|words| words.split(',').next()).map(str::trim) {
            Some(word) if !word.is_empty() => format!("{id} {word}"),
            _ => id.clone(),
        };
        self.ids.iter().map(name).collect()
    }
}

/// Lines of an identifier and, behind white space, what it is called: nothing where a line has no more.
fn pairs(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
        .map(|(id, words)| (id.to_owned(), words.trim().to_owned()))
        .collect()
}

/// A file that says which class each picture of a flat folder has.
#[derive(Debug, Clone)]
pub(crate) struct LabelFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The list that numeric labels refer to, from 1 on.
    pub(crate) synsets: Option<(PathBuf, String)>,
}

impl LabelFile {
    /// The pictures with their classes, in the order of the file. The form is told by the first line: comma-separated with a header
    /// (`file,class,..`), a file name and a class (`val_0.JPEG n03444034 ..`), or one class a picture in the order of the pictures'
    /// numbers, by identifier (`n01751748`) or by its place in the list of synsets (`490`).
    ///
    /// # Errors
    /// When the file and the pictures do not match one to one, or a class is unknown.
    pub(crate) fn assign(&self, pictures: &[String], classes: &Classes) -> Result<Vec<(String, u32)>> {
        let first = self.text.lines().next().unwrap_or_default();
        if first.contains(',') {
            self.by_name(1, comma_fields, pictures, classes)
        } else if first.split_whitespace().count() > 1 {
            self.by_name(0, word_fields, pictures, classes)
        } else {
            self.by_number(pictures, classes)
        }
    }

    /// Each line behind the first `header` ones names a file, with or without its ending, and a class.
    fn by_name(&self, header: usize, fields: Fields, pictures: &[String], classes: &Classes) -> Result<Vec<(String, u32)>> {
        let mut unlabelled: BTreeMap<&str, &String> = BTreeMap::new();
        for picture in pictures {
            unlabelled.insert(stem(base(picture)), picture);
        }
        let mut samples = Vec::with_capacity(pictures.len());
        for (at, line) in self.text.lines().enumerate().skip(header).filter(|(_, line)| !line.trim().is_empty()) {
            let field = || format!("line {}", at + 1);
            let (file, class) = fields(line).ok_or_else(|| Error::format(&self.path, field(), "a file name and a class", line))?;
            let picture = unlabelled.remove(stem(file));
            let picture = picture.ok_or_else(|| {
                Error::format(&self.path, field(), format!("picture {file}, once"), "no such file, or a second line for it")
            })?;
            samples.push((picture.clone(), classes.index(&self.path, field, class)?));
        }
        match unlabelled.into_values().next() {
            Some(picture) => Err(Error::format(&self.path, "lines", format!("one for picture {}", base(picture)), "none")),
            None => Ok(samples),
        }
    }

    /// Line `k` has the class of the picture whose name ends in the number `k`.
    fn by_number(&self, pictures: &[String], classes: &Classes) -> Result<Vec<(String, u32)>> {
        let lines: Vec<&str> = self.text.split_whitespace().collect();
        if lines.len() != pictures.len() {
            return Err(Error::format(&self.path, "number of lines", format!("{}, one a picture", pictures.len()), lines.len()));
        }
        let synsets = self.synset_list()?;
        let mut samples = Vec::with_capacity(pictures.len());
        // The numbers have leading zeros, so the order of the names is that of the numbers; checked, because a gap would shift all labels behind it.
        for (at, (picture, class)) in pictures.iter().zip(lines).enumerate() {
            if number(picture) != Some(at + 1) {
                return Err(Error::format(&self.path, format!("line {}", at + 1), format!("picture number {}", at + 1), base(picture)));
            }
            let field = || format!("line {}", at + 1);
            let class = match class.parse::<usize>() {
                Err(_) => class,
                Ok(id) => {
                    let (list, ids) = synsets.as_ref().ok_or_else(|| {
                        Error::format(&self.path, field(), "a class identifier, or a list of synsets that the number refers to", class)
                    })?;
                    let known = id.checked_sub(1).and_then(|place| ids.get(place));
                    known.ok_or_else(|| {
                        Error::format(&self.path, field(), format!("1 to {}, a line of {}", ids.len(), list.display()), id)
                    })?
                }
            };
            samples.push((picture.clone(), classes.index(&self.path, field, class)?));
        }
        Ok(samples)
    }

    fn synset_list(&self) -> Result<Option<(&Path, Vec<&str>)>> {
        let Some((path, text)) = &self.synsets else { return Ok(None) };
        let ids: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        // The devkit numbers its classes in an order of its own. With the usual alphabetical list, nearly every label would be wrong.
        if ids.len() == 1000 && ids.is_sorted() {
            return Err(Error::format(path, "order", "that of ILSVRC2012_ID in the devkit", "alphabetical"));
        }
        Ok(Some((path, ids)))
    }
}

/// A line's file and class.
type Fields = fn(&str) -> Option<(&str, &str)>;

fn comma_fields(line: &str) -> Option<(&str, &str)> {
    let (file, rest) = line.split_once(',')?;
    // Kaggle's second column goes on with boxes, behind a space.
    Some((file, rest.split([',', ' ']).next().unwrap_or(rest).trim()))
}

fn word_fields(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    words.next().zip(words.next())
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn number(name: &str) -> Option<usize> {
    let stem = stem(base(name));
    stem[stem.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}
