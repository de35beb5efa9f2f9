//! The files of a data set, in a folder or in an archive that need not be unpacked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use crate::{Dataset, Error, Info, Picture, Result, Sample, Split, archive::Archive};

/// A tree of files. Names are relative to its root, with `/` between their components.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// In the file system.
    Folder(PathBuf),
    /// In an archive; `root` is empty, or the name of the folder inside it with a `/`.
    Archive { archive: Arc<Archive>, root: String },
}

impl Files {
    /// A folder, or an archive.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        Ok(Self::Archive { archive: Arc::new(Archive::open(path)?), root: String::new() })
    }

    /// The same, or the single folder that is all there is in it, where `folder` is to be found there only: archives often have one around them.
    pub(crate) fn around(self, folder: &str) -> Result<Self> {
        if self.has_folder(folder) {
            return Ok(self);
        }
        let children = self.folders("")?;
        let [child] = children.as_slice() else { return Ok(self) };
        let inner = match &self {
            Self::Folder(path) => Self::Folder(path.join(child)),
            Self::Archive { archive, root } => Self::Archive { archive: Arc::clone(archive), root: format!("{root}{child}/") },
        };
        Ok(if inner.has_folder(folder) { inner } else { self })
    }

    /// Where a file is, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(path) if name.is_empty() => path.clone(),
            Self::Folder(path) => path.join(name),
            Self::Archive { archive, root } => archive.path().join(format!("{root}{name}")),
        }
    }

    pub(crate) fn has_file(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Archive { archive, root } => archive.has(&format!("{root}{name}")),
        }
    }

    pub(crate) fn has_folder(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_dir(),
            Self::Archive { archive, root } => archive.names(&format!("{root}{name}/")).next().is_some(),
        }
    }

    /// The names of the folders in folder `name` (the root: ``), sorted by their bytes; hidden ones left out.
    pub(crate) fn folders(&self, name: &str) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        match self {
            Self::Folder(_) => {
                for entry in self.entries(name)? {
                    if entry.path().is_dir() {
                        folders.push(self.component(name, &entry)?);
                    }
                }
            }
            Self::Archive { .. } => {
                for file in self.archived(name) {
                    if let Some((folder, _)) = file.split_once('/')
                        && folders.last().is_none_or(|last| last != folder)
                    {
                        folders.push(folder.to_owned());
                    }
                }
            }
        }
        folders.retain(|folder| !is_hidden(folder));
        folders.sort_unstable();
        folders.dedup();
        Ok(folders)
    }

    /// The picture files below folder `name`, at any depth, sorted by their bytes. Files that are hidden or something else are
    /// left out, and counted in `ignored`.
    pub(crate) fn pictures(&self, name: &str, ignored: &mut BTreeMap<String, u64>) -> Result<Vec<String>> {
        let mut pictures = Vec::new();
        match self {
            Self::Folder(_) => self.walk(name, &mut pictures)?,
            Self::Archive { .. } => pictures.extend(self.archived(name).into_iter().map(|file| join(name, &file))),
        }
        let inside = if name.is_empty() { 0 } else { name.len() + 1 };
        pictures.retain(|file| match kind(&file[inside..]) {
            None => true,
            Some(reason) => {
                *ignored.entry(reason).or_default() += 1;
                false
            }
        });
        pictures.sort_unstable();
        Ok(pictures)
    }

    /// The names of the files directly in the root, sorted.
    pub(crate) fn top(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        match self {
            Self::Folder(_) => {
                for entry in self.entries("")? {
                    if entry.path().is_file() {
                        files.push(self.component("", &entry)?);
                    }
                }
            }
            Self::Archive { .. } => files.extend(self.archived("").into_iter().filter(|file| !file.contains('/'))),
        }
        files.sort_unstable();
        Ok(files)
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let failed = |source| Error::io(self.path(name), "read", source);
        match self {
            Self::Folder(path) => fs::read(path.join(name)).map_err(failed),
            Self::Archive { archive, root } => archive.read(&format!("{root}{name}")).map_err(failed),
        }
    }

    /// The length of a file, and when it was written; of an archive's files, those of the archive. For [`Dataset::stamp`].
    fn stamp(&self, name: &str) -> Option<[u64; 2]> {
        let found = match self {
            Self::Folder(path) => fs::metadata(path.join(name)),
            Self::Archive { archive, .. } => fs::metadata(archive.path()),
        };
        let found = found.ok()?;
        let written = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some([found.len(), written.as_nanos() as u64])
    }

    /// Of an archive that is best read from its start: where in it a file is.
    pub(crate) fn rank(&self, name: &str) -> Option<u64> {
        match self {
            Self::Folder(_) => None,
            Self::Archive { archive, root } => archive.rank(&format!("{root}{name}")),
        }
    }

    /// A file of text.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        String::from_utf8(self.read(name)?).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::format(self.path(name), format!("byte {at}"), "UTF-8 text", format!("{:#04x}", error.as_bytes()[at]))
        })
    }

    fn walk(&self, name: &str, files: &mut Vec<String>) -> Result<()> {
        for entry in self.entries(name)? {
            let component = self.component(name, &entry)?;
            let inner = join(name, &component);
            let kind = entry.file_type().map_err(|source| Error::io(entry.path(), "look at", source))?;
            // Large sets are often assembled from links, so links are followed; asking the disk about each picture would be slow.
            if !is_hidden(&component) && (kind.is_dir() || kind.is_symlink() && entry.path().is_dir()) {
                self.walk(&inner, files)?;
            } else {
                files.push(inner);
            }
        }
        Ok(())
    }

    fn entries(&self, name: &str) -> Result<Vec<fs::DirEntry>> {
        let path = self.path(name);
        let entries = fs::read_dir(&path).and_then(Iterator::collect);
        entries.map_err(|source| Error::io(path, "list", source))
    }

    fn component(&self, name: &str, entry: &fs::DirEntry) -> Result<String> {
        let found = entry.file_name();
        found.into_string().map_err(|found| Error::format(self.path(name), "name of a file", "UTF-8", found.to_string_lossy()))
    }

    /// The files below folder `name` of an archive, relative to it, sorted; none of a folder.
    pub(crate) fn archived(&self, name: &str) -> Vec<String> {
        let Self::Archive { archive, root } = self else { return Vec::new() };
        let prefix = if name.is_empty() { root.clone() } else { format!("{root}{name}/") };
        archive.names(&prefix).map(|file| file[prefix.len()..].to_owned()).collect()
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a name is that of a JPEG or PNG, and not hidden.
pub(crate) fn is_picture(name: &str) -> bool {
    kind(name).is_none()
}

/// What a file is if it is no picture, by its name: hidden (copies made on a Mac are full of `._n01440764_10026.JPEG`), or of some ending.
fn kind(name: &str) -> Option<String> {
    if name.split('/').any(is_hidden) {
        return Some("hidden".to_owned());
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()) {
        Some(ending) if matches!(ending.as_str(), "jpg" | "jpeg" | "png") => None,
        Some(ending) => Some(format!(".{ending}")),
        None => Some("without an ending".to_owned()),
    }
}

fn is_hidden(component: &str) -> bool {
    component.starts_with('.') || component == "__MACOSX"
}

/// A data set of picture files, each named with its class: what every reader of a tree ends as.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    files: Files,
    info: Info,
    splits: Vec<Vec<(String, u32)>>,
    ignored: BTreeMap<String, u64>,
}

impl Listing {
    /// Splits of `(file, class)`, their order that of the samples, except in a compressed archive: there it is the archive's.
    pub(crate) fn new(
        name: &str,
        classes: Vec<String>,
        files: Files,
        mut splits: Vec<(&str, Vec<(String, u32)>)>,
        ignored: BTreeMap<String, u64>,
    ) -> Self {
        for (_, files_of_split) in &mut splits {
            files_of_split.sort_by_cached_key(|(name, _)| files.rank(name));
        }
        let parts = splits.iter().map(|(name, files)| Split { name: (*name).to_owned(), len: files.len() }).collect();
        let info = Info { name: name.to_owned(), classes, splits: parts };
        Self { files, info, splits: splits.into_iter().map(|(_, files)| files).collect(), ignored }
    }
}

impl Dataset for Listing {
    fn info(&self) -> &Info {
        &self.info
    }

    fn ignored(&self) -> BTreeMap<String, u64> {
        self.ignored.clone()
    }

    fn stamp(&self, split: usize, index: usize) -> Option<[u64; 2]> {
        self.files.stamp(&self.splits[split][index].0)
    }

    fn get(&self, split: usize, index: usize) -> Result<Sample> {
        let (name, label) = &self.splits[split][index];
        Ok(Sample { picture: Picture::Encoded(self.files.read(name)?), label: *label, name: name.clone() })
    }
}
